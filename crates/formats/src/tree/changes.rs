//! What differs between two trees: both are walked side by side, names and attributes compared.
//!
//! Content is somebody else's business: a tree knows where a file's bytes lie, not what they are.
//!
//! Two images often lie on the same layers. What the trees of the layers above those do not know is
//! the same in both; so they can be compared without looking further down, but for what only one of
//! them names: it is listed as [`ChangeKind::Unknown`].

use std::cmp::Ordering;

use super::node::{ATTRIBUTES, COMPLETE, REMOVED};
use super::resolve::{MAX_LINKS, Walk, walk};
use super::{Content, Dirent, Ino, Kind, Node, PartialTree, Tree};

/// One path that is not the same in both trees. Below a directory that was added or removed each
/// path counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Where, from the root on: `/etc/passwd`.
    pub path: Vec<u8>,
    /// What it was and is.
    pub kind: ChangeKind,
}

/// What became of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeKind {
    /// Only the new tree has it.
    Added(Ino),
    /// Only the old tree has it.
    Removed(Ino),
    /// Both have it.
    Changed {
        /// In the old tree.
        old: Ino,
        /// In the new tree.
        new: Ino,
        /// What of it differs.
        aspects: Aspects,
    },
    /// That depends on layers that are not opened: it may as well be the same in both. The same
    /// goes for what is below it and not listed.
    Unknown {
        /// In the old tree.
        old: Side,
        /// In the new tree.
        new: Side,
    },
}

/// What one tree says of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// It is this, as far as [`known`] tells.
    Node(Ino),
    /// It does not exist.
    Absent,
    /// It is whatever the layers have that are not opened.
    Below,
}

/// What [`changes_above`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangesAbove {
    /// In the order of a walk: a directory, then what is in it.
    pub changes: Vec<Change>,
    /// What their paths begin with: the path that was asked for, without a slash at its end.
    pub path: Vec<u8>,
    /// What is there in the old and in the new tree.
    pub start: [Side; 2],
    /// Whether it is in one of them; `None`: that depends on layers that are not opened.
    pub exists: Option<bool>,
}

impl ChangesAbove {
    /// Whether layers that are not opened could tell more.
    pub fn is_certain(&self) -> bool {
        let is_unknown = |change: &Change| matches!(change.kind, ChangeKind::Unknown { .. });
        self.exists.is_some() && !self.changes.iter().any(is_unknown)
    }
}

/// What of a path can differ: a set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Aspects(u8);

impl Aspects {
    /// What it is: a file, a directory, ...
    pub const KIND: Self = Self(1);
    /// A file's bytes, a symbolic link's target, a device's number.
    pub const CONTENT: Self = Self(2);
    /// Permission bits.
    pub const MODE: Self = Self(4);
    /// User or group.
    pub const OWNER: Self = Self(8);
    /// Modification time.
    pub const MTIME: Self = Self(16);
    /// Extended attributes.
    pub const XATTRS: Self = Self(32);

    /// Whether nothing differs.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether all of `others` differ.
    pub fn contains(self, others: Self) -> bool {
        self.0 & others.0 == others.0
    }

    /// These but for `others`.
    #[must_use]
    pub fn without(self, others: Self) -> Self {
        Self(self.0 & !others.0)
    }

    /// Each that differs, in words.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        let all = [
            (Self::KIND, "type"),
            (Self::CONTENT, "content"),
            (Self::MODE, "mode"),
            (Self::OWNER, "owner"),
            (Self::MTIME, "mtime"),
            (Self::XATTRS, "xattrs"),
        ];
        all.into_iter()
            .filter(move |(aspect, _)| self.contains(*aspect))
            .map(|(_, name)| name)
    }

    fn add(&mut self, other: Self, differs: bool) {
        if differs {
            self.0 |= other.0;
        }
    }
}

