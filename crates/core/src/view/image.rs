//! [`ImageFs`]: everything that needs the tree alone.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use super::error::FsError;
use crate::prefetch::{FilesInOrder, Programs, WalkError};
use crate::store::LayerReader;
use imgfs_formats::layer::Mtime;
use imgfs_formats::tree::{Content, Ino, Kind, Node, Tree};

/// Preferred size of reads (`st_blksize`). Programs that use stdio take a buffer of this size: 64
/// KiB makes few system calls and still comes from malloc's heap, where 128 KiB would be mapped and
/// unmapped for each file opened.
pub const BLOCK_SIZE: u32 = 64 << 10;

/// Unit of `statfs`, as on most filesystems.
const FRAGMENT_SIZE: u32 = 4096;

/// Different causes of failed reads that are logged in the life of a mount.
const MAX_FAILURES: usize = 100;

/// A merged image and the layers its bytes are in.
pub struct ImageFs {
    pub(super) tree: Arc<Tree>,
    pub(super) layers: Vec<Arc<LayerReader>>,
    pub(super) programs: Arc<Programs>,
    /// Causes of failures that were logged.
    failures: Mutex<HashSet<String>>,
}

/// What `stat` shows of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attributes {
    /// Its number.
    pub ino: Ino,
    /// What it is.
    pub kind: Kind,
    /// Low 12 bits of the mode.
    pub permissions: u16,
    /// Number of names.
    pub nlink: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Size in bytes.
    pub size: u64,
    /// Blocks of 512 bytes: the whole size, holes included, so that nobody takes a file for sparse
    /// because of what is cached of it.
    pub blocks: u64,
    /// Modification time; access and change time are the same.
    pub mtime: Mtime,
    /// Class and number of a device, else zeros.
    pub device: (u32, u32),
}

/// One name as `readdir` shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DirectoryEntry<'a> {
    /// The name.
    pub name: &'a [u8],
    /// The node.
    pub ino: Ino,
    /// What the node is.
    pub kind: Kind,
    /// Where to go on after this one.
    pub next: u64,
}

/// What `statfs` shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FilesystemSize {
    /// Bytes of one block.
    pub block_size: u32,
    /// Blocks in the filesystem; none is free.
    pub blocks: u64,
    /// Number of nodes; none can be added.
    pub nodes: u64,
}

impl ImageFs {
    /// Puts a tree and its layers together; `layers` in the order the tree was built from.
    pub fn new(tree: Arc<Tree>, layers: Vec<Arc<LayerReader>>) -> Self {
        Self {
            programs: Arc::new(Programs::new(Arc::clone(&tree), layers.clone())),
            tree,
            layers,
            failures: Mutex::default(),
        }
    }

    /// Whether no failure with this cause was seen before. Remembers a limited number.
    pub(crate) fn is_new_failure(&self, err: &FsError) -> bool {
        let cause =
            std::error::Error::source(err).map_or_else(|| err.to_string(), ToString::to_string);
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        failures.len() < MAX_FAILURES && failures.insert(cause)
    }

    /// The tree.
    pub fn tree(&self) -> &Tree {
        &self.tree
    }

    /// From now on ELF programs and libraries of at most this size are fetched whole at their first
    /// read.
    pub fn fetch_executables(&self, limit: u64) {
        self.programs.fetch_up_to(limit);
    }

    /// Files that will be read one after the other, all of each.
    pub fn in_order(&self, files: &[Ino]) -> Result<FilesInOrder, WalkError> {
        FilesInOrder::new(Arc::clone(&self.tree), self.layers.clone(), files)
    }

    /// The layers, base first.
    pub fn layers(&self) -> &[Arc<LayerReader>] {
        &self.layers
    }

    /// The files whose bytes are in this layer.
    pub fn files_in(&self, layer: &Arc<LayerReader>) -> impl Iterator<Item = Ino> {
        let is_it = |position: usize| {
            let found = self.layers.get(position);
            found.is_some_and(|found| Arc::ptr_eq(found, layer))
        };
        (1..=self.tree.len() as u64)
            .map(Ino::new)
            .filter(move |ino| {
                let content = self.tree.node(*ino).map(|node| self.tree.content(node));
                match content {
                    Some(Content::File { layer, .. } | Content::SparseFile { layer, .. }) => {
                        is_it(layer)
                    }
                    _ => false,
                }
            })
    }

