//! How long a read waits for bytes that do not come, and what it is told then.
//!
//! ```text
//! a fetch failed in a way that may pass     pause, fetch again; neighbours' reads share that fetch
//! wrong bytes, and another host to ask      fetch again at once
//! anything else, or the time is over        the error; with `OnError::Retry` the same from the beginning
//! ```
//!
//! When a readahead fails the kernel asks for the page itself once more, in the same read(2). That
//! second request is told at once what the first one waited for, or a read would wait twice its
//! time.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;

use crate::backoff::Backoff;
use crate::source::BlobSource;
use crate::store::{Hope, StoreError};
use imgfs_formats::oci::Digest;

/// First and longest pause between two fetches of one read.
const PAUSES: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(2));
/// A read that has waited this long is worth a word.
const SLOW: Duration = Duration::from_secs(5);
/// Words about slow reads come at least so far apart: thousands may wait for the same.
const BETWEEN_WORDS: Duration = Duration::from_secs(30);

/// The kernel's second request comes this soon.
const SECOND_REQUEST: Duration = Duration::from_millis(500);

/// Runs ahead of all layers of one user at a time: half of the requests that may be under way to
/// one registry, so that reads find a place at once.
const RUNS_AHEAD: usize = 4;

/// What a read does when its bytes do not come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnError {
    /// It fails with EIO; the next read tries again.
    Eio,
    /// It goes on waiting, until the bytes come or the mount ends.
    Retry,
}

/// How patient reads are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadPolicy {
    /// Longest time one read waits: a program that waits for a read cannot be killed meanwhile.
    pub timeout: Duration,
    /// What then.
    pub on_error: OnError,
}

impl Default for ReadPolicy {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(60),
            on_error: OnError::Eio,
        }
    }
}

/// What the reads of one user of a cache (a mount, or a command) have in common, and nobody else's
/// have.
pub(in crate::store) struct Reads {
    /// Tells it from all others of this process.
    pub(super) id: ReadsId,
    policy: ReadPolicy,
    /// Whether layers that are opened by a found index are to be proven.
    pub(in crate::store) proving: bool,
    /// Bounds what is fetched for it before it was asked for.
    pub(super) runs_ahead: Arc<Semaphore>,
    /// What its messages are about: the span in which it was made.
    pub(super) span: tracing::Span,
    /// Whether reads have to come to an end.
    ending: watch::Sender<bool>,
    last_word: Mutex<Option<Instant>>,
}

/// Which user's reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store) struct ReadsId(u64);

impl ReadsId {
    fn next() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

impl Reads {
    /// Reads as patient as this, in the current tracing span.
    pub(in crate::store) fn new(policy: ReadPolicy) -> Self {
        Self {
            id: ReadsId::next(),
            policy,
            proving: false,
            runs_ahead: Arc::new(Semaphore::new(RUNS_AHEAD)),
            span: tracing::Span::current(),
            ending: watch::Sender::new(false),
            last_word: Mutex::new(None),
        }
    }

    /// The same reads with another policy.
    pub(in crate::store) fn with_policy(self, policy: ReadPolicy) -> Self {
        Self { policy, ..self }
    }

    /// Reads that wait fail from now on, whatever the policy is.
    pub(in crate::store) fn end(&self) {
        self.ending.send_replace(true);
    }

    /// Whether reads have to come to an end.
    pub(in crate::store) fn is_ending(&self) -> bool {
        *self.ending.borrow()
    }

    /// A read of `layer`, which comes from `source`, begins to wait.
    pub(in crate::store) fn begin<'a>(
        &'a self,
        layer: Digest,
        source: &'a dyn BlobSource,
    ) -> Waiting<'a> {
        let began = Instant::now();
        Waiting {
            reads: self,
            layer,
            source,
            began,
            deadline: began + self.policy.timeout,
            next_word: began + SLOW,
            pauses: 0,
            cause: None,
        }
    }

    fn retries(&self) -> bool {
        self.policy.on_error == OnError::Retry
    }

    /// Whether enough time has gone by for another word.
    fn may_speak(&self, now: Instant) -> bool {
        let mut last_word = self
            .last_word
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if last_word.is_some_and(|last| now < last + BETWEEN_WORDS) {
            return false;
        }
        *last_word = Some(now);
        true
    }
}