/// Compares two full trees; changes come in the order of a walk: a directory, then what is in it.
/// `same_content` is asked about regular files of the same size: whether their bytes are the same.
pub fn changes(
    old: &Tree,
    new: &Tree,
    same_content: &mut dyn FnMut(&Node, &Node) -> bool,
) -> Vec<Change> {
    let mut by_node = |a: Ino, b: Ino| matches!((old.node(a), new.node(b)), (Some(a), Some(b)) if same_content(a, b));
    walk_both(old, new, &[], ROOTS, &mut by_node)
}

/// Compares two trees of top layers that lie on the same lower ones, at `path` and below. What
/// neither tree knows comes from there on both sides, so it is the same. `None`: what `path` means
/// depends on layers that are not opened.
///
/// Symbolic links on the way to `path` are followed, one at its end is not. Paths begin as `path`
/// does.
pub fn changes_above(
    old: &PartialTree,
    new: &PartialTree,
    path: &[u8],
    same_content: &mut dyn FnMut(Ino, Ino) -> bool,
) -> Option<ChangesAbove> {
    let (old, new) = (old.tree(), new.tree());
    let start = find_both(old, new, path)?;
    let mut prefix = Vec::new();
    for name in components(path) {
        prefix.push(b'/');
        prefix.extend_from_slice(name);
    }
    let is_there = |tree: &Tree, side| match side {
        Side::Node(ino) => (tree.node(ino)).is_some_and(|node| node.kind != Kind::Phantom),
        Side::Absent | Side::Below => false,
    };
    let exists = match start {
        _ if is_there(old, start.0) || is_there(new, start.1) => Some(true),
        (Side::Absent, Side::Absent) => Some(false),
        _ => None,
    };
    Some(ChangesAbove {
        changes: walk_both(old, new, &prefix, start, same_content),
        path: prefix,
        start: [start.0, start.1],
        exists,
    })
}

const ROOTS: (Side, Side) = (Side::Node(Ino::ROOT), Side::Node(Ino::ROOT));

/// The changes at `path` and below.
fn walk_both(
    old: &Tree,
    new: &Tree,
    path: &[u8],
    start: (Side, Side),
    same_content: &mut dyn FnMut(Ino, Ino) -> bool,
) -> Vec<Change> {
    let mut found = Vec::new();
    let mut pending = vec![(path.to_vec(), start.0, start.1)];
    while let Some((path, of_old, of_new)) = pending.pop() {
        let mut kind = change_of(old, of_old, new, of_new, same_content);
        // What the lower layers have in a directory is all gone in one of the trees.
        if let (Side::Below, Side::Absent) | (Side::Absent, Side::Below) =
            (rest(old, of_old), rest(new, of_new))
        {
            kind = Some(ChangeKind::Unknown {
                old: of_old,
                new: of_new,
            });
        }
        let children = pairs(old, of_old, new, of_new);
        pending.extend(children.into_iter().rev().map(|(name, old, new)| {
            let path = [path.as_slice(), b"/", name].concat();
            (path, old, new)
        }));
        if let Some(kind) = kind {
            let path = if path.is_empty() { b"/".to_vec() } else { path };
            found.push(Change { path, kind });
        }
    }
    found
}

/// What became of a path itself.
fn change_of(
    old: &Tree,
    of_old: Side,
    new: &Tree,
    of_new: Side,
    same_content: &mut dyn FnMut(Ino, Ino) -> bool,
) -> Option<ChangeKind> {
    let is_phantom =
        |tree: &Tree, ino| (tree.node(ino)).is_some_and(|node| node.kind == Kind::Phantom);
    match (of_old, of_new) {
        (Side::Below, Side::Below) | (Side::Absent, Side::Absent) => return None,
        // Only what is below it is taken away, if it is there.
        (Side::Node(ino), Side::Below) if is_phantom(old, ino) => return None,
        (Side::Below, Side::Node(ino)) if is_phantom(new, ino) => return None,
        (Side::Node(ino), Side::Absent) if known(old, ino).is_some() => {
            return Some(ChangeKind::Removed(ino));
        }
        (Side::Absent, Side::Node(ino)) if known(new, ino).is_some() => {
            return Some(ChangeKind::Added(ino));
        }
        (Side::Node(a), Side::Node(b)) => {
            if is_same_below(old.node(a)?, new.node(b)?) {
                return None;
            }
            if let (Some(from), Some(to)) = (known(old, a), known(new, b)) {
                let aspects = aspects(old, from, new, to, &mut || same_content(a, b));
                return (!aspects.is_empty()).then_some(ChangeKind::Changed {
                    old: a,
                    new: b,
                    aspects,
                });
            }
        }
        _ => {}
    }
    Some(ChangeKind::Unknown {
        old: of_old,
        new: of_new,
    })
}

