//! The table of contents of a layer: one [`Entry`] for each tar member, in tar order.
//!
//! Names stand as the tar has them (PAX and GNU long names applied, nothing cleaned): what a path
//! means, what is a whiteout and which entry wins is the union's business. In memory a [`Toc`] is
//! four flat arrays, so a layer of a million files is loaded by a few large reads and no allocation
//! for each file:
//!
//! ```text
//! records   48 bytes an entry, little-endian:
//!           kind u8 | flags u8 | path_len u16 | link_len u16 | mode u16 | uid u32 | gid u32 |
//!           mtime_nanos u32 | xattrs u32 | mtime_secs i64 | size u64 | value u64
//! strings   path, then link target, of each entry in turn
//! extents   24 bytes each: file offset u64 | layer offset u64 | length u64   (sparse files only)
//! xattrs    each set: count u32, then for each: name_len u16 | value_len u32 | name | value
//! ```
//!
//! `value` is the data's offset in the layer for a file, `first extent << 32 | count` for a sparse
//! file (flag 1), `major << 32 | minor` for a device. `xattrs` is 0 for none, else the number of
//! the set plus one.

use std::collections::HashMap;

use zerocopy::little_endian::{I64, U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Most entries in one layer: four times the largest images known; protects memory.
pub(crate) const MAX_ENTRIES: usize = 4 << 20;
/// Longest link target, in bytes: `PATH_MAX` less the terminator, as the kernel accepts.
pub(crate) const MAX_LINK: usize = 4095;
/// Most bytes of names and link targets in one layer; protects memory.
pub(crate) const MAX_STRINGS: usize = 1 << 30;
/// Most xattr bytes in one layer, all different sets together; protects memory.
pub(crate) const MAX_XATTR_BYTES: usize = 64 << 20;
/// Longest xattr name, `XATTR_NAME_MAX` of the kernel.
pub(crate) const MAX_XATTR_NAME: usize = 255;
/// Largest xattr value, `XATTR_SIZE_MAX` of the kernel.
pub(crate) const MAX_XATTR_VALUE: usize = 65536;
/// Most extents of all sparse files of a layer (CVE-2025-58183: sparse map bombs).
pub(crate) const MAX_EXTENTS: usize = 1 << 20;

const FLAG_SPARSE: u8 = 1;

/// Modification time: seconds since 1970 (negative before) and nanoseconds below one second,
/// forwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Hash)]
pub struct Mtime {
    /// Whole seconds, rounded down.
    pub seconds: i64,
    /// 0 to 999,999,999.
    pub nanoseconds: u32,
}

/// A run of a sparse file's bytes that is stored; everything else in the file reads as zeros.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// Where it begins in the file, in bytes.
    pub file_offset: u64,
    /// Where its bytes begin in the layer's uncompressed bytes.
    pub layer_offset: u64,
    /// Length in bytes.
    pub length: u64,
}

/// Extended attributes of one entry: names and values.
pub type Xattrs = Vec<(Vec<u8>, Vec<u8>)>;

/// One tar member's metadata.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Name as in the tar: bytes, not cleaned.
    pub path: &'a [u8],
    /// What it is.
    pub kind: EntryKind<'a>,
    /// Permission bits with setuid, setgid and sticky: the low 12 bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Modification time.
    pub mtime: Mtime,
    /// Extended attributes, in the order of the tar.
    pub xattrs: &'a [(Vec<u8>, Vec<u8>)],
}

/// The kinds of entry a layer can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryKind<'a> {
    /// A regular file whose bytes are contiguous in the layer.
    File {
        /// Offset of its first byte in the layer's uncompressed bytes.
        offset: u64,
        /// Size in bytes.
        size: u64,
    },
    /// A regular file with holes.
    SparseFile {
        /// The stored runs, ascending and not overlapping.
        extents: &'a [Extent],
        /// Logical size in bytes.
        size: u64,
    },
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink {
        /// Target, as in the tar.
        target: &'a [u8],
    },
    /// A hard link to another member, by its name in the layer.
    HardLink {
        /// Name of the target member.
        target: &'a [u8],
    },
    /// A character device.
    CharDevice {
        /// Device class.
        major: u32,
        /// Device number.
        minor: u32,
    },
    /// A block device.
    BlockDevice {
        /// Device class.
        major: u32,
        /// Device number.
        minor: u32,
    },
    /// A named pipe.
    Fifo,
}

