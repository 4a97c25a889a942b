//! Reading a layer: from the cache when the spans are there, else by fetching them.
//!
//! Each span of an open layer is in one of these states ([`SpanState`]), for all readers of this
//! process:
//!
//! ```text
//! Unknown ── read from disk, digest right ──────────> Ready     (bytes may be served)
//! Unknown ── not marked present, or digest wrong ───> Missing
//! Missing ── fetched, verified, decoded, written ───> Ready
//! Missing ── the same by another process ───────────> Ready     (after its digest was checked here too)
//! Missing ── fetched, but the disk is full ─────────> Missing   (served from memory, see `super::recent`)
//! ```
//!
//! `Ready` never ends while the layer is open: the files' shared lock keeps eviction away.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use tokio::runtime::Handle;

use super::open_layers::{SharedLayer, SpanState};
use super::quarantine::Quarantine;
use super::reads::LastFailure;
use crate::buffers::with_buffer;
use crate::source::BlobSource;
use crate::store::disk::LayerFiles;
use crate::store::prove::{Keeping, ProofCell};
use crate::store::{Slot, Store, StoreError};
use imgfs_formats::layer::{Span, SpanDigest, SpanTable};
use imgfs_formats::oci::{Descriptor, Digest};

/// Reads the uncompressed bytes of one layer, for one user of the cache. What all users share of
/// the layer is in [`SharedLayer`]; where its bytes come from, how long reads wait, what it has
/// cost and whether it contradicts the image that it is read for is each user's own.
pub struct LayerReader {
    pub(super) store: Arc<Store>,
    pub(super) shared: Arc<SharedLayer>,
    pub(super) source: Arc<dyn BlobSource>,
    pub(super) blob: Descriptor,
    pub(super) counters: LiveCounters,
    pub(super) last_failure: LastFailure,
    proof: ProofCell,
    /// Keeps what is fetched, if the layer is to be proven; then it is `source`, too.
    keeping: OnceLock<Arc<Keeping>>,
    /// Runs what is fetched ahead, which a thread of the kernel's may begin.
    pub(super) runtime: Handle,
    /// That the layer contradicts the image that it is read for.
    quarantine: Quarantine,
}

/// What a layer has cost so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Compressed bytes fetched lazily.
    pub fetched: u64,
    /// Ranges asked for lazily.
    pub fetches: u64,
    /// Uncompressed bytes of the layer that are in the cache (this process's view).
    pub cached: u64,
    /// Uncompressed size of the layer.
    pub size: u64,
}

/// A layer that is not evicted while this lives.
pub struct LayerPin {
    /// Uncompressed size in bytes.
    pub size: u64,
    _lock: Arc<std::fs::File>,
}

#[derive(Default)]
pub(super) struct LiveCounters {
    pub(super) fetched: AtomicU64,
    pub(super) fetches: AtomicU64,
}

impl LayerReader {
    /// Must be called on the runtime.
    pub(in crate::store) fn new(
        store: Arc<Store>,
        shared: Arc<SharedLayer>,
        source: Arc<dyn BlobSource>,
        blob: Descriptor,
    ) -> Arc<Self> {
        Arc::new(Self {
            store,
            shared,
            source,
            blob,
            counters: LiveCounters::default(),
            last_failure: LastFailure::default(),
            proof: ProofCell::default(),
            keeping: OnceLock::new(),
            runtime: Handle::current(),
            quarantine: Quarantine::default(),
        })
    }

    /// Whose reads these are.
    pub(in crate::store) fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// Where missing bytes come from.
    pub(in crate::store) fn source(&self) -> &Arc<dyn BlobSource> {
        &self.source
    }

    /// The layer's blob.
    pub(in crate::store) fn blob(&self) -> &Descriptor {
        &self.blob
    }

    /// The table of its spans.
    pub(in crate::store) fn spans(&self) -> &SpanTable {
        &self.shared.spans
    }

    /// Its files in the cache.
    pub(in crate::store) fn files(&self) -> &Arc<LayerFiles> {
        &self.shared.files
    }

    /// How far its proof is, to be moved on.
    pub(in crate::store) fn proof_cell(&self) -> &ProofCell {
        &self.proof
    }

    /// What keeps the fetched bytes for a proof, once that is asked for.
    pub(in crate::store) fn keeping(&self) -> &OnceLock<Arc<Keeping>> {
        &self.keeping
    }

    /// Whether nothing of the layer is being fetched.
    pub(in crate::store) fn is_idle(&self) -> bool {
        self.shared.flights.are_none()
    }

    /// How the kernel's second request about a read that begins with this span is answered, if the
    /// first one failed just now.
    pub(in crate::store) fn last_failure(&self, span: usize) -> Option<StoreError> {
        self.last_failure.take(span)
    }

