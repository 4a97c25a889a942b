//! What comes after the mount is ready when it was asked for: layers that were opened by an index
//! that was found are proven, one at a time; while one waits for a source that does not answer it
//! is the next one's turn. And what must happen whenever a layer is quarantined: the kernel forgets
//! what it has of it.

use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;

use super::fuse::Forgetter;
use crate::image::Opened;
use crate::indexes::MidstatesBlob;
use crate::source::read_blob;
use crate::store::{LayerReader, Proof, Store};
use crate::view::ImageFs;
use imgfs_formats::oci::{DiffId, Midstates};

/// A layer with what the config says about it, and hints for checking its blob.
pub(super) struct Unproven {
    reader: Arc<LayerReader>,
    diff_id: DiffId,
    midstates: Option<MidstatesBlob>,
}

impl Opened {
    /// The layers whose index was not made here, each once, if the store keeps what proving them
    /// needs.
    pub(super) fn unproven(&self) -> Vec<Unproven> {
        let mut unproven: Vec<Unproven> = Vec::new();
        for (reader, diff_id) in self.expected_diff_ids() {
            let is_known = unproven
                .iter()
                .any(|known| Arc::ptr_eq(&known.reader, &reader));
            if reader.proof().is_settled() || is_known {
                continue;
            }
            let origin = self.origins.get(reader.digest());
            unproven.push(Unproven {
                midstates: origin.and_then(|origin| origin.midstates.clone()),
                reader,
                diff_id,
            });
        }
        unproven
    }
}

/// Proves the layers, however long it takes; the store lets one at a time. Can be given up at any
/// time: the next mount goes on from there.
pub(super) async fn prove(store: Arc<Store>, layers: Vec<Unproven>) {
    let mut proving: FuturesUnordered<_> = (layers.iter())
        .map(|layer| async {
            if let Some(midstates) = layer.midstates() {
                midstates.await;
            }
            layer.reader.prove(Some(layer.diff_id)).await
        })
        .collect();
    while let Some(proof) = proving.next().await {
        if proof != Proof::Proven {
            continue;
        }
        // The layer's own data has come to what was fetched before.
        let store = Arc::clone(&store);
        let limited = tokio::task::spawn_blocking(move || store.enforce_limit()).await;
        if let Ok(Err(err)) = limited {
            tracing::warn!("cannot keep the cache within its limit: {err}");
        }
    }
}

impl Unproven {
    /// Fetches the hints and keeps them. Without them one core checks what several could.
    fn midstates(&self) -> Option<impl Future<Output = ()>> {
        let (blob, source) = self.midstates.as_ref()?;
        let size = self.reader.blob_size();
        Some(async move {
            let limit = Midstates::encoded_size(size);
            let midstates = read_blob(&**source, blob, limit).await;
            let midstates = midstates
                .map_err(|err| err.to_string())
                .and_then(|bytes| Midstates::decode(&bytes, size).map_err(|err| err.to_string()));
            match midstates {
                Ok(midstates) => self.reader.keep_midstates(&midstates),
                Err(err) => tracing::debug!("no midstates: {err}"),
            }
        })
    }
}

/// Whenever a layer is quarantined, makes the kernel forget the files whose bytes are in it.
pub(super) async fn forget_quarantined(image: Arc<ImageFs>, forgetter: Forgetter) {
    let forgetter = Arc::new(forgetter);
    let mut waiting: FuturesUnordered<_> = (image.layers().iter())
        .map(|layer| async {
            layer.until_quarantined().await;
            Arc::clone(layer)
        })
        .collect();
    while let Some(layer) = waiting.next().await {
        let (image, forgetter) = (Arc::clone(&image), Arc::clone(&forgetter));
        let forgotten = tokio::task::spawn_blocking(move || {
            for ino in image.files_in(&layer) {
                if let Err(err) = forgetter.forget(ino) {
                    let layer = layer.digest().short();
                    tracing::warn!("layer {layer}: the kernel keeps what it has of it: {err}");
                    return;
                }
            }
        });
        if forgotten.await.is_err() {
            tracing::warn!("internal: making the kernel forget stopped");
        }
    }
}