/// A node that is there, and whose attributes are certain.
pub fn known(tree: &Tree, ino: Ino) -> Option<&Node> {
    let node = tree.node(ino)?;
    let is_certain = match node.kind {
        Kind::UnresolvedLink | Kind::Phantom => false,
        Kind::Directory => node.has(ATTRIBUTES),
        _ => true,
    };
    is_certain.then_some(node)
}

/// Whether what both are, themselves, is the word of layers that are not opened, whatever that is.
fn is_same_below(a: &Node, b: &Node) -> bool {
    let is_open = |node: &Node| match node.kind {
        Kind::Phantom => true,
        Kind::Directory => !node.has(ATTRIBUTES),
        _ => false,
    };
    a.kind == b.kind && is_open(a) && is_open(b)
}

/// What a directory's names are that it does not list.
fn rest(tree: &Tree, directory: Side) -> Side {
    match directory {
        Side::Absent | Side::Below => directory,
        Side::Node(ino) => match tree.node(ino) {
            Some(node)
                if matches!(node.kind, Kind::Directory | Kind::Phantom) && !node.has(COMPLETE) =>
            {
                Side::Below
            }
            _ => Side::Absent,
        },
    }
}

/// What a name is in a directory.
fn child(tree: &Tree, directory: Side, name: &[u8]) -> Side {
    let node = match directory {
        Side::Node(ino) => tree.node(ino),
        Side::Absent | Side::Below => None,
    };
    match node.and_then(|node| tree.find(node, name)) {
        Some(dirent) => named(dirent),
        None => rest(tree, directory),
    }
}

fn named(dirent: &Dirent) -> Side {
    if dirent.node == REMOVED {
        Side::Absent
    } else {
        Side::Node(dirent.ino())
    }
}

/// The names that two directories list, each with what it is in the one and in the other.
fn pairs<'a>(
    old: &'a Tree,
    of_old: Side,
    new: &'a Tree,
    of_new: Side,
) -> Vec<(&'a [u8], Side, Side)> {
    let children = |tree: &'a Tree, side: Side| {
        let node = match side {
            Side::Node(ino) => tree.node(ino),
            Side::Absent | Side::Below => None,
        };
        let dirents = node.map_or(&[][..], |node| tree.children(node));
        let names = dirents
            .iter()
            .map(|dirent| (tree.name(dirent), named(dirent)));
        names.peekable()
    };
    let (mut left, mut right) = (children(old, of_old), children(new, of_new));
    let (old_rest, new_rest) = (rest(old, of_old), rest(new, of_new));
    let mut pairs = Vec::new();
    loop {
        let order = match (left.peek(), right.peek()) {
            (Some((a, _)), Some((b, _))) => a.cmp(b),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (None, None) => return pairs,
        };
        let in_old = order.is_le().then(|| left.next()).flatten();
        let in_new = order.is_ge().then(|| right.next()).flatten();
        let name = in_old.or(in_new).map_or(&[][..], |(name, _)| name);
        pairs.push((
            name,
            in_old.map_or(old_rest, |(_, side)| side),
            in_new.map_or(new_rest, |(_, side)| side),
        ));
    }
}