    /// A turn to compute the layer's DiffId, one at a time in this process.
    pub(in crate::store) async fn diff_id_turn(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.shared.diff_id_turn.lock().await
    }

    /// These spans are to be looked for on the disk again.
    pub(in crate::store) fn doubt(&self, ids: &[usize]) {
        for id in ids {
            self.shared.set_state(*id, SpanState::Unknown);
        }
    }

    /// Digest of the layer's blob.
    pub fn digest(&self) -> &Digest {
        &self.blob.digest
    }

    /// Size of the layer's blob in bytes.
    pub fn blob_size(&self) -> u64 {
        self.blob.size
    }

    /// The index that it is read by.
    pub fn slot(&self) -> &Slot {
        &self.shared.slot
    }

    /// Uncompressed size in bytes.
    pub fn size(&self) -> u64 {
        self.shared.spans.layer_size()
    }

    /// What runs work that nobody waits for, begun on any thread.
    pub fn runtime(&self) -> &Handle {
        &self.runtime
    }

    /// Keeps what is in the cache of it there, without the files that reading needs.
    pub fn pin(&self) -> LayerPin {
        LayerPin {
            size: self.size(),
            _lock: self.shared.files.lock(),
        }
    }

    /// What the layer has cost so far. May read the disk.
    pub fn counters(&self) -> Counters {
        let marks = self
            .shared
            .files
            .marks(self.shared.spans.len())
            .unwrap_or_default();
        let present = self
            .shared
            .spans
            .iter()
            .zip(marks)
            .filter(|(_, mark)| *mark != 0);
        Counters {
            fetched: self.counters.fetched.load(Ordering::Relaxed),
            fetches: self.counters.fetches.load(Ordering::Relaxed),
            cached: present.map(|(span, _)| span.size() as u64).sum(),
            size: self.size(),
        }
    }

    /// For each span, the bytes of the blob that reading it would fetch: none if it is in the
    /// cache. May read the disk.
    pub fn to_fetch(&self) -> Vec<u64> {
        let marks = self
            .shared
            .files
            .marks(self.shared.spans.len())
            .unwrap_or_default();
        let marks = marks.into_iter().chain(std::iter::repeat(0));
        let fetch = |span: &Span| span.compressed.end - span.compressed.start;
        (self.shared.spans.iter().zip(marks))
            .map(|(span, mark)| if mark == 0 { fetch(span) } else { 0 })
            .collect()
    }

    /// From now on nothing of this layer is served to anybody: it and its index contradict each
    /// other.
    pub fn quarantine(&self, reason: String) {
        Self::begin_quarantine(&self.shared.quarantine, &self.blob, reason);
    }

    /// From now on nothing of this layer is served to this user: it is not the one that his image
    /// means. Others may read it by images that mean it.
    pub fn quarantine_here(&self, reason: String) {
        Self::begin_quarantine(&self.quarantine, &self.blob, reason);
    }

    fn begin_quarantine(quarantine: &Quarantine, blob: &Descriptor, reason: String) {
        let text = format!("layer {} is quarantined: {reason}", blob.digest);
        if quarantine.begin(reason) {
            tracing::error!("{text}");
        }
    }

    /// Ends when nothing of this layer is served any more.
    pub async fn until_quarantined(&self) {
        tokio::select! {
            () = self.quarantine.until_begun() => {}
            () = self.shared.quarantine.until_begun() => {}
        }
    }

    /// Why nothing of this layer is served, if so.
    pub fn quarantine_reason(&self) -> Option<&str> {
        let shared = self.shared.quarantine.reason();
        shared.or_else(|| self.quarantine_reason_here())
    }

    /// Why nothing of this layer is served to this user alone, if so.
    pub(in crate::store) fn quarantine_reason_here(&self) -> Option<&str> {
        self.quarantine.reason()
    }

    /// Fills `buf` with the layer's uncompressed bytes from `offset` on if all of them can be had
    /// without the network; says `false`, with `buf` in any state, if not. May read the disk.
    pub fn try_read_at(self: &Arc<Self>, offset: u64, buf: &mut [u8]) -> Result<bool, StoreError> {
        let is_read = self.try_read_quietly(offset, buf)?;
        if is_read {
            self.note_read(
                self.shared
                    .spans
                    .covering(offset..offset + buf.len() as u64),
            );
        }
        Ok(is_read)
    }

