//! SOCI indexes: where they are found, and what they have for a layer.
//!
//! ```text
//! version   found by                                                   trust
//! 2         the annotation com.amazon.soci.index-digest of the         pinned: the image's manifest names its digest
//!           image's manifest
//! 1         the referrers of the image's manifest                      claimed: anybody who may push can add one
//! ```
//!
//! A SOCI index is a manifest whose "layers" are zTOCs, each annotated with the layer it is of. It
//! is fetched once for an image, a zTOC when its layer is wanted. Layers without a zTOC are usual:
//! small ones are left out. Everything that is wrong is an error here whose text says what; the
//! layer is then read as one without a zTOC.

use std::collections::HashMap;
use std::ops::Range;

use bytes::Bytes;
use serde::Deserialize;

use crate::error::{Expected, Result, Within, fail};
use crate::source::{BlobSource, read_blob, read_verified};
use crate::store::{Store, Trust};
use imgfs_formats::layer::LayerIndex;
use imgfs_formats::layer::soci::{
    MAX_PREFETCH_SIZE, MAX_ZTOC_SIZE, index_of_ztoc, prefetch_ranges,
};
use imgfs_formats::oci::{Descriptor, Digest, MAX_MANIFEST_SIZE, Manifest};

/// The type of an index of version 1, by which it is found among the referrers.
pub(crate) const SOCI_V1: &str = "application/vnd.amazon.soci.index.v1+json";
/// The type of an index of version 2.
const SOCI_V2: &str = "application/vnd.amazon.soci.index.v2+json";
/// The type of a prefetch list, which stands among the zTOCs.
const PREFETCH: &str = "application/vnd.amazon.soci.prefetch.v1+json";
/// In the image's manifest: the digest of its index of version 2.
const INDEX_DIGEST: &str = "com.amazon.soci.index-digest";
/// At a zTOC: the layer it is of.
const LAYER_DIGEST: &str = "com.amazon.soci.image-layer-digest";

/// The SOCI index of one image.
#[derive(Debug)]
pub(crate) struct SociIndex {
    /// How far it is bound to the image.
    pub(crate) trust: Trust,
    layers: HashMap<Digest, Listed>,
}

/// What it has for a layer.
#[derive(Debug, Default)]
struct Listed {
    ztoc: Option<Descriptor>,
    prefetch: Option<Descriptor>,
}

/// An index of a layer, made of a zTOC.
#[derive(Debug)]
pub(crate) struct FoundZtocs {
    /// The index.
    pub(crate) index: LayerIndex,
    /// What its maker wants fetched first: bytes of the blob, the most urgent first.
    pub(crate) prefetch: Vec<Range<u64>>,
    /// For people: what was wrong with that list.
    pub(crate) problem: Option<String>,
}

/// The parts of a SOCI index's manifest.
#[derive(Deserialize)]
struct Document {
    config: Descriptor,
    layers: Vec<Descriptor>,
    #[serde(default)]
    subject: Option<Descriptor>,
}

/// The index that the image's manifest names, if it names one.
pub(crate) async fn pinned(
    store: &Store,
    source: &dyn BlobSource,
    manifest: &Manifest,
) -> Result<Option<SociIndex>> {
    let Some(name) = manifest.annotations.get(INDEX_DIGEST) else {
        return Ok(None);
    };
    let digest: Digest =
        (name.parse()).within(|| format!("the image's annotation {INDEX_DIGEST} is {name:?}"))?;
    let context = || format!("the image's SOCI index {}", digest.short());
    let descriptor = Descriptor::of_digest(digest);
    let body = document(store, source, &descriptor);
    let document = parse(&body.await.within(context)?, SOCI_V2).within(context)?;
    Ok(Some(SociIndex::of(document, Trust::Pinned)))
}

/// The first usable index of version 1 among the referrers of the image's manifest `image`. What
/// was wrong with others is only told if there is no such one.
pub(crate) async fn claimed(
    store: &Store,
    source: &dyn BlobSource,
    image: &Digest,
    referrers: &[Descriptor],
) -> Result<Option<SociIndex>> {
    let mut problem = None;
    for referrer in referrers {
        // Registries that do not know the property leave it out; the manifest says it then.
        if !["", SOCI_V1].contains(&referrer.artifact_type.as_str()) {
            continue;
        }
        match claimed_by(store, source, image, referrer).await {
            Ok(index) => return Ok(Some(index)),
            Err(err) if referrer.artifact_type.is_empty() => tracing::debug!("{err:#}"),
            Err(err) => problem = Some(err),
        }
    }
    problem.map_or(Ok(None), Err)
}

