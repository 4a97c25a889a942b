//! Operations on a small tree, without FUSE and without bytes.

use std::sync::Arc;

use super::error::FsError;
use super::image::ImageFs;
use imgfs_formats::layer::{Entry, EntryKind, Extent, Mtime, TocBuilder};
use imgfs_formats::tree::{Ino, Kind, Tree};

const PLAIN: Entry<'static> = Entry {
    path: b"",
    kind: EntryKind::Fifo,
    mode: 0o644,
    uid: 0,
    gid: 0,
    mtime: Mtime {
        seconds: 1,
        nanoseconds: 0,
    },
    xattrs: &[],
};

fn image(entries: &[(&str, EntryKind<'_>)]) -> ImageFs {
    image_with(entries, &[])
}

fn image_with(entries: &[(&str, EntryKind<'_>)], xattrs: &[(Vec<u8>, Vec<u8>)]) -> ImageFs {
    let mut builder = TocBuilder::default();
    for (path, kind) in entries {
        let (path, kind) = (path.as_bytes(), *kind);
        let entry = Entry {
            path,
            kind,
            xattrs,
            ..PLAIN
        };
        builder.push(&entry).unwrap();
    }
    let toc = builder.finish(1 << 40).unwrap();
    let (tree, _) = Tree::build(&[&toc]).unwrap();
    ImageFs::new(Arc::new(tree), Vec::new())
}

fn find(image: &ImageFs, path: &str) -> Ino {
    image.tree().resolve(path.as_bytes(), false).unwrap()
}

#[track_caller]
fn errno<T>(result: Result<T, FsError>) -> i32 {
    result.map(|_| ()).unwrap_err().errno()
}

const FILE: EntryKind<'static> = EntryKind::File {
    offset: 512,
    size: 1000,
};
const LINK: EntryKind<'static> = EntryKind::Symlink { target: b"a/b" };

#[test]
fn lookup_finds_names_and_dots() {
    let image = image(&[("a/b", FILE), ("c", FILE)]);
    let (a, b) = (find(&image, "a"), find(&image, "a/b"));
    let lookup = |parent, name: &str| {
        let found = image.lookup(parent, name.as_bytes()).unwrap();
        found.map(|attributes| attributes.ino)
    };
    assert_eq!(lookup(Ino::ROOT, "a"), Some(a));
    assert_eq!(lookup(a, "b"), Some(b));
    assert_eq!(lookup(a, "c"), None);
    assert_eq!(lookup(a, "."), Some(a));
    assert_eq!(lookup(b, "."), Some(b), "NFS asks so for files too");
    assert_eq!(lookup(a, ".."), Some(Ino::ROOT));
    assert_eq!(lookup(Ino::ROOT, ".."), Some(Ino::ROOT));
    assert_eq!(errno(image.lookup(b, b"x")), libc::ENOTDIR);
    assert_eq!(errno(image.lookup(Ino::new(99), b"x")), libc::ESTALE);
    assert_eq!(errno(image.attributes(Ino::new(0))), libc::ESTALE);
}

#[test]
fn attributes_count_blocks_of_512_bytes() {
    let image = image(&[
        ("a", FILE),
        ("l", LINK),
        ("c", EntryKind::CharDevice { major: 5, minor: 1 }),
    ]);
    let get = |path| image.attributes(find(&image, path)).unwrap();
    assert_eq!(
        (get("a").size, get("a").blocks, get("a").nlink),
        (1000, 2, 1)
    );
    assert_eq!((get("l").size, get("l").permissions), (3, 0o777));
    assert_eq!((get("c").device, get("a").device), ((5, 1), (0, 0)));
    let size = image.size();
    assert_eq!((size.blocks, size.nodes), (1, 4));
}

#[test]
fn a_directory_can_be_read_from_any_position() {
    let image = image(&[("d/b", FILE), ("d/a/", EntryKind::Directory), ("d/c", LINK)]);
    let d = find(&image, "d");
    let from = |position| -> Vec<(String, Kind, u64)> {
        let entries = image.entries(d, position).unwrap();
        let entries = entries.map(|entry| {
            let name = String::from_utf8(entry.name.to_vec()).unwrap();
            (name, entry.kind, entry.next)
        });
        entries.collect()
    };
    let all: Vec<_> = [
        (".", Kind::Directory),
        ("..", Kind::Directory),
        ("a", Kind::Directory),
        ("b", Kind::File),
        ("c", Kind::Symlink),
    ]
    .into_iter()
    .zip(1..)
    .map(|((name, kind), next)| (name.to_owned(), kind, next))
    .collect();
    for position in 0..=5 {
        assert_eq!(from(position as u64), all[position..], "from {position}");
    }
    assert_eq!(from(u64::MAX - 1), []);
    let numbers: Vec<Ino> = (image.entries(d, 0).unwrap())
        .map(|entry| entry.ino)
        .collect();
    assert_eq!(numbers[..2], [d, Ino::ROOT]);
    assert!(image.entries(find(&image, "d/b"), 0).is_err());
}

#[test]
fn links_are_read() {
    let image = image(&[("l", LINK), ("a", FILE)]);
    assert_eq!(image.readlink(find(&image, "l")).unwrap(), b"a/b");
    assert_eq!(errno(image.readlink(find(&image, "a"))), libc::EINVAL);
}

#[test]
fn xattrs_are_listed_and_read() {
    let set = [
        (b"user.a".to_vec(), b"1\0".to_vec()),
        (b"user.b".to_vec(), vec![]),
    ];
    let with = image_with(&[("f", FILE)], &set);
    let f = find(&with, "f");
    assert_eq!(with.getxattr(f, b"user.a").unwrap(), b"1\0");
    assert_eq!(with.getxattr(f, b"user.b").unwrap(), b"");
    assert_eq!(with.listxattr(f).unwrap(), b"user.a\0user.b\0");
    assert_eq!(with.listxattr(Ino::ROOT).unwrap(), b"");
    assert_eq!(errno(with.getxattr(f, b"user.c")), libc::ENODATA);
    let without = image(&[("f", FILE)]);
    assert_eq!(errno(without.getxattr(f, b"user.a")), libc::ENOSYS);
    assert_eq!(without.listxattr(f).unwrap(), b"");
}

#[test]
fn only_executables_may_be_executed() {
    let image = image(&[("f", FILE), ("d/", EntryKind::Directory)]);
    assert_eq!(errno(image.access(find(&image, "f"), true)), libc::EACCES);
    assert!(image.access(find(&image, "f"), false).is_ok());
    assert!(image.access(find(&image, "d"), true).is_ok());
}

#[test]
fn seeking_finds_data_and_holes() {
    let run = |file_offset, length| Extent {
        file_offset,
        layer_offset: 0,
        length,
    };
    let extents = [run(10, 5), run(15, 5), run(30, 0), run(40, 10)];
    let sparse = EntryKind::SparseFile {
        extents: &extents,
        size: 60,
    };
    let image = image(&[("s", sparse), ("f", FILE), ("d/", EntryKind::Directory)]);
    let seek = |path, offset, whence| image.seek(find(&image, path), offset, whence);
    for (path, offset, data, hole) in [
        ("s", 0, Some(10), 0),
        ("s", 9, Some(10), 9),
        ("s", 10, Some(10), 20),
        ("s", 16, Some(16), 20),
        ("s", 20, Some(40), 20),
        ("s", 45, Some(45), 50),
        ("s", 50, None, 50),
        ("s", 59, None, 59),
        ("f", 0, Some(0), 1000),
        ("f", 999, Some(999), 1000),
    ] {
        assert_eq!(
            seek(path, offset, libc::SEEK_DATA).ok(),
            data,
            "{path} {offset}"
        );
        assert_eq!(
            seek(path, offset, libc::SEEK_HOLE).unwrap(),
            hole,
            "{path} {offset}"
        );
    }
    for (path, offset, whence, expected) in [
        ("s", 50, libc::SEEK_DATA, libc::ENXIO),
        ("s", 60, libc::SEEK_HOLE, libc::ENXIO),
        ("f", -1, libc::SEEK_DATA, libc::ENXIO),
        ("f", 0, 99, libc::EINVAL),
        ("d", 0, libc::SEEK_DATA, libc::EISDIR),
    ] {
        assert_eq!(
            errno(seek(path, offset, whence)),
            expected,
            "{path} {offset}"
        );
    }
}

#[test]
fn what_cannot_be_read_says_why() {
    let image = Arc::new(image(&[
        ("f", FILE),
        ("d/", EntryKind::Directory),
        ("p", EntryKind::Fifo),
        ("d/b", EntryKind::HardLink { target: b"nothing" }),
    ]));
    let read = |path| image.try_read(find(&image, path), 0, 10, &mut Vec::new());
    assert_eq!(errno(read("d")), libc::EISDIR);
    assert_eq!(errno(read("p")), libc::EINVAL);
    let err = read("d/b").unwrap_err();
    assert_eq!((err.errno(), err.is_failure()), (libc::EIO, true));
    assert_eq!(err.to_string(), "/d/b is a hard link to nothing");
    // This image was given no layers.
    let err = read("f").unwrap_err();
    assert_eq!(err.to_string(), "/f lies in layer 0, which is not there");
}
