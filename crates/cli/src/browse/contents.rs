//! An open image, for questions about single layers: what each one did, and how much of it is left.
//!
//! Trees of single layers are built when somebody asks: an image of a hundred layers would fill the
//! memory with all of them.

use std::collections::HashMap;
use std::sync::Arc;

use anyhow::Context;

use super::model::{LayerSum, Listed, Listing, Summary};
use crate::digests::digests_of;
use imgfs_core::image::Opened;
use imgfs_core::store::Store;
use imgfs_core::view::ImageFs;
use imgfs_formats::layer::{EntryKind, Extent, Hash, Toc};
use imgfs_formats::tree::{Content, Ino, Tree};

/// The open image.
pub(super) struct Contents {
    store: Arc<Store>,
    opened: Opened,
    /// What the layers hold, base first.
    tocs: Vec<Arc<Toc>>,
}

impl Contents {
    pub(super) fn new(store: Arc<Store>, opened: Opened, tocs: Vec<Arc<Toc>>) -> Self {
        Self {
            store,
            opened,
            tocs,
        }
    }

    /// What the layers added, and what of that is in the merged tree.
    pub(super) fn summary(&self) -> Summary {
        let tree = self.opened.fs.tree();
        let mut left = vec![0_u64; self.tocs.len()];
        for ino in (1..=tree.len() as u64).map(Ino::new) {
            let (layer, bytes) = match tree.node(ino).map(|node| tree.content(node)) {
                Some(Content::File { layer, size, .. }) => (layer, size),
                Some(Content::SparseFile { layer, extents, .. }) => (layer, stored(extents)),
                _ => continue,
            };
            if let Some(left) = left.get_mut(layer) {
                *left = left.saturating_add(bytes);
            }
        }
        let layers = self.tocs.iter().zip(left);
        let layers = layers.map(|(toc, left)| {
            let added = toc.iter().fold(0_u64, |sum, entry| {
                sum.saturating_add(match entry.kind {
                    EntryKind::File { size, .. } => size,
                    EntryKind::SparseFile { extents, .. } => stored(extents),
                    _ => 0,
                })
            });
            LayerSum {
                entries: toc.len(),
                added,
                wasted: added.saturating_sub(left),
            }
        });
        Summary {
            layers: layers.collect(),
            nodes: tree.totals().nodes,
        }
    }

    /// The paths of the image or up to a layer, with what became of them. Reads indexes, and takes
    /// its time.
    pub(super) fn listing(&self, listed: Listed) -> anyhow::Result<Listing> {
        let (below, up_to) = match listed {
            Listed::Image => (1, self.tocs.len()),
            Listed::Layer(layer) => (layer, layer + 1),
        };
        let old = self.fs(below)?;
        let new = self.fs(up_to)?;
        let mut digests = HashMap::new();
        let mut digest = |layer: usize, offset: u64| {
            let known = digests.entry(layer).or_insert_with(|| self.digests(layer));
            known.get(&offset).copied()
        };
        Ok(Listing::new(
            &old,
            &new,
            &mut |(a, at, size), (b, place, _)| {
                let pair = digest(a, at).zip(digest(b, place));
                size == 0 || pair.is_some_and(|(old, new)| old == new)
            },
        ))
    }

    /// The filesystem of the lowest `count` layers.
    fn fs(&self, count: usize) -> anyhow::Result<Arc<ImageFs>> {
        if count >= self.tocs.len() {
            return Ok(Arc::clone(&self.opened.fs));
        }
        let tocs: Vec<&Toc> = self.tocs.iter().take(count).map(|toc| &**toc).collect();
        let (tree, _) = Tree::build(&tocs).context("the layers cannot be merged")?;
        let readers = self.opened.layers.iter().take(count).cloned().collect();
        Ok(Arc::new(ImageFs::new(Arc::new(tree), readers)))
    }

    /// The digests of a layer's files by their offsets; none if its index has none or is not here
    /// any more.
    fn digests(&self, layer: usize) -> HashMap<u64, Hash> {
        let Some(reader) = self.opened.layers.get(layer) else {
            return HashMap::new();
        };
        digests_of(&self.store, reader.slot())
    }
}

/// Bytes of a sparse file that a layer holds.
fn stored(extents: &[Extent]) -> u64 {
    extents
        .iter()
        .fold(0, |sum, extent| sum.saturating_add(extent.length))
}
