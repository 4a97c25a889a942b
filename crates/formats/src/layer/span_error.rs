//! Why a span cannot be served.

/// Why a span cannot be served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SpanError {
    /// The fetched bytes are not those the index was made from.
    #[error("compressed bytes do not match the index")]
    Digest,
    /// Not the expected number of fetched bytes.
    #[error("{found} compressed bytes instead of {expected}")]
    Length {
        /// Bytes the span has.
        expected: u64,
        /// Bytes given.
        found: u64,
    },
    /// The bytes are right but do not decode: the index is wrong.
    #[error("bytes do not decode: the index is wrong")]
    Decode,
    /// They decode to something else than the index says.
    #[error("decoded bytes do not match the index")]
    DecodedDigest,
    /// A span inside a zstd frame was given without the one before it.
    #[error("span decoded out of order")]
    Order,
}
