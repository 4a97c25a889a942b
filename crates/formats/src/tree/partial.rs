//! The tree as far as the top layers alone can tell.
//!
//! `imgfs cat REF PATH` opens layers from the top and only as far as the answer needs. A
//! [`PartialTree`] is the union of the layers opened so far, by the rules of the full one; each
//! question is answered for certain, or with [`Answer::NeedsLowerLayer`]. What lower layers could
//! still change: what a name not found is, the attributes of a directory that has no entry yet,
//! further names in a directory that is not opaque, the target of a hard link that was not found,
//! and the number of links of any node.

use super::node::{ATTRIBUTES, COMPLETE, Ino, Kind, Node, REMOVED};
use super::resolve::{MAX_LINKS, PathError, Walk, walk};
use super::{Dirent, Tree, TreeError, Warning, union};
use crate::layer::Toc;

/// What the opened layers know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer<T> {
    /// It is this, whatever lower layers hold.
    Found(T),
    /// It does not exist, whatever lower layers hold.
    Absent(PathError),
    /// Depends on layers that are not opened.
    NeedsLowerLayer,
}

/// The union of an image's top layers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartialTree {
    tree: Tree,
}

impl PartialTree {
    /// Merges the layers opened so far, the bottom-most of them first; there are others below.
    pub fn build(layers: &[&Toc]) -> Result<(Self, Vec<Warning>), TreeError> {
        let (tree, warnings) = union::build(layers, union::Below::Unopened)?;
        Ok((Self { tree }, warnings))
    }

    /// Before any layer is opened: nothing is known yet, or, of an image without layers,
    /// everything.
    #[expect(clippy::missing_panics_doc, reason = "it never does")]
    pub fn start(has_layers: bool) -> Self {
        let below = if has_layers {
            union::Below::Unopened
        } else {
            union::Below::Nothing
        };
        let (tree, _) = union::build(&[], below).expect("no layer contradicts another");
        Self { tree }
    }

    /// Takes a full tree, which leaves no question open.
    pub fn complete(tree: Tree) -> Self {
        Self { tree }
    }

    /// The tree of what is known, for reading what an answer named. Beyond the answers it holds
    /// names that may not exist, so nothing else may be concluded from it.
    pub fn tree(&self) -> &Tree {
        &self.tree
    }

    /// The same, by value.
    pub fn into_tree(self) -> Tree {
        self.tree
    }

    /// The node at a path. The attributes of a directory found so may still be open.
    pub fn resolve(&self, path: &[u8], follow: bool) -> Answer<Ino> {
        match walk(&self.tree, path, follow, MAX_LINKS) {
            Walk::Absent(err) => Answer::Absent(err),
            Walk::Unknown => Answer::NeedsLowerLayer,
            Walk::Node(position) => match self.tree.nodes.get(position as usize) {
                Some(node) if node.is_certain() => Answer::Found(Ino::from_position(position)),
                _ => Answer::NeedsLowerLayer,
            },
        }
    }

    /// A node whose attributes are certain, but for its number of links.
    pub fn attributes(&self, ino: Ino) -> Answer<&Node> {
        match self.tree.node(ino) {
            Some(node) if node.is_certain() && node.has(ATTRIBUTES) => Answer::Found(node),
            Some(_) => Answer::NeedsLowerLayer,
            None => Answer::Absent(PathError::NotFound),
        }
    }

    /// All names of a directory. The attributes of its children may still be open.
    pub fn listing(&self, ino: Ino) -> Answer<&[Dirent]> {
        let Some(directory) = self.tree.node(ino) else {
            return Answer::Absent(PathError::NotFound);
        };
        match directory.kind {
            Kind::UnresolvedLink | Kind::Phantom => return Answer::NeedsLowerLayer,
            Kind::Directory => {}
            _ => return Answer::Absent(PathError::NotADirectory),
        }
        let children = self.tree.children(directory);
        let certain = |dirent: &Dirent| {
            let child = self.tree.node(dirent.ino());
            dirent.node != REMOVED && child.is_some_and(Node::is_certain)
        };
        if directory.has(COMPLETE) && children.iter().all(certain) {
            Answer::Found(children)
        } else {
            Answer::NeedsLowerLayer
        }
    }

    /// Whether everything at and below a node is certain: names, attributes and content.
    pub fn knows_subtree(&self, ino: Ino) -> bool {
        let mut pending = vec![ino];
        while let Some(ino) = pending.pop() {
            let Answer::Found(node) = self.attributes(ino) else {
                return false;
            };
            if !node.is_directory() {
                continue;
            }
            let Answer::Found(children) = self.listing(ino) else {
                return false;
            };
            pending.extend(children.iter().map(Dirent::ino));
        }
        true
    }
}

impl Node {
    /// Whether it is there, and is what it seems.
    fn is_certain(&self) -> bool {
        !matches!(self.kind, Kind::UnresolvedLink | Kind::Phantom)
    }
}
