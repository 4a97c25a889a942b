//! The local cache: indexes, decoded layer bytes, manifests; and the reads that go through it.
//!
//! ```text
//! CACHE/v1/documents/…           manifests and configs          (disk/documents.rs)
//!          refs/…                what references pointed to     (disk/documents.rs)
//!          images/ALG/HEX.json   images that were resolved      (disk/catalog.rs)
//!          indexes/ALG/SLOT      layer indexes                  (LayerIndex, disk/findings.rs)
//!          layers/ALG/SLOT/…     decoded bytes of a layer       (disk/files.rs)
//!          midstates/ALG/HEX     for publishing                 (disk/midstates.rs)
//!          lock, trash/…         removal                        (upkeep/sweep.rs)
//! ```
//!
//! A slot is a layer's own index or one that was found (slot.rs).
//!
//! A layer without an index is streamed once ([`Store::open_layer`], `first_contact.rs`);
//! afterwards a [`LayerReader`] answers reads from the cache or fetches the spans they need.
//! Several processes share a cache: files appear whole by rename, spans by their mark, and locks
//! keep eviction away from what is in use.

mod disk;
mod error;
mod ingest;
mod prove;
mod read;
mod slot;
#[cfg(test)]
mod tests;
mod upkeep;
mod verify;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use tokio::sync::Semaphore;

pub use disk::{CachedDocuments, Finding, ImageRecord, KnownImage, LayerUse, Offline, TagRecord};
use error::Hope;
pub use error::StoreError;
pub use imgfs_formats::trust::{IndexKind, Trust};
pub use ingest::Progress;
pub use prove::{Proof, ProofStep};
pub use read::{Counters, LayerPin, LayerReader, OnError, ReadPolicy};
pub use slot::Slot;
pub use upkeep::{
    CacheFile, DEFAULT_LIMIT, Evicted, Holding, LayerUsage, Plan, Removal, Step, Swept,
};
pub use verify::{
    DocumentCheck, ImageCheck, ImageMended, IndexCheck, NameCheck, SpanCheck, SpanRepair,
};

use crate::cores::Cores;
use crate::source::BlobSource;
use disk::{LayerFiles, Locked, publish};
use imgfs_formats::layer::{IndexError, LayerIndex, SpanTable};
use imgfs_formats::oci::{Descriptor, Digest};
use ingest::{PARTS_AHEAD, PassOptions, index_layer};
use read::{ALL_RUNS_AHEAD, Demand, OpenLayers, Reads, RecentSpans};

/// Layers streamed at the same time at first contact; each needs three threads and a few MiB.
const LAYERS_AT_ONCE: usize = 4;

/// After so many bytes of lazy fetches the cache's limit is looked at again: rarely enough to cost
/// nothing.
const BYTES_BETWEEN_LIMITS: u64 = 256 << 20;

/// A cache directory, and what all users of it in one process share: budgets, and the layers that
/// are open.
pub struct Cache {
    root: PathBuf,
    /// Disk space for decoded layer bytes, in bytes.
    limit: u64,
    /// Budget of parts fetched ahead, over all layers.
    parts_ahead: Arc<Semaphore>,
    /// Bounds how many layers are streamed at once.
    first_contacts: Semaphore,
    /// Bounds work that is pure CPU: decoding spans, loading indexes, building trees.
    cores: Cores,
    /// Bounds what is fetched before anybody asked for it, over all layers of all users.
    runs_ahead: Arc<Semaphore>,
    warned: AtomicBool,
    recent: RecentSpans,
    demand: Demand,
    /// One layer is proven at a time: whose turn it is.
    proof_turn: Arc<Semaphore>,
    /// Bytes written by lazy fetches since the limit was looked at.
    written: AtomicU64,
    /// Held by the thread that enforces the limit.
    enforcing: Mutex<()>,
    /// The layers that somebody reads.
    open_layers: OpenLayers,
}

/// One user of a [`Cache`]: a mount, or a command. Its reads have their own patience and their own
/// end; layers that several users read are shared between them.
pub struct Store {
    cache: Arc<Cache>,
    reads: Reads,
}

impl std::ops::Deref for Store {
    type Target = Cache;

    fn deref(&self) -> &Cache {
        &self.cache
    }
}

/// A layer that is ready to be read.
pub struct OpenLayer {
    /// Its index, for the tree.
    pub index: LayerIndex,
    /// Its bytes.
    pub reader: Arc<LayerReader>,
}

