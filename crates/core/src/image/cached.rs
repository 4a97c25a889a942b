//! Images as far as the cache has them, by its names and manifests alone: nobody is asked.

use std::collections::{BTreeMap, HashSet};

use crate::error::{EngineError, ErrorKind, Result};
use crate::hint::Hint;
use crate::indexes::hide_format_files;
use crate::store::{Slot, Store, StoreError, Trust};
use imgfs_formats::layer::LayerIndex;
use imgfs_formats::oci::{Descriptor, DiffId, Digest, Document, ImageConfig, Platform, Reference};
use imgfs_formats::tree::{PartialTree, Tree};

/// Most lists inside each other that are followed.
const MAX_DEPTH: usize = 4;

/// An image whose manifest is in the cache.
#[derive(Debug, Clone)]
pub struct CachedImage {
    /// What it was asked for as.
    pub reference: Reference,
    /// What the reference points to, then any list on the way, then the manifest.
    pub chain: Vec<Descriptor>,
    /// Its config.
    pub config: Descriptor,
    /// Its layers, base first.
    pub layers: Vec<Descriptor>,
    /// What they are unpacked, if the config is here, too.
    pub diff_ids: Vec<DiffId>,
    /// Which entry of a list it is.
    pub platform: Option<Platform>,
}

/// A layer, and where it can be had.
#[derive(Debug, Clone)]
pub struct CachedLayer {
    /// The layer.
    pub blob: Descriptor,
    /// The images with it.
    pub images: Vec<CachedImage>,
}

/// What the cache knows images by: tags with what they point to, and of an image that no tag names
/// any more, or none ever did, what it was last asked for as.
pub(crate) fn cached_names(store: &Store) -> Result<Vec<(Reference, Descriptor)>, StoreError> {
    let (mut names, mut tagged) = (Vec::new(), HashSet::new());
    for record in store.tag_records()? {
        // A document that the disk does not give is as good as none.
        let images = store.images_below(&record.descriptor.digest);
        let images = images.unwrap_or_default().into_iter();
        tagged.extend(images.map(|(digest, _)| digest));
        if let Ok(reference) = record.reference.parse() {
            names.push((reference, record.descriptor));
        }
    }
    // Not only those whose manifests are here and right: what is damaged is found by them, too.
    for record in store.image_records()? {
        let mut references = record.references.iter().rev();
        let last = references.find_map(|reference| reference.parse().ok());
        if let Some(reference) = last.filter(|_| !tagged.contains(&record.manifest)) {
            names.push((reference, Descriptor::of_digest(record.manifest)));
        }
    }
    Ok(names)
}

/// The images that the names in the cache mean.
pub fn cached_images(store: &Store) -> Result<Vec<CachedImage>, StoreError> {
    let mut images = Vec::new();
    for (reference, root) in cached_names(store)? {
        images.extend(cached_images_of(store, &reference, &root));
    }
    Ok(images)
}

/// The images that a name means, one for each platform whose manifest is here.
pub(crate) fn cached_images_of(
    store: &Store,
    reference: &Reference,
    root: &Descriptor,
) -> Vec<CachedImage> {
    let mut images = Vec::new();
    let mut pending = vec![vec![root.clone()]];
    while let Some(chain) = pending.pop() {
        let Some(last) = chain.last() else { continue };
        let Ok(Some(body)) = store.document(&last.digest) else {
            continue;
        };
        let declared = (!last.media_type.is_empty()).then_some(last.media_type.as_str());
        match Document::parse(&body, declared) {
            Ok(Document::Manifest(manifest)) => {
                let config = store.document(&manifest.config.digest).ok().flatten();
                let config =
                    config.and_then(|body| ImageConfig::parse(&body, manifest.layers.len()).ok());
                images.push(CachedImage {
                    reference: reference.clone(),
                    platform: last.platform.clone(),
                    chain,
                    config: manifest.config,
                    layers: manifest.layers,
                    diff_ids: config
                        .map(|config| config.rootfs.diff_ids)
                        .unwrap_or_default(),
                });
            }
            Ok(Document::Index(index)) if chain.len() <= MAX_DEPTH => {
                let below = index.manifests.into_iter().map(|entry| {
                    let mut chain = chain.clone();
                    chain.push(entry);
                    chain
                });
                pending.extend(below);
            }
            // What is no image is none that is known.
            Ok(Document::Index(_)) | Err(_) => {}
        }
    }
    images
}

