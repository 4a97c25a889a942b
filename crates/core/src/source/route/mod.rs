//! Which hosts are asked for an image, in which order and how: from configuration files.
//!
//! The first of these that has an entry for the host or a prefix of the name decides hosts and
//! order:
//!
//! ```text
//! 1. imgfs's own         $IMGFS_CONFIG, else ~/.config/imgfs/config.toml; /etc/imgfs/config.toml
//! 2. containerd's        certs.d/HOST/hosts.toml in ~/.config/containerd, /etc/containerd
//! 3. podman's            registries.conf with its drop-ins
//! 4. Docker's            daemon.json, only if asked for
//! 5. the reference       its own host, without mirrors
//! ```
//!
//! Beside that:
//!
//! - A registry that registries.conf blocks is not asked, only the mirrors listed there are;
//!   without, and where a hosts.toml decides, the image is refused. An entry of imgfs's own for the
//!   name puts that aside.
//! - Flags win: `--plain-http`, `--insecure` and `--cert-dir` change how the reference's own
//!   registry is reached wherever it is in the list, and nothing else.
//! - Certificate directories (`certs.d/HOST/*.crt`, `*.cert`, `*.key` of podman, Docker,
//!   containerd) hold for every host without certificates of its own in the file that decides.
//! - Each host is sent the credentials that the credential files have for its own name. Only
//!   imgfs's own configuration can send a mirror those of the registry it stands for.
//! - `ns=` goes to hosts in a hosts.toml and to `proxy` mirrors of imgfs's own, unless they are the
//!   registry itself. Mirrors of registries.conf and daemon.json are asked as any registry.
//!
//! A file that is there but cannot be understood is an error, never skipped. This module reads
//! files and sends nothing; whether a host answers is the transport's matter.

mod base_url;
mod certificates;
pub(super) mod configuration;
mod daemon_json;
pub(super) mod error;
mod hosts_toml;
mod own;
mod registries_conf;
mod rule;
mod short_name_settings;
mod short_names;
mod text_file;

#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};

pub use configuration::{Configuration, DockerDaemon};
pub use error::RouteError;
pub use short_names::{Candidates, candidates, search_registries};

use super::endpoint::{Endpoint, Scheme};
use super::options::Options;
use crate::hint::Hint;
use imgfs_formats::oci::DEFAULT_REGISTRY;
use text_file::TextFile;

/// Where to ask for a repository.
#[derive(Debug, Clone)]
pub struct Route {
    /// In order; never empty.
    pub endpoints: Vec<Endpoint>,
    /// For people: settings that have no effect, and why.
    pub notes: Vec<String>,
    /// The configuration files that exist.
    pub files: Vec<Consulted>,
}

/// A configuration file and its part in the decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Consulted {
    /// The file.
    pub path: PathBuf,
    /// Its part.
    pub outcome: Outcome,
}

/// The part that a configuration file has in the decision about a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It decides hosts and order.
    Decides,
    /// It says nothing about this name.
    NoEntry,
    /// A file before it decides.
    Outranked,
}

/// Says where to ask for a repository. Reads files: not for async threads.
pub fn route(host: &str, repository: &str, options: &Options) -> Result<Route, RouteError> {
    let mut route = decide(host, repository, &options.configuration)?;
    apply_certificates(&mut route, host, &options.configuration)?;
    apply_flags(&mut route, host, options)?;
    if !route.endpoints.iter().any(|endpoint| endpoint.serves.tags) {
        let note = "no host is asked what a tag points to: only names with a digest can be used";
        route.notes.push(note.to_owned());
    }
    Ok(route)
}

/// The registry itself, to be written to; `None` if configuration files keep it from being asked.
/// Reads files: not for async threads.
pub fn own_endpoint(
    host: &str,
    repository: &str,
    options: &Options,
) -> Result<Option<Endpoint>, RouteError> {
    let route = route(host, repository, options)?;
    let mut endpoints = route.endpoints.into_iter();
    Ok(endpoints.rfind(|endpoint| is_origin(endpoint, host) && endpoint.namespace.is_none()))
}

