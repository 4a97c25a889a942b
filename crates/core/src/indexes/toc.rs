//! Tables of contents that a layer's own format has: eStargz and zstd:chunked.
//!
//! They are bound to the manifest by a digest there, and what they say about bytes is checked when those are read. What
//! cannot be used is said, and costs the time of a plain layer.

use std::fmt::Display;
use std::ops::Range;

use crate::error::Result;
use crate::source::{BlobSource, SourceError};
use imgfs_formats::layer::{ContentsError, LayerIndex, TableOfContents};
use imgfs_formats::oci::{Descriptor, Digest};
use imgfs_formats::trust::IndexKind;

use super::toc_image::TocImage;
use super::{estargz, zstd_chunked};
use imgfs_formats::layer::estargz::toc_digest;
use imgfs_formats::layer::zstd_chunked::read_annotations;
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

/// Looks for an index that the layer's own format has. `None`: it is a plain layer. An error says, for people, which
/// layer is treated as plain although it is not, and why.
pub async fn in_format(
    source: &dyn BlobSource,
    blob: &Descriptor,
    toc_image: &TocImage,
) -> Option<Result<FoundToc, String>> {
    // A layer of the latter may have the former's annotation, too, so the order matters.
    match zstd_chunked::find(source, blob).await {
        None => estargz::find(source, blob, toc_image).await,
        found => found,
    }
}

/// The digest of the layer's table of contents and the format, as its annotations say; wrong ones count as none.
pub(crate) fn pinned(blob: &Descriptor) -> Option<(Digest, IndexKind)> {
    if let Ok(Some(annotations)) = read_annotations(&blob.annotations) {
        return Some((annotations.checksum, IndexKind::ZstdChunked));
    }
    let digest = toc_digest(&blob.annotations).ok()??;
    Some((digest, IndexKind::EStargz))
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

/// The message of [`in_format`].
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
