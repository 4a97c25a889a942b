//! Checking what the cache holds, byte by byte, against its digests; and bringing back what is
//! damaged.
//!
//! ```text
//! names       refs/…               parse, are where their reference belongs, have the size of a document that is right
//! documents   documents/…          their own digest
//! images      images/…             parse, are where their manifest belongs, name its config
//! indexes     indexes/…            the checksums of header and sections, the file digests too
//! layer data  layers/…/data        each span that is marked present: the digest that the index has of its decoded
//!                                  bytes, or that was noted when they were fetched and checked
//! ```
//!
//! Only the shared lock of a layer is held, so mounted layers are checked, too. A bad span loses
//! its mark before anything else happens: a process that has not read it yet fetches it anew by
//! itself. A process that has checked a span before it went bad does not look again; for that one
//! it helps that the right bytes are written to the same place of the same file.
//!
//! Checking is no use: it leaves the times of use, which eviction goes by, alone, and the kernel's
//! page cache, too, where nobody else has the layer open.

mod records;
#[cfg(test)]
mod tests;

use std::io::Seek;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

pub use records::{DocumentCheck, ImageCheck, ImageMended, NameCheck};

use super::error::StoreError;
use super::slot::Slot;
use super::{Cache, Store};
use crate::source::BlobSource;
use crate::store::disk::{Finding, LayerFiles, Locked, read_if_there, remove_if_there};
use imgfs_formats::layer::{IndexError, LayerIndex, Span, SpanTable};
use imgfs_formats::oci::{Algorithm, Descriptor, DiffId, Digest, Digester};

/// What came of checking an index file.
pub enum IndexCheck {
    /// It is right.
    Right(Arc<LayerIndex>),
    /// It is not, and why.
    Damaged(String),
    /// A later version of imgfs wrote it.
    Newer,
    /// There is none.
    Absent,
}

/// What came of checking a layer's data.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SpanCheck {
    /// Uncompressed bytes that were read.
    pub bytes: u64,
    /// Numbers of the spans that were not right, ascending. They are not marked present any more.
    pub bad: Vec<usize>,
    /// Their uncompressed bytes.
    pub bad_bytes: u64,
    /// Whether another process has the layer open.
    pub in_use: bool,
}

/// What came of fetching spans anew.
#[derive(Debug)]
pub struct SpanRepair {
    /// Compressed bytes that came.
    pub fetched: u64,
    /// Whether all of them are in the cache, and right.
    pub is_whole: bool,
    /// What went wrong, if not.
    pub error: Option<StoreError>,
}

impl Cache {
    /// All indexes and layers that have files here.
    pub fn slots(&self) -> Result<Vec<Slot>, StoreError> {
        let mut slots: Vec<Slot> = (self.layers()?.into_iter().map(|(slot, _)| slot)).collect();
        for (algorithm, file, _) in self.files_by_algorithm("indexes")? {
            slots.extend(Slot::parse(&algorithm, &file));
        }
        slots.sort();
        slots.dedup();
        Ok(slots)
    }

    /// Checks the file of an index, all of it; of one that was found, also the record of how.
    pub fn check_index(&self, slot: &Slot) -> Result<IndexCheck, StoreError> {
        let path = self.index_path(slot);
        let mut file = match std::fs::File::open(&path) {
            Ok(file) => file,
            Err(err) if err.kind() == std::io::ErrorKind::NotFound => {
                return Ok(IndexCheck::Absent);
            }
            Err(err) => return Err(StoreError::io("open", &path)(err)),
        };
        let index = match LayerIndex::read(&file, slot.layer(), true) {
            Ok(index) => index,
            // The disk's fault, not the file's.
            Err(IndexError::Io(err)) if err.raw_os_error().is_some() => {
                return Err(StoreError::io("read", &path)(err));
            }
            Err(IndexError::Version) => {
                let start = file.rewind().map(|()| &file);
                let is_newer = start.and_then(LayerIndex::is_newer);
                if is_newer.map_err(StoreError::io("read", &path))? {
                    return Ok(IndexCheck::Newer);
                }
                let why = "it is damaged or of an earlier version of imgfs";
                return Ok(IndexCheck::Damaged(why.to_owned()));
            }
            Err(err) => return Ok(IndexCheck::Damaged(err.to_string())),
        };
        if !slot.is_own() && self.finding(slot)?.is_none() {
            let why = "nothing says how it was found, so it is not used";
            return Ok(IndexCheck::Damaged(why.to_owned()));
        }
        Ok(IndexCheck::Right(Arc::new(index)))
    }

    /// How an index was found, if that can be read.
    pub fn finding(&self, slot: &Slot) -> Result<Option<Finding>, StoreError> {
        let json = read_if_there(&self.beside_index(slot, "json"))?;
        Ok(json.and_then(|json| serde_json::from_slice(&json).ok()))
    }

    /// Forgets an index, if it is damaged still. What was fetched by it is of no use then, and goes
    /// when nobody has the layer open.
    pub fn drop_index(&self, slot: &Slot) -> Result<bool, StoreError> {
        if matches!(
            self.check_index(slot)?,
            IndexCheck::Right(_) | IndexCheck::Newer
        ) {
            return Ok(false);
        }
        for path in [self.index_path(slot), self.beside_index(slot, "json")] {
            remove_if_there(&path).map_err(StoreError::io("remove", &path))?;
        }
        Ok(true)
    }

