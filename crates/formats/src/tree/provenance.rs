//! Where a path comes from: what each layer did to it, by the rules of the union.
//!
//! The image as it was after each layer is built, and the path looked up in each: what differs
//! between two of them the layer between did. That is slower than following one path through the
//! entries, but follows every rule (names that are cleaned, links of the same layer above an entry,
//! hard links to lower layers) without stating it again. What stands in the layer itself (a
//! whiteout, a hard link's target) then only explains the difference.

use super::changes::{Aspects, aspects};
use super::node::{ATTRIBUTES, Kind, Node};
use super::path::{Role, clean, role};
use super::resolve::{Child, Shape, View};
use super::{Content, Ino, Tree, TreeError, union};
use crate::layer::{EntryKind, Mtime, Toc};

/// What one layer did to a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deed {
    /// Position of the layer among those given; the bottom one is 0.
    pub layer: usize,
    /// What it did.
    pub kind: DeedKind,
    /// What the path was from then on; nothing if it was removed.
    pub after: Option<Appearance>,
}

/// The ways in which a layer can concern a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeedKind {
    /// No layer below has it.
    Added,
    /// It is this layer's; whether a layer below had it is not known, as that is not open.
    Set,
    /// A layer below had it, too: this differs.
    Changed(Aspects),
    /// A layer below had it, too: it is a file that is stored anew, whether with the same bytes is
    /// not known. This differs in any case, if anything.
    StoredAnew(Aspects),
    /// The layer has an entry for it that says the same again.
    Repeated,
    /// It is a name of what this path names, which the layer or one below has.
    HardLink {
        /// The target as the tar names it.
        target: Vec<u8>,
    },
    /// It is gone. If a layer below is not open, it is gone if it was there.
    Removed(Removal),
}

/// What took a path away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Removal {
    /// A whiteout of this path: of the path itself, or of a directory above it.
    Whiteout(Vec<u8>),
    /// This directory is opaque.
    Opaque(Vec<u8>),
    /// This path above it is no directory any more.
    Replaced(Vec<u8>),
}

/// What a path was after a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appearance {
    /// What it was.
    pub kind: Kind,
    /// Bytes of a regular file, length of a symlink's target, else 0.
    pub size: u64,
    /// Permission bits with setuid, setgid and sticky.
    pub permissions: u16,
    /// Modification time.
    pub mtime: Mtime,
}

/// Whether two regular files of the same size, which the layers hold there, have the same bytes;
/// `None` if nobody knows.
pub type SameContent<'a> = &'a mut dyn FnMut(Content<'_>, Content<'_>) -> Option<bool>;

/// What a tree says of a path, without following links.
#[derive(Clone, Copy)]
enum State<'a> {
    Absent,
    Unknown,
    Node(&'a Node),
}

/// What `layers`, the bottom one first, did to a path, the lowest one's deed first; `complete` if
/// nothing lies below them. Links in the path are not followed: see [`Tree::real_path`].
pub fn provenance(
    layers: &[&Toc],
    complete: bool,
    path: &[u8],
    same_content: SameContent<'_>,
) -> Result<Vec<Deed>, TreeError> {
    let mut components = Vec::new();
    clean(path, &mut components);
    let mut before: Option<Tree> = None;
    let mut deeds = Vec::new();
    for (layer, toc) in layers.iter().enumerate() {
        let lower = if complete {
            union::Below::Nothing
        } else {
            union::Below::Unopened
        };
        let (after, _) = union::build(layers.get(..=layer).unwrap_or_default(), lower)?;
        let old = before.as_ref().map(|tree| (tree, state(tree, &components)));
        let was = old.map_or(
            if complete {
                State::Absent
            } else {
                State::Unknown
            },
            |(_, state)| state,
        );
        let is = state(&after, &components);
        let entry = own_entry(toc, &components);
        let kind = match (was, is) {
            (_, State::Node(_)) if matches!(entry, Some(EntryKind::HardLink { .. })) => {
                let Some(EntryKind::HardLink { target }) = entry else {
                    continue;
                };
                Some(DeedKind::HardLink {
                    target: target.to_vec(),
                })
            }
            (State::Absent, State::Node(_)) => Some(DeedKind::Added),
            (State::Unknown, State::Node(node)) => {
                // A directory that only has something below it says nothing of itself.
                let is_told = !node.is_directory() || node.has(ATTRIBUTES);
                is_told.then_some(DeedKind::Set)
            }
            // What an open layer does not say of a directory, one that is not open may.
            (State::Node(old_node), State::Node(node))
                if old_node.is_directory() && !old_node.has(ATTRIBUTES) && !complete =>
            {
                (!node.is_directory() || node.has(ATTRIBUTES)).then_some(DeedKind::Set)
            }
            (State::Node(old_node), State::Node(node)) => {
                let mut is_anew = false;
                let changed = old.map_or(Aspects::default(), |(old, _)| {
                    let mut same = || {
                        let is_it = (old_node.layer, old_node.value) == (node.layer, node.value);
                        let is_empty = node.size() == 0;
                        let is_same = (is_it || is_empty)
                            .then_some(true)
                            .or_else(|| same_content(old.content(old_node), after.content(node)));
                        is_anew = is_same.is_none();
                        is_same.unwrap_or(true)
                    };
                    aspects(old, old_node, &after, node, &mut same)
                });
                match entry {
                    _ if is_anew => Some(DeedKind::StoredAnew(changed)),
                    _ if !changed.is_empty() => Some(DeedKind::Changed(changed)),
                    Some(_) => Some(DeedKind::Repeated),
                    None => None,
                }
            }
            (State::Node(_) | State::Unknown, State::Absent) => {
                removal(toc, &after, &components).map(DeedKind::Removed)
            }
            (State::Absent, State::Absent) | (_, State::Unknown) => None,
        };
        if let Some(kind) = kind {
            let after = match is {
                State::Node(node) => Some(Appearance {
                    kind: node.kind(),
                    size: node.size(),
                    permissions: node.permissions(),
                    mtime: node.mtime(),
                }),
                State::Absent | State::Unknown => None,
            };
            deeds.push(Deed { layer, kind, after });
        }
        before = Some(after);
    }
    Ok(deeds)
}