impl Store {
    /// The only user of a cache in this process: see [`Cache::open`].
    pub fn open(dir: &Path, limit: u64) -> Result<Self, StoreError> {
        Ok(Self::of(&Arc::new(Cache::open(dir, limit)?)))
    }

    /// Another user of this cache.
    pub fn of(cache: &Arc<Cache>) -> Self {
        Self {
            cache: Arc::clone(cache),
            reads: Reads::new(ReadPolicy::default()),
        }
    }

    /// The same with reads as patient as this.
    #[must_use]
    pub fn with_reads(self, policy: ReadPolicy) -> Self {
        Self {
            reads: self.reads.with_policy(policy),
            ..self
        }
    }

    /// The same, and what is fetched of a layer that was opened by a found index is kept, so that
    /// [`LayerReader::prove`] can prove it.
    #[must_use]
    pub fn proving(mut self) -> Self {
        self.reads.proving = true;
        self
    }

    /// The cache, for other users of it.
    pub fn cache(&self) -> &Arc<Cache> {
        &self.cache
    }

    /// This user's reads that wait fail from now on: its mount has to end.
    pub fn stop_waiting(&self) {
        self.reads.end();
    }

    /// Opens a layer: from its index if there is one, else by streaming it once from `source`. Must
    /// run on the runtime. With [`crate::source::SourceError`]s of an offline source a layer
    /// without index cannot be opened.
    pub async fn open_layer(
        self: &Arc<Self>,
        source: &Arc<dyn BlobSource>,
        blob: &Descriptor,
        progress: &Progress,
    ) -> Result<OpenLayer, StoreError> {
        self.open_keeping(source, blob, PassOptions::default(), progress)
            .await
    }

    /// Likewise; a first contact does what `options` say.
    async fn open_keeping(
        self: &Arc<Self>,
        source: &Arc<dyn BlobSource>,
        blob: &Descriptor,
        options: PassOptions,
        progress: &Progress,
    ) -> Result<OpenLayer, StoreError> {
        let slot = Slot::own(blob.digest);
        let dir = self.layer_dir(&slot);
        let files = Arc::new(LayerFiles::open(&dir).await?);
        if let Some(index) = self.cache.load_index_beside(&slot, false).await? {
            return Ok(self.opened(index, files, source, blob, slot));
        }
        let _turn = self
            .first_contacts
            .acquire()
            .await
            .map_err(|_| StoreError::Worker("queue"))?;
        // Another process may be at it: one does the work, the others wait and find the index.
        let _lock = Locked::take(&dir.join("build"), || {
            let layer = blob.digest.short();
            tracing::info!("layer {layer}: waiting for another process that fetches it");
        })
        .await?;
        let index = if let Some(index) = self.cache.load_index_beside(&slot, false).await? {
            index
        } else {
            let source = Arc::clone(source);
            index_layer(self, source, blob, &dir, options, progress).await?
        };
        // Other files now, whoever made them; the old ones' lock kept eviction away until here.
        let new_files = Arc::new(LayerFiles::open(&dir).await?);
        drop(files);
        Ok(self.opened(index, new_files, source, blob, slot))
    }

    fn opened(
        self: &Arc<Self>,
        mut index: LayerIndex,
        files: Arc<LayerFiles>,
        source: &Arc<dyn BlobSource>,
        blob: &Descriptor,
        slot: Slot,
    ) -> OpenLayer {
        index.file_digests = Vec::new();
        let spans = index.spans.clone();
        let reader = self.reader(spans, files, source, blob, slot);
        OpenLayer { index, reader }
    }

    /// What reads a layer for this user. Must be called on the runtime.
    fn reader(
        self: &Arc<Self>,
        spans: SpanTable,
        files: Arc<LayerFiles>,
        source: &Arc<dyn BlobSource>,
        blob: &Descriptor,
        slot: Slot,
    ) -> Arc<LayerReader> {
        let shared = self.open_layers.share(spans, files, slot);
        LayerReader::new(Arc::clone(self), shared, Arc::clone(source), blob.clone())
    }
}

impl Cache {
    /// Opens (or creates) the cache in `dir`; `limit` bounds the space for layer bytes.
    pub fn open(dir: &Path, limit: u64) -> Result<Self, StoreError> {
        let root = dir.join("v1");
        std::fs::create_dir_all(&root).map_err(StoreError::io("create", &root))?;
        Ok(Self {
            root,
            limit,
            parts_ahead: Arc::new(Semaphore::new(PARTS_AHEAD)),
            first_contacts: Semaphore::new(LAYERS_AT_ONCE),
            cores: Cores::default(),
            runs_ahead: Arc::new(Semaphore::new(ALL_RUNS_AHEAD)),
            warned: AtomicBool::new(false),
            recent: RecentSpans::default(),
            demand: Demand::default(),
            proof_turn: Arc::new(Semaphore::new(1)),
            written: AtomicU64::new(0),
            enforcing: Mutex::new(()),
            open_layers: OpenLayers::default(),
        })
    }

