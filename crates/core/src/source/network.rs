//! Shared by all sources of a process: HTTP clients with their connections, tokens, and limits for
//! each host.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Semaphore;

use super::auth::{Access, Authenticator};
use super::clients::Clients;
use super::endpoint::Endpoint;
use super::health::Health;
use super::pace::Pace;

/// Concurrent reads from one registry, those from its mirrors and the hosts it redirects to
/// included: enough to fill a fast line with ranges of a few MiB, below what registries throttle.
const MAX_READS: usize = 8;
/// Reads of one registry raced on a second connection at a time, beside those: so a slow network is
/// not made slower by twice the requests.
const MAX_RACES: usize = 2;
/// Repositories whose tokens are kept although no source is open for them.
const MAX_AUTHENTICATORS: usize = 1024;

/// Connections and limits. Clones share them.
#[derive(Clone, Default)]
pub struct Network {
    shared: Arc<Shared>,
    clients: Clients,
}

#[derive(Default)]
struct Shared {
    registries: Mutex<HashMap<String, Limits>>,
    health: Mutex<HashMap<String, Arc<Health>>>,
    authenticators: Mutex<HashMap<Access, Arc<Authenticator>>>,
}

/// Limits on the requests to one registry at a time, and how fast it usually is.
#[derive(Clone)]
pub(super) struct Limits {
    pub(super) reads: Arc<Semaphore>,
    pub(super) races: Arc<Semaphore>,
    pub(super) pace: Arc<Pace>,
}

impl Network {
    /// The same limits with connections of its own.
    pub(super) fn spare(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
            clients: self.clients.spare(),
        }
    }

    /// The HTTP clients.
    pub(super) fn clients(&self) -> Clients {
        self.clients.clone()
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

    /// The health of one place. The last one of a list is a host; a mirror is a repository on one,
    /// as others may be fine there, and the registry itself may be the same host.
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

    /// The authenticator that lets sources in, with the tokens that it has already.
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
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Network")
    }
}
