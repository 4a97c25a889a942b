//! The table of contents that eStargz and zstd:chunked share: a JSON document with an object for each tar member.
//!
//! It has been compared with the digest in the manifest before it gets here, and still is input of somebody else: every
//! number is checked against the blob, every name against the others. What is refused makes the layer a plain one, which
//! is slower and never wrong.
//!
//! The writers differ from each other and from the specification (seen in stargz-snapshotter 0.12 and
//! containers/storage as in skopeo 1.9):
//!
//! - eStargz rounds `modtime` to seconds and leaves it out for 1970; containers/storage keeps nanoseconds.
//! - eStargz gives each chunk a `chunkDigest` and no end; containers/storage gives `endOffset`, of the *file* where it has
//!   several chunks, and a file of one chunk has only the file's `digest`, which is the same.
//! - Go's JSON turns bytes of a name that are not UTF-8 into U+FFFD. Such a table describes another tree than the tar.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;
use std::ops::Range;

use base64::Engine;
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::index::LayerIndex;
use super::payloads::{File, Payloads, Piece};
use super::rfc3339::parse_time;
use super::scan::Codec;
use super::span::{Hash, SpanTableError};
use super::toc::{Entry, EntryKind, Mtime, Toc, TocBuilder, TocError, Xattrs};
use crate::oci::{Algorithm, Digest};

/// Largest table of contents, in bytes of JSON: some 200,000 files. Protects memory and time at the mount; what is larger
/// is indexed by a pass of our own.
pub const MAX_CONTENTS: u64 = 64 << 20;
/// The only version there is, of both formats.
const VERSION: i64 = 1;
/// Owner shown for ids that do not fit in 32 bits: the kernel's overflow id.
const NOBODY: u32 = 65534;
/// At the root of an eStargz layer: what stands before it in the blob is wanted first.
const PREFETCH_LANDMARK: &[u8] = b".prefetch.landmark";
/// The same: nothing is wanted first.
const NO_PREFETCH_LANDMARK: &[u8] = b".no.prefetch.landmark";
/// The tar member that holds the table itself.
pub(super) const TOC_NAME: &[u8] = b"stargz.index.json";

/// What a table of contents comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableOfContents {
    /// The layer's index.
    pub index: LayerIndex,
    /// The bytes of the blob that its maker wants fetched first.
    pub prefetch: Option<Range<u64>>,
}

/// The layer a table of contents is of.
#[derive(Debug, Clone)]
pub(super) struct Layer {
    pub blob: Digest,
    pub blob_size: u64,
    pub codec: Codec,
    /// Where the payloads end in the blob at the latest.
    pub payload_end: u64,
    /// Whether landmarks are no files.
    pub has_landmarks: bool,
}

