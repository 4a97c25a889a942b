//! Whether a host answers: one that does not is probed now and then, and not hammered by every
//! reader that wants something of it.
//!
//! ```text
//! Alive ── failures in a row, as many as allowed ──> Dead     nobody asks until the next probe is due
//!       ── it asks for a pause (Retry-After) ──────> Dead     likewise, for as long as it says
//! Dead  ── the time has come ──────────────────────> Dead     one asker goes through, the probe
//!       ── an answer to the probe ─────────────────> Alive
//!       ── the probe fails ────────────────────────> Dead     twice the time, up to a bound
//! ```

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::SourceError;
use crate::backoff::Backoff;

/// How a host that fails is treated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tolerance {
    /// Others have the same: it is left alone after its first failure, for long.
    Replaceable,
    /// There is no other.
    Last,
}

impl Tolerance {
    /// Failures in a row until it counts as dead. The last host has as many as a request has
    /// attempts, so that one request alone never finds it dead.
    fn failures(self) -> u32 {
        match self {
            Self::Replaceable => 1,
            Self::Last => 5,
        }
    }

    /// Time to the first probe and longest time between two. The last one bounds how long a host
    /// that is back stays unused; trying a mirror costs the reader who does it the time until it
    /// fails.
    fn probes(self) -> Backoff {
        match self {
            Self::Replaceable => Backoff::new(Duration::from_secs(10), Duration::from_secs(300)),
            Self::Last => Backoff::new(Duration::from_millis(500), Duration::from_secs(2)),
        }
    }
}

/// Longest time a probe may be under way before another may go.
const PROBE_TIME: Duration = Duration::from_secs(15);

/// What is known of one host.
#[derive(Debug, Default)]
pub(super) struct Health {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    failures: u32,
    /// The last failure since an answer.
    cause: Option<String>,
    dead: Option<Dead>,
}

#[derive(Debug)]
struct Dead {
    since: Instant,
    /// Nobody asks before.
    next_probe: Instant,
    wait: Duration,
    /// How many waits there were in a row that were not the server's wish.
    probes: u32,
    /// Whether a probe is under way. Other answers that come in are to earlier requests and say
    /// nothing new.
    probed: bool,
}

/// The answer to an asker while the host is not to be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Resting {
    /// How long it has not answered.
    pub(super) silent_for: Duration,
    /// When to ask again.
    pub(super) retry_in: Duration,
    /// The last failure.
    pub(super) cause: String,
}

impl Health {
    /// Whether a request may be sent now.
    pub(super) fn admit(&self, now: Instant) -> Result<(), Resting> {
        let mut state = self.lock();
        let cause = state.cause.clone().unwrap_or_default();
        let Some(dead) = &mut state.dead else {
            return Ok(());
        };
        if now >= dead.next_probe {
            // This one is the probe. Others wait for what comes of it.
            dead.next_probe = now + PROBE_TIME;
            dead.probed = true;
            return Ok(());
        }
        // A probe under way usually ends soon.
        let retry_in = (dead.next_probe - now).min(dead.wait);
        Err(Resting {
            silent_for: now.saturating_duration_since(dead.since),
            retry_in,
            cause,
        })
    }

    /// It answered. Whether that ended its death: only the answer to a probe does.
    pub(super) fn answered(&self) -> bool {
        let mut state = self.lock();
        if state.dead.as_ref().is_some_and(|dead| !dead.probed) {
            return false;
        }
        state.failures = 0;
        state.cause = None;
        state.dead.take().is_some()
    }

    /// A request failed in a way that is the host's. Whether it counts as dead from now on, and did
    /// not before.
    pub(super) fn failed(&self, err: &SourceError, tolerance: Tolerance, now: Instant) -> bool {
        let mut state = self.lock();
        state.failures = state.failures.saturating_add(1);
        state.cause = Some(err.to_string());
        let asked_for = err.retry_after();
        if let Some(dead) = state.dead.as_mut().filter(|dead| !dead.probed) {
            dead.next_probe = dead.next_probe.max(now + asked_for.unwrap_or_default());
            return false;
        }
        if state.failures < tolerance.failures() && state.dead.is_none() && asked_for.is_none() {
            return false;
        }
        let was_dead = state.dead.take();
        let probes = match (&was_dead, asked_for) {
            (Some(dead), None) => dead.probes + 1,
            (None, _) | (_, Some(_)) => 1,
        };
        let wait = asked_for.unwrap_or_else(|| tolerance.probes().bound(probes));
        state.dead = Some(Dead {
            since: was_dead.as_ref().map_or(now, |dead| dead.since),
            next_probe: now + wait,
            wait,
            probes,
            probed: false,
        });
        was_dead.is_none()
    }

