//! The members in a zTOC, as Go's archive/tar read them from the layer.

use super::error::{ZtocError, lossy};
use super::flatbuffer::{Offsets, Table};
use crate::layer::rfc3339::parse_time;
use crate::layer::tar::PaxXattrs;
use crate::layer::toc::{Entry, EntryKind, MAX_ENTRIES, Toc, TocBuilder, TocError, Xattrs};

/// Most bytes of PAX records of all members together. A file of the largest size can name the same
/// record for each of millions of members; protects time.
const MAX_PAX_BYTES: usize = 256 << 20;
/// What looking at one record costs besides its bytes.
const RECORD_COST: usize = 32;
/// Size of a tar header, and what members are aligned to.
const BLOCK: u64 = 512;

/// The members as a table of contents of a layer of `layer_size` bytes.
pub(super) fn toc(entries: Offsets<'_>, layer_size: u64) -> Result<Toc, ZtocError> {
    if entries.len() > MAX_ENTRIES {
        return Err(ZtocError::Toc(TocError::Limit {
            what: "entries in the layer",
            found: entries.len() as u64,
            limit: MAX_ENTRIES as u64,
        }));
    }
    let mut builder = TocBuilder::default();
    let (mut header_at, mut pax_left) = (0, MAX_PAX_BYTES);
    for entry in entries.tables() {
        let member = Member::read(entry?)?;
        let problem = |problem: String| ZtocError::Entry {
            path: lossy(member.path),
            problem,
        };
        let xattrs = xattrs(&member, &mut pax_left)?;
        // A header lies between two members: so no two of them can share a byte.
        let in_order = (member.offset)
            .checked_sub(BLOCK)
            .is_some_and(|header| header >= header_at)
            && member.offset.is_multiple_of(BLOCK);
        if !in_order {
            return Err(problem(format!(
                "its bytes at {} are not behind those of the entry before",
                member.offset
            )));
        }
        let kind = member.kind().map_err(problem)?;
        let size = match kind {
            EntryKind::File { size, .. } => size,
            _ => 0,
        };
        header_at = member
            .offset
            .checked_add(size)
            .and_then(|end| end.checked_next_multiple_of(BLOCK))
            .ok_or_else(|| problem(format!("it has {size} bytes")))?;
        let mtime = (std::str::from_utf8(member.time).ok().and_then(parse_time))
            .ok_or_else(|| problem(format!("{:?} is no time", lossy(member.time))))?;
        let entry = Entry {
            path: member.path,
            kind,
            mode: member.mode,
            uid: member.uid,
            gid: member.gid,
            mtime,
            xattrs: &xattrs,
        };
        builder
            .push(&entry)
            .map_err(|err| problem(err.to_string()))?;
    }
    Ok(builder.finish(layer_size)?)
}

/// A member as the zTOC has it, numbers checked.
struct Member<'a> {
    path: &'a [u8],
    kind: &'a [u8],
    link: &'a [u8],
    time: &'a [u8],
    offset: u64,
    size: i64,
    mode: u32,
    uid: u32,
    gid: u32,
    major: i64,
    minor: i64,
    pax: Offsets<'a>,
}

impl<'a> Member<'a> {
    fn read(table: Table<'a>) -> Result<Self, ZtocError> {
        let path = table.string(0)?;
        let offset = u64::try_from(table.i64(2)?).map_err(|_| ZtocError::Entry {
            path: lossy(path),
            problem: "its bytes begin before the layer".to_owned(),
        })?;
        Ok(Self {
            path,
            kind: table.string(1)?,
            offset,
            size: table.i64(3)?,
            link: table.string(4)?,
            // The bits beyond, if there are any, repeat what kind of file it is.
            mode: u32::try_from(table.i64(5)? & 0o7777).unwrap_or_default(),
            uid: table.u32(6)?,
            gid: table.u32(7)?,
            time: table.string(10)?,
            major: table.i64(11)?,
            minor: table.i64(12)?,
            pax: table.offsets(13)?,
        })
    }

    fn kind(&self) -> Result<EntryKind<'a>, String> {
        if self.path.contains(&0) || self.link.contains(&0) {
            return Err("a name contains a NUL byte".to_owned());
        }
        let number = |number: i64| {
            u32::try_from(number).map_err(|_| format!("the device number {number} does not fit"))
        };
        Ok(match self.kind {
            b"reg" => EntryKind::File {
                offset: self.offset,
                size: u64::try_from(self.size)
                    .map_err(|_| format!("it has {} bytes", self.size))?,
            },
            b"dir" => EntryKind::Directory,
            b"symlink" => EntryKind::Symlink { target: self.link },
            b"hardlink" => EntryKind::HardLink { target: self.link },
            b"char" => EntryKind::CharDevice {
                major: number(self.major)?,
                minor: number(self.minor)?,
            },
            b"block" => EntryKind::BlockDevice {
                major: number(self.major)?,
                minor: number(self.minor)?,
            },
            b"fifo" => EntryKind::Fifo,
            other => return Err(format!("it is of the unknown type {:?}", lossy(other))),
        })
    }
}

/// The extended attributes among a member's PAX records. Their order in the tar is lost: writers
/// sort them.
fn xattrs(member: &Member<'_>, left: &mut usize) -> Result<Xattrs, ZtocError> {
    let problem = |problem: String| ZtocError::Entry {
        path: lossy(member.path),
        problem,
    };
    let mut xattrs = PaxXattrs::default();
    for record in member.pax.tables() {
        let record = record?;
        let (key, value) = (record.string(0)?, record.string(1)?);
        *left = (left.checked_sub(key.len() + value.len() + RECORD_COST)).ok_or_else(|| {
            problem(format!(
                "all PAX records together have more than {MAX_PAX_BYTES} bytes"
            ))
        })?;
        if key.starts_with(b"GNU.sparse.") {
            return Err(ZtocError::Sparse {
                path: lossy(member.path),
            });
        }
        xattrs.record(key, value).map_err(problem)?;
    }
    Ok(xattrs.finish())
}
