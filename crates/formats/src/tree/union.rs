//! The union rules: what a layer's entries do to the tree below it.
//!
//! A layer is applied in two passes, its whiteouts against the layers below and then its entries in
//! tar order; so the order of a whiteout and an entry inside the tar cannot matter. Hard links
//! whose target is not there yet wait for the end of the layer (`links`).
//!
//! The rules are those of extraction to overlayfs, where each layer is a directory of its own: a
//! directory merges with the directory below it, anything else replaces; a symlink of a lower layer
//! is never followed, one of the same layer is. Whiteouts only take away: their missing parents are
//! not created.
//!
//! If layers below have not been opened ([`Below::Unopened`]), removals are remembered in
//! directories that may not exist ([`Kind::Phantom`]), and every node says whether lower layers
//! could still add to it.

use super::builder::{Builder, Place};
use super::links::PendingLink;
use super::node::{COMPLETE, Kind, Node, REMOVED, join};
use super::path::{Role, clean, role, split_last};
use super::resolve::Child;
use super::{MAX_LAYERS, MAX_NAME, MAX_PATH, Tree, TreeError, Warning, WarningKind};
use crate::layer::{Entry, EntryKind, Toc};

/// Most symlinks of one layer that an entry's parents may lead through, as containerd's `RootPath`.
const MAX_PARENT_LINKS: usize = 255;

/// What lies below the layers given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Below {
    Nothing,
    Unopened,
}

pub(super) fn build(layers: &[&Toc], below: Below) -> Result<(Tree, Vec<Warning>), TreeError> {
    if layers.len() > MAX_LAYERS {
        return Err(TreeError::TooManyLayers {
            found: layers.len(),
        });
    }
    let entries = layers.iter().map(|toc| toc.len()).sum();
    let mut builder = Builder::new(entries, below == Below::Nothing);
    for (number, toc) in (0..).zip(layers) {
        apply_whiteouts(&mut builder, number, toc)?;
        apply_entries(&mut builder, number, toc)?;
    }
    builder.finish(layers.len())
}

/// The first pass.
fn apply_whiteouts<'a>(
    builder: &mut Builder<'a>,
    layer: u16,
    toc: &'a Toc,
) -> Result<(), TreeError> {
    let mut components = Vec::new();
    for entry in toc.iter() {
        let (_, last) = split_last(entry.path);
        // Only a name that begins so, or that cleaning could change, can be a whiteout.
        if !last.starts_with(b".wh.") && last != b"." && last != b".." {
            continue;
        }
        clean(entry.path, &mut components);
        let Some((last, parents)) = components.split_last() else {
            continue;
        };
        if parents.iter().any(|name| role(name) != Role::Entry) {
            continue;
        }
        match role(last) {
            Role::Entry | Role::Metadata => {}
            Role::Remove(name) => remove(builder, layer, parents, name)?,
            Role::Opaque => make_opaque(builder, layer, parents)?,
            Role::Invalid => {
                return Err(TreeError::InvalidWhiteout {
                    layer: usize::from(layer),
                    path: entry.path.to_vec(),
                });
            }
        }
    }
    Ok(())
}

fn remove<'a>(
    builder: &mut Builder<'a>,
    layer: u16,
    parents: &[&'a [u8]],
    name: &'a [u8],
) -> Result<(), TreeError> {
    let Some(directory) = enter(builder, layer, parents)? else {
        return Ok(());
    };
    if name.len() > MAX_NAME {
        return Ok(());
    }
    let place = builder.place(directory, name);
    match builder.at(&place) {
        Child::Absent => {}
        Child::Node(_) | Child::Unknown => {
            builder.put(&place, REMOVED, layer)?;
        }
    }
    Ok(())
}

fn make_opaque<'a>(
    builder: &mut Builder<'a>,
    layer: u16,
    directory: &[&'a [u8]],
) -> Result<(), TreeError> {
    let Some(node) = enter(builder, layer, directory)? else {
        return Ok(());
    };
    let mut opaque = *builder.node(node);
    opaque.flags |= COMPLETE;
    let opaque = builder.add(opaque)?;
    let Some((name, parents)) = directory.split_last() else {
        builder.root = opaque;
        builder.nodes[opaque as usize].parent = opaque;
        return Ok(());
    };
    if let Some(parent) = enter(builder, layer, parents)? {
        let place = builder.place(parent, name);
        builder.put(&place, opaque, layer)?;
    }
    Ok(())
}

