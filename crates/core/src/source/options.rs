//! How to reach a source, as the command line and the environment decide.

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
    /// Do not check the registry's certificate, and fall back to http where TLS is not spoken.
    /// Holds for the registry's own host only, never for hosts it redirects to. Loopback hosts are
    /// treated so anyway.
    pub insecure: bool,
    /// Where credentials are looked up when a registry asks for them.
    pub credentials: Credentials,
    /// The configuration files that say which hosts are asked.
    pub configuration: Configuration,
    /// How long to wait.
    pub timeouts: Timeouts,
    /// How often to try again.
    pub retry: RetryPolicy,
    /// Whether the environment names a proxy: an error of connecting then says so. The HTTP library
    /// reads the variables itself, whatever stands here.
    pub names_proxy: bool,
    /// Connections and limits shared by everything opened with clones of these options.
    pub network: Network,
}

impl Options {
    /// The defaults over this network, with what the environment says of credentials, configuration
    /// files and proxies; `variable` reads it.
    pub fn from_env(network: Network, variable: impl Fn(&str) -> Option<OsString>) -> Self {
        Self {
            credentials: Credentials::from_env(&variable),
            configuration: Configuration::from_env(&variable, Path::new("/")),
            names_proxy: names_proxy(&variable),
            network,
            ..Self::default()
        }
    }

    /// Has the registry itself reached as the command line says, which goes before what
    /// configuration files say.
    pub(super) fn apply_flags(&self, endpoint: &mut Endpoint) {
        if self.insecure {
            endpoint.allow_insecure();
        }
        if self.plain_http {
            endpoint.scheme = Scheme::Http;
        }
    }
}

/// Whether one of the variables that name proxies is set. Which of them holds for a host, the HTTP
/// library decides.
fn names_proxy(variable: impl Fn(&str) -> Option<OsString>) -> bool {
    let variables = [
        "HTTPS_PROXY",
        "https_proxy",
        "HTTP_PROXY",
        "http_proxy",
        "ALL_PROXY",
        "all_proxy",
    ];
    let mut values = variables.into_iter().filter_map(variable);
    values.any(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_is_named_by_a_variable_that_is_not_empty() {
        let check = |variable: &str, value: &str, expected: bool| {
            let read = |name: &str| (name == variable).then(|| value.into());
            let options = Options::from_env(Network::default(), read);
            assert_eq!(options.names_proxy, expected, "{variable}={value}");
        };
        check("HTTPS_PROXY", "http://p", true);
        check("all_proxy", "http://p", true);
        check("HTTP_PROXY", "", false);
        check("NO_PROXY", "h", false);
    }

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
