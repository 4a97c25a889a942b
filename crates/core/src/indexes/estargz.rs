//! The table of contents of an eStargz layer: at the end of the blob, or in another image.
//!
//! Where exactly it is only the last 51 bytes say. So the first request is for as much of the end
//! as the table has in all likelihood; a second one, for what is missing of it, is rare.

use super::range::{read_range, read_until_right};
use super::toc::{Failure, FoundToc, compute, found, plain};
use super::toc_image::TocImage;
use crate::error::Result;
use crate::source::{BlobSource, Provenance, read_blob};
use imgfs_formats::layer::estargz::Footer;
use imgfs_formats::layer::{ContentsError, MAX_CONTENTS, TableOfContents, estargz};
use imgfs_formats::oci::{Descriptor, Digest};
use imgfs_formats::trust::IndexKind;

/// Which part of a blob the first request is for: the tables of Debian's packages are 0.2 to 0.6 %
/// of their layers.
const TAIL_FRACTION: u64 = 160;
/// It is for so much at least: half of what a round trip of 40 ms is worth at 25 Mbit/s.
const MIN_TAIL: u64 = 64 << 10;
/// And at most.
const MAX_TAIL: u64 = 4 << 20;

/// Looks for it. `None`: the layer is no eStargz.
pub(super) async fn find(
    source: &dyn BlobSource,
    blob: &Descriptor,
    toc_image: &TocImage,
) -> Option<Result<FoundToc, String>> {
    let digest = estargz::toc_digest(&blob.annotations).transpose()?;
    let read = async {
        let digest = digest?;
        let contents = read(source, blob, digest, toc_image).await?;
        Ok::<_, Failure>(found(contents, digest, IndexKind::EStargz))
    };
    Some(
        read.await
            .map_err(|err| plain(blob, IndexKind::EStargz, &err)),
    )
}

async fn read(
    source: &dyn BlobSource,
    blob: &Descriptor,
    digest: Digest,
    toc_image: &TocImage,
) -> Result<TableOfContents, Failure> {
    let tail = (blob.size / TAIL_FRACTION).clamp(MIN_TAIL, MAX_TAIL);
    let at = blob.size.saturating_sub(tail);
    let read = |provenance| async move {
        try_read(source, blob, digest, toc_image, at, &provenance).await
    };
    read_until_right(source, blob, at, read).await
}

async fn try_read(
    source: &dyn BlobSource,
    blob: &Descriptor,
    digest: Digest,
    toc_image: &TocImage,
    at: u64,
    provenance: &Provenance,
) -> Result<TableOfContents, Failure> {
    let tail = read_range(source, blob, at..blob.size, provenance).await?;
    let (id, size) = (blob.digest, blob.size);
    let (member, end) = match estargz::read_footer(&tail, size)? {
        Footer::Elsewhere(end) => {
            let (source, toc) = (toc_image.of(&blob.digest).await).map_err(Failure::Elsewhere)?;
            let member = read_blob(source.as_ref(), &toc, MAX_CONTENTS).await?;
            // The other image's manifest vouched for these bytes: if they are not what this one
            // means, others will not be.
            let json = compute(move || estargz::open_member(&member, &digest)).await;
            let json = json.map_err(|err| Failure::Elsewhere(err.to_string()))?;
            return compute(move || estargz::read_toc(&json, id, size, end)).await;
        }
        Footer::Here(range) => {
            let length = range.end - range.start;
            if length > MAX_CONTENTS {
                return Err(ContentsError::TooLarge {
                    size: length,
                    limit: MAX_CONTENTS,
                }
                .into());
            }
            let here = |position: u64| usize::try_from(position.saturating_sub(at));
            let (start, end) = (here(range.start), here(range.end));
            let known = start
                .ok()
                .zip(end.ok())
                .and_then(|(start, end)| tail.get(start..end));
            let known = known.unwrap_or_default();
            let mut member = Vec::new();
            if range.start < at {
                let missing = range.start..at.min(range.end);
                member.extend_from_slice(&read_range(source, blob, missing, provenance).await?);
            }
            member.extend_from_slice(known);
            (member, range.start)
        }
    };
    let json = compute(move || estargz::open_member(&member, &digest)).await?;
    compute(move || estargz::read_toc(&json, id, size, end)).await
}
