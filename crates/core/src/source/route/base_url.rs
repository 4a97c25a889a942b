//! URLs of registries in configuration files: scheme, authority and the path before
//! `/<repository>/`.

use crate::source::endpoint::{Endpoint, Scheme};

/// Where an API is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct BaseUrl {
    /// `https`, or `http`.
    pub scheme: Scheme,
    /// Host and port as written.
    pub authority: String,
    /// As [`Endpoint::api_path`].
    pub api_path: String,
}

impl BaseUrl {
    /// Reads a URL; without a scheme it is https. `/v2` is added to its path unless that is the end
    /// of it or `path_is_whole`.
    pub(super) fn parse(text: &str, path_is_whole: bool) -> Result<Self, String> {
        let (scheme, rest) = match text.split_once("://") {
            Some(("https", rest)) => (Scheme::Https, rest),
            Some(("http", rest)) => (Scheme::Http, rest),
            Some((other, _)) => {
                return Err(format!("the scheme {other:?} is neither https nor http"));
            }
            None => (Scheme::Https, text),
        };
        if rest.contains('@') {
            // The text is not quoted: it may be a password.
            return Err(
                "a URL with a user name in it: credentials belong into the files of `docker login` or `podman login`"
                    .to_owned(),
            );
        }
        if rest.contains(['?', '#']) || rest.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return Err(format!(
                "{text:?} is no registry's URL: write https://host:port/path"
            ));
        }
        let (authority, path) = match rest.find('/') {
            Some(position) => rest.split_at(position),
            None => (rest, ""),
        };
        let is_host = |url: url::Url| url.host().is_some();
        if authority.is_empty()
            || !url::Url::parse(&format!("http://{authority}/")).is_ok_and(is_host)
        {
            return Err(format!("{authority:?} in {text:?} is no host"));
        }
        let mut api_path = clean_path(path);
        if !path_is_whole && !api_path.ends_with("/v2") {
            api_path += "/v2";
        }
        // Often written so, but there is no API there.
        let authority = if authority == imgfs_formats::oci::DEFAULT_REGISTRY {
            Endpoint::registry(authority, "").authority
        } else {
            authority.to_owned()
        };
        Ok(Self {
            scheme,
            authority,
            api_path,
        })
    }

    /// Makes an endpoint be there.
    pub(super) fn apply(&self, endpoint: &mut Endpoint) {
        endpoint.scheme = self.scheme;
        endpoint.authority.clone_from(&self.authority);
        endpoint.api_path.clone_from(&self.api_path);
    }

    /// The host as references and credential files call it.
    pub(super) fn host(&self) -> &str {
        match self.authority.as_str() {
            "registry-1.docker.io" | "index.docker.io" => imgfs_formats::oci::DEFAULT_REGISTRY,
            other => other,
        }
    }
}

/// A path without empty and dotted components: empty, or with a slash in front and none behind.
fn clean_path(path: &str) -> String {
    let mut components = Vec::new();
    for component in path.split('/') {
        match component {
            "" | "." => {}
            ".." => {
                components.pop();
            }
            other => components.push(other),
        }
    }
    let mut cleaned = String::new();
    for component in components {
        cleaned.push('/');
        cleaned.push_str(component);
    }
    cleaned
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_become_hosts_and_paths() {
        let check = |text: &str, whole: bool, expected: &str| {
            let found = match BaseUrl::parse(text, whole) {
                Ok(url) => format!("{:?} {} {}", url.scheme, url.authority, url.api_path),
                Err(problem) => problem,
            };
            assert!(found.contains(expected), "{text}: {found}");
        };
        check("https://h", false, "Https h /v2");
        check("http://h:5000/", false, "Http h:5000 /v2");
        check("h:5000", false, "Https h:5000 /v2");
        check("[::1]:5000/a//b/", false, "Https [::1]:5000 /a/b/v2");
        check("https://h/v2", false, "Https h /v2");
        check("https://h/a/../v2/", false, "Https h /v2");
        check("https://docker.io", false, "Https registry-1.docker.io /v2");
        check("https://h/a", true, "Https h /a");
        check("https://h", true, "Https h ");
        check("ftp://h", false, "neither https nor http");
        check("https://", false, "is no host");
        check("", false, "is no host");
        check("https://h:99999", false, "is no host");
        check("https://a b", false, "is no registry's URL");
        check("https://h/?x=y", false, "is no registry's URL");
        let secret = BaseUrl::parse("https://u:hunter2@h", false).unwrap_err();
        assert!(secret.contains("docker login") && !secret.contains("hunter2"));
    }
}
