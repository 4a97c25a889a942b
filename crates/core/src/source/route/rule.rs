//! Rules for names below a prefix, as imgfs's own configuration and registries.conf have them:
//! where the names are instead, and which mirrors are asked before.
//!
//! ```text
//! prefix                 holds for
//! example.com            all of the host
//! example.com/a          example.com/a and example.com/a/b, not example.com/ab
//! *.example.com          a.example.com, b.a.example.com, not example.com
//! ```
//!
//! A blocked registry is not asked, only its mirrors are; without mirrors its images are refused.
//!
//! The longest prefix wins. A location takes the prefix's place in the name; for a wildcard, the
//! whole host's.

use std::path::PathBuf;

use super::base_url::BaseUrl;
use super::error::RouteError;
use crate::source::Secret;
use crate::source::credentials::CredentialKey;
use crate::source::endpoint::{Endpoint, Scheme, Serves, Tls};
use imgfs_formats::oci::{Location, Reference, ShortName};

/// What holds below a prefix.
#[derive(Debug, Clone)]
pub(super) struct Rule {
    /// The prefix.
    pub prefix: String,
    /// Where it stands.
    pub file: PathBuf,
    /// The registry itself may not be asked.
    pub blocked: bool,
    /// Asked last: the registry itself.
    pub primary: Target,
    /// Asked before, in order.
    pub mirrors: Vec<Target>,
}

/// A place with what has to be known to reach it.
#[derive(Debug, Clone)]
pub(super) struct Target {
    /// Where.
    pub place: Place,
    /// No certificate is checked, http will do.
    pub insecure: bool,
    /// No TLS.
    pub plain_http: bool,
    /// Certificates.
    pub tls: Tls,
    /// Sent along.
    pub headers: Vec<(String, Secret)>,
    /// What for.
    pub serves: Serves,
    /// Whose.
    pub credentials: Credentials,
}

/// Where names below a prefix are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// Where their host says.
    Unchanged,
    /// This takes the prefix's place.
    Location(String),
    /// A proxy, which is told the whole name.
    Proxy(BaseUrl),
}

/// Which credentials a place is sent when it asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Credentials {
    /// What the credential files have for its own name.
    #[default]
    Own,
    /// What they have for the name in the reference.
    Upstream,
    /// None.
    None,
}

impl Default for Target {
    fn default() -> Self {
        Self {
            place: Place::Unchanged,
            insecure: false,
            plain_http: false,
            tls: Tls::default(),
            headers: Vec::new(),
            serves: Serves::ALL,
            credentials: Credentials::Own,
        }
    }
}

impl Rule {
    /// The endpoints for a name that the prefix covers, in order.
    pub(super) fn endpoints(
        &self,
        host: &str,
        repository: &str,
    ) -> Result<Vec<Endpoint>, RouteError> {
        let count = self.mirrors.len();
        let mut endpoints = Vec::new();
        for (number, mirror) in (1..).zip(&self.mirrors) {
            let mut endpoint = self.endpoint(mirror, host, repository)?;
            let file = self.file.display();
            endpoint.why = format!("{file}, mirror {number} of {count} for {}", self.prefix);
            endpoints.push(endpoint);
        }
        if self.blocked {
            if endpoints.is_empty() {
                return Err(self.refusal(host, repository));
            }
            return Ok(endpoints);
        }
        let mut endpoint = self.endpoint(&self.primary, host, repository)?;
        let what = match self.primary.place {
            Place::Unchanged => "registry",
            Place::Location(_) | Place::Proxy(_) => "location of",
        };
        endpoint.why = format!("{}, {what} {}", self.file.display(), self.prefix);
        endpoints.push(endpoint);
        Ok(endpoints)
    }

    /// The error for a name that may not be fetched.
    pub(super) fn refusal(&self, host: &str, repository: &str) -> RouteError {
        RouteError::Blocked {
            reference: format!("{host}/{repository}"),
            file: self.file.clone(),
            prefix: self.prefix.clone(),
        }
    }

    fn endpoint(
        &self,
        target: &Target,
        host: &str,
        repository: &str,
    ) -> Result<Endpoint, RouteError> {
        let mut endpoint = match &target.place {
            Place::Unchanged => Endpoint::registry(host, repository),
            Place::Location(location) => {
                let (host, repository) = self.rewrite(location, host, repository)?;
                Endpoint::registry(&host, &repository)
            }
            Place::Proxy(url) => {
                let mut endpoint = Endpoint::registry(url.host(), repository);
                url.apply(&mut endpoint);
                endpoint.namespace = namespace(host, &url.authority);
                endpoint
            }
        };
        if target.insecure {
            endpoint.allow_insecure();
        }
        if target.plain_http {
            endpoint.scheme = Scheme::Http;
        }
        endpoint.tls.authorities.clone_from(&target.tls.authorities);
        endpoint.tls.identity.clone_from(&target.tls.identity);
        endpoint.headers.clone_from(&target.headers);
        endpoint.serves = target.serves;
        match target.credentials {
            Credentials::Own => {}
            Credentials::Upstream => {
                endpoint.credentials = Some(CredentialKey {
                    host: host.to_owned(),
                    repository: repository.to_owned(),
                });
            }
            Credentials::None => endpoint.credentials = None,
        }
        Ok(endpoint)
    }