/// Why a table of contents is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TocError {
    /// One of the limits above.
    #[error("{what}: {found} is more than the limit of {limit}")]
    Limit {
        /// What is too large.
        what: &'static str,
        /// The value found.
        found: u64,
        /// The limit.
        limit: u64,
    },
    /// The sections contradict each other.
    #[error("damaged table of contents: {0}")]
    Damaged(&'static str),
}

#[derive(
    Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
struct Record {
    kind: u8,
    flags: u8,
    path_len: U16,
    link_len: U16,
    mode: U16,
    uid: U32,
    gid: U32,
    mtime_nanos: U32,
    xattrs: U32,
    mtime_secs: I64,
    size: U64,
    value: U64,
}

const FILE: u8 = 0;
const DIRECTORY: u8 = 1;
const SYMLINK: u8 = 2;
const HARD_LINK: u8 = 3;
const CHAR_DEVICE: u8 = 4;
const BLOCK_DEVICE: u8 = 5;
const FIFO: u8 = 6;

/// The entries of one layer, in tar order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Toc {
    records: Vec<Record>,
    strings: Vec<u8>,
    extents: Vec<Extent>,
    xattrs: Vec<Xattrs>,
}

impl Toc {
    /// Number of entries.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// The entries, in tar order.
    pub fn iter(&self) -> impl Iterator<Item = Entry<'_>> {
        let mut strings = self.strings.as_slice();
        // `decode` and the builder guarantee that lengths, set numbers and extent ranges are in
        // bounds; the defaults are never reached.
        self.records.iter().map(move |record| {
            let path = take(&mut strings, usize::from(record.path_len.get()));
            let link = take(&mut strings, usize::from(record.link_len.get()));
            let xattrs = match record.xattrs.get() {
                0 => &[],
                number => self
                    .xattrs
                    .get(number as usize - 1)
                    .map_or(&[][..], Vec::as_slice),
            };
            let (high, low) = split(record.value.get());
            let size = record.size.get();
            let kind = match record.kind {
                DIRECTORY => EntryKind::Directory,
                SYMLINK => EntryKind::Symlink { target: link },
                HARD_LINK => EntryKind::HardLink { target: link },
                CHAR_DEVICE => EntryKind::CharDevice {
                    major: high,
                    minor: low,
                },
                BLOCK_DEVICE => EntryKind::BlockDevice {
                    major: high,
                    minor: low,
                },
                FIFO => EntryKind::Fifo,
                _ if record.flags & FLAG_SPARSE != 0 => {
                    let extents = self
                        .extents
                        .get(high as usize..high as usize + low as usize);
                    EntryKind::SparseFile {
                        extents: extents.unwrap_or_default(),
                        size,
                    }
                }
                _ => EntryKind::File {
                    offset: record.value.get(),
                    size,
                },
            };
            Entry {
                path,
                kind,
                mode: u32::from(record.mode.get()),
                uid: record.uid.get(),
                gid: record.gid.get(),
                mtime: Mtime {
                    seconds: record.mtime_secs.get(),
                    nanoseconds: record.mtime_nanos.get(),
                },
                xattrs,
            }
        })
    }

    /// Without the regular files of these names at the layer's root.
    #[must_use]
    pub fn without_root_files(mut self, names: &[&[u8]]) -> Self {
        let mut strings = Vec::with_capacity(self.strings.len());
        let mut rest = self.strings.as_slice();
        self.records.retain(|record| {
            let path = take(&mut rest, usize::from(record.path_len.get()));
            let link = take(&mut rest, usize::from(record.link_len.get()));
            let cleaned = path.strip_prefix(b"./").or(path.strip_prefix(b"/"));
            let keep = record.kind != FILE || !names.contains(&cleaned.unwrap_or(path));
            if keep {
                strings.extend_from_slice(path);
                strings.extend_from_slice(link);
            }
            keep
        });
        self.strings = strings;
        self
    }

    /// Writes the four sections in order, each behind its length (u64, little-endian).
    pub fn encode(&self) -> Vec<u8> {
        let extents: Vec<u8> = (self.extents.iter())
            .flat_map(|extent| [extent.file_offset, extent.layer_offset, extent.length])
            .flat_map(u64::to_le_bytes)
            .collect();
        let mut xattrs = Vec::new();
        for set in &self.xattrs {
            xattrs.extend_from_slice(&length32(set.len()));
            for (name, value) in set {
                // The builder checked the name against MAX_XATTR_NAME.
                xattrs.extend_from_slice(
                    &u16::try_from(name.len()).unwrap_or(u16::MAX).to_le_bytes(),
                );
                xattrs.extend_from_slice(&length32(value.len()));
                xattrs.extend_from_slice(name);
                xattrs.extend_from_slice(value);
            }
        }
        let mut out = Vec::with_capacity(self.records.len() * 48 + self.strings.len() + 64);
        for section in [self.records.as_bytes(), &self.strings, &extents, &xattrs] {
            out.extend_from_slice(&(section.len() as u64).to_le_bytes());
            out.extend_from_slice(section);
        }
        out
    }

    /// Reads what [`Toc::encode`] wrote. `layer_size` is the layer's uncompressed size: no file may
    /// reach beyond it.
    pub fn decode(bytes: &[u8], layer_size: u64) -> Result<Self, TocError> {
        let mut rest = bytes;
        let [records, strings, extents, xattrs] = [
            section(&mut rest)?,
            section(&mut rest)?,
            section(&mut rest)?,
            section(&mut rest)?,
        ];
        if !rest.is_empty() {
            return Err(TocError::Damaged("bytes after the last section"));
        }
        let records = <[Record]>::ref_from_bytes(records)
            .map_err(|_| TocError::Damaged("records are not a multiple of 48 bytes"))?;
        limit("entries in the layer", records.len(), MAX_ENTRIES)?;
        limit("bytes of names in the layer", strings.len(), MAX_STRINGS)?;
        let toc = Self {
            records: records.to_vec(),
            strings: strings.to_vec(),
            extents: decode_extents(extents)?,
            xattrs: decode_xattrs(xattrs)?,
        };
        toc.validate(layer_size)?;
        Ok(toc)
    }

    fn validate(&self, layer_size: u64) -> Result<(), TocError> {
        let within = |offset: u64, length: u64| {
            offset
                .checked_add(length)
                .is_some_and(|end| end <= layer_size)
        };
        let mut strings = 0_usize;
        for record in &self.records {
            strings += usize::from(record.path_len.get()) + usize::from(record.link_len.get());
            if record.kind > FIFO || record.flags > FLAG_SPARSE {
                return Err(TocError::Damaged("unknown kind of entry"));
            }
            if record.xattrs.get() as usize > self.xattrs.len() {
                return Err(TocError::Damaged("xattr set out of range"));
            }
            if record.mtime_nanos.get() > 999_999_999 {
                return Err(TocError::Damaged("nanoseconds out of range"));
            }
            if record.kind != FILE {
                continue;
            }
            if record.flags & FLAG_SPARSE == 0 {
                if !within(record.value.get(), record.size.get()) {
                    return Err(TocError::Damaged("a file reaches beyond the layer"));
                }
                continue;
            }
            let (first, count) = split(record.value.get());
            let extents = (self
                .extents
                .get(first as usize..first as usize + count as usize))
            .ok_or(TocError::Damaged("extents out of range"))?;
            check_extents(extents, record.size.get(), layer_size)?;
        }
        if strings != self.strings.len() {
            return Err(TocError::Damaged("names do not fill their section"));
        }
        Ok(())
    }
}

