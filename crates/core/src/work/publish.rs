//! Publishing layer indexes: beside an image, or in a repository of indexes.
//!
//! ```text
//! beside     one artifact for the image, which belongs to its manifest
//! indexes    one artifact for each layer, under the tag sha256-<hex of the layer>: whatever images it is in
//! ```
//!
//! What others signed of the same index before is kept.

use std::sync::Arc;

use bytes::Bytes;
use serde::Serialize;
use tokio::task::JoinSet;

use super::pull::distinct;
use crate::error::{EngineError, ErrorKind, Expected, Result, Within};
use crate::hint::Hint;
use crate::image::{Image, LayerProgress};
use crate::indexes::published::tagged;
use crate::source::{Options, Pusher, SourceError, open, push_to, read_verified};
use crate::store::Store;
use imgfs_formats::layer::LayerIndex;
use imgfs_formats::oci::{
    Artifact, Descriptor, Digest, EMPTY_CONFIG, INDEX_ARTIFACT, LAYER_INDEX, Location,
    MAX_MANIFEST_SIZE, MIDSTATES, PublishedIndex, Reference, SigningKey,
};

/// What was published.
#[derive(Debug, Clone, Serialize)]
pub struct PublishedImage {
    /// The image, normalised.
    pub reference: String,
    /// Its manifest.
    pub manifest: String,
    /// Its platform.
    pub platform: String,
    /// The artifacts, with the repository and tag or digest.
    pub artifacts: Vec<String>,
    /// The layers' indexes.
    pub layers: Vec<PublishedLayer>,
}

/// One layer's part.
#[derive(Debug, Clone, Serialize)]
pub struct PublishedLayer {
    /// The layer.
    pub digest: String,
    /// The index digest.
    pub index: String,
    /// Size of the index file in bytes.
    pub index_size: u64,
    /// Bytes that had to be sent.
    pub sent: u64,
}

/// The layers whose indexes [`build`] makes, to be shown while it runs.
pub fn builds(image: &Image) -> Vec<LayerProgress> {
    let blobs = distinct(image).into_iter();
    blobs
        .map(|blob| LayerProgress {
            blob,
            progress: Arc::default(),
        })
        .collect()
}

/// Makes the indexes and midstates of all layers, as far as they are not here.
pub async fn build(store: &Arc<Store>, image: &Image, layers: &[LayerProgress]) -> Result<()> {
    let mut tasks = JoinSet::new();
    for LayerProgress { blob, progress } in layers {
        let (blob, progress) = (blob.clone(), Arc::clone(progress));
        let (store, source) = (Arc::clone(store), Arc::clone(&image.source));
        tasks.spawn(async move { store.build_index(&source, &blob, &progress).await });
    }
    while let Some(built) = tasks.join_next().await {
        built.expected("building an index stopped")??;
    }
    Ok(())
}

/// Publishes what [`build`] made of an image, beside it or in the repository `to`.
pub async fn publish(
    store: &Store,
    image: &Image,
    to: Option<&Reference>,
    key: Option<&SigningKey>,
    options: &Options,
) -> Result<PublishedImage> {
    let target = to.unwrap_or(&image.reference).clone();
    let (name, reaching) = (target.clone(), options.clone());
    let pusher = tokio::task::spawn_blocking(move || push_to(&name, &reaching))
        .await
        .expected("opening the repository stopped")??;
    let layers = distinct(image)
        .iter()
        .map(|layer| PreparedLayer::load(store, layer))
        .collect::<Result<Vec<_>>>()?;
    let mut published = Vec::new();
    for layer in &layers {
        let sent = layer.push(&pusher, mountable(image, &target)).await?;
        published.push(PublishedLayer {
            digest: layer.entry.layer.to_string(),
            index: layer.entry.digest.to_string(),
            index_size: layer.index.len() as u64,
            sent,
        });
    }
    let config = Bytes::from_static(EMPTY_CONFIG);
    pusher.put_blob(&config, None).await?;
    let entries = layers.iter().map(|layer| layer.entry.clone());
    let artifacts = if to.is_some() {
        let mut artifacts = Vec::new();
        for entry in entries {
            artifacts.push(put_by_layer(&pusher, &target, entry, key, options).await?);
        }
        artifacts
    } else {
        let indexes = entries.collect();
        vec![put_beside(&pusher, image, indexes, key).await?]
    };
    let manifest = image.resolved.manifest_digest();
    Ok(PublishedImage {
        reference: image.reference.to_string(),
        manifest: manifest.map(ToString::to_string).unwrap_or_default(),
        platform: image.resolved.platform().to_string(),
        artifacts,
        layers: published,
    })
}

/// The files of one layer and how the artifact lists them.
struct PreparedLayer {
    entry: PublishedIndex,
    index: Bytes,
    midstates: Option<Bytes>,
}

