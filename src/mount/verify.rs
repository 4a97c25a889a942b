//! Checking the cache and bringing back what is damaged, from where the images that need it come from.
//!
//! ```text
//! names      a damaged one is asked for again, if its file still says what it is of
//! documents  by digest, from the repository of a name that leads to them
//! indexes    one that was made here: the layer is streamed anew; one that was found: it is found again
//! layers     the bad spans, and nothing else
//! ```
//!
//! In this order, as each is needed to know where the next comes from. What cannot be brought back is dropped, so that
//! whoever needs it next asks for it as if it had never been here.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use anyhow::Context;
use serde::Serialize;

use super::cached::{
    CachedImage, CachedLayer, cached_images, cached_layers, cached_names, find_cached,
};
use super::found::IndexPolicy;
use super::image::{Image, Pull, Request};
use super::published::FindOptions;
use crate::layer::LayerIndex;
use crate::oci::{Descriptor, Digest, Document, MAX_CONFIG_SIZE, MAX_MANIFEST_SIZE, Reference};
use crate::source::{BlobSource, Options, host_platform, open, read_blob, read_verified};
use crate::store::{Holding, IndexCheck, NameCheck, Progress, Slot, Store, Trust};

/// How often, and how long each time, to wait until an index that was found again is written.
const WRITES_WAITED_FOR: u32 = 100;
const WRITE_PAUSE: Duration = Duration::from_millis(20);

/// What is to be checked, and how far it is.
pub struct Verifying {
    /// Only what these images need; `None`: everything.
    pub only: Option<Vec<Vec<Reference>>>,
    /// How to reach registries; `None`: nobody is asked, damage is only dropped.
    pub options: Option<Options>,
    /// Uncompressed bytes of layers read so far.
    pub done: Arc<AtomicU64>,
}

/// What was checked and what came of it. Sizes in bytes.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Verified {
    /// What names point to.
    pub names: Tally,
    /// Manifests, lists of them and configs.
    pub documents: Tally,
    /// Indexes of layers.
    pub indexes: Tally,
    /// Layers with data; the bytes are uncompressed.
    pub layers: Tally,
    /// What was found damaged.
    pub damage: Vec<Damage>,
    /// What it took to repair that.
    pub bytes_fetched: u64,
    /// What has no digest to be checked against yet: pulls that were broken off, proofs under way.
    pub bytes_unchecked: u64,
    /// Whether everything is right now, and here.
    pub all_right: bool,
}

/// A number of things and their size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Tally {
    /// How many.
    pub count: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// One damaged thing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Damage {
    /// What it is.
    pub kind: Kind,
    /// Its digest; of an index and of data that of the layer; of a name the reference, or its file.
    pub name: String,
    /// Damaged bytes, uncompressed of data.
    pub bytes: u64,
    /// Damaged spans, of data.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spans: Option<usize>,
    /// What became of it.
    pub outcome: Outcome,
    /// Bytes that came from its source.
    pub bytes_fetched: u64,
    /// For people: what was wrong, or why it could not be repaired.
    pub reason: String,
    /// Whether a process has the layer open.
    pub in_use: bool,
}

/// What can be damaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// What a reference points to.
    Name,
    /// A manifest, a list of them, a config.
    Document,
    /// A layer's index.
    Index,
    /// A layer's bytes.
    Data,
    /// Which DiffId a layer was found to have.
    #[serde(rename = "diff_id")]
    DiffId,
}

/// What became of something damaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// It is here again, and right.
    Repaired,
    /// It is gone: who needs it next fetches it.
    Dropped,
}