/// Collects entries into a [`Toc`], checking each against the limits.
#[derive(Debug, Default)]
pub struct TocBuilder {
    toc: Toc,
    xattr_sets: HashMap<Xattrs, u32>,
    xattr_bytes: usize,
}

impl TocBuilder {
    /// Appends an entry.
    pub fn push(&mut self, entry: &Entry<'_>) -> Result<(), TocError> {
        let toc = &mut self.toc;
        limit("entries in the layer", toc.records.len() + 1, MAX_ENTRIES)?;
        let mut link: &[u8] = &[];
        let mut flags = 0;
        let (kind, size, value) = match entry.kind {
            EntryKind::File { offset, size } => (FILE, size, offset),
            EntryKind::SparseFile { extents, size } => {
                limit(
                    "extents of sparse files",
                    toc.extents.len() + extents.len(),
                    MAX_EXTENTS,
                )?;
                flags = FLAG_SPARSE;
                let value = join(toc.extents.len(), extents.len());
                toc.extents.extend_from_slice(extents);
                (FILE, size, value)
            }
            EntryKind::Directory => (DIRECTORY, 0, 0),
            EntryKind::Symlink { target } => {
                link = target;
                (SYMLINK, 0, 0)
            }
            EntryKind::HardLink { target } => {
                link = target;
                (HARD_LINK, 0, 0)
            }
            EntryKind::CharDevice { major, minor } => (CHAR_DEVICE, 0, join32(major, minor)),
            EntryKind::BlockDevice { major, minor } => (BLOCK_DEVICE, 0, join32(major, minor)),
            EntryKind::Fifo => (FIFO, 0, 0),
        };
        let too_long = |what, found: usize| TocError::Limit {
            what,
            found: found as u64,
            limit: u64::from(u16::MAX),
        };
        let path_len = u16::try_from(entry.path.len())
            .map_err(|_| too_long("length of a path", entry.path.len()))?;
        if kind == SYMLINK {
            limit("length of a link target", link.len(), MAX_LINK)?;
        }
        let link_len = u16::try_from(link.len())
            .map_err(|_| too_long("length of a link target", link.len()))?;
        limit(
            "bytes of names in the layer",
            toc.strings.len() + entry.path.len() + link.len(),
            MAX_STRINGS,
        )?;
        let xattrs = self.xattr_set(entry.xattrs)?;
        let toc = &mut self.toc;
        toc.strings.extend_from_slice(entry.path);
        toc.strings.extend_from_slice(link);
        toc.records.push(Record {
            kind,
            flags,
            path_len: path_len.into(),
            link_len: link_len.into(),
            // Twelve bits fit.
            mode: u16::try_from(entry.mode & 0o7777)
                .unwrap_or_default()
                .into(),
            uid: entry.uid.into(),
            gid: entry.gid.into(),
            mtime_nanos: entry.mtime.nanoseconds.into(),
            xattrs: xattrs.into(),
            mtime_secs: entry.mtime.seconds.into(),
            size: size.into(),
            value: value.into(),
        });
        Ok(())
    }

