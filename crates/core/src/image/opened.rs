//! Opening all layers of an image and merging them.
//!
//! ```text
//! prepare   an index for each layer, from the cache or found beside the image
//! open      layers without one are streamed, which makes one; then the tree
//! ```

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use tracing::Instrument;

use super::resolve::Image;
use super::trees::{TreeKey, Trees};
use crate::error::{Expected, Result};
use crate::indexes::{
    FoundLayer, MidstatesBlob, Search, hide_format_files, hides_format_files, stream_instead,
};
use crate::memory;
use crate::prefetch::Landmarks;
use crate::store::{LayerReader, OpenLayer, Progress, Store, Trust};
use crate::view::ImageFs;
use imgfs_formats::layer::Toc;
use imgfs_formats::oci::{Descriptor, Digest};
use imgfs_formats::tree::Tree;
use imgfs_formats::trust::IndexKind;

/// One layer's download, to be shown while it runs.
#[derive(Clone)]
pub struct LayerProgress {
    /// The layer.
    pub blob: Descriptor,
    /// Bytes so far.
    pub progress: Arc<Progress>,
}

/// An image whose layers are open as far as that costs next to nothing.
pub struct Prepared {
    image: Image,
    found: HashMap<Digest, FoundLayer>,
    origins: HashMap<Digest, LayerOrigin>,
}

/// How a layer of an open image came to be readable.
#[derive(Clone)]
pub struct LayerOrigin {
    /// How its index came to be.
    pub index: IndexKind,
    /// How far the index is bound to the layer.
    pub trust: Trust,
    /// For people: what was wrong with an index that was not used.
    pub problem: Option<String>,
    /// What the index's maker wants fetched first: bytes of the blob.
    pub prefetch: Vec<Range<u64>>,
    /// Hints for checking the blob's digest, if there are any.
    pub midstates: Option<MidstatesBlob>,
}

impl LayerOrigin {
    /// Of a layer that was streamed just now.
    fn streamed() -> Self {
        Self {
            index: IndexKind::FirstContact,
            trust: Trust::Proven,
            problem: None,
            prefetch: Vec::new(),
            midstates: None,
        }
    }
}

/// An image ready to be read.
pub struct Opened {
    /// The image.
    pub image: Image,
    /// The merged tree over its layers.
    pub fs: Arc<ImageFs>,
    /// The layers, base first; a layer that occurs twice is here twice.
    pub layers: Vec<Arc<LayerReader>>,
    /// How each layer came to be readable.
    pub origins: HashMap<Digest, LayerOrigin>,
}

impl Prepared {
    /// Opens those layers of `image` that need not be streamed.
    pub async fn find(store: &Store, image: Image) -> Self {
        let (mut found, mut origins) = (HashMap::new(), HashMap::new());
        for blob in &image.resolved.manifest.layers {
            if origins.contains_key(&blob.digest) {
                continue;
            }
            let is_here = store.has_index(&blob.digest);
            let Search {
                found: layer,
                problem,
            } = image.finder.take(&blob.digest).await;
            let mut origin = LayerOrigin {
                problem,
                ..LayerOrigin::streamed()
            };
            if is_here {
                origin.index = IndexKind::Cache;
            }
            if let Some(layer) = layer {
                origin.index = layer.finding.origin;
                origin.trust = layer.finding.trust;
                origin.prefetch.clone_from(&layer.prefetch);
                origin.midstates.clone_from(&layer.midstates);
                found.insert(blob.digest, layer);
            }
            origins.insert(blob.digest, origin);
        }
        Self {
            image,
            found,
            origins,
        }
    }

    /// The downloads that opening the rest needs: one for each different layer without an index.
    pub fn downloads(&self) -> Vec<LayerProgress> {
        let mut seen = HashMap::new();
        for blob in &self.image.resolved.manifest.layers {
            let origin = self.origins.get(&blob.digest);
            if origin.is_some_and(|origin| origin.index == IndexKind::FirstContact) {
                seen.entry(blob.digest).or_insert_with(|| blob.clone());
            }
        }
        let mut downloads: Vec<_> = seen
            .into_values()
            .map(|blob| LayerProgress {
                blob,
                progress: Arc::default(),
            })
            .collect();
        downloads.sort_by_key(|download| std::cmp::Reverse(download.blob.size));
        downloads
    }
}

impl Opened {
    /// What the makers of the layers' indexes want fetched first.
    pub fn landmarks(&self) -> Vec<Landmarks> {
        let mut wanted = Vec::new();
        for layer in &self.layers {
            let origin = self.origins.get(layer.digest());
            let parts = origin.map_or(&[][..], |origin| &origin.prefetch);
            if !parts.is_empty() {
                wanted.push(Landmarks::new(Arc::clone(layer), parts.to_vec()));
            }
        }
        wanted
    }

    /// Opens the layers, in parallel, and merges them. `downloads` are told how far it is; `trees`
    /// are those of other open images.
    pub async fn open(
        store: &Arc<Store>,
        prepared: Prepared,
        downloads: &[LayerProgress],
        trees: &Trees,
    ) -> Result<Self> {
        let (mut layers, image, origins) = OpenLayers::open(store, prepared, downloads).await?;
        let opened = layers.merge(store, image, origins, Some(trees)).await?;
        drop(layers);
        memory::give_back();
        Ok(opened)
    }

