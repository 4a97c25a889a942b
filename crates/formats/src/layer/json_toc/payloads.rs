//! Where a table of contents' payloads are in the blob, and which place in the layer's array of
//! bytes each gets.
//!
//! The tables name no offsets in the tar. So the payloads are numbered here: in ascending order of
//! the blob, each file at the next multiple of 512, its chunks without a gap. Neighbouring gzip
//! members or zstd frames become one span:
//!
//! ```text
//! blob      [ m0: a ][ m1: b, part 1 ][ m2: b, part 2 ][ m3: c, d (innerOffset) ][ headers ][ m4: e ] .. table of contents
//! layer     | a ..... | b, part 1       b, part 2 ..... | c ..... d ....................... | e      |
//! spans     |---- 0 ------------------------------------|---- 1 ---------------------------- ------- |
//! ```

use std::ops::Range;

use super::error::ContentsError;
use crate::layer::scan::Codec;
use crate::layer::span::{
    Checkpoint, Chunk, Hash, MAX_LAYER_SIZE, MAX_SPAN_SIZE, SPAN_SIZE, Span, SpanDigest, SpanTable,
};
use crate::layer::toc::Extent;

/// How many bytes of the blob a span should have at most, where its members are smaller: what a 4
/// KiB read costs on a line where a round trip is worth several hundred kilobytes. A larger member
/// is a span of its own. Changing it changes which bytes a span has: raise the version of the index
/// file then.
const SPAN_COMPRESSED: u64 = 350_000;
/// Files begin at multiples of this, as in a tar: so a kernel can map them one day.
const ALIGNMENT: u64 = 512;

/// A file's content, or a part of it, as the table of contents says.
#[derive(Debug, Clone, Copy)]
pub(super) struct PayloadSlice {
    /// Where the gzip member or zstd frame begins in the blob.
    pub offset: u64,
    /// Where that ends, if the table says so.
    pub end: Option<u64>,
    /// Where the piece begins in what that decodes to.
    pub inner: u64,
    /// Where it belongs in the file.
    pub file_offset: u64,
    /// Its size in bytes, not 0.
    pub size: u64,
    /// SHA-256.
    pub digest: Hash,
}

/// A regular file with content.
#[derive(Debug)]
pub(super) struct File {
    /// Which entry of the table it is; none is shown for a landmark.
    pub entry: Option<usize>,
    /// Its size in bytes, holes included.
    pub size: u64,
    /// Its pieces among all.
    pub pieces: Range<usize>,
    /// Where its bytes begin in the layer.
    pub address: u64,
}

/// All payloads of a layer.
#[derive(Debug, Default)]
pub(super) struct Payloads {
    pub files: Vec<File>,
    pub pieces: Vec<PayloadSlice>,
}

impl Payloads {
    /// Gives each file its place and puts the pieces into spans. `payload_end` is where the table
    /// of contents begins: no payload reaches further. `name` names a file for messages.
    pub(super) fn lay_out(
        &mut self,
        codec: Codec,
        blob_size: u64,
        payload_end: u64,
        name: impl Fn(&File) -> String,
    ) -> Result<SpanTable, ContentsError> {
        let mut order: Vec<usize> = (0..self.files.len())
            .filter(|file| {
                self.files
                    .get(*file)
                    .is_some_and(|it| !it.pieces.is_empty())
            })
            .collect();
        let start = |file: &File| {
            self.pieces
                .get(file.pieces.start)
                .map(|it| (it.offset, it.inner))
        };
        order.sort_by_key(|file| self.files.get(*file).and_then(start));

        let mut placed = Vec::with_capacity(self.pieces.len());
        let mut position = 0_u64;
        for id in order {
            let Some(file) = self.files.get_mut(id) else {
                continue;
            };
            let is_shown = file.entry.is_some();
            if is_shown {
                position = position.next_multiple_of(ALIGNMENT);
                file.address = position;
            }
            for piece in self.pieces.get(file.pieces.clone()).unwrap_or_default() {
                let address = is_shown.then_some(position);
                if is_shown {
                    // Checked at each piece, so this cannot overflow, nor can rounding up.
                    position += piece.size.min(MAX_SPAN_SIZE);
                }
                if position > MAX_LAYER_SIZE {
                    return Err(ContentsError::TooMuch {
                        limit: MAX_LAYER_SIZE,
                    });
                }
                placed.push(Placed {
                    piece: *piece,
                    file: id,
                    address,
                });
            }
        }
        let members = self.members(&placed, payload_end, &name)?;
        let spans = group(members, codec, position);
        Ok(SpanTable::new(spans, blob_size)?)
    }

