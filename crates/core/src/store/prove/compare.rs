//! Whether the index that a layer is read by says the same as the layer's own, which was made from
//! the blob.
//!
//! ```text
//! our own format     equal as values
//! SOCI               the same entries at the same places, and every byte of the layer up to its padding
//! TOC formats        the same entries, and every byte of every file
//! ```
//!
//! Bytes are compared as readers get them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::runtime::Handle;

use crate::polite;
use crate::store::StoreError;
use crate::store::read::LayerReader;
use imgfs_formats::layer::{FileBytes, FilePair, LayerIndex, SpanDigest, SpanTable};

/// Bytes compared between two looks at whether to go on.
const PIECE: u64 = 1 << 20;

/// What kind of index it is, by what its spans are checked against.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store) enum Kind {
    /// Our own format.
    Own,
    /// SOCI: another index over the bytes of the tar.
    Soci,
    /// One that lists files; and one without any span, which says nothing but entries.
    Entries,
}

impl Kind {
    /// Of an index with these spans.
    pub(in crate::store) fn of(spans: &SpanTable) -> Self {
        // A layer of directories alone has no span in a table of contents, and the pass that makes
        // our own index gives one to every tar.
        let is_any = |is: fn(&SpanDigest) -> bool| spans.iter().any(|span| is(&span.digest));
        if spans.is_empty() || is_any(|digest| matches!(digest, SpanDigest::Chunks(_))) {
            Self::Entries
        } else if is_any(|digest| matches!(digest, SpanDigest::Compressed(_))) {
            Self::Soci
        } else {
            Self::Own
        }
    }
}

/// What differs first, in words; `None` if nothing does. `own` reads by the layer's own index
/// `made`, `found` by the index in question, `claimed`.
pub(in crate::store) async fn difference(
    made: LayerIndex,
    claimed: LayerIndex,
    own: &Arc<LayerReader>,
    found: &Arc<LayerReader>,
) -> Result<Option<String>, StoreError> {
    let kind = Kind::of(&claimed.spans);
    if kind == Kind::Own {
        let mut made = made;
        if claimed.file_digests.is_empty() {
            made.file_digests.clear();
        }
        return Ok(made.difference(&claimed));
    }
    let pairs = match made.files_to_compare(&claimed) {
        Ok(pairs) => pairs,
        Err(what) => return Ok(Some(what)),
    };
    drop((made, claimed));
    let stop = StopOnDrop::default();
    let comparing = Comparing {
        own: Arc::clone(own),
        found: Arc::clone(found),
        runtime: Handle::current(),
        stop: Arc::clone(&stop.0),
    };
    let compared = polite::start(move || {
        if kind == Kind::Soci {
            same_places(&pairs)?;
            comparing.layer()
        } else {
            comparing.files(&pairs)
        }
    });
    match compared
        .await
        .map_err(|_| StoreError::Worker("comparing"))?
    {
        Ok(()) => Ok(None),
        Err(Unequal::Differs(what)) => Ok(Some(what)),
        Err(Unequal::Failed(err)) => Err(err),
    }
}

