//! The tree under construction: nodes, and slots keyed by directory and name.
//!
//! A slot holds the node that a name stands for now, or says that the name is removed. Taking a
//! directory away only empties its slot, and making it opaque gives it a new node: the slots of
//! what was below keep the old node as their key, and nobody asks for that again. So nothing is
//! ever searched, moved or freed, and an entry costs one probe of the hash table when it follows an
//! entry of the same directory.
//!
//! Names and targets stay in the tables of contents; nothing is allocated for a single entry.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};

use hashbrown::HashTable;

use super::node::{ATTRIBUTES, COMPLETE, Kind, Node, REMOVED};
use super::resolve::{Child, Shape, View};
use super::{MAX_WARNINGS, TreeError, Warning, WarningKind};
use crate::layer::{Entry, Extent, Xattrs};

/// Prefixes of xattrs that overlayfs gives a meaning to: shown to it, they would hide or redirect
/// files.
const OVERLAY_XATTRS: [&[u8]; 2] = [b"trusted.overlay.", b"user.overlay."];

/// A name in a directory.
#[derive(Debug, Clone, Copy)]
pub(super) struct Slot<'a> {
    pub(super) name: &'a [u8],
    pub(super) parent: u32,
    /// [`REMOVED`] for a name that is known not to exist.
    pub(super) node: u32,
    /// The layer that set it last.
    pub(super) layer: u16,
}

/// Where a name is or would be in the table.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place<'a> {
    parent: u32,
    name: &'a [u8],
    hash: u64,
    pub(super) slot: Option<u32>,
}

#[derive(Debug)]
pub(super) struct Builder<'a> {
    /// Whether nothing lies below the layers given.
    pub(super) complete: bool,
    pub(super) root: u32,
    pub(super) nodes: Vec<Node>,
    pub(super) slots: Vec<Slot<'a>>,
    table: HashTable<u32>,
    seed: u64,
    pub(super) targets: Vec<&'a [u8]>,
    pub(super) extents: Vec<&'a [Extent]>,
    pub(super) xattrs: Vec<Xattrs>,
    xattr_sets: HashMap<Xattrs, u32>,
    /// Sets already seen, by the address of the slice in its table of contents.
    xattr_slices: HashMap<(usize, usize), u32>,
    pub(super) warnings: Vec<Warning>,
}

impl<'a> Builder<'a> {
    /// A builder with room for `entries`; `complete` if nothing lies below the layers to come.
    pub(super) fn new(entries: usize, complete: bool) -> Self {
        let flags = if complete { COMPLETE | ATTRIBUTES } else { 0 };
        let mut nodes = Vec::with_capacity(entries + 1);
        nodes.push(Node {
            flags,
            ..Node::IMPLICIT
        });
        Self {
            complete,
            root: 0,
            nodes,
            slots: Vec::with_capacity(entries),
            table: HashTable::with_capacity(entries),
            // Random, so that no layer can be made of names that collide; the result does not
            // depend on it.
            seed: RandomState::new().hash_one(0),
            targets: Vec::new(),
            extents: Vec::new(),
            xattrs: Vec::new(),
            xattr_sets: HashMap::new(),
            xattr_slices: HashMap::new(),
            warnings: Vec::new(),
        }
    }

    pub(super) fn node(&self, node: u32) -> &Node {
        &self.nodes[node as usize]
    }

