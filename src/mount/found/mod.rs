//! Finding an index for a layer that was never streamed here, so that its first mount costs almost nothing.
//!
//! For each layer the first of these that is there and good enough for [`IndexPolicy::require`]:
//!
//! ```text
//! index                                     where it is found                           trust
//! the layer's own                           the cache                                   proven
//! one that was found before                 the cache                                   claimed
//! none of these: the layer is streamed once, which makes its own                        proven
//! ```
//!
//! What is found is kept in the cache for the next mount. What is wrong with an index is said once, in words for people,
//! and never fails a mount: the layer is then treated as if it had none.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::OnceCell;

use crate::layer::LayerIndex;
use crate::oci::{Descriptor, Digest, Manifest};
use crate::source::BlobSource;
use crate::store::{Finding, OpenLayer, Store, StoreError, Trust};

/// Files that belong to the format and not to the image, in the root of an eStargz layer.
const ESTARGZ_FILES: [&[u8]; 3] = [
    b".prefetch.landmark",
    b".no.prefetch.landmark",
    b"stargz.index.json",
];
/// The annotation of an eStargz layer (stargz-snapshotter, docs/estargz.md).
const ESTARGZ_TOC_DIGEST: &str = "containerd.io/snapshot/stargz/toc.digest";

/// Which indexes may be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexPolicy {
    /// The least trust.
    pub require: Trust,
}

impl Default for IndexPolicy {
    fn default() -> Self {
        Self {
            require: Trust::Pinned,
        }
    }
}

/// A layer that can be read without being streamed.
pub(super) struct FoundLayer {
    /// It.
    pub(super) layer: OpenLayer,
    /// How its index came to be.
    pub(super) finding: Finding,
    /// What its maker wants fetched first: bytes of the blob.
    pub(super) prefetch: Option<Range<u64>>,
}

/// What a search came to.
#[derive(Default)]
pub(super) struct Search {
    /// The layer, if an index was found.
    pub(super) found: Option<FoundLayer>,
    /// For people: what was wrong with an index that was not used.
    pub(super) problem: Option<String>,
}

/// Searches indexes for the layers of one image, each once.
pub(super) struct Finder {
    store: Arc<Store>,
    source: Arc<dyn BlobSource>,
    policy: IndexPolicy,
    layers: HashMap<Digest, Slots>,
}

/// A layer and what was found for it, until somebody takes it.
struct Slots {
    blob: Descriptor,
    search: OnceCell<Mutex<Search>>,
}

impl Finder {
    /// Searches nothing yet.
    pub(super) fn new(
        store: Arc<Store>,
        source: Arc<dyn BlobSource>,
        manifest: &Manifest,
        policy: IndexPolicy,
    ) -> Self {
        let layer = |blob: &Descriptor| {
            let search = OnceCell::new();
            let blob = blob.clone();
            (blob.digest, Slots { blob, search })
        };
        Self {
            store,
            source,
            policy,
            layers: manifest.layers.iter().map(layer).collect(),
        }
    }

    /// Begins to search for all layers at once, in the background.
    pub(super) fn start(self: &Arc<Self>) {
        for digest in self.layers.keys() {
            let (finder, digest) = (Arc::clone(self), *digest);
            tokio::spawn(async move {
                finder.search(&digest).await;
            });
        }
    }

    /// What there is for a layer; a second time nothing.
    pub(super) async fn take(&self, digest: &Digest) -> Search {
        match self.search(digest).await {
            Some(search) => {
                std::mem::take(&mut search.lock().unwrap_or_else(PoisonError::into_inner))
            }
            None => Search::default(),
        }
    }

    async fn search(&self, digest: &Digest) -> Option<&Mutex<Search>> {
        let layer = self.layers.get(digest)?;
        let search = async { Mutex::new(self.search_for(&layer.blob).await) };
        Some(layer.search.get_or_init(|| search).await)
    }

    async fn search_for(&self, blob: &Descriptor) -> Search {
        if self.policy.require == Trust::Proven || self.store.has_index(&blob.digest) {
            return Search::default();
        }
        let mut problem = None;
        let found = match self.try_all(blob, &mut problem).await {
            Ok(found) => found,
            Err(err) => {
                problem = Some(err.to_string());
                None
            }
        };
        if let Some(problem) = &problem {
            tracing::warn!("{problem}");
        }
        Search { found, problem }
    }

    /// Tries them in order. What was wrong with one goes to `problem`.
    async fn try_all(
        &self,
        blob: &Descriptor,
        problem: &mut Option<String>,
    ) -> Result<Option<FoundLayer>, StoreError> {
        let layer = blob.digest.short();
        for (slot, finding) in self.store.found_indexes(&blob.digest)? {
            // What pinned it then need not be what this manifest says.
            if finding.trust != Trust::Claimed {
                continue;
            }
            if !finding.trust.satisfies(self.policy.require) {
                *problem = Some(format!(
                    "layer {layer}: its {} index is only {}: use it with --require={}",
                    finding.origin,
                    finding.trust.name(),
                    finding.trust.name()
                ));
                continue;
            }
            if let Some(index) = self.store.load_index(&slot, false)? {
                let layer = (self.store).open_found(&self.source, blob, slot, index);
                return Ok(Some(FoundLayer {
                    layer: layer.await?,
                    finding,
                    prefetch: None,
                }));
            }
        }
        Ok(None)
    }
}

/// Leaves out of an index what belongs to its layer's format and not to the image. Whether a layer is of that format is
/// the manifest's word, so that the tree does not depend on which index it is made from.
pub(super) fn hide_format_files(blob: &Descriptor, index: &mut LayerIndex) {
    if blob.annotations.contains_key(ESTARGZ_TOC_DIGEST) {
        index.toc = std::mem::take(&mut index.toc).without_root_files(&ESTARGZ_FILES);
    }
}
