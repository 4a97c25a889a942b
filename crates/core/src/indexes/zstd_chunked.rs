//! The table of contents of a zstd:chunked layer: the manifest says where it is, so one exact
//! request gets it.

use super::range::{read_range, read_until_right};
use super::toc::{Failure, FoundToc, compute, found, plain};
use crate::error::Result;
use crate::source::{BlobSource, Provenance};
use imgfs_formats::layer::zstd_chunked::Annotations;
use imgfs_formats::layer::{TableOfContents, zstd_chunked};
use imgfs_formats::oci::Descriptor;
use imgfs_formats::trust::IndexKind;

/// Looks for it. `None`: the layer does not say that it is zstd:chunked.
pub(super) async fn find(
    source: &dyn BlobSource,
    blob: &Descriptor,
) -> Option<Result<FoundToc, String>> {
    let annotations = zstd_chunked::read_annotations(&blob.annotations).transpose()?;
    let read = async {
        let annotations = annotations?;
        let identity = annotations.checksum;
        let contents = read(source, blob, annotations).await?;
        Ok::<_, Failure>(found(contents, identity, IndexKind::ZstdChunked))
    };
    Some(
        read.await
            .map_err(|err| plain(blob, IndexKind::ZstdChunked, &err)),
    )
}

async fn read(
    source: &dyn BlobSource,
    blob: &Descriptor,
    annotations: Annotations,
) -> Result<TableOfContents, Failure> {
    let at = (annotations.position.as_ref()).map_or(blob.size, |it| it.compressed.start);
    let read = |provenance| {
        let annotations = annotations.clone();
        async move { try_read(source, blob, annotations, &provenance).await }
    };
    read_until_right(source, blob, at, read).await
}

async fn try_read(
    source: &dyn BlobSource,
    blob: &Descriptor,
    annotations: Annotations,
    provenance: &Provenance,
) -> Result<TableOfContents, Failure> {
    let position = if let Some(position) = &annotations.position {
        position.clone()
    } else {
        let start = blob.size.saturating_sub(zstd_chunked::FOOTER_SIZE);
        let tail = read_range(source, blob, start..blob.size, provenance).await?;
        zstd_chunked::read_footer(&tail)?
    };
    position.check(blob.size)?;
    let compressed = read_range(source, blob, position.compressed.clone(), provenance).await?;
    let (id, size) = (blob.digest, blob.size);
    let opened = {
        let (annotations, position) = (annotations.clone(), position.clone());
        compute(move || zstd_chunked::open_frame(&compressed, &annotations, &position)).await?
    };
    compute(move || zstd_chunked::read_toc(&opened, id, size, &annotations, &position)).await
}