/// The directory with these cleaned components, if it exists or may exist; whiteouts create
/// nothing.
fn enter<'a>(
    builder: &mut Builder<'a>,
    layer: u16,
    components: &[&'a [u8]],
) -> Result<Option<u32>, TreeError> {
    let mut current = builder.root;
    for name in components {
        if name.len() > MAX_NAME {
            return Ok(None);
        }
        let place = builder.place(current, name);
        current = match builder.at(&place) {
            Child::Node(node) => match builder.node(node).kind {
                Kind::Directory | Kind::Phantom => node,
                _ => return Ok(None),
            },
            Child::Absent => return Ok(None),
            Child::Unknown => {
                let node = builder.add_implicit(&place, layer, false)?;
                builder.nodes[node as usize].kind = Kind::Phantom;
                node
            }
        };
    }
    Ok(Some(current))
}

/// The second pass.
fn apply_entries<'a>(builder: &mut Builder<'a>, layer: u16, toc: &'a Toc) -> Result<(), TreeError> {
    let mut pass = Pass {
        builder,
        layer,
        components: Vec::new(),
        pending: Vec::new(),
        last_parent: None,
        trail: Vec::new(),
    };
    for entry in toc.iter() {
        pass.apply(&entry)?;
    }
    let pending = pass.pending;
    builder.settle_links(layer, &pending);
    Ok(())
}

