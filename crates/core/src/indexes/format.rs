//! The layer's own format, if it has a table of contents: eStargz or zstd:chunked.
//!
//! A table is bound to the manifest by a digest there, and what it says about bytes is checked when
//! those are read. One that cannot be used is mentioned, and costs the time of a plain layer.

use super::toc::FoundToc;
use super::toc_image::TocImage;
use super::{estargz, zstd_chunked};
use crate::error::Result;
use crate::source::BlobSource;
use imgfs_formats::layer::estargz::toc_digest;
use imgfs_formats::layer::zstd_chunked::read_annotations;
use imgfs_formats::oci::{Descriptor, Digest};
use imgfs_formats::trust::IndexKind;

/// Looks for an index that the layer's own format has. `None`: it is a plain layer. An error says,
/// for people, which layer is treated as plain although it is not, and why.
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

/// The digest of the layer's table of contents and the format, as its annotations say; wrong ones
/// count as none.
pub(crate) fn pinned(blob: &Descriptor) -> Option<(Digest, IndexKind)> {
    if let Ok(Some(annotations)) = read_annotations(&blob.annotations) {
        return Some((annotations.checksum, IndexKind::ZstdChunked));
    }
    let digest = toc_digest(&blob.annotations).ok()??;
    Some((digest, IndexKind::EStargz))
}
