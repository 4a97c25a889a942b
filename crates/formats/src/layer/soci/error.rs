//! Why a zTOC is not used, and what its parts are measured against.

use super::flatbuffer::FlatBufferError;
use crate::layer::span::SpanTableError;
use crate::layer::toc::TocError;

/// Largest zTOC accepted, in bytes: ten times the largest known (a span of 4 MiB takes 33 KB, a
/// member about 200 bytes). Protects memory.
pub const MAX_ZTOC_SIZE: u64 = 100 << 20;

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

/// Bytes as text that an error can show.
pub(super) fn lossy(text: &[u8]) -> String {
    String::from_utf8_lossy(text).chars().take(200).collect()
}
