//! From what somebody wants mounted to a mount that is served:
//!
//! ```text
//! MountRequest ── mountpoint free? which image? which indexes? ──> Mounting ── layers open, tree, session ──> Mounted
//! ```
//!
//! Between the two the caller may show what will be fetched.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use tracing::Instrument;

use super::fuse::{self, MountOptions, check_device};
use super::mounted::{Mounted, Serving};
use super::mountpoint::{Cleared, clear};
use super::mounts::Mounts;
use super::record::MountRecord;
use super::runtime_dir::MountId;
use crate::error::{EngineError, Expected, Result};
use crate::image::{Freshness, Image, LayerProgress, Opened, Prepared, Request};
use crate::store::{ReadPolicy, Store};

/// What is to be mounted where, and how.
#[derive(Clone)]
pub struct MountRequest {
    /// The image.
    pub image: Request,
    /// The directory.
    pub dir: PathBuf,
    /// How the kernel is to treat it. The source is set to the image's name.
    pub options: MountOptions,
    /// How patient its reads are.
    pub reads: ReadPolicy,
    /// Whether layers that are opened by a found index are proven in the background.
    pub prove: bool,
    /// Programs and libraries up to this size, in bytes, are fetched whole before they start; 0:
    /// none.
    pub fetch_executables: u64,
}

/// An image about to be mounted.
pub struct Mounting {
    mounts: Arc<Mounts>,
    id: MountId,
    span: tracing::Span,
    request: MountRequest,
    store: Arc<Store>,
    prepared: Prepared,
    freshness: Freshness,
    downloads: Vec<LayerProgress>,
    cleared: Cleared,
}

impl Mounting {
    pub(super) async fn prepare(mounts: Arc<Mounts>, request: MountRequest) -> Result<Self> {
        let id = MountId::new();
        let dir = request.dir.display();
        let span = tracing::error_span!("mount", %id, on = %dir);
        let preparing = async {
            check_device()?;
            let dir = request.dir.clone();
            let cleared = tokio::task::spawn_blocking(move || clear(&dir)).await;
            let cleared = cleared.expected("looking at the mountpoint stopped")??;
            // What its reads log is about this mount: the store takes the current span.
            let store = Store::of(&mounts.cache).with_reads(request.reads);
            let store = Arc::new(if request.prove {
                store.proving()
            } else {
                store
            });
            let image = Image::resolve_to_open(&store, &request.image).await?;
            let freshness = image.freshness.clone();
            let prepared = Prepared::find(&store, image).await;
            Ok::<_, EngineError>((cleared, store, freshness, prepared))
        };
        let (cleared, store, freshness, prepared) =
            Box::pin(preparing.instrument(span.clone())).await?;
        Ok(Self {
            downloads: prepared.downloads(),
            mounts,
            id,
            span,
            request,
            store,
            prepared,
            freshness,
            cleared,
        })
    }

    /// What its mount will be called.
    pub fn id(&self) -> &MountId {
        &self.id
    }

    /// What was in the way on the mountpoint.
    pub fn cleared(&self) -> Cleared {
        self.cleared
    }

    /// How the image's name was resolved.
    pub fn freshness(&self) -> &Freshness {
        &self.freshness
    }

    /// What [`Mounting::start`] will download before the mount is ready, to be looked at meanwhile.
    pub fn downloads(&self) -> &[LayerProgress] {
        &self.downloads
    }

    /// Opens the layers, mounts and serves. Dropping the future ends it, with nothing mounted.
    pub async fn start(self) -> Result<Mounted> {
        let span = self.span.clone();
        self.start_in_span().instrument(span).await
    }

    async fn start_in_span(self) -> Result<Mounted> {
        let Self {
            mounts,
            id,
            span,
            request,
            store,
            prepared,
            downloads,
            ..
        } = self;
        let opened = Opened::open(&store, prepared, &downloads, &mounts.trees).await?;
        opened.fs.fetch_executables(request.fetch_executables);
        let mut options = request.options;
        // Of several names that it could have meant, the one that was found.
        options.source = opened.image.reference.to_string();
        let (dir, runtime) = (request.dir, tokio::runtime::Handle::current());
        let in_span = span.clone();
        // The handshake waits for the kernel, and fusermount3 is a program to be run. It cannot be
        // given up; a mount that nobody waits for any more ends as one that is dropped.
        let connecting = move || {
            let _entered = in_span.enter();
            let session = fuse::serve(Arc::clone(&opened.fs), &dir, &options, runtime)?;
            let manifest = opened.image.resolved.manifest_digest();
            let record = MountRecord {
                id,
                pid: std::process::id(),
                mountpoint: session.unmounter.mountpoint().to_owned(),
                reference: options.source,
                manifest: manifest.map(ToString::to_string).unwrap_or_default(),
                since: SystemTime::now()
                    .duration_since(UNIX_EPOCH)
                    .map_or(0, |since| since.as_secs()),
                cache: Some(store.place()),
            };
            let serving = Serving {
                runtime_dir: mounts.runtime_dir.clone(),
                span,
                store,
                opened,
                session,
                record,
            };
            let of = Arc::clone(&mounts);
            let mounted = serving.begin(move |id| of.forget(id));
            mounts.add(&mounted);
            Ok(mounted)
        };
        let mounted = tokio::task::spawn_blocking(connecting).await;
        mounted.expected("mounting stopped")?
    }
}