impl PreparedLayer {
    fn load(store: &Store, layer: &Descriptor) -> Result<Self> {
        let file = store.index_file(&layer.digest)?;
        let index = file.ok_or_else(|| {
            let words = format!("layer {} has no index here", layer.digest.short());
            EngineError::with_hint(ErrorKind::NotFound, words, Hint::BuildIndex)
        })?;
        let digest = LayerIndex::digest_of_file(&index)
            .within(|| format!("layer {}: its index is damaged", layer.digest.short()))?;
        let midstates = store.midstates(layer)?;
        let midstates = midstates
            .map(|midstates| Bytes::from(midstates.encode()))
            .filter(|midstates| !midstates.is_empty());
        Ok(Self {
            entry: PublishedIndex {
                layer: layer.digest,
                digest,
                index: described(LAYER_INDEX, &index),
                midstates: midstates.as_ref().map(|file| described(MIDSTATES, file)),
                signatures: std::collections::BTreeMap::new(),
            },
            index,
            midstates,
        })
    }

    /// Sends what is not there; how many bytes that was.
    async fn push(&self, pusher: &Pusher, from: Option<&str>) -> Result<u64, SourceError> {
        let mut sent = 0;
        for file in std::iter::once(&self.index).chain(&self.midstates) {
            if pusher.put_blob(file, from).await? {
                sent += file.len() as u64;
            }
        }
        Ok(sent)
    }
}

/// Another repository of the target's registry that may have the files: the image's own.
fn mountable<'a>(image: &'a Image, target: &Reference) -> Option<&'a str> {
    match (image.reference.location(), target.location()) {
        (
            Location::Registry {
                host, repository, ..
            },
            Location::Registry {
                host: target_host,
                repository: target,
                ..
            },
        ) if host == target_host && repository != target => Some(repository),
        _ => None,
    }
}

/// Publishes beside the image, where the artifact belongs to its manifest.
async fn put_beside(
    pusher: &Pusher,
    image: &Image,
    indexes: Vec<PublishedIndex>,
    key: Option<&SigningKey>,
) -> Result<String> {
    let manifest = image.resolved.chain.last();
    let manifest = manifest.expected("the image has no manifest")?;
    let mut artifact = Artifact {
        subject: Some(Descriptor::of_manifest(&manifest.body)),
        indexes,
    };
    let subject = manifest.descriptor.digest;
    for known in pusher.referrers(&subject, INDEX_ARTIFACT).await? {
        // What cannot be read has no signatures worth keeping.
        let stream = image.source.open_manifest(&known).await;
        let Ok(stream) = stream else { continue };
        let body = read_verified(stream, &known, MAX_MANIFEST_SIZE).await;
        if let Some(known) = body.ok().and_then(|body| Artifact::parse(&body).ok()) {
            artifact.adopt_signatures(&known);
        }
    }
    if let Some(key) = key {
        artifact.sign(key);
    }
    let encoded = Bytes::from(artifact.encode());
    let descriptor = Artifact::descriptor(&encoded);
    pusher.add_referrer(&subject, &descriptor, &encoded).await?;
    Ok(format!("{}@{}", pusher.describe(), descriptor.digest))
}

/// Publishes one layer's index in a repository of indexes.
async fn put_by_layer(
    pusher: &Pusher,
    repository: &Reference,
    entry: PublishedIndex,
    key: Option<&SigningKey>,
    options: &Options,
) -> Result<String> {
    let layer = entry.layer;
    let mut artifact = Artifact {
        subject: None,
        indexes: vec![entry],
    };
    let reference = tagged(repository, &layer)
        .map_err(|problem| EngineError::new(ErrorKind::Invalid, problem))?;
    if let Some(known) = published_before(&reference, options).await? {
        artifact.adopt_signatures(&known);
    }
    if let Some(key) = key {
        artifact.sign(key);
    }
    let encoded = Bytes::from(artifact.encode());
    pusher.put_manifest(&layer.tag(), &encoded).await?;
    Ok(reference.to_string())
}

/// What is under a tag of a repository of indexes, if it is such an artifact.
async fn published_before(reference: &Reference, options: &Options) -> Result<Option<Artifact>> {
    let (name, reaching) = (reference.clone(), options.clone());
    let source = tokio::task::spawn_blocking(move || open(&name, &reaching))
        .await
        .expected("opening the repository stopped")??;
    match source.resolve(None).await {
        Ok(resolved) => Ok(resolved.body.and_then(|body| Artifact::parse(&body).ok())),
        Err(SourceError::NotFound { .. }) => Ok(None),
        Err(err) => Err(err.into()),
    }
}

fn described(media_type: &str, file: &[u8]) -> Descriptor {
    Descriptor {
        media_type: media_type.to_owned(),
        ..Descriptor::of_document(Digest::sha256(file), file.len() as u64)
    }
}