/// Tells the thread that compares when nobody wants to know any more.
#[derive(Default)]
struct StopOnDrop(Arc<AtomicBool>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

struct Comparing {
    own: Arc<LayerReader>,
    found: Arc<LayerReader>,
    runtime: Handle,
    stop: Arc<AtomicBool>,
}

/// Why comparing ended early.
enum Unequal {
    Differs(String),
    Failed(StoreError),
}

impl Comparing {
    /// All bytes of the layer. What SOCI makes ends where the tar does, and not behind the zeros
    /// that pad it.
    fn layer(&self) -> Result<(), Unequal> {
        let (own, found) = (self.own.size(), self.found.size());
        let other_size = || {
            Err(Unequal::Differs(format!(
                "the layer has {own} bytes, not {found} as claimed"
            )))
        };
        if found > own {
            return other_size();
        }
        let claimed = FileBytes::contiguous(0, found);
        self.same_bytes(&claimed, &claimed, "the layer")?;
        let padding = FileBytes::contiguous(found, own - found);
        self.pieces(padding.size, |offset, length| {
            let bytes = self.read(&self.own, &padding, offset, length);
            let bytes = bytes.map_err(Unequal::Failed)?;
            if bytes.iter().any(|byte| *byte != 0) {
                return other_size();
            }
            Ok(())
        })
    }

    /// All bytes of these files.
    fn files(&self, pairs: &[FilePair]) -> Result<(), Unequal> {
        for pair in pairs {
            let name = format!("\"{}\"", pair.path.escape_ascii());
            match pair.digest {
                Some(digest) if pair.own.is_plain() && pair.found.is_plain() => {
                    let mut hasher = blake3::Hasher::new();
                    self.pieces(pair.found.size, |offset, length| {
                        let bytes = self.read(&self.found, &pair.found, offset, length);
                        hasher.update(&bytes.map_err(|err| blame(err, &name))?);
                        Ok(())
                    })?;
                    if *hasher.finalize().as_bytes() != digest {
                        return Err(Unequal::Differs(format!("{name} has other bytes")));
                    }
                }
                _ => self.same_bytes(&pair.own, &pair.found, &name)?,
            }
        }
        Ok(())
    }

    fn same_bytes(&self, own: &FileBytes, found: &FileBytes, name: &str) -> Result<(), Unequal> {
        self.pieces(own.size, |offset, length| {
            let claimed = self.read(&self.found, found, offset, length);
            let claimed = claimed.map_err(|err| blame(err, name))?;
            let own = self.read(&self.own, own, offset, length);
            let own = own.map_err(Unequal::Failed)?;
            let Some(at) = own
                .iter()
                .zip(&claimed)
                .position(|(own, other)| own != other)
            else {
                return Ok(());
            };
            let at = offset + at as u64;
            Err(Unequal::Differs(format!("{name} has another byte at {at}")))
        })
    }

    /// Calls `each` with offset and length of the pieces of `size` bytes.
    fn pieces(
        &self,
        size: u64,
        mut each: impl FnMut(u64, u64) -> Result<(), Unequal>,
    ) -> Result<(), Unequal> {
        let mut offset = 0;
        while offset < size {
            if self.stop.load(Ordering::Relaxed) {
                return Err(Unequal::Failed(StoreError::Worker("comparing")));
            }
            let length = PIECE.min(size - offset);
            each(offset, length)?;
            offset += length;
        }
        Ok(())
    }

    /// A piece of a file as `reader` gives it.
    fn read(
        &self,
        reader: &Arc<LayerReader>,
        file: &FileBytes,
        offset: u64,
        length: u64,
    ) -> Result<Vec<u8>, StoreError> {
        // At most PIECE.
        let mut bytes = vec![0; usize::try_from(length).unwrap_or_default()];
        let end = offset + length;
        for extent in &file.extents {
            let from = extent.file_offset.max(offset);
            let to = (extent.file_offset + extent.length).min(end);
            if from >= to {
                continue;
            }
            let within = |at: u64| usize::try_from(at - offset).unwrap_or_default();
            let at = extent.layer_offset + (from - extent.file_offset);
            let Some(buf) = bytes.get_mut(within(from)..within(to)) else {
                continue;
            };
            if !reader.try_read_at(at, buf)? {
                self.runtime.block_on(reader.read_at(at, buf))?;
            }
        }
        Ok(bytes)
    }
}

/// That every file is where the layer has it.
fn same_places(pairs: &[FilePair]) -> Result<(), Unequal> {
    let is_elsewhere = |pair: &&FilePair| pair.own != pair.found && pair.own.size > 0;
    match pairs.iter().find(is_elsewhere) {
        None => Ok(()),
        Some(pair) => Err(Unequal::Differs(format!(
            "\"{}\" is at {}, not {} as claimed",
            pair.path.escape_ascii(),
            place(&pair.own),
            place(&pair.found)
        ))),
    }
}

/// The blob is right, so a span that cannot be had from it is the index's fault.
fn blame(err: StoreError, name: &str) -> Unequal {
    match err.span_error() {
        Some(what) => Unequal::Differs(format!("{name}: {what}")),
        None => Unequal::Failed(err),
    }
}

fn place(file: &FileBytes) -> String {
    let places: Vec<String> = (file.extents.iter())
        .map(|extent| extent.layer_offset.to_string())
        .collect();
    places.join(", ")
}
