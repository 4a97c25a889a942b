//! The union rules as data: layers in, listing out.
//!
//! A line of a layer is a member in tar order: `a/` a directory, `a` a file, `a -> b` a symlink, `a
//! => b` a hard link; `0600 a` sets the mode. A line of the result is a path of the tree in order:
//! `a@1` is a file whose bytes are in layer 1, `x2` follows where there are two links, a mode where
//! it is not 0755 or 0644, `a ?` is a link to nothing. Directories show their links only where they
//! are wrong.

use super::{Content, Ino, Kind, Tree, TreeError, Warning, WarningKind};
use crate::layer::{Entry, EntryKind, Extent, Mtime, Toc, TocBuilder};

const SIZE: u64 = 1 << 40;

pub(super) fn toc(lines: &[&str]) -> Toc {
    let mut builder = TocBuilder::default();
    for (line, offset) in lines.iter().zip((512..).step_by(512)) {
        let (mode, line) = match line.split_once(' ') {
            Some((mode, rest)) if mode.starts_with('0') => {
                (Some(u32::from_str_radix(mode, 8).unwrap()), rest)
            }
            _ => (None, *line),
        };
        let (path, kind, default) = if let Some((path, target)) = line.split_once(" -> ") {
            let target = target.as_bytes();
            (path, EntryKind::Symlink { target }, 0o777)
        } else if let Some((path, target)) = line.split_once(" => ") {
            let target = target.as_bytes();
            (path, EntryKind::HardLink { target }, 0o644)
        } else if line.ends_with('/') {
            (line, EntryKind::Directory, 0o755)
        } else {
            (line, EntryKind::File { offset, size: 1 }, 0o644)
        };
        builder
            .push(&Entry {
                path: path.as_bytes(),
                kind,
                mode: mode.unwrap_or(default),
                ..PLAIN
            })
            .unwrap();
    }
    builder.finish(SIZE).unwrap()
}

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

