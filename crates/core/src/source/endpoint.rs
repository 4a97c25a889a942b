//! One host that may have a repository's blobs: the registry itself or a mirror, and how it is
//! reached.
//!
//! Values only: [`super::route`] decides which there are and in which order, the transport uses
//! them.

use std::path::PathBuf;
use std::time::Duration;

use super::credentials::CredentialKey;
use imgfs_formats::oci::DEFAULT_REGISTRY;

/// Where Docker Hub's API is.
const DOCKER_HUB_API: &str = "registry-1.docker.io";

/// A host, and the repository there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// How it speaks.
    pub scheme: Scheme,
    /// `host` or `host:port` of the API.
    pub authority: String,
    /// The path before `/<repository>/` in URLs: `/v2`, unless a proxy has its API elsewhere.
    /// Begins with a slash and does not end with one, or is empty.
    pub api_path: String,
    /// The repository's name on this host.
    pub repository: String,
    /// Sent as `ns=` to proxies, which serve several registries: the host in the reference
    /// (distribution-spec, "Registry Proxying").
    pub namespace: Option<String>,
    /// How TLS is checked.
    pub tls: Tls,
    /// Sent with every request to this host; values may be secrets.
    pub headers: Vec<(String, super::Secret)>,
    /// The requests that go there.
    pub serves: Serves,
    /// Which entry of the credential files holds for it; `None`: it is never sent any.
    pub credentials: Option<CredentialKey>,
    /// For the TCP and TLS handshakes, if it is to differ from the usual.
    pub connect_timeout: Option<Duration>,
    /// For people: which file or rule brought it here.
    pub why: String,
}

/// How a host speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// With TLS only.
    Https,
    /// Without TLS only.
    Http,
    /// With TLS if it can.
    HttpsOrHttp,
}

/// How a host's certificate is checked, and which one it is shown.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Tls {
    /// Whether any certificate will do.
    pub unverified: bool,
    /// PEM files of certificate authorities trusted beside the system's.
    pub authorities: Vec<PathBuf>,
    /// PEM files of the certificate chain and the key shown to a server that asks for one.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// The kinds of requests that go to a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Serves {
    /// Which digest a tag has: the one answer that nothing can check.
    pub tags: bool,
    /// Manifests and blobs by digest.
    pub digests: bool,
    /// Images that the reference names by digest.
    pub pinned: bool,
}

impl Serves {
    /// Everything.
    pub const ALL: Self = Self {
        tags: true,
        digests: true,
        pinned: true,
    };
}

impl Endpoint {
    /// A registry by its host in references, reached in the usual way.
    pub fn registry(host: &str, repository: &str) -> Self {
        let authority = if host == DEFAULT_REGISTRY {
            DOCKER_HUB_API
        } else {
            host
        };
        let mut endpoint = Self {
            scheme: Scheme::Https,
            authority: authority.to_owned(),
            api_path: "/v2".to_owned(),
            repository: repository.to_owned(),
            namespace: None,
            tls: Tls::default(),
            headers: Vec::new(),
            serves: Serves::ALL,
            credentials: Some(CredentialKey {
                host: host.to_owned(),
                repository: repository.to_owned(),
            }),
            connect_timeout: None,
            why: "the reference".to_owned(),
        };
        if endpoint.is_loopback() {
            endpoint.allow_insecure();
        }
        endpoint
    }

    /// Where the repository is, without what is sent along.
    pub fn base(&self) -> String {
        let scheme = match self.scheme {
            Scheme::Https | Scheme::HttpsOrHttp => "https",
            Scheme::Http => "http",
        };
        format!(
            "{scheme}://{}{}/{}",
            self.authority, self.api_path, self.repository
        )
    }

    /// The registry's host as references have it.
    pub fn registry_host(&self) -> &str {
        match self.authority.as_str() {
            DOCKER_HUB_API => DEFAULT_REGISTRY,
            other => other,
        }
    }

    /// No certificate is checked, and http is spoken where TLS is not.
    pub fn allow_insecure(&mut self) {
        self.tls.unverified = true;
        self.scheme = Scheme::HttpsOrHttp;
    }

    /// Whether it is on this machine: then certificates prove nothing, and no proxy is in between.
    pub fn is_loopback(&self) -> bool {
        let url = format!("https://{}/", self.authority);
        match url::Url::parse(&url).ok().as_ref().and_then(url::Url::host) {
            Some(url::Host::Domain(name)) => name == "localhost",
            Some(url::Host::Ipv4(address)) => address.is_loopback(),
            Some(url::Host::Ipv6(address)) => address.is_loopback(),
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_of_this_machine_need_no_certificate() {
        let check = |host: &str, expected: (&str, Scheme, bool)| {
            let endpoint = Endpoint::registry(host, "a/b");
            let found = (
                endpoint.authority.as_str(),
                endpoint.scheme,
                endpoint.tls.unverified,
            );
            assert_eq!(found, expected, "{host}");
        };
        check("docker.io", ("registry-1.docker.io", Scheme::Https, false));
        for host in ["localhost:5000", "127.0.0.9", "[::1]:5000"] {
            check(host, (host, Scheme::HttpsOrHttp, true));
        }
        check("[2001:db8::1]", ("[2001:db8::1]", Scheme::Https, false));
    }
}
