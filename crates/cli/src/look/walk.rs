//! Walking through a part of a tree, in the order of names, and whether all of such a walk is known
//! yet.

use imgfs_formats::tree::{Answer, Ino, Node, PartialTree, Tree};

/// Whether a walk visits a name.
pub(super) type Keep<'a> = &'a dyn Fn(&[u8], &Node) -> bool;

/// Visits everything.
pub(super) fn everything(_: &[u8], _: &Node) -> bool {
    true
}

/// A walk: directories before what is in them. Its start is visited whatever it is called.
pub(super) struct Walk<'t> {
    tree: &'t Tree,
    keep: Keep<'t>,
    /// Directories at this depth are not entered; the start has depth 0.
    max_depth: usize,
    path: Vec<u8>,
    /// The next place last.
    pending: Vec<Pending<'t>>,
}

struct Pending<'t> {
    name: &'t [u8],
    ino: Ino,
    depth: usize,
    /// How much of the path is that of the directory above.
    above: usize,
    is_last: bool,
}

/// A place that a walk has come to.
pub(super) struct Place<'w> {
    /// The start as it was asked for, and the names from there on.
    pub path: &'w [u8],
    /// The last part of the path.
    pub name: &'w [u8],
    pub ino: Ino,
    pub node: &'w Node,
    pub depth: usize,
    /// No other name of its directory is visited after it.
    pub is_last: bool,
}

impl<'t> Walk<'t> {
    /// A walk from `start` on, which the user calls `path`.
    pub(super) fn new(
        tree: &'t Tree,
        start: Ino,
        path: &[u8],
        max_depth: usize,
        keep: Keep<'t>,
    ) -> Self {
        let start = Pending {
            name: &[],
            ino: start,
            depth: 0,
            above: path.len(),
            is_last: true,
        };
        Self {
            tree,
            keep,
            max_depth,
            path: path.to_vec(),
            pending: vec![start],
        }
    }

    /// The next place.
    pub(super) fn next(&mut self) -> Option<Place<'_>> {
        let next = self.pending.pop()?;
        self.path.truncate(next.above);
        if next.depth > 0 {
            if !self.path.ends_with(b"/") {
                self.path.push(b'/');
            }
            self.path.extend(next.name);
        }
        let node = self.tree.node(next.ino)?;
        if node.is_directory() && next.depth < self.max_depth {
            let first = self.pending.len();
            for dirent in self.tree.children(node).iter().rev() {
                let name = self.tree.name(dirent);
                let child = self.tree.node(dirent.ino());
                if child.is_some_and(|child| (self.keep)(name, child)) {
                    self.pending.push(Pending {
                        name,
                        ino: dirent.ino(),
                        depth: next.depth + 1,
                        above: self.path.len(),
                        is_last: self.pending.len() == first,
                    });
                }
            }
        }
        Some(Place {
            name: last_part(&self.path),
            path: &self.path,
            ino: next.ino,
            node,
            depth: next.depth,
            is_last: next.is_last,
        })
    }
}

/// Whether the layers that are open tell all that such a walk will meet: names and kinds, and the
/// attributes too of those places that `wants` picks.
pub(super) fn is_known(
    tree: &PartialTree,
    mut walk: Walk<'_>,
    wants: impl Fn(&Place<'_>) -> bool,
) -> bool {
    let max_depth = walk.max_depth;
    while let Some(place) = walk.next() {
        let enters = place.node.is_directory() && place.depth < max_depth;
        if enters && !matches!(tree.listing(place.ino), Answer::Found(_)) {
            return false;
        }
        if wants(&place) && !matches!(tree.attributes(place.ino), Answer::Found(_)) {
            return false;
        }
    }
    true
}

/// The last part of a path; of the root, `/`.
pub(super) fn last_part(path: &[u8]) -> &[u8] {
    let end = path.iter().rposition(|byte| *byte != b'/');
    let trimmed = path.get(..end.map_or(0, |end| end + 1)).unwrap_or_default();
    match trimmed.iter().rposition(|byte| *byte == b'/') {
        _ if trimmed.is_empty() => path.get(..1).unwrap_or_default(),
        Some(slash) => trimmed.get(slash + 1..).unwrap_or_default(),
        None => trimmed,
    }
}