/// One layer's second pass.
struct Pass<'b, 'a> {
    builder: &'b mut Builder<'a>,
    layer: u16,
    components: Vec<&'a [u8]>,
    pending: Vec<PendingLink<'a>>,
    /// The parent of the entry before, as the tar names it: entries of one directory mostly follow
    /// another.
    last_parent: Option<(&'a [u8], u32)>,
    /// The directories above it, from the root on, up to the first symlink.
    trail: Vec<(&'a [u8], u32)>,
}

impl<'a> Pass<'_, 'a> {
    fn apply(&mut self, entry: &Entry<'a>) -> Result<(), TreeError> {
        let Some((parent, name)) = self.find_parent(entry)? else {
            return Ok(());
        };
        if let EntryKind::SparseFile { size, .. } | EntryKind::File { size, .. } = entry.kind
            && i64::try_from(size).is_err()
        {
            let (layer, kind) = (self.layer, WarningKind::SizeTooLarge);
            self.builder.warn(layer, entry.path, kind);
            return Ok(());
        }
        let place = self.builder.place(parent, name);
        match entry.kind {
            EntryKind::Directory => self.put_directory(&place, parent, entry),
            EntryKind::HardLink { target } => self.put_hard_link(&place, target, entry),
            _ => {
                let node = self.add_node(entry)?;
                self.replace(&place, node)
            }
        }
    }

    /// The entry's directory and its name there; nothing if it is a whiteout, hidden, or the root.
    fn find_parent(&mut self, entry: &Entry<'a>) -> Result<Option<(u32, &'a [u8])>, TreeError> {
        let (parent, name) = split_last(entry.path);
        if let Some((last, node)) = self.last_parent
            && last == parent
            && is_plain(name)
            && entry.path.len() <= MAX_PATH
        {
            return Ok(Some((node, name)));
        }
        let layer = self.layer;
        let mut components = std::mem::take(&mut self.components);
        clean(entry.path, &mut components);
        let found = match components.split_last() {
            None => {
                self.put_root(entry)?;
                None
            }
            Some((last, _)) if role(last) != Role::Entry => None,
            Some((last, parents)) => match hidden(entry.path, &components) {
                Some(Hidden::Silently) => None,
                Some(Hidden::Because(kind)) => {
                    self.builder.warn(layer, entry.path, kind);
                    None
                }
                None => (self.make_parents(parents, entry)?).map(|node| (node, *last)),
            },
        };
        self.components = components;
        self.last_parent = match found {
            Some((node, _)) if is_plain(name) => Some((parent, node)),
            _ => None,
        };
        Ok(found)
    }

    fn put_root(&mut self, entry: &Entry<'a>) -> Result<(), TreeError> {
        if entry.kind == EntryKind::Directory {
            return self.builder.set_attributes(self.builder.root, entry);
        }
        let (layer, kind) = (self.layer, WarningKind::RootNotDirectory);
        self.builder.warn(layer, entry.path, kind);
        Ok(())
    }

    /// Walks to the directory with these components and makes what is missing. Symlinks of this
    /// layer are followed within the root; what else is no directory gives way if it is a lower
    /// layer's.
    fn make_parents(
        &mut self,
        parents: &[&'a [u8]],
        entry: &Entry<'a>,
    ) -> Result<Option<u32>, TreeError> {
        let builder = &mut *self.builder;
        let mut current = builder.root;
        let mut known = 0;
        for ((name, node), parent) in self.trail.iter().zip(parents) {
            if name != parent {
                break;
            }
            current = *node;
            known += 1;
        }
        self.trail.truncate(known);
        let mut links = 0;
        let mut pending: Vec<&'a [u8]> = Vec::new();
        pending.extend(parents.iter().skip(known).rev());
        while let Some(name) = pending.pop() {
            match name {
                b"" | b"." => continue,
                b".." => {
                    current = builder.node(current).parent;
                    continue;
                }
                _ => {}
            }
            let place = builder.place(current, name);
            let there = builder.at(&place);
            let Child::Node(node) = there else {
                // `hidden` saw the entry's own name, not where links lead.
                let odd = match name {
                    _ if name.len() > MAX_NAME => Some(WarningKind::NameTooLong),
                    _ if name.contains(&0) => Some(WarningKind::NulInName),
                    _ => None,
                };
                if let Some(kind) = odd {
                    builder.warn(self.layer, entry.path, kind);
                    return Ok(None);
                }
                let known = there == Child::Absent;
                current = builder.add_implicit(&place, self.layer, known)?;
                if links == 0 {
                    self.trail.push((name, current));
                }
                continue;
            };
            match builder.node(node).kind {
                Kind::Directory | Kind::Phantom => {
                    builder.nodes[node as usize].kind = Kind::Directory;
                    // The layer has this directory too now: its own hard links may lead through it.
                    builder.put(&place, node, self.layer)?;
                    current = node;
                }
                _ if !builder.is_set_by(&place, self.layer) => {
                    current = builder.add_implicit(&place, self.layer, true)?;
                }
                Kind::Symlink => {
                    links += 1;
                    if links > MAX_PARENT_LINKS {
                        return Err(TreeError::TooManyLinks {
                            layer: usize::from(self.layer),
                            path: entry.path.to_vec(),
                        });
                    }
                    let target = builder.target(builder.node(node));
                    if target.starts_with(b"/") {
                        current = builder.root;
                    }
                    pending.extend(target.rsplit(|byte| *byte == b'/'));
                    continue;
                }
                _ => {
                    return Err(TreeError::ParentNotDirectory {
                        layer: usize::from(self.layer),
                        path: entry.path.to_vec(),
                        parent: name.to_vec(),
                    });
                }
            }
            if links == 0 {
                self.trail.push((name, current));
            }
        }
        Ok(Some(current))
    }

    fn put_directory(
        &mut self,
        place: &Place<'a>,
        parent: u32,
        entry: &Entry<'a>,
    ) -> Result<(), TreeError> {
        let there = self.builder.at(place);
        let node = match there {
            Child::Node(node) => match self.builder.node(node).kind {
                Kind::Directory | Kind::Phantom => Some(node),
                _ => None,
            },
            _ => None,
        };
        let node = if let Some(node) = node {
            self.builder.nodes[node as usize].kind = Kind::Directory;
            self.builder.put(place, node, self.layer)?;
            node
        } else {
            let known = there != Child::Unknown;
            let node = self.builder.add(Node {
                layer: self.layer,
                parent,
                flags: if known { COMPLETE } else { 0 },
                ..Node::IMPLICIT
            })?;
            self.replace(place, node)?;
            node
        };
        self.builder.set_attributes(node, entry)
    }

    fn put_hard_link(
        &mut self,
        place: &Place<'a>,
        target: &'a [u8],
        entry: &Entry<'a>,
    ) -> Result<(), TreeError> {
        if let Some(node) = self.builder.find_in_layer(self.layer, target) {
            // Unpackers change owner, mode and times after linking: the last entry of the group
            // wins.
            self.builder.set_attributes(node, entry)?;
            return self.replace(place, node);
        }
        let node = self.builder.add(Node {
            kind: Kind::UnresolvedLink,
            layer: self.layer,
            value: self.pending.len() as u64,
            ..Node::IMPLICIT
        })?;
        self.builder.set_attributes(node, entry)?;
        self.forget_parent(place);
        let slot = self.builder.put(place, node, self.layer)?;
        self.pending.push(PendingLink {
            slot,
            node,
            target,
            path: entry.path,
        });
        Ok(())
    }

    /// A new node for an entry that is neither a directory nor a hard link.
    fn add_node(&mut self, entry: &Entry<'a>) -> Result<u32, TreeError> {
        let builder = &mut *self.builder;
        let (kind, size, value) = match entry.kind {
            EntryKind::File { offset, size } => (Kind::File, size, offset),
            EntryKind::SparseFile { extents, size } => {
                builder.extents.push(extents);
                let number = builder.extents.len() as u64 - 1;
                (Kind::SparseFile, size, number)
            }
            EntryKind::Symlink { target } => {
                builder.targets.push(target);
                let number = builder.targets.len() as u64 - 1;
                (Kind::Symlink, target.len() as u64, number)
            }
            EntryKind::CharDevice { major, minor } => (Kind::CharDevice, 0, join(major, minor)),
            EntryKind::BlockDevice { major, minor } => (Kind::BlockDevice, 0, join(major, minor)),
            EntryKind::Fifo => (Kind::Fifo, 0, 0),
            EntryKind::Directory | EntryKind::HardLink { .. } => {
                unreachable!("put_directory and put_hard_link take these")
            }
        };
        let node = builder.add(Node {
            kind,
            size,
            value,
            layer: self.layer,
            ..Node::IMPLICIT
        })?;
        builder.set_attributes(node, entry)?;
        Ok(node)
    }

    fn replace(&mut self, place: &Place<'a>, node: u32) -> Result<(), TreeError> {
        self.forget_parent(place);
        self.builder.put(place, node, self.layer)?;
        Ok(())
    }

    /// The way to the last parent may lead through what is about to be replaced.
    fn forget_parent(&mut self, place: &Place<'a>) {
        if let Child::Node(node) = self.builder.at(place)
            && !matches!(self.builder.node(node).kind, Kind::File)
        {
            self.last_parent = None;
            self.trail.clear();
        }
    }
}

/// Whether a last component is a name as it stands and no whiteout.
fn is_plain(name: &[u8]) -> bool {
    !matches!(name, b"" | b"." | b"..")
        && name.len() <= MAX_NAME
        && !name.starts_with(b".wh.")
        && !name.contains(&0)
}

enum Hidden {
    Silently,
    Because(WarningKind),
}

/// Why an entry with these components cannot be shown.
fn hidden(path: &[u8], components: &[&[u8]]) -> Option<Hidden> {
    let (_, parents) = components.split_last()?;
    let length: usize = components.iter().map(|name| name.len() + 1).sum();
    if parents.iter().any(|name| role(name) == Role::Metadata) {
        return Some(Hidden::Silently);
    }
    let kind = if parents.iter().any(|name| role(name) != Role::Entry) {
        WarningKind::BelowWhiteout
    } else if components.iter().any(|name| name.len() > MAX_NAME) {
        WarningKind::NameTooLong
    } else if length > MAX_PATH {
        WarningKind::PathTooLong
    } else if path.contains(&0) {
        WarningKind::NulInName
    } else {
        return None;
    };
    Some(Hidden::Because(kind))
}

const _: () = assert!(MAX_LAYERS < u16::MAX as usize);
