//! Checking the cache and bringing back what is damaged, from where the images that need it come
//! from.
//!
//! ```text
//! names      one that cannot be read is asked for again, if its file still says what it is of
//! documents  what names and images lead to and is damaged or lost: by digest, from the repository of the name
//! images     their records are made anew from the manifests
//! indexes    one that was made here: the layer is streamed anew; one that was found: it is found again
//! layers     the bad spans, and nothing else
//! ```
//!
//! In this order, as each is needed to know where the next comes from. What cannot be brought back
//! is dropped, so that the next reader asks for it as if it had never been here. Names, records and
//! verdicts that can be read stay, whatever the state of what they speak of. One thing that cannot
//! be checked or mended is reported, and the others go on.

mod documents;
mod layers;
mod report;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

pub use report::{Damage, Kind, Outcome, Tally, Verified};

use crate::error::{Expected, Result};
use crate::image::{CachedImage, cached_images_of, cached_layers, cached_names, not_cached};
use crate::source::{BlobSource, Options, open};
use crate::store::{Holding, Slot, Store};
use imgfs_formats::oci::{Descriptor, Reference};

/// What is to be checked, and how far it is.
pub struct Verifying {
    /// Only what these images need; `None`: everything.
    pub only: Option<Vec<Vec<Reference>>>,
    /// How to reach registries; `None`: nobody is asked, damage is only dropped.
    pub options: Option<Options>,
    /// Uncompressed bytes of layers read so far.
    pub done: Arc<AtomicU64>,
}

/// Checks the cache, repairs what can be repaired and drops what cannot. Must run on the runtime.
pub async fn verify(store: &Arc<Store>, verifying: &Verifying) -> Result<Verified> {
    let mut check = Check {
        store,
        verifying,
        sources: HashMap::new(),
        result: Verified::default(),
    };
    check.are_known()?;
    check.names().await?;
    let records = store.check_images()?;
    check.documents(&records).await?;
    let images = check.images()?;
    let layers = cached_layers(&images);
    let is_meant = |slot: &Slot| verifying.only.is_none() || layers.contains_key(slot.layer());
    for slot in store.slots()?.into_iter().filter(is_meant) {
        let known = layers.get(slot.layer());
        check.layer(&slot, known).await;
    }
    let mut result = check.result;
    let unfinished = store.files()?.into_iter().map(|file| match file.holding {
        Holding::Unfinished(slot) if is_meant(&slot) => file.on_disk,
        _ => 0,
    });
    result.bytes_unchecked += unfinished.sum::<u64>();
    result.bytes_fetched = result
        .damage
        .iter()
        .map(|damage| damage.bytes_fetched)
        .sum();
    result.all_right = (result.damage.iter()).all(|damage| damage.outcome == Outcome::Repaired);
    Ok(result)
}

struct Check<'a> {
    store: &'a Arc<Store>,
    verifying: &'a Verifying,
    /// By reference.
    sources: HashMap<String, Arc<dyn BlobSource>>,
    result: Verified,
}

impl Check<'_> {
    /// The names that are meant, and what they point to.
    fn roots(&self) -> Result<Vec<(Reference, Descriptor)>> {
        if let Some(only) = &self.verifying.only {
            let mut roots = Vec::new();
            for reference in only.iter().flatten() {
                let root = match reference.digest() {
                    Some(digest) => Some(Descriptor::of_digest(*digest)),
                    None => (self.store.tag_record(&reference.to_string())?)
                        .map(|record| record.descriptor),
                };
                roots.extend(root.map(|root| (reference.clone(), root)));
            }
            return Ok(roots);
        }
        Ok(cached_names(self.store)?)
    }

    /// What is to be checked has to be known: right or not.
    fn are_known(&self) -> Result<()> {
        for references in self.verifying.only.iter().flatten() {
            let is_known = |reference: &Reference| match reference.digest() {
                Some(digest) => self.store.has_document(digest) || self.store.has_image(digest),
                None => self.store.has_name(&reference.to_string()),
            };
            if !references.iter().any(is_known) {
                return Err(not_cached(references));
            }
        }
        Ok(())
    }

    fn images(&self) -> Result<Vec<CachedImage>> {
        let mut images = Vec::new();
        for (reference, root) in self.roots()? {
            images.extend(cached_images_of(self.store, &reference, &root));
        }
        Ok(images)
    }

    /// Whether a name is among those that are to be checked.
    fn is_meant(&self, name: &str) -> bool {
        (self.verifying.only.as_ref()).is_none_or(|only| {
            let mut references = only.iter().flatten();
            references.any(|reference| reference.to_string() == name)
        })
    }

    /// Where a name's blobs are; `None` if nobody is to be asked.
    async fn source(&mut self, reference: &Reference) -> Result<Option<Arc<dyn BlobSource>>> {
        let Some(options) = &self.verifying.options else {
            return Ok(None);
        };
        let name = reference.to_string();
        if let Some(source) = self.sources.get(&name) {
            return Ok(Some(Arc::clone(source)));
        }
        let (reference, options) = (reference.clone(), options.clone());
        let opening = tokio::task::spawn_blocking(move || open(&reference, &options));
        let source = opening.await.expected("opening stopped")??;
        self.sources.insert(name, Arc::clone(&source));
        Ok(Some(source))
    }
}
