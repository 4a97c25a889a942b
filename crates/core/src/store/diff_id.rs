//! The last check of a layer, off the critical path: does the uncompressed tar have the config's DiffId?
//!
//! A layer is already proven by its blob's digest; this second digest catches a config that belongs to other
//! layers. It is computed once for a layer, when all of its bytes are here, and remembered beside them.

use std::sync::Arc;

use super::files::{publish, read_if_there};
use super::reader::LayerReader;
use super::{Slot, Store, StoreError};
use imgfs_formats::oci::{DiffId, Digest, Digester};

/// Bytes hashed between two looks at whether to go on.
const PIECE: usize = 1 << 20;

impl Store {
    /// The DiffId that a layer's uncompressed bytes were found to have, if that was ever computed.
    pub fn known_diff_id(&self, layer: &Digest) -> Result<Option<DiffId>, StoreError> {
        let bytes = read_if_there(&self.layer_dir(&Slot::own(*layer)).join("diff_id"))?;
        let text = bytes.and_then(|bytes| String::from_utf8(bytes).ok());
        Ok(text.and_then(|text| text.trim().parse().ok()).map(DiffId))
    }

    /// Notes the DiffId that a layer's uncompressed bytes were found to have.
    pub fn note_diff_id(&self, layer: &Digest, found: &DiffId) -> Result<(), StoreError> {
        let path = self.layer_dir(&Slot::own(*layer)).join("diff_id");
        publish(&path, found.to_string().as_bytes())
    }
}

impl LayerReader {
    /// Computes the layer's DiffId with `expected`'s algorithm and remembers it; `None` if not all of its bytes
    /// are in the cache, if they came by an index that was found, or if `go_on` says no. A mismatch quarantines the layer. Takes seconds: not for a thread
    /// that somebody waits for.
    pub fn compute_diff_id(
        self: &Arc<Self>,
        expected: &DiffId,
        mut go_on: impl FnMut() -> bool,
    ) -> Result<Option<DiffId>, StoreError> {
        if !self.slot().is_own() {
            // What an index that was found says the bytes are is not known to be the tar, not even how long it is, and the
            // answer is remembered for all images with the layer.
            return Ok(None);
        }
        let mut digester = Digester::new(expected.0.algorithm());
        let mut buffer = vec![0; PIECE];
        let mut position = 0;
        while position < self.size() {
            if !go_on() {
                return Ok(None);
            }
            let length = usize::try_from(self.size() - position)
                .unwrap_or(PIECE)
                .min(PIECE);
            let piece = buffer.get_mut(..length).unwrap_or_default();
            if !self.try_read_quietly(position, piece)? {
                return Ok(None);
            }
            digester.update(piece);
            position += length as u64;
        }
        let found = DiffId(digester.finish());
        if let Err(err) = self.store.note_diff_id(self.digest(), &found) {
            self.store.caching_failed(&err);
        }
        self.check_diff_id(expected, &found);
        Ok(Some(found))
    }

    /// Quarantines the layer if `found` is not what the image's config says.
    pub fn check_diff_id(&self, expected: &DiffId, found: &DiffId) {
        if expected != found {
            self.quarantine(format!(
                "the image's config says its uncompressed tar is {expected}, but it is {found}"
            ));
        }
    }
}