/// Why a table of contents cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ContentsError {
    /// Nothing in the manifest says which table is the right one.
    #[error("it cannot be verified: {0}")]
    NotVerifiable(&'static str),
    /// The manifest contradicts itself.
    #[error("the manifest's annotations contradict each other: {0}")]
    Ambiguous(&'static str),
    /// An annotation is not of its form.
    #[error("annotation {key} has the value {value:?}, which is no {what}")]
    Annotation {
        /// The annotation.
        key: &'static str,
        /// What it says.
        value: String,
        /// What it should be.
        what: &'static str,
    },
    /// The end of the blob is not what the format has there.
    #[error("the blob does not end in a footer of this format")]
    Footer,
    /// It is somewhere in the blob where it cannot be.
    #[error("its position, bytes {start} to {end}, is not in the blob of {blob_size} bytes")]
    Position {
        /// First byte.
        start: u64,
        /// Behind the last.
        end: u64,
        /// Size of the blob.
        blob_size: u64,
    },
    /// It does not decompress, or not to what it should.
    #[error("it does not decompress: {0}")]
    Compressed(&'static str),
    /// Its bytes are not those that the manifest names.
    #[error("its digest is {found}, the manifest says {expected}")]
    Digest {
        /// The manifest's.
        expected: Digest,
        /// That of the bytes.
        found: Digest,
    },
    /// [`MAX_CONTENTS`].
    #[error("it has {size} bytes, more than the limit of {limit}")]
    TooLarge {
        /// As announced, or as far as it was decompressed.
        size: u64,
        /// The limit.
        limit: u64,
    },
    /// Not the JSON that it should be.
    #[error("invalid JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// Of another version.
    #[error("it is of version {0}, known is {VERSION}")]
    Version(i64),
    /// A type of entry or chunk that nobody has defined yet.
    #[error("{name:?} is of the unknown type {kind:?}")]
    UnknownType {
        /// The entry.
        name: String,
        /// Its type.
        kind: String,
    },
    /// A field's value makes no sense.
    #[error("{name:?} has a wrong {field}: {value:?}")]
    Field {
        /// The entry.
        name: String,
        /// The field.
        field: &'static str,
        /// What it says.
        value: String,
    },
    /// A name whose bytes were not UTF-8.
    #[error("{0:?} is the name of a file after bytes of it were lost")]
    LostBytes(String),
    /// A name with a NUL byte.
    #[error("{0:?} contains a NUL byte")]
    Nul(String),
    /// Two entries have one name.
    #[error("{0:?} is listed twice")]
    Duplicate(String),
    /// A hard link to nothing.
    #[error("{name:?} is a hard link to {target:?}, which is not listed")]
    MissingTarget {
        /// The link.
        name: String,
        /// Where it leads.
        target: String,
    },
    /// A chunk that belongs to no file.
    #[error("a chunk of {0:?} does not follow that file")]
    StrayChunk(String),
    /// Chunks that do not make up their file.
    #[error("the chunks of {name:?} do not make up its {size} bytes")]
    Chunks {
        /// The file.
        name: String,
        /// Its size.
        size: u64,
    },
    /// Content that nothing vouches for.
    #[error("{0:?} has a chunk without a digest: its content cannot be verified")]
    NoDigest(String),
    /// Content that is not in the blob.
    #[error("{name:?} has content beyond byte {end} of the blob, where the files end")]
    Beyond {
        /// The file.
        name: String,
        /// Where the files end.
        end: u64,
    },
    /// Content where other content is.
    #[error("{0:?} has its content where another file's is")]
    Overlap(String),
    /// Chunks of a file that other content stands between, or in the wrong order.
    #[error("the content of {0:?} is not in order in the blob")]
    Order(String),
    /// A member or frame that would need too much memory.
    #[error(
        "{name:?} is in a gzip member or zstd frame of at least {size} bytes: the limit is {limit}"
    )]
    LargeMember {
        /// The file.
        name: String,
        /// Bytes up to the file's end.
        size: u64,
        /// The limit.
        limit: u64,
    },
    /// More content than a layer may have.
    #[error("its files have more than {limit} bytes")]
    TooMuch {
        /// The limit.
        limit: u64,
    },
    /// A limit on entries.
    #[error(transparent)]
    Toc(#[from] TocError),
    /// A limit on spans.
    #[error(transparent)]
    Spans(#[from] SpanTableError),
}

impl ContentsError {
    /// Whether other bytes in the place of those read could be right. Once a digest has vouched for them, they are what
    /// the image's maker wrote.
    pub fn may_be_wrong_bytes(&self) -> bool {
        matches!(
            self,
            Self::Footer | Self::Position { .. } | Self::Compressed(_) | Self::Digest { .. }
        )
    }
}

/// The index that `json` describes.
pub(super) fn read_contents(json: &[u8], layer: &Layer) -> Result<TableOfContents, ContentsError> {
    let mut listing = Listing {
        has_landmarks: layer.has_landmarks,
        ..Listing::default()
    };
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    let version = DocumentSeed(&mut listing).deserialize(&mut deserializer);
    // What was found wrong stands in the listing; the parser has only been stopped by it.
    if let Some(failure) = listing.failure {
        return Err(failure);
    }
    let version = version?;
    deserializer.end()?;
    if version != VERSION {
        return Err(ContentsError::Version(version));
    }
    listing.end_file()?;
    // Offsets in the layer are not known before all payloads are: they come with the second table.
    let draft = listing.entries.finish(u64::MAX)?;
    check_names(&draft)?;
    let mut payloads = listing.payloads;
    let name = |file: &File| {
        let entry = file.entry.and_then(|entry| draft.iter().nth(entry));
        entry.map_or_else(|| "a landmark".to_owned(), |entry| lossy(entry.path))
    };
    let spans = payloads.lay_out(layer.codec, layer.blob_size, layer.payload_end, name)?;
    let toc = with_places(&draft, &payloads, spans.layer_size())?;
    Ok(TableOfContents {
        index: LayerIndex {
            blob: layer.blob,
            blob_size: layer.blob_size,
            codec: layer.codec,
            toc,
            spans,
            file_digests: Vec::new(),
        },
        prefetch: listing.landmark.map(|offset| 0..offset),
    })
}

/// The same entries, each file with its place in the layer.
fn with_places(draft: &Toc, payloads: &Payloads, layer_size: u64) -> Result<Toc, ContentsError> {
    let mut builder = TocBuilder::default();
    let mut files = payloads
        .files
        .iter()
        .filter(|file| file.entry.is_some())
        .peekable();
    for (number, entry) in draft.iter().enumerate() {
        let Some(file) = files.next_if(|file| file.entry == Some(number)) else {
            builder.push(&entry)?;
            continue;
        };
        let extents = payloads.extents(file);
        let kind = match extents.as_slice() {
            [whole] if whole.length == file.size => EntryKind::File {
                offset: whole.layer_offset,
                size: file.size,
            },
            extents => EntryKind::SparseFile {
                extents,
                size: file.size,
            },
        };
        builder.push(&Entry { kind, ..entry })?;
    }
    Ok(builder.finish(layer_size)?)
}

/// No name twice, no hard link to what is not there.
fn check_names(toc: &Toc) -> Result<(), ContentsError> {
    let mut names = HashSet::with_capacity(toc.len());
    for entry in toc.iter() {
        if !names.insert(cleaned(entry.path)) {
            return Err(ContentsError::Duplicate(lossy(entry.path)));
        }
    }
    for entry in toc.iter() {
        if let EntryKind::HardLink { target } = entry.kind
            && !names.contains(&cleaned(target))
        {
            return Err(ContentsError::MissingTarget {
                name: lossy(entry.path),
                target: lossy(target),
            });
        }
    }
    Ok(())
}

/// A name without what does not matter to where it leads, as the union reads it: slashes at the ends or doubled, `.`,
/// and `..` up to the root.
fn cleaned(name: &[u8]) -> Cow<'_, [u8]> {
    let trimmed = name.strip_prefix(b"./").unwrap_or(name);
    let trimmed = trimmed.strip_suffix(b"/").unwrap_or(trimmed);
    let odd = |part: &[u8]| part.is_empty() || part == b"." || part == b"..";
    if !trimmed.split(|byte| *byte == b'/').any(odd) {
        return Cow::Borrowed(trimmed);
    }
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in trimmed.split(|byte| *byte == b'/') {
        if part == b".." {
            parts.pop();
        } else if !odd(part) {
            parts.push(part);
        }
    }
    Cow::Owned(parts.join(&b'/'))
}

/// An object of the table. Names, and the fields that are left out when empty or 0, are those of Go's marshaller.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Record<'a> {
    #[serde(borrow, default)]
    name: Cow<'a, str>,
    #[serde(borrow, rename = "type")]
    kind: Cow<'a, str>,
    #[serde(default)]
    size: u64,
    #[serde(borrow, default)]
    modtime: Cow<'a, str>,
    #[serde(borrow, default)]
    link_name: Cow<'a, str>,
    #[serde(default)]
    mode: i64,
    #[serde(default)]
    uid: i64,
    #[serde(default)]
    gid: i64,
    #[serde(default)]
    dev_major: i64,
    #[serde(default)]
    dev_minor: i64,
    #[serde(default)]
    xattrs: Option<serde_json::Map<String, serde_json::Value>>,
    #[serde(borrow, default)]
    digest: Cow<'a, str>,
    #[serde(default)]
    offset: u64,
    #[serde(default)]
    end_offset: u64,
    #[serde(default)]
    inner_offset: u64,
    #[serde(default)]
    chunk_offset: u64,
    #[serde(default)]
    chunk_size: u64,
    #[serde(borrow, default)]
    chunk_digest: Cow<'a, str>,
    #[serde(borrow, default)]
    chunk_type: Cow<'a, str>,
}