    /// The same, with what the layers hold, base first: for questions about single layers.
    pub async fn open_with_tocs(
        store: &Arc<Store>,
        prepared: Prepared,
        downloads: &[LayerProgress],
    ) -> Result<(Self, Vec<Arc<Toc>>)> {
        let (mut layers, image, origins) = OpenLayers::open(store, prepared, downloads).await?;
        let opened = layers.merge(store, image, origins, None).await?;
        let tocs = layers.tocs(&opened.image.resolved.manifest.layers);
        Ok((opened, tocs))
    }
}

/// The layers of an image, by digest, before they are merged.
struct OpenLayers(HashMap<Digest, Open>);

struct Open {
    reader: Arc<LayerReader>,
    toc: Arc<Toc>,
}

impl From<OpenLayer> for Open {
    fn from(layer: OpenLayer) -> Self {
        Self {
            reader: layer.reader,
            toc: Arc::new(layer.index.toc),
        }
    }
}

impl OpenLayers {
    /// Opens the layers, in parallel.
    async fn open(
        store: &Arc<Store>,
        prepared: Prepared,
        downloads: &[LayerProgress],
    ) -> Result<(Self, Image, HashMap<Digest, LayerOrigin>)> {
        let Prepared {
            image,
            found,
            origins,
        } = prepared;
        let mut tasks = tokio::task::JoinSet::new();
        let mut started = Vec::new();
        // Large layers first: they decide when everything is done.
        let mut blobs: Vec<&Descriptor> = image.resolved.manifest.layers.iter().collect();
        blobs.sort_by_key(|blob| std::cmp::Reverse(blob.size));
        for blob in blobs {
            if started.contains(&blob.digest) || found.contains_key(&blob.digest) {
                continue;
            }
            started.push(blob.digest);
            let progress = downloads
                .iter()
                .find(|download| download.blob.digest == blob.digest);
            let progress = progress
                .map(|download| Arc::clone(&download.progress))
                .unwrap_or_default();
            let (store, source, blob) =
                (Arc::clone(store), Arc::clone(&image.source), blob.clone());
            let opening = async move {
                let opened = store.open_layer(&source, &blob, &progress).await;
                opened.map(|layer| (blob.digest, layer))
            };
            tasks.spawn(opening.in_current_span());
        }
        let mut open: HashMap<Digest, OpenLayer> = (found.into_iter())
            .map(|(digest, found)| (digest, found.layer))
            .collect();
        // The first error ends the others: their tasks are aborted when the set is dropped.
        while let Some(result) = tasks.join_next().await {
            let (digest, layer) = result.expected("opening a layer stopped")??;
            open.insert(digest, layer);
        }
        for blob in &image.resolved.manifest.layers {
            if let Some(layer) = open.get_mut(&blob.digest) {
                hide_format_files(blob, &mut layer.index);
            }
        }
        let open = open
            .into_iter()
            .map(|(digest, layer)| (digest, layer.into()));
        Ok((Self(open.collect()), image, origins))
    }

    /// Merges the layers, or takes the tree that another open image of the same layers has. Streams
    /// those that no tree can be made of, if that is the word of an index that was found.
    async fn merge(
        &mut self,
        store: &Arc<Store>,
        image: Image,
        mut origins: HashMap<Digest, LayerOrigin>,
        trees: Option<&Trees>,
    ) -> Result<Opened> {
        let blobs = &image.resolved.manifest.layers;
        let tree = loop {
            let key = self.key(blobs);
            if let Some(tree) = trees.and_then(|trees| trees.get(&key)) {
                break tree;
            }
            let tocs = self.tocs(blobs);
            let build = move || {
                let tocs: Vec<&Toc> = tocs.iter().map(|toc| &**toc).collect();
                Tree::build(&tocs)
            };
            let built = store.cores().run(build).await;
            let err = match built.expected("merging layers stopped")? {
                Ok((tree, warnings)) => {
                    for warning in warnings {
                        tracing::warn!("{warning}");
                    }
                    break match trees {
                        Some(trees) => trees.share(key, tree),
                        None => Arc::new(tree),
                    };
                }
                Err(err) => err,
            };
            let blob = err.layer().and_then(|position| blobs.get(position));
            let Some((blob, open)) = blob.and_then(|blob| Some((blob, self.0.get(&blob.digest)?)))
            else {
                return Err(err.into());
            };
            let layer = stream_instead(store, &image.source, blob, &open.reader, err).await?;
            if let Some(origin) = origins.get_mut(&blob.digest) {
                *origin = LayerOrigin::streamed();
            }
            self.0.insert(blob.digest, layer.into());
        };
        let layers: Vec<_> = (blobs.iter())
            .filter_map(|blob| Some(Arc::clone(&self.0.get(&blob.digest)?.reader)))
            .collect();
        Ok(Opened {
            fs: Arc::new(ImageFs::new(tree, layers.clone())),
            image,
            layers,
            origins,
        })
    }

    /// What the tree is made from.
    fn key(&self, blobs: &[Descriptor]) -> TreeKey {
        let layers = blobs.iter().filter_map(|blob| {
            let slot = self.0.get(&blob.digest)?.reader.slot().clone();
            Some((slot, hides_format_files(blob)))
        });
        layers.collect()
    }

    /// What the layers hold, base first.
    fn tocs(&self, blobs: &[Descriptor]) -> Vec<Arc<Toc>> {
        (blobs.iter())
            .filter_map(|blob| Some(Arc::clone(&self.0.get(&blob.digest)?.toc)))
            .collect()
    }
}