    /// The name with the prefix replaced.
    fn rewrite(
        &self,
        location: &str,
        host: &str,
        repository: &str,
    ) -> Result<(String, String), RouteError> {
        let name = format!("{host}/{repository}");
        let rest = covered(&self.prefix, &name)
            .and_then(|length| name.get(length..))
            .unwrap_or_default();
        let result = format!("{location}{rest}");
        let error = |problem: String| RouteError::Rewrite {
            reference: name.clone(),
            file: self.file.clone(),
            prefix: self.prefix.clone(),
            result: result.clone(),
            problem,
        };
        let reference: Reference = result
            .parse()
            .map_err(|cause: imgfs_formats::oci::ReferenceError| error(cause.to_string()))?;
        match reference.location() {
            Location::Registry {
                host, repository, ..
            } if ShortName::parse(&result).is_none() => Ok((host.clone(), repository.clone())),
            _ => Err(error("it does not begin with a registry's host".to_owned())),
        }
    }
}

/// The rule with the longest prefix that covers a name.
pub(super) fn find<'a>(rules: impl IntoIterator<Item = &'a Rule>, name: &str) -> Option<&'a Rule> {
    rules
        .into_iter()
        .filter(|rule| covered(&rule.prefix, name).is_some())
        .max_by_key(|rule| rule.prefix.len())
}

/// How many bytes of `host/repository` a prefix covers.
///
/// A host without a port covers the same host with one, as it does for podman, whose authors do not
/// promise it: a blocked host stays blocked.
fn covered(prefix: &str, name: &str) -> Option<usize> {
    let length = match prefix.strip_prefix('*') {
        Some(domain) => {
            let authority = name.split('/').next().unwrap_or(name);
            let host = authority.split(':').next().unwrap_or(authority);
            (domain.starts_with('.') && host.len() > domain.len() && host.ends_with(domain))
                .then_some(host.len())?
        }
        None => name.starts_with(prefix).then_some(prefix.len())?,
    };
    let rest = name.get(length..)?;
    (length > 0 && (rest.is_empty() || rest.starts_with(['/', ':']))).then_some(length)
}

/// Whether a prefix is for one tag or digest only.
pub(super) fn is_for_one_version(prefix: &str) -> bool {
    match prefix.split_once('/') {
        Some((_, path)) => path.contains([':', '@']),
        None => prefix.contains('@'),
    }
}

/// A prefix or location without slashes at its end, if it can be one.
pub(super) fn check_location(text: &str) -> Result<String, String> {
    let trimmed = text.trim_end_matches('/');
    if trimmed.is_empty() {
        return Err("it is empty: write host, host:port or host/path".to_owned());
    }
    if let Some((_, rest)) = trimmed.split_once("://") {
        return Err(format!(
            "a URL where a name is expected: write it without the scheme, as in {rest:?}"
        ));
    }
    if trimmed.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err(format!("{trimmed:?} is no host and path"));
    }
    Ok(trimmed.to_owned())
}

/// What a proxy is told: the registry's host, unless it is that registry. Docker Hub's API has a
/// name of its own.
pub(super) fn namespace(host: &str, authority: &str) -> Option<String> {
    let is_origin = Endpoint::registry(host, "").authority == authority || host == authority;
    (!is_origin).then(|| host.to_owned())
}

/// Checks what is to be sent as a header; the value is not quoted, as it may be a secret.
pub(super) fn check_header(name: &str, value: &str) -> Result<(), String> {
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if name.is_empty() || !name.bytes().all(is_token) {
        return Err(format!("{name:?} is no name of a header"));
    }
    if value
        .bytes()
        .any(|byte| byte.is_ascii_control() && byte != b'\t')
    {
        return Err(format!(
            "the value of the header {name:?} has control characters"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_cover_whole_components() {
        let check = |prefix: &str, name: &str, expected: Option<&str>| {
            let found = covered(prefix, name).map(|length| &name[length..]);
            assert_eq!(found, expected, "{prefix} {name}");
        };
        check("h.io", "h.io/a", Some("/a"));
        check("h.io", "h.io:5000/a", Some(":5000/a"));
        check("h.io:5000", "h.io:5000/a", Some("/a"));
        check("h.io:5000", "h.io/a", None);
        check("h.io", "h.io.evil.org/a", None);
        check("h.io/a", "h.io/a", Some(""));
        check("h.io/a", "h.io/a/b", Some("/b"));
        check("h.io/a", "h.io/ab", None);
        check("*.h.io", "x.h.io/a", Some("/a"));
        check("*.h.io", "y.x.h.io:5000/a", Some(":5000/a"));
        check("*.h.io", "h.io/a", None);
        check("*.h.io", "x.h.io.evil.org/a", None);
        check("*.h.io", "evil.org/x.h.io/a", None);
        check("*", "h.io/a", None);
        check("*h.io", "xh.io/a", None);
        check("[::1]:5000", "[::1]:5000/a", Some("/a"));
        check("", "h.io/a", None);
    }

    #[test]
    fn proxies_are_told_whose_images_are_wanted() {
        let check = |host: &str, authority: &str, expected: Option<&str>| {
            assert_eq!(namespace(host, authority).as_deref(), expected);
        };
        check("h.io", "mirror.io", Some("h.io"));
        check("h.io", "h.io", None);
        check("h.io:5000", "h.io", Some("h.io:5000"));
        check("docker.io", "registry-1.docker.io", None);
        check("docker.io", "mirror.io", Some("docker.io"));
    }

    #[test]
    fn single_versions_are_told_apart_from_ports() {
        for (prefix, expected) in [
            ("h:5000/a", false),
            ("h:5000", false),
            ("h/a:tag", true),
            ("h:5000/a@sha256:00", true),
        ] {
            assert_eq!(is_for_one_version(prefix), expected, "{prefix}");
        }
    }
}
