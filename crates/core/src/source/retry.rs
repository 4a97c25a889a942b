//! Trying again: a [`BlobSource`] around a [`BlobSource`] that hides passing failures.
//!
//! ```text
//! a request fails, transient   wait (full jitter, or as long as the server asks), ask again
//! an answer that makes no sense        the same, once
//! a body breaks at byte n      ask for the rest from n on; bytes that arrived are never asked for twice
//! no byte for `give_up`, or `attempts` failures in a row, or anything that is not transient   the error
//! ```

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::{StreamExt, stream};

use super::error::SourceError;
use super::stream::Provenance;
use super::timeouts::RetryPolicy;
use super::{BlobSource, ByteStream, Resolved, Traffic};
use imgfs_formats::oci::{Descriptor, Digest};

/// Resumptions allowed for one body beside one for each 64 KiB received: a server that sends a byte
/// at a time must not cause a million requests.
const FREE_RESUMPTIONS: u64 = 64;
const BYTES_FOR_RESUMPTION: u64 = 64 << 10;

/// Tries again where the source inside fails.
pub(super) struct Retrying {
    inside: Arc<dyn BlobSource>,
    policy: RetryPolicy,
    give_up: Duration,
}

impl Retrying {
    pub(super) fn new(inside: Arc<dyn BlobSource>, policy: RetryPolicy, give_up: Duration) -> Self {
        Self {
            inside,
            policy,
            give_up,
        }
    }

    fn failures(&self) -> Failures {
        Failures::new(self.policy, self.give_up)
    }
}

/// Failures in a row.
pub(super) struct Failures {
    policy: RetryPolicy,
    give_up: Duration,
    count: u32,
    since: Option<Instant>,
    /// Whether an answer came that made no sense.
    was_odd: bool,
}

impl Failures {
    /// None yet.
    pub(super) fn new(policy: RetryPolicy, give_up: Duration) -> Self {
        Self {
            policy,
            give_up,
            count: 0,
            since: None,
            was_odd: false,
        }
    }

    /// Waits before the next attempt, or gives the error back if there is to be none.
    pub(super) async fn pause(&mut self, err: SourceError) -> Result<(), SourceError> {
        let since = *self.since.get_or_insert_with(Instant::now);
        self.count += 1;
        // An answer that makes no sense may be one proxy's slip: once is no habit.
        let is_odd = matches!(err, SourceError::Protocol { .. } | SourceError::Size { .. });
        let once_more = is_odd && !std::mem::replace(&mut self.was_odd, true);
        if !(err.is_transient() || once_more) || self.count >= self.policy.attempts {
            return Err(err);
        }
        let backoff = self.policy.backoff();
        let wait = match err.retry_after() {
            // All askers that were told the same time must not come back at the same time.
            Some(wait) => wait + backoff.below_bound(1),
            None => backoff.below_bound(self.count),
        };
        if since.elapsed() + wait >= self.give_up {
            return Err(err);
        }
        tracing::debug!("trying again in {wait:?}: {err}");
        tokio::time::sleep(wait).await;
        Ok(())
    }

    /// Bytes arrived: earlier failures are forgiven.
    fn forget(&mut self) {
        self.count = 0;
        self.since = None;
    }
}

#[async_trait::async_trait]
impl BlobSource for Retrying {
    async fn resolve(&self, known: Option<&Descriptor>) -> Result<Resolved, SourceError> {
        let mut failures = self.failures();
        loop {
            match self.inside.resolve(known).await {
                Ok(resolved) => return Ok(resolved),
                Err(err) => failures.pause(err).await?,
            }
        }
    }

    async fn open_manifest(&self, descriptor: &Descriptor) -> Result<ByteStream, SourceError> {
        let mut failures = self.failures();
        loop {
            match self.inside.open_manifest(descriptor).await {
                Ok(stream) => return Ok(stream),
                Err(err) => failures.pause(err).await?,
            }
        }
    }

    async fn open(&self, blob: &Descriptor, range: Range<u64>) -> Result<ByteStream, SourceError> {
        let mut transfer = Transfer {
            source: Arc::clone(&self.inside),
            blob: blob.clone(),
            start: range.start,
            opened_at: range.start,
            range,
            current: None,
            failures: self.failures(),
            resumptions: 0,
            provenance: Provenance::default(),
        };
        // The first answer is waited for here, so that errors show where they can be acted on.
        transfer.ensure_open().await?;
        let provenance = transfer.provenance.clone();
        let pieces = stream::try_unfold(transfer, |mut transfer| async move {
            let piece = transfer.next().await?;
            Ok(piece.map(|piece| (piece, transfer)))
        });
        Ok(ByteStream::from(provenance, pieces))
    }

    fn reject(&self, blob: &Descriptor, at: u64, provenance: &Provenance) -> bool {
        self.inside.reject(blob, at, provenance)
    }

    async fn tags(&self) -> Result<Vec<String>, SourceError> {
        let mut failures = self.failures();
        loop {
            match self.inside.tags().await {
                Ok(tags) => return Ok(tags),
                Err(err) => failures.pause(err).await?,
            }
        }
    }

    async fn referrers(
        &self,
        subject: &Digest,
        artifact_type: &str,
    ) -> Result<Vec<Descriptor>, SourceError> {
        let mut failures = self.failures();
        loop {
            match self.inside.referrers(subject, artifact_type).await {
                Ok(referrers) => return Ok(referrers),
                Err(err) => failures.pause(err).await?,
            }
        }
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

/// One body, over as many requests as it takes.
struct Transfer {
    source: Arc<dyn BlobSource>,
    blob: Descriptor,
    start: u64,
    /// What is still to come.
    range: Range<u64>,
    current: Option<ByteStream>,
    /// Where the current request began.
    opened_at: u64,
    failures: Failures,
    resumptions: u64,
    provenance: Provenance,
}

impl Transfer {
    async fn ensure_open(&mut self) -> Result<&mut ByteStream, SourceError> {
        let stream = match self.current.take() {
            Some(stream) => stream,
            None => loop {
                match self.source.open(&self.blob, self.range.clone()).await {
                    Ok(stream) => {
                        self.opened_at = self.range.start;
                        break stream;
                    }
                    Err(err) => self.failures.pause(err).await?,
                }
            },
        };
        Ok(self.current.insert(stream))
    }

    async fn next(&mut self) -> Result<Option<Bytes>, SourceError> {
        while !self.range.is_empty() {
            match self.ensure_open().await?.next().await {
                Some(Ok(piece)) => {
                    self.note_provenance();
                    self.range.start += piece.len() as u64;
                    self.failures.forget();
                    return Ok(Some(piece));
                }
                Some(Err(err)) => {
                    self.current = None;
                    self.resumptions += 1;
                    let received = self.range.start - self.start;
                    if self.resumptions > FREE_RESUMPTIONS + received / BYTES_FOR_RESUMPTION {
                        return Err(err);
                    }
                    // A body that brought bytes is resumed at once: many servers cap the length of
                    // an answer.
                    if self.failures.count > 0 || !self.made_progress() || !err.is_transient() {
                        self.failures.pause(err).await?;
                    }
                }
                None => {
                    return Err(SourceError::Size {
                        digest: self.blob.digest,
                        expected: self.range.end - self.start,
                        found: self.range.start - self.start,
                    });
                }
            }
        }
        Ok(None)
    }

    fn note_provenance(&self) {
        if let Some(current) = &self.current {
            self.provenance.add(&current.provenance());
        }
    }

    /// Whether the request that just broke off brought anything.
    fn made_progress(&self) -> bool {
        self.range.start > self.opened_at
    }
}
