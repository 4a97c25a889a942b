//! Which hosts are asked, compared with skopeo reading the same `registries.conf`.

use std::path::Path;

use imgfs_core::source::Scheme;
use imgfs_core::source::route::{Configuration, RouteError, route};
use imgfs_formats::oci::Location;

use super::*;

/// Every place is a port of this machine where nobody listens, by an address that is not treated as
/// loopback.
const CONF: &str = r#"
[[registry]]
prefix = "0.0.0.0:1/foo"
location = "0.0.0.0:2/bar"
[[registry.mirror]]
location = "0.0.0.0:3"
insecure = true
[[registry.mirror]]
location = "0.0.0.0:4/deep/mirror"
pull-from-mirror = "digest-only"
[[registry.mirror]]
location = "0.0.0.0:5/deep"
pull-from-mirror = "tag-only"

[[registry]]
prefix = "0.0.0.0:1/foo/more"
location = "0.0.0.0:6"
insecure = true

[[registry]]
location = "0.0.0.0:1/digests"
mirror-by-digest-only = true
[[registry.mirror]]
location = "0.0.0.0:3/m"

[[registry]]
prefix = "*.wild.example"
location = "0.0.0.0:7/wild"

[[registry]]
prefix = "*.deep.wild.example"
location = "0.0.0.0:8"

[[registry]]
prefix = "port.example"
location = "0.0.0.0"

[[registry]]
location = "0.0.0.0:9"
blocked = true

[[registry]]
location = "0.0.0.0:10"
blocked = true
[[registry.mirror]]
location = "0.0.0.0:3/ten"
[[registry.mirror]]
location = "0.0.0.0:9/ten"

[[registry]]
prefix = "leads-to-nine.example"
location = "0.0.0.0:9/nine"
"#;

/// A place that is asked: `host/repository`, and whether http will do.
type Asked = (String, bool);

/// What skopeo asks for, in order, from its log: names to which a request follows.
fn skopeo_asks(skopeo: &Path, dir: &Path, reference: &str) -> Vec<Asked> {
    let output = std::process::Command::new(skopeo)
        .args(["--debug", "--registries-conf"])
        .arg(dir.join("registries.conf"))
        .args(["inspect", &format!("docker://{reference}")])
        .env("HOME", dir)
        .output()
        .unwrap();
    let log = String::from_utf8_lossy(&output.stderr).replace("\\\"", "\"");
    let mut tried: Vec<(String, bool, bool)> = Vec::new();
    for line in log.lines() {
        if let Some((_, rest)) = line.split_once("Trying to access \"") {
            let name = rest.split('"').next().unwrap();
            let name = name.split('@').next().unwrap().trim_end_matches(":latest");
            tried.push((name.to_owned(), false, false));
        } else if let Some((name, has_request, has_http)) = tried.last_mut() {
            let host = name.split('/').next().unwrap();
            *has_request |= line.contains(&format!("GET https://{host}/v2/"));
            *has_http |= line.contains(&format!("GET http://{host}/v2/"));
        }
    }
    assert!(!tried.is_empty(), "{reference}: {log}");
    let asked = tried.into_iter().filter(|(_, has_request, _)| *has_request);
    asked.map(|(name, _, has_http)| (name, has_http)).collect()
}

fn imgfs_asks(dir: &Path, reference: &str) -> Vec<Asked> {
    let configuration = Configuration::from_env(
        |name| match name {
            "HOME" => Some(dir.into()),
            "CONTAINERS_REGISTRIES_CONF" => Some(dir.join("registries.conf").into()),
            _ => None,
        },
        dir,
    );
    let options = Options {
        configuration,
        ..options()
    };
    let reference: Reference = reference.parse().unwrap();
    let Location::Registry {
        host,
        repository,
        digest,
        ..
    } = reference.location()
    else {
        panic!("{reference} is not on disk");
    };
    let endpoints = match route(host, repository, &options) {
        Ok(route) => route.endpoints,
        Err(RouteError::Blocked { .. }) => Vec::new(),
        Err(err) => panic!("{reference}: {err}"),
    };
    let serves = |serves: imgfs_core::source::Serves| match digest {
        Some(_) => serves.digests && serves.pinned,
        None => serves.tags,
    };
    let asked = endpoints.iter().filter(|endpoint| serves(endpoint.serves));
    asked
        .map(|endpoint| {
            let name = format!("{}/{}", endpoint.registry_host(), endpoint.repository);
            (name, endpoint.scheme == Scheme::HttpsOrHttp)
        })
        .collect()
}

#[test]
fn skopeo_asks_the_same_hosts_in_the_same_order() {
    let test = "skopeo_asks_the_same_hosts_in_the_same_order";
    let Some(programs) = support::programs::find(test, &["skopeo"]) else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("registries.conf"), CONF).unwrap();
    let digest = format!("@sha256:{}", "a".repeat(64));
    let check = |name: &str, by_tag: usize, by_digest: usize| {
        for (suffix, count) in [(":latest", by_tag), (digest.as_str(), by_digest)] {
            let reference = format!("{name}{suffix}");
            let ours = imgfs_asks(dir.path(), &reference);
            assert_eq!(
                ours,
                skopeo_asks(&programs[0], dir.path(), &reference),
                "{reference}"
            );
            assert_eq!(ours.len(), count, "{reference}");
        }
    };
    check("0.0.0.0:1/foo/x", 3, 3);
    check("0.0.0.0:1/foo/more/x/y", 1, 1);
    check("0.0.0.0:1/food", 1, 1);
    check("0.0.0.0:1/digests/x", 1, 2);
    check("0.0.0.0:1/digests", 1, 2);
    check("a.b.wild.example/x", 1, 1);
    check("a.deep.wild.example/x/y", 1, 1);
    check("port.example:12/x", 1, 1);
    check("0.0.0.0:9/x", 0, 0);
    check("0.0.0.0:10/x", 1, 1);
    check("leads-to-nine.example/x", 0, 0);
}
