//! The digests that a layer's index in the cache has of its files.

use std::collections::HashMap;

use imgfs_core::store::{Slot, Store};
use imgfs_formats::layer::Hash;

/// The digests of a layer's files by where in the layer their first stored byte is; none if its
/// index has none or is not here any more. Those of sparse files are of the bytes that are stored.
pub(super) fn digests_of(store: &Store, slot: &Slot) -> HashMap<u64, Hash> {
    match store.load_index(slot, true) {
        Ok(index) => index.map_or_else(HashMap::new, |index| index.digests_by_start()),
        Err(err) => {
            tracing::warn!("{err}");
            HashMap::new()
        }
    }
}
