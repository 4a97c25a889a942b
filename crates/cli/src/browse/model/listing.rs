//! The files to be shown: every path of two trees, in order, and what became of it from the one to
//! the other.
//!
//! ```text
//! entries   /   /a   /a/b   /a/c   /d          a path, then all below it, then the next one
//! end       5    4     3      4     5          where it goes on behind what is below it
//! ```

use std::collections::{BTreeMap, HashSet};
use std::ops::Range;
use std::sync::Arc;

use imgfs_core::view::ImageFs;
use imgfs_formats::tree::{Aspects, ChangeKind, Content, Ino, Kind, Node, Tree, changes};

/// What became of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Mark {
    /// Nothing.
    Same,
    /// Nothing, but something below it.
    Below,
    /// It is new.
    Added,
    /// It is another one, or has other attributes.
    Changed(Aspects),
    /// It was written anew with the bytes that it had.
    Rewritten,
    /// It is gone.
    Removed,
}

/// One path.
#[derive(Debug, Clone)]
pub(in super::super) struct Entry {
    name: Range<usize>,
    /// Position of the directory that it is in; the root is in itself.
    pub parent: usize,
    /// Position of what comes after all that is below it.
    pub end: usize,
    /// Its number in its tree.
    pub ino: Ino,
    /// How many directories it is in; 0 is the root.
    pub depth: usize,
    pub kind: Kind,
    /// Bytes of a file; of a directory those of all files below that are there.
    pub size: u64,
    pub mark: Mark,
}

/// All paths of two trees.
pub(in super::super) struct Listing {
    entries: Vec<Entry>,
    names: Vec<u8>,
    old: Arc<ImageFs>,
    new: Arc<ImageFs>,
}

/// Where a file's bytes are: position of the layer, offset there, size.
pub(in super::super) type Place = (usize, u64, u64);

impl Listing {
    /// Compares two trees. `same_bytes` is asked about files of the same size that do not lie in
    /// the same place.
    pub(in super::super) fn new(
        old: &Arc<ImageFs>,
        new: &Arc<ImageFs>,
        same_bytes: &mut dyn FnMut(Place, Place) -> bool,
    ) -> Self {
        let mut rewritten = HashSet::new();
        let found = changes(old.tree(), new.tree(), &mut |a, b| {
            let places = place(old.tree(), a).zip(place(new.tree(), b));
            match places {
                Some((a, b)) if a == b => true,
                Some((a, b)) => {
                    if same_bytes(a, b) {
                        rewritten.insert(b);
                    }
                    false
                }
                None => old.tree().content(a) == new.tree().content(b),
            }
        });
        let mut marks = found.into_iter().filter_map(|change| {
            let mark = match change.kind {
                // Full trees leave nothing open.
                ChangeKind::Unknown { .. } => return None,
                ChangeKind::Added(_) => Mark::Added,
                ChangeKind::Removed(_) => Mark::Removed,
                ChangeKind::Changed {
                    new: ino, aspects, ..
                } => {
                    let node = new.tree().node(ino);
                    let place = node.and_then(|node| place(new.tree(), node));
                    let is_same = place.is_some_and(|place| rewritten.contains(&place));
                    let others = aspects.without(Aspects::CONTENT);
                    match (is_same, others.is_empty()) {
                        (true, true) => Mark::Rewritten,
                        (true, false) => Mark::Changed(others),
                        (false, _) => Mark::Changed(aspects),
                    }
                }
            };
            Some((change.path, mark))
        });
        let mut listing = Self {
            entries: Vec::new(),
            names: Vec::new(),
            old: Arc::clone(old),
            new: Arc::clone(new),
        };
        // Both walks go the same way, so the next mark is either for this path or for a later one.
        let mut next = marks.next();
        let mut pending = vec![(Vec::new(), 0..0, 0, 0, Some(Ino::ROOT), Some(Ino::ROOT))];
        while let Some((path, name, parent, depth, old_ino, new_ino)) = pending.pop() {
            let shown: &[u8] = if path.is_empty() { b"/" } else { &path };
            let mark = match next.take_if(|(marked, _)| marked == shown) {
                Some((_, mark)) => {
                    next = marks.next();
                    mark
                }
                None => Mark::Same,
            };
            let old_node = old_ino.and_then(|ino| old.tree().node(ino));
            let new_node = new_ino.and_then(|ino| new.tree().node(ino));
            let Some((ino, node)) = (new_ino.zip(new_node)).or(old_ino.zip(old_node)) else {
                continue;
            };
            let position = listing.entries.len();
            listing.entries.push(Entry {
                name,
                parent,
                end: position + 1,
                ino,
                depth,
                kind: node.kind(),
                size: if node.is_file() { node.size() } else { 0 },
                mark,
            });
            let children = names(old.tree(), old_node, new.tree(), new_node);
            for (name, old_ino, new_ino) in children.into_iter().rev() {
                let start = listing.names.len();
                listing.names.extend_from_slice(name);
                let path = [path.as_slice(), b"/", name].concat();
                let name = start..listing.names.len();
                pending.push((path, name, position, depth + 1, old_ino, new_ino));
            }
        }
        listing.sum_up();
        listing
    }