/// What `path` is in both trees; `None` if that depends on layers that are not opened.
fn find_both(old: &Tree, new: &Tree, path: &[u8]) -> Option<(Side, Side)> {
    // The directories that led here, the root first.
    let mut above = vec![ROOTS];
    let mut pending: Vec<&[u8]> = components(path).collect();
    pending.reverse();
    let mut links = 0;
    while let Some(name) = pending.pop() {
        let here = *above.last()?;
        if name == b".." {
            if above.len() > 1 {
                above.pop();
            }
            continue;
        }
        let next = (child(old, here.0, name), child(new, here.1, name));
        if pending.is_empty() {
            above.push(next);
            break;
        }
        // Lower layers may have a symbolic link there.
        if may_be_link(old, next.0) || may_be_link(new, next.1) {
            return None;
        }
        match (target(old, next.0), target(new, next.1)) {
            (None, None) => above.push(next),
            (Some(one), Some(other)) if one == other && links < MAX_LINKS => {
                links += 1;
                if one.starts_with(b"/") {
                    above.truncate(1);
                }
                let followed: Vec<&[u8]> = components(one).collect();
                pending.extend(followed.into_iter().rev());
            }
            // From here on they go different ways.
            _ => return Some((find_one(old, path)?, find_one(new, path)?)),
        }
    }
    above.last().copied()
}

fn find_one(tree: &Tree, path: &[u8]) -> Option<Side> {
    match walk(tree, path, false, MAX_LINKS) {
        Walk::Node(position) => Some(Side::Node(Ino::from_position(position))),
        Walk::Absent(_) => Some(Side::Absent),
        Walk::Unknown => None,
    }
}

fn target(tree: &Tree, side: Side) -> Option<&[u8]> {
    match side {
        Side::Node(ino) => match tree.content(tree.node(ino)?) {
            Content::Symlink(target) => Some(target),
            _ => None,
        },
        Side::Absent | Side::Below => None,
    }
}

/// Whether it may turn out to be a symbolic link.
fn may_be_link(tree: &Tree, side: Side) -> bool {
    match side {
        Side::Below => true,
        Side::Absent => false,
        Side::Node(ino) => (tree.node(ino))
            .is_some_and(|node| matches!(node.kind, Kind::UnresolvedLink | Kind::Phantom)),
    }
}

fn components(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.split(|byte| *byte == b'/')
        .filter(|name| !name.is_empty() && *name != b".")
}

pub(super) fn aspects(
    old: &Tree,
    a: &Node,
    new: &Tree,
    b: &Node,
    same_content: &mut dyn FnMut() -> bool,
) -> Aspects {
    let mut aspects = Aspects::default();
    let both_files = a.is_file() && b.is_file();
    aspects.add(Aspects::KIND, a.kind() != b.kind() && !both_files);
    let same = match (old.content(a), new.content(b)) {
        (Content::Missing, Content::Missing) => true,
        (Content::Missing, _) | (_, Content::Missing) if both_files => false,
        _ if both_files => a.size() == b.size() && same_content(),
        (Content::Symlink(a), Content::Symlink(b)) => a == b,
        (
            Content::Device { major, minor },
            Content::Device {
                major: other_major,
                minor: other_minor,
            },
        ) => (major, minor) == (other_major, other_minor),
        // What is of another kind is different enough.
        _ => true,
    };
    aspects.add(Aspects::CONTENT, !same);
    // The permissions of a symbolic link mean nothing, and tools write different ones.
    let both_links = a.kind() == Kind::Symlink && b.kind() == Kind::Symlink;
    aspects.add(
        Aspects::MODE,
        a.permissions() != b.permissions() && !both_links,
    );
    aspects.add(Aspects::OWNER, (a.uid(), a.gid()) != (b.uid(), b.gid()));
    aspects.add(Aspects::MTIME, a.mtime() != b.mtime());
    aspects.add(Aspects::XATTRS, old.xattrs(a) != new.xattrs(b));
    aspects
}

#[cfg(test)]
mod tests {
    use super::super::vectors::toc;
    use super::*;
    use crate::layer::Toc;

