//! How to reach a source: what the command line and the environment decide.

use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use super::credentials::Credentials;
use super::network::Network;
use super::route::Configuration;
use crate::backoff::Backoff;

/// Options of [`super::open`]. A clone shares connections and limits with its original.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Speak http with the registry, not https.
    pub plain_http: bool,
    /// Do not check the registry's certificate, and fall back to http where TLS is not spoken. Holds for the
    /// registry's own host only, never for hosts it redirects to. Loopback hosts are treated so anyway.
    pub insecure: bool,
    /// Where credentials are looked up when a registry asks for them.
    pub credentials: Credentials,
    /// Which configuration files say what hosts are asked.
    pub configuration: Configuration,
    /// How long to wait.
    pub timeouts: Timeouts,
    /// How often to try again.
    pub retry: RetryPolicy,
    /// Connections and limits shared by everything opened with clones of these options.
    pub network: Network,
}

impl Options {
    /// The defaults over this network, with the credential and configuration files that the variables name which
    /// `variable` gives.
    pub fn from_env(network: Network, variable: impl Fn(&str) -> Option<OsString>) -> Self {
        Self {
            credentials: Credentials::from_env(&variable),
            configuration: Configuration::from_env(&variable, Path::new("/")),
            network,
            ..Self::default()
        }
    }
}

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
    /// Longest time from the first failure to giving up, all retries and waits included, as long as no byte
    /// arrives. A reader that needs a hard deadline drops the future or stream.
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