    /// The same for work on behalf of nobody: it does not count as a read that others may follow.
    pub fn try_read_quietly(&self, offset: u64, buf: &mut [u8]) -> Result<bool, StoreError> {
        let range = self.range(offset, buf.len())?;
        let ids = self.shared.spans.covering(range.clone());
        let mut from_disk = true;
        for id in ids.clone() {
            match self.shared.state(id) {
                SpanState::Ready => {}
                SpanState::Missing => from_disk = false,
                SpanState::Unknown => from_disk &= self.verify_on_disk(id),
            }
        }
        if from_disk {
            let path = || self.store.layer_dir(&self.shared.slot).join("data");
            self.shared
                .files
                .read_unchecked(offset, buf)
                .map_err(|err| StoreError::io("read", &path())(err))?;
            return Ok(true);
        }
        self.read_mixed(ids, &range, buf)
    }

    /// Fills `buf` likewise, fetching what is missing. Must run on the runtime.
    pub async fn read_at(self: &Arc<Self>, offset: u64, buf: &mut [u8]) -> Result<(), StoreError> {
        self.read_start_at(offset, buf, buf.len() as u64).await
    }

    /// Likewise, where all of the `whole` bytes from `offset` on are probably needed next, as far
    /// as they are here.
    pub async fn read_start_at(
        self: &Arc<Self>,
        offset: u64,
        buf: &mut [u8],
        whole: u64,
    ) -> Result<(), StoreError> {
        let range = self.range(offset, buf.len())?;
        // Asked again after the fetch: a span may have left memory meanwhile if the disk is full.
        // Then its pieces are taken one by one, each right after its fetch.
        if self.try_read_at(offset, buf)? {
            return Ok(());
        }
        let ids = self.shared.spans.covering(range.clone());
        let whole = self
            .shared
            .spans
            .covering(offset..offset.saturating_add(whole));
        self.ensure(ids.clone(), whole).await?;
        if self.try_read_at(offset, buf)? {
            return Ok(());
        }
        for id in ids {
            let bytes = self.decoded(id).await?;
            self.copy(id, &bytes, &range, buf);
        }
        Ok(())
    }

    /// Whether a span can be served without a fetch.
    pub(in crate::store) fn is_here(&self, id: usize) -> bool {
        match self.shared.state(id) {
            SpanState::Ready => true,
            SpanState::Missing => self.recent(id).is_some(),
            SpanState::Unknown => self.verify_on_disk(id) || self.recent(id).is_some(),
        }
    }

    /// Likewise, as far as that is known without reading the disk.
    pub(in crate::store) fn is_known_here(&self, id: usize) -> bool {
        self.shared.state(id) == SpanState::Ready || self.recent(id).is_some()
    }

    /// Whether another process has marked a span since it was found missing here.
    pub(in crate::store) fn is_marked_anew(&self, id: usize) -> bool {
        self.shared.state(id) == SpanState::Ready
            || self
                .shared
                .files
                .is_marked(id)
                .is_ok_and(|is_marked| is_marked)
    }

    /// Likewise, and it is right. Reads the disk.
    pub(in crate::store) fn has_arrived(&self, id: usize) -> bool {
        self.is_marked_anew(id)
            && (self.shared.state(id) == SpanState::Ready || self.verify_on_disk(id))
    }

    /// Whether spans that are fetched can be written to the cache, as far as is known.
    pub(in crate::store) fn is_kept(&self) -> bool {
        self.shared.is_kept()
    }

    /// Takes over a verified, decoded span: writes it and marks it, or keeps it in memory.
    pub(in crate::store) fn accept(&self, id: usize, span: &Span, bytes: Vec<u8>) {
        if self.is_kept() {
            let written = self
                .shared
                .files
                .write(span.uncompressed.start, &bytes)
                .and_then(|()| self.note_decoded(id, span, &bytes))
                .and_then(|()| self.shared.files.mark(id));
            match written {
                Ok(()) => {
                    self.shared.set_state(id, SpanState::Ready);
                    self.store.note_written(bytes.len() as u64);
                    return;
                }
                Err(err) => {
                    self.shared.write_failed();
                    self.store.caching_failed(&err);
                }
            }
        }
        self.shared.set_state(id, SpanState::Missing);
        self.store
            .recent
            .insert(self.shared.slot.clone(), id, bytes);
    }

    fn range(&self, offset: u64, length: usize) -> Result<Range<u64>, StoreError> {
        let layer = self.blob.digest;
        if let Some(reason) = self.quarantine_reason() {
            return Err(StoreError::Quarantined {
                layer,
                reason: reason.to_owned(),
            });
        }
        match offset.checked_add(length as u64) {
            Some(end) if end <= self.size() => Ok(offset..end),
            _ => Err(StoreError::OutOfRange {
                layer,
                offset,
                length: length as u64,
            }),
        }
    }

