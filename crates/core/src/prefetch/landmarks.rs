//! What the makers of indexes want fetched first: eStargz's landmarks, SOCI's prefetch lists.

use std::ops::Range;
use std::sync::Arc;

use crate::store::LayerReader;

/// Parts of a layer's blob, in bytes, the most urgent first.
pub struct Landmarks {
    layer: Arc<LayerReader>,
    parts: Vec<Range<u64>>,
}

impl Landmarks {
    /// Those of this layer.
    pub fn new(layer: Arc<LayerReader>, parts: Vec<Range<u64>>) -> Self {
        Self { layer, parts }
    }

    /// Fetches them, one after the other, as far as they can be had. Must run on the runtime.
    pub async fn fetch(self) {
        for part in self.parts {
            // It is only about speed: a reader of these bytes is told what is wrong.
            if let Err(err) = self.layer.prefetch(part).await {
                tracing::debug!("prefetching ended: {err}");
                return;
            }
        }
    }
}
