//! Files in, endpoints out: each case is a listing of files and one line for each host asked.

mod any_text;
mod hosts_toml;
mod own;
mod precedence;
mod registries_conf;
mod short_names;

use super::*;
use crate::source::endpoint::{Serves, Tls};

/// A machine's files below a temporary directory; the user's home is `/home/u`.
struct Machine {
    root: tempfile::TempDir,
    options: Options,
}

const USER: &str = "home/u/.config/imgfs/config.toml";
const SYSTEM: &str = "etc/imgfs/config.toml";
const HUB_HOSTS: &str = "etc/containerd/certs.d/docker.io/hosts.toml";
const REGISTRIES: &str = "etc/containers/registries.conf";

impl Machine {
    fn new(files: &[(&str, &str)]) -> Self {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let mut machine = Self {
            root,
            options: Options::default(),
        };
        machine.read_environment(&[]);
        machine
    }

    /// As if these variables were set, paths below the root.
    fn read_environment(&mut self, variables: &[(&str, &str)]) {
        let root = self.root.path();
        self.options.configuration = Configuration::from_env(
            |name| {
                let set = variables.iter().find(|(variable, _)| *variable == name);
                let path = match (name, set) {
                    (_, Some((_, path))) => path,
                    ("HOME", None) => "home/u",
                    _ => return None,
                };
                Some(root.join(path).into())
            },
            root,
        );
        // Whoever runs the tests.
        self.options.configuration.recorded_aliases =
            Some(root.join("cache/short-name-aliases.conf"));
    }

    fn with(mut self, change: impl FnOnce(&mut Options)) -> Self {
        change(&mut self.options);
        self
    }

    fn route(&self, name: &str) -> Result<Route, RouteError> {
        let (host, repository) = name.split_once('/').unwrap();
        route(host, repository, &self.options)
    }

    /// Paths from the root, as the files have them.
    fn local(&self, text: &str) -> String {
        text.replace(&format!("{}/", self.root.path().display()), "/")
    }

    fn check(&self, name: &str, expected: &[&str]) {
        let found = match self.route(name) {
            Ok(route) => route
                .endpoints
                .iter()
                .map(|one| self.local(&line(one)))
                .collect(),
            Err(err) => vec![self.local(&err.to_string())],
        };
        assert_eq!(found, expected, "{name}");
    }

    fn check_error(&self, name: &str, words: &[&str]) {
        let err = self.local(&self.route(name).unwrap_err().to_string());
        for word in words {
            assert!(err.contains(word), "{err}\nlacks {word}");
        }
    }

    fn check_candidates(&self, text: &str, expected: &str) {
        let found = match candidates(text, &self.options.configuration) {
            Ok(found) => {
                let names: Vec<_> = found.references.iter().map(ToString::to_string).collect();
                let why = found.why.map(|why| format!(" ({why})"));
                format!("{}{}", names.join(" "), why.unwrap_or_default())
            }
            Err(err) => err.to_string(),
        };
        assert_eq!(self.local(&found), expected, "{text}");
    }
}

/// Everything about an endpoint, what is usual left out.
fn line(endpoint: &Endpoint) -> String {
    let mut parts = vec![endpoint.base()];
    if let Some(namespace) = &endpoint.namespace {
        parts.push(format!("ns={namespace}"));
    }
    if endpoint.scheme == Scheme::HttpsOrHttp {
        parts.push("or-http".to_owned());
    }
    match endpoint.serves {
        Serves::ALL => {}
        Serves {
            pinned: false,
            tags: true,
            digests: true,
        } => parts.push("tag-only".to_owned()),
        Serves { tags, digests, .. } => parts.push(format!("tags={tags} digests={digests}")),
    }
    let Tls {
        unverified,
        authorities,
        identity,
    } = &endpoint.tls;
    if *unverified {
        parts.push("unverified".to_owned());
    }
    for authority in authorities {
        parts.push(format!("ca={}", authority.display()));
    }
    if let Some((certificate, key)) = identity {
        parts.push(format!(
            "identity={},{}",
            certificate.display(),
            key.display()
        ));
    }
    for (name, value) in &endpoint.headers {
        parts.push(format!("{name}:{}", value.expose()));
    }
    if let Some(limit) = endpoint.connect_timeout {
        parts.push(format!("within={limit:?}"));
    }
    match &endpoint.credentials {
        Some(key) => parts.push(format!("as={}/{}", key.host, key.repository)),
        None => parts.push("anonymous".to_owned()),
    }
    format!("{} <- {}", parts.join(" "), endpoint.why)
}