    /// The finished table; `layer_size` is the layer's uncompressed size.
    pub fn finish(self, layer_size: u64) -> Result<Toc, TocError> {
        self.toc.validate(layer_size)?;
        Ok(self.toc)
    }

    fn xattr_set(&mut self, xattrs: &[(Vec<u8>, Vec<u8>)]) -> Result<u32, TocError> {
        if xattrs.is_empty() {
            return Ok(0);
        }
        if let Some(number) = self.xattr_sets.get(xattrs) {
            return Ok(*number);
        }
        for (name, value) in xattrs {
            limit("length of an xattr name", name.len(), MAX_XATTR_NAME)?;
            limit("size of an xattr value", value.len(), MAX_XATTR_VALUE)?;
            self.xattr_bytes += name.len() + value.len();
        }
        limit(
            "bytes of xattrs in the layer",
            self.xattr_bytes,
            MAX_XATTR_BYTES,
        )?;
        self.toc.xattrs.push(xattrs.to_vec());
        // At most MAX_ENTRIES sets, which fits.
        let number = u32::try_from(self.toc.xattrs.len()).unwrap_or(u32::MAX);
        self.xattr_sets.insert(xattrs.to_vec(), number);
        Ok(number)
    }
}

fn limit(what: &'static str, found: usize, limit: usize) -> Result<(), TocError> {
    if found > limit {
        return Err(TocError::Limit {
            what,
            found: found as u64,
            limit: limit as u64,
        });
    }
    Ok(())
}