    /// `A path`, `D path`, `X path`, or `M path` with what differs.
    fn lines(changes: &[Change]) -> Vec<String> {
        let line = |change: &Change| {
            let path = String::from_utf8_lossy(&change.path);
            match change.kind {
                ChangeKind::Added(_) => format!("A {path}"),
                ChangeKind::Removed(_) => format!("D {path}"),
                ChangeKind::Changed { aspects, .. } => {
                    let names: Vec<_> = aspects.names().collect();
                    format!("M {path} {}", names.join(","))
                }
                ChangeKind::Unknown { .. } => format!("X {path}"),
            }
        };
        changes.iter().map(line).collect()
    }

    fn tocs(layers: &[Vec<String>]) -> Vec<Toc> {
        let toc_of =
            |lines: &Vec<String>| toc(&lines.iter().map(String::as_str).collect::<Vec<_>>());
        layers.iter().map(toc_of).collect()
    }

    fn owned(layers: &[&[&str]]) -> Vec<Vec<String>> {
        let lines = |layer: &&[&str]| layer.iter().map(|line| (*line).to_owned()).collect();
        layers.iter().map(lines).collect()
    }

    fn full(layers: &[&Toc]) -> PartialTree {
        PartialTree::complete(Tree::build(layers).unwrap().0)
    }

    /// What two images on the same base differ in, by their full trees and by those of their tops;
    /// the latter is `None` if what the path means depends on the base. A file has the same bytes
    /// as another only if it is the same member of the base.
    fn both_ways(
        base: &[Vec<String>],
        tops: [&[Vec<String>]; 2],
        path: &str,
    ) -> (ChangesAbove, Option<ChangesAbove>) {
        let base = tocs(base);
        let tops = tops.map(tocs);
        let (whole, above) = (
            tops.each_ref()
                .map(|top| full(&base.iter().chain(top).collect::<Vec<_>>())),
            tops.each_ref().map(|top| {
                PartialTree::build(&top.iter().collect::<Vec<_>>())
                    .unwrap()
                    .0
            }),
        );
        let mut same = |a: Ino, b: Ino| {
            let [old, new] = whole.each_ref().map(PartialTree::tree);
            let (a, b) = (old.node(a).unwrap(), new.node(b).unwrap());
            usize::from(a.layer) < base.len() && a.layer == b.layer && a.value == b.value
        };
        let expected = changes_above(&whole[0], &whole[1], path.as_bytes(), &mut same).unwrap();
        let found = changes_above(&above[0], &above[1], path.as_bytes(), &mut |_, _| false);
        assert!(expected.is_certain(), "{expected:?}");
        (expected, found)
    }

    /// Checks what differs, and what the tops alone tell; `None`: not even what the path means.
    #[track_caller]
    fn check(
        base: &[&str],
        tops: [&[&str]; 2],
        path: &str,
        expected: &[&str],
        from_tops: Option<&[&str]>,
    ) {
        let (whole, above) = both_ways(
            &owned(&[base]),
            [&owned(&[tops[0]]), &owned(&[tops[1]])],
            path,
        );
        assert_eq!(lines(&whole.changes), expected);
        let above = above.map(|above| lines(&above.changes));
        let above: Option<Vec<&str>> =
            (above.as_ref()).map(|lines| lines.iter().map(String::as_str).collect());
        assert_eq!(above.as_deref(), from_tops);
    }

    /// Checks what differs, where the tops alone tell all of it.
    #[track_caller]
    fn check_told(base: &[&str], tops: [&[&str]; 2], path: &str, expected: &[&str]) {
        check(base, tops, path, expected, Some(expected));
    }

    #[test]
    fn each_aspect_is_told() {
        let base: &[&str] = &["a/", "a/b", "l -> a"];
        let same: [&[&str]; 2] = [&["a/", "a/b"], &["a/", "a/b"]];
        check_told(base, same, "/", &["M /a/b content"]);
        check_told(base, [&["a/"], &["0700 a/"]], "/", &["M /a mode"]);
        check_told(base, [&["l -> a"], &["l -> b"]], "/", &["M /l content"]);
        check_told(base, [&["l -> a"], &["0644 l"]], "/", &["M /l type,mode"]);
        let now_directory: [&[&str]; 2] = [&["l"], &["l/", "l/x"]];
        let lines: &[&str] = &["M /l type,mode", "A /l/x"];
        // Of the directory there may be more below.
        check(base, now_directory, "/", lines, Some(&["X /l", "A /l/x"]));
    }

