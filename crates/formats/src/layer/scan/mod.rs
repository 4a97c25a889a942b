//! The forward pass over a compressed layer: decodes it once, in order, and finds its spans on the
//! way.
//!
//! [`Scanner`] gets the blob's bytes in pieces of any size and gives decoded bytes and span ends to
//! a callback. Where spans end depends on the bytes alone, never on how they were cut into pieces,
//! so everyone gets the same index. The rules:
//!
//! - plain tar: every [`SPAN_SIZE`];
//! - gzip: the first block boundary more than [`SPAN_SIZE`] into the span (more than, as inflate
//!   may or may not stop at a boundary that coincides with the end of its output), or a member
//!   start [`MEMBER_SPAN_SIZE`] into it;
//! - zstd: the first block boundary [`SPAN_SIZE`] into it, or a frame start [`MEMBER_SPAN_SIZE`]
//!   into it, or any frame start in a span that begins inside a frame: nothing can be resumed
//!   there, so a read would cost every frame up to the next span that begins with one. A frame's
//!   end without content belongs to the span before it.

mod gzip;
mod zstd;

use super::span::{
    Checkpoint, Hash, MAX_LAYER_SIZE, MAX_SPAN_COMPRESSED, MAX_SPAN_SIZE, MEMBER_SPAN_SIZE,
    SPAN_SIZE,
};

/// Size of the pieces in which decoded bytes are handed on: fits in the caches of a core, costs few
/// calls.
pub const PIECE_SIZE: usize = 256 << 10;

/// How a layer's bytes are compressed, by its first bytes: media types are known to lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Codec {
    /// Not at all.
    Tar,
    /// gzip.
    Gzip,
    /// zstd.
    Zstd,
}

impl Codec {
    /// How many bytes [`Codec::sniff`] wants to see.
    pub const SNIFF_LEN: usize = 4;

    /// Decides by the magic number; anything unknown is taken for a plain tar.
    pub fn sniff(start: &[u8]) -> Self {
        match start {
            [0x1f, 0x8b, 8, ..] => Self::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::Zstd,
            _ => Self::Tar,
        }
    }
}

/// What the scanner found next.
pub enum Piece {
    /// The next decoded bytes.
    Bytes(Vec<u8>),
    /// The span ends here.
    Cut,
}

/// A span as the forward pass knows it: all but the digest of the decoded bytes.
pub struct ScannedSpan {
    /// Its bytes in the blob.
    pub compressed: std::ops::Range<u64>,
    /// Its bytes in the layer.
    pub uncompressed: std::ops::Range<u64>,
    /// The decoder's state at its start.
    pub checkpoint: Checkpoint,
    /// BLAKE3 of the compressed bytes.
    pub digest: Hash,
}

/// Why a layer cannot be decoded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScanError {
    /// Not what its first bytes promised.
    #[error("invalid {codec} data near byte {position} of the blob")]
    Invalid {
        /// The compression.
        codec: &'static str,
        /// Roughly where, in compressed bytes.
        position: u64,
    },
    /// The blob ends inside a member or frame.
    #[error("{codec} data ends early, after {position} bytes")]
    Truncated {
        /// The compression.
        codec: &'static str,
        /// Compressed bytes seen.
        position: u64,
    },
    /// More than [`MAX_LAYER_SIZE`] bytes.
    #[error("the layer has more than {MAX_LAYER_SIZE} uncompressed bytes (limit against bombs)")]
    LayerTooLarge,
    /// More than [`MAX_SPAN_SIZE`] bytes without a block boundary.
    #[error(
        "a deflate block has more than {MAX_SPAN_SIZE} uncompressed bytes (limit against bombs)"
    )]
    BlockTooLarge,
    /// More than [`MAX_SPAN_COMPRESSED`] bytes of the blob that decode to next to nothing.
    #[error(
        "more than {MAX_SPAN_COMPRESSED} bytes decode to hardly anything (limit against bombs)"
    )]
    SpanTooLarge,
    /// The callback wants no more.
    #[error("stopped")]
    Stopped,
}

/// The callback: takes a piece, returns an empty buffer to fill next (or `None` to stop).
pub(crate) type Sink<'a> = dyn FnMut(Piece) -> Option<Vec<u8>> + 'a;

/// Decodes a blob and finds its spans.
pub struct Scanner {
    /// First bytes, until there are enough to sniff.
    start: Vec<u8>,
    decoder: Option<Decoder>,
    progress: Progress,
}

