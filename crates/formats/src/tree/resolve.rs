//! Walking a path through a tree, symbolic links followed within the root.
//!
//! One walk serves the finished [`Tree`], the tree under construction (targets of hard links) and
//! the view of a single layer there: they differ in what they say about one name, which is the
//! [`View`].

use super::Tree;
use super::node::{COMPLETE, Ino, Kind, REMOVED};

/// Most symbolic links in one path, `MAXSYMLINKS` of the kernel.
pub(super) const MAX_LINKS: usize = 40;

/// Why a path leads nowhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// A component does not exist.
    #[error("no such file or directory")]
    NotFound,
    /// Something that is not a directory is used as one.
    #[error("not a directory")]
    NotADirectory,
    /// More than 40 symbolic links.
    #[error("too many levels of symbolic links")]
    TooManyLinks,
}

/// What is known of one name in a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Child {
    /// It names this node.
    Node(u32),
    /// It does not exist.
    Absent,
    /// Only lower layers can tell.
    Unknown,
}

/// What a walk makes of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape<'a> {
    Directory,
    Symlink(&'a [u8]),
    Other,
    /// A hard link to something unknown that is no directory.
    Link,
    /// Could be any of these, or nothing.
    Unknown,
}

/// A tree to walk through.
pub(super) trait View {
    fn root(&self) -> u32;
    fn child(&self, directory: u32, name: &[u8]) -> Child;
    fn shape(&self, node: u32) -> Shape<'_>;
    fn parent(&self, directory: u32) -> u32;
}

/// Where a path leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Walk {
    Node(u32),
    Absent(PathError),
    Unknown,
}

impl Tree {
    /// Resolves a path from the root; symbolic links cannot leave it. A final link is followed if
    /// `follow`.
    pub fn resolve(&self, path: &[u8], follow: bool) -> Result<Ino, PathError> {
        match walk(self, path, follow, MAX_LINKS) {
            Walk::Node(position) => Ok(Ino::from_position(position)),
            Walk::Absent(err) => Err(err),
            // A full tree knows everything.
            Walk::Unknown => Err(PathError::NotFound),
        }
    }
}

/// Walks `path` from the root.
pub(super) fn walk<V: View>(view: &V, path: &[u8], follow_last: bool, max_links: usize) -> Walk {
    let mut links = 0;
    let mut current = view.root();
    // What is still to be walked, the next part last. An empty part is a trailing slash: it asks
    // for a directory, as in POSIX.
    let mut pending = vec![path];
    while let Some(part) = pending.pop() {
        let mut halves = part.splitn(2, |byte| *byte == b'/');
        let name = halves.next().unwrap_or_default();
        pending.extend(halves.next());
        match name {
            b"" | b"." => continue,
            b".." => {
                current = view.parent(current);
                continue;
            }
            _ => {}
        }
        let node = match view.child(current, name) {
            Child::Node(node) => node,
            Child::Absent => return Walk::Absent(PathError::NotFound),
            Child::Unknown => return Walk::Unknown,
        };
        match view.shape(node) {
            Shape::Directory => current = node,
            Shape::Symlink(_) | Shape::Link if pending.is_empty() && !follow_last => {
                return Walk::Node(node);
            }
            Shape::Symlink(target) => {
                links += 1;
                if links > max_links {
                    return Walk::Absent(PathError::TooManyLinks);
                }
                if target.is_empty() {
                    return Walk::Absent(PathError::NotFound);
                }
                if target.starts_with(b"/") {
                    current = view.root();
                }
                pending.push(target);
            }
            Shape::Other if pending.is_empty() => return Walk::Node(node),
            Shape::Other => return Walk::Absent(PathError::NotADirectory),
            Shape::Link | Shape::Unknown => return Walk::Unknown,
        }
    }
    Walk::Node(current)
}

impl View for Tree {
    fn root(&self) -> u32 {
        0
    }

    fn child(&self, directory: u32, name: &[u8]) -> Child {
        let Some(directory) = self.nodes.get(directory as usize) else {
            return Child::Absent;
        };
        match self.find(directory, name) {
            Some(dirent) if dirent.node == REMOVED => Child::Absent,
            Some(dirent) => Child::Node(dirent.node),
            None if directory.has(COMPLETE) => Child::Absent,
            None => Child::Unknown,
        }
    }

    fn shape(&self, node: u32) -> Shape<'_> {
        let Some(node) = self.nodes.get(node as usize) else {
            return Shape::Other;
        };
        match node.kind {
            Kind::Directory => Shape::Directory,
            Kind::Symlink => Shape::Symlink(self.target(node)),
            Kind::UnresolvedLink => Shape::Link,
            Kind::Phantom => Shape::Unknown,
            _ => Shape::Other,
        }
    }

    fn parent(&self, directory: u32) -> u32 {
        let node = self.nodes.get(directory as usize);
        node.map_or(0, |node| node.parent)
    }
}
