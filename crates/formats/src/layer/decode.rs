//! Decoding spans on the lazy path: compressed bytes in, checked uncompressed bytes out.
//!
//! A decompressor sees only bytes whose digest was checked, but for the formats that have digests
//! of the decoded bytes alone (`super::chunks`). What comes out is checked, too, before anyone gets
//! it, so a fault of an index of our own or of this program cannot become a wrong byte.

use super::chunks::decode_chunks;
use super::inflate::{Inflate, Stop, Wrapper};
use super::span::{Checkpoint, Span, SpanDigest};
use super::span_error::SpanError;
use super::window;
use super::zstd_stream::zstd_decoder;
use crate::oci::{Algorithm, Digest};

/// Length of a gzip member's trailer: CRC-32 and size (RFC 1952).
const GZIP_TRAILER: usize = 8;

/// Decodes spans one after the other. Any span but one inside a zstd frame may come at any time;
/// those must follow their predecessor.
#[derive(Default)]
pub struct SpanDecoder {
    inflate: Option<Inflate>,
    zstd: Option<(zstd::stream::raw::Decoder<'static>, u64)>,
}

impl SpanDecoder {
    /// Checks `compressed`, decodes it, checks the result.
    pub fn decode(&mut self, span: &Span, compressed: &[u8]) -> Result<Vec<u8>, SpanError> {
        let expected = span.compressed.end - span.compressed.start;
        let found = compressed.len() as u64;
        if found != expected {
            return Err(SpanError::Length { expected, found });
        }
        let mut output = vec![0; span.size()];
        let is_right = match &span.digest {
            SpanDigest::Own { compressed: it, .. } => blake3::hash(compressed).as_bytes() == it,
            SpanDigest::Compressed(it) => Digest::of(Algorithm::Sha256, compressed).hash() == it,
            SpanDigest::Chunks(chunks) => {
                let inflate = self
                    .inflate
                    .get_or_insert_with(|| Inflate::new(Wrapper::Gzip));
                decode_chunks(span, chunks, compressed, inflate, &mut output)?;
                return Ok(output);
            }
        };
        if !is_right {
            return Err(SpanError::Digest);
        }
        match &span.checkpoint {
            Checkpoint::Stored if compressed.len() == output.len() => {
                output.copy_from_slice(compressed);
            }
            Checkpoint::Stored => return Err(SpanError::Decode),
            Checkpoint::MemberStart => {
                let inflate = self
                    .inflate
                    .get_or_insert_with(|| Inflate::new(Wrapper::Gzip));
                inflate.reset(Wrapper::Gzip);
                inflate_members(inflate, Wrapper::Gzip, compressed, &mut output)?;
            }
            Checkpoint::Deflate { bits, window } => {
                let inflate = self
                    .inflate
                    .get_or_insert_with(|| Inflate::new(Wrapper::Raw));
                let window = window::expand(window).ok_or(SpanError::Decode)?;
                let (last_byte, rest) = match (bits, compressed) {
                    (0, rest) => (0, rest),
                    (_, [first, rest @ ..]) => (*first, rest),
                    (_, []) => return Err(SpanError::Decode),
                };
                inflate
                    .resume(*bits, last_byte, &window)
                    .map_err(|_| SpanError::Decode)?;
                inflate_members(inflate, Wrapper::Raw, rest, &mut output)?;
            }
            Checkpoint::ZstdFrame => {
                let decoder = zstd_decoder().map_err(|_| SpanError::Decode)?;
                self.zstd = Some((decoder, span.uncompressed.start));
                self.continue_zstd(span, compressed, &mut output)?;
            }
            Checkpoint::ZstdBlock => self.continue_zstd(span, compressed, &mut output)?,
        }
        if let SpanDigest::Own { decoded, .. } = &span.digest
            && blake3::hash(&output).as_bytes() != decoded
        {
            return Err(SpanError::DecodedDigest);
        }
        Ok(output)
    }

    fn continue_zstd(
        &mut self,
        span: &Span,
        compressed: &[u8],
        output: &mut [u8],
    ) -> Result<(), SpanError> {
        use zstd::stream::raw::{InBuffer, Operation, OutBuffer};
        let Some((decoder, position)) = self
            .zstd
            .as_mut()
            .filter(|(_, at)| *at == span.uncompressed.start)
        else {
            return Err(SpanError::Order);
        };
        let mut input = InBuffer::around(compressed);
        let mut out = OutBuffer::around(output);
        while input.pos() < compressed.len() || out.pos() < out.capacity() {
            let before = (input.pos(), out.pos());
            decoder
                .run(&mut input, &mut out)
                .map_err(|_| SpanError::Decode)?;
            if before == (input.pos(), out.pos()) {
                return Err(SpanError::Decode);
            }
        }
        *position = span.uncompressed.end;
        Ok(())
    }
}

/// Fills `output` from `input`: the rest of a member (`wrapper` says in which state `inflate` is)
/// and, while output is missing, the members behind it.
fn inflate_members(
    inflate: &mut Inflate,
    mut wrapper: Wrapper,
    mut input: &[u8],
    mut output: &mut [u8],
) -> Result<(), SpanError> {
    while !output.is_empty() {
        let step = inflate
            .run(input, output, Stop::WhenFull)
            .map_err(|_| SpanError::Decode)?;
        input = input.get(step.consumed..).unwrap_or_default();
        output = output.get_mut(step.produced..).unwrap_or_default();
        if step.ended {
            if wrapper == Wrapper::Raw {
                input = input.get(GZIP_TRAILER..).unwrap_or_default();
            }
            wrapper = Wrapper::Gzip;
            inflate.reset(wrapper);
        } else if step.consumed == 0 && step.produced == 0 {
            return Err(SpanError::Decode);
        }
    }
    Ok(())
}