enum Decoder {
    Tar,
    Gzip(Box<gzip::GzipScan>),
    Zstd(Box<zstd::ZstdScan>),
}

/// Position in both streams, the spans so far, and the buffer being filled.
struct Progress {
    compressed: u64,
    uncompressed: u64,
    span_start: u64,
    span_compressed_start: u64,
    checkpoint: Checkpoint,
    hasher: blake3::Hasher,
    /// Of the last span and what followed it without any content.
    extended: blake3::Hasher,
    spans: Vec<ScannedSpan>,
    buffer: Vec<u8>,
    filled: usize,
}

impl Scanner {
    /// A scanner at the start of a blob.
    pub fn new() -> Self {
        Self {
            start: Vec::new(),
            decoder: None,
            progress: Progress {
                compressed: 0,
                uncompressed: 0,
                span_start: 0,
                span_compressed_start: 0,
                checkpoint: Checkpoint::Stored,
                hasher: blake3::Hasher::new(),
                extended: blake3::Hasher::new(),
                spans: Vec::new(),
                buffer: vec![0; PIECE_SIZE],
                filled: 0,
            },
        }
    }

    /// Takes the next bytes of the blob.
    pub fn push(&mut self, input: &[u8], sink: &mut Sink<'_>) -> Result<(), ScanError> {
        if self.decoder.is_some() {
            return self.decode(input, sink);
        }
        self.start.extend_from_slice(input);
        if self.start.len() < Codec::SNIFF_LEN {
            return Ok(());
        }
        self.begin(sink)
    }

    /// The blob is complete: its codec and spans.
    pub fn finish(mut self, sink: &mut Sink<'_>) -> Result<(Codec, Vec<ScannedSpan>), ScanError> {
        if self.decoder.is_none() {
            self.begin(sink)?;
        }
        let position = self.progress.compressed;
        let codec = match self.decoder {
            Some(Decoder::Gzip(scan)) => {
                if !scan.is_complete() {
                    return Err(ScanError::Truncated {
                        codec: "gzip",
                        position,
                    });
                }
                Codec::Gzip
            }
            Some(Decoder::Zstd(scan)) => {
                if !scan.is_complete() {
                    return Err(ScanError::Truncated {
                        codec: "zstd",
                        position,
                    });
                }
                Codec::Zstd
            }
            Some(Decoder::Tar) | None => Codec::Tar,
        };
        // What follows the last decoded byte (trailer, padding) belongs to the last span; without
        // any decoded byte there is no span at all.
        if self.progress.uncompressed > self.progress.span_start {
            self.progress.cut(Checkpoint::Stored, &[], sink)?;
        } else {
            self.progress.flush(sink)?;
        }
        Ok((codec, self.progress.spans))
    }

    fn begin(&mut self, sink: &mut Sink<'_>) -> Result<(), ScanError> {
        let start = std::mem::take(&mut self.start);
        let (decoder, checkpoint) = match Codec::sniff(&start) {
            Codec::Tar => (Decoder::Tar, Checkpoint::Stored),
            Codec::Gzip => (
                Decoder::Gzip(Box::new(gzip::GzipScan::new())),
                Checkpoint::MemberStart,
            ),
            Codec::Zstd => {
                let invalid = |_| ScanError::Invalid {
                    codec: "zstd",
                    position: 0,
                };
                let scan = zstd::ZstdScan::new().map_err(invalid)?;
                (Decoder::Zstd(Box::new(scan)), Checkpoint::ZstdFrame)
            }
        };
        self.progress.checkpoint = checkpoint;
        self.decoder = Some(decoder);
        self.decode(&start, sink)
    }

    fn decode(&mut self, input: &[u8], sink: &mut Sink<'_>) -> Result<(), ScanError> {
        match &mut self.decoder {
            Some(Decoder::Gzip(scan)) => scan.push(input, &mut self.progress, sink),
            Some(Decoder::Zstd(scan)) => scan.push(input, &mut self.progress, sink),
            Some(Decoder::Tar) | None => self.progress.copy(input, sink),
        }
    }
}

impl Default for Scanner {
    fn default() -> Self {
        Self::new()
    }
}

