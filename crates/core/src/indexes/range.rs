//! Reading a part of a blob, and what to do when it turns out to be wrong.

use std::ops::Range;

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;

use super::toc::Failure;
use crate::error::Result;
use crate::source::{BlobSource, Provenance, SourceError};
use imgfs_formats::oci::Descriptor;

/// Reads these bytes, which must be few enough for memory; nothing vouches for them. The hosts that
/// gave them are added to `provenance`.
pub(super) async fn read_range(
    source: &dyn BlobSource,
    blob: &Descriptor,
    range: Range<u64>,
    provenance: &Provenance,
) -> Result<Bytes, SourceError> {
    if range.is_empty() {
        return Ok(Bytes::new());
    }
    let mut stream = source.open(blob, range).await?;
    let mut bytes = BytesMut::new();
    while let Some(piece) = stream.next().await {
        bytes.extend_from_slice(&piece?);
    }
    provenance.add(&stream.provenance());
    Ok(bytes.freeze())
}

/// Does `read`, which notes the hosts that gave it the bytes, and again as long as those from `at`
/// on may have been wrong and others may be had.
pub(super) async fn read_until_right<T, F: Future<Output = Result<T, Failure>>>(
    source: &dyn BlobSource,
    blob: &Descriptor,
    at: u64,
    read: impl Fn(Provenance) -> F,
) -> Result<T, Failure> {
    loop {
        let provenance = Provenance::default();
        match read(provenance.clone()).await {
            Err(err) if is_worth_another_try(source, blob, at, &provenance, &err) => {}
            result => return result,
        }
    }
}

fn is_worth_another_try(
    source: &dyn BlobSource,
    blob: &Descriptor,
    at: u64,
    provenance: &Provenance,
    failure: &Failure,
) -> bool {
    match failure {
        Failure::Contents(err) if err.may_be_wrong_bytes() => source.reject(blob, at, provenance),
        Failure::Contents(_) | Failure::Source(_) | Failure::Elsewhere(_) => false,
    }
}
