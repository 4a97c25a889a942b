//! How long to wait between two attempts: twice as long after each failure, up to a bound, and not
//! all at the same time.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

/// Doublings that are counted: more than any bound allows.
const MAX_DOUBLINGS: u32 = 20;

/// The first wait and the longest one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Backoff {
    first: Duration,
    longest: Duration,
}

impl Backoff {
    /// Waits from `first` to `longest`.
    pub(crate) const fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest }
    }

    /// The bound on the wait after so many failures in a row, of which there is at least one.
    pub(crate) fn bound(self, failures: u32) -> Duration {
        let doublings = failures.saturating_sub(1).min(MAX_DOUBLINGS);
        self.first.saturating_mul(1 << doublings).min(self.longest)
    }

    /// A wait below the bound: askers that failed together do not come back together ("full
    /// jitter").
    pub(crate) fn below_bound(self, failures: u32) -> Duration {
        share(self.bound(failures), random())
    }

    /// A wait between half of the bound and the bound: the same where a wait of nothing would be no
    /// pause.
    pub(crate) fn near_bound(self, failures: u32) -> Duration {
        let half = self.bound(failures) / 2;
        half + share(half, random())
    }
}

/// A part of `bound`, chosen by `random`.
fn share(bound: Duration, random: u64) -> Duration {
    let nanoseconds = u64::try_from(bound.as_nanos()).unwrap_or(u64::MAX);
    Duration::from_nanos(random % nanoseconds.max(1))
}

fn random() -> u64 {
    RandomState::new().hash_one(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLISECOND: Duration = Duration::from_millis(1);

    #[test]
    fn bounds_double_up_to_the_longest() {
        let backoff = Backoff::new(MILLISECOND * 100, MILLISECOND * 1000);
        let bounds = [0, 1, 2, 3, 4, 5, 6, u32::MAX].map(|failures| backoff.bound(failures));
        let expected = [100, 100, 200, 400, 800, 1000, 1000, 1000].map(|ms| MILLISECOND * ms);
        assert_eq!(bounds, expected);
    }

    #[test]
    fn waits_lie_below_their_bound() {
        let backoff = Backoff::new(MILLISECOND * 100, MILLISECOND * 1000);
        for failures in 0..100 {
            assert!(backoff.below_bound(failures) < backoff.bound(failures));
            let near = backoff.near_bound(failures);
            assert!(near >= backoff.bound(failures) / 2 && near < backoff.bound(failures));
        }
        let never = Backoff::new(Duration::ZERO, Duration::ZERO);
        assert_eq!(never.below_bound(3), Duration::ZERO);
        assert_eq!(share(Duration::ZERO, u64::MAX), Duration::ZERO);
    }
}
