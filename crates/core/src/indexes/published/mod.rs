//! Finding layer indexes that somebody published, so that not even the first mount has to download
//! a layer.
//!
//! ```text
//! start    referrers of the image's manifest -> their manifests         one lookup for all layers, begun at once
//! find     index repository, by layer digest (if one is named)          each layer for itself, at the same time
//!          -> the best of what was found -> its file -> checked against the layer
//! ```
//!
//! Whatever is wrong with a published index is a sentence for the user and never an error: without
//! it the layer is opened as any other. What is found here is not believed: [`Vouched`] says who
//! binds it to the layer, if anybody does.

mod candidate;
mod lookup;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};

use tracing::Instrument;

use crate::error::Result;
use crate::source::{BlobSource, Options};
use crate::store::{Finding, Trust};
use candidate::Candidate;
use imgfs_formats::layer::LayerIndex;
use imgfs_formats::oci::{Descriptor, Digest, PublicKey, Reference};
use imgfs_formats::trust::IndexKind;
use lookup::Lookup;
pub(crate) use lookup::tagged;

/// Candidates tried for one layer, one after the other: a publisher that lists more does not want
/// to help.
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
    /// Whether somebody was told what is wrong with the lookup: once is enough.
    said: AtomicBool,
}

/// What came of looking for a layer's index.
#[derive(Default)]
pub struct PublishedAnswer {
    /// An index of that layer, if there is one.
    pub index: Option<FoundIndex>,
    /// For people: what is wrong with those that are not used, and what is missing for this one to
    /// be believed. What is wrong with the lookup for the image stands with the first layer that
    /// asks.
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

/// See [`Published::find_usable`].
pub(super) type Usable<'a> = dyn Fn(&Digest, Trust) -> Result<(), String> + Send + Sync + 'a;

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
            origin: IndexKind::Published,
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
    /// Begins to look for what belongs to the manifest `manifest` of an image in `source`; only its
    /// digest need be known. Must be called on the runtime.
    pub fn start(source: Arc<dyn BlobSource>, manifest: Digest, options: FindOptions) -> Self {
        let image = Arc::clone(&source);
        let task = tokio::spawn(
            async move { lookup::of_image(&*image, &manifest).await }.in_current_span(),
        );
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
            said: AtomicBool::new(false),
        }
    }

    /// Looks for the index of one of the image's layers. Never fails, and may be asked about
    /// several at the same time.
    pub async fn find(&self, layer: &Descriptor) -> PublishedAnswer {
        self.find_usable(layer, &|_, _| Ok(())).await
    }

    /// The same among those that are `usable`, of which it is asked before they are fetched: by
    /// their digest and by how far they would be bound to the layer. An error says for people why
    /// one is not.
    pub async fn find_usable(&self, layer: &Descriptor, usable: &Usable<'_>) -> PublishedAnswer {
        let mut found = PublishedAnswer::default();
        let by_layer = match &self.options.repository {
            None => Lookup::default(),
            Some(repository) => {
                lookup::of_layer(repository, &layer.digest, &self.options.options).await
            }
        };
        for problem in &by_layer.problems {
            found.say(layer, problem);
        }
        let named = candidates(&by_layer, by_layer.source.as_ref(), layer);
        // What the user named and wants goes first, and is not held up by the other lookup.
        let (wanted, mut rest): (Vec<_>, Vec<_>) = named
            .into_iter()
            .partition(|candidate| self.is_wanted(candidate));
        if self.try_each(&wanted, layer, usable, &mut found).await {
            return found;
        }
        let by_image = self.lookup.clone().await;
        if !self.said.swap(true, Ordering::Relaxed) {
            found.problems.extend(by_image.problems.iter().cloned());
        }
        rest.extend(candidates(&by_image, Some(&self.source), layer));
        // Stable: those of the named repository stay before the others.
        rest.sort_by_key(|candidate| !self.is_wanted(candidate));
        self.try_each(&rest, layer, usable, &mut found).await;
        found
    }

    /// Whether no other candidate could be better.
    fn is_wanted(&self, candidate: &Candidate<'_>) -> bool {
        let key = self.options.key.as_ref();
        key.is_none_or(|key| candidate.is_signed(key))
    }

    /// Fetches one after the other until one is an index of the layer; whether one was.
    async fn try_each(
        &self,
        candidates: &[Candidate<'_>],
        layer: &Descriptor,
        usable: &Usable<'_>,
        found: &mut PublishedAnswer,
    ) -> bool {
        for candidate in candidates.iter().take(MAX_CANDIDATES) {
            let vouched = match &self.options.key {
                Some(key) => candidate.vouched(key).unwrap_or_else(|problem| {
                    found.say(layer, &problem);
                    Vouched::Nobody
                }),
                None => Vouched::Nobody,
            };
            if let Err(problem) = usable(&candidate.published.digest, vouched.trust()) {
                found.say(layer, &problem);
                continue;
            }
            let mut index = match candidate.fetch(layer).await {
                Ok(index) => index,
                Err(problem) => {
                    found.say(layer, &problem);
                    continue;
                }
            };
            index.vouched = vouched;
            found.index = Some(index);
            return true;
        }
        false
    }
}

/// What a lookup has for a layer, with its files in `source`.
fn candidates<'a>(
    lookup: &'a Lookup,
    source: Option<&Arc<dyn BlobSource>>,
    layer: &Descriptor,
) -> Vec<Candidate<'a>> {
    let Some(source) = source else {
        return Vec::new();
    };
    let listed = lookup.artifacts.iter().filter_map(|artifact| {
        Some(Candidate {
            published: artifact.manifest.index_of(&layer.digest)?,
            source: Arc::clone(source),
            origin: &artifact.origin,
        })
    });
    listed.collect()
}

impl PublishedAnswer {
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
