//! How fast bodies from one registry usually come, so that one connection that crawls stands out.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Bodies remembered: those of the last seconds.
const REMEMBERED: usize = 16;
/// Fewer say nothing about what is usual.
const NEEDED: usize = 3;
/// Shorter bodies are over before their speed can be told from their latency, in bytes.
const MIN_BODY: u64 = 128 << 10;

/// Speeds of the last bodies, in bytes per second.
#[derive(Debug, Default)]
pub(super) struct Pace {
    speeds: Mutex<VecDeque<u64>>,
}

impl Pace {
    /// Takes note of a body that came whole.
    pub(super) fn record(&self, bytes: u64, took: Duration) {
        if bytes < MIN_BODY {
            return;
        }
        let mut speeds = self.speeds.lock().unwrap_or_else(PoisonError::into_inner);
        if speeds.len() == REMEMBERED {
            speeds.pop_front();
        }
        speeds.push_back(speed(bytes, took));
    }

    /// The median speed, if enough is known.
    pub(super) fn usual(&self) -> Option<u64> {
        let speeds = self.speeds.lock().unwrap_or_else(PoisonError::into_inner);
        if speeds.len() < NEEDED {
            return None;
        }
        let mut sorted: Vec<u64> = speeds.iter().copied().collect();
        sorted.sort_unstable();
        sorted.get(sorted.len() / 2).copied()
    }
}

/// Bytes per second.
pub(super) fn speed(bytes: u64, took: Duration) -> u64 {
    let microseconds = took.as_micros().max(1);
    u64::try_from(u128::from(bytes) * 1_000_000 / microseconds).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_speed_is_the_median_of_the_last() {
        let pace = Pace::default();
        let second = Duration::from_secs(1);
        pace.record(1, Duration::ZERO);
        for bytes in [1 << 20, 8 << 20] {
            pace.record(bytes, second);
            assert_eq!(pace.usual(), None);
        }
        pace.record(9 << 20, second);
        assert_eq!(pace.usual(), Some(8 << 20));
        for _ in 0..REMEMBERED {
            pace.record(2 << 20, second);
        }
        assert_eq!(pace.usual(), Some(2 << 20));
        assert_eq!(speed(u64::MAX, Duration::ZERO), u64::MAX);
    }
}
