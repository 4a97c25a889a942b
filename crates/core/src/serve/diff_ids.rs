//! The check that comes after the mount is ready: the layers' DiffIds, and the cache's limit.

use std::sync::Arc;

use crate::image::Opened;
use crate::store::{LayerReader, Store};
use imgfs_formats::oci::DiffId;

/// Brings the cache within its limit, then compares each layer's DiffId with the config, computing
/// those that were never computed as far as their bytes are here. Takes seconds, at low priority.
pub(super) async fn check_diff_ids(store: Arc<Store>, layers: Vec<(Arc<LayerReader>, DiffId)>) {
    let cache = Arc::clone(store.cache());
    let limited = tokio::task::spawn_blocking(move || cache.enforce_limit()).await;
    if let Ok(Err(err)) = limited {
        tracing::warn!("cannot keep the cache within its limit: {err}");
    }
    for (layer, expected) in layers {
        if let Err(err) = layer.establish_diff_id(&expected).await {
            tracing::warn!(
                "layer {}: cannot check its diff_id: {err}",
                layer.digest().short()
            );
        }
    }
}

impl Opened {
    /// The layers with what the config says their uncompressed content is.
    pub(super) fn expected_diff_ids(&self) -> Vec<(Arc<LayerReader>, DiffId)> {
        let diff_ids = &self.image.resolved.config.rootfs.diff_ids;
        self.layers
            .iter()
            .cloned()
            .zip(diff_ids.iter().copied())
            .collect()
    }
}
