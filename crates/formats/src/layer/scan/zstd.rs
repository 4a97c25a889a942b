//! The forward pass over zstd: frames and blocks (RFC 8878).
//!
//! Block and frame boundaries are found from the three-byte block headers without decoding; the
//! decoder is fed up to each boundary and then has nothing left to say, so the uncompressed
//! position is exact there.
//!
//! ```text
//! frame       magic fd2fb528 (LE) | descriptor 1 | window 0-1 | dictionary 0,1,2,4 | size 0,1,2,4,8
//!             blocks | checksum 0 or 4
//! block       header 3 (LE): last bit 0, type bits 1-2, size bits 3-23 | content (1 byte for type RLE)
//! skippable   magic 184d2a5x (LE) | size 4 (LE) | content
//! ```

use ::zstd::stream::raw::{Decoder, InBuffer, Operation, OutBuffer};

use super::super::span::{Checkpoint, SPAN_SIZE};
use super::super::zstd_stream::zstd_decoder;
use super::{Progress, ScanError, Sink};

const MAGIC: u32 = 0xfd2f_b528;
const SKIPPABLE: u32 = 0x184d_2a50;
const BLOCK_RLE: u32 = 1;

/// State between two pieces of input.
pub(super) struct ZstdScan {
    decoder: Decoder<'static>,
    part: Part,
    /// Bytes of the current header seen so far.
    header: Vec<u8>,
    /// Whether the frame ends with a checksum.
    checksum: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    /// In a frame header, whose length is known to be at least this.
    FrameHeader(usize),
    BlockHeader,
    Block {
        left: u64,
        last: bool,
    },
    /// In a checksum or skippable content, after which the frame ends.
    Tail {
        left: u64,
    },
}

impl ZstdScan {
    pub(super) fn new() -> std::io::Result<Self> {
        let part = Part::FrameHeader(5);
        Ok(Self {
            decoder: zstd_decoder()?,
            part,
            header: Vec::new(),
            checksum: false,
        })
    }

    /// Whether the blob may end here.
    pub(super) fn is_complete(&self) -> bool {
        matches!(self.part, Part::FrameHeader(_)) && self.header.is_empty()
    }

    pub(super) fn push(
        &mut self,
        mut input: &[u8],
        progress: &mut Progress,
        sink: &mut Sink<'_>,
    ) -> Result<(), ScanError> {
        while !input.is_empty() {
            if matches!(self.part, Part::FrameHeader(_)) && self.header.is_empty() {
                progress.member_start(Checkpoint::ZstdFrame, sink)?;
            }
            let left = match self.part {
                Part::FrameHeader(length) => (length - self.header.len()) as u64,
                Part::BlockHeader => 3 - self.header.len() as u64,
                Part::Block { left, .. } | Part::Tail { left } => left,
            };
            let count = usize::try_from(left).unwrap_or(usize::MAX).min(input.len());
            let (now, later) = input.split_at(count);
            input = later;
            self.decode(now, progress, sink)?;
            self.advance(now, progress)?;
            if self.part == Part::BlockHeader
                && self.header.is_empty()
                && progress.span_length() >= SPAN_SIZE
            {
                progress.cut(Checkpoint::ZstdBlock, &[], sink)?;
            }
        }
        Ok(())
    }

    /// Feeds the decoder and takes all it has to give.
    fn decode(
        &mut self,
        input: &[u8],
        progress: &mut Progress,
        sink: &mut Sink<'_>,
    ) -> Result<(), ScanError> {
        let mut source = InBuffer::around(input);
        loop {
            let mut out = OutBuffer::around(progress.space(sink)?);
            let result = self.decoder.run(&mut source, &mut out);
            let (produced, full) = (out.pos(), out.pos() == out.capacity());
            result.map_err(|_| invalid(progress))?;
            progress.produced(produced)?;
            if source.pos() == input.len() && !full {
                break;
            }
            if produced == 0 && source.pos() < input.len() && !full {
                return Err(invalid(progress));
            }
        }
        progress.consumed(input)
    }

    /// Follows the structure over bytes that do not reach beyond the current part.
    fn advance(&mut self, bytes: &[u8], progress: &Progress) -> Result<(), ScanError> {
        let count = bytes.len() as u64;
        match &mut self.part {
            Part::FrameHeader(length) => {
                self.header.extend_from_slice(bytes);
                if self.header.len() < *length {
                    return Ok(());
                }
                return self.frame_header(progress);
            }
            Part::BlockHeader => {
                self.header.extend_from_slice(bytes);
                if let [a, b, c] = self.header[..] {
                    let header = u32::from_le_bytes([a, b, c, 0]);
                    let size = u64::from(header >> 3);
                    let left = if header >> 1 & 3 == BLOCK_RLE {
                        1
                    } else {
                        size
                    };
                    self.header.clear();
                    self.part = Part::Block {
                        left,
                        last: header & 1 == 1,
                    };
                }
            }
            Part::Block { left, .. } | Part::Tail { left } => *left -= count.min(*left),
        }
        // Parts may be empty: blocks of no bytes, frames without a checksum.
        if let Part::Block { left: 0, last } = self.part {
            self.part = match (last, self.checksum) {
                (false, _) => Part::BlockHeader,
                (true, checksum) => Part::Tail {
                    left: if checksum { 4 } else { 0 },
                },
            };
        }
        if self.part == (Part::Tail { left: 0 }) {
            self.part = Part::FrameHeader(5);
        }
        Ok(())
    }

    /// Enough bytes of a frame header are there to know more about it.
    fn frame_header(&mut self, progress: &Progress) -> Result<(), ScanError> {
        let [a, b, c, d, descriptor, ..] = self.header[..] else {
            return Err(invalid(progress));
        };
        let magic = u32::from_le_bytes([a, b, c, d]);
        if magic & !15 == SKIPPABLE {
            if let [size0, size1, size2, size3] = self.header[4..] {
                let left = u64::from(u32::from_le_bytes([size0, size1, size2, size3]));
                self.header.clear();
                self.part = if left == 0 {
                    Part::FrameHeader(5)
                } else {
                    Part::Tail { left }
                };
            } else {
                self.part = Part::FrameHeader(8);
            }
            return Ok(());
        }
        if magic != MAGIC {
            return Err(invalid(progress));
        }
        let single_segment = descriptor & 0x20 != 0;
        let dictionary = [0, 1, 2, 4][usize::from(descriptor & 3)];
        let size = match descriptor >> 6 {
            0 => usize::from(single_segment),
            1 => 2,
            2 => 4,
            _ => 8,
        };
        let length = 5 + usize::from(!single_segment) + dictionary + size;
        if self.header.len() < length {
            self.part = Part::FrameHeader(length);
            return Ok(());
        }
        self.checksum = descriptor & 4 != 0;
        self.header.clear();
        self.part = Part::BlockHeader;
        Ok(())
    }
}

fn invalid(progress: &Progress) -> ScanError {
    ScanError::Invalid {
        codec: "zstd",
        position: progress.compressed,
    }
}
