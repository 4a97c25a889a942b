//! What differs between two trees: both are walked side by side, names and attributes compared.
//!
//! Content is somebody else's business: a tree knows where a file's bytes lie, not what they are.

use super::{Content, Ino, Kind, Node, Tree};

/// One path that is not the same in both trees. Below a directory that was added or removed each path counts.
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

    fn add(&mut self, other: Self, differs: bool) {
        if differs {
            self.0 |= other.0;
        }
    }
}

/// Compares two full trees; changes come in the order of their paths. `same_content` is asked about regular files of the
/// same size: whether their bytes are the same.
pub fn changes(
    old: &Tree,
    new: &Tree,
    same_content: &mut dyn FnMut(&Node, &Node) -> bool,
) -> Vec<Change> {
    let mut found = Vec::new();
    let mut pending = vec![(Vec::new(), Some(Ino::ROOT), Some(Ino::ROOT))];
    while let Some((path, old_ino, new_ino)) = pending.pop() {
        let old_node = old_ino.and_then(|ino| old.node(ino));
        let new_node = new_ino.and_then(|ino| new.node(ino));
        let kind = match (old_ino.zip(old_node), new_ino.zip(new_node)) {
            (Some((old_ino, a)), Some((new_ino, b))) => {
                let aspects = aspects(old, a, new, b, same_content);
                (!aspects.is_empty()).then_some(ChangeKind::Changed {
                    old: old_ino,
                    new: new_ino,
                    aspects,
                })
            }
            (None, Some((ino, _))) => Some(ChangeKind::Added(ino)),
            (Some((ino, _)), None) => Some(ChangeKind::Removed(ino)),
            (None, None) => None,
        };
        let children = pairs(old, old_node, new, new_node);
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

/// The names of two directories in their order, each with what it is in the one and in the other.
pub fn pairs<'a>(
    old: &'a Tree,
    old_node: Option<&Node>,
    new: &'a Tree,
    new_node: Option<&Node>,
) -> Vec<(&'a [u8], Option<Ino>, Option<Ino>)> {
    let children = |tree: &'a Tree, node: Option<&Node>| {
        let dirents = node.map_or(&[][..], |node| tree.children(node));
        let names = dirents
            .iter()
            .map(|dirent| (tree.name(dirent), dirent.ino()));
        names.peekable()
    };
    let (mut left, mut right) = (children(old, old_node), children(new, new_node));
    let mut pairs = Vec::new();
    loop {
        let order = match (left.peek(), right.peek()) {
            (Some((a, _)), Some((b, _))) => a.cmp(b),
            (Some(_), None) => std::cmp::Ordering::Less,
            (None, Some(_)) => std::cmp::Ordering::Greater,
            (None, None) => return pairs,
        };
        let of_old = order.is_le().then(|| left.next()).flatten();
        let of_new = order.is_ge().then(|| right.next()).flatten();
        let name = of_old.or(of_new).map_or(&[][..], |(name, _)| name);
        let ino = |of: Option<(&[u8], Ino)>| of.map(|(_, ino)| ino);
        pairs.push((name, ino(of_old), ino(of_new)));
    }
}

fn aspects(
    old: &Tree,
    a: &Node,
    new: &Tree,
    b: &Node,
    same_content: &mut dyn FnMut(&Node, &Node) -> bool,
) -> Aspects {
    let mut aspects = Aspects::default();
    let both_files = a.is_file() && b.is_file();
    aspects.add(Aspects::KIND, a.kind() != b.kind() && !both_files);
    let same = match (old.content(a), new.content(b)) {
        _ if both_files => a.size() == b.size() && same_content(a, b),
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