fn one(entries: &[Entry<'_>]) -> Toc {
    let mut builder = TocBuilder::default();
    for entry in entries {
        builder.push(entry).unwrap();
    }
    builder.finish(SIZE).unwrap()
}

fn build(layers: &[&[&str]]) -> Result<(Tree, Vec<Warning>), TreeError> {
    let tocs: Vec<Toc> = layers.iter().map(|lines| toc(lines)).collect();
    Tree::build(&tocs.iter().collect::<Vec<_>>())
}

fn listing(tree: &Tree) -> Vec<String> {
    let mut lines = Vec::new();
    let root = tree.node(Ino::ROOT).unwrap();
    if root.permissions() != 0o755 {
        lines.push(format!("{:04o} /", root.permissions()));
    }
    list(tree, Ino::ROOT, "", &mut lines);
    lines
}

fn list(tree: &Tree, directory: Ino, prefix: &str, lines: &mut Vec<String>) {
    let node = tree.node(directory).unwrap();
    let mut directories = 0;
    for dirent in tree.children(node) {
        let name = String::from_utf8_lossy(tree.name(dirent));
        let path = format!("{prefix}{name}");
        let child = tree.node(dirent.ino()).unwrap();
        let (text, plain) = match tree.content(child) {
            Content::File { layer, .. } => (format!("{path}@{layer}"), 0o644),
            Content::SparseFile { layer, .. } => (format!("{path}@{layer} sparse"), 0o644),
            Content::Directory => (format!("{path}/"), 0o755),
            Content::Symlink(target) => {
                let target = String::from_utf8_lossy(target);
                (format!("{path} -> {target}"), 0o777)
            }
            Content::Device { major, minor } => (format!("{path} {major}:{minor}"), 0o644),
            Content::Fifo => (format!("{path}|"), 0o644),
            Content::Missing => (format!("{path} ?"), 0o644),
        };
        let mode = match child.permissions() {
            mode if mode == plain => String::new(),
            mode => format!("{mode:04o} "),
        };
        let suffix = match child.nlink() {
            count if count > 1 && !child.is_directory() => format!(" x{count}"),
            _ => String::new(),
        };
        lines.push(format!("{mode}{text}{suffix}"));
        if child.is_directory() {
            directories += 1;
            assert_eq!(tree.parent(child), directory, "{path}");
            list(tree, dirent.ino(), &format!("{path}/"), lines);
        }
    }
    assert_eq!(node.nlink(), 2 + directories, "links of {prefix}");
}

#[track_caller]
fn check(layers: &[&[&str]], expected: &[&str]) {
    let (tree, warnings) = build(layers).unwrap();
    assert_eq!(listing(&tree), expected);
    assert_eq!(warnings, []);
}

#[track_caller]
fn check_warning(layers: &[&[&str]], expected: &[&str], warning: WarningKind) {
    let (tree, warnings) = build(layers).unwrap();
    assert_eq!(listing(&tree), expected);
    let kinds: Vec<_> = warnings.iter().map(|warning| warning.kind).collect();
    assert_eq!(kinds, [warning]);
    assert!(!warnings[0].to_string().is_empty());
}

#[track_caller]
fn check_error(layers: &[&[&str]], expected: &str) {
    assert_eq!(build(layers).unwrap_err().to_string(), expected);
}

#[test]
fn no_layer_and_empty_layers_are_an_empty_root() {
    check(&[], &[]);
    check(&[&[]], &[]);
    check(&[&[], &["a"], &[]], &["a@1"]);
}

#[test]
fn a_whiteout_hides_the_name_below_and_itself() {
    check(&[&["a", "b"], &[".wh.a"]], &["b@0"]);
    check(
        &[&["a/", "a/b", "a/c"], &["a/", "a/.wh.b"]],
        &["a/", "a/c@0"],
    );
    check(&[&["a/", "a/b"], &[".wh.a"]], &[]);
    check(&[&["a"], &[".wh.b"]], &["a@0"]);
    check(&[&["a/b"], &["c/.wh.b", "a/d/.wh.b"]], &["a/", "a/b@0"]);
    check(&[&["a"], &["a/.wh.b"]], &["a@0"]);
    check(&[&["a"], &[".wh.a"], &["a"]], &["a@2"]);
}

#[test]
fn a_whiteout_never_affects_its_own_layer() {
    for layer in [[".wh.x", "x"], ["x", ".wh.x"]] {
        check(&[&["x"], &layer], &["x@1"]);
        check(&[&layer], &["x@0"]);
    }
    // Beside a directory it makes the directory opaque, which containerd's conversion loses.
    check(&[&["x/", "x/a"], &[".wh.x", "x/", "x/b"]], &["x/", "x/b@1"]);
    check(&[&["x/", "x/a"], &["x/", "x/b", ".wh.x"]], &["x/", "x/b@1"]);
    check(&[&["0700 x/", "x/a"], &["x/b", ".wh.x"]], &["x/", "x/b@1"]);
}

#[test]
fn an_opaque_directory_hides_all_below_wherever_its_mark_stands() {
    // The example of the image specification.
    let base: &[&str] = &["a/", "a/b/", "a/b/c/", "a/b/c/bar"];
    for layer in [
        ["a/", "a/.wh..wh..opq", "a/b/", "a/b/c/", "a/b/c/foo"],
        ["a/", "a/b/", "a/b/c/", "a/b/c/foo", "a/.wh..wh..opq"],
    ] {
        check(&[base, &layer], &["a/", "a/b/", "a/b/c/", "a/b/c/foo@1"]);
    }
    check(&[&["a", "b/c"], &[".wh..wh..opq", "d"]], &["d@1"]);
    check(&[&["0700 a/", "a/b"], &["a/.wh..wh..opq"]], &["0700 a/"]);
    check(&[&["b"], &["a/.wh..wh..opq"]], &["b@0"]);
    check(
        &[&["b"], &["a/.wh..wh..opq", "a/c"]],
        &["a/", "a/c@1", "b@0"],
    );
    check(&[&["a"], &["a/.wh..wh..opq"]], &["a@0"]);
    check(
        &[
            &["a/b/c"],
            &["a/b/.wh..wh..opq", "a/.wh..wh..opq", "a/b/.wh.c"],
            &["a/b/d"],
        ],
        &["a/", "a/b/", "a/b/d@2"],
    );
}

#[test]
fn aufs_metadata_is_neither_shown_nor_obeyed() {
    check(
        &[
            &["a"],
            &[
                ".wh..wh.aufs",
                ".wh..wh.plnk/",
                ".wh..wh.plnk/1.2",
                ".wh..wh.orph/",
            ],
        ],
        &["a@0"],
    );
}

#[test]
fn an_invalid_whiteout_is_refused() {
    check_error(&[&[".wh."]], "layer 0: .wh. is not a valid whiteout");
    check_error(
        &[&[], &["a/.wh.."]],
        "layer 1: a/.wh.. is not a valid whiteout",
    );
    check_error(
        &[&["a/.wh.../"]],
        "layer 0: a/.wh.../ is not a valid whiteout",
    );
}

#[test]
fn the_type_of_a_whiteout_does_not_matter() {
    for whiteout in [
        ".wh.a",
        ".wh.a/",
        ".wh.a -> b",
        ".wh.a => b",
        "./.wh.a",
        "c/../.wh.a",
    ] {
        check(&[&["a", "b"], &[whiteout]], &["b@0"]);
    }
    check_warning(
        &[&["a"], &[".wh.a/", ".wh.a/b"]],
        &[],
        WarningKind::BelowWhiteout,
    );
}

#[test]
fn directories_merge_and_anything_else_replaces() {
    check(
        &[&["0700 a/", "a/b"], &["0711 a/", "a/c"]],
        &["0711 a/", "a/b@0", "a/c@1"],
    );
    check(&[&["a/", "a/b"], &["a"]], &["a@1"]);
    check(
        &[&["a/", "a/b"], &["a -> c"], &["a/", "a/c"]],
        &["a/", "a/c@2"],
    );
    check(&[&["a"], &["a/", "a/b"]], &["a/", "a/b@1"]);
    check(&[&["a"], &["a/b"]], &["a/", "a/b@1"]);
    check(&[&["a -> b", "b"], &["a"]], &["a@1", "b@0"]);
}

#[test]
fn of_equal_names_in_a_layer_the_last_wins() {
    check(&[&["0600 a", "0640 a"]], &["0640 a@0"]);
    check(&[&["0700 a/", "a/b", "0711 a/"]], &["0711 a/", "a/b@0"]);
    check(&[&["a/", "a/b", "a"]], &["a@0"]);
    check(&[&["a/", "a/b", "a", "a/", "a/c"]], &["a/", "a/c@0"]);
    check(&[&["a -> b", "a"]], &["a@0"]);
    check(
        &[&["a -> b", "b/", "a/x", "a/", "a/y"]],
        &["a/", "a/y@0", "b/", "b/x@0"],
    );
}

#[test]
fn missing_parents_keep_the_lower_attributes() {
    check(&[&["a/b/c"]], &["a/", "a/b/", "a/b/c@0"]);
    check(&[&["0700 a/"], &["a/b"]], &["0700 a/", "a/b@1"]);
    check(&[&["a/b", "0700 a/"]], &["0700 a/", "a/b@0"]);
    let lower = [Entry {
        path: b"a",
        kind: EntryKind::Directory,
        uid: 5,
        mtime: Mtime {
            seconds: -7,
            nanoseconds: 3,
        },
        ..PLAIN
    }];
    let (tree, _) = Tree::build(&[&one(&lower), &toc(&["a/b"]), &toc(&["c/d"])]).unwrap();
    let node = |path: &str| {
        *tree
            .node(tree.resolve(path.as_bytes(), false).unwrap())
            .unwrap()
    };
    let kept = node("a");
    assert_eq!((kept.uid(), kept.mtime()), (5, lower[0].mtime));
    let new = node("c");
    assert_eq!(
        (new.uid(), new.mtime(), new.permissions()),
        (0, Mtime::default(), 0o755)
    );
}

#[test]
fn a_symlink_above_an_entry_is_followed_only_in_its_own_layer() {
    // Extraction to overlayfs makes a directory, which hides the link.
    check(
        &[&["usr/lib/", "lib -> usr/lib"], &["lib/x"]],
        &["lib/", "lib/x@1", "usr/", "usr/lib/"],
    );
    check(
        &[&["lib -> usr/lib", "lib/x"]],
        &["lib -> usr/lib", "usr/", "usr/lib/", "usr/lib/x@0"],
    );
    check(
        &[&["0700 usr/"], &["lib -> usr", "lib/x"]],
        &["lib -> usr", "0700 usr/", "usr/x@1"],
    );
    check(
        &[&["a/l -> ../../../b", "a/l/x"]],
        &["a/", "a/l -> ../../../b", "b/", "b/x@0"],
    );
    check(
        &[&["a/l -> /b/./c", "a/l/x"]],
        &["a/", "a/l -> /b/./c", "b/", "b/c/", "b/c/x@0"],
    );
    // A link that comes later moves nothing, it replaces.
    check(&[&["lib/x", "lib -> usr"]], &["lib -> usr"]);
    check_error(
        &[&["a -> b", "b -> a", "a/x"]],
        "layer 0: too many symbolic links above a/x",
    );
}

#[test]
fn an_entry_below_a_file_of_its_layer_is_refused() {
    check_error(
        &[&["a", "a/b"]],
        "layer 0: a/b lies below a, which is not a directory in this layer",
    );
}

/// An entry can take away the directory that its own path begins with.
#[test]
fn an_entry_that_replaces_its_own_parent() {
    check(&[&["x/l -> ..", "x/l/x"]], &["x@0"]);
    check_error(
        &[&["x/l -> ..", "x/l/x", "x/l/y"]],
        "layer 0: x/l/y lies below x, which is not a directory in this layer",
    );
    check(
        &[&["x/y/z", "x", "x/", "x/y/w"]],
        &["x/", "x/y/", "x/y/w@0"],
    );
}

#[test]
fn hard_links_share_a_node() {
    check(&[&["a", "b => a"]], &["a@0 x2", "b@0 x2"]);
    check(
        &[&["a", "b => ./a", "c/d => /b"]],
        &["a@0 x3", "b@0 x3", "c/", "c/d@0 x3"],
    );
    // The last entry of the group gives the attributes.
    check(
        &[&["0600 a", "0640 b => a"]],
        &["0640 a@0 x2", "0640 b@0 x2"],
    );
    // Before its target.
    check(
        &[&["0640 b => a", "0600 a"]],
        &["0600 a@0 x2", "0600 b@0 x2"],
    );
    check(
        &[&["c => b", "b => a", "a"]],
        &["a@0 x3", "b@0 x3", "c@0 x3"],
    );
    check(&[&["0600 a -> x", "b => a"]], &["a -> x x2", "b -> x x2"]);
    check(
        &[&["d/a", "l -> d", "b => l/a"]],
        &["b@0 x2", "d/", "d/a@0 x2", "l -> d"],
    );
    check(&[&["b => a", "a", "b"]], &["a@0", "b@0"]);
    check(&[&["a", "a => a"]], &["a@0"]);
}

#[test]
fn a_hard_link_to_a_lower_layer_shares_its_file() {
    check(
        &[&["0600 a"], &["0640 b => a"]],
        &["0600 a@0 x2", "0600 b@0 x2"],
    );
    check(
        &[&["d/a", "l -> d"], &["b => l/a"]],
        &["b@0 x2", "d/", "d/a@0 x2", "l -> d"],
    );
    // The layer's own file comes first, wherever it stands.
    check(&[&["a"], &["b => a", "a"]], &["a@1 x2", "b@1 x2"]);
}

#[test]
fn a_hard_link_outlives_the_name_of_its_target() {
    check(&[&["a", "b => a"], &[".wh.a"]], &["b@0"]);
    check(&[&["a", "b => a"], &["a"]], &["a@1", "b@0"]);
    check(&[&["a", "b => a", "a"]], &["a@0", "b@0"]);
}

#[test]
fn a_hard_link_to_nothing_is_shown_and_told() {
    for layer in ["b => a", "b => b", "b => a/c"] {
        check_warning(&[&[layer]], &["b ?"], WarningKind::MissingLinkTarget);
    }
    check_warning(
        &[&["a/", "b => a"]],
        &["a/", "b ?"],
        WarningKind::MissingLinkTarget,
    );
    check_warning(
        &[&["a"], &[".wh.a", "b => a"]],
        &["b ?"],
        WarningKind::MissingLinkTarget,
    );
    let (tree, warnings) = build(&[&["a => b", "b => c", "c => a"]]).unwrap();
    assert_eq!(listing(&tree), ["a ?", "b ?", "c ?"]);
    assert_eq!(warnings.len(), 3);
}

#[test]
fn a_whiteout_that_is_a_hard_link_to_a_lower_file() {
    // smol-machines/smolvm#401: such an image crashed the extraction.
    check(&[&["a", "b"], &[".wh.a => b"]], &["b@0"]);
}

#[test]
fn names_never_escape() {
    check(
        &[&[
            "./a",
            "/b",
            "../c",
            "d/../e",
            "f//g",
            "../../h/../i",
            "j/./k",
        ]],
        &[
            "a@0", "b@0", "c@0", "e@0", "f/", "f/g@0", "i@0", "j/", "j/k@0",
        ],
    );
}

#[test]
fn the_root_has_attributes() {
    check(&[&["0700 ./", "a"]], &["0700 /", "a@0"]);
    check(&[&["0700 /"], &["0711 ./"], &["a"]], &["0711 /", "a@2"]);
    check(&[&["0700 ./", "a"], &[".wh..wh..opq"]], &["0700 /"]);
    check_warning(&[&["a", "."]], &["a@0"], WarningKind::RootNotDirectory);
}

/// An opaque root is a new node, and once was left with the number of the old one as its parent.
#[test]
fn above_an_opaque_root_is_the_root() {
    let (tree, _) = build(&[&["a"], &[".wh..wh..opq", "b"]]).unwrap();
    assert_eq!(tree.parent(tree.node(Ino::ROOT).unwrap()), Ino::ROOT);
    assert_eq!(tree.resolve(b"../..", false), Ok(Ino::ROOT));
}

#[test]
fn what_the_kernel_cannot_name_is_hidden() {
    let name = "n".repeat(256);
    let shown = "n".repeat(255);
    let deep = "d/".repeat(2100);
    check_warning(&[&[&name, "a"]], &["a@0"], WarningKind::NameTooLong);
    check_warning(&[&[&format!("{name}/a")]], &[], WarningKind::NameTooLong);
    check(&[&[&shown]], &[&format!("{shown}@0")]);
    check_warning(
        &[&["a/", &deep, "a/b"]],
        &["a/", "a/b@0"],
        WarningKind::PathTooLong,
    );
    check_warning(&[&["a\0b"]], &[], WarningKind::NulInName);
    let link = format!("l -> {name}");
    check_warning(&[&[&link, "l/x"]], &[&link], WarningKind::NameTooLong);
}

/// The target of a link in an index that somebody tampered with (the tar reader lets none through)
/// once made a directory with a zero byte in its name. Found by fuzzing.
#[test]
fn a_link_to_a_name_with_a_zero_byte_makes_no_directory() {
    let link = "l -> a\0b";
    check_warning(&[&[link, "l/x"]], &[link], WarningKind::NulInName);
}

#[test]
fn deep_trees_and_large_directories() {
    let deep = "d/".repeat(2000);
    let (tree, _) = build(&[&[&deep]]).unwrap();
    assert_eq!(tree.len(), 2001);
    assert_eq!(tree.resolve(deep.as_bytes(), false).unwrap().get(), 2001);

    let names: Vec<String> = (0..70_000).map(|number| format!("a/{number}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let (tree, _) = build(&[&names]).unwrap();
    let a = tree.node(tree.resolve(b"a", false).unwrap()).unwrap();
    assert_eq!(tree.children(a).len(), 70_000);
    assert!(tree.lookup(a, b"69999").is_some());
    assert_eq!(tree.totals().bytes, 70_000);
}

#[test]
fn names_are_bytes_and_sorted_as_such() {
    let entry = |path| Entry { path, ..PLAIN };
    let layer = one(&[entry(b"b"), entry(b"\xff"), entry(b"B"), entry(b"a\xfe")]);
    let (tree, _) = Tree::build(&[&layer]).unwrap();
    let root = tree.node(Ino::ROOT).unwrap();
    let names: Vec<&[u8]> = (tree.children(root).iter())
        .map(|dirent| tree.name(dirent))
        .collect();
    assert_eq!(names, [b"B".as_slice(), b"a\xfe", b"b", b"\xff"]);
}

#[test]
fn attributes_of_every_kind_survive() {
    let mtime = Mtime {
        seconds: i64::MIN,
        nanoseconds: 999_999_999,
    };
    let extents = [Extent {
        file_offset: 10,
        layer_offset: 512,
        length: 5,
    }];
    let kinds = [
        EntryKind::CharDevice { major: 0, minor: 0 },
        EntryKind::BlockDevice {
            major: 8,
            minor: 1 << 19,
        },
        EntryKind::Fifo,
        EntryKind::SparseFile {
            extents: &extents,
            size: 100,
        },
    ];
    let names: [&[u8]; 4] = [b"c", b"b", b"f", b"s"];
    let entries: Vec<Entry<'_>> = (kinds.iter().zip(names))
        .map(|(kind, path)| Entry {
            path,
            kind: *kind,
            mode: 0o7421,
            uid: u32::MAX - 1,
            gid: 7,
            mtime,
            ..PLAIN
        })
        .collect();
    let (tree, _) = Tree::build(&[&one(&[]), &one(&entries)]).unwrap();
    let get = |name: &[u8]| tree.node(tree.resolve(name, false).unwrap()).unwrap();
    for name in names {
        let node = get(name);
        assert_eq!(
            (node.permissions(), node.uid(), node.gid()),
            (0o7421, u32::MAX - 1, 7)
        );
        assert_eq!((node.mtime(), node.nlink()), (mtime, 1));
    }
    // A device 0:0 is overlayfs's own whiteout, not one of OCI: shown as it is.
    assert_eq!(get(b"c").kind(), Kind::CharDevice);
    let device = Content::Device {
        major: 8,
        minor: 1 << 19,
    };
    assert_eq!(tree.content(get(b"b")), device);
    assert_eq!(get(b"f").kind(), Kind::Fifo);
    let sparse = Content::SparseFile {
        layer: 1,
        extents: &extents,
        size: 100,
    };
    assert_eq!(tree.content(get(b"s")), sparse);
    assert_eq!((tree.totals().nodes, tree.totals().blocks), (5, 1));
}

#[test]
fn xattrs_are_shown_but_for_those_of_overlayfs() {
    let set = |names: &[&str]| -> Vec<(Vec<u8>, Vec<u8>)> {
        let pairs = names
            .iter()
            .map(|name| (name.as_bytes().to_vec(), b"v\0".to_vec()));
        pairs.collect()
    };
    let internal = set(&["trusted.overlay.opaque", "user.overlay.whiteout"]);
    let mixed = set(&["security.capability", "user.overlay.opaque", "user.a"]);
    let entry = |path, xattrs| Entry {
        path,
        xattrs,
        ..PLAIN
    };
    let (tree, _) = Tree::build(&[&one(&[entry(b"a", &internal)])]).unwrap();
    assert!(!tree.has_xattrs());
    let layer = one(&[
        entry(b"a", &internal),
        entry(b"b", &mixed),
        entry(b"c", &mixed),
    ]);
    let again = one(&[entry(b"d", &mixed), entry(b"e", &[])]);
    let (tree, _) = Tree::build(&[&layer, &again]).unwrap();
    let get = |name| tree.xattrs(tree.node(tree.resolve(name, false).unwrap()).unwrap());
    assert_eq!(get(b"a"), []);
    assert_eq!(get(b"e"), []);
    for name in [b"b", b"c", b"d"] {
        assert_eq!(get(name), set(&["security.capability", "user.a"]));
    }
    assert_eq!(tree.xattrs.len(), 1, "equal sets are kept once");
}

#[test]
fn numbers_are_dense_and_follow_from_the_layers() {
    let layers: &[&[&str]] = &[
        &["z", "a/", "a/c", "a/b/", "y/", "y/x"],
        &["a/b/d", "h => z"],
    ];
    let (tree, _) = build(layers).unwrap();
    let expected = ["/", "/a", "/h", "/y", "/a/b", "/a/c", "/y/x", "/a/b/d"];
    for (path, number) in expected.iter().zip(1..) {
        let ino = tree.resolve(path.as_bytes(), false).unwrap();
        assert_eq!(ino.get(), number, "{path}");
        assert_eq!(tree.path(ino).unwrap(), path.as_bytes());
    }
    assert_eq!(tree.len(), expected.len());
    assert!(tree.node(Ino::new(9)).is_none() && tree.node(Ino::new(0)).is_none());
    assert_eq!(build(layers).unwrap().0, tree);
}

#[test]
fn the_same_layer_may_come_twice() {
    let layer = toc(&["a/", "a/b"]);
    let (tree, _) = Tree::build(&[&layer, &toc(&[".wh.a", "c"]), &layer]).unwrap();
    assert_eq!(listing(&tree), ["a/", "a/b@2", "c@1"]);
}

#[test]
fn too_many_layers_are_refused() {
    let layer = toc(&["a"]);
    let layers = vec![&layer; 1025];
    assert!(Tree::build(&layers[..1024]).is_ok());
    let err = Tree::build(&layers).unwrap_err();
    assert_eq!(err, TreeError::TooManyLayers { found: 1025 });
}

#[test]
fn warnings_are_limited() {
    let layer = vec!["b => a"; 5000];
    let (_, warnings) = build(&[&layer]).unwrap();
    assert_eq!(
        warnings.len(),
        1,
        "only the last of equal names is asked for"
    );
    let names: Vec<String> = (0..5000).map(|number| format!("{number} => a")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let (_, warnings) = build(&[&names]).unwrap();
    assert_eq!(warnings.len(), super::MAX_WARNINGS);
    assert_eq!(warnings.last().unwrap().kind, WarningKind::More);
}

#[test]
fn paths_resolve_within_the_root() {
    let (tree, _) = build(&[&[
        "usr/lib/x",
        "lib -> usr/lib",
        "abs -> /usr/lib",
        "up -> ../../../usr",
        "loop -> loop",
        "self -> .",
        "d/l -> ../lib/x",
        "dangling -> nothing",
    ]])
    .unwrap();
    let x = tree.resolve(b"/usr/lib/x", false).map(Ino::get);
    assert!(x.is_ok());
    for (path, follow, expected) in [
        ("lib/x", false, "usr/lib/x"),
        ("abs/x", false, "usr/lib/x"),
        ("up/lib/x", false, "usr/lib/x"),
        ("../../lib/../lib/x", false, "usr/lib/x"),
        ("d/l", true, "usr/lib/x"),
        ("lib", true, "usr/lib"),
        ("lib/", false, "usr/lib"),
        ("self/self/usr//lib/./x", false, "usr/lib/x"),
        ("", false, "."),
        ("/", true, "."),
    ] {
        let found = tree.resolve(path.as_bytes(), follow);
        assert_eq!(found, tree.resolve(expected.as_bytes(), false), "{path}");
    }
    for (path, follow, expected) in [
        ("nothing", false, "no such file or directory"),
        ("dangling", true, "no such file or directory"),
        ("usr/lib/x/", false, "not a directory"),
        ("usr/lib/x/y", false, "not a directory"),
        ("usr/lib/x/..", false, "not a directory"),
        ("loop", true, "too many levels of symbolic links"),
    ] {
        let err = tree.resolve(path.as_bytes(), follow).unwrap_err();
        assert_eq!(err.to_string(), expected, "{path}");
    }
    assert!(tree.resolve(b"loop", false).is_ok());
}
