//! A mount that is served, with all that goes on beside: its record and status, what is fetched
//! beforehand, the check of its layers' DiffIds, their proof, and what the kernel has to forget.
//!
//! All of it are tasks of one set, which ends with the mount: by whatever hand it is unmounted, the
//! session's end ends them, then the record goes, then waiters are told. So the cache is free when
//! a waiter goes on.

use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::Instrument;

use super::diff_ids::check_diff_ids;
use super::fuse::{MountError, Session, Unmounter};
use super::prove::{forget_quarantined, prove};
use super::record::MountRecord;
use super::runtime_dir::{MountId, RuntimeDir};
use super::status::{Live, MountStatus};
use crate::error::{Expected, Result};
use crate::image::Opened;
use crate::memory;
use crate::store::Store;

/// A mount of this process. Clones are the same mount; when the last one is gone and nobody has
/// unmounted it, it is taken out of sight and ends with its last user.
#[derive(Clone)]
pub struct Mounted(Arc<Shared>);

pub(super) struct Shared {
    store: Arc<Store>,
    unmounter: Unmounter,
    live: Arc<Live>,
    /// Nothing as long as it is served.
    ended: watch::Receiver<Option<Arc<std::result::Result<(), MountError>>>>,
}

impl Mounted {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self(shared)
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.0
    }

    /// Its id.
    pub fn id(&self) -> &MountId {
        &self.record().id
    }

    /// What is mounted where.
    pub fn record(&self) -> &MountRecord {
        self.0.live.record()
    }

    /// What it has fetched, what is cached, and how far its layers are proven. Reads the disk.
    pub fn status(&self) -> MountStatus {
        self.0.live.status()
    }

    /// Whether it has ended.
    pub fn has_ended(&self) -> bool {
        self.0.ended.borrow().is_some()
    }

    /// Its reads that wait for the network fail from now on, so that programs in them can end.
    pub fn stop_waiting(&self) {
        self.0.store.stop_waiting();
    }

    /// Unmounts it. A mount in use is refused, or, if `lazy`, taken out of sight and ended with its
    /// last user.
    pub async fn unmount(&self, lazy: bool) -> Result<()> {
        let unmounter = self.0.unmounter.clone();
        let done = tokio::task::spawn_blocking(move || unmounter.unmount(lazy)).await;
        Ok(done.expected("unmounting stopped")??)
    }

    /// Waits until it is unmounted, by whoever, the last user has left, and nothing of it is left
    /// in this process.
    pub async fn wait(&self) -> Result<()> {
        let mut ended = self.0.ended.clone();
        let ended = ended.wait_for(Option::is_some).await;
        let ended = ended.ok().and_then(|ended| ended.clone());
        match ended.as_deref() {
            Some(Err(err)) => Err(err.again().into()),
            // The runtime that served it is gone.
            Some(Ok(())) | None => Ok(()),
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if self.ended.borrow().is_none()
            && let Err(err) = self.unmounter.unmount(true)
        {
            tracing::warn!(cause = %err, "the mount stays behind");
        }
    }
}

/// A mount whose session has just begun.
pub(super) struct Serving {
    /// Where other processes find it.
    pub(super) runtime_dir: RuntimeDir,
    pub(super) span: tracing::Span,
    pub(super) store: Arc<Store>,
    pub(super) opened: Opened,
    pub(super) session: Session,
    pub(super) record: MountRecord,
}

impl Serving {
    /// Starts what goes on beside it; `at_end` is done when nothing of it is left but that. Must
    /// run on the runtime.
    pub(super) fn begin(self, at_end: impl FnOnce(&MountId) + Send + 'static) -> Mounted {
        let Self {
            runtime_dir,
            span,
            store,
            opened,
            session,
            record,
        } = self;
        let id = record.id.clone();
        let live = Arc::new(Live::new(record, Arc::clone(&store), &opened));
        let mut tasks = Tasks {
            set: JoinSet::new(),
            span: span.clone(),
        };
        // Serving goes on without: only other processes miss it.
        match live.listen(&runtime_dir) {
            Ok(listener) => tasks.spawn(Arc::clone(&live).answer(listener)),
            Err(err) => tracing::warn!("no status of this mount: {err:#}"),
        }
        for landmarks in opened.landmarks() {
            tasks.spawn(landmarks.fetch());
        }
        tasks.spawn(check_diff_ids(
            Arc::clone(&store),
            opened.expected_diff_ids(),
        ));
        tasks.spawn(forget_quarantined(
            Arc::clone(&opened.fs),
            session.forgetter,
        ));
        tasks.spawn(prove(Arc::clone(&store), opened.unproven()));
        drop(opened);
        let (sender, ended) = watch::channel(None);
        let mounted = Mounted(Arc::new(Shared {
            store,
            unmounter: session.unmounter,
            live,
            ended,
        }));
        let ending = async move {
            // Its thread sends, or has panicked, which nothing here can mend.
            let result = session.ended.await.unwrap_or(Ok(()));
            tasks.set.shutdown().await;
            memory::give_back();
            runtime_dir.remove(&id);
            at_end(&id);
            sender.send_replace(Some(Arc::new(result)));
        };
        tokio::spawn(ending.instrument(span));
        mounted
    }
}

/// What goes on beside a mount.
struct Tasks {
    set: JoinSet<()>,
    span: tracing::Span,
}

impl Tasks {
    fn spawn(&mut self, task: impl Future<Output = ()> + Send + 'static) {
        self.set.spawn(task.instrument(self.span.clone()));
    }
}