    /// Number of paths, the root among them.
    pub(in super::super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(in super::super) fn entry(&self, position: usize) -> Option<&Entry> {
        self.entries.get(position)
    }

    pub(in super::super) fn name(&self, entry: &Entry) -> &[u8] {
        self.names.get(entry.name.clone()).unwrap_or_default()
    }

    /// The filesystem that an entry is in: what was removed is in the old one.
    pub(in super::super) fn fs(&self, entry: &Entry) -> &Arc<ImageFs> {
        match entry.mark {
            Mark::Removed => &self.old,
            _ => &self.new,
        }
    }

    pub(in super::super) fn node(&self, entry: &Entry) -> Option<&Node> {
        self.fs(entry).tree().node(entry.ino)
    }

    /// What a symbolic link leads to.
    pub(in super::super) fn target(&self, entry: &Entry) -> Option<&[u8]> {
        match self.fs(entry).tree().content(self.node(entry)?) {
            Content::Symlink(target) => Some(target),
            _ => None,
        }
    }

    /// Position of the layer that has a file's bytes.
    pub(in super::super) fn layer(&self, entry: &Entry) -> Option<usize> {
        match self.fs(entry).tree().content(self.node(entry)?) {
            Content::File { layer, .. } | Content::SparseFile { layer, .. } => Some(layer),
            _ => None,
        }
    }

    /// The path from the root on.
    pub(in super::super) fn path(&self, position: usize) -> Vec<u8> {
        let mut names = Vec::new();
        let mut position = position;
        while let Some(entry) = self.entries.get(position).filter(|entry| entry.depth > 0) {
            names.push(self.name(entry));
            position = entry.parent;
        }
        names.reverse();
        [b"/".as_slice(), &names.join(&b'/')].concat()
    }

    /// The position of a path.
    pub(in super::super) fn find(&self, path: &[u8]) -> Option<usize> {
        let mut found = 0;
        for name in path
            .split(|byte| *byte == b'/')
            .filter(|name| !name.is_empty())
        {
            let mut children = self.children(found);
            found = children.find(|(_, entry)| self.name(entry) == name)?.0;
        }
        Some(found)
    }

    /// What is in a directory.
    pub(in super::super) fn children(
        &self,
        position: usize,
    ) -> impl Iterator<Item = (usize, &Entry)> {
        let end = self
            .entries
            .get(position)
            .map_or(position, |entry| entry.end);
        let mut next = position + 1;
        std::iter::from_fn(move || {
            let position = next;
            let entry = self
                .entries
                .get(position)
                .filter(|entry| position < entry.end && position < end)?;
            next = entry.end;
            Some((position, entry))
        })
    }

    /// Ends, sizes of directories and marks for what is below, from the last entry to the first.
    fn sum_up(&mut self) {
        for position in (1..self.entries.len()).rev() {
            let Some(entry) = self.entries.get(position) else {
                continue;
            };
            let (parent, end, size, mark) = (entry.parent, entry.end, entry.size, entry.mark);
            let Some(parent) = self.entries.get_mut(parent) else {
                continue;
            };
            parent.end = parent.end.max(end);
            if mark != Mark::Removed || parent.mark == Mark::Removed {
                parent.size = parent.size.saturating_add(size);
            }
            if parent.mark == Mark::Same && mark != Mark::Same {
                parent.mark = Mark::Below;
            }
        }
    }
}

/// The names of two directories in their order, each with what it is in the one and in the other.
fn names<'a>(
    old: &'a Tree,
    old_node: Option<&Node>,
    new: &'a Tree,
    new_node: Option<&Node>,
) -> Vec<(&'a [u8], Option<Ino>, Option<Ino>)> {
    let children = |tree: &'a Tree, node: Option<&Node>| {
        let dirents = node.map_or(&[][..], |node| tree.children(node));
        dirents
            .iter()
            .map(|dirent| (tree.name(dirent), dirent.ino()))
    };
    let mut found: BTreeMap<&[u8], (Option<Ino>, Option<Ino>)> = BTreeMap::new();
    for (name, ino) in children(old, old_node) {
        found.insert(name, (Some(ino), None));
    }
    for (name, ino) in children(new, new_node) {
        found.entry(name).or_default().1 = Some(ino);
    }
    let found = found.into_iter();
    found.map(|(name, (old, new))| (name, old, new)).collect()
}

fn place(tree: &Tree, node: &Node) -> Option<Place> {
    match tree.content(node) {
        Content::File {
            layer,
            offset,
            size,
        } => Some((layer, offset, size)),
        _ => None,
    }
}
