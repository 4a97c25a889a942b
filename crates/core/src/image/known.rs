//! What can be said of an image's layers without a download: by its manifest, its config, and the
//! indexes that are here.

use super::resolve::Image;
use crate::error::Result;
use crate::indexes::pinned;
use crate::store::{Slot, Store, Trust};
use imgfs_formats::layer::{EntryKind, LayerIndex};
use imgfs_formats::oci::{BuildStep, Descriptor, DiffId};
use imgfs_formats::trust::IndexKind;

/// One layer.
#[derive(Debug, Clone)]
pub struct KnownLayer {
    /// The blob: digest, type and size as distributed.
    pub blob: Descriptor,
    /// Digest of the uncompressed tar.
    pub diff_id: DiffId,
    /// The step of the build that made it, if the config tells.
    pub step: Option<BuildStep>,
    /// What it can be read by without being streamed; `None` if nothing is known.
    pub index: Option<KnownIndex>,
    /// What is in it, if an index of it is here.
    pub content: Option<KnownContent>,
}

/// What a layer can be read by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownIndex {
    /// For people: `cache` for one that was made here, else the format or the place where it was
    /// found.
    pub source: IndexKind,
    /// How far it is bound to the layer.
    pub trust: Trust,
}

/// What an index says of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KnownContent {
    /// Members of its tar.
    pub entries: usize,
    /// Sizes of its regular files together, in bytes; of a file with several names once.
    pub files: u64,
}

/// The layers of an image, base first. Reads the disk, nothing else.
pub fn known_layers(store: &Store, image: &Image) -> Result<Vec<KnownLayer>> {
    let resolved = &image.resolved;
    let blobs = resolved.manifest.layers.iter();
    let steps = resolved.config.steps_of_layers().into_iter();
    let layers = blobs.zip(&resolved.config.rootfs.diff_ids).zip(steps);
    layers
        .map(|((blob, diff_id), step)| {
            let (index, content) = index_here(store, blob)?;
            Ok(KnownLayer {
                blob: blob.clone(),
                diff_id: *diff_id,
                step,
                index,
                content,
            })
        })
        .collect()
}

/// The best index of a layer, and its content if it is here.
fn index_here(
    store: &Store,
    blob: &Descriptor,
) -> Result<(Option<KnownIndex>, Option<KnownContent>)> {
    if let Some(index) = store.load_index(&Slot::own(blob.digest), false)? {
        let known = KnownIndex {
            source: IndexKind::Cache,
            trust: Trust::Proven,
        };
        return Ok((Some(known), Some(content(&index))));
    }
    let mut found = store.found_indexes(&blob.digest)?;
    found.sort_by_key(|(_, finding)| finding.trust != Trust::Pinned);
    for (slot, finding) in found {
        if store.refusal(&slot)?.is_some() {
            continue;
        }
        if let Some(index) = store.load_index(&slot, false)? {
            let known = KnownIndex {
                source: finding.origin,
                trust: finding.trust,
            };
            return Ok((Some(known), Some(content(&index))));
        }
    }
    let announced = pinned(blob).map(|(_, format)| KnownIndex {
        source: format,
        trust: Trust::Pinned,
    });
    Ok((announced, None))
}

fn content(index: &LayerIndex) -> KnownContent {
    let sizes = index.toc.iter().map(|entry| match entry.kind {
        EntryKind::File { size, .. } | EntryKind::SparseFile { size, .. } => size,
        _ => 0,
    });
    KnownContent {
        entries: index.toc.len(),
        files: sizes.fold(0, u64::saturating_add),
    }
}
