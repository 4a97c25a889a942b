//! `daemon.json` of Docker's daemon: mirrors of Docker Hub, and hosts without proper TLS.
//!
//! Only read if asked for: the file is the daemon's, not a setting of the user who mounts an image.

use std::net::IpAddr;

use serde::Deserialize;

use super::base_url::BaseUrl;
use super::error::RouteError;
use super::text_file::TextFile;
use crate::source::endpoint::{Endpoint, Scheme};
use imgfs_formats::oci::DEFAULT_REGISTRY;

#[derive(Deserialize, Default)]
#[serde(rename_all = "kebab-case", default)]
struct Daemon {
    registry_mirrors: Vec<String>,
    insecure_registries: Vec<String>,
}

/// The endpoints for a repository, in order; `None` if the file says nothing about its host.
pub(super) fn endpoints(
    file: &TextFile,
    host: &str,
    repository: &str,
) -> Result<Option<Vec<Endpoint>>, RouteError> {
    let daemon: Daemon = if file.is_empty() {
        Daemon::default()
    } else {
        // The parser's words may quote what stands there, such as a proxy's password.
        serde_json::from_str(file.text()).map_err(|err| RouteError::Syntax {
            file: file.path.clone(),
            line: err.line(),
            problem: if err.is_data() {
                "\"registry-mirrors\" and \"insecure-registries\" are lists of strings".to_owned()
            } else {
                "this is not valid JSON".to_owned()
            },
        })?
    };
    let path = file.path.display();
    let is_insecure = |host: &str| {
        let mut entries = daemon.insecure_registries.iter();
        entries.any(|entry| covers(entry, host))
    };
    let mut endpoints = Vec::new();
    if host == DEFAULT_REGISTRY {
        let count = daemon.registry_mirrors.len();
        for (number, text) in (1..).zip(&daemon.registry_mirrors) {
            let url = BaseUrl::parse(text, false).map_err(|problem| RouteError::Syntax {
                file: file.path.clone(),
                line: line_with(file, text),
                problem: format!("registry-mirrors: {problem}"),
            })?;
            let mut endpoint = Endpoint::registry(url.host(), repository);
            url.apply(&mut endpoint);
            endpoint.tls.unverified = false;
            if is_insecure(&url.authority) && url.scheme == Scheme::Https {
                endpoint.allow_insecure();
            }
            endpoint.why = format!("{path}, mirror {number} of {count}");
            endpoints.push(endpoint);
        }
    }
    let mut registry = Endpoint::registry(host, repository);
    if is_insecure(host) {
        registry.allow_insecure();
        registry.why = format!("{path}, insecure-registries");
    } else if endpoints.is_empty() {
        return Ok(None);
    } else {
        registry.why = format!("{path}: after the mirrors, the registry itself");
    }
    endpoints.push(registry);
    Ok(Some(endpoints))
}

/// The first line that has this text.
fn line_with(file: &TextFile, text: &str) -> usize {
    let lines = file.text().lines();
    1 + lines.take_while(|line| !line.contains(text)).count()
}

/// Whether an entry of `insecure-registries` is for a host: the same host and port, or a network
/// that its address is in. Names are not looked up.
fn covers(entry: &str, host: &str) -> bool {
    let entry = entry
        .strip_prefix("http://")
        .or_else(|| entry.strip_prefix("https://"))
        .unwrap_or(entry);
    if entry.trim_end_matches('/') == host {
        return true;
    }
    let Some((network, bits)) = entry.split_once('/') else {
        return false;
    };
    let name = match host.strip_prefix('[') {
        Some(bracketed) => bracketed.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    match (network.parse(), bits.parse::<u32>(), name.parse()) {
        (Ok(IpAddr::V4(network)), Ok(bits @ 0..=32), Ok(IpAddr::V4(address))) => {
            let mask = u32::MAX.checked_shl(32 - bits).unwrap_or(0);
            network.to_bits() & mask == address.to_bits() & mask
        }
        (Ok(IpAddr::V6(network)), Ok(bits @ 0..=128), Ok(IpAddr::V6(address))) => {
            let mask = u128::MAX.checked_shl(128 - bits).unwrap_or(0);
            network.to_bits() & mask == address.to_bits() & mask
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_hosts_or_networks() {
        let check = |entry: &str, host: &str, expected: bool| {
            assert_eq!(covers(entry, host), expected, "{entry} {host}");
        };
        check("h.io:5000", "h.io:5000", true);
        check("h.io", "h.io:5000", false);
        check("http://h.io:5000/", "h.io:5000", true);
        check("10.0.0.0/8", "10.1.2.3:5000", true);
        check("10.0.0.0/8", "11.1.2.3", false);
        check("10.1.2.3/32", "10.1.2.3", true);
        check("0.0.0.0/0", "8.8.8.8", true);
        check("0.0.0.0/0", "h.io", false);
        check("2001:db8::/32", "[2001:db8::1]:5000", true);
        check("2001:db8::/32", "[2001:db9::1]:5000", false);
        check("::/0", "10.0.0.1", false);
        check("10.0.0.0/33", "10.0.0.1", false);
        check("/", "h.io", false);
        check("", "h.io", false);
    }
}
