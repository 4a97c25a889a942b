//! Spans: the pieces of a layer that are fetched, verified, decoded and cached as units.
//!
//! The uncompressed ranges of a table are contiguous from 0 to the layer's size. The compressed
//! ranges are ascending; where a deflate checkpoint lies inside a byte, two neighbours share that
//! byte:
//!
//! ```text
//! uncompressed  |---- span 0 ----|---- span 1 ----|---- span 2 --|
//! compressed    [ 1f 8b .. .. 5a ]
//!                            [ 5a .. .. .. 3c ]      bits(1) > 0
//!                                             [ .. ..           ]  bits(2) = 0
//! ```

use std::ops::Range;

/// How much uncompressed data a span holds at least (but for the last and those before a member
/// start): small enough that a 4 KiB read costs one short request, large enough that the index
/// stays below 1.5 % of the layer. Changing it changes every index.
pub const SPAN_SIZE: u64 = 1 << 20;
/// A gzip member or zstd frame that starts this far into a span starts a new one: such a checkpoint
/// needs no window. Changing it changes every index.
pub const MEMBER_SPAN_SIZE: u64 = SPAN_SIZE / 2;
/// Largest span, in uncompressed bytes: protects memory from a deflate block that never ends. Real
/// writers end blocks after 16 to 32 Ki symbols, at most 8 MiB.
pub const MAX_SPAN_SIZE: u64 = 64 << 20;
/// Largest span, in bytes of the blob: a span's bytes are fetched into memory before they are
/// checked. Compressors make data hardly larger than it was; much more is blocks, members and
/// frames that decode to nothing.
pub const MAX_SPAN_COMPRESSED: u64 = 2 * MAX_SPAN_SIZE;
/// Largest layer, in uncompressed bytes: protects the disk from bombs.
pub const MAX_LAYER_SIZE: u64 = 256 << 30;

/// A hash of 32 bytes: BLAKE3 in an index of our own, SHA-256 in the formats of others.
pub type Hash = [u8; 32];

/// The decoder's state at the start of a span.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Checkpoint {
    /// Nothing is compressed.
    Stored,
    /// A gzip member begins here.
    MemberStart,
    /// Between two deflate blocks of a gzip member.
    Deflate {
        /// How many bits (0 to 7) of the range's first byte belong to this span; if not 0, the
        /// range includes that byte.
        bits: u8,
        /// The output before the checkpoint, as `super::window` encodes it.
        window: Box<[u8]>,
    },
    /// A zstd frame begins here.
    ZstdFrame,
    /// Between two blocks of a zstd frame. There is no way to resume here: the spans from the last
    /// [`Checkpoint::ZstdFrame`] on must be decoded first.
    ZstdBlock,
}

/// One span of a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    /// Its bytes in the blob.
    pub compressed: Range<u64>,
    /// Its bytes in the layer's uncompressed bytes.
    pub uncompressed: Range<u64>,
    /// The decoder's state at its start.
    pub checkpoint: Checkpoint,
    /// What its bytes are checked against.
    pub digest: SpanDigest,
}

/// What a span's bytes are checked against before anyone gets them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SpanDigest {
    /// In an index of our own.
    Own {
        /// BLAKE3 of the compressed bytes: checked before a decompressor sees them.
        compressed: Hash,
        /// BLAKE3 of the uncompressed bytes: guards the local cache.
        decoded: Hash,
    },
    /// In a SOCI index: SHA-256 of the compressed bytes.
    Compressed(Hash),
    /// In the formats whose table of contents lists chunks (eStargz, zstd:chunked). What lies
    /// between the chunks reads as zeros.
    Chunks(Box<[Chunk]>),
}

/// A file's content, or a part of it, as a table of contents lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// The gzip member or zstd frame that holds it, in the blob. Neighbouring chunks may share one.
    pub compressed: Range<u64>,
    /// Where it begins in what that decodes to.
    pub inner: u64,
    /// Its bytes in the layer's uncompressed bytes.
    pub uncompressed: Range<u64>,
    /// SHA-256 of them.
    pub digest: Hash,
}

impl Span {
    /// Number of uncompressed bytes.
    pub fn size(&self) -> usize {
        // At most MAX_SPAN_SIZE, checked by SpanTable::new.
        usize::try_from(self.uncompressed.end - self.uncompressed.start).unwrap_or_default()
    }
}

/// All spans of a layer, ascending.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpanTable {
    spans: Box<[Span]>,
}

