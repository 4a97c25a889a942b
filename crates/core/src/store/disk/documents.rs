//! Manifests, configs and tag records: kept by digest, so that a cached image needs no network.
//!
//! ```text
//! documents/ALGORITHM/HEX    manifests, indexes and configs, checked against their digest on every read
//! refs/HEX.json              what a reference pointed to when last asked (HEX: SHA-256 of the reference)
//! ```

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::files::{publish, read_if_there};
use crate::source::{
    BlobSource, ByteStream, Provenance, Resolved, SourceError, Traffic, read_blob, read_verified,
};
use crate::store::{Cache, StoreError};
use imgfs_formats::oci::{Descriptor, Digest, MAX_CONFIG_SIZE, MAX_MANIFEST_SIZE, MediaType};

/// What a reference pointed to when its source was last asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TagRecord {
    /// The normalised reference.
    pub reference: String,
    /// The manifest or index.
    pub descriptor: Descriptor,
    /// When it was asked, in Unix seconds.
    pub checked: u64,
}

impl Cache {
    /// What `reference` (normalised) pointed to when last asked, if it ever was. A damaged record
    /// counts as none.
    pub fn tag_record(&self, reference: &str) -> Result<Option<TagRecord>, StoreError> {
        let Some(bytes) = read_if_there(&self.tag_path(reference))? else {
            return Ok(None);
        };
        let record: Option<TagRecord> = serde_json::from_slice(&bytes).ok();
        Ok(record.filter(|record| record.reference == reference))
    }

    /// Notes what `reference` points to now. To be called with the removal lock shared, so that no
    /// removal takes it for what it knows of the tag.
    pub fn record_tag(&self, reference: &str, descriptor: &Descriptor) -> Result<(), StoreError> {
        let checked = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_secs());
        let record = TagRecord {
            reference: reference.to_owned(),
            descriptor: descriptor.clone(),
            checked,
        };
        let json = serde_json::to_vec_pretty(&record).unwrap_or_default();
        publish(&self.tag_path(reference), &json)
    }

    /// A manifest, index or config by digest, if it is here and intact.
    pub fn document(&self, digest: &Digest) -> Result<Option<Bytes>, StoreError> {
        let bytes = read_if_there(&self.document_path(digest))?;
        Ok(bytes
            .filter(|bytes| Digest::of(digest.algorithm(), bytes) == *digest)
            .map(Bytes::from))
    }

    /// Keeps a document whose digest was checked. A cache that cannot be written is no reason to
    /// fail.
    pub fn keep_document(&self, digest: &Digest, bytes: &[u8]) {
        if let Err(err) = publish(&self.document_path(digest), bytes) {
            self.caching_failed(&err);
        }
    }

    pub(in crate::store) fn document_path(&self, digest: &Digest) -> PathBuf {
        self.by_digest("documents", digest)
    }

    pub(in crate::store) fn tag_path(&self, reference: &str) -> PathBuf {
        self.root.join("refs").join(format!(
            "{}.json",
            Digest::sha256(reference.as_bytes()).hex()
        ))
    }
}

/// A source whose manifests and configs are looked for in the cache first, and kept there.
pub struct CachedDocuments {
    inner: Arc<dyn BlobSource>,
    cache: Arc<Cache>,
    pinned: Option<Digest>,
}

impl CachedDocuments {
    /// Wraps `inner`. `pinned` is the digest in the reference, if there is one: then nobody need be
    /// asked what the reference means.
    pub fn new(inner: Arc<dyn BlobSource>, cache: Arc<Cache>, pinned: Option<Digest>) -> Self {
        Self {
            inner,
            cache,
            pinned,
        }
    }

    fn cached(&self, descriptor: &Descriptor) -> Option<ByteStream> {
        // An unreadable cache is as good as an empty one here: the source is asked instead.
        let bytes = self.cache.document(&descriptor.digest).ok().flatten()?;
        (bytes.len() as u64 == descriptor.size).then(|| ByteStream::of(bytes))
    }
}

