//! The spans of a zTOC.
//!
//! ```text
//! gzip    count u32 | span size i64 | for each: offset in the blob i64 | in the layer i64 | bits u8 | window 32768
//! none    a `FlatBuffer`: version i32 | span size i64 | size i64 (or, from early writers, just these 20 bytes)
//! ```
//!
//! A span reaches from its checkpoint to the next one. Where bits are left over, it begins a byte
//! earlier, which it shares with the one before. Old writers left out the first checkpoint and took
//! it to be behind a header of 10 bytes.

use super::error::{Sizes, ZtocError, lossy};
use super::flatbuffer::Table;
use crate::layer::Codec;
use crate::layer::inflate::WINDOW;
use crate::layer::span::{Checkpoint, Hash, Span, SpanDigest};
use crate::layer::window;
use crate::oci::{Algorithm, Digest};

/// Bytes before the first checkpoint: the count and the span size.
const HEADER: usize = 12;
/// Bytes of one checkpoint.
const CHECKPOINT: usize = 8 + 8 + 1 + WINDOW;
/// Where the data of a gzip file without a name in its header begins, which old writers took for
/// granted.
const PLAIN_GZIP_HEADER: u64 = 10;
/// Bytes of the early form without compression.
const PACKED_TAR: usize = 20;

/// The decoder's state at one place, as the zTOC has it.
struct Point<'a> {
    compressed: u64,
    uncompressed: u64,
    bits: u8,
    window: &'a [u8],
}

/// The spans that `info` describes.
pub(super) fn spans(info: &Table<'_>, codec: Codec, sizes: &Sizes) -> Result<Vec<Span>, ZtocError> {
    let last = info.i32(1)?;
    let count = u64::try_from(i64::from(last) + 1)
        .map_err(|_| ZtocError::Checkpoints("it has a negative number of spans"))?;
    let checkpoints = info.string(3)?;
    let digests = info.offsets(2)?;
    let found = digests.len() as u64;
    if found != count {
        return Err(mismatch("digests", found, count));
    }
    let digests = digests.strings().enumerate();
    let digests = digests.map(|(span, text)| digest(span, text?));
    match codec {
        Codec::Tar => tar(checkpoints, count, digests, sizes),
        _ => gzip(checkpoints, count, digests, sizes),
    }
}

fn gzip(
    checkpoints: &[u8],
    count: u64,
    digests: impl Iterator<Item = Result<Hash, ZtocError>>,
    sizes: &Sizes,
) -> Result<Vec<Span>, ZtocError> {
    let points = points(checkpoints, count)?;
    let mut spans = Vec::with_capacity(points.len());
    for (number, (point, digest)) in points.iter().zip(digests).enumerate() {
        let next = points.get(number + 1);
        let end = next.map_or(sizes.blob, |next| next.compressed);
        let layer_end = next.map_or(u64::MAX, |next| next.uncompressed);
        if point.uncompressed >= layer_end {
            return Err(ZtocError::Checkpoints("they do not ascend in the layer"));
        }
        let digest = digest?;
        // The tar ended before; what follows is padding that nobody can read.
        if point.uncompressed >= sizes.layer {
            continue;
        }
        let shared = u64::from(point.bits > 0);
        let start = (point.compressed.checked_sub(shared))
            .ok_or(ZtocError::Checkpoints("one lies before the blob"))?;
        let window = match number {
            // Nothing comes before it that it could refer to.
            0 => &[],
            _ => point.window,
        };
        spans.push(Span {
            compressed: start..end,
            uncompressed: point.uncompressed..layer_end.min(sizes.layer),
            checkpoint: Checkpoint::Deflate {
                bits: point.bits,
                window: window::encode(window).into(),
            },
            digest: SpanDigest::Compressed(digest),
        });
    }
    Ok(spans)
}

