//! Nodes, directory entries and how a [`Tree`] hands them out.
//!
//! A node is 56 bytes, a directory entry 12 and its name: about 90 bytes a file in all. What
//! `value` means depends on the kind:
//!
//! ```text
//! File         offset in the layer
//! SparseFile   first extent << 32 | count
//! Directory    first directory entry << 32 | count
//! Symlink      offset of the target in the strings; `size` is its length
//! CharDevice, BlockDevice   major << 32 | minor
//! ```

use super::Tree;
use crate::layer::{Extent, Mtime};

/// The number of a node as the kernel sees it: its position plus one; the root is 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ino(u64);

impl Ino {
    /// The root directory.
    pub const ROOT: Self = Self(1);

    /// Takes a number from outside; it need not belong to a node.
    pub fn new(number: u64) -> Self {
        Self(number)
    }

    /// The number.
    pub fn get(self) -> u64 {
        self.0
    }

    pub(super) fn from_position(position: u32) -> Self {
        Self(u64::from(position) + 1)
    }

    pub(super) fn position(self) -> Option<usize> {
        usize::try_from(self.0.checked_sub(1)?).ok()
    }
}

/// What a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// A regular file.
    File,
    /// A regular file with holes.
    SparseFile,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
    /// A named pipe.
    Fifo,
    /// a hard link to nothing: shown as a file of one byte that cannot be read.
    BrokenLink,
    /// Partial trees only: a hard link whose target no opened layer has.
    UnresolvedLink,
    /// Partial trees only: nothing is known but what whiteouts take away below it, if it is there
    /// at all.
    Phantom,
}

/// The directory hides everything lower layers have below it.
pub(super) const COMPLETE: u8 = 1;
/// The attributes do not depend on lower layers.
pub(super) const ATTRIBUTES: u8 = 2;

/// One file, directory, link or device of the merged tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Node {
    pub(super) mtime_seconds: i64,
    pub(super) size: u64,
    pub(super) value: u64,
    /// Directories: the position of the one above.
    pub(super) parent: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) nlink: u32,
    pub(super) mtime_nanoseconds: u32,
    /// 0 for none, else the number of the set plus one.
    pub(super) xattrs: u32,
    pub(super) mode: u16,
    pub(super) layer: u16,
    pub(super) kind: Kind,
    pub(super) flags: u8,
}

const _: () = assert!(size_of::<Node>() <= 56);

impl Node {
    /// A directory that no layer has an entry for.
    pub(super) const IMPLICIT: Self = Self {
        mtime_seconds: 0,
        size: 0,
        value: 0,
        parent: 0,
        uid: 0,
        gid: 0,
        nlink: 0,
        mtime_nanoseconds: 0,
        xattrs: 0,
        mode: 0o755,
        layer: 0,
        kind: Kind::Directory,
        flags: 0,
    };

    /// What it is.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Permission bits with setuid, setgid and sticky.
    pub fn permissions(&self) -> u16 {
        self.mode
    }

    /// Owner.
    pub fn uid(&self) -> u32 {
        self.uid
    }

    /// Group.
    pub fn gid(&self) -> u32 {
        self.gid
    }

    /// Number of names; for a directory 2 and one for each directory in it.
    pub fn nlink(&self) -> u32 {
        self.nlink
    }

    /// Bytes of a regular file, length of a symlink's target, else 0.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Modification time.
    pub fn mtime(&self) -> Mtime {
        Mtime {
            seconds: self.mtime_seconds,
            nanoseconds: self.mtime_nanoseconds,
        }
    }

    /// The layer it is from: its position among those the tree was built from. Of a directory, one
    /// of those that have it.
    pub fn layer(&self) -> usize {
        usize::from(self.layer)
    }

    /// Whether it is a directory.
    pub fn is_directory(&self) -> bool {
        self.kind == Kind::Directory
    }

    /// Whether it is a regular file, with or without holes.
    pub fn is_file(&self) -> bool {
        matches!(
            self.kind,
            Kind::File | Kind::SparseFile | Kind::BrokenLink | Kind::UnresolvedLink
        )
    }

    pub(super) fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    pub(super) fn halves(&self) -> (usize, usize) {
        let (high, low) = split(self.value);
        (high as usize, low as usize)
    }
}

/// What a node holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content<'a> {
    /// Contiguous bytes of a layer.
    File {
        /// Position of the layer among those the tree was built from.
        layer: usize,
        /// Offset in its uncompressed bytes.
        offset: u64,
        /// Size in bytes.
        size: u64,
    },
    /// Some runs of bytes of a layer, and zeros between them.
    SparseFile {
        /// Position of the layer among those the tree was built from.
        layer: usize,
        /// The stored runs, ascending.
        extents: &'a [Extent],
        /// Size in bytes.
        size: u64,
    },
    /// Names.
    Directory,
    /// A target.
    Symlink(&'a [u8]),
    /// A device.
    Device {
        /// Device class.
        major: u32,
        /// Device number.
        minor: u32,
    },
    /// Nothing.
    Fifo,
    /// Nothing that can be had: a hard link whose target is missing or not known.
    Missing,
}

impl Content<'_> {
    /// Where the stored bytes of a regular file are: the layer's position, and its runs but for
    /// empty ones, ascending; the rest is zeros. Nothing for what is no regular file.
    pub fn stored_runs(self) -> Option<(usize, Vec<Extent>)> {
        let (layer, mut runs) = match self {
            Self::File {
                layer,
                offset,
                size,
            } => {
                let run = Extent {
                    file_offset: 0,
                    layer_offset: offset,
                    length: size,
                };
                (layer, vec![run])
            }
            Self::SparseFile { layer, extents, .. } => (layer, extents.to_vec()),
            _ => return None,
        };
        runs.retain(|run| run.length > 0);
        Some((layer, runs))
    }
}