#[async_trait::async_trait]
impl BlobSource for CachedDocuments {
    async fn resolve(&self, known: Option<&Descriptor>) -> Result<Resolved, SourceError> {
        if let Some(digest) = self.pinned
            && let Ok(Some(body)) = self.cache.document(&digest)
        {
            return Ok(Resolved {
                descriptor: Descriptor::of_document(digest, body.len() as u64),
                body: Some(body),
            });
        }
        let resolved = self.inner.resolve(known).await?;
        if let Some(body) = &resolved.body {
            self.cache.keep_document(&resolved.descriptor.digest, body);
        }
        Ok(resolved)
    }

    async fn open_manifest(&self, descriptor: &Descriptor) -> Result<ByteStream, SourceError> {
        if let Some(stream) = self.cached(descriptor) {
            return Ok(stream);
        }
        let stream = self.inner.open_manifest(descriptor).await?;
        let bytes = read_verified(stream, descriptor, MAX_MANIFEST_SIZE).await?;
        self.cache.keep_document(&descriptor.digest, &bytes);
        Ok(ByteStream::of(bytes))
    }

    async fn open(&self, blob: &Descriptor, range: Range<u64>) -> Result<ByteStream, SourceError> {
        if blob.kind() != MediaType::ImageConfig || range != (0..blob.size) {
            return self.inner.open(blob, range).await;
        }
        if let Some(stream) = self.cached(blob) {
            return Ok(stream);
        }
        let bytes = read_blob(&*self.inner, blob, MAX_CONFIG_SIZE).await?;
        self.cache.keep_document(&blob.digest, &bytes);
        Ok(ByteStream::of(bytes))
    }

    fn reject(&self, blob: &Descriptor, at: u64, provenance: &Provenance) -> bool {
        self.inner.reject(blob, at, provenance)
    }

    async fn tags(&self) -> Result<Vec<String>, SourceError> {
        self.inner.tags().await
    }

    async fn referrers(
        &self,
        subject: &Digest,
        artifact_type: &str,
    ) -> Result<Vec<Descriptor>, SourceError> {
        self.inner.referrers(subject, artifact_type).await
    }

    fn traffic(&self) -> Traffic {
        self.inner.traffic()
    }

    fn describe(&self) -> String {
        self.inner.describe()
    }

    fn parallel_ranges(&self) -> usize {
        self.inner.parallel_ranges()
    }

    fn shortcoming(&self) -> Option<String> {
        self.inner.shortcoming()
    }
}

/// A source that has nothing: what is not in the cache cannot be had.
pub struct Offline {
    /// The reference, for messages.
    reference: String,
    record: Option<TagRecord>,
}

impl Offline {
    /// `record` is what is known of the reference.
    pub fn new(reference: String, record: Option<TagRecord>) -> Self {
        Self { reference, record }
    }

    fn missing(&self, what: String) -> SourceError {
        SourceError::Offline {
            reference: self.reference.clone(),
            what,
        }
    }
}

#[async_trait::async_trait]
impl BlobSource for Offline {
    async fn resolve(&self, _: Option<&Descriptor>) -> Result<Resolved, SourceError> {
        match &self.record {
            Some(record) => Ok(Resolved {
                descriptor: record.descriptor.clone(),
                body: None,
            }),
            None => Err(self.missing("what the name points to".to_owned())),
        }
    }

    async fn open_manifest(&self, descriptor: &Descriptor) -> Result<ByteStream, SourceError> {
        Err(self.missing(format!("manifest {}", descriptor.digest)))
    }

    async fn open(&self, blob: &Descriptor, _: Range<u64>) -> Result<ByteStream, SourceError> {
        Err(self.missing(format!("all of blob {}", blob.digest)))
    }

    async fn tags(&self) -> Result<Vec<String>, SourceError> {
        Err(self.missing("the list of tags".to_owned()))
    }

    fn traffic(&self) -> Traffic {
        Traffic::default()
    }

    fn describe(&self) -> String {
        "offline".to_owned()
    }

    fn parallel_ranges(&self) -> usize {
        1
    }
}
