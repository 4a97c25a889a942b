//! Pulling: all of an image's bytes into the cache, so that it can be mounted and read with its
//! source gone.

use std::collections::HashMap;
use std::sync::Arc;

use serde::Serialize;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::error::{EngineError, ErrorKind, Expected, Result};
use crate::hint::Hint;
use crate::image::{Image, LayerProgress};
use crate::store::{LayerPin, LayerReader, Progress, Store};
use imgfs_formats::oci::{Descriptor, Digest};

/// Layers worked on at a time: as many as are streamed at once at first contact.
const LAYERS_AT_ONCE: usize = 4;

/// What was pulled. Sizes in bytes of the layers as distributed.
#[derive(Debug, Clone, Serialize)]
pub struct Pulled {
    /// The reference, normalised.
    pub reference: String,
    /// What the reference points to: a list or a manifest.
    pub digest: String,
    /// The image's manifest.
    pub manifest: String,
    /// Its platform.
    pub platform: String,
    /// Its different layers, base first.
    pub layers: Vec<PulledLayer>,
    /// What had to be fetched.
    pub bytes_fetched: u64,
    /// What was here already.
    pub bytes_cached: u64,
}

/// One layer's part.
#[derive(Debug, Clone, Serialize)]
pub struct PulledLayer {
    /// Digest of the blob.
    pub digest: String,
    /// Size of the blob.
    pub size: u64,
    /// What had to be fetched.
    pub bytes_fetched: u64,
    /// What was here already.
    pub bytes_cached: u64,
}

/// Pulls images one after the other. What it has pulled is not evicted while it lives.
pub struct Puller {
    store: Arc<Store>,
    /// What was pulled: one open file for each.
    pulled: HashMap<Digest, LayerPin>,
}

impl Puller {
    /// Nothing is pulled yet.
    pub fn new(store: Arc<Store>) -> Self {
        Self {
            store,
            pulled: HashMap::new(),
        }
    }

    /// Where they go.
    pub fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// The layers that [`Puller::pull`] would look at, to be shown while it runs.
    pub fn downloads(&self, image: &Image) -> Vec<LayerProgress> {
        let blobs = distinct(image).into_iter();
        blobs
            .filter(|blob| !self.pulled.contains_key(&blob.digest))
            .map(|blob| LayerProgress {
                blob,
                progress: Arc::default(),
            })
            .collect()
    }

    /// Brings all of the image into the cache. `downloads` are told how far it is.
    pub async fn pull(&mut self, image: &Image, downloads: &[LayerProgress]) -> Result<Pulled> {
        // Unpacked it is larger as a rule, but what is certain can be said before anything is
        // fetched.
        let packed = downloads.iter().map(|download| download.blob.size).sum();
        self.check_limit(packed)?;
        let readers = self.open(image, downloads).await?;
        fetch(readers, downloads).await?;
        let layers: Vec<_> = (distinct(image).iter())
            .map(|blob| pulled_layer(blob, downloads))
            .collect();
        let digest = |document: Option<&crate::source::VerifiedDocument>| {
            document
                .map(|document| document.descriptor.digest.to_string())
                .unwrap_or_default()
        };
        Ok(Pulled {
            reference: image.reference.to_string(),
            digest: digest(image.resolved.chain.first()),
            manifest: digest(image.resolved.chain.last()),
            platform: image.resolved.platform().to_string(),
            bytes_fetched: layers.iter().map(|layer| layer.bytes_fetched).sum(),
            bytes_cached: layers.iter().map(|layer| layer.bytes_cached).sum(),
            layers,
        })
    }

    /// Makes room by dropping what was not pulled, if the cache is over its limit. Reads the disk.
    pub fn finish(self) -> Result<()> {
        self.store.enforce_limit()?;
        Ok(())
    }

    /// Opens the layers; those without an index are streamed, which brings all of them.
    async fn open(
        &mut self,
        image: &Image,
        downloads: &[LayerProgress],
    ) -> Result<HashMap<Digest, Arc<LayerReader>>> {
        let mut readers = HashMap::new();
        let turns = Arc::new(Semaphore::new(LAYERS_AT_ONCE));
        let mut tasks = JoinSet::new();
        for download in downloads.iter().cloned() {
            let (store, source) = (Arc::clone(&self.store), Arc::clone(&image.source));
            let turns = Arc::clone(&turns);
            tasks.spawn(async move {
                let _turn = turns.acquire_owned().await;
                let LayerProgress { blob, progress } = download;
                let was_indexed = store.has_index(&blob.digest);
                let opened = store.open_layer_resumably(&source, &blob, &progress);
                let reader = opened.await?.reader;
                if !was_indexed {
                    reader.check_kept()?;
                }
                Ok::<_, EngineError>((blob.digest, reader))
            });
        }
        // The first error ends the others: their tasks are aborted when the set is dropped.
        while let Some(result) = tasks.join_next().await {
            let (digest, reader) = result.expected("opening a layer stopped")??;
            self.pulled.insert(digest, reader.pin());
            self.check_limit(0)?;
            readers.insert(digest, reader);
        }
        Ok(readers)
    }

    /// Refuses what would push itself out of the cache: `more` bytes beside all that was pulled.
    fn check_limit(&self, more: u64) -> Result<()> {
        let unpacked: u64 = self.pulled.values().map(|layer| layer.size).sum();
        let (needed, limit) = (unpacked + more, self.store.limit());
        if needed > limit {
            let words = format!(
                "it needs {} of the cache or more, which has a limit of {}, so not all of it could stay",
                megabytes(needed),
                megabytes(limit)
            );
            return Err(EngineError::with_hint(
                ErrorKind::Unavailable,
                words,
                Hint::RaiseLimit,
            ));
        }
        Ok(())
    }
}

/// Fetches what is missing of the open layers.
async fn fetch(
    readers: HashMap<Digest, Arc<LayerReader>>,
    downloads: &[LayerProgress],
) -> Result<()> {
    let turns = Arc::new(Semaphore::new(LAYERS_AT_ONCE));
    let mut tasks = JoinSet::new();
    for download in downloads {
        // What was streamed just now was written just now.
        if download.progress.done() == download.blob.size {
            continue;
        }
        let Some(reader) = readers.get(&download.blob.digest).cloned() else {
            continue;
        };
        let (progress, turns): (Arc<Progress>, _) =
            (Arc::clone(&download.progress), Arc::clone(&turns));
        tasks.spawn(async move {
            let _turn = turns.acquire_owned().await;
            reader.fetch_all(&progress).await
        });
    }
    while let Some(result) = tasks.join_next().await {
        result.expected("fetching a layer stopped")??;
    }
    Ok(())
}

fn megabytes(bytes: u64) -> String {
    format!("{}.{} MB", bytes / 1_000_000, bytes / 100_000 % 10)
}

/// The image's layers, each once.
pub(crate) fn distinct(image: &Image) -> Vec<Descriptor> {
    let mut blobs: Vec<Descriptor> = Vec::new();
    for blob in &image.resolved.manifest.layers {
        if blobs.iter().all(|known| known.digest != blob.digest) {
            blobs.push(blob.clone());
        }
    }
    blobs
}

fn pulled_layer(blob: &Descriptor, downloads: &[LayerProgress]) -> PulledLayer {
    let download = (downloads.iter()).find(|download| download.blob.digest == blob.digest);
    // Without a download it was pulled with an image before this one.
    let cached = download.map_or(blob.size, |download| download.progress.here());
    PulledLayer {
        digest: blob.digest.to_string(),
        size: blob.size,
        bytes_fetched: blob.size.saturating_sub(cached),
        bytes_cached: cached,
    }
}
