//! Reading a table of contents' JSON, object by object: entries go into a table of ours, content
//! into a list of payloads.

use std::borrow::Cow;
use std::fmt;

use base64::Engine;
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::error::ContentsError;
use super::names::{FORMAT_FILES, PREFETCH_LANDMARK, cleaned};
use super::payloads::{File, PayloadSlice, Payloads};
use crate::layer::rfc3339::parse_time;
use crate::layer::span::Hash;
use crate::layer::toc::{Entry, EntryKind, Mtime, Toc, TocBuilder, Xattrs};
use crate::oci::{Algorithm, Digest};

/// Owner shown for ids that do not fit in 32 bits: the kernel's overflow id.
pub(super) const NOBODY: u32 = 65534;

/// What a document lists.
pub(super) struct Listed {
    pub version: i64,
    /// The entries, files without their places.
    pub entries: Toc,
    pub payloads: Payloads,
    /// Where in the blob the landmark is that ends what is wanted first.
    pub landmark: Option<u64>,
}

/// Reads the document. With `has_landmarks`, landmarks are no files.
pub(super) fn read_listing(json: &[u8], has_landmarks: bool) -> Result<Listed, ContentsError> {
    let mut listing = Listing {
        has_landmarks,
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
    listing.end_file()?;
    Ok(Listed {
        version,
        // Places in the layer come later: no limit is known yet.
        entries: listing.entries.finish(u64::MAX)?,
        payloads: listing.payloads,
        landmark: listing.landmark,
    })
}

/// An object of the table. Names, and the fields that are left out when empty or 0, are those of
/// Go's marshaller.
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

/// What has been read so far. Objects are taken one by one, so that the whole document is never in
/// memory as values.
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
        FORMAT_FILES.contains(&&*name)
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
        self.payloads.pieces.push(PayloadSlice {
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
