//! HTTP clients with their connections, one for each way to connect.
//!
//! Clients are made when first used: reading the system's certificates takes some ten milliseconds,
//! which a registry on this machine or a cached image need not pay.

use std::collections::HashMap;
use std::fmt;
use std::io::Read;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::endpoint::Tls;
use super::error::SourceError;
use super::failure::innermost;

/// Largest certificate or key file read, in bytes; a bundle of all public authorities has some 220
/// kB.
const MAX_PEM: u64 = 4 << 20;

/// The clients made so far. Clones share them.
#[derive(Clone, Default)]
pub(super) struct Clients {
    made: Arc<Mutex<HashMap<ClientKey, reqwest::Client>>>,
    /// Whether this is the clone for second connections.
    spare: bool,
}

/// The ways in which two clients can differ.
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

impl Clients {
    /// The same with connections of its own: an HTTP/2 connection carries all requests to a host,
    /// so one that stalls cannot be raced on itself.
    pub(super) fn spare(&self) -> Self {
        Self {
            made: Arc::clone(&self.made),
            spare: true,
        }
    }

    /// The client for this way to connect.
    pub(super) fn get(&self, key: &ClientKey) -> Result<reqwest::Client, SourceError> {
        let key = ClientKey {
            spare: self.spare,
            ..key.clone()
        };
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = made.get(&key) {
            return Ok(client.clone());
        }
        let client = new_client(&key)?;
        made.insert(key, client.clone());
        Ok(client)
    }
}

impl fmt::Debug for Clients {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clients")
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
        cause: innermost(&cause),
    })
}

fn read_pem(file: &Path) -> Result<Vec<u8>, SourceError> {
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

/// reqwest is built without a default provider. An error means that one is installed already, which
/// is as good.
fn install_crypto_provider() {
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        let _already_installed = rustls::crypto::ring::default_provider().install_default();
    }
}
