//! How long a server is waited for, and how often it is asked again.

use std::time::Duration;

use crate::backoff::Backoff;

/// Limits on waiting for a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// For the TCP and TLS handshakes.
    pub connect: Duration,
    /// From the request to the answer's head.
    pub first_byte: Duration,
    /// Without a single byte, once the answer has begun.
    pub stall: Duration,
    /// Without a single byte, until the same is asked for on a second connection.
    pub race: Duration,
    /// Longest time from the first failure to giving up, all retries and waits included, as long as
    /// no byte arrives. A reader that needs a hard deadline drops the future or stream.
    pub give_up: Duration,
    /// Shortest life of a token that is believed, whatever the server says.
    pub token_floor: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            first_byte: Duration::from_secs(10),
            stall: Duration::from_secs(10),
            race: Duration::from_secs(2),
            give_up: Duration::from_secs(30),
            // By distribution's token.md no token lives shorter.
            token_floor: Duration::from_secs(60),
        }
    }
}

/// Exponential backoff with full jitter: a random wait below `base`, doubled after each failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Attempts in a row that bring no byte before giving up.
    pub attempts: u32,
    /// Upper bound of the first wait.
    pub base: Duration,
    /// Upper bound of any wait that the server did not ask for.
    pub cap: Duration,
}

impl RetryPolicy {
    /// How long to wait between two attempts.
    pub(crate) fn backoff(&self) -> Backoff {
        Backoff::new(self.base, self.cap)
    }
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            attempts: 5,
            base: Duration::from_millis(100),
            cap: Duration::from_secs(10),
        }
    }
}
