//! A bound on concurrent reads from one host: a [`BlobSource`] around a [`BlobSource`].
//!
//! It stands outside of the retries on purpose: a transfer keeps its place while it waits to try
//! again, so readers that take several ranges in order cannot block each other.

use std::ops::Range;
use std::sync::Arc;

use futures_util::StreamExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::error::SourceError;
use super::stream::Provenance;
use super::{BlobSource, ByteStream, Resolved, Traffic};
use imgfs_formats::oci::{Descriptor, Digest};

/// Lets only as many reads through as the semaphore has permits.
pub(super) struct Limited {
    inside: Arc<dyn BlobSource>,
    permits: Arc<Semaphore>,
}

impl Limited {
    pub(super) fn new(inside: Arc<dyn BlobSource>, permits: Arc<Semaphore>) -> Self {
        Self { inside, permits }
    }

    async fn permit(&self) -> OwnedSemaphorePermit {
        Arc::clone(&self.permits)
            .acquire_owned()
            .await
            .expect("the semaphore is never closed")
    }
}

#[async_trait::async_trait]
impl BlobSource for Limited {
    async fn resolve(&self, known: Option<&Descriptor>) -> Result<Resolved, SourceError> {
        let _permit = self.permit().await;
        self.inside.resolve(known).await
    }

    async fn open_manifest(&self, descriptor: &Descriptor) -> Result<ByteStream, SourceError> {
        let permit = self.permit().await;
        Ok(hold(permit, self.inside.open_manifest(descriptor).await?))
    }

    async fn open(&self, blob: &Descriptor, range: Range<u64>) -> Result<ByteStream, SourceError> {
        let permit = self.permit().await;
        Ok(hold(permit, self.inside.open(blob, range).await?))
    }

    fn reject(&self, blob: &Descriptor, at: u64, provenance: &Provenance) -> bool {
        self.inside.reject(blob, at, provenance)
    }

    async fn tags(&self) -> Result<Vec<String>, SourceError> {
        let _permit = self.permit().await;
        self.inside.tags().await
    }

    async fn referrers(
        &self,
        subject: &Digest,
        artifact_type: &str,
    ) -> Result<Vec<Descriptor>, SourceError> {
        let _permit = self.permit().await;
        self.inside.referrers(subject, artifact_type).await
    }

    fn traffic(&self) -> Traffic {
        self.inside.traffic()
    }

    fn describe(&self) -> String {
        self.inside.describe()
    }

    fn parallel_ranges(&self) -> usize {
        self.inside.parallel_ranges()
    }

    fn shortcoming(&self) -> Option<String> {
        self.inside.shortcoming()
    }
}

/// Keeps the permit until the stream is dropped.
fn hold(permit: OwnedSemaphorePermit, stream: ByteStream) -> ByteStream {
    ByteStream::from(
        stream.provenance(),
        stream.inspect(move |_| {
            let _held = &permit;
        }),
    )
}