/// One name in a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dirent {
    pub(super) name: u32,
    pub(super) node: u32,
    pub(super) name_len: u8,
}

/// In place of a node: the name is known to be absent (partial trees only).
pub(super) const REMOVED: u32 = u32::MAX;

impl Dirent {
    /// The node it names.
    pub fn ino(&self) -> Ino {
        Ino::from_position(self.node)
    }
}

/// Sums over a tree, each node counted once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Totals {
    /// Nodes of every kind.
    pub nodes: u64,
    /// Bytes of regular files and symlink targets.
    pub bytes: u64,
    /// The same in blocks of 512 bytes, each file rounded up.
    pub blocks: u64,
}

impl Tree {
    /// The node with this number.
    pub fn node(&self, ino: Ino) -> Option<&Node> {
        self.nodes.get(ino.position()?)
    }

    /// Number of nodes: inode numbers are 1 to this.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Never: there is a root.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Number of layers it was built from.
    pub fn layers(&self) -> usize {
        self.layers
    }

    /// Sums for `statfs`.
    pub fn totals(&self) -> Totals {
        self.totals
    }

    /// Whether any node has extended attributes.
    pub fn has_xattrs(&self) -> bool {
        !self.xattrs.is_empty()
    }

    /// What `node` holds.
    pub fn content(&self, node: &Node) -> Content<'_> {
        let layer = usize::from(node.layer);
        let (high, low) = split(node.value);
        match node.kind {
            Kind::File => Content::File {
                layer,
                offset: node.value,
                size: node.size,
            },
            Kind::SparseFile => Content::SparseFile {
                layer,
                extents: slice(&self.extents, node),
                size: node.size,
            },
            Kind::Directory => Content::Directory,
            Kind::Symlink => Content::Symlink(self.target(node)),
            Kind::CharDevice | Kind::BlockDevice => Content::Device {
                major: high,
                minor: low,
            },
            Kind::Fifo => Content::Fifo,
            Kind::BrokenLink | Kind::UnresolvedLink | Kind::Phantom => Content::Missing,
        }
    }

    /// Extended attributes of `node`.
    pub fn xattrs(&self, node: &Node) -> &[(Vec<u8>, Vec<u8>)] {
        let position = (node.xattrs as usize).checked_sub(1);
        let set = position.and_then(|position| self.xattrs.get(position));
        set.map_or(&[], Vec::as_slice)
    }

    /// The children of a directory, sorted by name; nothing for other nodes.
    pub fn children(&self, directory: &Node) -> &[Dirent] {
        match directory.kind {
            Kind::Directory | Kind::Phantom => slice(&self.dirents, directory),
            _ => &[],
        }
    }

    /// The name of a directory entry.
    pub fn name(&self, dirent: &Dirent) -> &[u8] {
        let start = dirent.name as usize;
        let end = start + usize::from(dirent.name_len);
        self.strings.get(start..end).unwrap_or_default()
    }

    /// The child of `directory` with this name.
    pub fn lookup(&self, directory: &Node, name: &[u8]) -> Option<Ino> {
        let dirent = self.find(directory, name)?;
        (dirent.node != REMOVED).then(|| dirent.ino())
    }

    /// All names, in no particular order, and what they lead to.
    pub fn names(&self) -> impl Iterator<Item = (&[u8], Ino)> {
        let present = self.dirents.iter().filter(|dirent| dirent.node != REMOVED);
        present.map(|dirent| (self.name(dirent), dirent.ino()))
    }

    /// The directory above a directory; the root's is the root. Files have no single one.
    pub fn parent(&self, directory: &Node) -> Ino {
        Ino::from_position(directory.parent)
    }

    /// One path that leads to the node, for messages: a search through all names.
    pub fn path(&self, ino: Ino) -> Option<Vec<u8>> {
        let mut target = u32::try_from(ino.position()?).ok()?;
        let mut names: Vec<&[u8]> = Vec::new();
        while target != 0 {
            let position = self
                .dirents
                .iter()
                .position(|dirent| dirent.node == target)?;
            names.push(self.name(self.dirents.get(position)?));
            let above = self.nodes.iter().position(|node| {
                let (first, count) = node.halves();
                node.is_directory() && (first..first + count).contains(&position)
            })?;
            target = u32::try_from(above).ok()?;
        }
        names.reverse();
        Some([b"/".as_slice(), &names.join(&b'/')].concat())
    }

    pub(super) fn find(&self, directory: &Node, name: &[u8]) -> Option<&Dirent> {
        let children = self.children(directory);
        let position = children
            .binary_search_by(|dirent| self.name(dirent).cmp(name))
            .ok()?;
        children.get(position)
    }

    pub(super) fn target(&self, symlink: &Node) -> &[u8] {
        let start = usize::try_from(symlink.value).unwrap_or(usize::MAX);
        let length = usize::try_from(symlink.size).unwrap_or(usize::MAX);
        let end = start.saturating_add(length);
        self.strings.get(start..end).unwrap_or_default()
    }
}

pub(super) fn join(high: u32, low: u32) -> u64 {
    u64::from(high) << 32 | u64::from(low)
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "the two halves are what is wanted"
)]
fn split(value: u64) -> (u32, u32) {
    ((value >> 32) as u32, value as u32)
}

/// The part of a side table that a node's value names.
fn slice<'a, T>(table: &'a [T], node: &Node) -> &'a [T] {
    let (first, count) = node.halves();
    table.get(first..first + count).unwrap_or_default()
}
