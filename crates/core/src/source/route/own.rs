//! imgfs's own `config.toml`.
//!
//! ```toml
//! docker-daemon-config = false               # true, or the path of a daemon.json
//! unqualified-search-registries = ["docker.io"]
//! short-name-mode = "permissive"             # or "enforcing", "disabled"
//!
//! [aliases]
//! tools = "registry.example/team/tools"
//!
//! [registry."docker.io"]                     # or host/path, or *.host: the longest that fits
//! location = "registry.example/hub"          # takes the prefix's place in the name
//! blocked = false                            # true: not asked itself, only its mirrors
//! insecure = false                           # any certificate will do, and http
//! plain-http = false
//! ca = "ca.pem"                              # or a list; relative to this file
//! client-certificate = ["cert.pem", "key.pem"]
//! headers = { X-Team = "blue" }
//!
//! [[registry."docker.io".mirror]]            # asked before the registry, in order
//! location = "mirror.example/hub"            # takes the prefix's place, or instead:
//! proxy = "https://proxy.example:5000/path"  # keeps the name, and is told the host
//! tags = true                                # false: only asked by digest
//! credentials = "own"                        # or "upstream", "none"
//! # and insecure, plain-http, ca, client-certificate, headers
//! ```
//!
//! Two files are read: an entry in the user's replaces the one of the same name in the system's. An
//! unknown key is an error, as a misspelt one would be forgotten silently otherwise.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

use serde::Deserialize;
use toml::Spanned;

use super::base_url::BaseUrl;
use super::configuration::{Configuration, DockerDaemon};
use super::error::RouteError;
use super::rule::{Credentials, Place, Rule, Target, check_header, check_location};
use super::short_name_settings::{Alias, Search, ShortNameMode};
use super::text_file::{InOrder, OneOrMany, TextFile, path_beside};
use crate::source::Secret;
use crate::source::endpoint::{Serves, Tls};

/// All own files together.
#[derive(Debug, Default)]
pub(super) struct Own {
    /// By prefix.
    pub rules: HashMap<String, Rule>,
    /// By short name.
    pub aliases: HashMap<String, Alias>,
    /// Where short names are searched.
    pub search: Option<Search>,
    /// What to do if there are several such places.
    pub mode: Option<(ShortNameMode, PathBuf)>,
    /// Whether and which configuration of Docker's daemon counts.
    pub docker_daemon: Option<DockerDaemon>,
    /// The files that exist.
    pub files: Vec<PathBuf>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
struct File {
    docker_daemon_config: Option<DaemonSetting>,
    unqualified_search_registries: Option<Vec<String>>,
    short_name_mode: Option<ShortNameMode>,
    aliases: BTreeMap<String, String>,
    registry: InOrder<Spanned<String>, Entry>,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "expected true, false or a path")]
