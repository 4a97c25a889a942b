//! Finding layer indexes that somebody published, so that not even the first mount has to download a layer.
//!
//! ```text
//! start    referrers of the image's manifest -> their manifests         one lookup for all layers, begun at once
//! find     index repository, by layer digest (if one is named)          each layer for itself, at the same time
//!          -> the best of what was found -> its file -> checked against the layer
//! ```
//!
//! Whatever is wrong with a published index is a sentence for the user and never an error: without it the layer is
//! opened as any other. What is found here is not believed: [`Vouched`] says who binds it to the layer, if anybody does.

mod candidate;
mod lookup;

use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};

use crate::layer::LayerIndex;
use crate::oci::{Descriptor, Digest, PublicKey, Reference};
use crate::source::{BlobSource, Options};
use crate::store::{Finding, Trust};
use candidate::Candidate;
use lookup::Lookup;
pub(super) use lookup::tagged;

/// Candidates tried for one layer, one after the other: who lists more does not want to help.
const MAX_CANDIDATES: usize = 4;

/// Where to look, and whom to believe.
#[derive(Clone, Default)]
pub struct FindOptions {
    /// A repository of indexes by layer digest. Its tag does not matter.
    pub repository: Option<Reference>,
    /// The key whose signature pins an index.
    pub key: Option<PublicKey>,
    /// How to reach the repository.
    pub options: Options,
}

/// What was published about one image. Dropping it ends what is under way.
pub struct Published {
    source: Arc<dyn BlobSource>,
    options: FindOptions,
    lookup: Shared<BoxFuture<'static, Arc<Lookup>>>,
    task: tokio::task::AbortHandle,
}

/// What came of looking for a layer's index.
#[derive(Default)]
pub struct Found {
    /// An index of that layer, if there is one.
    pub index: Option<FoundIndex>,
    /// For people: what is wrong with those that are not used, and what is missing for this one to be believed.
    pub problems: Vec<String>,
}

/// A published index that fits a layer.
pub struct FoundIndex {
    /// The index, without its file digests.
    pub index: LayerIndex,
    /// The file that it came in.
    pub file: Bytes,
    /// Its index digest.
    pub digest: Digest,
    /// Who binds it to the layer.
    pub vouched: Vouched,
    /// For people: where it was.
    pub origin: String,
    /// The file with the midstates of the blob, if there is one, and where it can be had.
    pub midstates: Option<(Descriptor, Arc<dyn BlobSource>)>,
}

/// Who binds an index to its layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Vouched {
    /// The key that was asked for, by its id, has signed it: trust state `pinned`.
    Signed(String),
    /// Nobody that was asked for: trust state `claimed`.
    Nobody,
}

/// How the cache and `status` call an index that was published.
pub(super) const ORIGIN: &str = "published";

impl Vouched {
    /// How far that binds the index to the layer.
    pub fn trust(&self) -> Trust {
        match self {
            Self::Signed(_) => Trust::Pinned,
            Self::Nobody => Trust::Claimed,
        }
    }
}

impl FoundIndex {
    /// What the cache remembers of it.
    pub fn finding(&self) -> Finding {
        Finding {
            origin: ORIGIN.to_owned(),
            trust: self.vouched.trust(),
            place: self.origin.clone(),
            key: match &self.vouched {
                Vouched::Signed(key) => Some(key.clone()),
                Vouched::Nobody => None,
            },
        }
    }
}

impl Published {
    /// Begins to look for what belongs to the manifest `manifest` of an image in `source`; only its digest need be known.
    /// Must be called on the runtime.
    pub fn start(source: Arc<dyn BlobSource>, manifest: Digest, options: FindOptions) -> Self {
        let image = Arc::clone(&source);
        let task = tokio::spawn(async move { lookup::of_image(&*image, &manifest).await });
        let abort = task.abort_handle();
        let lookup = async move {
            // Only when it is dropped, or the program ends.
            Arc::new(task.await.unwrap_or_default())
        };
        Self {
            source,
            options,
            lookup: lookup.boxed().shared(),
            task: abort,
        }
    }

    /// Looks for the index of one of the image's layers. Never fails, and may be asked about several at the same time.
    pub async fn find(&self, layer: &Descriptor) -> Found {
        let mut found = Found::default();
        let mut candidates = Vec::new();
        let by_layer = async {
            match &self.options.repository {
                None => Lookup::default(),
                Some(repository) => {
                    lookup::of_layer(repository, &layer.digest, &self.options.options).await
                }
            }
        };
        let (by_layer, by_image) = tokio::join!(by_layer, self.lookup.clone());
        for problem in by_layer.problems.iter().chain(&by_image.problems) {
            found.say(layer, problem);
        }
        let named = (by_layer.artifacts.iter()).zip(std::iter::repeat(by_layer.source.as_ref()));
        let beside = (by_image.artifacts.iter()).zip(std::iter::repeat(Some(&self.source)));
        for (artifact, source) in named.chain(beside) {
            if let (Some(published), Some(source)) =
                (artifact.manifest.index_of(&layer.digest), source)
            {
                candidates.push(Candidate {
                    published,
                    source: Arc::clone(source),
                    origin: &artifact.origin,
                });
            }
        }
        if let Some(key) = &self.options.key {
            // Stable: those of the named repository stay before the others.
            candidates.sort_by_key(|candidate| !candidate.is_signed(key));
        }
        for candidate in candidates.iter().take(MAX_CANDIDATES) {
            match candidate.fetch(layer).await {
                Ok(mut index) => {
                    if let Some(key) = &self.options.key {
                        match candidate.vouched(key) {
                            Ok(vouched) => index.vouched = vouched,
                            Err(problem) => found.say(layer, &problem),
                        }
                    }
                    found.index = Some(index);
                    return found;
                }
                Err(problem) => found.say(layer, &problem),
            }
        }
        found
    }
}

impl Found {
    fn say(&mut self, layer: &Descriptor, problem: &str) {
        let short = layer.digest.short();
        self.problems.push(format!("layer {short}: {problem}"));
    }
}

impl Drop for Published {
    fn drop(&mut self) {
        self.task.abort();
    }
}
