//! Reading a layer: from the cache when the spans are there, else by fetching them.
//!
//! Each span of an open layer is in one of these states, in this process:
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
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use tokio::runtime::Handle;
use tokio::sync::Notify;

use super::fetch::Flights;
use super::files::LayerFiles;
use super::keep::Keeping;
use super::proof::ProofCell;
use super::{Slot, Store, StoreError};
use crate::source::BlobSource;
use imgfs_formats::layer::{Span, SpanDigest, SpanTable};
use imgfs_formats::oci::{Descriptor, Digest};

const UNKNOWN: u8 = 0;
const MISSING: u8 = 1;
const READY: u8 = 2;

/// Reads the uncompressed bytes of one layer.
pub struct LayerReader {
    pub(super) store: Arc<Store>,
    pub(super) spans: SpanTable,
    pub(super) files: Arc<LayerFiles>,
    pub(super) source: Arc<dyn BlobSource>,
    pub(super) blob: Descriptor,
    pub(super) slot: Slot,
    pub(super) flights: Flights,
    pub(super) counters: LiveCounters,
    pub(super) proof: ProofCell,
    /// Keeps what is fetched, if the layer is to be proven; then it is `source`, too.
    pub(super) keeping: OnceLock<Arc<Keeping>>,
    /// Runs what is fetched ahead, which a thread of the kernel's may begin.
    pub(super) runtime: Handle,
    states: Box<[AtomicU8]>,
    quarantine: OnceLock<String>,
    quarantined: Notify,
    write_failed: AtomicBool,
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
    pub(super) fn new(
        store: Arc<Store>,
        spans: SpanTable,
        files: Arc<LayerFiles>,
        source: Arc<dyn BlobSource>,
        blob: Descriptor,
        slot: Slot,
    ) -> Arc<Self> {
        let states = (0..spans.len()).map(|_| AtomicU8::new(UNKNOWN)).collect();
        let flights = Flights::new(spans.len());
        Arc::new(Self {
            store,
            spans,
            files,
            source,
            blob,
            slot,
            flights,
            counters: LiveCounters::default(),
            proof: ProofCell::default(),
            keeping: OnceLock::new(),
            runtime: Handle::current(),
            states,
            quarantine: OnceLock::new(),
            quarantined: Notify::new(),
            write_failed: AtomicBool::new(false),
        })
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
        &self.slot
    }

    /// Uncompressed size in bytes.
    pub fn size(&self) -> u64 {
        self.spans.layer_size()
    }

    /// What runs work that nobody waits for, begun on any thread.
    pub fn runtime(&self) -> &Handle {
        &self.runtime
    }

    /// Keeps what is in the cache of it there, without the files that reading needs.
    pub fn pin(&self) -> LayerPin {
        LayerPin {
            size: self.size(),
            _lock: self.files.lock(),
        }
    }

    /// What the layer has cost so far. May read the disk.
    pub fn counters(&self) -> Counters {
        let marks = self.files.marks(self.spans.len()).unwrap_or_default();
        let present = self.spans.iter().zip(marks).filter(|(_, mark)| *mark != 0);
        Counters {
            fetched: self.counters.fetched.load(Ordering::Relaxed),
            fetches: self.counters.fetches.load(Ordering::Relaxed),
            cached: present.map(|(span, _)| span.size() as u64).sum(),
            size: self.size(),
        }
    }

    /// For each span, the bytes of the blob that reading it would fetch: none if it is in the cache. May read the disk.
    pub fn to_fetch(&self) -> Vec<u64> {
        let marks = self.files.marks(self.spans.len()).unwrap_or_default();
        let marks = marks.into_iter().chain(std::iter::repeat(0));
        let fetch = |span: &Span| span.compressed.end - span.compressed.start;
        (self.spans.iter().zip(marks))
            .map(|(span, mark)| if mark == 0 { fetch(span) } else { 0 })
            .collect()
    }

    /// From now on nothing of this layer is served. Only the first reason counts.
    pub fn quarantine(&self, reason: String) {
        if self.quarantine.set(reason).is_ok() {
            tracing::error!(
                "layer {} is quarantined: {}",
                self.blob.digest,
                self.quarantine_reason().unwrap_or("")
            );
            self.quarantined.notify_waiters();
        }
    }

    /// Ends when nothing of this layer is served any more.
    pub async fn until_quarantined(&self) {
        let quarantined = self.quarantined.notified();
        if self.quarantine_reason().is_none() {
            quarantined.await;
        }
    }

    /// Why nothing of this layer is served, if so.
    pub fn quarantine_reason(&self) -> Option<&str> {
        self.quarantine.get().map(String::as_str)
    }

    /// Fills `buf` with the layer's uncompressed bytes from `offset` on if all of them can be had without the
    /// network; says `false`, with `buf` in any state, if not. May read the disk.
    pub fn try_read_at(self: &Arc<Self>, offset: u64, buf: &mut [u8]) -> Result<bool, StoreError> {
        let is_read = self.try_read_quietly(offset, buf)?;
        if is_read {
            self.note_read(self.spans.covering(offset..offset + buf.len() as u64));
        }
        Ok(is_read)
    }