    /// Computes the DiffId of a layer anew, from its bytes by its own index; `None` if not all of
    /// them are here, and right.
    pub async fn recompute_diff_id(
        &self,
        layer: &Digest,
        index: &Arc<LayerIndex>,
        algorithm: Algorithm,
    ) -> Result<Option<DiffId>, StoreError> {
        let dir = self.layer_dir(&Slot::own(*layer));
        if !dir.is_dir() {
            return Ok(None);
        }
        let files = LayerFiles::open(&dir).await?;
        let index = Arc::clone(index);
        let computing = tokio::task::spawn_blocking(move || {
            let (mut digester, mut buffer) = (Digester::new(algorithm), Vec::new());
            for (id, span) in index.spans.iter().enumerate() {
                let is_marked = files.is_marked(id).is_ok_and(|is_marked| is_marked);
                if !is_marked || !is_right(&files, id, span, &mut buffer) {
                    return None;
                }
                digester.update(&buffer);
            }
            Some(DiffId(digester.finish()))
        });
        (computing.await).map_err(|_| StoreError::Worker("checking"))
    }

    /// Checks every span of a layer that is marked present, on all cores. `done` counts the
    /// uncompressed bytes read.
    pub async fn check_spans(
        &self,
        slot: &Slot,
        index: &Arc<LayerIndex>,
        done: &Arc<AtomicU64>,
    ) -> Result<SpanCheck, StoreError> {
        let dir = self.layer_dir(slot);
        if !dir.is_dir() {
            return Ok(SpanCheck::default());
        }
        let in_use = Locked::try_take(&dir.join("lock"))?.is_none();
        let files = Arc::new(LayerFiles::open(&dir).await?);
        let marks = files.marks(index.spans.len());
        let marks = marks.map_err(StoreError::io("read", &dir))?;
        let marked = marks.into_iter().enumerate().filter(|(_, mark)| *mark != 0);
        let marked: Arc<[usize]> = marked.map(|(id, _)| id).collect();
        let next = Arc::new(AtomicUsize::new(0));
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let mut workers = tokio::task::JoinSet::new();
        for _ in 0..cores.min(marked.len()) {
            let (files, index) = (Arc::clone(&files), Arc::clone(index));
            let marked = Arc::clone(&marked);
            let (next, done) = (Arc::clone(&next), Arc::clone(done));
            workers.spawn_blocking(move || {
                let (mut bad, mut buffer) = (Vec::new(), Vec::new());
                // In order, so that the disk is read ahead.
                while let Some(id) = marked.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let Some(span) = index.spans.get(*id) else {
                        continue;
                    };
                    if !is_right(&files, *id, span, &mut buffer) {
                        files.unmark(*id)?;
                        bad.push(*id);
                    }
                    if !in_use {
                        files.forget_pages(&span.uncompressed);
                    }
                    done.fetch_add(buffer.len() as u64, Ordering::Relaxed);
                }
                std::io::Result::Ok(bad)
            });
        }
        let mut check = SpanCheck {
            bytes: size_of(&index.spans, &marked),
            in_use,
            ..SpanCheck::default()
        };
        while let Some(bad) = workers.join_next().await {
            let bad = bad.map_err(|_| StoreError::Worker("checking"))?;
            check
                .bad
                .extend(bad.map_err(StoreError::io("write", &dir))?);
        }
        check.bad.sort_unstable();
        check.bad_bytes = size_of(&index.spans, &check.bad);
        Ok(check)
    }
}

impl Store {
    /// Fetches spans (ascending) anew and looks at what is on the disk then. Must run on the
    /// runtime.
    pub async fn repair_spans(
        self: &Arc<Self>,
        source: &Arc<dyn BlobSource>,
        blob: &Descriptor,
        slot: &Slot,
        index: &LayerIndex,
        bad: &[usize],
    ) -> Result<SpanRepair, StoreError> {
        let opened = self
            .open_found(source, blob, slot.clone(), index.clone())
            .await?;
        let reader = opened.reader;
        reader.doubt(bad);
        let error = reader.fetch_missing(bad, None).await.err();
        let fetched = reader.counters().fetched;
        let ids = bad.to_vec();
        let looked_at = tokio::task::spawn_blocking(move || {
            let mut buffer = Vec::new();
            ids.into_iter().all(|id| {
                let span = reader.spans().get(id);
                let is_marked = reader
                    .files()
                    .is_marked(id)
                    .is_ok_and(|is_marked| is_marked);
                is_marked
                    && span.is_some_and(|span| is_right(reader.files(), id, span, &mut buffer))
            })
        });
        Ok(SpanRepair {
            fetched,
            is_whole: looked_at
                .await
                .map_err(|_| StoreError::Worker("checking"))?,
            error,
        })
    }
}

/// Whether the bytes of a span in the cache are what they have to be; those that cannot be read are
/// not.
fn is_right(files: &LayerFiles, id: usize, span: &Span, buffer: &mut Vec<u8>) -> bool {
    buffer.resize(span.size(), 0);
    match (
        files.expected_digest(id, span),
        files.read_unchecked(span.uncompressed.start, buffer),
    ) {
        (Ok(Some(expected)), Ok(())) => *blake3::hash(buffer).as_bytes() == expected,
        _ => false,
    }
}

/// Uncompressed bytes of some spans.
fn size_of(spans: &SpanTable, ids: &[usize]) -> u64 {
    let spans = ids.iter().filter_map(|id| spans.get(*id));
    spans.map(|span| span.size() as u64).sum()
}