impl Progress {
    /// Plain tar: input is output.
    fn copy(&mut self, mut input: &[u8], sink: &mut Sink<'_>) -> Result<(), ScanError> {
        while !input.is_empty() {
            if self.span_length() == SPAN_SIZE {
                self.cut(Checkpoint::Stored, &[], sink)?;
            }
            let left = usize::try_from(SPAN_SIZE - self.span_length()).unwrap_or(usize::MAX);
            let space = self.space(sink)?;
            let count = space.len().min(input.len()).min(left);
            let (now, later) = input.split_at(count);
            if let Some(space) = space.get_mut(..count) {
                space.copy_from_slice(now);
            }
            self.consumed(now)?;
            self.produced(count)?;
            input = later;
        }
        Ok(())
    }

    fn span_length(&self) -> u64 {
        self.uncompressed - self.span_start
    }

    /// Room for decoded bytes; hands on the buffer first when it is full.
    fn space(&mut self, sink: &mut Sink<'_>) -> Result<&mut [u8], ScanError> {
        if self.filled == self.buffer.len() {
            self.flush(sink)?;
        }
        Ok(self.buffer.get_mut(self.filled..).unwrap_or_default())
    }

    fn flush(&mut self, sink: &mut Sink<'_>) -> Result<(), ScanError> {
        if self.filled == 0 {
            return Ok(());
        }
        let mut full = std::mem::take(&mut self.buffer);
        full.truncate(self.filled);
        self.filled = 0;
        self.buffer = sink(Piece::Bytes(full)).ok_or(ScanError::Stopped)?;
        self.buffer.resize(PIECE_SIZE, 0);
        Ok(())
    }

    /// Notes input bytes as used.
    fn consumed(&mut self, bytes: &[u8]) -> Result<(), ScanError> {
        self.hasher.update(bytes);
        if self.checkpoint == Checkpoint::ZstdBlock && self.span_length() == 0 {
            self.extended.update(bytes);
        }
        self.compressed += bytes.len() as u64;
        if self.compressed - self.span_compressed_start > MAX_SPAN_COMPRESSED {
            return Err(ScanError::SpanTooLarge);
        }
        Ok(())
    }

    /// Notes decoded bytes in the buffer.
    fn produced(&mut self, count: usize) -> Result<(), ScanError> {
        self.filled += count;
        self.uncompressed += count as u64;
        if self.uncompressed > MAX_LAYER_SIZE {
            return Err(ScanError::LayerTooLarge);
        }
        if self.span_length() > MAX_SPAN_SIZE {
            return Err(ScanError::BlockTooLarge);
        }
        Ok(())
    }

    /// Ends the span here; the next one starts with `checkpoint` and shares the compressed bytes
    /// `shared`.
    fn cut(
        &mut self,
        checkpoint: Checkpoint,
        shared: &[u8],
        sink: &mut Sink<'_>,
    ) -> Result<(), ScanError> {
        self.flush(sink)?;
        let buffer = sink(Piece::Cut).ok_or(ScanError::Stopped)?;
        debug_assert!(buffer.is_empty(), "a cut takes no buffer and needs none");
        self.spans.push(ScannedSpan {
            compressed: self.span_compressed_start..self.compressed,
            uncompressed: self.span_start..self.uncompressed,
            checkpoint: std::mem::replace(&mut self.checkpoint, checkpoint),
            digest: *self.hasher.finalize().as_bytes(),
        });
        std::mem::swap(&mut self.hasher, &mut self.extended);
        self.hasher.reset();
        self.hasher.update(shared);
        self.span_start = self.uncompressed;
        self.span_compressed_start = self.compressed - shared.len() as u64;
        Ok(())
    }

    /// At a place where a member or frame begins: ends the span if it is long enough for that, or
    /// if it begins where nothing can be resumed.
    fn member_start(
        &mut self,
        checkpoint: Checkpoint,
        sink: &mut Sink<'_>,
    ) -> Result<(), ScanError> {
        let is_inside = self.checkpoint == Checkpoint::ZstdBlock;
        if is_inside && self.span_length() == 0 {
            self.extend_last(checkpoint);
        } else if is_inside || self.span_length() >= MEMBER_SPAN_SIZE {
            self.cut(checkpoint, &[], sink)?;
        }
        Ok(())
    }

    /// Gives the bytes since the last cut, which have no content, to the span before it.
    fn extend_last(&mut self, checkpoint: Checkpoint) {
        let Some(last) = self.spans.last_mut() else {
            return;
        };
        if self.compressed - last.compressed.start > MAX_SPAN_COMPRESSED {
            return;
        }
        last.compressed.end = self.compressed;
        last.digest = *self.extended.finalize().as_bytes();
        self.checkpoint = checkpoint;
        self.hasher.reset();
        self.span_compressed_start = self.compressed;
    }
}