/// The last read of a layer that failed after it had waited: by its first span, when, and how.
#[derive(Default)]
pub(super) struct LastFailure(Mutex<Option<(usize, Instant, Arc<StoreError>)>>);

impl LastFailure {
    /// The error for the kernel's second request about this span; the one after that tries again.
    pub(super) fn take(&self, span: usize) -> Option<StoreError> {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (failed, at, err) = last.take_if(|(failed, _, _)| *failed == span)?;
        (failed == span && at.elapsed() < SECOND_REQUEST).then_some(StoreError::Shared(err))
    }

    /// A read that began with this span failed: what its asker is told.
    pub(super) fn set(&self, span: usize, err: StoreError) -> StoreError {
        let err = Arc::new(err);
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *last = Some((span, Instant::now(), Arc::clone(&err)));
        StoreError::Shared(err)
    }
}

/// One read that waits.
pub(in crate::store) struct Waiting<'a> {
    reads: &'a Reads,
    layer: Digest,
    source: &'a dyn BlobSource,
    began: Instant,
    deadline: Instant,
    next_word: Instant,
    pauses: u32,
    /// Its last failure.
    cause: Option<String>,
}

impl Waiting<'_> {
    /// Does `work`, as far as there is time for it.
    pub(super) async fn limit<T>(
        &mut self,
        work: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let mut ending = self.reads.ending.subscribe();
        let mut work = std::pin::pin!(work);
        loop {
            tokio::select! {
                result = &mut work => return result,
                () = tokio::time::sleep_until(self.deadline) => return Err(self.over()),
                _ = ending.wait_for(|ending| *ending) => return Err(self.over()),
                () = tokio::time::sleep_until(self.next_word) => self.speak(),
            }
        }
    }

    /// Whether it has waited so long that the kernel's second request must not do the same.
    pub(super) fn was_long(&self) -> bool {
        self.began.elapsed() > SECOND_REQUEST
    }

    /// Takes in a failure. `Ok`: try again.
    pub(in crate::store) async fn pause(&mut self, err: StoreError) -> Result<(), StoreError> {
        let now = Instant::now();
        let time_is_over = matches!(err, StoreError::Deadline { .. });
        if self.cause.is_none() && now > self.deadline && !time_is_over {
            // It was not limited, and took long before anything failed.
            self.deadline = now + self.reads.policy.timeout;
        }
        if !time_is_over {
            self.cause = Some(err.to_string());
        }
        let retries = self.reads.retries();
        let ends = *self.reads.ending.borrow();
        let hope = match err.hope() {
            Hope::IfMended if !retries => Hope::Never,
            hope => hope,
        };
        if ends || hope == Hope::Never {
            return Err(err);
        }
        if now >= self.next_word {
            self.speak();
        }
        if time_is_over {
            if !retries {
                return Err(err);
            }
            self.deadline = now + self.reads.policy.timeout;
            return Ok(());
        }
        if hope == Hope::AtOnce {
            return Ok(());
        }
        self.pauses += 1;
        // Reads that failed together do not come back together.
        let wait = PAUSES.near_bound(self.pauses);
        if now + wait >= self.deadline && !retries {
            return Err(err);
        }
        tokio::time::sleep(wait).await;
        Ok(())
    }

    fn over(&self) -> StoreError {
        StoreError::Deadline {
            layer: self.layer,
            limit: self.reads.policy.timeout,
            cause: self.so_far(),
        }
    }

    /// A slow read is never silent, but thousands of them say it once.
    fn speak(&mut self) {
        let now = Instant::now();
        self.next_word = now + BETWEEN_WORDS;
        if self.reads.may_speak(now) {
            tracing::warn!(
                "layer {}: a read has waited for {} s{}",
                self.layer.short(),
                (now - self.began).as_secs(),
                self.so_far()
            );
        }
    }

    fn so_far(&self) -> String {
        let cause = self.cause.clone().or_else(|| self.source.shortcoming());
        cause.map_or_else(String::new, |cause| format!(": {cause}"))
    }
}
