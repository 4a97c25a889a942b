//! A zTOC as a whole: what it says about the blob, its members, its spans.

use super::checkpoints::spans;
use super::flatbuffer::{FlatBufferError, Table};
use super::metadata::toc;
use crate::layer::span::{MAX_LAYER_SIZE, SpanTable, SpanTableError};
use crate::layer::toc::TocError;
use crate::layer::{Codec, LayerIndex};
use crate::oci::Digest;

/// Largest zTOC accepted, in bytes: ten times the largest known (a span of 4 MiB takes 33 KB, a member about 200
/// bytes). Protects memory.
pub const MAX_ZTOC_SIZE: u64 = 100 << 20;

/// The only version there is.
const VERSION: &[u8] = b"0.9";

/// Why a zTOC is not used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ZtocError {
    /// Too large.
    #[error("the zTOC has {size} bytes, more than the limit of {MAX_ZTOC_SIZE}")]
    TooLarge {
        /// Size in bytes.
        size: u64,
    },
    /// Its bytes make no sense.
    #[error(transparent)]
    FlatBuffer(#[from] FlatBufferError),
    /// A part that it must have.
    #[error("the zTOC has no {0}")]
    Missing(&'static str),
    /// Of another version.
    #[error("the zTOC has the version {found:?}, and only 0.9 can be read")]
    Version {
        /// What it says, lossily.
        found: String,
    },
    /// It was made of another blob.
    #[error("the zTOC is of a layer of {found} bytes, and this one has {expected}")]
    OtherBlob {
        /// Size of the blob in bytes.
        expected: u64,
        /// Size that the zTOC gives.
        found: i64,
    },
    /// A size that no layer can have.
    #[error("the zTOC gives the layer {found} uncompressed bytes: it must be at most {limit}")]
    LayerSize {
        /// What it says.
        found: i64,
        /// Largest size possible here.
        limit: u64,
    },
    /// A compression that zTOCs do not have.
    #[error(
        "the zTOC is of the compression number {0}, and only gzip (1) and none (2) can be read"
    )]
    Compression(u8),
    /// The counts of spans, checkpoints and digests contradict each other.
    #[error("the zTOC has {found} {what} for {expected} spans")]
    Count {
        /// What was counted.
        what: &'static str,
        /// How many there are.
        found: u64,
        /// How many spans it says there are.
        expected: u64,
    },
    /// The checkpoints make no sense.
    #[error("the zTOC's checkpoints are damaged: {0}")]
    Checkpoints(&'static str),
    /// The digest of a span is no SHA-256.
    #[error("the digest of span {span} in the zTOC is {found:?}, which is no sha256")]
    SpanDigest {
        /// Number of the span.
        span: usize,
        /// What it says, lossily.
        found: String,
    },
    /// The spans do not fit together.
    #[error("the zTOC's spans do not fit: {0}")]
    Spans(#[from] SpanTableError),
    /// A member that makes no sense.
    #[error("the zTOC's entry {path:?}: {problem}")]
    Entry {
        /// Its name, lossily.
        path: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A file with holes, whose map a zTOC does not have.
    #[error("{path:?} is a file with holes, and zTOCs do not say where they are")]
    Sparse {
        /// Its name, lossily.
        path: String,
    },
    /// The members are too many, or reach beyond the layer.
    #[error("the zTOC's entries: {0}")]
    Toc(#[from] TocError),
}

/// What the parts of a zTOC are measured against.
pub(super) struct Sizes {
    pub(super) blob: u64,
    pub(super) layer: u64,
}

/// The index of the layer `blob` of `blob_size` bytes, by its zTOC.
pub fn index_of_ztoc(ztoc: &[u8], blob: Digest, blob_size: u64) -> Result<LayerIndex, ZtocError> {
    let size = ztoc.len() as u64;
    if size > MAX_ZTOC_SIZE {
        return Err(ZtocError::TooLarge { size });
    }
    let root = Table::root(ztoc)?;
    let version = root.string(0)?;
    if version != VERSION {
        let found = lossy(version);
        return Err(ZtocError::Version { found });
    }
    let found = root.i64(2)?;
    if u64::try_from(found) != Ok(blob_size) {
        return Err(ZtocError::OtherBlob {
            expected: blob_size,
            found,
        });
    }
    let info = (root.table(5)?).ok_or(ZtocError::Missing("checkpoints"))?;
    let codec = match info.u8(0)? {
        None | Some(1) => Codec::Gzip,
        Some(2) => Codec::Tar,
        Some(other) => return Err(ZtocError::Compression(other)),
    };
    let sizes = Sizes {
        blob: blob_size,
        layer: layer_size(root.i64(3)?, codec, blob_size)?,
    };
    let spans = SpanTable::new(spans(&info, codec, &sizes)?, blob_size)?;
    let entries = (root.table(4)?).ok_or(ZtocError::Missing("table of contents"))?;
    Ok(LayerIndex {
        blob,
        blob_size,
        codec,
        toc: toc(entries.offsets(0)?, spans.layer_size())?,
        spans,
        file_digests: Vec::new(),
    })
}

/// How far the layer reaches. Writers note where they stopped to read the tar, so padding behind it may be left out;
/// without compression the blob itself says it.
fn layer_size(found: i64, codec: Codec, blob_size: u64) -> Result<u64, ZtocError> {
    let limit = match codec {
        Codec::Tar => blob_size,
        _ => MAX_LAYER_SIZE,
    };
    match (u64::try_from(found), codec) {
        (Ok(size), Codec::Tar) if size <= limit => Ok(blob_size),
        (Ok(size), _) if size <= limit => Ok(size),
        _ => Err(ZtocError::LayerSize { found, limit }),
    }
}

pub(super) fn lossy(text: &[u8]) -> String {
    String::from_utf8_lossy(text).chars().take(200).collect()
}
