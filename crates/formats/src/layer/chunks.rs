//! Decoding a span whose digests are those of chunks: gzip members or zstd frames, each with one or
//! more chunks in it.
//!
//! The digests are of the decoded bytes, so here a decompressor sees bytes that nothing vouches for
//! yet. It runs within limits that [`super::SpanTable`] has checked: no member or frame is decoded
//! further than its last chunk.

use super::inflate::{Inflate, Stop, Wrapper};
use super::span::{Checkpoint, Chunk, Span};
use super::span_error::SpanError;
use super::zstd_stream::zstd_decoder;
use crate::oci::{Algorithm, Digest};

/// Decodes the chunks out of `compressed`, the span's bytes of the blob, each to its place in
/// `output`, and checks them.
pub(super) fn decode_chunks(
    span: &Span,
    chunks: &[Chunk],
    compressed: &[u8],
    inflate: &mut Inflate,
    output: &mut [u8],
) -> Result<(), SpanError> {
    for members in chunks.chunk_by(|one, next| one.compressed == next.compressed) {
        let (Some(first), Some(last)) = (members.first(), members.last()) else {
            continue;
        };
        let member = within(&first.compressed, span.compressed.start, compressed)
            .ok_or(SpanError::Decode)?;
        let length = last.inner + (last.uncompressed.end - last.uncompressed.start);
        let mut decoded = vec![0; usize::try_from(length).map_err(|_| SpanError::Decode)?];
        match span.checkpoint {
            Checkpoint::ZstdFrame => decode_frame(member, &mut decoded)?,
            _ => decode_member(inflate, member, &mut decoded)?,
        }
        for chunk in members {
            let size = chunk.uncompressed.end - chunk.uncompressed.start;
            let bytes =
                within(&(chunk.inner..chunk.inner + size), 0, &decoded).ok_or(SpanError::Decode)?;
            if Digest::of(Algorithm::Sha256, bytes).hash() != chunk.digest {
                return Err(SpanError::DecodedDigest);
            }
            let start = usize::try_from(chunk.uncompressed.start - span.uncompressed.start);
            let place = (start.ok()).and_then(|start| output.get_mut(start..start + bytes.len()));
            place.ok_or(SpanError::Decode)?.copy_from_slice(bytes);
        }
    }
    Ok(())
}

/// Fills `decoded` with the start of what a gzip member decodes to.
fn decode_member(
    inflate: &mut Inflate,
    mut member: &[u8],
    mut decoded: &mut [u8],
) -> Result<(), SpanError> {
    inflate.reset(Wrapper::Gzip);
    while !decoded.is_empty() {
        let step = inflate
            .run(member, decoded, Stop::WhenFull)
            .map_err(|_| SpanError::Decode)?;
        member = member.get(step.consumed..).unwrap_or_default();
        decoded = decoded.get_mut(step.produced..).unwrap_or_default();
        if !decoded.is_empty() && (step.ended || (step.consumed == 0 && step.produced == 0)) {
            return Err(SpanError::Decode);
        }
    }
    Ok(())
}

/// Fills `decoded` with the start of what a zstd frame decodes to.
fn decode_frame(frame: &[u8], decoded: &mut [u8]) -> Result<(), SpanError> {
    use zstd::stream::raw::{InBuffer, Operation, OutBuffer};
    let mut decoder = zstd_decoder().map_err(|_| SpanError::Decode)?;
    let mut input = InBuffer::around(frame);
    let mut out = OutBuffer::around(decoded);
    while out.pos() < out.capacity() {
        let before = (input.pos(), out.pos());
        let ended = decoder
            .run(&mut input, &mut out)
            .map_err(|_| SpanError::Decode)?;
        let stuck = before == (input.pos(), out.pos());
        if out.pos() < out.capacity() && (ended == 0 || stuck) {
            return Err(SpanError::Decode);
        }
    }
    Ok(())
}

/// The bytes `range`, counted from `base` on, of `bytes`.
fn within<'a>(range: &std::ops::Range<u64>, base: u64, bytes: &'a [u8]) -> Option<&'a [u8]> {
    let start = usize::try_from(range.start.checked_sub(base)?).ok()?;
    let end = usize::try_from(range.end.checked_sub(base)?).ok()?;
    bytes.get(start..end)
}
