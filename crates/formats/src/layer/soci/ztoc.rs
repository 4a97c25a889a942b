//! A zTOC as a whole: what it says about the blob, its members, its spans.

use super::checkpoints::spans;
use super::error::{MAX_ZTOC_SIZE, Sizes, ZtocError, lossy};
use super::flatbuffer::Table;
use super::metadata::toc;
use crate::layer::span::{MAX_LAYER_SIZE, SpanTable};
use crate::layer::{Codec, LayerIndex};
use crate::oci::Digest;

/// The only version there is.
const VERSION: &[u8] = b"0.9";

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

/// How far the layer reaches. Writers note where they stopped to read the tar, so padding behind it
/// may be left out; without compression the blob itself says it.
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