    /// The child with this name, if there is one. `.` is any node itself, `..` the directory above
    /// a directory: NFS asks so.
    pub fn lookup(&self, parent: Ino, name: &[u8]) -> Result<Option<Attributes>, FsError> {
        if name == b"." {
            return self.attributes(parent).map(Some);
        }
        let directory = self.directory(parent)?;
        if name == b".." {
            return self.attributes(self.tree.parent(directory)).map(Some);
        }
        let child = self.tree.lookup(directory, name);
        child.map(|ino| self.attributes(ino)).transpose()
    }

    /// What `stat` shows.
    pub fn attributes(&self, ino: Ino) -> Result<Attributes, FsError> {
        let node = self.node(ino)?;
        let device = match self.tree.content(node) {
            Content::Device { major, minor } => (major, minor),
            _ => (0, 0),
        };
        Ok(Attributes {
            ino,
            kind: node.kind(),
            permissions: node.permissions(),
            nlink: node.nlink(),
            uid: node.uid(),
            gid: node.gid(),
            size: node.size(),
            blocks: node.size().div_ceil(512),
            mtime: node.mtime(),
            device,
        })
    }

    /// The entries of a directory from a position on: `.` is at 0, `..` at 1, then the names in
    /// order.
    pub fn entries(
        &self,
        ino: Ino,
        position: u64,
    ) -> Result<impl Iterator<Item = DirectoryEntry<'_>>, FsError> {
        let directory = self.directory(ino)?;
        let dots = [(b".".as_slice(), ino), (b"..", self.tree.parent(directory))];
        let children = self.tree.children(directory);
        let skip_dots = usize::try_from(position).unwrap_or(usize::MAX);
        let children = children.get(skip_dots.saturating_sub(dots.len())..);
        let children = children.unwrap_or_default().iter();
        let names = (dots.into_iter().skip(skip_dots))
            .chain(children.map(|dirent| (self.tree.name(dirent), dirent.ino())));
        Ok((1..).zip(names).filter_map(move |(count, (name, ino))| {
            let kind = self.tree.node(ino)?.kind();
            Some(DirectoryEntry {
                name,
                ino,
                kind,
                // A program may seek anywhere, where there are no names; nothing may overflow
                // there.
                next: position.saturating_add(count),
            })
        }))
    }

    /// The target of a symbolic link.
    pub fn readlink(&self, ino: Ino) -> Result<&[u8], FsError> {
        match self.tree.content(self.node(ino)?) {
            Content::Symlink(target) => Ok(target),
            _ => Err(FsError::WrongKind {
                ino,
                operation: "readlink",
            }),
        }
    }

    /// The value of an extended attribute.
    pub fn getxattr(&self, ino: Ino, name: &[u8]) -> Result<&[u8], FsError> {
        if !self.tree.has_xattrs() {
            return Err(FsError::NoXattrs);
        }
        let mut set = self.tree.xattrs(self.node(ino)?).iter();
        let found = set.find(|(candidate, _)| candidate == name);
        found.map_or(Err(FsError::NoSuchXattr), |(_, value)| Ok(value))
    }

    /// The names of all extended attributes, each ended by a zero byte. An image without any gives
    /// empty lists: "not supported" would be another answer than that of an unpacked tree.
    pub fn listxattr(&self, ino: Ino) -> Result<Vec<u8>, FsError> {
        let names = self
            .tree
            .xattrs(self.node(ino)?)
            .iter()
            .map(|(name, _)| name.as_slice());
        Ok(names
            .flat_map(|name| [name, b"\0"])
            .flatten()
            .copied()
            .collect())
    }

    /// Sums for `statfs`.
    pub fn size(&self) -> FilesystemSize {
        let totals = self.tree.totals();
        FilesystemSize {
            block_size: FRAGMENT_SIZE,
            blocks: totals.blocks.div_ceil(u64::from(FRAGMENT_SIZE) / 512),
            nodes: totals.nodes,
        }
    }

    /// What `access` says where the kernel does not check modes: everything but executing a file
    /// that nobody may execute. (Writing is refused by the read-only mount.)
    pub fn access(&self, ino: Ino, execute: bool) -> Result<(), FsError> {
        let node = self.node(ino)?;
        if execute && node.is_file() && node.permissions() & 0o111 == 0 {
            return Err(FsError::NotExecutable);
        }
        Ok(())
    }

    pub(crate) fn node(&self, ino: Ino) -> Result<&Node, FsError> {
        self.tree.node(ino).ok_or(FsError::NoSuchInode(ino))
    }

    fn directory(&self, ino: Ino) -> Result<&Node, FsError> {
        let node = self.node(ino)?;
        if node.is_directory() {
            Ok(node)
        } else {
            Err(FsError::NotADirectory(ino))
        }
    }
}
