//! The index of a layer and its file form.
//!
//! ```text
//! header    magic "imgfsidx" | version u32 | codec u8 | algorithm u8 | reserved u16
//!           blob digest 64 (zero-padded) | blob size u64 | layer size u64
//! table     5 sections: stored length u64 | raw length u64 | BLAKE3 of the raw bytes 32
//! check     BLAKE3 of everything above 32
//! sections  toc (zstd) | spans (zstd) | windows (zstd) | chunks (zstd) | file digests (32 bytes each)
//! ```
//!
//! All numbers are little-endian. A section's hash covers its raw bytes, so the zstd library's
//! version does not matter to what an index *is*; the header's check covers the table. The file
//! digests are last because a mount does not read them.

use std::collections::HashMap;
use std::io::Read;

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::scan::Codec;
use super::span::{
    Checkpoint, Chunk, Hash, MAX_LAYER_SIZE, Span, SpanDigest, SpanTable, SpanTableError,
};
use super::toc::{EntryKind, Toc, TocError};
use crate::oci::{Algorithm, Digest, Digester};

const MAGIC: [u8; 8] = *b"imgfsidx";
/// Raise when the layout or a span rule changes: older files are then made anew.
const VERSION: u32 = 2;
/// Compression of the sections: higher levels gain 3 % and cost a noticeable pause at the end of a
/// download.
const ZSTD_LEVEL: i32 = 3;
/// Largest raw section; protects memory. A layer of 4 Mi entries stays below it.
const MAX_SECTION: u64 = 2 << 30;
/// Most raw bytes for each stored one, beside a start: real sections have 3 to 40. Protects memory
/// against an index that nobody vouches for.
const MAX_RATIO: u64 = 200;
const MIN_RAW: u64 = 16 << 20;
/// Bytes before the sections.
pub(crate) const HEADER_SIZE: usize = size_of::<Header>() + 32;

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Header {
    magic: [u8; 8],
    version: U32,
    codec: u8,
    algorithm: u8,
    reserved: [u8; 2],
    digest: [u8; 64],
    blob_size: U64,
    layer_size: U64,
    sections: [Section; 5],
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Clone, Copy)]
#[repr(C)]
struct Section {
    stored: U64,
    raw: U64,
    hash: Hash,
}

/// A span's record in the spans section. Its window's bytes stand in the windows section and its
/// chunks in the chunks section, in order.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct SpanRecord {
    compressed_start: U64,
    compressed_end: U64,
    uncompressed_end: U64,
    window_length: U32,
    chunks: U32,
    checkpoint: u8,
    bits: u8,
    /// [`OWN`], [`COMPRESSED`] or [`CHUNKS`].
    digest_kind: u8,
    reserved: u8,
    /// Of the compressed bytes; zeros with chunks.
    digest: Hash,
    /// Of the decoded bytes; zeros where there is none.
    decoded_digest: Hash,
}

/// A chunk's record in the chunks section.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct ChunkRecord {
    compressed_start: U64,
    compressed_end: U64,
    inner: U64,
    uncompressed_start: U64,
    uncompressed_end: U64,
    digest: Hash,
}

const OWN: u8 = 0;
const COMPRESSED: u8 = 1;
const CHUNKS: u8 = 2;

/// What makes a layer lazily readable: its entries and its spans.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerIndex {
    /// Digest of the blob this is the index of.
    pub blob: Digest,
    /// Size of that blob in bytes.
    pub blob_size: u64,
    /// How the blob is compressed.
    pub codec: Codec,
    /// The entries, in tar order.
    pub toc: Toc,
    /// The spans.
    pub spans: SpanTable,
    /// BLAKE3 of each regular file's stored bytes, in the order of the entries. Empty when loaded
    /// without.
    pub file_digests: Vec<Hash>,
}