    /// What bounds work that is pure CPU.
    pub(crate) fn cores(&self) -> &Cores {
        &self.cores
    }

    /// The index of a layer, if it is here and intact. A bad or older file counts as none and is
    /// made anew.
    pub fn load_index(
        &self,
        slot: &Slot,
        with_digests: bool,
    ) -> Result<Option<LayerIndex>, StoreError> {
        let path = self.index_path(slot);
        let file = match std::fs::File::open(&path) {
            Ok(file) => file,
            Err(err) if err.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(err) => return Err(StoreError::io("open", &path)(err)),
        };
        match LayerIndex::read(file, slot.layer(), with_digests) {
            Ok(index) => Ok(Some(index)),
            Err(IndexError::Version) => Ok(None),
            Err(err) => {
                let layer = slot.layer().short();
                tracing::warn!("index of layer {layer} is made anew: {err}");
                Ok(None)
            }
        }
    }

    /// The same on a thread where nothing else waits for it.
    pub(crate) async fn load_index_beside(
        self: &Arc<Self>,
        slot: &Slot,
        with_digests: bool,
    ) -> Result<Option<LayerIndex>, StoreError> {
        let (cache, slot) = (Arc::clone(self), slot.clone());
        let load = move || cache.load_index(&slot, with_digests);
        let loaded = self.cores.run(load).await;
        loaded.ok_or(StoreError::Worker("loading an index"))?
    }

    /// Size of an index file in bytes, 0 if there is none.
    pub fn index_size(&self, slot: &Slot) -> u64 {
        std::fs::metadata(self.index_path(slot)).map_or(0, |metadata| metadata.len())
    }

    /// Writes down the index of a layer, or says once that nothing can be written.
    fn keep_index(&self, slot: &Slot, index: &LayerIndex) -> Result<(), StoreError> {
        let encoded = index.encode().map_err(|cause| StoreError::Index {
            layer: *slot.layer(),
            cause,
        })?;
        if let Err(err) = publish(&self.index_path(slot), &encoded) {
            self.caching_failed(&err);
        }
        Ok(())
    }

    /// Disk space for layer bytes, in bytes.
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// Whether a layer has an index of its own here, so that opening it needs no download.
    pub fn has_index(&self, layer: &Digest) -> bool {
        let mut start = [0; LayerIndex::START];
        let file = std::fs::File::open(self.index_path(&Slot::own(*layer)));
        let read = file.and_then(|mut file| std::io::Read::read_exact(&mut file, &mut start));
        read.is_ok() && LayerIndex::is_current(&start)
    }

    /// Lazy fetches wrote so many bytes: now and then the limit is enforced on what is not in use.
    /// Reads the disk.
    fn note_written(&self, bytes: u64) {
        let before = self.written.fetch_add(bytes, Ordering::Relaxed);
        if before / BYTES_BETWEEN_LIMITS == (before + bytes) / BYTES_BETWEEN_LIMITS {
            return;
        }
        if let Err(err) = self.enforce_limit() {
            tracing::warn!("cannot keep the cache within its limit: {err}");
        }
    }

    /// The cache cannot be written (usually a full disk): said once, then imgfs goes on without.
    fn caching_failed(&self, cause: &dyn std::fmt::Display) {
        if !self.warned.swap(true, Ordering::Relaxed) {
            tracing::warn!("the cache cannot be written, going on without: {cause}");
        }
    }

    fn index_path(&self, slot: &Slot) -> PathBuf {
        self.by_slot("indexes", slot)
    }

    fn layer_dir(&self, slot: &Slot) -> PathBuf {
        self.by_slot("layers", slot)
    }

    fn by_digest(&self, kind: &str, digest: &Digest) -> PathBuf {
        self.root
            .join(kind)
            .join(digest.algorithm().name())
            .join(digest.hex())
    }

    fn by_slot(&self, kind: &str, slot: &Slot) -> PathBuf {
        self.root
            .join(kind)
            .join(slot.layer().algorithm().name())
            .join(slot.to_string())
    }
}
