//! Whether an index in another format says the same as our own of the same layer.
//!
//! Such an index numbers the layer's bytes as it likes, so what can be compared here are the
//! entries; which bytes a file has is for a caller that can read both
//! ([`LayerIndex::files_to_compare`]). A table of contents may leave out its own parts, write names
//! and times in its own way, and list a name that occurs twice once: the last one counts.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;

use super::index::LayerIndex;
use super::json_toc::{FORMAT_FILES, cleaned};
use super::span::Hash;
use super::toc::{Entry, EntryKind, Extent, Mtime};

/// A regular file, as our own index and another one have it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilePair {
    /// Its name, cleaned.
    pub path: Vec<u8>,
    /// Where its bytes are in the layer as our own index has it.
    pub own: FileBytes,
    /// BLAKE3 of its stored bytes by our own index.
    pub digest: Option<Hash>,
    /// Where the other one says they are, in its own numbering.
    pub found: FileBytes,
}

/// Where a file's bytes are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileBytes {
    /// Size in bytes.
    pub size: u64,
    /// The stored runs; everything else is zeros.
    pub extents: Vec<Extent>,
}

impl FileBytes {
    /// Whether all of it is stored in one run.
    pub fn is_plain(&self) -> bool {
        self.size == 0 || self.extents.iter().any(|extent| extent.length == self.size)
    }

    /// `size` bytes that lie in one run from `offset` on.
    pub fn contiguous(offset: u64, size: u64) -> Self {
        let run = Extent {
            file_offset: 0,
            layer_offset: offset,
            length: size,
        };
        Self {
            size,
            extents: Vec::from([run]),
        }
    }

    fn of(kind: &EntryKind<'_>) -> Option<Self> {
        match kind {
            EntryKind::File { offset, size } => Some(Self::contiguous(*offset, *size)),
            EntryKind::SparseFile { extents, size } => Some(Self {
                size: *size,
                extents: extents.to_vec(),
            }),
            _ => None,
        }
    }
}

impl LayerIndex {
    /// Compares the entries of `found` with this index, which was made from the blob and has its
    /// file digests. The error is the first difference, in words; else these files' bytes have to
    /// be the same.
    pub fn files_to_compare(&self, found: &Self) -> Result<Vec<FilePair>, String> {
        let mut digests = self.file_digests.iter();
        let own = by_name(self.toc.iter().map(|entry| {
            let digest = FileBytes::of(&entry.kind).and_then(|_| digests.next().copied());
            (entry, digest)
        }));
        let found = by_name(found.toc.iter().map(|entry| (entry, None)));
        let mut pairs = Vec::new();
        for (path, (own, digest)) in &own {
            let name = path.escape_ascii();
            let Some((claimed, _)) = found.get(path) else {
                return Err(format!("\"{name}\" is not in it"));
            };
            compare(&name.to_string(), own, claimed)?;
            if let (Some(own), Some(found)) =
                (FileBytes::of(&own.kind), FileBytes::of(&claimed.kind))
            {
                pairs.push(FilePair {
                    path: path.clone(),
                    own,
                    digest: *digest,
                    found,
                });
            }
        }
        let more = found.keys().find(|path| !own.contains_key(*path));
        match more {
            Some(path) => Err(format!("\"{}\" is not in the layer", path.escape_ascii())),
            None => Ok(pairs),
        }
    }
}

type Named<'a> = BTreeMap<Vec<u8>, (Entry<'a>, Option<Hash>)>;

/// The entries that show, by their cleaned names; the last of each.
fn by_name<'a>(entries: impl Iterator<Item = (Entry<'a>, Option<Hash>)>) -> Named<'a> {
    let named = entries.map(|(entry, digest)| (cleaned(entry.path).into_owned(), (entry, digest)));
    named
        .filter(|(path, _)| !FORMAT_FILES.contains(&path.as_slice()))
        .collect()
}

fn compare(name: &str, own: &Entry<'_>, claimed: &Entry<'_>) -> Result<(), String> {
    let octal = |entry: &Entry<'_>| format!("{:o}", entry.mode);
    equal(name, "kind", &kind(own), &kind(claimed))?;
    equal(name, "mode", &octal(own), &octal(claimed))?;
    equal(name, "owner", &own.uid, &claimed.uid)?;
    equal(name, "group", &own.gid, &claimed.gid)?;
    if !same_time(own.mtime, claimed.mtime) {
        equal(name, "time", &own.mtime, &claimed.mtime)?;
    }
    if !has_xattrs(own, claimed) {
        return Err(format!("the extended attributes of \"{name}\" differ"));
    }
    Ok(())
}

fn equal<T: PartialEq + Debug>(name: &str, what: &str, own: &T, claimed: &T) -> Result<(), String> {
    if own == claimed {
        return Ok(());
    }
    Err(format!(
        "the {what} of \"{name}\" is {own:?}, not {claimed:?} as claimed"
    ))
}

/// What an entry is, without where its bytes are.
fn kind(entry: &Entry<'_>) -> String {
    match entry.kind {
        EntryKind::File { size, .. } | EntryKind::SparseFile { size, .. } => {
            format!("a file of {size} bytes")
        }
        EntryKind::Directory => "a directory".to_owned(),
        EntryKind::Symlink { target } => format!("a link to {}", target.escape_ascii()),
        EntryKind::HardLink { target } => {
            format!("a hard link to {}", cleaned(target).escape_ascii())
        }
        EntryKind::CharDevice { major, minor } => format!("character device {major}:{minor}"),
        EntryKind::BlockDevice { major, minor } => format!("block device {major}:{minor}"),
        EntryKind::Fifo => "a pipe".to_owned(),
    }
}