/// What has been read so far. Objects are taken one by one, so that the whole document is never in memory as values.
#[derive(Default)]
struct Listing {
    entries: TocBuilder,
    count: usize,
    payloads: Payloads,
    open: Option<OpenFile>,
    has_landmarks: bool,
    landmark: Option<u64>,
    failure: Option<ContentsError>,
}

/// The file whose chunks may follow.
struct OpenFile {
    name: String,
    entry: Option<usize>,
    size: u64,
    /// Where its last frame ends, where the table says so.
    end: u64,
    digest: String,
    /// How much of it has been listed.
    position: u64,
    first_piece: usize,
}

impl Listing {
    fn take(&mut self, record: &Record<'_>) -> Result<(), ContentsError> {
        if record.kind == "chunk" {
            return self.chunk(record);
        }
        self.end_file()?;
        let name = record.name.as_bytes();
        for text in [&record.name, &record.link_name] {
            if text.contains('\u{fffd}') {
                return Err(ContentsError::LostBytes(text.to_string()));
            }
            if text.contains('\0') {
                return Err(ContentsError::Nul(text.to_string()));
            }
        }
        let is_hidden = self.has_landmarks && self.is_landmark(record);
        let target = record.link_name.as_bytes();
        let device =
            |field, number: i64| u32::try_from(number).map_err(|_| record.wrong(field, &number));
        let devices = || {
            Ok::<_, ContentsError>((
                device("devMajor", record.dev_major)?,
                device("devMinor", record.dev_minor)?,
            ))
        };
        let kind = match record.kind.as_ref() {
            "dir" => EntryKind::Directory,
            "reg" => EntryKind::File {
                offset: 0,
                size: record.size,
            },
            "symlink" => EntryKind::Symlink { target },
            "hardlink" => EntryKind::HardLink { target },
            "char" => devices().map(|(major, minor)| EntryKind::CharDevice { major, minor })?,
            "block" => devices().map(|(major, minor)| EntryKind::BlockDevice { major, minor })?,
            "fifo" => EntryKind::Fifo,
            other => {
                return Err(ContentsError::UnknownType {
                    name: record.name.to_string(),
                    kind: other.to_owned(),
                });
            }
        };
        let entry = (!is_hidden).then_some(self.count);
        if !is_hidden {
            let xattrs = record.xattrs()?;
            self.entries.push(&Entry {
                path: name,
                kind,
                // Twelve bits fit.
                mode: u32::try_from(record.mode & 0o7777).unwrap_or_default(),
                uid: u32::try_from(record.uid).unwrap_or(NOBODY),
                gid: u32::try_from(record.gid).unwrap_or(NOBODY),
                mtime: record.mtime()?,
                xattrs: &xattrs,
            })?;
            self.count += 1;
        }
        if let EntryKind::File { size: 1.., .. } = kind {
            self.open = Some(OpenFile {
                name: record.name.to_string(),
                entry,
                size: record.size,
                end: record.end_offset,
                digest: record.digest.to_string(),
                position: 0,
                first_piece: self.payloads.pieces.len(),
            });
            self.chunk(record)?;
        }
        Ok(())
    }