    #[test]
    fn what_one_top_alone_has_depends_on_the_base() {
        let base: &[&str] = &["a/", "a/b"];
        let check = |new: &[&str], expected: &[&str], from_tops: &[&str]| {
            check(base, [&["a/"], new], "/", expected, Some(from_tops));
        };
        check(&["a/", "a/b"], &["M /a/b content"], &["X /a/b"]);
        check(&["a/", "a/c"], &["A /a/c"], &["X /a/c"]);
        check(&["a/", "a/.wh.b"], &["D /a/b"], &["X /a/b"]);
        check(&["a/", "a/.wh.c"], &[], &["X /a/c"]);
        check(&["a/", "a/.wh..wh..opq"], &["D /a/b"], &["X /a"]);
        check(&["a/", "x => a/b"], &["A /x"], &["X /x"]);
    }

    #[test]
    fn what_the_base_has_is_the_same_in_both_but_for_what_is_taken_away() {
        let base: &[&str] = &["a/", "a/b"];
        check_told(base, [&["a/"], &["0700 a/"]], "/a", &["M /a mode"]);
        check(
            base,
            [&["x => a/b"], &["x => a/b"]],
            "/",
            &[],
            Some(&["X /x"]),
        );
        // Neither top has an entry for the directory.
        check(
            base,
            [&[], &["a/.wh.b"]],
            "/",
            &["D /a/b"],
            Some(&["X /a/b"]),
        );
        check(
            base,
            [&[".wh.a"], &[]],
            "/",
            &["A /a", "A /a/b"],
            Some(&["X /a"]),
        );
    }

    #[test]
    fn both_tops_may_say_it_all() {
        let base: &[&str] = &["a/", "a/b"];
        let opaque: &[&str] = &["a/", "a/.wh..wh..opq", "a/c"];
        check_told(base, [opaque, opaque], "/", &["M /a/c content"]);
        check_told(base, [&["a/.wh.b"], &["a/.wh.b"]], "/", &[]);
        check_told(base, [&[], &[]], "/", &[]);
        check_told(base, [&["a/d"], &["a/d"]], "/", &["M /a/d content"]);
    }

    #[test]
    fn a_path_limits_the_comparison() {
        let base: &[&str] = &["bin -> usr/bin", "usr/", "usr/bin/", "etc/"];
        let tops: [&[&str]; 2] = [
            &["usr/", "usr/bin/", "usr/bin/x"],
            &["usr/", "usr/bin/", "usr/bin/x", "new"],
        ];
        check_told(base, tops, "/usr/bin/x", &["M /usr/bin/x content"]);
        check_told(base, tops, "usr//./bin", &["M /usr/bin/x content"]);
        let dots = &["M /usr/../usr/bin/x content"];
        check_told(base, tops, "/usr/../usr", dots);
        // Not even the name of the link is in the tops.
        check(base, tops, "/bin/x", &["M /bin/x content"], None);
        check_told(base, tops, "/bin", &[]);
        check_told(base, tops, "/etc", &[]);
        check_told(base, tops, "/nowhere", &[]);
        check(base, tops, "/new", &["A /new"], Some(&["X /new"]));
        let linked: [&[&str]; 2] = [&["bin -> b", "b/", "b/x"], &["bin -> c", "c/", "c/x"]];
        check_told(&[], linked, "/bin/x", &["M /bin/x content"]);
        check(&[], linked, "/bin/y", &[], None);
    }

