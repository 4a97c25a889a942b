//! What indexes say of files' bytes, without reading them.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use crate::error::Result;
use crate::store::{OpenLayer, Slot, Store, StoreError};
use imgfs_formats::layer::{Extent, Hash, SpanDigest, SpanTable};
use imgfs_formats::oci::{Algorithm, Digester};
use imgfs_formats::tree::{Node, Tree};

/// Where a file's bytes are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    /// Position of the layer among those of the tree.
    pub(super) layer: usize,
    /// The stored runs, ascending; the rest is zeros.
    pub(super) extents: Vec<Extent>,
}

/// What an index knows of a file's bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Claim {
    /// BLAKE3 of the stored runs, one after the other.
    Stored(Hash),
    /// Lengths of the pieces that make up the file, each with its SHA-256.
    Chunks(Vec<(u64, Hash)>),
    /// Nothing.
    Nothing,
}

/// The digests that indexes have of whole files: by index, and by where in the layer the file's
/// first byte is.
pub(super) type Digests = HashMap<Slot, HashMap<u64, Hash>>;

impl Place {
    /// Of a regular file; nothing of one without content.
    pub(super) fn of(tree: &Tree, node: &Node) -> Option<Self> {
        let (layer, extents) = tree.content(node).stored_runs()?;
        Some(Self { layer, extents })
    }

    /// Where in the layer its first stored byte is.
    pub(super) fn start(&self) -> Option<u64> {
        self.extents.first().map(|extent| extent.layer_offset)
    }

    /// The bytes of the layer.
    pub(super) fn in_layer(&self) -> impl Iterator<Item = Range<u64>> {
        (self.extents.iter()).map(|extent| extent.layer_offset..extent.layer_offset + extent.length)
    }

    /// The parts of the file that are stored.
    pub(super) fn stored(&self) -> Vec<Range<u64>> {
        (self.extents.iter())
            .map(|extent| extent.file_offset..extent.file_offset + extent.length)
            .collect()
    }
}

/// Reads the digests of whole files that the indexes of these layers have, of those that begin at
/// these places. Reads the disk.
pub(super) fn load(
    store: &Store,
    wanted: &HashMap<Slot, HashSet<u64>>,
) -> Result<Digests, StoreError> {
    let mut digests = HashMap::new();
    for (slot, starts) in wanted {
        if let Some(index) = store.load_index(slot, true)? {
            let mut known = index.digests_by_start();
            known.retain(|start, _| starts.contains(start));
            digests.insert(slot.clone(), known);
        }
    }
    Ok(digests)
}

/// What the index of `layer` says of the file at `place`.
pub(super) fn claim(layer: &OpenLayer, place: &Place, digests: &Digests) -> Claim {
    let digest = (digests.get(layer.reader.slot()))
        .zip(place.start())
        .and_then(|(digests, start)| digests.get(&start));
    if let Some(digest) = digest {
        return Claim::Stored(*digest);
    }
    match place.extents.as_slice() {
        [run] => chunks(&layer.index.spans, run).map_or(Claim::Nothing, Claim::Chunks),
        _ => Claim::Nothing,
    }
}

/// The chunks that a run of bytes is made of, if chunks cover it without a gap.
fn chunks(spans: &SpanTable, run: &Extent) -> Option<Vec<(u64, Hash)>> {
    let range = run.layer_offset..run.layer_offset + run.length;
    let mut position = range.start;
    let mut found = Vec::new();
    let covering = spans.covering(range.clone());
    for span in spans.iter().skip(covering.start).take(covering.len()) {
        let SpanDigest::Chunks(chunks) = &span.digest else {
            return None;
        };
        for chunk in chunks {
            if chunk.uncompressed.end <= range.start || chunk.uncompressed.start >= range.end {
                continue;
            }
            if chunk.uncompressed.start != position || chunk.uncompressed.end > range.end {
                return None;
            }
            position = chunk.uncompressed.end;
            found.push((
                chunk.uncompressed.end - chunk.uncompressed.start,
                chunk.digest,
            ));
        }
    }
    (position == range.end).then_some(found)
}

/// Checks bytes, as they come, against a claim.
pub(super) enum Check {
    Stored(Box<blake3::Hasher>, Hash),
    Chunks {
        left: std::vec::IntoIter<(u64, Hash)>,
        /// What is still to come of the chunk, its digester and its digest.
        current: Option<Box<(u64, Digester, Hash)>>,
        is_same: bool,
    },
}

impl Check {
    /// Nothing can be checked against no claim.
    pub(super) fn new(claim: Claim) -> Option<Self> {
        match claim {
            Claim::Stored(digest) => Some(Self::Stored(Box::default(), digest)),
            Claim::Chunks(chunks) => Some(Self::Chunks {
                left: chunks.into_iter(),
                current: None,
                is_same: true,
            }),
            Claim::Nothing => None,
        }
    }

    /// The next bytes.
    pub(super) fn update(&mut self, mut bytes: &[u8]) {
        match self {
            Self::Stored(hasher, _) => {
                hasher.update(bytes);
            }
            Self::Chunks {
                left,
                current,
                is_same,
            } => {
                while !bytes.is_empty() {
                    let next = current.take().or_else(|| {
                        let (length, digest) = left.next()?;
                        let digester = Digester::new(Algorithm::Sha256);
                        Some(Box::new((length, digester, digest)))
                    });
                    let Some(mut chunk) = next else {
                        *is_same = false;
                        return;
                    };
                    let taken = usize::try_from(chunk.0)
                        .unwrap_or(usize::MAX)
                        .min(bytes.len());
                    let (now, later) = bytes.split_at(taken);
                    chunk.1.update(now);
                    chunk.0 -= taken as u64;
                    bytes = later;
                    if chunk.0 > 0 {
                        *current = Some(chunk);
                    } else {
                        let (_, digester, digest) = *chunk;
                        *is_same &= digester.finish().hash() == digest;
                    }
                }
            }
        }
    }

    /// Whether they were all of what the claim is of.
    pub(super) fn finish(self) -> bool {
        match self {
            Self::Stored(hasher, digest) => *hasher.finalize().as_bytes() == digest,
            Self::Chunks {
                mut left,
                current,
                is_same,
            } => is_same && current.is_none() && left.next().is_none(),
        }
    }
}