    /// The same for who reads on behalf of nobody: it does not count as a read that others may follow.
    pub fn try_read_quietly(&self, offset: u64, buf: &mut [u8]) -> Result<bool, StoreError> {
        let range = self.range(offset, buf.len())?;
        let ids = self.spans.covering(range.clone());
        let mut from_disk = true;
        for id in ids.clone() {
            match self.state(id) {
                READY => {}
                MISSING => from_disk = false,
                _ => from_disk &= self.verify_on_disk(id),
            }
        }
        if from_disk {
            let path = || self.store.layer_dir(&self.slot).join("data");
            self.files
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

    /// Likewise, where all of the `whole` bytes from `offset` on are probably needed next, as far as they are here.
    pub async fn read_start_at(
        self: &Arc<Self>,
        offset: u64,
        buf: &mut [u8],
        whole: u64,
    ) -> Result<(), StoreError> {
        let range = self.range(offset, buf.len())?;
        // Asked again after the fetch: a span may have left memory meanwhile if the disk is full. Then its
        // pieces are taken one by one, each right after its fetch.
        if self.try_read_at(offset, buf)? {
            return Ok(());
        }
        let ids = self.spans.covering(range.clone());
        let whole = self.spans.covering(offset..offset.saturating_add(whole));
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
    pub(super) fn is_here(&self, id: usize) -> bool {
        match self.state(id) {
            READY => true,
            MISSING => self.recent(id).is_some(),
            _ => self.verify_on_disk(id) || self.recent(id).is_some(),
        }
    }

    /// Likewise, as far as that is known without reading the disk.
    pub(super) fn is_known_here(&self, id: usize) -> bool {
        self.state(id) == READY || self.recent(id).is_some()
    }

    /// Whether another process has marked a span since it was found missing here.
    pub(super) fn is_marked_anew(&self, id: usize) -> bool {
        self.state(id) == READY || self.files.is_marked(id).is_ok_and(|is_marked| is_marked)
    }

    /// Likewise, and it is right. Reads the disk.
    pub(super) fn has_arrived(&self, id: usize) -> bool {
        self.is_marked_anew(id) && (self.state(id) == READY || self.verify_on_disk(id))
    }

    /// Whether spans that are fetched can be written to the cache, as far as is known.
    pub(super) fn is_kept(&self) -> bool {
        !self.write_failed.load(Ordering::Relaxed)
    }

    /// Takes over a verified, decoded span: writes it and marks it, or keeps it in memory.
    pub(super) fn accept(&self, id: usize, span: &Span, bytes: Vec<u8>) {
        if self.is_kept() {
            let written = self
                .files
                .write(span.uncompressed.start, &bytes)
                .and_then(|()| self.note_decoded(id, span, &bytes))
                .and_then(|()| self.files.mark(id));
            match written {
                Ok(()) => {
                    self.set_state(id, READY);
                    self.store.note_written(bytes.len() as u64);
                    return;
                }
                Err(err) => {
                    self.write_failed.store(true, Ordering::Relaxed);
                    self.store.caching_failed(&err);
                }
            }
        }
        self.set_state(id, MISSING);
        self.store.recent.insert(self.slot.clone(), id, bytes);
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
        let Some(span) = self.spans.get(id) else {
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
            self.set_state(id, READY);
            return true;
        }
        // Meanwhile a flight may have brought it, which must not be forgotten.
        let Some(slot) = self.states.get(id) else {
            return false;
        };
        let set = slot.compare_exchange(UNKNOWN, MISSING, Ordering::AcqRel, Ordering::Acquire);
        set == Err(READY)
    }

    fn check_on_disk(&self, id: usize, span: &Span) -> std::io::Result<bool> {
        if !self.files.is_marked(id)? {
            return Ok(false);
        }
        let mut bytes = vec![0; span.size()];
        let right = match self
            .files
            .read_unchecked(span.uncompressed.start, &mut bytes)
        {
            Ok(()) => {
                self.files.expected_digest(id, span)? == Some(*blake3::hash(&bytes).as_bytes())
            }
            Err(err) if err.kind() == std::io::ErrorKind::UnexpectedEof => false,
            Err(err) => return Err(err),
        };
        if right {
            // The time of use is for eviction only.
            let _full_disk = self.files.mark(id);
        } else {
            tracing::warn!(
                "layer {}: span {id} in the cache is damaged, fetching it anew",
                self.blob.digest.short()
            );
            self.files.unmark(id)?;
        }
        Ok(right)
    }

    /// Remembers what a span's bytes hash to where the index does not say it.
    fn note_decoded(&self, id: usize, span: &Span, bytes: &[u8]) -> std::io::Result<()> {
        match &span.digest {
            SpanDigest::Own { .. } => Ok(()),
            SpanDigest::Compressed(_) | SpanDigest::Chunks(_) => {
                (self.files).note_decoded_digest(id, blake3::hash(bytes).as_bytes())
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
            let Some(span) = self.spans.get(id) else {
                return Ok(false);
            };
            if self.state(id) == READY {
                let mut bytes = vec![0; span.size()];
                let path = || self.store.layer_dir(&self.slot).join("data");
                self.files
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
        let Some(span) = self.spans.get(id) else {
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
            .spans
            .get(id)
            .ok_or(StoreError::Worker("span number"))?;
        // Three times is plenty: it takes 16 MiB of other spans between a fetch and this line to miss one.
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
        self.store.recent.get(&self.slot, id)
    }

    fn state(&self, id: usize) -> u8 {
        // Acquire pairs with the Release below: whoever sees READY sees the bytes written.
        self.states
            .get(id)
            .map_or(MISSING, |state| state.load(Ordering::Acquire))
    }

    fn set_state(&self, id: usize, state: u8) {
        if let Some(slot) = self.states.get(id) {
            slot.store(state, Ordering::Release);
        }
    }
}
