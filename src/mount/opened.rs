//! Opening all layers of an image and merging them.

use std::collections::HashMap;
use std::sync::Arc;

use anyhow::Context;

use super::image::Image;
use crate::fs::ImageFs;
use crate::oci::{Descriptor, Digest};
use crate::store::{LayerReader, OpenLayer, Progress, Store};
use crate::tree::Tree;

/// One layer's download, to be shown while it runs.
#[derive(Clone)]
pub struct LayerProgress {
    /// The layer.
    pub blob: Descriptor,
    /// Bytes so far.
    pub progress: Arc<Progress>,
}

/// An image ready to be read.
pub struct Opened {
    /// The image.
    pub image: Image,
    /// The merged tree over its layers.
    pub fs: Arc<ImageFs>,
    /// The layers, base first; a layer that occurs twice is here twice.
    pub layers: Vec<Arc<LayerReader>>,
}

impl Opened {
    /// The downloads that opening `image` needs: one for each different layer without an index.
    pub fn downloads(store: &Store, image: &Image) -> Vec<LayerProgress> {
        let mut seen = HashMap::new();
        for blob in &image.resolved.manifest.layers {
            if !store.has_index(&blob.digest) {
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

    /// Opens the layers, in parallel, and merges them. `downloads` are told how far it is.
    pub async fn open(
        store: &Arc<Store>,
        image: Image,
        downloads: &[LayerProgress],
    ) -> anyhow::Result<Self> {
        let mut tasks = tokio::task::JoinSet::new();
        let mut started = Vec::new();
        // Large layers first: they decide when everything is done.
        let mut blobs: Vec<&Descriptor> = image.resolved.manifest.layers.iter().collect();
        blobs.sort_by_key(|blob| std::cmp::Reverse(blob.size));
        for blob in blobs {
            if started.contains(&blob.digest) {
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
            tasks.spawn(async move {
                let opened = store.open_layer(&source, &blob, &progress).await;
                opened.map(|layer| (blob.digest, layer))
            });
        }
        let mut open: HashMap<Digest, OpenLayer> = HashMap::new();
        // The first error ends the others: their tasks are aborted when the set is dropped.
        while let Some(result) = tasks.join_next().await {
            let (digest, layer) = result.context("internal: opening a layer stopped")??;
            open.insert(digest, layer);
        }
        let in_order: Vec<&OpenLayer> = image
            .resolved
            .manifest
            .layers
            .iter()
            .filter_map(|blob| open.get(&blob.digest))
            .collect();
        let tocs: Vec<_> = in_order.iter().map(|layer| &layer.index.toc).collect();
        let (tree, warnings) = Tree::build(&tocs)?;
        for warning in warnings {
            tracing::warn!("{warning}");
        }
        let layers: Vec<_> = in_order
            .iter()
            .map(|layer| Arc::clone(&layer.reader))
            .collect();
        drop(open);
        super::memory::give_back();
        let fs = Arc::new(ImageFs::new(Arc::new(tree), layers.clone()));
        Ok(Self { image, fs, layers })
    }
}