/// Checks the cache, repairs what can be repaired and drops what cannot. Must run on the runtime.
pub async fn verify(store: &Arc<Store>, verifying: &Verifying) -> anyhow::Result<Verified> {
    let mut check = Check {
        store,
        verifying,
        sources: HashMap::new(),
        result: Verified::default(),
    };
    check.names().await?;
    check.documents().await?;
    let images = check.images()?;
    let layers = cached_layers(&images);
    let is_meant = |slot: &Slot| verifying.only.is_none() || layers.contains_key(slot.layer());
    for slot in store.slots()?.into_iter().filter(is_meant) {
        let known = layers.get(slot.layer());
        check.layer(&slot, known).await?;
    }
    let mut result = check.result;
    let unfinished = store.files()?.into_iter().map(|file| match file.holding {
        Holding::Unfinished(slot) if is_meant(&slot) => file.on_disk,
        _ => 0,
    });
    result.bytes_unchecked = unfinished.sum();
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
    async fn names(&mut self) -> anyhow::Result<()> {
        for name in self.store.check_names()? {
            let (file, reference, why) = match name {
                NameCheck::Right(record) => {
                    if self.is_meant(&record.reference) {
                        self.result.names.count += 1;
                    }
                    continue;
                }
                NameCheck::Damaged {
                    file,
                    reference,
                    why,
                } => (file, reference, why),
            };
            if reference.as_ref().is_some_and(|name| !self.is_meant(name)) {
                continue;
            }
            self.result.names.count += 1;
            let mut damage = Damage {
                kind: Kind::Name,
                name: reference.clone().unwrap_or_else(|| format!("refs/{file}")),
                bytes: 0,
                spans: None,
                outcome: Outcome::Dropped,
                bytes_fetched: 0,
                reason: why.to_owned(),
                in_use: false,
            };
            let again = match &reference {
                Some(reference) => self.ask_again(reference).await,
                None => Err(anyhow::anyhow!("nothing says what it was the name of")),
            };
            match again {
                Ok(Some(bytes)) => {
                    damage.outcome = Outcome::Repaired;
                    damage.bytes_fetched = bytes;
                }
                Ok(None) => self.store.drop_name(&file)?,
                Err(err) => {
                    damage.reason = format!("{why}; {err:#}");
                    self.store.drop_name(&file)?;
                }
            }
            self.result.damage.push(damage);
        }
        Ok(())
    }

    /// Asks what a name means now; gives the bytes that came, `None` if nobody is to be asked.
    async fn ask_again(&mut self, name: &str) -> anyhow::Result<Option<u64>> {
        let Some(source) = self.source(&name.parse()?).await? else {
            return Ok(None);
        };
        let resolved = source.resolve(None).await?;
        let body = if let Some(body) = resolved.body {
            body
        } else {
            let stream = source.open_manifest(&resolved.descriptor).await?;
            read_verified(stream, &resolved.descriptor, MAX_MANIFEST_SIZE).await?
        };
        let descriptor = &resolved.descriptor;
        self.store.keep_document(&descriptor.digest, &body);
        self.store.record_tag(name, descriptor)?;
        Ok(Some(body.len() as u64))
    }

    async fn documents(&mut self) -> anyhow::Result<()> {
        let store = Arc::clone(self.store);
        let checked = tokio::task::spawn_blocking(move || store.check_documents());
        let checked = checked.await.context("internal: checking stopped")??;
        let mut bad: BTreeMap<Digest, u64> = (checked.iter())
            .filter(|document| !document.is_right)
            .map(|document| (document.digest, document.size))
            .collect();
        let mut failures = BTreeMap::new();
        let mut reached = BTreeSet::new();
        for (reference, root) in self.roots()? {
            self.walk(&reference, root, &mut bad, &mut reached, &mut failures)
                .await?;
        }
        let is_all = self.verifying.only.is_none();
        for document in &checked {
            if is_all || reached.contains(&document.digest) {
                self.result.documents.count += 1;
                self.result.documents.bytes += document.size;
            }
        }
        for (digest, size) in bad {
            if !is_all && !reached.contains(&digest) {
                continue;
            }
            self.store.drop_document(&digest)?;
            let mut damage = document_damage(&digest, size);
            if let Some(why) = failures.remove(&digest) {
                damage.reason = why;
            } else if self.verifying.options.is_some() {
                "no image that is known has it".clone_into(&mut damage.reason);
            }
            self.result.damage.push(damage);
        }
        Ok(())
    }

    /// Goes through what a name leads to and fetches anew what of it is `bad`.
    async fn walk(
        &mut self,
        reference: &Reference,
        root: Descriptor,
        bad: &mut BTreeMap<Digest, u64>,
        reached: &mut BTreeSet<Digest>,
        failures: &mut BTreeMap<Digest, String>,
    ) -> anyhow::Result<()> {
        let mut pending = vec![(root, false)];
        let mut seen = BTreeSet::new();
        while let Some((descriptor, is_config)) = pending.pop() {
            if !seen.insert(descriptor.digest) {
                continue;
            }
            reached.insert(descriptor.digest);
            if let Some(size) = bad.get(&descriptor.digest).copied() {
                match self.fetch_document(reference, &descriptor, is_config).await {
                    Ok(None) => continue,
                    Ok(Some(fetched)) => {
                        bad.remove(&descriptor.digest);
                        self.result.damage.push(Damage {
                            outcome: Outcome::Repaired,
                            bytes_fetched: fetched,
                            ..document_damage(&descriptor.digest, size)
                        });
                    }
                    Err(err) => {
                        failures.insert(descriptor.digest, format!("{err:#}"));
                        continue;
                    }
                }
            }
            if is_config {
                continue;
            }
            let Some(body) = self.store.document(&descriptor.digest)? else {
                continue;
            };
            match Document::parse(&body, None) {
                Ok(Document::Index(index)) => {
                    pending.extend(index.manifests.into_iter().map(|entry| (entry, false)));
                }
                Ok(Document::Manifest(manifest)) => pending.push((manifest.config, true)),
                // Its digest is right, so it is what was asked for.
                Err(_) => {}
            }
        }
        Ok(())
    }

    async fn fetch_document(
        &mut self,
        reference: &Reference,
        descriptor: &Descriptor,
        is_config: bool,
    ) -> anyhow::Result<Option<u64>> {
        let Some(source) = self.source(reference).await? else {
            return Ok(None);
        };
        let body = if is_config {
            read_blob(&*source, descriptor, MAX_CONFIG_SIZE).await?
        } else {
            let stream = source.open_manifest(descriptor).await?;
            read_verified(stream, descriptor, MAX_MANIFEST_SIZE).await?
        };
        self.store.keep_document(&descriptor.digest, &body);
        let kept = self.store.document(&descriptor.digest)?;
        kept.context("it cannot be written: is the disk full?")?;
        Ok(Some(body.len() as u64))
    }

    async fn layer(&mut self, slot: &Slot, known: Option<&CachedLayer>) -> anyhow::Result<()> {
        let size = self.store.index_size(slot);
        let index = match self.store.check_index(slot)? {
            IndexCheck::Absent => return Ok(()),
            IndexCheck::Right(index) => Some(index),
            IndexCheck::Damaged(why) => self.index(slot, known, size, why).await?,
        };
        self.result.indexes.count += 1;
        self.result.indexes.bytes += size;
        let Some(index) = index else {
            return Ok(());
        };
        self.diff_id(slot, known)?;
        self.data(slot, known, &index).await
    }

    /// Brings a damaged index back, if that can be done; gives it then.
    async fn index(
        &mut self,
        slot: &Slot,
        known: Option<&CachedLayer>,
        size: u64,
        why: String,
    ) -> anyhow::Result<Option<Arc<LayerIndex>>> {
        let finding = self.store.finding(slot)?;
        let trust = finding.map_or(Trust::Pinned, |finding| finding.trust);
        let in_use = self.store.is_in_use(slot)?;
        self.store.drop_index(slot)?;
        let mut damage = Damage {
            kind: Kind::Index,
            name: slot.layer().to_string(),
            bytes: size,
            spans: None,
            outcome: Outcome::Dropped,
            bytes_fetched: 0,
            reason: why,
            in_use,
        };
        let mut images = known.map(|known| known.images.iter()).into_iter().flatten();
        let index = loop {
            let (Some(image), Some(known)) = (images.next(), known) else {
                break None;
            };
            let made = if slot.is_own() {
                self.stream(image, &known.blob).await
            } else {
                Box::pin(self.find_again(image, slot, trust)).await
            };
            match made {
                Ok(Some(fetched)) => {
                    let IndexCheck::Right(index) = self.store.check_index(slot)? else {
                        continue;
                    };
                    damage.outcome = Outcome::Repaired;
                    damage.bytes_fetched = fetched;
                    break Some(index);
                }
                Ok(None) => {}
                Err(err) => damage.reason = format!("{}; {err:#}", damage.reason),
            }
        };
        self.result.damage.push(damage);
        Ok(index)
    }

    /// Makes a layer's own index anew.
    async fn stream(
        &mut self,
        image: &CachedImage,
        blob: &Descriptor,
    ) -> anyhow::Result<Option<u64>> {
        let Some(source) = self.source(&image.reference).await? else {
            return Ok(None);
        };
        let progress = Progress::default();
        self.store.open_layer(&source, blob, &progress).await?;
        Ok(Some(progress.done() - progress.here()))
    }

    /// Finds an index again, where it was found before or elsewhere.
    async fn find_again(
        &mut self,
        image: &CachedImage,
        slot: &Slot,
        trust: Trust,
    ) -> anyhow::Result<Option<u64>> {
        let Some(options) = &self.verifying.options else {
            return Ok(None);
        };
        let request = Request {
            reference: image.reference.clone(),
            others: Vec::new(),
            platform: image.platform.clone().unwrap_or_else(host_platform),
            pull: Pull::Missing,
            options: options.clone(),
            indexes: IndexPolicy {
                require: trust,
                soci_v1: trust == Trust::Claimed,
                published: FindOptions {
                    repository: None,
                    key: None,
                    options: options.clone(),
                },
                offline: false,
            },
        };
        let resolved = Image::resolve(self.store, &request).await?;
        let before = resolved.source.traffic().bytes;
        let search = resolved.finder.take(slot.layer()).await;
        // The one that was looked for, and kept: it is written beside.
        let is_it = (search.found.as_ref()).is_some_and(|found| found.layer.reader.slot() == slot);
        if !is_it {
            anyhow::bail!(
                search
                    .problem
                    .unwrap_or_else(|| "it was not found again".to_owned())
            );
        }
        let fetched = resolved.source.traffic().bytes - before;
        for _ in 0..WRITES_WAITED_FOR {
            if matches!(self.store.check_index(slot)?, IndexCheck::Right(_)) {
                break;
            }
            tokio::time::sleep(WRITE_PAUSE).await;
        }
        Ok(Some(fetched))
    }

    /// The DiffId that a layer was found to have has to be one that a config names: else the next mount refuses the layer.
    fn diff_id(&mut self, slot: &Slot, known: Option<&CachedLayer>) -> anyhow::Result<()> {
        let (true, Some(known)) = (slot.is_own(), known) else {
            return Ok(());
        };
        let found = self.store.known_diff_id(slot.layer())?;
        let Some(found) = found.map(|found| found.to_string()) else {
            return Ok(());
        };
        if known.diff_ids.is_empty() || known.diff_ids.contains(&found) {
            return Ok(());
        }
        self.store.drop_diff_id(slot.layer())?;
        self.result.damage.push(Damage {
            kind: Kind::DiffId,
            name: slot.layer().to_string(),
            bytes: found.len() as u64,
            spans: None,
            // It is computed from what is here, without any source.
            outcome: Outcome::Repaired,
            bytes_fetched: 0,
            reason: "no image's config names it; the next mount computes it anew".to_owned(),
            in_use: self.store.is_in_use(slot)?,
        });
        Ok(())
    }

    async fn data(
        &mut self,
        slot: &Slot,
        known: Option<&CachedLayer>,
        index: &Arc<LayerIndex>,
    ) -> anyhow::Result<()> {
        let done = &self.verifying.done;
        let check = self.store.check_spans(slot, index, done).await?;
        self.result.layers.count += u64::from(check.bytes > 0);
        self.result.layers.bytes += check.bytes;
        if check.bad.is_empty() {
            return Ok(());
        }
        let mut damage = Damage {
            kind: Kind::Data,
            name: slot.layer().to_string(),
            bytes: check.bad_bytes,
            spans: Some(check.bad.len()),
            outcome: Outcome::Dropped,
            bytes_fetched: 0,
            reason: "the bytes do not have their digest".to_owned(),
            in_use: check.in_use,
        };
        if known.is_none() && self.verifying.options.is_some() {
            "no image that is known has the layer".clone_into(&mut damage.reason);
        }
        for image in known.map(|known| known.images.iter()).into_iter().flatten() {
            let source = match self.source(&image.reference).await {
                Ok(Some(source)) => source,
                Ok(None) => break,
                Err(err) => {
                    damage.reason = format!("{err:#}");
                    continue;
                }
            };
            let blob = image
                .layers
                .iter()
                .find(|blob| blob.digest == *slot.layer());
            let Some(blob) = blob else { continue };
            let repair = self
                .store
                .repair_spans(&source, blob, slot, index, &check.bad)
                .await?;
            damage.bytes_fetched += repair.fetched;
            if repair.is_whole {
                damage.outcome = Outcome::Repaired;
                break;
            }
            damage.reason = match repair.error {
                Some(err) => format!("{:#}", anyhow::Error::from(err)),
                None => "it cannot be written: is the disk full?".to_owned(),
            };
        }
        self.result.damage.push(damage);
        Ok(())
    }

    /// The names that are meant, and what they point to.
    fn roots(&self) -> anyhow::Result<Vec<(Reference, Descriptor)>> {
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

    fn images(&self) -> anyhow::Result<Vec<CachedImage>> {
        let Some(only) = &self.verifying.only else {
            return Ok(cached_images(self.store)?);
        };
        let mut images = Vec::new();
        for references in only {
            images.extend(find_cached(self.store, references)?);
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
    async fn source(
        &mut self,
        reference: &Reference,
    ) -> anyhow::Result<Option<Arc<dyn BlobSource>>> {
        let Some(options) = &self.verifying.options else {
            return Ok(None);
        };
        let name = reference.to_string();
        if let Some(source) = self.sources.get(&name) {
            return Ok(Some(Arc::clone(source)));
        }
        let (reference, options) = (reference.clone(), options.clone());
        let opening = tokio::task::spawn_blocking(move || open(&reference, &options));
        let source = opening.await.context("internal: opening stopped")??;
        self.sources.insert(name, Arc::clone(&source));
        Ok(Some(source))
    }
}

/// A damaged document that nobody has brought back yet.
fn document_damage(digest: &Digest, size: u64) -> Damage {
    Damage {
        kind: Kind::Document,
        name: digest.to_string(),
        bytes: size,
        spans: None,
        outcome: Outcome::Dropped,
        bytes_fetched: 0,
        reason: "its bytes do not have its digest".to_owned(),
        in_use: false,
    }
}
