//! How long a read waits for bytes that do not come, and what it is told then.
//!
//! ```text
//! a fetch failed in a way that may pass     pause, fetch again; neighbours' reads share that fetch
//! wrong bytes, and another host to ask      fetch again at once
//! anything else, or the time is over        the error; with `OnError::Retry` the same from the beginning
//! ```

use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::StoreError;
use crate::oci::Digest;

/// First and longest pause between two fetches of one read.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));
/// A read that has waited this long is worth a word.
const SLOW: Duration = Duration::from_secs(5);
/// Words about slow reads come at least so far apart: thousands may wait for the same.
const BETWEEN_WORDS: Duration = Duration::from_secs(30);

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

/// The patience that the reads of a store share.
pub(super) struct Patience {
    policy: ReadPolicy,
    /// Whether reads have to come to an end.
    ending: watch::Sender<bool>,
    last_word: Mutex<Option<Instant>>,
}

impl Patience {
    pub(super) fn new(policy: ReadPolicy) -> Self {
        Self {
            policy,
            ending: watch::Sender::new(false),
            last_word: Mutex::new(None),
        }
    }

    /// Reads that wait longer than their time from now on fail, whatever the policy is.
    pub(super) fn end(&self) {
        self.ending.send_replace(true);
    }

    /// A read of `layer` begins to wait.
    pub(super) fn begin(&self, layer: Digest) -> Waiting<'_> {
        let began = Instant::now();
        Waiting {
            patience: self,
            layer,
            began,
            deadline: began + self.policy.timeout,
            pauses: 0,
            cause: None,
        }
    }

    fn retries(&self) -> bool {
        self.policy.on_error == OnError::Retry && !*self.ending.borrow()
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

/// One read that waits.
pub(super) struct Waiting<'a> {
    patience: &'a Patience,
    layer: Digest,
    began: Instant,
    deadline: Instant,
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
        let mut ending = self.patience.ending.subscribe();
        let retries = self.patience.retries();
        tokio::select! {
            result = tokio::time::timeout_at(self.deadline, work) => {
                result.unwrap_or_else(|_| Err(self.over()))
            }
            // Only who would wait for ever is told to stop.
            _ = ending.wait_for(|ending| *ending), if retries => Err(self.over()),
        }
    }

    /// Takes in a failure. `Ok`: try again.
    pub(super) async fn pause(&mut self, err: StoreError) -> Result<(), StoreError> {
        let now = Instant::now();
        let time_is_over = matches!(err, StoreError::Deadline { .. });
        if self.cause.is_none() && now > self.deadline && !time_is_over {
            // It was not limited, and took long before anything failed.
            self.deadline = now + self.patience.policy.timeout;
        }
        if !time_is_over {
            self.cause = Some(err.to_string());
        }
        let retries = self.patience.retries();
        if !(err.may_pass() || retries && err.is_of_source()) {
            return Err(err);
        }
        if now >= self.began + SLOW && self.patience.may_speak(now) {
            tracing::warn!(
                "layer {}: a read has waited for {} s{}",
                self.layer.short(),
                (now - self.began).as_secs(),
                self.so_far()
            );
        }
        if time_is_over {
            if !retries {
                return Err(err);
            }
            self.deadline = now + self.patience.policy.timeout;
            return Ok(());
        }
        if err.is_worth_asking_again_at_once() {
            return Ok(());
        }
        let wait = self.next_pause();
        if now + wait >= self.deadline && !retries {
            return Err(err);
        }
        tokio::time::sleep(wait).await;
        Ok(())
    }

    /// Random, so that reads that failed together do not come back together.
    fn next_pause(&mut self) -> Duration {
        let (first, longest) = PAUSES;
        let bound = first.saturating_mul(1 << self.pauses.min(10)).min(longest);
        self.pauses += 1;
        let random = RandomState::new().hash_one(self.pauses);
        let percent = u32::try_from(random % 51).unwrap_or_default();
        bound / 2 + bound * percent / 100
    }

    fn over(&self) -> StoreError {
        StoreError::Deadline {
            layer: self.layer,
            limit: self.patience.policy.timeout,
            cause: self.so_far(),
        }
    }

    fn so_far(&self) -> String {
        match &self.cause {
            Some(cause) => format!(": {cause}"),
            None => String::new(),
        }
    }
}