enum DaemonSetting {
    Switch(bool),
    Path(String),
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
struct Entry {
    location: Option<Spanned<String>>,
    blocked: bool,
    insecure: bool,
    plain_http: bool,
    ca: Option<OneOrMany>,
    client_certificate: Option<Spanned<OneOrMany>>,
    headers: InOrder<Spanned<String>, String>,
    mirror: Vec<Spanned<MirrorEntry>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct MirrorEntry {
    location: Option<Spanned<String>>,
    proxy: Option<Spanned<String>>,
    #[serde(default = "yes")]
    tags: bool,
    #[serde(default)]
    credentials: CredentialsSetting,
    #[serde(default)]
    insecure: bool,
    #[serde(default)]
    plain_http: bool,
    ca: Option<OneOrMany>,
    client_certificate: Option<Spanned<OneOrMany>>,
    #[serde(default)]
    headers: InOrder<Spanned<String>, String>,
}

fn yes() -> bool {
    true
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "lowercase")]
enum CredentialsSetting {
    #[default]
    Own,
    Upstream,
    None,
}

/// Reads the files that there are.
pub(super) fn read(configuration: &Configuration) -> Result<Own, RouteError> {
    let mut own = Own::default();
    // The first file wins, so it comes last.
    for path in configuration.own.iter().rev() {
        match TextFile::read(path)? {
            Some(file) => own.take(&file)?,
            None if configuration.own_must_exist.as_ref() == Some(path) => {
                return Err(RouteError::Read {
                    file: path.clone(),
                    cause: std::io::ErrorKind::NotFound.into(),
                });
            }
            None => {}
        }
    }
    Ok(own)
}

impl Own {
    /// Lets a file's entries replace those of the files before.
    pub(super) fn take(&mut self, file: &TextFile) -> Result<(), RouteError> {
        let parsed: File = file.parse_toml()?;
        let path = &file.path;
        for (prefix, entry) in parsed.registry.0 {
            let rule = rule(file, &prefix, entry)?;
            self.rules.insert(rule.prefix.clone(), rule);
        }
        for (name, target) in parsed.aliases {
            self.aliases.insert(name, Alias::new(target, path));
        }
        if let Some(registries) = parsed.unqualified_search_registries {
            self.search = Some(Search::new(registries, path));
        }
        if let Some(mode) = parsed.short_name_mode {
            self.mode = Some((mode, path.clone()));
        }
        if let Some(setting) = parsed.docker_daemon_config {
            self.docker_daemon = Some(match setting {
                DaemonSetting::Switch(false) => DockerDaemon::Ignored,
                DaemonSetting::Switch(true) => DockerDaemon::Usual,
                DaemonSetting::Path(daemon) => DockerDaemon::File(path_beside(path, &daemon)),
            });
        }
        self.files.push(path.clone());
        Ok(())
    }
}

fn rule(file: &TextFile, prefix: &Spanned<String>, entry: Entry) -> Result<Rule, RouteError> {
    let checked = location(file, prefix)?;
    if super::rule::is_for_one_version(&checked) {
        let problem = "a registry entry holds for all tags and digests: leave them out";
        return Err(file.error_at(prefix.span(), problem));
    }
    let mirrors = entry
        .mirror
        .into_iter()
        .map(|mirror| mirror_target(file, mirror))
        .collect::<Result<_, _>>()?;
    let place = match &entry.location {
        Some(text) => Place::Location(location(file, text)?),
        None => Place::Unchanged,
    };
    Ok(Rule {
        prefix: checked,
        file: file.path.clone(),
        blocked: entry.blocked,
        primary: Target {
            place,
            insecure: entry.insecure,
            plain_http: entry.plain_http,
            tls: tls(file, entry.ca.as_ref(), entry.client_certificate.as_ref())?,
            headers: headers(file, entry.headers)?,
            ..Target::default()
        },
        mirrors,
    })
}

fn mirror_target(file: &TextFile, mirror: Spanned<MirrorEntry>) -> Result<Target, RouteError> {
    let span = mirror.span();
    let mirror = mirror.into_inner();
    let place = match (&mirror.location, &mirror.proxy) {
        (Some(text), None) => Place::Location(location(file, text)?),
        (None, Some(url)) => Place::Proxy(
            BaseUrl::parse(url.as_ref(), false)
                .map_err(|problem| file.error_at(url.span(), problem))?,
        ),
        _ => {
            let problem = "a mirror has either \"location\" (takes the prefix's place in the name) or \"proxy\" \
                           (a URL that is asked for the whole name)";
            return Err(file.error_at(span, problem));
        }
    };
    Ok(Target {
        place,
        insecure: mirror.insecure,
        plain_http: mirror.plain_http,
        tls: tls(file, mirror.ca.as_ref(), mirror.client_certificate.as_ref())?,
        headers: headers(file, mirror.headers)?,
        serves: Serves {
            tags: mirror.tags,
            ..Serves::ALL
        },
        credentials: match mirror.credentials {
            CredentialsSetting::Own => Credentials::Own,
            CredentialsSetting::Upstream => Credentials::Upstream,
            CredentialsSetting::None => Credentials::None,
        },
    })
}

fn location(file: &TextFile, text: &Spanned<String>) -> Result<String, RouteError> {
    check_location(text.as_ref()).map_err(|problem| file.error_at(text.span(), problem))
}

fn tls(
    file: &TextFile,
    ca: Option<&OneOrMany>,
    client: Option<&Spanned<OneOrMany>>,
) -> Result<Tls, RouteError> {
    let beside = |path: &String| path_beside(&file.path, path);
    let identity = match client.map(|client| (client.span(), client.as_ref().as_slice())) {
        None => None,
        Some((_, [both])) => Some((beside(both), beside(both))),
        Some((_, [certificate, key])) => Some((beside(certificate), beside(key))),
        Some((span, _)) => {
            let problem = "client-certificate is one PEM file, or the list of certificate and key";
            return Err(file.error_at(span, problem));
        }
    };
    Ok(Tls {
        unverified: false,
        authorities: ca
            .map_or(&[][..], OneOrMany::as_slice)
            .iter()
            .map(beside)
            .collect(),
        identity,
    })
}

fn headers(
    file: &TextFile,
    headers: InOrder<Spanned<String>, String>,
) -> Result<Vec<(String, Secret)>, RouteError> {
    let checked = headers.0.into_iter().map(|(name, value)| {
        check_header(name.as_ref(), &value)
            .map_err(|problem| file.error_at(name.span(), problem))?;
        Ok((name.into_inner(), Secret::new(value)))
    });
    checked.collect()
}