    /// What it failed with last, if it has not answered since.
    pub(super) fn trouble(&self) -> Option<String> {
        self.lock().cause.clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(retry_after: Option<u64>) -> SourceError {
        SourceError::Status {
            host: "h".to_owned(),
            what: "blob".to_owned(),
            status: 503,
            server: super::super::ServerMessage::default(),
            retry_after: retry_after.map(Duration::from_secs),
        }
    }

    #[test]
    fn a_dead_host_is_probed_by_one_at_a_time() {
        let health = Health::default();
        let start = Instant::now();
        let at = |milliseconds| start + Duration::from_millis(milliseconds);
        for n in 1..5 {
            assert!(
                !health.failed(&failure(None), Tolerance::Last, start),
                "{n}"
            );
            assert_eq!(health.admit(start), Ok(()));
        }
        assert!(health.failed(&failure(None), Tolerance::Last, start));
        let resting = health.admit(at(100)).unwrap_err();
        assert_eq!(resting.retry_in, Duration::from_millis(400));
        // The probe, and those who come while it is under way.
        assert_eq!(health.admit(at(500)), Ok(()));
        assert!(health.admit(at(501)).is_err());
        assert!(!health.failed(&failure(None), Tolerance::Last, at(600)));
        assert!(health.admit(at(1500)).is_err());
        assert_eq!(health.admit(at(1600)), Ok(()));
        // A probe that never ends does not stop the others for ever.
        assert!(health.admit(at(16_000)).is_err());
        assert_eq!(health.admit(at(17_000)), Ok(()));
        assert!(health.answered());
        assert!(!health.answered());
        assert_eq!(health.admit(at(17_001)), Ok(()));
    }

    #[test]
    fn only_the_probe_says_something_new() {
        let start = Instant::now();
        let at = |second| start + Duration::from_secs(second);
        // Eight transfers that break together are one failure.
        let health = Health::default();
        for _ in 0..8 {
            health.failed(&failure(None), Tolerance::Replaceable, start);
        }
        assert_eq!(health.admit(at(10)), Ok(()));
        // What was sent before a server asked for a pause neither ends the pause nor shortens it.
        let health = Health::default();
        health.failed(&failure(Some(30)), Tolerance::Last, start);
        assert!(!health.answered());
        health.failed(&failure(None), Tolerance::Last, start);
        health.failed(&failure(Some(7)), Tolerance::Last, start);
        assert!(health.admit(at(29)).is_err());
        health.failed(&failure(Some(60)), Tolerance::Last, start);
        assert!(health.admit(at(59)).is_err());
        assert_eq!(health.admit(at(60)), Ok(()));
        assert!(health.answered());
    }

    #[test]
    fn waits_between_probes_are_bounded() {
        let health = Health::default();
        let mut now = Instant::now();
        for _ in 0..20 {
            health.failed(&failure(None), Tolerance::Last, now);
            now += Duration::from_secs(60);
            assert_eq!(health.admit(now), Ok(()));
        }
        health.failed(&failure(None), Tolerance::Last, now);
        let resting = health.admit(now).unwrap_err();
        assert_eq!(resting.retry_in, Duration::from_secs(2));
    }

    #[test]
    fn mirrors_rest_after_one_failure_and_servers_as_long_as_they_ask() {
        let health = Health::default();
        let start = Instant::now();
        assert!(health.failed(&failure(None), Tolerance::Replaceable, start));
        assert!(health.admit(start + Duration::from_secs(9)).is_err());
        let health = Health::default();
        assert!(health.failed(&failure(Some(7)), Tolerance::Last, start));
        let resting = health.admit(start).unwrap_err();
        assert_eq!(resting.retry_in, Duration::from_secs(7));
        assert_eq!(health.admit(start + Duration::from_secs(7)), Ok(()));
    }
}