/// Extents must ascend, not overlap, stay within the file, and their bytes within the layer.
fn check_extents(extents: &[Extent], size: u64, layer_size: u64) -> Result<(), TocError> {
    let mut position = 0;
    for extent in extents {
        let file_end = extent.file_offset.checked_add(extent.length);
        let layer_end = extent.layer_offset.checked_add(extent.length);
        let (Some(file_end), Some(layer_end)) = (file_end, layer_end) else {
            return Err(TocError::Damaged("an extent overflows"));
        };
        if extent.file_offset < position || file_end > size || layer_end > layer_size {
            return Err(TocError::Damaged("extents overlap or reach too far"));
        }
        position = file_end;
    }
    Ok(())
}

fn decode_extents(bytes: &[u8]) -> Result<Vec<Extent>, TocError> {
    let words =
        <[U64]>::ref_from_bytes(bytes).map_err(|_| TocError::Damaged("extents are not whole"))?;
    limit("extents of sparse files", words.len() / 3, MAX_EXTENTS)?;
    let mut extents = Vec::with_capacity(words.len() / 3);
    for chunk in words.chunks(3) {
        let [file_offset, layer_offset, length] = chunk else {
            return Err(TocError::Damaged("extents are not whole"));
        };
        extents.push(Extent {
            file_offset: file_offset.get(),
            layer_offset: layer_offset.get(),
            length: length.get(),
        });
    }
    Ok(extents)
}

fn decode_xattrs(mut bytes: &[u8]) -> Result<Vec<Xattrs>, TocError> {
    limit(
        "bytes of xattrs in the layer",
        bytes.len(),
        MAX_XATTR_BYTES * 2,
    )?;
    let short = TocError::Damaged("xattrs end early");
    let mut sets = Vec::new();
    while !bytes.is_empty() {
        let count = u32::from_le_bytes(array(&mut bytes).ok_or(short.clone())?);
        let mut set = Vec::new();
        for _ in 0..count {
            let name = usize::from(u16::from_le_bytes(array(&mut bytes).ok_or(short.clone())?));
            let value = u32::from_le_bytes(array(&mut bytes).ok_or(short.clone())?) as usize;
            limit("length of an xattr name", name, MAX_XATTR_NAME)?;
            limit("size of an xattr value", value, MAX_XATTR_VALUE)?;
            let (name, rest) = bytes.split_at_checked(name).ok_or(short.clone())?;
            let (value, rest) = rest.split_at_checked(value).ok_or(short.clone())?;
            bytes = rest;
            set.push((name.to_vec(), value.to_vec()));
        }
        sets.push(set);
    }
    Ok(sets)
}

fn section<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], TocError> {
    let short = TocError::Damaged("a section ends early");
    let length = u64::from_le_bytes(array(rest).ok_or(short.clone())?);
    let length = usize::try_from(length).map_err(|_| short.clone())?;
    let (section, after) = rest.split_at_checked(length).ok_or(short)?;
    *rest = after;
    Ok(section)
}

fn array<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (head, rest) = bytes.split_first_chunk::<N>()?;
    *bytes = rest;
    Some(*head)
}

fn take<'a>(strings: &mut &'a [u8], length: usize) -> &'a [u8] {
    let (head, rest) = strings.split_at_checked(length).unwrap_or_default();
    *strings = rest;
    head
}

fn length32(length: usize) -> [u8; 4] {
    // Lengths are limited far below 2^32 where they come in.
    u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes()
}

fn join(high: usize, low: usize) -> u64 {
    (high as u64) << 32 | low as u64
}

fn join32(high: u32, low: u32) -> u64 {
    u64::from(high) << 32 | u64::from(low)
}

