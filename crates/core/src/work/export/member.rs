//! Headers of tar members: POSIX ustar, and PAX records for what that cannot say.
//!
//! ```text
//! path, linkpath        longer than 100 bytes, or text that is not ASCII; names that are no text stand as they are
//! uid, gid, size        beyond what octal digits can say
//! mtime                 with nanoseconds, before 1970, or beyond octal digits
//! SCHILY.xattr.NAME     extended attributes, as GNU tar, bsdtar, star and Go's tools read them
//! GNU.sparse.*          version 1.0: the data begins with a map of what is stored; GNU tar, bsdtar, Python and Go read it
//! ```
//!
//! The same node always gives the same bytes.

use tar::{EntryType, Header};

use imgfs_formats::layer::{Extent, Mtime};
use imgfs_formats::tree::Node;

/// Bytes of a block: headers and data are padded to it.
pub(super) const BLOCK: usize = 512;
/// Bytes that ustar has for a name and for the target of a link.
const NAME: usize = 100;
/// What seven octal digits can say: user, group, device.
const SEVEN_DIGITS: u64 = 0o777_7777;
/// What eleven octal digits can say: size and time.
const ELEVEN_DIGITS: u64 = 0o777_7777_7777;

/// What a member is.
#[derive(Debug, Clone, Copy)]
pub(super) enum What<'a> {
    Directory,
    /// With so many bytes.
    File(u64),
    /// Of this size, with these bytes stored.
    Sparse(u64, &'a [Extent]),
    /// Another name of the member with this name.
    HardLink(&'a [u8]),
    Symlink(&'a [u8]),
    CharDevice(u32, u32),
    BlockDevice(u32, u32),
    Fifo,
}

/// All that comes before a member's content: its PAX records if it needs some, its header, and the
/// map of a sparse file.
pub(super) fn start(
    path: &[u8],
    what: What<'_>,
    node: &Node,
    xattrs: &[(Vec<u8>, Vec<u8>)],
) -> Vec<u8> {
    let mut records = Records::default();
    let mut header = Header::new_ustar();
    let (kind, size) = kind(what);
    header.set_entry_type(kind);
    header.set_mode(u32::from(node.permissions()));
    header.set_uid(records.number("uid", node.uid().into(), SEVEN_DIGITS));
    header.set_gid(records.number("gid", node.gid().into(), SEVEN_DIGITS));
    header.set_mtime(records.mtime(node.mtime()));
    let mut map = Vec::new();
    if let What::Sparse(real_size, extents) = what {
        map = sparse_map(real_size, extents);
        records.add(b"GNU.sparse.major", b"1");
        records.add(b"GNU.sparse.minor", b"0");
        records.add(b"GNU.sparse.name", path);
        records.add(b"GNU.sparse.realsize", real_size.to_string().as_bytes());
    }
    let size = size + map.len() as u64;
    header.set_size(records.number("size", size, ELEVEN_DIGITS));
    let fields = header.as_old_mut();
    match what {
        // Who does not know sparse files sees that this is not the file itself.
        What::Sparse(..) => {
            let (_, name) = super::split_last(path);
            put(&mut fields.name, &[b"GNUSparseFile.0/", name].concat());
        }
        _ => records.text("path", path, &mut fields.name),
    }
    if let What::HardLink(target) | What::Symlink(target) = what {
        records.text("linkpath", target, &mut fields.linkname);
    }
    if let What::CharDevice(major, minor) | What::BlockDevice(major, minor) = what
        && let Some(fields) = header.as_ustar_mut()
    {
        let field = |number: u64| u32::try_from(number).unwrap_or_default();
        let major = records.number("SCHILY.devmajor", major.into(), SEVEN_DIGITS);
        let minor = records.number("SCHILY.devminor", minor.into(), SEVEN_DIGITS);
        fields.set_device_major(field(major));
        fields.set_device_minor(field(minor));
    }
    // Of a file with several names the first one brings them.
    if !matches!(what, What::HardLink(_)) {
        for (name, value) in xattrs {
            records.add(&[b"SCHILY.xattr.", &xattr_name(name)[..]].concat(), value);
        }
    }
    header.set_cksum();
    let mut out = records.member();
    out.extend_from_slice(header.as_bytes());
    out.extend_from_slice(&map);
    out
}

/// The zeros that follow `length` bytes of content.
pub(super) fn padding(length: u64) -> &'static [u8] {
    const ZEROS: [u8; BLOCK] = [0; BLOCK];
    let over = usize::try_from(length % BLOCK as u64).unwrap_or_default();
    match over {
        0 => &[],
        over => &ZEROS[over..],
    }
}

/// The letter of a kind, and the bytes of its content without a map.
fn kind(what: What<'_>) -> (EntryType, u64) {
    match what {
        What::Directory => (EntryType::Directory, 0),
        What::File(size) => (EntryType::Regular, size),
        What::Sparse(_, extents) => {
            let stored = extents.iter().map(|extent| extent.length).sum();
            (EntryType::Regular, stored)
        }
        What::HardLink(_) => (EntryType::Link, 0),
        What::Symlink(_) => (EntryType::Symlink, 0),
        What::CharDevice(..) => (EntryType::Char, 0),
        What::BlockDevice(..) => (EntryType::Block, 0),
        What::Fifo => (EntryType::Fifo, 0),
    }
}

/// Count, then offset and length of each stored run, each number a line; padded. A hole at the end
/// is a run of nothing.
fn sparse_map(size: u64, extents: &[Extent]) -> Vec<u8> {
    let stored = extents.iter().filter(|extent| extent.length > 0);
    let mut runs: Vec<_> = stored
        .map(|extent| (extent.file_offset, extent.length))
        .collect();
    if runs.last().map_or(0, |(offset, length)| offset + length) < size {
        runs.push((size, 0));
    }
    let count = format!("{}\n", runs.len());
    let lines = runs
        .iter()
        .map(|(offset, length)| format!("{offset}\n{length}\n"));
    let mut map = std::iter::once(count)
        .chain(lines)
        .collect::<String>()
        .into_bytes();
    map.extend_from_slice(padding(map.len() as u64));
    map
}

/// The name of an extended attribute as GNU tar writes it: `=` would end it.
fn xattr_name(name: &[u8]) -> Vec<u8> {
    let needs_escape = name.contains(&b'=')
        || name
            .windows(3)
            .any(|three| three == b"%3D" || three == b"%25");
    if !needs_escape {
        return name.to_vec();
    }
    let escaped = name.iter().flat_map(|byte| match byte {
        b'=' => &b"%3D"[..],
        b'%' => &b"%25"[..],
        byte => std::slice::from_ref(byte),
    });
    escaped.copied().collect()
}

fn put(field: &mut [u8], text: &[u8]) {
    for (to, from) in field.iter_mut().zip(text) {
        *to = *from;
    }
}

/// PAX records of one member.
#[derive(Default)]
struct Records(Vec<u8>);

impl Records {
    /// `LENGTH KEY=VALUE\n`, where the length counts itself.
    fn add(&mut self, key: &[u8], value: &[u8]) {
        let rest = key.len() + value.len() + 3;
        let mut length = rest + 1;
        while rest + length.to_string().len() != length {
            length = rest + length.to_string().len();
        }
        self.0.extend_from_slice(format!("{length} ").as_bytes());
        for part in [key, b"=", value, b"\n"] {
            self.0.extend_from_slice(part);
        }
    }

    /// What goes into a field of digits: nothing if the number needs a record.
    fn number(&mut self, key: &str, number: u64, most: u64) -> u64 {
        if number <= most {
            return number;
        }
        self.add(key.as_bytes(), number.to_string().as_bytes());
        0
    }

    fn mtime(&mut self, mtime: Mtime) -> u64 {
        let field = u64::try_from(mtime.seconds).ok();
        let field = field.filter(|seconds| *seconds <= ELEVEN_DIGITS);
        if field.is_none() || mtime.nanoseconds > 0 {
            self.add(b"mtime", decimal(mtime).as_bytes());
        }
        field.unwrap_or_default()
    }

    fn text(&mut self, key: &str, text: &[u8], field: &mut [u8]) {
        // POSIX wants UTF-8 in records, but nothing else can say a long name that is no text.
        let is_short = text.len() <= NAME;
        let is_text = std::str::from_utf8(text).is_ok();
        if !is_short || is_text && !text.is_ascii() {
            self.add(key.as_bytes(), text);
        }
        put(field, text);
    }

    /// The member that brings them; nothing if there are none.
    fn member(self) -> Vec<u8> {
        let Self(mut records) = self;
        if records.is_empty() {
            return records;
        }
        let mut header = Header::new_ustar();
        put(&mut header.as_old_mut().name, b"PaxHeaders.0/records");
        header.set_entry_type(EntryType::XHeader);
        header.set_mode(0o644);
        header.set_size(records.len() as u64);
        header.set_cksum();
        records.extend_from_slice(padding(records.len() as u64));
        let mut member = header.as_bytes().to_vec();
        member.append(&mut records);
        member
    }
}

/// Seconds as a decimal number; a time before 1970 counts backwards: -0.25 is 750,000,000
/// nanoseconds after -1.
fn decimal(mtime: Mtime) -> String {
    let nanoseconds = i128::from(mtime.seconds) * 1_000_000_000 + i128::from(mtime.nanoseconds);
    let sign = if nanoseconds < 0 { "-" } else { "" };
    let (seconds, fraction) = (
        nanoseconds.unsigned_abs() / 1_000_000_000,
        nanoseconds.unsigned_abs() % 1_000_000_000,
    );
    let text = format!("{sign}{seconds}.{fraction:09}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_decimal_numbers() {
        let check = |seconds, nanoseconds, expected: &str| {
            let mtime = Mtime {
                seconds,
                nanoseconds,
            };
            assert_eq!(decimal(mtime), expected);
        };
        check(0, 0, "0");
        check(100, 0, "100");
        check(1, 5, "1.000000005");
        check(-1, 750_000_000, "-0.25");
        check(-3, 0, "-3");
        check(-3, 1, "-2.999999999");
        check(i64::MIN, 0, "-9223372036854775808");
    }

    #[test]
    fn records_count_their_own_length() {
        let mut records = Records::default();
        for length in [4, 5, 93, 94] {
            records.add(b"k", &vec![b'v'; length]);
        }
        let text = String::from_utf8(records.0).unwrap();
        let mut rest = text.as_str();
        for expected in [9, 11, 99, 101] {
            assert!(rest.starts_with(&format!("{expected} k=v")), "{rest}");
            assert_eq!(&rest[expected - 1..expected], "\n");
            rest = &rest[expected..];
        }
        assert_eq!(rest, "");
    }

    #[test]
    fn maps_tell_what_is_stored() {
        let check = |size, extents: &[(u64, u64)], expected: &str| {
            let extents: Vec<Extent> = (extents.iter())
                .map(|(file_offset, length)| Extent {
                    file_offset: *file_offset,
                    layer_offset: 0,
                    length: *length,
                })
                .collect();
            let map = sparse_map(size, &extents);
            assert_eq!(map.len() % BLOCK, 0);
            let text = String::from_utf8(map).unwrap();
            assert_eq!(text.trim_end_matches('\0'), expected);
        };
        check(10, &[], "1\n10\n0\n");
        check(10, &[(0, 10)], "1\n0\n10\n");
        check(
            1 << 40,
            &[(512, 4), (9, 0)],
            "2\n512\n4\n1099511627776\n0\n",
        );
    }

    #[test]
    fn names_of_attributes_hold_no_equals_sign() {
        let check = |name: &[u8], expected: &[u8]| assert_eq!(xattr_name(name), expected);
        check(b"user.a%b", b"user.a%b");
        check(b"user.a=%", b"user.a%3D%25");
        check(b"user.%3D", b"user.%253D");
        check(b"user.\xff", b"user.\xff");
    }
}
