//! One published index: fetched, and checked for being the index of the layer.

use std::sync::Arc;

use super::{FoundIndex, Vouched};
use crate::error::Result;
use crate::source::{BlobSource, read_blob};
use imgfs_formats::layer::LayerIndex;
use imgfs_formats::oci::{Descriptor, Midstates, PublicKey, PublishedIndex};

/// Largest index file fetched, in bytes, whatever the layer's size; protects memory. That of a
/// layer of 4 Mi entries is about half as large.
const MAX_INDEX: u64 = 256 << 20;
/// And at most this part of the layer, beside a start that small layers with many files need: a
/// real one has 1.5 %, and with much more the layer itself is as soon here.
const MAX_PART: u64 = 8;
const MAX_START: u64 = 1 << 20;

/// An index that an artifact lists for a layer.
pub(super) struct Candidate<'a> {
    pub(super) published: &'a PublishedIndex,
    pub(super) source: Arc<dyn BlobSource>,
    pub(super) origin: &'a str,
}

impl Candidate<'_> {
    /// Whether it would be pinned.
    pub(super) fn is_signed(&self, key: &PublicKey) -> bool {
        self.published.is_signed(key, &self.published.digest) == Some(true)
    }

    /// Who binds it to the layer; otherwise why nobody does. Its digest was checked.
    pub(super) fn vouched(&self, key: &PublicKey) -> Result<Vouched, String> {
        match self.published.is_signed(key, &self.published.digest) {
            Some(true) => Ok(Vouched::Signed(key.id())),
            Some(false) => Err(format!(
                "the index at {} has a wrong signature of the key {}: it is only claimed to be the layer's, ask who \
                 published it",
                self.origin,
                key.id()
            )),
            None => Err(format!(
                "the index at {} is not signed with the key {}: it is only claimed to be the layer's",
                self.origin,
                key.id()
            )),
        }
    }

    /// Fetches it and checks that it is an index of this layer; otherwise what is wrong.
    pub(super) async fn fetch(&self, layer: &Descriptor) -> Result<FoundIndex, String> {
        let problem = |problem: &dyn std::fmt::Display| {
            format!(
                "the index at {} is not used: {problem}; without it all of the layer is fetched",
                self.origin
            )
        };
        let blob = &self.published.index;
        let limit = MAX_INDEX.min(layer.size / MAX_PART + MAX_START);
        if blob.size > limit {
            let found = format!(
                "it has {} bytes, more than the limit of {limit} for a layer of {}",
                blob.size, layer.size
            );
            return Err(problem(&found));
        }
        let file = read_blob(&*self.source, blob, limit)
            .await
            .map_err(|err| problem(&err))?;
        let (bytes, digest) = (file.clone(), layer.digest);
        let reading = tokio::task::spawn_blocking(move || {
            let found = LayerIndex::digest_of_file(&bytes)?;
            // With the files' digests, though a mount does without: a proof compares them.
            let mut index = LayerIndex::read(&bytes[..], &digest, true)?;
            index.file_digests = Vec::new();
            Ok((found, index))
        });
        let read: Result<_, imgfs_formats::layer::IndexError> =
            reading.await.map_err(|_| problem(&"the program ends"))?;
        let (digest, index) = read.map_err(|err| problem(&err))?;
        if digest != self.published.digest {
            let found = format!(
                "it should have the index digest {} and has {digest}",
                self.published.digest
            );
            return Err(problem(&found));
        }
        if index.blob_size != layer.size {
            let found = format!(
                "it is of {} bytes, the layer has {}",
                index.blob_size, layer.size
            );
            return Err(problem(&found));
        }
        let midstates = self.published.midstates.as_ref();
        let midstates = midstates.filter(|midstates| {
            // Hints of a wrong size would be refused later anyway.
            midstates.size == Midstates::encoded_size(layer.size)
        });
        Ok(FoundIndex {
            index,
            file,
            digest,
            vouched: Vouched::Nobody,
            origin: self.origin.to_owned(),
            midstates: midstates.map(|blob| (blob.clone(), Arc::clone(&self.source))),
        })
    }
}