/// The images in the cache that these names mean.
pub fn find_cached(store: &Store, references: &[Reference]) -> Result<Vec<CachedImage>> {
    let mut found = Vec::new();
    for reference in references {
        let root = match reference.digest() {
            Some(digest) => Some(Descriptor::of_digest(*digest)),
            None => (store.tag_record(&reference.to_string())?).map(|record| record.descriptor),
        };
        if let Some(root) = root {
            found.extend(cached_images_of(store, reference, &root));
        }
    }
    (!found.is_empty())
        .then_some(found)
        .ok_or_else(|| not_cached(references))
}

/// That the cache knows none of what an image may mean.
pub(crate) fn not_cached(references: &[Reference]) -> EngineError {
    let names: Vec<String> = references.iter().map(Reference::to_string).collect();
    let words = format!("{} is not in the cache", names.join(" or "));
    EngineError::with_hint(ErrorKind::NotFound, words, Hint::Pull)
}

/// The layers of these images.
pub fn cached_layers(images: &[CachedImage]) -> BTreeMap<Digest, CachedLayer> {
    let mut layers: BTreeMap<Digest, CachedLayer> = BTreeMap::new();
    for image in images {
        for blob in &image.layers {
            let layer = layers.entry(blob.digest).or_insert_with(|| CachedLayer {
                blob: blob.clone(),
                images: Vec::new(),
            });
            layer.images.push(image.clone());
        }
    }
    layers
}

impl CachedLayer {
    /// What the images' configs say it is unpacked.
    pub fn diff_ids(&self) -> impl Iterator<Item = (&CachedImage, DiffId)> {
        self.images.iter().flat_map(|image| {
            let layers = image.layers.iter().zip(&image.diff_ids);
            let same = layers.filter(|(blob, _)| blob.digest == self.blob.digest);
            same.map(move |(_, diff_id)| (image, *diff_id))
        })
    }
}

impl CachedImage {
    /// The manifest, the lists that lead to it, and the config.
    pub fn documents(&self) -> impl Iterator<Item = &Descriptor> {
        self.chain.iter().chain([&self.config])
    }
}

/// The files of an image as far as the cache knows them: from the topmost layers down to the first
/// one without an index. Reads indexes and nothing else.
pub fn cached_tree(store: &Store, image: &CachedImage) -> Option<PartialTree> {
    let mut indexes = Vec::new();
    for blob in image.layers.iter().rev() {
        let Some(mut index) = any_index(store, blob) else {
            break;
        };
        hide_format_files(blob, &mut index);
        indexes.insert(0, index);
    }
    let tocs: Vec<_> = indexes.iter().map(|index| &index.toc).collect();
    if tocs.is_empty() {
        return None;
    }
    if tocs.len() == image.layers.len() {
        let (tree, _) = Tree::build(&tocs).ok()?;
        return Some(PartialTree::complete(tree));
    }
    Some(PartialTree::build(&tocs).ok()?.0)
}

/// The layer's own index, or one that was found and is bound to it.
fn any_index(store: &Store, blob: &Descriptor) -> Option<LayerIndex> {
    if let Some(index) = store.load_index(&Slot::own(blob.digest), false).ok()? {
        return Some(index);
    }
    let found = store.found_indexes(&blob.digest).ok()?.into_iter();
    let mut bound = found.filter(|(_, finding)| finding.trust.satisfies(Trust::Pinned));
    bound.find_map(|(slot, _)| store.load_index(&slot, false).ok()?)
}
