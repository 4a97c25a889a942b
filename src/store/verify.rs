//! Checking what the cache holds, byte by byte, against its digests; and bringing back what is damaged.
//!
//! ```text
//! names       refs/…               parse, are where their reference belongs, point to a document that is here
//! documents   documents/…          their own digest
//! indexes     indexes/…            the checksums of header and sections, the file digests too
//! layer data  layers/…/data        each span that is marked present: the digest that the index has of its decoded
//!                                  bytes, or that was noted when they were fetched and checked
//! ```
//!
//! Only the shared lock of a layer is held, so mounted layers are checked, too. A bad span loses its mark before anything
//! else happens: whoever has not read it yet fetches it anew by itself. A process that has checked a span before it went bad
//! does not look again; for that one it helps that the right bytes are written to the same place of the same file.
//!
//! Checking is no use: it leaves the times of use, which eviction goes by, alone, and the kernel's page cache, too, where
//! nobody else has the layer open.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use super::documents::TagRecord;
use super::files::{LayerFiles, Locked, read_if_there, remove_if_there};
use super::{Finding, Slot, Store, StoreError};
use crate::layer::{IndexError, LayerIndex, Span, SpanTable};
use crate::oci::{Descriptor, Digest, MAX_CONFIG_SIZE};
use crate::source::BlobSource;

/// What came of checking a cached name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NameCheck {
    /// It is right.
    Right(Box<TagRecord>),
    /// It is not.
    Damaged {
        /// Name of its file.
        file: String,
        /// The reference, if that can still be read.
        reference: Option<String>,
        /// What is wrong.
        why: &'static str,
    },
}

/// What came of checking a cached document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DocumentCheck {
    /// The digest that it has to have.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// Whether it has it.
    pub is_right: bool,
}

/// What came of checking an index file.
pub enum IndexCheck {
    /// It is right.
    Right(Arc<LayerIndex>),
    /// It is not, and why.
    Damaged(String),
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

impl Store {
    /// Checks all names. Damaged ones stay as they are: nobody believes them.
    pub fn check_names(&self) -> Result<Vec<NameCheck>, StoreError> {
        let mut checked = Vec::new();
        for (file, path) in self.files_in("refs")? {
            let Some(hash) = file.strip_suffix(".json") else {
                continue;
            };
            let Some(bytes) = read_if_there(&path)? else {
                continue;
            };
            let damaged = |reference, why| NameCheck::Damaged {
                file: file.clone(),
                reference,
                why,
            };
            let is_at_home = |text: &str| Digest::sha256(text.as_bytes()).hex() == hash;
            let record: Option<TagRecord> = serde_json::from_slice(&bytes).ok();
            let record = record.filter(|record| is_at_home(&record.reference));
            checked.push(match record {
                None => {
                    // The name of the file tells which of the strings in it is the reference, if that is intact.
                    let text = String::from_utf8_lossy(&bytes);
                    let reference = text.split('"').find(|part| is_at_home(part));
                    damaged(reference.map(str::to_owned), "it cannot be read")
                }
                Some(record) if !self.has_document(&record.descriptor) => {
                    let reference = Some(record.reference);
                    damaged(reference, "it points to a document that is not here")
                }
                Some(record) => NameCheck::Right(Box::new(record)),
            });
        }
        Ok(checked)
    }

    /// Forgets a damaged name.
    pub fn drop_name(&self, file: &str) -> Result<(), StoreError> {
        let path = self.root.join("refs").join(file);
        remove_if_there(&path).map_err(StoreError::io("remove", &path))
    }

    /// Checks all manifests, lists of them and configs. Damaged ones stay as they are: nobody believes them.
    pub fn check_documents(&self) -> Result<Vec<DocumentCheck>, StoreError> {
        let mut checked = Vec::new();
        for (algorithm, file, path) in self.files_by_algorithm("documents")? {
            let Ok(digest) = format!("{algorithm}:{file}").parse::<Digest>() else {
                continue;
            };
            let Ok(size) = std::fs::metadata(&path).map(|metadata| metadata.len()) else {
                continue;
            };
            // No document is larger, so a larger file need not be read to know that it is damaged.
            let bytes = if size > MAX_CONFIG_SIZE {
                Some(Vec::new())
            } else {
                read_if_there(&path)?
            };
            let Some(bytes) = bytes else { continue };
            checked.push(DocumentCheck {
                digest,
                size,
                is_right: Digest::of(digest.algorithm(), &bytes) == digest,
            });
        }
        Ok(checked)
    }

    /// Forgets a damaged document.
    pub fn drop_document(&self, digest: &Digest) -> Result<(), StoreError> {
        let path = self.by_digest("documents", digest);
        remove_if_there(&path).map_err(StoreError::io("remove", &path))
    }

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
        let file = match std::fs::File::open(&path) {
            Ok(file) => file,
            Err(err) if err.kind() == std::io::ErrorKind::NotFound => {
                return Ok(IndexCheck::Absent);
            }
            Err(err) => return Err(StoreError::io("open", &path)(err)),
        };
        let index = match LayerIndex::read(file, slot.layer(), true) {
            Ok(index) => index,
            Err(IndexError::Version) => {
                let why = "it is damaged or of another version of imgfs";
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

    /// Forgets a damaged index. What was fetched by it is of no use then, and goes when nobody has the layer open.
    pub fn drop_index(&self, slot: &Slot) -> Result<(), StoreError> {
        for path in [self.index_path(slot), self.beside_index(slot, "json")] {
            remove_if_there(&path).map_err(StoreError::io("remove", &path))?;
        }
        Ok(())
    }

    /// Forgets which DiffId a layer was found to have: it is computed anew by the next mount.
    pub fn drop_diff_id(&self, layer: &Digest) -> Result<(), StoreError> {
        let path = self.layer_dir(&Slot::own(*layer)).join("diff_id");
        remove_if_there(&path).map_err(StoreError::io("remove", &path))
    }

    /// Checks every span of a layer that is marked present, on all cores. `done` counts the uncompressed bytes read.
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

    /// Fetches spans (ascending) anew and looks at what is on the disk then. Must run on the runtime.
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
        let error = reader.fetch_missing(bad, None).await.err();
        let fetched = reader.counters().fetched;
        let ids = bad.to_vec();
        let looked_at = tokio::task::spawn_blocking(move || {
            let mut buffer = Vec::new();
            ids.into_iter().all(|id| {
                let span = reader.spans.get(id);
                let is_marked = reader.files.is_marked(id).is_ok_and(|is_marked| is_marked);
                is_marked && span.is_some_and(|span| is_right(&reader.files, id, span, &mut buffer))
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

    fn has_document(&self, descriptor: &Descriptor) -> bool {
        let path = self.by_digest("documents", &descriptor.digest);
        path.metadata().is_ok_and(|file| {
            // Of a name that was given with a digest the size may not be known.
            file.len() == descriptor.size || descriptor.size == Descriptor::UNKNOWN_SIZE
        })
    }
}

/// Whether the bytes of a span in the cache are what they have to be; those that cannot be read are not.
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
