//! The tar of a tree, the same bytes each time: a directory comes before what is in it, names in
//! their order as bytes; of a file with several names the first one has the content.

mod member;

use std::collections::HashMap;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::{Expected, Result, Within};
use crate::prefetch::FilesInOrder;
use crate::view::ImageFs;
use imgfs_formats::tree::{Content, Ino, Kind, Node, Tree};
use member::{BLOCK, What, padding, start};

/// A tree about to be written as a tar archive.
pub struct Export {
    fs: Arc<ImageFs>,
    ino: Ino,
    name: Vec<u8>,
    files: FilesInOrder,
}

impl Export {
    /// The tree of this node, called `name` in the archive. Nothing is fetched yet.
    pub fn new(fs: Arc<ImageFs>, ino: Ino, name: &[u8]) -> Result<Self> {
        Ok(Self {
            files: fs.in_order(&files_of(fs.tree(), ino))?,
            fs,
            ino,
            name: name.to_owned(),
        })
    }

    /// Bytes of all contents.
    pub fn bytes(&self) -> u64 {
        self.files.bytes()
    }

    /// Writes it. `written` counts the bytes of contents; `left_out` is told the names of files
    /// that nothing can be read of. Must run on the runtime.
    pub async fn write(
        mut self,
        out: &mut impl Write,
        written: &AtomicU64,
        mut left_out: impl FnMut(&[u8]),
    ) -> Result<()> {
        let cannot = || "cannot write the archive".to_owned();
        let tree = self.fs.tree();
        // Where files with several names went first.
        let mut links: HashMap<Ino, Vec<u8>> = HashMap::new();
        let mut buffer = Vec::new();
        for (ino, path) in Walk::new(tree, self.ino, &self.name) {
            let node = tree.node(ino).expected("no node")?;
            let first = links.get(&ino);
            let what = match first {
                Some(first) => Some(What::HardLink(first)),
                None => what_is(tree, node),
            };
            let Some(what) = what else {
                left_out(&path);
                continue;
            };
            out.write_all(&start(&path, what, node, tree.xattrs(node)))
                .within(cannot)?;
            if let What::File(_) | What::Sparse(..) = what {
                let mut length = 0;
                while self.files.read(ino, &mut buffer).await?.is_some() {
                    out.write_all(&buffer).within(cannot)?;
                    length += buffer.len() as u64;
                    written.fetch_add(buffer.len() as u64, Ordering::Relaxed);
                }
                out.write_all(padding(length)).within(cannot)?;
            }
            if first.is_none() && node.nlink() > 1 && !node.is_directory() {
                links.insert(ino, path);
            }
        }
        // Two blocks of zeros end an archive.
        out.write_all(&[0; 2 * BLOCK]).within(cannot)
    }
}

/// The regular files of a tree whose content has to be read, in the order of [`Walk`], each once.
pub(super) fn files_of(tree: &Tree, ino: Ino) -> Vec<Ino> {
    let mut seen = std::collections::HashSet::new();
    let files = Walk::new(tree, ino, b"").filter_map(|(ino, _)| {
        let node = tree.node(ino)?;
        let is_content = matches!(node.kind(), Kind::File | Kind::SparseFile);
        (is_content && (node.nlink() < 2 || seen.insert(ino))).then_some(ino)
    });
    files.collect()
}

/// What a node is in an archive; nothing if it cannot be read.
fn what_is<'a>(tree: &'a Tree, node: &Node) -> Option<What<'a>> {
    Some(match tree.content(node) {
        Content::Directory => What::Directory,
        Content::File { size, .. } => What::File(size),
        Content::SparseFile { extents, size, .. } => What::Sparse(size, extents),
        Content::Symlink(target) => What::Symlink(target),
        Content::Device { major, minor } if node.kind() == Kind::BlockDevice => {
            What::BlockDevice(major, minor)
        }
        Content::Device { major, minor } => What::CharDevice(major, minor),
        Content::Fifo => What::Fifo,
        Content::Missing => return None,
    })
}

/// A node and what is below it, a directory before its entries, with names as an archive has them:
/// directories end with a slash, and what is below `.` begins without it.
struct Walk<'a> {
    tree: &'a Tree,
    /// The next one last.
    pending: Vec<(Ino, Vec<u8>)>,
}

impl<'a> Walk<'a> {
    fn new(tree: &'a Tree, ino: Ino, name: &[u8]) -> Self {
        Self {
            tree,
            pending: vec![(ino, name.to_vec())],
        }
    }
}

impl Iterator for Walk<'_> {
    type Item = (Ino, Vec<u8>);

    fn next(&mut self) -> Option<Self::Item> {
        let (ino, mut path) = self.pending.pop()?;
        if let Some(node) = self.tree.node(ino).filter(|node| node.is_directory()) {
            path.push(b'/');
            let prefix = if path == b"./" { &[][..] } else { &path };
            for child in self.tree.children(node).iter().rev() {
                let path = [prefix, self.tree.name(child)].concat();
                self.pending.push((child.ino(), path));
            }
        }
        Some((ino, path))
    }
}

/// The part of a path up to its last slash, and what is behind that; slashes at the end do not
/// count.
pub fn split_last(path: &[u8]) -> (&[u8], &[u8]) {
    let end = path.iter().rposition(|byte| *byte != b'/');
    let path = path
        .get(..end.map_or(0, |last| last + 1))
        .unwrap_or_default();
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => path.split_at(slash + 1),
        None => (&[], path),
    }
}
