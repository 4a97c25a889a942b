//! Numbering: from the builder's slots to the finished arena.
//!
//! Slots are grouped by directory with one counting pass, then the new arena is its own queue: each
//! directory in turn sorts its children and numbers those that have no number yet. What no name
//! leads to is left behind.

use super::builder::{Builder, Slot, position};
use super::node::{COMPLETE, Dirent, Kind, Node, REMOVED, Totals, join};
use super::{MAX_NAME, Tree, TreeError, Warning};

/// Stands for a node that has no number yet.
const UNNUMBERED: u32 = u32::MAX;

impl Builder<'_> {
    pub(super) fn finish(self, layers: usize) -> Result<(Tree, Vec<Warning>), TreeError> {
        let (starts, mut order) = self.group_by_parent()?;
        let mut numbers = vec![UNNUMBERED; self.nodes.len()];
        let names: usize = self.slots.iter().map(|slot| slot.name.len()).sum();
        let targets: usize = self.targets.iter().map(|target| target.len()).sum();
        let mut tree = Tree {
            nodes: Vec::with_capacity(self.nodes.len()),
            dirents: Vec::with_capacity(order.len()),
            strings: Vec::with_capacity(names + targets),
            extents: Vec::new(),
            xattrs: Vec::new(),
            layers,
            totals: Totals::default(),
        };
        // Old numbers of the new nodes.
        let mut queue = Vec::with_capacity(self.nodes.len());
        numbers[self.root as usize] = 0;
        queue.push(self.root);
        tree.nodes.push(Node {
            parent: 0,
            ..*self.node(self.root)
        });
        let mut next = 0;
        while let Some(old) = queue.get(next).copied() {
            let number = position(next, "files")?;
            next += 1;
            self.move_content(&mut tree, number)?;
            if !matches!(self.node(old).kind, Kind::Directory | Kind::Phantom) {
                continue;
            }
            let range = starts[old as usize] as usize..starts[old as usize + 1] as usize;
            let children = &mut order[range];
            children.sort_unstable_by_key(|slot| self.slots[*slot as usize].name);
            let complete = self.node(old).has(COMPLETE);
            let first = position(tree.dirents.len(), "names")?;
            let mut directories = 0;
            for slot in children {
                let slot = &self.slots[*slot as usize];
                if slot.node == REMOVED {
                    // Where nothing shows through there is nothing to hide.
                    if !complete {
                        push_name(&mut tree, slot, REMOVED)?;
                    }
                    continue;
                }
                let child = &mut numbers[slot.node as usize];
                if *child == UNNUMBERED {
                    *child = position(tree.nodes.len(), "files")?;
                    let mut node = *self.node(slot.node);
                    node.parent = number;
                    node.nlink = 0;
                    tree.nodes.push(node);
                    queue.push(slot.node);
                }
                let child = *child;
                push_name(&mut tree, slot, child)?;
                let node = &mut tree.nodes[child as usize];
                if node.is_directory() {
                    node.nlink = 2;
                    directories += 1;
                } else {
                    node.nlink += 1;
                }
            }
            let count = position(tree.dirents.len(), "names")? - first;
            let node = &mut tree.nodes[number as usize];
            node.value = join(first, count);
            node.nlink = 2 + directories;
        }
        tree.totals = totals(&tree.nodes);
        let warnings = self.warnings;
        if tree.nodes.iter().any(|node| node.xattrs != 0) {
            tree.xattrs = self.xattrs;
        }
        tree.nodes.shrink_to_fit();
        tree.dirents.shrink_to_fit();
        tree.strings.shrink_to_fit();
        tree.extents.shrink_to_fit();
        Ok((tree, warnings))
    }

    /// Slots ordered by the directory they are in, and where each directory's begin.
    fn group_by_parent(&self) -> Result<(Vec<u32>, Vec<u32>), TreeError> {
        let mut ends = vec![0_u32; self.nodes.len() + 1];
        for slot in &self.slots {
            ends[slot.parent as usize] += 1;
        }
        let mut sum = 0;
        for end in &mut ends {
            sum += *end;
            *end = sum;
        }
        let mut order = vec![0; self.slots.len()];
        for (slot, filled) in self.slots.iter().enumerate() {
            let end = &mut ends[filled.parent as usize];
            *end -= 1;
            order[*end as usize] = position(slot, "names")?;
        }
        // Counted down, the ends have become starts; the one behind the last is the number of
        // slots.
        Ok((ends, order))
    }

    /// Replaces the number in a node's `value` by the place in the tree's own tables.
    fn move_content(&self, tree: &mut Tree, number: u32) -> Result<(), TreeError> {
        let node = &mut tree.nodes[number as usize];
        match node.kind {
            Kind::Symlink => {
                let target = self.target(node);
                node.value = u64::from(position(tree.strings.len(), "bytes of names")?);
                tree.strings.extend_from_slice(target);
            }
            Kind::SparseFile => {
                let source = usize::try_from(node.value).ok();
                let source = source.and_then(|number| self.extents.get(number));
                let extents = source.copied().unwrap_or_default();
                let first = position(tree.extents.len(), "extents")?;
                node.value = join(first, position(extents.len(), "extents")?);
                tree.extents.extend_from_slice(extents);
            }
            _ => {}
        }
        Ok(())
    }
}

fn push_name(tree: &mut Tree, slot: &Slot<'_>, node: u32) -> Result<(), TreeError> {
    let name = position(tree.strings.len(), "bytes of names")?;
    tree.strings.extend_from_slice(slot.name);
    // `union` hides longer names.
    let name_len = u8::try_from(slot.name.len()).unwrap_or_default();
    tree.dirents.push(Dirent {
        name,
        node,
        name_len,
    });
    Ok(())
}

fn totals(nodes: &[Node]) -> Totals {
    let mut totals = Totals::default();
    for node in nodes {
        totals.nodes += 1;
        if node.is_file() || node.kind == Kind::Symlink {
            totals.bytes = totals.bytes.saturating_add(node.size);
            totals.blocks = totals.blocks.saturating_add(node.size.div_ceil(512));
        }
    }
    totals
}

const _: () = assert!(MAX_NAME <= u8::MAX as usize);