    #[test]
    fn whether_a_path_exists_may_depend_on_the_base() {
        let base: &[&str] = &["a/", "a/b"];
        let exists = |tops: [&[&str]; 2], path: &str| {
            let tops = [owned(&[tops[0]]), owned(&[tops[1]])];
            let (whole, above) = both_ways(&owned(&[base]), [&tops[0], &tops[1]], path);
            (whole.exists, above.and_then(|above| above.exists))
        };
        assert_eq!(exists([&[], &[]], "/"), (Some(true), Some(true)));
        assert_eq!(exists([&[], &[]], "/a"), (Some(true), None));
        assert_eq!(exists([&[], &[]], "/x"), (Some(false), None));
        assert_eq!(exists([&["x"], &[]], "/x"), (Some(true), Some(true)));
        let gone: &[&str] = &[".wh.a"];
        assert_eq!(exists([gone, gone], "/a"), (Some(false), Some(false)));
        assert_eq!(exists([gone, &[]], "/a"), (Some(true), None));
        let below: &[&str] = &["x/.wh.y"];
        assert_eq!(exists([below, below], "/x"), (Some(false), None));
    }

    #[test]
    fn tops_alone_never_say_anything_else_than_full_trees() {
        let mut state = 20_u64;
        let mut random = |below: usize| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            usize::try_from(state >> 33).unwrap() % below
        };
        let members = [
            "a/",
            "0700 a/",
            "a",
            "b",
            "0600 b",
            "b/",
            "a/c",
            "a/c/",
            "a/c/d",
            "b/c",
            "b/d/",
            ".wh.a",
            ".wh.b",
            "a/.wh.c",
            "a/c/.wh.d",
            "b/.wh.c",
            "a/.wh..wh..opq",
            "b/.wh..wh..opq",
            "a -> b",
            "b -> a",
            "a/c -> ../b",
            "e => b",
            "a/e => b/c",
            "b => a/c",
        ];
        let paths = ["/", "/a", "/a/c", "/b/c", "/b/../a", "/a/c/d"];
        let mut layers = |count: usize| -> Vec<Vec<String>> {
            let mut layer = |_| {
                (0..random(5))
                    .map(|_| members[random(members.len())].to_owned())
                    .collect()
            };
            (0..count).map(&mut layer).collect()
        };
        let (mut told, mut differences, mut partly) = (0, 0, 0);
        for case in 0..20_000 {
            let (base, old, new) = (
                layers(case % 3),
                layers(1 + case % 2),
                layers(1 + case / 2 % 2),
            );
            let valid = |top: &[Vec<String>]| {
                let tocs = tocs(&[&base[..], top].concat());
                Tree::build(&tocs.iter().collect::<Vec<_>>()).is_ok()
            };
            if !valid(&old) || !valid(&new) {
                continue;
            }
            let path = paths[case % paths.len()];
            let (whole, above) = both_ways(&base, [&old, &new], path);
            let Some(above) = above else {
                continue;
            };
            let case = format!("{base:?} {old:?} {new:?} {path}");
            let (all, found) = (lines(&whole.changes), lines(&above.changes));
            if above.is_certain() {
                assert_eq!((&found, above.exists), (&all, whole.exists), "{case}");
                told += 1;
                differences += usize::from(!all.is_empty());
                continue;
            }
            let (open, certain): (Vec<_>, Vec<_>) =
                found.iter().partition(|line| line.starts_with('X'));
            for line in &certain {
                assert!(all.contains(line), "{line}: {found:?} {all:?} {case}");
            }
            for (line, change) in all.iter().zip(&whole.changes) {
                let path = String::from_utf8_lossy(&change.path);
                let is_covered = open.iter().any(|open| {
                    let open = open.trim_start_matches("X ").trim_end_matches('/');
                    let rest = path.strip_prefix(open);
                    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
                });
                let is_told = certain.contains(&line) || is_covered;
                assert!(is_told, "{line}: {found:?} {all:?} {case}");
            }
            partly += usize::from(!certain.is_empty() && !open.is_empty());
        }
        assert!(
            told > 2000 && differences > 1000 && partly > 1000,
            "{told} {differences} {partly}"
        );
    }
}