    /// The members or frames that have something to show, with their chunks.
    fn members(
        &self,
        placed: &[Placed],
        payload_end: u64,
        name: &impl Fn(&File) -> String,
    ) -> Result<Vec<Member>, ContentsError> {
        let name = |placed: &Placed| self.files.get(placed.file).map(name).unwrap_or_default();
        let mut members: Vec<Member> = Vec::new();
        let mut groups = placed
            .chunk_by(|one, next| one.piece.offset == next.piece.offset)
            .peekable();
        while let Some(group) = groups.next() {
            let Some(first) = group.first() else {
                continue;
            };
            let following = groups.peek().and_then(|group| group.first());
            let start = first.piece.offset;
            if let Some(next) = following.filter(|next| next.piece.offset < start) {
                return Err(ContentsError::Order(name(next)));
            }
            let limit = following.map_or(payload_end, |next| next.piece.offset.min(payload_end));
            let end = first.piece.end.unwrap_or(limit);
            if end > payload_end || start >= payload_end {
                return Err(ContentsError::Beyond {
                    name: name(first),
                    end: payload_end,
                });
            }
            if end > limit || end <= start {
                return Err(ContentsError::Overlap(name(first)));
            }
            let mut decoded = 0;
            let mut chunks = Vec::new();
            for placed in group {
                let piece = &placed.piece;
                if piece.inner < decoded || piece.end != first.piece.end {
                    return Err(ContentsError::Overlap(name(placed)));
                }
                decoded = piece.inner.saturating_add(piece.size);
                if decoded > MAX_SPAN_SIZE {
                    return Err(ContentsError::LargeMember {
                        name: name(placed),
                        size: decoded,
                        limit: MAX_SPAN_SIZE,
                    });
                }
                if let Some(address) = placed.address {
                    chunks.push(Chunk {
                        compressed: start..end,
                        inner: piece.inner,
                        uncompressed: address..address + piece.size,
                        digest: piece.digest,
                    });
                }
            }
            if !chunks.is_empty() {
                members.push(Member {
                    compressed: start..end,
                    chunks,
                });
            }
        }
        Ok(members)
    }

    /// The runs of a file's bytes that are stored, neighbours joined.
    pub(super) fn extents(&self, file: &File) -> Vec<Extent> {
        let mut extents: Vec<Extent> = Vec::new();
        let mut layer_offset = file.address;
        for piece in self.pieces.get(file.pieces.clone()).unwrap_or_default() {
            match extents.last_mut() {
                Some(last) if last.file_offset + last.length == piece.file_offset => {
                    last.length += piece.size;
                }
                _ => extents.push(Extent {
                    file_offset: piece.file_offset,
                    layer_offset,
                    length: piece.size,
                }),
            }
            layer_offset += piece.size;
        }
        extents
    }
}

/// A piece, the file it is of, and its place in the layer if it has one.
struct Placed {
    piece: PayloadSlice,
    file: usize,
    address: Option<u64>,
}

/// A gzip member or zstd frame with the chunks in it, which are at least one.
struct Member {
    compressed: Range<u64>,
    chunks: Vec<Chunk>,
}

impl Member {
    fn start(&self) -> u64 {
        self.chunks
            .first()
            .map_or(0, |chunk| chunk.uncompressed.start)
    }
}

/// Puts neighbours together. Each span reaches to where the next one begins: padding belongs to the
/// one before it.
fn group(members: Vec<Member>, codec: Codec, layer_size: u64) -> Vec<Span> {
    let mut spans: Vec<Span> = Vec::new();
    let mut members = members.into_iter().peekable();
    while let Some(first) = members.next() {
        let start = first.start();
        let mut compressed = first.compressed;
        let mut chunks = first.chunks;
        let end = loop {
            let Some(next) = members.peek() else {
                break layer_size;
            };
            let next_end = next.chunks.last().map_or(0, |chunk| chunk.uncompressed.end);
            if next_end - start > SPAN_SIZE
                || next.compressed.end - compressed.start > SPAN_COMPRESSED
            {
                break next.start();
            }
            if let Some(next) = members.next() {
                compressed.end = next.compressed.end;
                chunks.extend(next.chunks);
            }
        };
        spans.push(Span {
            compressed,
            uncompressed: start..end,
            checkpoint: match codec {
                Codec::Zstd => Checkpoint::ZstdFrame,
                Codec::Gzip | Codec::Tar => Checkpoint::MemberStart,
            },
            digest: SpanDigest::Chunks(chunks.into()),
        });
    }
    spans
}