    /// Looks a name up.
    pub(super) fn place<'b>(&self, parent: u32, name: &'b [u8]) -> Place<'b> {
        let hash = hash(self.seed, parent, name);
        let slot = self.table.find(hash, |slot| {
            let slot = &self.slots[*slot as usize];
            slot.parent == parent && slot.name == name
        });
        Place {
            parent,
            name,
            hash,
            slot: slot.copied(),
        }
    }

    /// What the place stands for now.
    pub(super) fn at(&self, place: &Place<'_>) -> Child {
        match place.slot.map(|slot| self.slots[slot as usize].node) {
            Some(REMOVED) => Child::Absent,
            Some(node) => Child::Node(node),
            None if self.node(place.parent).has(COMPLETE) => Child::Absent,
            None => Child::Unknown,
        }
    }

    /// Whether the layer has an entry at this place, or made a directory of it.
    pub(super) fn is_set_by(&self, place: &Place<'_>, layer: u16) -> bool {
        (place.slot).is_some_and(|slot| self.slots[slot as usize].layer == layer)
    }

    /// Lets the place stand for `node` from now on; gives the slot.
    pub(super) fn put(
        &mut self,
        place: &Place<'a>,
        node: u32,
        layer: u16,
    ) -> Result<u32, TreeError> {
        if let Some(slot) = place.slot {
            let filled = &mut self.slots[slot as usize];
            filled.node = node;
            filled.layer = layer;
            return Ok(slot);
        }
        let slot = position(self.slots.len(), "names")?;
        self.slots.push(Slot {
            name: place.name,
            parent: place.parent,
            node,
            layer,
        });
        let (slots, seed) = (&self.slots, self.seed);
        self.table.insert_unique(place.hash, slot, |slot| {
            let slot = &slots[*slot as usize];
            hash(seed, slot.parent, slot.name)
        });
        Ok(slot)
    }

    pub(super) fn add(&mut self, node: Node) -> Result<u32, TreeError> {
        let number = position(self.nodes.len(), "files")?;
        self.nodes.push(node);
        Ok(number)
    }

    /// A directory that no entry asked for, at a place that is absent or of which nothing is known.
    pub(super) fn add_implicit(
        &mut self,
        place: &Place<'a>,
        layer: u16,
        known: bool,
    ) -> Result<u32, TreeError> {
        let flags = if known { COMPLETE | ATTRIBUTES } else { 0 };
        let node = self.add(Node {
            flags,
            layer,
            parent: place.parent,
            ..Node::IMPLICIT
        })?;
        self.put(place, node, layer)?;
        Ok(node)
    }

    /// Gives a node the attributes of an entry.
    pub(super) fn set_attributes(&mut self, node: u32, entry: &Entry<'a>) -> Result<(), TreeError> {
        let xattrs = self.xattr_set(entry.xattrs)?;
        let node = &mut self.nodes[node as usize];
        node.mode = match node.kind {
            // Linux has no modes for symlinks: what unpackers make is always 0777.
            Kind::Symlink => 0o777,
            // Twelve bits fit.
            _ => u16::try_from(entry.mode & 0o7777).unwrap_or_default(),
        };
        node.uid = entry.uid;
        node.gid = entry.gid;
        node.mtime_seconds = entry.mtime.seconds;
        node.mtime_nanoseconds = entry.mtime.nanoseconds;
        node.xattrs = xattrs;
        node.flags |= ATTRIBUTES;
        Ok(())
    }

    /// The target of a symlink; `value` numbers it while the tree is built.
    pub(super) fn target(&self, symlink: &Node) -> &'a [u8] {
        let number = usize::try_from(symlink.value).unwrap_or(usize::MAX);
        self.targets.get(number).copied().unwrap_or_default()
    }

    pub(super) fn warn(&mut self, layer: u16, path: &[u8], kind: WarningKind) {
        let kind = match self.warnings.len() {
            MAX_WARNINGS.. => return,
            length if length + 1 == MAX_WARNINGS => WarningKind::More,
            _ => kind,
        };
        self.warnings.push(Warning {
            layer: usize::from(layer),
            path: path.to_vec(),
            kind,
        });
    }

    fn xattr_set(&mut self, xattrs: &'a [(Vec<u8>, Vec<u8>)]) -> Result<u32, TreeError> {
        if xattrs.is_empty() {
            return Ok(0);
        }
        let address = (xattrs.as_ptr().addr(), xattrs.len());
        if let Some(number) = self.xattr_slices.get(&address) {
            return Ok(*number);
        }
        let internal = |name: &[u8]| OVERLAY_XATTRS.iter().any(|prefix| name.starts_with(prefix));
        let shown: Xattrs = (xattrs.iter())
            .filter(|(name, _)| !internal(name))
            .cloned()
            .collect();
        let number = match self.xattr_sets.get(&shown) {
            _ if shown.is_empty() => 0,
            Some(number) => *number,
            None => {
                self.xattrs.push(shown.clone());
                let number = position(self.xattrs.len(), "sets of xattrs")?;
                self.xattr_sets.insert(shown, number);
                number
            }
        };
        self.xattr_slices.insert(address, number);
        Ok(number)
    }
}

impl View for Builder<'_> {
    fn root(&self) -> u32 {
        self.root
    }

    fn child(&self, directory: u32, name: &[u8]) -> Child {
        self.at(&self.place(directory, name))
    }

    fn shape(&self, node: u32) -> Shape<'_> {
        let node = self.node(node);
        match node.kind {
            Kind::Directory => Shape::Directory,
            Kind::Symlink => Shape::Symlink(self.target(node)),
            Kind::UnresolvedLink => Shape::Link,
            Kind::Phantom => Shape::Unknown,
            _ => Shape::Other,
        }
    }

    fn parent(&self, directory: u32) -> u32 {
        self.node(directory).parent
    }
}

/// A position as 32 bits, the last value kept free for [`REMOVED`].
pub(super) fn position(length: usize, what: &'static str) -> Result<u32, TreeError> {
    match u32::try_from(length) {
        Ok(position) if position < REMOVED => Ok(position),
        _ => Err(TreeError::TooLarge { what }),
    }
}

/// A multiply-and-fold hash, eight bytes at a time: names are short, and one probe per entry is
/// most of what a build costs.
fn hash(seed: u64, parent: u32, name: &[u8]) -> u64 {
    const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
    const LAST: u64 = 0xd6e8_feb8_6659_fd93;
    let mut state = fold(seed ^ u64::from(parent), STEP);
    let (words, rest) = name.as_chunks::<8>();
    for word in words {
        state = fold(state ^ u64::from_le_bytes(*word), STEP);
    }
    let mut last = [0; 8];
    for (to, from) in last.iter_mut().zip(rest) {
        *to = *from;
    }
    state = fold(state ^ u64::from_le_bytes(last), STEP);
    fold(state ^ name.len() as u64, LAST)
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "the two halves are what is wanted"
)]
fn fold(left: u64, right: u64) -> u64 {
    let product = u128::from(left) * u128::from(right);
    product as u64 ^ (product >> 64) as u64
}
