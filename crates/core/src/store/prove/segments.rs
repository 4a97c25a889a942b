//! Checking a blob piece by piece, as its pieces become complete, where somebody has published its
//! midstates.
//!
//! The midstates are hints. If every piece leads from one to the next the blob's digest is right;
//! if one does not, the hints or the bytes are wrong, and only hashing all of it in order can tell.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use tokio::sync::oneshot;

use super::blob::KeptBlob;
use crate::polite;
use imgfs_formats::layer::Hash;
use imgfs_formats::oci::{Digest, Midstates};

/// What is known of the pieces of one blob.
pub(in crate::store) struct Segments {
    midstates: Option<Arc<Midstates>>,
    blob: Digest,
    /// BLAKE3 of those that were right, so that nobody has to check them again; `None` of those
    /// that were not.
    checked: BTreeMap<u64, Option<Hash>>,
    running: BTreeMap<u64, oneshot::Receiver<Option<Hash>>>,
    /// How many may run: each has a piece in memory.
    at_once: usize,
}

impl Segments {
    pub(in crate::store) fn new(blob: Digest, midstates: Option<Midstates>) -> Self {
        Self {
            midstates: midstates.map(Arc::new),
            blob,
            checked: BTreeMap::new(),
            running: BTreeMap::new(),
            at_once: std::thread::available_parallelism().map_or(1, usize::from),
        }
    }

    /// Starts checking what is complete, as far as there are cores for it.
    pub(in crate::store) fn advance(&mut self, kept: &Arc<KeptBlob>) {
        let Some(midstates) = &self.midstates else {
            return;
        };
        let running = std::mem::take(&mut self.running);
        for (segment, mut answer) in running {
            match answer.try_recv() {
                Ok(checked) => {
                    if checked.is_some() {
                        kept.vouch(midstates.range(segment));
                    }
                    self.checked.insert(segment, checked);
                }
                Err(oneshot::error::TryRecvError::Empty) => {
                    self.running.insert(segment, answer);
                }
                Err(oneshot::error::TryRecvError::Closed) => {}
            }
        }
        let waiting = (0..midstates.segments())
            .filter(|segment| !self.checked.contains_key(segment))
            .filter(|segment| kept.has(&midstates.range(*segment)));
        for segment in waiting {
            if self.running.len() >= self.at_once {
                return;
            }
            if self.running.contains_key(&segment) {
                continue;
            }
            let (midstates, kept, blob) = (Arc::clone(midstates), Arc::clone(kept), self.blob);
            let answer = polite::start(move || {
                let bytes = kept.read(&midstates.range(segment)).ok()?;
                let is_right = midstates.check(segment, &bytes, &blob).is_ok();
                is_right.then(|| *blake3::hash(&bytes).as_bytes())
            });
            self.running.insert(segment, answer);
        }
    }

    /// All of the blob is here: checks the rest. Gives the hashes of all pieces if all are right.
    pub(in crate::store) async fn finish(&mut self, kept: &Arc<KeptBlob>) -> Option<Vec<Hash>> {
        loop {
            self.advance(kept);
            let Some((segment, answer)) = self.running.pop_first() else {
                break;
            };
            self.checked.insert(segment, answer.await.ok().flatten());
        }
        let midstates = self.midstates.as_ref()?;
        let hashes: Option<Vec<Hash>> = self.checked.values().copied().collect();
        hashes.filter(|hashes| hashes.len() as u64 == midstates.segments())
    }

    /// The pieces that are not right, as far as the hints can be believed; they are to be checked
    /// anew.
    pub(in crate::store) fn take_wrong(&mut self) -> Vec<Range<u64>> {
        let Some(midstates) = &self.midstates else {
            return Vec::new();
        };
        let wrong = self.checked.iter().filter(|(_, hash)| hash.is_none());
        let wrong: Vec<u64> = wrong.map(|(segment, _)| *segment).collect();
        for segment in &wrong {
            self.checked.remove(segment);
        }
        (wrong.iter().map(|segment| midstates.range(*segment))).collect()
    }

    /// All bytes are to come anew.
    pub(in crate::store) fn reset(&mut self) {
        self.checked.clear();
        self.running.clear();
    }

    /// The blob's digest is right, and yet a piece was not.
    pub(in crate::store) fn are_hints_wrong(&self) -> bool {
        self.checked.values().any(Option::is_none)
    }
}