impl Tree {
    /// Where a path leads, as a path without links: those above its last component are followed, in
    /// the tree as far as that is known; what is not there is cleaned as it stands.
    pub fn real_path(&self, path: &[u8]) -> Vec<u8> {
        let mut components = Vec::new();
        clean(path, &mut components);
        let as_it_stands = || [b"/", components.join(&b'/').as_slice()].concat();
        let Some((name, parents)) = components.split_last() else {
            return b"/".to_vec();
        };
        let parent =
            match super::resolve::walk(self, &parents.join(&b'/'), true, super::resolve::MAX_LINKS)
            {
                super::resolve::Walk::Node(node) => self.path(Ino::from_position(node)),
                _ => None,
            };
        match parent {
            Some(parent) if parent == b"/" => [b"/", *name].concat(),
            Some(parent) => [parent.as_slice(), b"/", name].concat(),
            None => as_it_stands(),
        }
    }
}

fn state<'a>(tree: &'a Tree, components: &[&[u8]]) -> State<'a> {
    let mut current = tree.root();
    for name in components {
        match tree.shape(current) {
            Shape::Directory => {}
            Shape::Link | Shape::Unknown => return State::Unknown,
            Shape::Symlink(_) | Shape::Other => return State::Absent,
        }
        current = match tree.child(current, name) {
            Child::Node(node) => node,
            Child::Absent => return State::Absent,
            Child::Unknown => return State::Unknown,
        };
    }
    match tree.nodes.get(current as usize) {
        Some(node) if !matches!(node.kind, Kind::Phantom | Kind::UnresolvedLink) => {
            State::Node(node)
        }
        _ => State::Unknown,
    }
}

/// The last entry that the layer itself has for the path.
fn own_entry<'a>(toc: &'a Toc, components: &[&[u8]]) -> Option<EntryKind<'a>> {
    let mut cleaned = Vec::new();
    let mut found = None;
    for entry in toc.iter() {
        clean(entry.path, &mut cleaned);
        if cleaned == components {
            found = Some(entry.kind);
        }
    }
    found
}

/// Why the path is gone after this layer.
fn removal(toc: &Toc, after: &Tree, components: &[&[u8]]) -> Option<Removal> {
    let path = |components: &[&[u8]]| [b"/", components.join(&b'/').as_slice()].concat();
    let mut cleaned = Vec::new();
    let mut opaque = None;
    for entry in toc.iter() {
        clean(entry.path, &mut cleaned);
        let Some((last, parents)) = cleaned.split_last() else {
            continue;
        };
        match role(last) {
            Role::Remove(name) => {
                let removed = [parents, &[name]].concat();
                if components.starts_with(&removed) {
                    return Some(Removal::Whiteout(path(&removed)));
                }
            }
            Role::Opaque if parents.len() < components.len() && components.starts_with(parents) => {
                opaque = Some(Removal::Opaque(path(parents)));
            }
            Role::Opaque | Role::Entry | Role::Metadata | Role::Invalid => {}
        }
    }
    let above = (1..components.len()).filter_map(|length| components.get(..length));
    let mut replaced = above
        .filter(|above| matches!(state(after, above), State::Node(node) if !node.is_directory()));
    opaque.or_else(|| replaced.next().map(|above| Removal::Replaced(path(above))))
}
