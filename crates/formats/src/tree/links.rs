//! Hard links that wait for the end of their layer: to a member further on in the tar, or to a
//! lower layer.
//!
//! A target is looked for among the layer's own entries first, then in the merged tree, whose
//! symlinks are followed above the last component. A link to a lower layer shares that file and
//! leaves its attributes. A link to nothing becomes a file that cannot be read, with a warning;
//! where lower layers are not opened it stays [`Kind::UnresolvedLink`].

use super::WarningKind;
use super::builder::Builder;
use super::node::{Kind, Node};
use super::resolve::{Child, Shape, View, Walk, walk};

/// Most symlinks on the way to the target.
const MAX_TARGET_LINKS: usize = 255;

/// The kernel answers reads of an empty file itself; of one byte it has to ask, and the reader
/// learns of it.
const BROKEN_LINK_SIZE: u64 = 1;

/// A hard link that waits.
#[derive(Debug, Clone, Copy)]
pub(super) struct PendingLink<'a> {
    pub(super) slot: u32,
    /// Stands in the slot until the link is settled.
    pub(super) node: u32,
    pub(super) target: &'a [u8],
    /// The link's own name, for a warning.
    pub(super) path: &'a [u8],
}

#[derive(Debug, Clone, Copy)]
enum Progress {
    New,
    Seen,
    Unresolved,
}

enum Outcome {
    Node(u32),
    Broken,
    Unresolved,
}

impl<'a> Builder<'a> {
    /// The node that this layer's own entries have under a name; no directory, and no link that
    /// waits.
    pub(super) fn find_in_layer(&self, layer: u16, target: &[u8]) -> Option<u32> {
        let view = OwnEntries {
            builder: self,
            layer,
        };
        match walk(&view, without_slash(target), false, MAX_TARGET_LINKS) {
            Walk::Node(node)
                if !matches!(self.node(node).kind, Kind::Directory | Kind::UnresolvedLink) =>
            {
                Some(node)
            }
            _ => None,
        }
    }

    /// Settles the links that the layer left waiting.
    pub(super) fn settle_links(&mut self, layer: u16, pending: &[PendingLink<'a>]) {
        let mut progress = vec![Progress::New; pending.len()];
        let mut chain = Vec::new();
        for first in 0..pending.len() {
            let mut current = first;
            // A link can lead to another that waits: all of a chain end at the same node.
            let outcome = loop {
                let link = &pending[current];
                match progress[current] {
                    // A circle, or, with an empty chain, nothing left to do.
                    Progress::Seen => break Outcome::Broken,
                    Progress::Unresolved => break Outcome::Unresolved,
                    Progress::New => progress[current] = Progress::Seen,
                }
                if self.slots[link.slot as usize].node != link.node {
                    // A later entry has the name now.
                    break Outcome::Broken;
                }
                chain.push(current);
                match self.find_target(layer, link.target) {
                    Walk::Unknown if !self.complete => break Outcome::Unresolved,
                    Walk::Unknown | Walk::Absent(_) => break Outcome::Broken,
                    Walk::Node(node) => {
                        let found = self.node(node);
                        match found.kind {
                            Kind::Directory => break Outcome::Broken,
                            Kind::UnresolvedLink if is_pending(found, node, layer, pending) => {
                                current = usize::try_from(found.value).unwrap_or(usize::MAX);
                            }
                            _ => break Outcome::Node(node),
                        }
                    }
                }
            };
            for link in chain.drain(..) {
                if matches!(outcome, Outcome::Unresolved) {
                    progress[link] = Progress::Unresolved;
                }
                self.settle(layer, &pending[link], &outcome);
            }
        }
    }

    fn settle(&mut self, layer: u16, link: &PendingLink<'a>, outcome: &Outcome) {
        match outcome {
            Outcome::Node(node) => self.slots[link.slot as usize].node = *node,
            Outcome::Unresolved => {}
            Outcome::Broken => {
                let node = &mut self.nodes[link.node as usize];
                node.kind = Kind::BrokenLink;
                node.size = BROKEN_LINK_SIZE;
                self.warn(layer, link.path, WarningKind::MissingLinkTarget);
            }
        }
    }

    /// The target among the layer's own entries, else in the merged tree.
    fn find_target(&self, layer: u16, target: &[u8]) -> Walk {
        let target = without_slash(target);
        let own = OwnEntries {
            builder: self,
            layer,
        };
        match walk(&own, target, false, MAX_TARGET_LINKS) {
            Walk::Node(node) => Walk::Node(node),
            _ => walk(self, target, false, MAX_TARGET_LINKS),
        }
    }
}

fn is_pending(found: &Node, number: u32, layer: u16, pending: &[PendingLink<'_>]) -> bool {
    let link = usize::try_from(found.value).ok();
    let link = link.and_then(|link| pending.get(link));
    found.layer == layer && link.is_some_and(|link| link.node == number)
}

fn without_slash(mut path: &[u8]) -> &[u8] {
    while let [rest @ .., b'/'] = path {
        path = rest;
    }
    path
}

/// The merged tree as a single layer sees it: only what its own entries have set, or lie below.
struct OwnEntries<'b, 'a> {
    builder: &'b Builder<'a>,
    layer: u16,
}

impl View for OwnEntries<'_, '_> {
    fn root(&self) -> u32 {
        self.builder.root
    }

    fn child(&self, directory: u32, name: &[u8]) -> Child {
        let place = self.builder.place(directory, name);
        match self.builder.at(&place) {
            Child::Node(node) if self.builder.is_set_by(&place, self.layer) => Child::Node(node),
            _ => Child::Absent,
        }
    }

    fn shape(&self, node: u32) -> Shape<'_> {
        self.builder.shape(node)
    }

    fn parent(&self, directory: u32) -> u32 {
        self.builder.parent(directory)
    }
}