fn split(value: u64) -> (u32, u32) {
    // Both halves fit in 32 bits.
    let half = |part: u64| u32::try_from(part & u64::from(u32::MAX)).unwrap_or_default();
    (half(value >> 32), half(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry<'a>(
        path: &'a [u8],
        kind: EntryKind<'a>,
        xattrs: &'a [(Vec<u8>, Vec<u8>)],
    ) -> Entry<'a> {
        let mtime = Mtime {
            seconds: -3,
            nanoseconds: 7,
        };
        Entry {
            path,
            kind,
            mode: 0o4755,
            uid: 1,
            gid: u32::MAX - 1,
            mtime,
            xattrs,
        }
    }

    fn sample() -> Toc {
        let xattrs = vec![(b"user.a".to_vec(), b"1\0".to_vec())];
        let extents = [Extent {
            file_offset: 5,
            layer_offset: 90,
            length: 10,
        }];
        let mut builder = TocBuilder::default();
        for entry in [
            entry(b"./", EntryKind::Directory, &[]),
            entry(
                b"a\xff",
                EntryKind::File {
                    offset: 512,
                    size: 3,
                },
                &xattrs,
            ),
            entry(
                b"s",
                EntryKind::SparseFile {
                    extents: &extents,
                    size: 1 << 40,
                },
                &xattrs,
            ),
            entry(b"l", EntryKind::Symlink { target: b"../x" }, &[]),
            entry(b"h", EntryKind::HardLink { target: b"a\xff" }, &[]),
            entry(b"c", EntryKind::CharDevice { major: 1, minor: 3 }, &[]),
            entry(
                b"b",
                EntryKind::BlockDevice {
                    major: 8,
                    minor: 1 << 20,
                },
                &[],
            ),
            entry(b"f", EntryKind::Fifo, &[]),
        ] {
            builder.push(&entry).unwrap();
        }
        builder.finish(2048).unwrap()
    }

    #[test]
    fn a_toc_survives_encoding() {
        let toc = sample();
        let decoded = Toc::decode(&toc.encode(), 2048).unwrap();
        assert_eq!(decoded, toc);
        assert_eq!(decoded.iter().count(), 8);
        let second = decoded.iter().nth(1).unwrap();
        assert_eq!(
            second.kind,
            EntryKind::File {
                offset: 512,
                size: 3
            }
        );
        assert_eq!(second.xattrs, [(b"user.a".to_vec(), b"1\0".to_vec())]);
        assert_eq!(decoded.xattrs.len(), 1, "equal sets are stored once");
    }

    #[test]
    fn a_damaged_toc_is_refused_or_at_least_harmless() {
        let bytes = sample().encode();
        assert!(Toc::decode(&bytes, 400).is_err(), "a file beyond the layer");
        for length in 0..bytes.len() {
            assert!(
                Toc::decode(&bytes[..length], 2048).is_err(),
                "cut to {length}"
            );
        }
        for position in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[position] ^= 0x80;
            if let Ok(toc) = Toc::decode(&bad, 2048) {
                assert_eq!(toc.iter().count(), toc.len());
            }
        }
    }

    #[test]
    fn files_at_the_root_can_be_left_out() {
        let mut builder = TocBuilder::default();
        let file = EntryKind::File { offset: 0, size: 0 };
        for (path, kind) in [
            (&b"./a"[..], file),
            (b"b", EntryKind::Directory),
            (b"/c", file),
            (b"d/a", file),
            (b"e", EntryKind::Symlink { target: b"a" }),
        ] {
            builder.push(&entry(path, kind, &[])).unwrap();
        }
        let toc = builder
            .finish(0)
            .unwrap()
            .without_root_files(&[b"a", b"b", b"c"]);
        let left: Vec<_> = toc.iter().map(|entry| entry.path).collect();
        assert_eq!(left, [&b"b"[..], b"d/a", b"e"]);
        assert_eq!(Toc::decode(&toc.encode(), 0).unwrap(), toc);
    }

    #[test]
    fn limits_are_named() {
        let mut builder = TocBuilder::default();
        let long = vec![b'x'; 70_000];
        let err = builder
            .push(&entry(&long, EntryKind::Fifo, &[]))
            .unwrap_err();
        assert!(err.to_string().contains("length of a path"), "{err}");
        let err = builder
            .push(&entry(
                b"l",
                EntryKind::Symlink {
                    target: &long[..5000],
                },
                &[],
            ))
            .unwrap_err();
        assert!(err.to_string().contains("link target"), "{err}");
    }
}
