//! What all sources of a process share: HTTP clients with their connections, tokens, and limits for each host.
//!
//! Clients are made when first used: reading the system's certificates takes some ten milliseconds, which a
//! registry on this machine or a cached image need not pay.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;

use super::SourceError;
use super::auth::{Access, Authenticator};

/// Concurrent reads from one registry host, those of the hosts it redirects to included: enough to fill a fast line with
/// ranges of a few MiB, below what registries throttle.
const MAX_REQUESTS_PER_HOST: usize = 8;
/// Repositories whose tokens are kept although no source is open for them.
const MAX_AUTHENTICATORS: usize = 1024;

/// Connections and limits. Clones share them.
#[derive(Clone, Default)]
pub struct Network {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    verified: OnceLock<reqwest::Client>,
    unverified: OnceLock<reqwest::Client>,
    loopback: OnceLock<reqwest::Client>,
    hosts: Mutex<HashMap<String, Arc<Semaphore>>>,
    authenticators: Mutex<HashMap<Access, Arc<Authenticator>>>,
}

/// Which client a host needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Trust {
    /// Certificates are checked against the system's roots.
    Verified,
    /// Certificates are not checked.
    Unverified,
    /// This machine: not checked either, and never by way of a proxy.
    Loopback,
}

impl Network {
    /// The limit for one host.
    pub(super) fn limit(&self, host: &str) -> Arc<Semaphore> {
        let mut hosts = self
            .shared
            .hosts
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        Arc::clone(
            hosts
                .entry(host.to_owned())
                .or_insert_with(|| Arc::new(Semaphore::new(MAX_REQUESTS_PER_HOST))),
        )
    }

    /// What lets sources in, with the tokens that it has already.
    pub(super) fn authenticator(&self, access: Access) -> Arc<Authenticator> {
        let mut authenticators = self
            .shared
            .authenticators
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if authenticators.len() >= MAX_AUTHENTICATORS {
            authenticators.retain(|_, authenticator| Arc::strong_count(authenticator) > 1);
        }
        let authenticator = authenticators
            .entry(access)
            .or_insert_with_key(|access| Arc::new(Authenticator::new(access.clone())));
        Arc::clone(authenticator)
    }

    /// The client for a host of this trust. `connect` counts when it is made first.
    pub(super) fn client(
        &self,
        trust: Trust,
        connect: Duration,
    ) -> Result<&reqwest::Client, SourceError> {
        let cell = match trust {
            Trust::Verified => &self.shared.verified,
            Trust::Unverified => &self.shared.unverified,
            Trust::Loopback => &self.shared.loopback,
        };
        if let Some(client) = cell.get() {
            return Ok(client);
        }
        install_crypto_provider();
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("imgfs/", env!("CARGO_PKG_VERSION")))
            // Redirects are followed by hand, with a decision about credentials at each.
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(connect)
            .tcp_nodelay(true)
            // Retrying is one concern, in one place: `retry`.
            .retry(reqwest::retry::never())
            .tls_danger_accept_invalid_certs(trust != Trust::Verified);
        if trust == Trust::Loopback {
            builder = builder.no_proxy();
        }
        let client = builder.build().map_err(|cause| SourceError::Client {
            cause: super::http::innermost(&cause),
        })?;
        // Two threads may come here at once: the second client is dropped.
        Ok(cell.get_or_init(|| client))
    }
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Network")
    }
}

/// reqwest is built without a default provider. An error means that one is installed already, which is as good.
fn install_crypto_provider() {
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        let _already_installed = rustls::crypto::ring::default_provider().install_default();
    }
}