async fn claimed_by(
    store: &Store,
    source: &dyn BlobSource,
    image: &Digest,
    referrer: &Descriptor,
) -> Result<SociIndex> {
    let context = || format!("the SOCI index {}", referrer.digest.short());
    let body = document(store, source, referrer);
    let document = parse(&body.await.within(context)?, SOCI_V1).within(context)?;
    let subject = document.subject.as_ref().map(|subject| subject.digest);
    if subject != Some(*image) {
        fail!(
            Invalid,
            "{} is of another image than {}",
            context(),
            image.short()
        );
    }
    Ok(SociIndex::of(document, Trust::Claimed))
}

/// A manifest, from the cache if it is there.
async fn document(
    store: &Store,
    source: &dyn BlobSource,
    descriptor: &Descriptor,
) -> Result<Bytes> {
    if let Some(body) = store.document(&descriptor.digest)? {
        return Ok(body);
    }
    let stream = source.open_manifest(descriptor).await?;
    let body = read_verified(stream, descriptor, MAX_MANIFEST_SIZE).await?;
    store.keep_document(&descriptor.digest, &body);
    Ok(body)
}

fn parse(body: &[u8], version: &str) -> Result<Document> {
    let document: Document =
        serde_json::from_slice(body).within(|| "not a valid manifest".to_owned())?;
    let found = &document.config.media_type;
    if found != version {
        fail!(Invalid, "it is of the type {found:?}, not {version:?}");
    }
    Ok(document)
}

impl SociIndex {
    fn of(document: Document, trust: Trust) -> Self {
        let mut layers: HashMap<Digest, Listed> = HashMap::new();
        for blob in document.layers {
            let layer = blob.annotations.get(LAYER_DIGEST);
            // What is of no layer may be something that later versions have.
            let Some(layer) = layer.and_then(|layer| layer.parse().ok()) else {
                continue;
            };
            let listed = layers.entry(layer).or_default();
            let place = match blob.media_type.as_str() {
                PREFETCH => &mut listed.prefetch,
                _ => &mut listed.ztoc,
            };
            place.get_or_insert(blob);
        }
        Self { trust, layers }
    }

    /// The digest of the zTOC that it has for a layer.
    pub(crate) fn ztoc(&self, layer: &Digest) -> Option<Digest> {
        let listed = self.layers.get(layer)?;
        Some(listed.ztoc.as_ref()?.digest)
    }

    /// What it has for a layer. Nothing is usual.
    pub(crate) async fn find(
        &self,
        source: &dyn BlobSource,
        blob: &Descriptor,
    ) -> Result<Option<FoundZtocs>> {
        let Some(listed) = self.layers.get(&blob.digest) else {
            return Ok(None);
        };
        let Some(ztoc) = &listed.ztoc else {
            return Ok(None);
        };
        let (digest, size) = (blob.digest, blob.size);
        let context = || {
            let layer = digest.short();
            format!(
                "the SOCI index of layer {layer}, zTOC {}",
                ztoc.digest.short()
            )
        };
        let bytes = read_blob(source, ztoc, MAX_ZTOC_SIZE);
        // The list is small, and asked for at the same time.
        let (bytes, list) = tokio::join!(bytes, prefetch_list(source, listed));
        let bytes = bytes.within(context)?;
        let index = tokio::task::spawn_blocking(move || index_of_ztoc(&bytes, digest, size));
        let index = index.await.expected("reading a zTOC stopped")?;
        let index = index.within(context)?;
        let prefetch = list.and_then(|list| match list {
            Some(list) => Ok(prefetch_ranges(&list, &index.spans)?),
            None => Ok(Vec::new()),
        });
        let (prefetch, problem) = match prefetch {
            Ok(prefetch) => (prefetch, None),
            Err(err) => {
                let problem = format!("{}: its prefetch list is not used: {err:#}", context());
                (Vec::new(), Some(problem))
            }
        };
        Ok(Some(FoundZtocs {
            index,
            prefetch,
            problem,
        }))
    }
}

async fn prefetch_list(source: &dyn BlobSource, listed: &Listed) -> Result<Option<Bytes>> {
    match &listed.prefetch {
        Some(list) => Ok(Some(read_blob(source, list, MAX_PREFETCH_SIZE).await?)),
        None => Ok(None),
    }
}

#[cfg(test)]
#[path = "soci_tests.rs"]
mod tests;