/// Why an index file is refused. It is then made anew.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// No index file, or one of another version.
    #[error("not an index file of version {VERSION}")]
    Version,
    /// It belongs to another blob.
    #[error("it is the index of another blob than {expected}")]
    OtherBlob {
        /// The blob asked for.
        expected: Digest,
    },
    /// A hash does not match, or a length makes no sense.
    #[error("damaged index file: {0}")]
    Damaged(&'static str),
    /// The spans do not fit together.
    #[error(transparent)]
    Spans(#[from] SpanTableError),
    /// The entries do not fit together.
    #[error(transparent)]
    Toc(#[from] TocError),
    /// Reading failed.
    #[error("cannot read the index file: {0}")]
    Io(#[from] std::io::Error),
}

impl LayerIndex {
    /// Bytes at the start of a file that [`LayerIndex::is_current`] wants to see.
    pub const START: usize = 12;

    /// Whether a file that starts like this is an index of this version.
    pub fn is_current(start: &[u8; Self::START]) -> bool {
        start.starts_with(&MAGIC) && start.ends_with(&VERSION.to_le_bytes())
    }

    /// Whether a file is an index of a later version than this one, and not a damaged one of this.
    /// Reads its start alone.
    pub fn is_newer(mut file: impl Read) -> std::io::Result<bool> {
        let mut start = [0; HEADER_SIZE];
        match file.read_exact(&mut start) {
            Err(err) if err.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(false),
            result => result?,
        }
        let (header, check) = start.split_at_mut(size_of::<Header>());
        let Ok(header) = Header::mut_from_bytes(header) else {
            return Ok(false);
        };
        if header.magic != MAGIC || header.version.get() <= VERSION {
            return Ok(false);
        }
        header.version = VERSION.into();
        Ok(blake3::hash(header.as_bytes()).as_bytes() != check)
    }

    /// The raw sections.
    fn sections(&self) -> [Vec<u8>; 5] {
        let (mut windows, mut chunks) = (Vec::new(), Vec::new());
        let mut records = Vec::with_capacity(self.spans.len() * size_of::<SpanRecord>());
        for span in self.spans.iter() {
            let (checkpoint, bits, window) = match &span.checkpoint {
                Checkpoint::Stored => (0, 0, &[][..]),
                Checkpoint::MemberStart => (1, 0, &[][..]),
                Checkpoint::Deflate { bits, window } => (2, *bits, &window[..]),
                Checkpoint::ZstdFrame => (3, 0, &[][..]),
                Checkpoint::ZstdBlock => (4, 0, &[][..]),
            };
            windows.extend_from_slice(window);
            let none = &[][..];
            let (digest_kind, digest, decoded_digest, own_chunks) = match &span.digest {
                SpanDigest::Own {
                    compressed,
                    decoded,
                } => (OWN, *compressed, *decoded, none),
                SpanDigest::Compressed(digest) => (COMPRESSED, *digest, [0; 32], none),
                SpanDigest::Chunks(chunks) => (CHUNKS, [0; 32], [0; 32], &chunks[..]),
            };
            for chunk in own_chunks {
                chunks.extend_from_slice(ChunkRecord::of(chunk).as_bytes());
            }
            let record = SpanRecord {
                compressed_start: span.compressed.start.into(),
                compressed_end: span.compressed.end.into(),
                uncompressed_end: span.uncompressed.end.into(),
                // Encoded windows are at most a few bytes longer than 32 KiB.
                window_length: u32::try_from(window.len()).unwrap_or(u32::MAX).into(),
                // A span of 64 MiB at most has no more chunks than bytes.
                chunks: u32::try_from(own_chunks.len()).unwrap_or(u32::MAX).into(),
                checkpoint,
                bits,
                digest_kind,
                reserved: 0,
                digest,
                decoded_digest,
            };
            records.extend_from_slice(record.as_bytes());
        }
        [
            self.toc.encode(),
            records,
            windows,
            chunks,
            self.file_digests.as_flattened().to_vec(),
        ]
    }

    /// The digests of files by where in the layer their first stored byte is; none if it has none,
    /// or was loaded without. Those of sparse files are of the bytes that are stored.
    pub fn digests_by_start(&self) -> HashMap<u64, Hash> {
        let starts = self.toc.iter().filter_map(|entry| match entry.kind {
            EntryKind::File { offset, size } => Some((size > 0).then_some(offset)),
            EntryKind::SparseFile { extents, .. } => {
                let stored = extents.iter().find(|extent| extent.length > 0);
                Some(stored.map(|extent| extent.layer_offset))
            }
            _ => None,
        });
        let digests = starts.zip(&self.file_digests);
        digests
            .filter_map(|(start, digest)| Some((start?, *digest)))
            .collect()
    }

    /// The file's bytes.
    pub fn encode(&self) -> Result<Vec<u8>, IndexError> {
        let raw = self.sections();
        let mut body = Vec::new();
        let mut sections = Vec::with_capacity(raw.len());
        for (i, raw) in raw.iter().enumerate() {
            let before = body.len();
            if i == DIGESTS {
                body.extend_from_slice(raw);
            } else {
                body.extend(zstd::bulk::compress(raw, ZSTD_LEVEL)?);
            }
            sections.push(Section {
                stored: ((body.len() - before) as u64).into(),
                raw: (raw.len() as u64).into(),
                hash: *blake3::hash(raw).as_bytes(),
            });
        }
        let sections = sections
            .try_into()
            .map_err(|_| IndexError::Damaged("sections"))?;
        let header = self.header(sections);
        let mut out = header.as_bytes().to_vec();
        out.extend_from_slice(blake3::hash(header.as_bytes()).as_bytes());
        out.append(&mut body);
        Ok(out)
    }

    fn header(&self, sections: [Section; 5]) -> Header {
        Header {
            magic: MAGIC,
            version: VERSION.into(),
            codec: self.codec as u8,
            algorithm: self.blob.algorithm() as u8,
            reserved: [0; 2],
            digest: padded(&self.blob),
            blob_size: self.blob_size.into(),
            layer_size: self.spans.layer_size().into(),
            sections,
        }
    }

    /// The index digest: all makers of an index of the same blob get the same one, with whatever
    /// version of zstd the file is compressed. It is the SHA-256 of the header without the
    /// sections' stored lengths:
    ///
    /// ```text
    /// magic "imgfsidx" | version u32 | codec u8 | algorithm u8 | 0 u16 | blob digest 64 | blob size u64 |
    /// layer size u64 | for each of the 5 sections: raw length u64 | BLAKE3 of the raw bytes 32
    /// ```
    ///
    /// Only of an index that has its file digests: without them it is another.
    pub fn digest(&self) -> Digest {
        let sections = self.sections().map(|raw| Section {
            stored: 0.into(),
            raw: (raw.len() as u64).into(),
            hash: *blake3::hash(&raw).as_bytes(),
        });
        self.header(sections).index_digest()
    }

    /// The index digest of an index file, by its first [`HEADER_SIZE`] bytes: each section is
    /// checked against its hash there when it is read, so this is the digest of whatever is read
    /// from the file.
    pub fn digest_of_file(file: &[u8]) -> Result<Digest, IndexError> {
        let start = file.first_chunk().ok_or(IndexError::Version)?;
        Ok(Header::checked(start)?.index_digest())
    }

    /// The size of the layer's uncompressed tar in bytes, as an index file says. Reads its header
    /// alone.
    pub fn layer_size_of(mut file: impl Read) -> Result<u64, IndexError> {
        let mut start = [0; HEADER_SIZE];
        file.read_exact(&mut start)?;
        Ok(Header::checked(&start)?.layer_size.get())
    }

    /// Reads an index file that should be of `blob`. With `with_digests`, the file digests too.
    pub fn read(
        mut file: impl Read,
        blob: &Digest,
        with_digests: bool,
    ) -> Result<Self, IndexError> {
        let mut start = [0; HEADER_SIZE];
        file.read_exact(&mut start)?;
        let parsed = Header::checked(&start)?;
        if parsed.digest != padded(blob) || parsed.algorithm != blob.algorithm() as u8 {
            return Err(IndexError::OtherBlob { expected: *blob });
        }
        let codec = match parsed.codec {
            0 => Codec::Tar,
            1 => Codec::Gzip,
            2 => Codec::Zstd,
            _ => return Err(IndexError::Damaged("codec")),
        };
        if parsed.layer_size.get() > MAX_LAYER_SIZE {
            return Err(IndexError::Damaged("layer size"));
        }
        let [toc, spans, windows, chunks, digests] = parsed.sections;
        let toc = Toc::decode(
            &read_section(&mut file, &toc, true)?,
            parsed.layer_size.get(),
        )?;
        let records = read_section(&mut file, &spans, true)?;
        let windows = read_section(&mut file, &windows, true)?;
        let chunks = read_section(&mut file, &chunks, true)?;
        let spans = decode_spans(&records, &windows, &chunks)?;
        let spans = SpanTable::new(spans, parsed.blob_size.get())?;
        if spans.layer_size() != parsed.layer_size.get() {
            return Err(IndexError::Damaged("spans do not cover the layer"));
        }
        let mut file_digests = Vec::new();
        if with_digests {
            let bytes = read_section(&mut file, &digests, false)?;
            let (chunks, rest) = bytes.as_chunks::<32>();
            if !rest.is_empty() {
                return Err(IndexError::Damaged("file digests"));
            }
            file_digests = chunks.to_vec();
        }
        Ok(Self {
            blob: *blob,
            blob_size: parsed.blob_size.get(),
            codec,
            toc,
            spans,
            file_digests,
        })
    }
}

impl Header {
    /// The header of a file that starts like this.
    fn checked(start: &[u8; HEADER_SIZE]) -> Result<&Self, IndexError> {
        let (header, check) = start.split_at(size_of::<Self>());
        let parsed = Self::ref_from_bytes(header).map_err(|_| IndexError::Version)?;
        if parsed.magic != MAGIC || parsed.version.get() != VERSION {
            return Err(IndexError::Version);
        }
        if blake3::hash(header).as_bytes() != check {
            return Err(IndexError::Damaged("header checksum"));
        }
        Ok(parsed)
    }

    /// See [`LayerIndex::digest`].
    fn index_digest(&self) -> Digest {
        let mut digester = Digester::new(Algorithm::Sha256);
        let mut start = Vec::with_capacity(size_of::<Self>());
        start.extend_from_slice(&self.magic);
        start.extend_from_slice(self.version.as_bytes());
        start.extend_from_slice(&[self.codec, self.algorithm]);
        start.extend_from_slice(&self.reserved);
        start.extend_from_slice(&self.digest);
        start.extend_from_slice(self.blob_size.as_bytes());
        start.extend_from_slice(self.layer_size.as_bytes());
        digester.update(&start);
        for section in &self.sections {
            digester.update(section.raw.as_bytes());
            digester.update(&section.hash);
        }
        digester.finish()
    }
}

/// Number of the section with the file digests, which do not compress.
const DIGESTS: usize = 4;

fn read_section(
    file: &mut impl Read,
    section: &Section,
    compressed: bool,
) -> Result<Vec<u8>, IndexError> {
    let (stored, raw) = (section.stored.get(), section.raw.get());
    if stored > MAX_SECTION || raw > MAX_SECTION.min(MIN_RAW + stored * MAX_RATIO) {
        return Err(IndexError::Damaged("section length"));
    }
    let too_large = |_| IndexError::Damaged("section length");
    let mut bytes = Vec::new();
    file.take(stored).read_to_end(&mut bytes)?;
    if bytes.len() as u64 != stored {
        return Err(IndexError::Damaged("it ends early"));
    }
    if compressed {
        // The capacity is a limit, too: a section that decodes to more is an error.
        let capacity = usize::try_from(raw).map_err(too_large)?;
        bytes =
            zstd::bulk::decompress(&bytes, capacity).map_err(|_| IndexError::Damaged("section"))?;
    }
    if bytes.len() as u64 != raw || *blake3::hash(&bytes).as_bytes() != section.hash {
        return Err(IndexError::Damaged("section checksum"));
    }
    Ok(bytes)
}

fn decode_spans(
    records: &[u8],
    mut windows: &[u8],
    chunks: &[u8],
) -> Result<Vec<Span>, IndexError> {
    let records =
        <[SpanRecord]>::ref_from_bytes(records).map_err(|_| IndexError::Damaged("span records"))?;
    let mut chunks = <[ChunkRecord]>::ref_from_bytes(chunks)
        .map_err(|_| IndexError::Damaged("chunk records"))?;
    let mut position = 0;
    let mut spans = Vec::with_capacity(records.len());
    for record in records {
        let length = record.window_length.get() as usize;
        let (window, rest) = windows
            .split_at_checked(length)
            .ok_or(IndexError::Damaged("windows"))?;
        windows = rest;
        let checkpoint = match record.checkpoint {
            0 => Checkpoint::Stored,
            1 => Checkpoint::MemberStart,
            2 => Checkpoint::Deflate {
                bits: record.bits,
                window: window.into(),
            },
            3 => Checkpoint::ZstdFrame,
            4 => Checkpoint::ZstdBlock,
            _ => return Err(IndexError::Damaged("checkpoint")),
        };
        let (own_chunks, rest) = chunks
            .split_at_checked(record.chunks.get() as usize)
            .ok_or(IndexError::Damaged("chunks"))?;
        chunks = rest;
        let digest = match record.digest_kind {
            OWN => SpanDigest::Own {
                compressed: record.digest,
                decoded: record.decoded_digest,
            },
            COMPRESSED => SpanDigest::Compressed(record.digest),
            CHUNKS => SpanDigest::Chunks(own_chunks.iter().map(ChunkRecord::chunk).collect()),
            _ => return Err(IndexError::Damaged("kind of digest")),
        };
        let uncompressed = position..record.uncompressed_end.get();
        position = uncompressed.end;
        spans.push(Span {
            compressed: record.compressed_start.get()..record.compressed_end.get(),
            uncompressed,
            checkpoint,
            digest,
        });
    }
    Ok(spans)
}

impl ChunkRecord {
    fn of(chunk: &Chunk) -> Self {
        Self {
            compressed_start: chunk.compressed.start.into(),
            compressed_end: chunk.compressed.end.into(),
            inner: chunk.inner.into(),
            uncompressed_start: chunk.uncompressed.start.into(),
            uncompressed_end: chunk.uncompressed.end.into(),
            digest: chunk.digest,
        }
    }

    fn chunk(&self) -> Chunk {
        Chunk {
            compressed: self.compressed_start.get()..self.compressed_end.get(),
            inner: self.inner.get(),
            uncompressed: self.uncompressed_start.get()..self.uncompressed_end.get(),
            digest: self.digest,
        }
    }
}

fn padded(digest: &Digest) -> [u8; 64] {
    let mut bytes = [0; 64];
    for (to, from) in bytes.iter_mut().zip(digest.hash()) {
        *to = *from;
    }
    bytes
}
