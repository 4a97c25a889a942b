//! What publishing needs of the cache, and where indexes go that others published.
//!
//! ```text
//! midstates/ALGORITHM/HEX     SHA-256 midstates of a layer's blob            (oci::Midstates)
//! found/ALGORITHM/HEX         an index that somebody published, as it came   (layer::LayerIndex)
//!       ALGORITHM/HEX.json    who vouches for it, and where it was
//! ```
//!
//! An index under `indexes/` was made here, from all of the blob; one under `found/` is worth what its record says.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::files::{publish, read_if_there};
use super::first_contact::{PassOptions, recompute};
use super::{Progress, Store, StoreError};
use crate::layer::LayerIndex;
use crate::oci::{Algorithm, Descriptor, Digest, Midstates};
use crate::source::BlobSource;

/// What is known about an index that somebody published.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FoundRecord {
    /// The index digest.
    pub digest: Digest,
    /// Id of the key whose signature binds it to the layer, if one was asked for and did.
    pub signed_by: Option<String>,
    /// For people: where it was found.
    pub origin: String,
}

impl Store {
    /// Makes the index of a layer and its midstates, as far as they are not here, in one pass. Must run on the runtime.
    pub async fn build_index(
        self: &Arc<Self>,
        source: &Arc<dyn BlobSource>,
        blob: &Descriptor,
        progress: &Progress,
    ) -> Result<(), StoreError> {
        let index = self.load_index(&blob.digest, false)?;
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
        self.keep_index(&blob.digest, &index)?;
        if let Some(midstates) = midstates {
            self.keep_midstates(&blob.digest, &midstates);
        }
        Ok(())
    }

    /// Makes index and midstates of a layer from all of its blob, and keeps nothing. Must run on the runtime.
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

    /// The file with a layer's index that was made here, as it is.
    pub fn index_file(&self, layer: &Digest) -> Result<Option<Bytes>, StoreError> {
        Ok(read_if_there(&self.index_path(layer))?.map(Bytes::from))
    }

    /// The midstates of a layer's blob, if they are here. Damaged ones count as none.
    pub fn midstates(&self, blob: &Descriptor) -> Result<Option<Midstates>, StoreError> {
        let bytes = read_if_there(&self.midstates_path(&blob.digest))?;
        Ok(bytes.and_then(|bytes| Midstates::decode(&bytes, blob.size).ok()))
    }

    /// Keeps midstates. A cache that cannot be written is no reason to fail.
    pub(super) fn keep_midstates(&self, layer: &Digest, midstates: &Midstates) {
        if let Err(err) = publish(&self.midstates_path(layer), &midstates.encode()) {
            self.caching_failed(&err);
        }
    }

    /// Keeps an index that somebody published.
    pub fn keep_found_index(
        &self,
        layer: &Digest,
        file: &[u8],
        record: &FoundRecord,
    ) -> Result<(), StoreError> {
        let json = serde_json::to_vec_pretty(record).unwrap_or_default();
        publish(&self.by_digest("found", layer), file)?;
        // Last: what the record says is compared with the file whenever both are read.
        publish(&self.found_record_path(layer), &json)
    }

    /// The published index that was kept for a layer, if it is intact.
    pub fn found_index(
        &self,
        layer: &Digest,
    ) -> Result<Option<(LayerIndex, FoundRecord)>, StoreError> {
        let (Some(file), Some(record)) = (
            read_if_there(&self.by_digest("found", layer))?,
            read_if_there(&self.found_record_path(layer))?,
        ) else {
            return Ok(None);
        };
        let record: Option<FoundRecord> = serde_json::from_slice(&record).ok();
        let is_same = |record: &FoundRecord| {
            LayerIndex::digest_of_file(&file).is_ok_and(|digest| digest == record.digest)
        };
        let Some(record) = record.filter(is_same) else {
            return Ok(None);
        };
        let index = LayerIndex::read(&file[..], layer, true).ok();
        Ok(index.map(|index| (index, record)))
    }

    /// Size of the published index that was kept for a layer, in bytes; 0 if there is none.
    pub fn found_index_size(&self, layer: &Digest) -> u64 {
        let path = self.by_digest("found", layer);
        std::fs::metadata(path).map_or(0, |metadata| metadata.len())
    }

    fn midstates_path(&self, layer: &Digest) -> PathBuf {
        self.by_digest("midstates", layer)
    }

    fn found_record_path(&self, layer: &Digest) -> PathBuf {
        self.by_digest("found", layer).with_extension("json")
    }
}

/// Whether the blob is more than one segment of a hash that has midstates.
fn needs_midstates(blob: &Descriptor) -> bool {
    blob.digest.algorithm() == Algorithm::Sha256 && Midstates::encoded_size(blob.size) > 0
}