    /// First use of a span in this process: reads it whole and checks its digest.
    fn verify_on_disk(&self, id: usize) -> bool {
        let Some(span) = self.shared.spans.get(id) else {
            return false;
        };
        let verified = self.check_on_disk(id, span).unwrap_or_else(|err| {
            tracing::warn!(
                "layer {}: cannot read the cache: {err}",
                self.blob.digest.short()
            );
            false
        });
        if verified {
            self.shared.set_state(id, SpanState::Ready);
            return true;
        }
        self.shared.found_missing(id)
    }

    fn check_on_disk(&self, id: usize, span: &Span) -> std::io::Result<bool> {
        if !self.shared.files.is_marked(id)? {
            return Ok(false);
        }
        let right = with_buffer(|bytes| {
            bytes.resize(span.size(), 0);
            match (self.shared.files).read_unchecked(span.uncompressed.start, bytes) {
                Ok(()) => {
                    let expected = self.shared.files.expected_digest(id, span)?;
                    Ok(expected == Some(*blake3::hash(bytes).as_bytes()))
                }
                Err(err) if err.kind() == std::io::ErrorKind::UnexpectedEof => Ok(false),
                Err(err) => Err(err),
            }
        })?;
        if right {
            // The time of use is for eviction only.
            let _full_disk = self.shared.files.mark(id);
        } else {
            tracing::warn!(
                "layer {}: span {id} in the cache is damaged, fetching it anew",
                self.blob.digest.short()
            );
            self.shared.files.unmark(id)?;
        }
        Ok(right)
    }

    /// Remembers what a span's bytes hash to where the index does not say it.
    fn note_decoded(&self, id: usize, span: &Span, bytes: &[u8]) -> std::io::Result<()> {
        match &span.digest {
            SpanDigest::Own { .. } => Ok(()),
            SpanDigest::Compressed(_) | SpanDigest::Chunks(_) => {
                (self.shared.files).note_decoded_digest(id, blake3::hash(bytes).as_bytes())
            }
        }
    }

    /// Fills `buf` from disk and memory, span by span.
    fn read_mixed(
        &self,
        ids: Range<usize>,
        range: &Range<u64>,
        buf: &mut [u8],
    ) -> Result<bool, StoreError> {
        for id in ids {
            let Some(span) = self.shared.spans.get(id) else {
                return Ok(false);
            };
            if self.shared.state(id) == SpanState::Ready {
                let mut bytes = vec![0; span.size()];
                let path = || self.store.layer_dir(&self.shared.slot).join("data");
                self.shared
                    .files
                    .read_unchecked(span.uncompressed.start, &mut bytes)
                    .map_err(|err| StoreError::io("read", &path())(err))?;
                self.copy(id, &bytes, range, buf);
            } else if let Some(bytes) = self.recent(id) {
                self.copy(id, &bytes, range, buf);
            } else {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Copies what span `id` (whose bytes are `bytes`) has of `range` to its place in `buf`.
    fn copy(&self, id: usize, bytes: &[u8], range: &Range<u64>, buf: &mut [u8]) {
        let Some(span) = self.shared.spans.get(id) else {
            return;
        };
        let from = range.start.max(span.uncompressed.start);
        let to = range.end.min(span.uncompressed.end);
        let within = |base: u64| -> Option<Range<usize>> {
            Some(
                usize::try_from(from.checked_sub(base)?).ok()?
                    ..usize::try_from(to.checked_sub(base)?).ok()?,
            )
        };
        let source = within(span.uncompressed.start).and_then(|at| bytes.get(at));
        let target = within(range.start).and_then(|at| buf.get_mut(at));
        if let (Some(source), Some(target)) = (source, target) {
            target.copy_from_slice(source);
        }
    }

    /// A span's bytes, fetched again and again until they are caught in memory or on disk.
    async fn decoded(self: &Arc<Self>, id: usize) -> Result<Arc<Vec<u8>>, StoreError> {
        let span = self
            .shared
            .spans
            .get(id)
            .ok_or(StoreError::Worker("span number"))?;
        // Three times is plenty: it takes 16 MiB of other spans between a fetch and this line to
        // miss one.
        for _ in 0..3 {
            self.ensure(id..id + 1, id..id + 1).await?;
            if let Some(bytes) = self.recent(id) {
                return Ok(bytes);
            }
            let mut bytes = vec![0; span.size()];
            if self.try_read_at(span.uncompressed.start, &mut bytes)? {
                return Ok(Arc::new(bytes));
            }
        }
        Err(StoreError::Worker("a span left memory before it was read"))
    }

    fn recent(&self, id: usize) -> Option<Arc<Vec<u8>>> {
        self.store.recent.get(&self.shared.slot, id)
    }
}