    /// Whether it is one of the files that say something about the layer, and are none of it.
    fn is_landmark(&mut self, record: &Record<'_>) -> bool {
        let name = cleaned(record.name.as_bytes());
        if *name == *PREFETCH_LANDMARK && record.offset > 0 {
            self.landmark = Some(record.offset);
        }
        [PREFETCH_LANDMARK, NO_PREFETCH_LANDMARK, TOC_NAME].contains(&&*name)
    }

    /// The next part of the open file. The first is described by the file's own object.
    fn chunk(&mut self, record: &Record<'_>) -> Result<(), ContentsError> {
        let stray = || ContentsError::StrayChunk(record.name.to_string());
        let file = self.open.as_mut().ok_or_else(stray)?;
        if !record.name.is_empty() && record.name != file.name {
            return Err(stray());
        }
        let left = file.size - file.position;
        // No size: all that is left.
        let size = match record.chunk_size {
            0 => left,
            size => size,
        };
        if record.chunk_offset != file.position || size > left || left == 0 {
            return Err(file.wrong_chunks());
        }
        let is_whole = size == file.size;
        let file_offset = file.position;
        file.position += size;
        match record.chunk_type.as_ref() {
            "" => {}
            "zeros" => return Ok(()),
            other => {
                return Err(ContentsError::UnknownType {
                    name: file.name.clone(),
                    kind: other.to_owned(),
                });
            }
        }
        let digest = match record.chunk_digest.as_ref() {
            "" if is_whole => file.digest.as_str(),
            digest => digest,
        };
        let digest = if digest.is_empty() {
            return Err(ContentsError::NoDigest(file.name.clone()));
        } else {
            sha256(digest).ok_or_else(|| record.wrong("digest", &digest))?
        };
        self.payloads.pieces.push(Piece {
            offset: record.offset,
            end: None,
            inner: record.inner_offset,
            file_offset,
            size,
            digest,
        });
        Ok(())
    }

