//! What publishing needs of the cache: indexes with the midstates of their blobs, as files.
//!
//! ```text
//! midstates/ALGORITHM/HEX     SHA-256 midstates of a layer's blob            (oci::Midstates)
//! ```

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;

use super::files::{publish, read_if_there};
use crate::source::BlobSource;
use crate::store::ingest::{PassOptions, Progress, recompute};
use crate::store::{Cache, Slot, Store, StoreError};
use imgfs_formats::layer::LayerIndex;
use imgfs_formats::oci::{Algorithm, Descriptor, Digest, Midstates};

impl Store {
    /// Makes the index of a layer and its midstates, as far as they are not here, in one pass. Must
    /// run on the runtime.
    pub async fn build_index(
        self: &Arc<Self>,
        source: &Arc<dyn BlobSource>,
        blob: &Descriptor,
        progress: &Progress,
    ) -> Result<(), StoreError> {
        let index = self
            .cache
            .load_index_beside(&Slot::own(blob.digest), false)
            .await?;
        if index.is_none() {
            let options = PassOptions {
                keep: true,
                midstates: needs_midstates(blob),
            };
            self.open_keeping(source, blob, options, progress).await?;
        }
        if !needs_midstates(blob) || self.midstates(blob)?.is_some() {
            progress.finish(blob.size);
            return Ok(());
        }
        // Made before by a mount or pull, which leave the midstates out.
        let (index, midstates) = self.recompute_index(source, blob, progress).await?;
        self.keep_index(&Slot::own(blob.digest), &index)?;
        if let Some(midstates) = midstates {
            self.keep_midstates(&blob.digest, &midstates);
        }
        Ok(())
    }

    /// Makes index and midstates of a layer from all of its blob, and keeps nothing. Must run on
    /// the runtime.
    pub async fn recompute_index(
        self: &Arc<Self>,
        source: &Arc<dyn BlobSource>,
        blob: &Descriptor,
        progress: &Progress,
    ) -> Result<(LayerIndex, Option<Midstates>), StoreError> {
        let _turn = self
            .first_contacts
            .acquire()
            .await
            .map_err(|_| StoreError::Worker("queue"))?;
        let result = recompute(self, source, blob, progress).await?;
        progress.finish(blob.size);
        Ok(result)
    }
}

impl Cache {
    /// The file with a layer's index that was made here, as it is.
    pub fn index_file(&self, layer: &Digest) -> Result<Option<Bytes>, StoreError> {
        Ok(read_if_there(&self.index_path(&Slot::own(*layer)))?.map(Bytes::from))
    }

    /// The midstates of a layer's blob, if they are here. Damaged ones count as none.
    pub fn midstates(&self, blob: &Descriptor) -> Result<Option<Midstates>, StoreError> {
        let bytes = read_if_there(&self.midstates_path(&blob.digest))?;
        Ok(bytes.and_then(|bytes| Midstates::decode(&bytes, blob.size).ok()))
    }

    /// Keeps midstates. A cache that cannot be written is no reason to fail.
    pub(in crate::store) fn keep_midstates(&self, layer: &Digest, midstates: &Midstates) {
        if let Err(err) = publish(&self.midstates_path(layer), &midstates.encode()) {
            self.caching_failed(&err);
        }
    }

    fn midstates_path(&self, layer: &Digest) -> PathBuf {
        self.by_digest("midstates", layer)
    }
}

/// Whether the blob is more than one segment of a hash that has midstates.
fn needs_midstates(blob: &Descriptor) -> bool {
    blob.digest.algorithm() == Algorithm::Sha256 && Midstates::encoded_size(blob.size) > 0
}