/// Finds the file that decides.
fn decide(
    host: &str,
    repository: &str,
    configuration: &Configuration,
) -> Result<Route, RouteError> {
    let name = format!("{host}/{repository}");
    let mut route = Route {
        endpoints: Vec::new(),
        notes: Vec::new(),
        files: Vec::new(),
    };
    let own = own::read(configuration)?;
    let rule = rule::find(own.rules.values(), &name);
    route.list(&own.files, rule.map(|rule| rule.file.as_path()));
    if let Some(rule) = rule {
        route.endpoints = rule.endpoints(host, repository)?;
    }
    decide_by_hosts_toml(&mut route, host, repository, configuration)?;
    decide_by_registries_conf(&mut route, host, repository, configuration, rule.is_some())?;
    let daemon = configuration.docker_daemon.clone().or(own.docker_daemon);
    decide_by_daemon_json(&mut route, host, repository, configuration, daemon.as_ref())?;
    if route.endpoints.is_empty() {
        route.endpoints.push(Endpoint::registry(host, repository));
    }
    Ok(route)
}

fn decide_by_hosts_toml(
    route: &mut Route,
    host: &str,
    repository: &str,
    configuration: &Configuration,
) -> Result<(), RouteError> {
    let Some(dir) = hosts_toml::find_dir(&configuration.hosts_dirs, host) else {
        return Ok(());
    };
    if route.is_decided() {
        route.outrank(&dir.join("hosts.toml"));
    } else if let Some(file) = hosts_toml::read(&dir)? {
        let (endpoints, notes) = hosts_toml::endpoints(&file, host, repository)?;
        route.list(std::slice::from_ref(&file.path), Some(&file.path));
        route.endpoints = endpoints;
        route.notes.extend(notes);
    }
    Ok(())
}

fn decide_by_registries_conf(
    route: &mut Route,
    host: &str,
    repository: &str,
    configuration: &Configuration,
    own_decides: bool,
) -> Result<(), RouteError> {
    if own_decides {
        for path in registries_conf::files(&configuration.registries)? {
            route.outrank(&path);
        }
        return Ok(());
    }
    let name = format!("{host}/{repository}");
    let registries = registries_conf::read(&configuration.registries)?;
    let is_for_one = |rule: &&rule::Rule| rule::is_for_one_version(&rule.prefix);
    for rule in registries.rules.values().filter(is_for_one) {
        if rule
            .prefix
            .strip_prefix(&name)
            .is_some_and(|rest| rest.starts_with([':', '@']))
        {
            route.notes.push(format!(
                "{}: registry {:?} is for one tag or digest, which is not supported: it has no effect",
                rule.file.display(),
                rule.prefix
            ));
        }
    }
    let rules = registries.rules.values().filter(|rule| !is_for_one(rule));
    let rule = rule::find(rules, &name);
    if route.is_decided() {
        if let Some(rule) = rule.filter(|rule| rule.blocked) {
            return Err(rule.refusal(host, repository));
        }
        for path in &registries.files {
            let outcome = match rule {
                Some(rule) if rule.file == *path => Outcome::Outranked,
                _ => Outcome::NoEntry,
            };
            route.files.push(Consulted {
                path: path.clone(),
                outcome,
            });
        }
        return Ok(());
    }
    route.list(&registries.files, rule.map(|rule| rule.file.as_path()));
    let Some(rule) = rule else {
        return Ok(());
    };
    // Where the rule leads to may be blocked by another one.
    let mut blocker = rule;
    for endpoint in rule.endpoints(host, repository)? {
        let place = format!("{}/{}", endpoint.registry_host(), endpoint.repository);
        let rules = registries.rules.values().filter(|rule| !is_for_one(rule));
        let there = rule::find(rules, &place);
        if let Some(other) = there.filter(|other| other.blocked) {
            route.notes.push(format!(
                "{}: not asked, as {} blocks {place}",
                endpoint.why,
                other.file.display()
            ));
            blocker = other;
            continue;
        }
        route.endpoints.push(endpoint);
    }
    if route.endpoints.is_empty() {
        return Err(blocker.refusal(host, repository));
    }
    Ok(())
}

