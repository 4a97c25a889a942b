//! The check that comes after the mount is ready: the layers' DiffIds.

use std::sync::Arc;

use super::opened::Opened;
use crate::store::{LayerReader, Store};
use imgfs_formats::oci::DiffId;

/// Compares each layer's DiffId with the config, computing those that were never computed as far as their bytes
/// are here. Takes seconds; runs on the calling thread with the lowest priority while `go_on` says so.
pub fn prove_diff_ids(
    store: &Store,
    layers: &[(Arc<LayerReader>, DiffId)],
    go_on: impl Fn() -> bool,
) {
    // On Linux this concerns the calling thread alone. Without it the check is only less polite.
    let _ignored = rustix::process::setpriority_process(None, 19);
    for (layer, expected) in layers {
        if !go_on() {
            return;
        }
        let done = match store.known_diff_id(layer.digest()) {
            Ok(Some(found)) => {
                layer.check_diff_id(expected, &found);
                continue;
            }
            Ok(None) => layer.compute_diff_id(expected, &go_on),
            Err(err) => Err(err),
        };
        if let Err(err) = done {
            tracing::warn!(
                "layer {}: cannot check its diff_id: {err}",
                layer.digest().short()
            );
        }
    }
}

impl Opened {
    /// The layers with what the config says their uncompressed content is.
    pub fn expected_diff_ids(&self) -> Vec<(Arc<LayerReader>, DiffId)> {
        let diff_ids = &self.image.resolved.config.rootfs.diff_ids;
        self.layers
            .iter()
            .cloned()
            .zip(diff_ids.iter().copied())
            .collect()
    }
}
