//! The digests that a layer's index in the cache has of its files.

use std::collections::HashMap;

use crate::layer::{EntryKind, Hash};
use crate::store::{Slot, Store};

/// The digests of a layer's files by where in the layer their first stored byte is; none if its index has none or is not
/// here any more. Those of sparse files are of the bytes that are stored.
pub(super) fn digests_of(store: &Store, slot: &Slot) -> HashMap<u64, Hash> {
    let index = match store.load_index(slot, true) {
        Ok(Some(index)) => index,
        Ok(None) => return HashMap::new(),
        Err(err) => {
            tracing::warn!("{err}");
            return HashMap::new();
        }
    };
    let files = index.toc.iter().filter_map(|entry| match entry.kind {
        EntryKind::File { offset, size } => Some((size > 0).then_some(offset)),
        EntryKind::SparseFile { extents, .. } => {
            let stored = extents.iter().find(|extent| extent.length > 0);
            Some(stored.map(|extent| extent.layer_offset))
        }
        _ => None,
    });
    files
        .zip(&index.file_digests)
        .filter_map(|(start, digest)| Some((start?, *digest)))
        .collect()
}