fn decide_by_daemon_json(
    route: &mut Route,
    host: &str,
    repository: &str,
    configuration: &Configuration,
    daemon: Option<&DockerDaemon>,
) -> Result<(), RouteError> {
    let path = match daemon {
        None | Some(DockerDaemon::Ignored) => return Ok(()),
        Some(DockerDaemon::File(path)) => path.clone(),
        Some(DockerDaemon::Usual) => {
            let mut files = configuration.daemon_files.iter();
            let Some(path) = files.find(|path| path.exists()) else {
                route
                    .notes
                    .push("Docker's daemon.json is to count, but there is none".to_owned());
                return Ok(());
            };
            path.clone()
        }
    };
    if route.is_decided() {
        route.outrank(&path);
        return Ok(());
    }
    let file = TextFile::read(&path)?.ok_or_else(|| RouteError::Read {
        file: path.clone(),
        cause: io::ErrorKind::NotFound.into(),
    })?;
    let endpoints = daemon_json::endpoints(&file, host, repository)?;
    let decides = endpoints.as_ref().map(|_| path.as_path());
    route.list(std::slice::from_ref(&path), decides);
    route.endpoints = endpoints.unwrap_or_default();
    Ok(())
}

/// Gives every host the certificates of its directory, unless the file that decides names some.
fn apply_certificates(
    route: &mut Route,
    host: &str,
    configuration: &Configuration,
) -> Result<(), RouteError> {
    for endpoint in &mut route.endpoints {
        let has_own = !endpoint.tls.authorities.is_empty() || endpoint.tls.identity.is_some();
        if has_own || endpoint.scheme == Scheme::Http {
            continue;
        }
        let is_origin = is_origin(endpoint, host);
        let hub = [DEFAULT_REGISTRY, endpoint.authority.as_str()];
        let names = if endpoint.authority == Endpoint::registry(DEFAULT_REGISTRY, "").authority {
            &hub[..]
        } else {
            &hub[1..]
        };
        let mut found = certificates::for_host(&configuration.certificate_dirs, names)?;
        // containerd has certificates and hosts.toml in the same place, and uses the former without
        // the latter.
        let is_empty = found.as_ref().is_none_or(|(_, found)| found.is_empty());
        if is_empty
            && is_origin
            && let Some(dir) = hosts_toml::find_dir(&configuration.hosts_dirs, host)
            && hosts_toml::read(&dir)?.is_none()
        {
            found = certificates::for_host(&[dir], &[""])?;
        }
        if let Some((_, certificates)) = found {
            certificates.apply(&mut endpoint.tls);
            route.notes.extend(certificates.notes);
        }
    }
    Ok(())
}

/// Does what the command line says about the reference's own registry.
fn apply_flags(route: &mut Route, host: &str, options: &Options) -> Result<(), RouteError> {
    let dir = options.configuration.certificate_dir.as_deref();
    let certificates = dir.map(read_certificate_dir).transpose()?;
    let mut is_asked = false;
    for endpoint in &mut route.endpoints {
        if is_origin(endpoint, host) {
            is_asked = true;
            options.apply_flags(endpoint);
            if let Some(certificates) = &certificates {
                certificates.apply(&mut endpoint.tls);
            }
        }
    }
    if let Some((certificates, dir)) = certificates.zip(dir) {
        if certificates.is_empty() {
            let dir = dir.display();
            let note = format!("{dir} has no certificates: none of *.crt, *.cert and *.key");
            route.notes.push(note);
        }
        route.notes.extend(certificates.notes);
    }
    let has_flags = options.plain_http || options.insecure || dir.is_some();
    if has_flags && !is_asked {
        route.notes.push(format!(
            "{} hold for {host} only, which is not asked: write these settings into the file that names the other \
             hosts",
            Hint::ConnectionSettings
        ));
    }
    Ok(())
}

fn read_certificate_dir(dir: &Path) -> Result<certificates::Certificates, RouteError> {
    certificates::read(dir).map_err(|cause| RouteError::Read {
        file: dir.to_owned(),
        cause,
    })
}

/// Whether an endpoint is the registry that the reference names.
fn is_origin(endpoint: &Endpoint, host: &str) -> bool {
    endpoint.authority == Endpoint::registry(host, "").authority
}

impl Route {
    fn is_decided(&self) -> bool {
        !self.endpoints.is_empty()
    }

    /// Remembers files that were read.
    fn list(&mut self, files: &[PathBuf], decides: Option<&Path>) {
        for path in files {
            let outcome = if decides == Some(path) {
                Outcome::Decides
            } else {
                Outcome::NoEntry
            };
            self.files.push(Consulted {
                path: path.clone(),
                outcome,
            });
        }
    }

    /// Remembers a file that need not be read.
    fn outrank(&mut self, path: &Path) {
        if path.exists() {
            self.files.push(Consulted {
                path: path.to_owned(),
                outcome: Outcome::Outranked,
            });
        }
    }
}