/// Whether the layer has all extended attributes that are claimed. It may have more: makers of such
/// indexes read the `SCHILY.xattr` of a tar alone, and our own index does not tell which ones
/// `LIBARCHIVE.xattr` gave. So an index that leaves some out is not noticed; what is lost is a
/// file's capability or access list, never gained or changed.
fn has_xattrs(own: &Entry<'_>, claimed: &Entry<'_>) -> bool {
    let own: BTreeSet<_> = own.xattrs.iter().collect();
    claimed.xattrs.iter().all(|xattr| own.contains(xattr))
}

/// eStargz writes times rounded to seconds (`estargz.go`: `formatModtime`), halves up.
fn same_time(own: Mtime, claimed: Mtime) -> bool {
    let rounded = own.seconds + i64::from(own.nanoseconds >= 500_000_000);
    own == claimed || (claimed.nanoseconds == 0 && claimed.seconds == rounded)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layer::{Toc, TocBuilder};

    fn entry<'a>(path: &'a [u8], kind: EntryKind<'a>) -> Entry<'a> {
        Entry {
            path,
            kind,
            mode: 0o644,
            uid: 1,
            gid: 2,
            mtime: Mtime {
                seconds: 10,
                nanoseconds: 600_000_000,
            },
            xattrs: &[],
        }
    }

    fn toc(entries: &[Entry<'_>]) -> Toc {
        let mut builder = TocBuilder::default();
        for entry in entries {
            builder.push(entry).unwrap();
        }
        builder.finish(1 << 20).unwrap()
    }

    const FILE: EntryKind<'_> = EntryKind::File {
        offset: 512,
        size: 3,
    };

    /// Compares with a layer of `./d/`, `d/a` and `d/a` once more, and what eStargz adds.
    #[track_caller]
    fn check(found: &[Entry<'_>], expected: Result<usize, &str>) {
        let blob = vec![0; 1024];
        let empty = LayerIndex::of_blob(&blob).unwrap();
        let own = LayerIndex {
            toc: toc(&[
                entry(b"./d/", EntryKind::Directory),
                entry(b"./d/a", EntryKind::Fifo),
                entry(b"d/b", FILE),
                entry(b"d/a", FILE),
                entry(b".no.prefetch.landmark", FILE),
                entry(b"stargz.index.json", FILE),
            ]),
            file_digests: (0..4).map(|number| [number; 32]).collect(),
            ..empty.clone()
        };
        let found = LayerIndex {
            toc: toc(found),
            ..empty
        };
        match (own.files_to_compare(&found), expected) {
            (Ok(pairs), Ok(count)) => {
                assert_eq!(pairs.len(), count);
                let digest_of = |path: &[u8]| {
                    let pair = pairs.iter().find(|pair| pair.path == path);
                    pair.unwrap().digest.unwrap()
                };
                assert_eq!((digest_of(b"d/b"), digest_of(b"d/a")), ([0; 32], [1; 32]));
            }
            (Err(found), Err(expected)) => assert!(found.contains(expected), "{found}"),
            (found, expected) => panic!("{found:?}, not {expected:?}"),
        }
    }

    /// The formats of others know nothing of `LIBARCHIVE.xattr`, by which bsdtar gives them: such a
    /// layer was quarantined.
    #[test]
    fn extended_attributes_may_be_left_out_and_nothing_else() {
        let xattr = |name: &str, value: &str| (name.as_bytes().to_vec(), value.as_bytes().to_vec());
        let own = [xattr("user.a", "1"), xattr("user.b", "2")];
        let check = |claimed: &[(Vec<u8>, Vec<u8>)], expected| {
            let with = |xattrs| {
                let mut entry = entry(b"a", EntryKind::Fifo);
                entry.xattrs = xattrs;
                entry
            };
            let found = compare("a", &with(&own), &with(claimed)).is_ok();
            assert_eq!(found, expected, "{claimed:?}");
        };
        check(&[], true);
        check(&own[1..], true);
        check(&[xattr("user.b", "2"), xattr("user.a", "1")], true);
        check(&[xattr("user.a", "2")], false);
        check(&[xattr("user.a", "1"), xattr("user.c", "1")], false);
    }

    #[test]
    fn what_shows_is_compared() {
        let right = [
            entry(b"d", EntryKind::Directory),
            entry(
                b"d/a",
                EntryKind::File {
                    offset: 4096,
                    size: 3,
                },
            ),
            entry(b"d/b", FILE),
        ];
        check(&right, Ok(2));
        let with = |number: usize, change: &dyn Fn(&mut Entry<'_>)| {
            let mut entries = right;
            change(&mut entries[number]);
            entries
        };
        let seconds = |seconds| Mtime {
            seconds,
            nanoseconds: 0,
        };
        check(&with(1, &|entry| entry.mtime = seconds(11)), Ok(2));
        check(
            &with(1, &|entry| entry.mtime = seconds(10)),
            Err("the time of \"d/a\""),
        );
        check(
            &with(0, &|entry| entry.mode = 0o4644),
            Err("the mode of \"d\" is \"644\", not \"4644\" as claimed"),
        );
        check(
            &with(2, &|entry| entry.gid = 0),
            Err("the group of \"d/b\""),
        );
        check(
            &with(2, &|entry| entry.path = b"d/c"),
            Err("\"d/b\" is not"),
        );
        check(&with(2, &|entry| entry.kind = EntryKind::Fifo), Err("kind"));
        let xattrs = [(b"user.x".to_vec(), b"1".to_vec())];
        let mut tagged = right;
        tagged[0].xattrs = &xattrs;
        check(&tagged, Err("the extended attributes of \"d\""));
        let mut more = right.to_vec();
        more.push(entry(b"e", EntryKind::Fifo));
        check(&more, Err("\"e\" is not in the layer"));
    }
}
