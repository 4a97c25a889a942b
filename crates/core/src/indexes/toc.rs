//! What the tables of contents of all formats have in common: the index that one becomes, and why
//! one is not used.

use std::fmt::Display;
use std::ops::Range;

use crate::error::Result;
use crate::source::SourceError;
use imgfs_formats::layer::{ContentsError, LayerIndex, TableOfContents};
use imgfs_formats::oci::{Descriptor, Digest};
use imgfs_formats::trust::IndexKind;

/// An index that was found.
#[derive(Debug)]
pub struct FoundToc {
    /// The index.
    pub index: LayerIndex,
    /// The bytes of the blob that its maker wants fetched first.
    pub prefetch: Option<Range<u64>>,
    /// Digest of what it was made from: it names the index in the cache.
    pub identity: Digest,
    /// For people: the format.
    pub origin: IndexKind,
}

/// Why a table of contents is not used.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// It cannot be had.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// It is refused.
    #[error(transparent)]
    Contents(#[from] ContentsError),
    /// It is in another image, where it cannot be had.
    #[error("{0}")]
    Elsewhere(String),
}

/// The message for people about a layer that has a table of contents and is treated as plain.
pub(super) fn plain(blob: &Descriptor, format: IndexKind, why: &impl Display) -> String {
    format!(
        "layer {} is treated as plain, as its {format} table of contents cannot be used: {why}",
        blob.digest.short()
    )
}

/// Pure work on large input, off the threads that wait for the network.
pub(super) async fn compute<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ContentsError> + Send + 'static,
) -> Result<T, Failure> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => Ok(result?),
        Err(err) => Err(Failure::Elsewhere(format!(
            "internal: reading it stopped: {err}"
        ))),
    }
}

pub(super) fn found(contents: TableOfContents, identity: Digest, origin: IndexKind) -> FoundToc {
    FoundToc {
        index: contents.index,
        prefetch: contents.prefetch,
        identity,
        origin,
    }
}
