//! The last check of a layer, off the critical path: does the uncompressed tar have the config's
//! DiffId?
//!
//! A layer is already proven by its blob's digest; this second digest catches a config that belongs
//! to other layers. It is computed once for a layer, when all of its bytes are here, and remembered
//! beside them. Of all mounts of all processes one computes it, and the others wait for its word:
//!
//! ```text
//! known in the cache ────────────────────────────────────────────────> compare
//! not known: turn in this process ──> diff_id.lock of the layer ──> known by now? else hash all of it ──> compare
//! ```

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::polite;
use crate::store::disk::{Locked, publish, read_if_there};
use crate::store::read::LayerReader;
use crate::store::{Cache, Slot, StoreError};
use imgfs_formats::oci::{DiffId, Digest, Digester};

/// Bytes hashed between two looks at whether to go on.
const PIECE: usize = 1 << 20;
/// Between two looks at what another process found. Nobody waits for the answer.
const LOOK_PAUSE: Duration = Duration::from_millis(200);

impl Cache {
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
    /// Finds out the layer's DiffId and compares it with `expected`, whose algorithm counts; `None`
    /// if not all of its bytes are in the cache, or if they came by an index that was found. A
    /// mismatch quarantines the layer for this user. Takes seconds, at low priority; dropping it
    /// ends the work.
    pub async fn establish_diff_id(
        self: &Arc<Self>,
        expected: &DiffId,
    ) -> Result<Option<DiffId>, StoreError> {
        let found = self.find_diff_id(expected).await?;
        if let Some(found) = &found {
            self.check_diff_id(expected, found);
        }
        Ok(found)
    }

    /// The same without the comparison.
    pub(in crate::store) async fn find_diff_id(
        self: &Arc<Self>,
        expected: &DiffId,
    ) -> Result<Option<DiffId>, StoreError> {
        if let Some(found) = self.store().known_diff_id(self.digest())? {
            return Ok(Some(found));
        }
        let _turn = self.diff_id_turn().await;
        let path = (self.store().layer_dir(&Slot::own(*self.digest()))).join("diff_id.lock");
        loop {
            // Asked again for each look: while this one waited, somebody else may have found it.
            if let Some(found) = self.store().known_diff_id(self.digest())? {
                return Ok(Some(found));
            }
            if !self.may_have_diff_id() {
                return Ok(None);
            }
            let Some(lock) = Locked::try_take(&path)? else {
                tokio::time::sleep(LOOK_PAUSE).await;
                continue;
            };
            if let Some(found) = self.store().known_diff_id(self.digest())? {
                return Ok(Some(found));
            }
            let ended = EndedOnDrop::default();
            let (reader, expected, is_over) = (Arc::clone(self), *expected, Arc::clone(&ended.0));
            let computing = polite::start(move || {
                let _lock = lock;
                reader.compute_diff_id(&expected, || !is_over.load(Ordering::Relaxed))
            });
            return computing.await.map_err(|_| StoreError::Worker("hashing"))?;
        }
    }

    /// Whether all of its tar is in the cache, as far as the marks tell.
    fn may_have_diff_id(&self) -> bool {
        // What an index that was found says the bytes are is not known to be the tar, not even how
        // long it is, and the answer is remembered for all images with the layer.
        let counters = self.counters();
        self.slot().is_own() && counters.cached == counters.size
    }

    /// Computes the layer's DiffId with `expected`'s algorithm and remembers it; `None` if not all
    /// of its bytes are in the cache, if they came by an index that was found, or if `go_on` says
    /// no. Takes seconds: not for a thread that somebody waits for.
    pub fn compute_diff_id(
        self: &Arc<Self>,
        expected: &DiffId,
        mut go_on: impl FnMut() -> bool,
    ) -> Result<Option<DiffId>, StoreError> {
        if !self.may_have_diff_id() {
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
        if let Err(err) = self.store().note_diff_id(self.digest(), &found) {
            self.store().caching_failed(&err);
        }
        Ok(Some(found))
    }

    /// Quarantines the layer for this user if `found` is not what the image's config says.
    pub fn check_diff_id(&self, expected: &DiffId, found: &DiffId) {
        if expected != found {
            self.quarantine_here(format!(
                "the image's config says its uncompressed tar is {expected}, but it is {found}"
            ));
        }
    }
}

/// Tells a thread that nobody waits for its answer any more.
#[derive(Default)]
struct EndedOnDrop(Arc<AtomicBool>);

impl Drop for EndedOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