    /// No more chunks follow.
    fn end_file(&mut self) -> Result<(), ContentsError> {
        let Some(file) = self.open.take() else {
            return Ok(());
        };
        if file.position != file.size {
            return Err(file.wrong_chunks());
        }
        let pieces = file.first_piece..self.payloads.pieces.len();
        let own = self
            .payloads
            .pieces
            .get_mut(pieces.clone())
            .unwrap_or_default();
        if !own.is_sorted_by_key(|piece| (piece.offset, piece.inner)) {
            return Err(ContentsError::Order(file.name));
        }
        if file.end > 0 {
            // The end is the file's; a chunk of it ends where the next one begins.
            let mut end = file.end;
            for piece in own.iter_mut().rev() {
                piece.end = Some(end);
                end = piece.offset;
            }
        }
        self.payloads.files.push(File {
            entry: file.entry,
            size: file.size,
            pieces,
            address: 0,
        });
        Ok(())
    }
}

impl OpenFile {
    fn wrong_chunks(&self) -> ContentsError {
        ContentsError::Chunks {
            name: self.name.clone(),
            size: self.size,
        }
    }
}

impl Record<'_> {
    fn wrong(&self, field: &'static str, value: &impl ToString) -> ContentsError {
        ContentsError::Field {
            name: self.name.to_string(),
            field,
            value: value.to_string(),
        }
    }

    fn mtime(&self) -> Result<Mtime, ContentsError> {
        if self.modtime.is_empty() {
            return Ok(Mtime::default());
        }
        parse_time(&self.modtime).ok_or_else(|| self.wrong("modtime", &self.modtime))
    }

    fn xattrs(&self) -> Result<Xattrs, ContentsError> {
        let mut xattrs = Xattrs::new();
        for (name, value) in self.xattrs.iter().flatten() {
            let bytes = match value {
                // An empty value, as Go writes it.
                serde_json::Value::Null => Some(Vec::new()),
                serde_json::Value::String(text) => {
                    base64::engine::general_purpose::STANDARD.decode(text).ok()
                }
                _ => None,
            };
            let bytes = bytes.ok_or_else(|| self.wrong("xattr", name))?;
            xattrs.push((name.clone().into_bytes(), bytes));
        }
        Ok(xattrs)
    }
}

/// The hash of `sha256:..`; no writer uses another algorithm.
fn sha256(text: &str) -> Option<Hash> {
    let digest: Digest = text.parse().ok()?;
    if digest.algorithm() != Algorithm::Sha256 {
        return None;
    }
    digest.hash().try_into().ok()
}

fn lossy(name: &[u8]) -> String {
    String::from_utf8_lossy(name).into_owned()
}

/// Reads the outer object; its value is the version.
struct DocumentSeed<'a>(&'a mut Listing);

impl<'de> DeserializeSeed<'de> for DocumentSeed<'_> {
    type Value = i64;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<i64, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for DocumentSeed<'_> {
    type Value = i64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a table of contents")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<i64, A::Error> {
        use serde::de::Error;
        let (mut version, mut has_entries) = (None, false);
        while let Some(key) = map.next_key::<Cow<'de, str>>()? {
            match key.as_ref() {
                "version" if version.is_some() => {
                    return Err(A::Error::duplicate_field("version"));
                }
                "version" => version = Some(map.next_value()?),
                "entries" if has_entries => return Err(A::Error::duplicate_field("entries")),
                "entries" => {
                    has_entries = true;
                    map.next_value_seed(EntriesSeed(self.0))?;
                }
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        if !has_entries {
            return Err(A::Error::missing_field("entries"));
        }
        version.ok_or_else(|| A::Error::missing_field("version"))
    }
}

/// Reads the array of entries.
struct EntriesSeed<'a>(&'a mut Listing);

impl<'de> DeserializeSeed<'de> for EntriesSeed<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for EntriesSeed<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of entries")
    }

    /// An empty list, as Go writes it.
    fn visit_unit<E: serde::de::Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        use serde::de::Error;
        while let Some(record) = entries.next_element::<Record<'de>>()? {
            if let Err(failure) = self.0.take(&record) {
                self.0.failure = Some(failure);
                return Err(A::Error::custom("refused"));
            }
        }
        Ok(())
    }
}
