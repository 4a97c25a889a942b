//! How to reach a source: what the command line and the environment decide.

use std::ffi::OsString;
use std::path::Path;

use super::credentials::Credentials;
use super::endpoint::{Endpoint, Scheme};
use super::network::Network;
use super::route::configuration::Configuration;
use super::timeouts::{RetryPolicy, Timeouts};

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

    /// Has the registry itself reached as the command line says, which goes before what configuration files say.
    pub(super) fn apply_flags(&self, endpoint: &mut Endpoint) {
        if self.insecure {
            endpoint.allow_insecure();
        }
        if self.plain_http {
            endpoint.scheme = Scheme::Http;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_change_how_a_registry_is_reached() {
        let check = |plain_http, insecure, expected: (Scheme, bool)| {
            let options = Options {
                plain_http,
                insecure,
                ..Options::default()
            };
            let mut endpoint = Endpoint::registry("h", "a/b");
            options.apply_flags(&mut endpoint);
            assert_eq!((endpoint.scheme, endpoint.tls.unverified), expected);
        };
        check(false, false, (Scheme::Https, false));
        check(true, false, (Scheme::Http, false));
        check(false, true, (Scheme::HttpsOrHttp, true));
        check(true, true, (Scheme::Http, true));
    }
}