/// The spans do not fit together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("damaged span table: {0}")]
pub struct SpanTableError(&'static str);

impl SpanTable {
    /// Checks that the spans are what the module comment says, for a blob of `blob_size` bytes.
    pub fn new(spans: Vec<Span>, blob_size: u64) -> Result<Self, SpanTableError> {
        let (mut position, mut compressed_end) = (0, 0);
        for (i, span) in spans.iter().enumerate() {
            let (compressed, uncompressed) = (&span.compressed, &span.uncompressed);
            let shared = match span.checkpoint {
                Checkpoint::Deflate { bits, .. } if bits > 7 => {
                    return Err(SpanTableError("more than 7 bits"));
                }
                Checkpoint::Deflate { bits, .. } => u64::from(bits > 0),
                _ => 0,
            };
            // Tables of contents leave out what lies between files, SOCI the header of the first
            // gzip member.
            let may_skip = match &span.digest {
                SpanDigest::Own { .. } => false,
                SpanDigest::Compressed(_) => i == 0,
                SpanDigest::Chunks(chunks) => {
                    check_chunks(span, chunks)?;
                    true
                }
            };
            if uncompressed.start != position || uncompressed.end <= uncompressed.start {
                return Err(SpanTableError("spans do not follow each other"));
            }
            if uncompressed.end - uncompressed.start > MAX_SPAN_SIZE {
                return Err(SpanTableError("a span is too large"));
            }
            if compressed.end.saturating_sub(compressed.start) > MAX_SPAN_COMPRESSED {
                return Err(SpanTableError("a span has too many compressed bytes"));
            }
            let follows = match compressed.start.checked_add(shared) {
                Some(start) if may_skip => start >= compressed_end,
                start => start == Some(compressed_end),
            };
            if !follows || compressed.end < compressed.start + shared {
                return Err(SpanTableError("compressed ranges do not follow each other"));
            }
            let is_stored = span.checkpoint == Checkpoint::Stored;
            if is_stored && compressed != uncompressed {
                return Err(SpanTableError("a stored span is not where it should be"));
            }
            let is_start = match &span.checkpoint {
                Checkpoint::Stored | Checkpoint::MemberStart | Checkpoint::ZstdFrame => true,
                // Nothing can come before it, so there is nothing to refer to.
                Checkpoint::Deflate { bits, .. } => may_skip && *bits == 0,
                Checkpoint::ZstdBlock => false,
            };
            if i == 0 && !is_start {
                return Err(SpanTableError("the first span is no start"));
            }
            position = uncompressed.end;
            compressed_end = compressed.end;
        }
        if compressed_end > blob_size {
            return Err(SpanTableError("spans reach beyond the blob"));
        }
        if position > MAX_LAYER_SIZE {
            return Err(SpanTableError("the layer is too large"));
        }
        Ok(Self {
            spans: spans.into(),
        })
    }

    /// Number of spans.
    pub fn len(&self) -> usize {
        self.spans.len()
    }

    /// Whether the layer has no bytes at all.
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// All spans.
    pub fn iter(&self) -> impl Iterator<Item = &Span> {
        self.spans.iter()
    }

    /// One span.
    pub fn get(&self, id: usize) -> Option<&Span> {
        self.spans.get(id)
    }

    /// The layer's uncompressed size in bytes.
    pub fn layer_size(&self) -> u64 {
        self.spans.last().map_or(0, |span| span.uncompressed.end)
    }

    /// The spans that hold the uncompressed bytes `range`; what lies beyond the layer is ignored.
    pub fn covering(&self, range: Range<u64>) -> Range<usize> {
        if range.is_empty() {
            return 0..0;
        }
        let first = self
            .spans
            .partition_point(|span| span.uncompressed.end <= range.start);
        let end = self
            .spans
            .partition_point(|span| span.uncompressed.start < range.end);
        first..end.max(first)
    }

    /// The spans that have any of these bytes of the blob.
    pub fn in_blob(&self, range: &Range<u64>) -> Range<usize> {
        let first = (self.spans).partition_point(|span| span.compressed.end <= range.start);
        let end = (self.spans).partition_point(|span| span.compressed.start < range.end);
        first..end.max(first)
    }

    /// The first span that begins at `position` of the blob or behind it.
    pub fn first_in_blob(&self, position: u64) -> usize {
        (self.spans).partition_point(|span| span.compressed.start < position)
    }

    /// The spans that must be decoded in one go to get at `id`: itself, or all of its zstd frame.
    pub fn chain(&self, id: usize) -> Range<usize> {
        let continues = |id: usize| {
            self.spans
                .get(id)
                .is_some_and(|span| span.checkpoint == Checkpoint::ZstdBlock)
        };
        let mut first = id;
        while first > 0 && continues(first) {
            first -= 1;
        }
        let mut end = id + 1;
        while continues(end) {
            end += 1;
        }
        first..end
    }
}

/// That the chunks of a span lie in it, in order and apart, and can be decoded within the limits.
fn check_chunks(span: &Span, chunks: &[Chunk]) -> Result<(), SpanTableError> {
    if !matches!(
        span.checkpoint,
        Checkpoint::MemberStart | Checkpoint::ZstdFrame
    ) {
        return Err(SpanTableError("chunks in what is neither gzip nor zstd"));
    }
    let (mut decoded_end, mut position) = (0, span.uncompressed.start);
    let mut member = span.compressed.start..span.compressed.start;
    for chunk in chunks {
        let (compressed, uncompressed) = (&chunk.compressed, &chunk.uncompressed);
        if *compressed != member {
            if compressed.start < member.end || compressed.end <= compressed.start {
                return Err(SpanTableError("chunks overlap in the blob"));
            }
            (member, decoded_end) = (compressed.clone(), 0);
        }
        if member.end > span.compressed.end {
            return Err(SpanTableError("a chunk reaches beyond its span"));
        }
        if uncompressed.start < position || uncompressed.end <= uncompressed.start {
            return Err(SpanTableError("chunks overlap"));
        }
        position = uncompressed.end;
        let size = uncompressed.end - uncompressed.start;
        if chunk.inner < decoded_end {
            return Err(SpanTableError(
                "chunks overlap in a gzip member or zstd frame",
            ));
        }
        decoded_end = chunk.inner.saturating_add(size);
        if decoded_end > MAX_SPAN_SIZE {
            return Err(SpanTableError("a gzip member or zstd frame is too large"));
        }
    }
    if position > span.uncompressed.end {
        return Err(SpanTableError("a chunk reaches beyond its span"));
    }
    Ok(())
}