/// The checkpoints, as many as there are spans.
fn points(bytes: &[u8], spans: u64) -> Result<Vec<Point<'_>>, ZtocError> {
    let short = ZtocError::Checkpoints("they end early");
    let (header, rest) = bytes.split_first_chunk::<HEADER>().ok_or(short)?;
    let [a, b, c, d, ..] = *header;
    let said = u64::from(u32::from_le_bytes([a, b, c, d]));
    let (records, odd) = rest.as_chunks::<CHECKPOINT>();
    let stored = records.len() as u64;
    if !odd.is_empty() {
        return Err(ZtocError::Checkpoints("they are not whole"));
    }
    if said != spans || stored > said || stored + 1 < said {
        let found = if said == spans { stored } else { said };
        return Err(mismatch("checkpoints", found, spans));
    }
    let implied = (stored < said).then_some(Point {
        compressed: PLAIN_GZIP_HEADER,
        uncompressed: 0,
        bits: 0,
        window: &[],
    });
    Ok(implied
        .into_iter()
        .chain(records.iter().map(point))
        .collect())
}

fn point(record: &[u8; CHECKPOINT]) -> Point<'_> {
    let (mut compressed, mut uncompressed, mut bits) = ([0; 8], [0; 8], [0; 1]);
    let (numbers, window) = record.split_at(CHECKPOINT - WINDOW);
    let mut fields = numbers.iter();
    for field in [&mut compressed[..], &mut uncompressed, &mut bits] {
        for (to, from) in field.iter_mut().zip(&mut fields) {
            *to = *from;
        }
    }
    let [bits] = bits;
    Point {
        compressed: u64::from_le_bytes(compressed),
        uncompressed: u64::from_le_bytes(uncompressed),
        bits,
        window,
    }
}

fn tar(
    checkpoints: &[u8],
    count: u64,
    digests: impl Iterator<Item = Result<Hash, ZtocError>>,
    sizes: &Sizes,
) -> Result<Vec<Span>, ZtocError> {
    let (span_size, size) = match checkpoints.first_chunk::<PACKED_TAR>() {
        Some(packed) if checkpoints.len() == PACKED_TAR => {
            let [_, _, _, _, a @ .., _, _, _, _, _, _, _, _] = *packed;
            let [_, _, _, _, _, _, _, _, _, _, _, _, b @ ..] = *packed;
            (i64::from_le_bytes(a), i64::from_le_bytes(b))
        }
        _ => {
            let table = Table::root(checkpoints)?;
            (table.i64(1)?, table.i64(2)?)
        }
    };
    if u64::try_from(size) != Ok(sizes.blob) {
        return Err(ZtocError::OtherBlob {
            expected: sizes.blob,
            found: size,
        });
    }
    let span_size = u64::try_from(span_size).unwrap_or_default();
    if span_size == 0 {
        return Err(ZtocError::Checkpoints("the span size is not positive"));
    }
    let expected = sizes.blob.div_ceil(span_size);
    if expected != count {
        return Err(mismatch("pieces of the span size", expected, count));
    }
    let mut spans = Vec::new();
    let mut start = 0;
    for digest in digests {
        let end = sizes.blob.min(start + span_size);
        spans.push(Span {
            compressed: start..end,
            uncompressed: start..end,
            checkpoint: Checkpoint::Stored,
            digest: SpanDigest::Compressed(digest?),
        });
        start = end;
    }
    Ok(spans)
}

fn digest(span: usize, text: &[u8]) -> Result<Hash, ZtocError> {
    let digest: Option<Digest> = std::str::from_utf8(text)
        .ok()
        .and_then(|text| text.parse().ok());
    digest
        .filter(|digest| digest.algorithm() == Algorithm::Sha256)
        .and_then(|digest| digest.hash().try_into().ok())
        .ok_or_else(|| ZtocError::SpanDigest {
            span,
            found: lossy(text),
        })
}

fn mismatch(what: &'static str, found: u64, expected: u64) -> ZtocError {
    ZtocError::Count {
        what,
        found,
        expected,
    }
}
