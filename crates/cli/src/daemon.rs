//! The process that serves a mount, from the first request to the unmount.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};

use super::mount::MountPlan;
use super::{output, progress, time};
use imgfs_core::fs::{self, Unmounter};
use imgfs_core::mount::{
    Cleared, Image, Live, MountRecord, Opened, Prepared, clear, forget_quarantined, prove,
    prove_diff_ids,
};
use imgfs_core::store::Store;

/// What the serving process says to the one that started it.
pub(super) const READY: &str = "ready";

/// Mounts and serves until somebody unmounts. With `report`, says [`READY`] on stdout once the mount is ready
/// and then leaves the terminal.
pub(super) async fn serve(
    store: Arc<Store>,
    plan: MountPlan,
    quiet: bool,
    report: bool,
) -> anyhow::Result<()> {
    fs::check_device()?;
    if clear(&plan.dir)? == Cleared::DeadMount && !quiet {
        output::message(&format!(
            "replacing a dead mount on {}: its process was killed",
            plan.dir.display()
        ));
    }
    let mut signals = Signals::listen()?;
    let request = plan.options.request(&plan.image)?;
    let asked_for = request.name();
    let opening = async {
        let image = Image::resolve_to_open(&store, &request).await?;
        time::say_freshness(&image.freshness, quiet);
        let prepared = Prepared::find(&store, image).await;
        let downloads = prepared.downloads();
        let shown = progress::show(&downloads, quiet);
        let opened = Opened::open(&store, prepared, &downloads).await?;
        drop(shown);
        anyhow::Ok(opened)
    };
    let opened: Opened = tokio::select! {
        opened = opening => opened.with_context(|| format!("cannot mount {asked_for}"))?,
        () = signals.next() => anyhow::bail!("interrupted before the mount was ready"),
    };
    // Of several names that it could have meant, the one that was found.
    let name = opened.image.reference.to_string();
    let mut options = plan.mount;
    options.source = name.clone();
    let runtime = tokio::runtime::Handle::current();
    let served = Arc::clone(&opened.fs);
    served.fetch_executables(plan.fetch_executables);
    let mounted = tokio::task::block_in_place(|| fs::serve(served, &plan.dir, &options, runtime))?;
    let unmounter = mounted.unmounter();
    let record = MountRecord {
        pid: std::process::id(),
        mountpoint: unmounter.mountpoint().to_owned(),
        reference: name,
        manifest: opened
            .image
            .resolved
            .manifest_digest()
            .map(ToString::to_string)
            .unwrap_or_default(),
        since: SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_secs()),
        cache: Some(store.place()),
    };
    let live = Arc::new(Live::new(record, Arc::clone(&store), &opened));
    // Serving goes on without: only `ps` and `status` miss it.
    match live.listen() {
        Ok(listener) => drop(tokio::spawn(Arc::clone(&live).answer(listener))),
        Err(err) => tracing::warn!("no status of this mount: {err:#}"),
    }
    if report {
        leave_terminal()?;
        if quiet {
            output::log_warnings();
        }
    } else if !quiet {
        output::message(&format!(
            "{} is mounted on {}",
            options.source,
            plan.dir.display()
        ));
    }
    for (layer, parts) in opened.prefetches() {
        tokio::spawn(async move {
            for part in parts {
                // It is only about speed: whoever reads these bytes is told what is wrong.
                if let Err(err) = layer.prefetch(part).await {
                    tracing::debug!("prefetching ended: {err}");
                    return;
                }
            }
        });
    }
    let ended = Arc::new(AtomicBool::new(false));
    let checks = start_checks(&store, &opened, &ended);
    if let Some(forgetter) = mounted.forgetter() {
        tokio::spawn(forget_quarantined(Arc::clone(&opened.fs), forgetter));
    }
    let proving = tokio::spawn(prove(Arc::clone(&store), opened.unproven()));
    drop(opened);
    let mut waiting = tokio::task::spawn_blocking(move || mounted.wait());
    let result = loop {
        tokio::select! {
            result = &mut waiting => break result,
            () = signals.next() => {
                store.stop_waiting();
                unmount_on_signal(&unmounter);
            }
        }
    };
    proving.abort();
    ended.store(true, Ordering::Relaxed);
    // It looks at `ended` after each MiB.
    let _finished = checks.join();
    MountRecord::remove(std::process::id());
    Ok(result.context("internal: the serving thread stopped")??)
}

/// What comes after the mount is ready: the DiffIds, and the cache's limit.
fn start_checks(
    store: &Arc<Store>,
    opened: &Opened,
    ended: &Arc<AtomicBool>,
) -> std::thread::JoinHandle<()> {
    let (store, ended) = (Arc::clone(store), Arc::clone(ended));
    let expected = opened.expected_diff_ids();
    std::thread::spawn(move || {
        if let Err(err) = store.enforce_limit() {
            tracing::warn!("cannot keep the cache within its limit: {err}");
        }
        prove_diff_ids(&store, &expected, || !ended.load(Ordering::Relaxed));
    })
}

/// Says that the mount is ready, and leaves session, terminal and directory of who started us.
fn leave_terminal() -> anyhow::Result<()> {
    let log = open_log().or_else(|err| {
        tracing::warn!("what this mount has to say later is lost: {err:#}");
        let nowhere = std::fs::File::options().write(true).open("/dev/null");
        nowhere.context("cannot open /dev/null")
    })?;
    rustix::process::setsid().context("cannot leave the terminal")?;
    rustix::process::chdir("/").context("cannot leave the directory")?;
    // Last: whoever hears it relies on the mount from then on.
    output::line(READY)?;
    rustix::stdio::dup2_stdout(&log)?;
    rustix::stdio::dup2_stderr(&log)?;
    Ok(())
}

fn open_log() -> anyhow::Result<std::fs::File> {
    let path = MountRecord::log(std::process::id())?;
    let file = std::fs::File::options()
        .create(true)
        .append(true)
        .open(&path);
    file.with_context(|| format!("cannot write {}", path.display()))
}

fn unmount_on_signal(unmounter: &Unmounter) {
    let done = tokio::task::block_in_place(|| {
        unmounter.unmount(false).or_else(|err| {
            tracing::warn!("{err}; it ends with its last user");
            unmounter.unmount(true)
        })
    });
    if let Err(err) = done {
        tracing::error!("{err}");
    }
}

/// The signals that mean: end.
struct Signals([tokio::signal::unix::Signal; 3]);

impl Signals {
    fn listen() -> anyhow::Result<Self> {
        let listen = |kind| signal(kind).context("cannot listen for signals");
        Ok(Self([
            listen(SignalKind::terminate())?,
            listen(SignalKind::interrupt())?,
            listen(SignalKind::hangup())?,
        ]))
    }

    async fn next(&mut self) {
        let [terminate, interrupt, hangup] = &mut self.0;
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}
