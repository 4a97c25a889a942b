//! What can go wrong when fetching, in words that name the host and the next step.

use crate::oci::Digest;

/// Why bytes could not be had.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The bytes do not have the digest they were asked for by.
    #[error("content does not match its digest: expected {expected}, got {found}")]
    Digest {
        /// What was asked for.
        expected: Digest,
        /// What the bytes hash to.
        found: Digest,
    },
    /// The descriptor's size and the number of bytes differ.
    #[error("blob {digest} should have {expected} bytes but {found} came")]
    Size {
        /// The blob.
        digest: Digest,
        /// Size in the descriptor.
        expected: u64,
        /// Bytes received.
        found: u64,
    },
    /// A document larger than its limit.
    #[error("{digest} has {size} bytes, more than the limit of {limit}")]
    TooLarge {
        /// The document.
        digest: Digest,
        /// Size in bytes.
        size: u64,
        /// Limit in bytes.
        limit: u64,
    },
}
