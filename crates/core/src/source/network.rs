//! What all sources of a process share: HTTP clients with their connections, tokens, and limits for each host.
//!
//! Clients are made when first used: reading the system's certificates takes some ten milliseconds, which a
//! registry on this machine or a cached image need not pay.

use std::collections::HashMap;
use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;

use super::SourceError;
use super::auth::{Access, Authenticator};
use super::endpoint::{Endpoint, Tls};
use super::health::Health;
use super::pace::Pace;

/// Concurrent reads from one registry, those from its mirrors and the hosts it redirects to included: enough to
/// fill a fast line with ranges of a few MiB, below what registries throttle.
const MAX_READS: usize = 8;
/// Reads of one registry raced on a second connection at a time, beside those: so a slow network is not made
/// slower by twice the requests.
const MAX_RACES: usize = 2;
/// Largest certificate or key file read, in bytes; a bundle of all public authorities has some 220 kB.
const MAX_PEM: u64 = 4 << 20;
/// Repositories whose tokens are kept although no source is open for them.
const MAX_AUTHENTICATORS: usize = 1024;

/// Connections and limits. Clones share them.
#[derive(Clone, Default)]
pub struct Network {
    shared: Arc<Shared>,
    /// Whether this is the clone for second connections.
    spare: bool,
}

#[derive(Default)]
struct Shared {
    clients: Mutex<HashMap<ClientKey, reqwest::Client>>,
    registries: Mutex<HashMap<String, Limits>>,
    health: Mutex<HashMap<String, Arc<Health>>>,
    authenticators: Mutex<HashMap<Access, Arc<Authenticator>>>,
}

/// Limits on what is asked of one registry at a time, and how fast it usually is.
#[derive(Clone)]
pub(super) struct Limits {
    pub(super) reads: Arc<Semaphore>,
    pub(super) races: Arc<Semaphore>,
    pub(super) pace: Arc<Pace>,
}

/// What makes two clients different.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct ClientKey {
    pub(super) tls: Tls,
    /// Whether a proxy named by the environment is used.
    pub(super) proxied: bool,
    /// For the TCP and TLS handshakes.
    pub(super) connect: Duration,
    /// Whether its connections are kept apart from the usual ones.
    spare: bool,
}

impl ClientKey {
    pub(super) fn new(tls: Tls, proxied: bool, connect: Duration) -> Self {
        Self {
            tls,
            proxied,
            connect,
            spare: false,
        }
    }
}

impl Network {
    /// The same limits with connections of its own: an HTTP/2 connection carries all requests to a host, so one
    /// that stalls cannot be raced on itself.
    pub(super) fn spare(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
            spare: true,
        }
    }

    /// The limits for one registry.
    pub(super) fn limits(&self, registry: &str) -> Limits {
        let registries = self.shared.registries.lock();
        let mut registries = registries.unwrap_or_else(PoisonError::into_inner);
        let limits = registries
            .entry(registry.to_owned())
            .or_insert_with(|| Limits {
                reads: Arc::new(Semaphore::new(MAX_READS)),
                races: Arc::new(Semaphore::new(MAX_RACES)),
                pace: Arc::default(),
            });
        limits.clone()
    }

    /// What is known of one place. The last one of a list is a host; a mirror is a repository on one, as others may be
    /// fine there, and the registry itself may be the same host.
    pub(super) fn health(&self, endpoint: &Endpoint, is_last: bool) -> Arc<Health> {
        let place = if is_last {
            endpoint.authority.clone()
        } else {
            format!("mirror {}", endpoint.base())
        };
        let places = self.shared.health.lock();
        let mut places = places.unwrap_or_else(PoisonError::into_inner);
        Arc::clone(places.entry(place).or_default())
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

    /// The client for this way to connect.
    pub(super) fn client(&self, key: &ClientKey) -> Result<reqwest::Client, SourceError> {
        let key = ClientKey {
            spare: self.spare,
            ..key.clone()
        };
        let clients = self.shared.clients.lock();
        let mut clients = clients.unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = clients.get(&key) {
            return Ok(client.clone());
        }
        let client = new_client(&key)?;
        clients.insert(key, client.clone());
        Ok(client)
    }
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Network")
    }
}

fn new_client(key: &ClientKey) -> Result<reqwest::Client, SourceError> {
    install_crypto_provider();
    let mut builder = reqwest::Client::builder()
        .user_agent(concat!("imgfs/", env!("CARGO_PKG_VERSION")))
        // Redirects are followed by hand, with a decision about credentials at each.
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(key.connect)
        .tcp_nodelay(true)
        // Retrying is one concern, in one place: `retry`.
        .retry(reqwest::retry::never())
        .tls_danger_accept_invalid_certs(key.tls.unverified);
    if !key.proxied {
        builder = builder.no_proxy();
    }
    for file in &key.tls.authorities {
        let pem = read_pem(file)?;
        let authorities = reqwest::Certificate::from_pem_bundle(&pem)
            .ok()
            .filter(|found| !found.is_empty())
            .ok_or_else(|| bad_pem(file, "it has no certificate in PEM form"))?;
        builder = builder.tls_certs_merge(authorities);
    }
    if let Some((certificate, secret_key)) = &key.tls.identity {
        let mut pem = read_pem(certificate)?;
        pem.push(b'\n');
        pem.extend(read_pem(secret_key)?);
        // The library's words could quote the key.
        let identity = reqwest::Identity::from_pem(&pem).map_err(|_| {
            bad_pem(
                certificate,
                &format!(
                    "with {} it is no client certificate and key in PEM form",
                    secret_key.display()
                ),
            )
        })?;
        builder = builder.identity(identity);
    }
    builder.build().map_err(|cause| SourceError::Client {
        cause: super::failure::innermost(&cause),
    })
}

fn read_pem(file: &Path) -> Result<Vec<u8>, SourceError> {
    use std::io::Read;
    let mut pem = Vec::new();
    std::fs::File::open(file)
        .and_then(|open| open.take(MAX_PEM).read_to_end(&mut pem))
        .map_err(|cause| SourceError::File {
            path: file.to_owned(),
            cause,
        })?;
    Ok(pem)
}

fn bad_pem(file: &Path, problem: &str) -> SourceError {
    SourceError::Local {
        path: file.to_owned(),
        problem: problem.to_owned(),
    }
}

/// reqwest is built without a default provider. An error means that one is installed already, which is as good.
fn install_crypto_provider() {
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        let _already_installed = rustls::crypto::ring::default_provider().install_default();
    }
}
