//! containerd's `hosts.toml`, one for each registry host.
//!
//! ```text
//! certs.d/example.com_5000_/hosts.toml   the first of these directories that exists
//! certs.d/example.com:5000/hosts.toml
//! certs.d/_default/hosts.toml
//! ```
//!
//! The hosts in the file are asked in the order of their tables, the `server` last. A directory
//! without the file may have certificates only: see [`super::certificates`].

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use toml::Spanned;

use super::base_url::BaseUrl;
use super::error::RouteError;
use super::rule::{check_header, namespace};
use super::text_file::{InOrder, OneOrMany, TextFile, path_beside};
use crate::source::Secret;
use crate::source::endpoint::{Endpoint, Scheme, Serves};

/// The top of a file is the table of its `server`, and has the tables of the other hosts.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Table {
    server: Option<Spanned<String>>,
    host: InOrder<Spanned<String>, Table>,
    capabilities: Vec<Spanned<String>>,
    ca: Option<OneOrMany>,
    client: Option<Client>,
    skip_verify: Option<bool>,
    header: InOrder<Spanned<String>, OneOrMany>,
    override_path: bool,
    dial_timeout: Option<Spanned<String>>,
}

/// A file with certificate and key, or a list of such files and of pairs.
#[derive(Deserialize)]
#[serde(
    untagged,
    expecting = "expected a file, a list of files, or a list of [certificate, key] pairs"
)]
enum Client {
    File(String),
    List(Vec<ClientEntry>),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum ClientEntry {
    File(String),
    Pair([String; 2]),
}

/// The directory for a host: the first that exists.
pub(super) fn find_dir(roots: &[PathBuf], host: &str) -> Option<PathBuf> {
    let mut names = Vec::new();
    if let Some((name, port)) = host.rsplit_once(':') {
        names.push(format!("{name}_{port}_"));
    }
    names.push(host.to_owned());
    names.push("_default".to_owned());
    roots
        .iter()
        .flat_map(|root| names.iter().map(|name| root.join(name)))
        .find(|dir| dir.is_dir())
}

/// The file in a host's directory, unless it is empty, which is as none.
pub(super) fn read(dir: &Path) -> Result<Option<TextFile>, RouteError> {
    let file = TextFile::read(&dir.join("hosts.toml"))?;
    Ok(file.filter(|file| !file.is_empty()))
}

/// The endpoints in a file, in order, and remarks for people.
pub(super) fn endpoints(
    file: &TextFile,
    host: &str,
    repository: &str,
) -> Result<(Vec<Endpoint>, Vec<String>), RouteError> {
    let top: Table = file.parse_toml()?;
    let place = file.path.display();
    let (mut endpoints, mut notes) = (Vec::new(), Vec::new());
    let count = top.host.0.len();
    for (number, (url, table)) in (1..).zip(&top.host.0) {
        let why = format!("{place}, host {number} of {count}");
        match endpoint(file, Some(url), table, host, repository)? {
            Some(endpoint) => endpoints.push(Endpoint { why, ..endpoint }),
            None => notes.push(format!("{why} ({}) is for pushing only", url.as_ref())),
        }
    }
    let why = match top.server {
        Some(_) => format!("{place}, server"),
        None => format!("{place}: no server, so the registry itself"),
    };
    let server = top.server.as_ref().filter(|text| !text.as_ref().is_empty());
    match endpoint(file, server, &top, host, repository)? {
        Some(endpoint) => endpoints.push(Endpoint { why, ..endpoint }),
        None => notes.push(format!("{why} is for pushing only")),
    }
    if endpoints.is_empty() {
        return Err(RouteError::NoHosts {
            reference: format!("{host}/{repository}"),
            file: file.path.clone(),
        });
    }
    Ok((endpoints, notes))
}

/// What a table describes; `None` if it is not for reading.
fn endpoint(
    file: &TextFile,
    url: Option<&Spanned<String>>,
    table: &Table,
    host: &str,
    repository: &str,
) -> Result<Option<Endpoint>, RouteError> {
    let beside = |path: &String| path_beside(&file.path, path);
    let mut endpoint = match url {
        // The registry itself may do everything, whatever is listed.
        None => Endpoint::registry(host, repository),
        Some(text) => {
            let url = BaseUrl::parse(text.as_ref(), table.override_path)
                .map_err(|problem| file.error_at(text.span(), problem))?;
            let mut endpoint = Endpoint::registry(url.host(), repository);
            url.apply(&mut endpoint);
            endpoint.tls.unverified = false;
            endpoint.namespace = namespace(host, &endpoint.authority);
            endpoint.serves = serves(file, &table.capabilities)?;
            endpoint
        }
    };
    if let Some(skip) = table.skip_verify {
        endpoint.tls.unverified = skip;
    }
    let authorities = table.ca.as_ref().map_or(&[][..], OneOrMany::as_slice);
    endpoint.tls.authorities = authorities.iter().map(beside).collect();
    endpoint.tls.identity = match &table.client {
        None => None,
        Some(Client::File(both)) => Some((beside(both), beside(both))),
        Some(Client::List(entries)) => entries.first().map(|entry| match entry {
            ClientEntry::File(both) => (beside(both), beside(both)),
            ClientEntry::Pair([certificate, key]) => (beside(certificate), beside(key)),
        }),
    };
    // TLS settings for a host of http mean: TLS if it can. On port 80 there is no doubt.
    let has_tls = table.ca.is_some() || table.client.is_some() || table.skip_verify.is_some();
    if endpoint.scheme == Scheme::Http && has_tls && !endpoint.authority.ends_with(":80") {
        endpoint.scheme = Scheme::HttpsOrHttp;
    }
    for (name, values) in &table.header.0 {
        for value in values.as_slice() {
            check_header(name.as_ref(), value)
                .map_err(|problem| file.error_at(name.span(), problem))?;
            let header = (name.as_ref().clone(), Secret::new(value));
            endpoint.headers.push(header);
        }
    }
    if let Some(text) = &table.dial_timeout {
        endpoint.connect_timeout = parse_duration(text.as_ref()).ok_or_else(|| {
            let problem = format!(
                "{:?} is no time: write for example \"3s\" or \"1m30s\"",
                text.as_ref()
            );
            file.error_at(text.span(), problem)
        })?;
    }
    Ok(Some(endpoint).filter(|endpoint| endpoint.serves.tags || endpoint.serves.digests))
}

fn serves(file: &TextFile, capabilities: &[Spanned<String>]) -> Result<Serves, RouteError> {
    let mut serves = Serves {
        tags: capabilities.is_empty(),
        digests: capabilities.is_empty(),
        pinned: true,
    };
    for capability in capabilities {
        match capability.as_ref().to_ascii_lowercase().as_str() {
            "pull" => serves.digests = true,
            "resolve" => serves.tags = true,
            "push" => {}
            other => {
                let problem = format!(
                    "the capability {other:?} is none of \"pull\", \"resolve\" and \"push\""
                );
                return Err(file.error_at(capability.span(), problem));
            }
        }
    }
    Ok(serves)
}

/// A time as Go writes it: `3s`, `1m30s`, `1.5h`. Zero means no limit of its own.
#[expect(
    clippy::option_option,
    reason = "no time at all, and a time that means none"
)]
fn parse_duration(text: &str) -> Option<Option<Duration>> {
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest == "0" {
        return Some(None);
    }
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, after) = rest.split_at(digits);
        let end = after
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(after.len());
        let (unit, after) = after.split_at(end);
        let seconds = match unit {
            "ns" => 1e-9,
            "us" | "\u{b5}s" | "\u{3bc}s" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        let number: f64 = number.parse().ok()?;
        let part = Duration::try_from_secs_f64(number * seconds).ok()?;
        total = total.checked_add(part)?;
        rest = after;
    }
    (!text.is_empty()).then_some((!total.is_zero()).then_some(total))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_go_writes_them() {
        let check = |text: &str, milliseconds: Option<u64>| {
            let expected = milliseconds.map(|ms| (ms > 0).then_some(Duration::from_millis(ms)));
            assert_eq!(parse_duration(text), expected, "{text}");
        };
        check("3s", Some(3000));
        check("1m30s", Some(90_000));
        check("1.5h", Some(5_400_000));
        check("250ms", Some(250));
        check("0", Some(0));
        check("0s", Some(0));
        check("", None);
        check("3", None);
        check("-3s", None);
        check("s", None);
        check("3 s", None);
        check("1e400s", None);
    }
}
