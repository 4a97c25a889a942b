//! The names under which files and helpers keep credentials.

use super::places::Form;
use imgfs_formats::oci::DEFAULT_REGISTRY;

/// What Docker calls Docker Hub, since its first version.
const DOCKER_HUB_KEY: &str = "https://index.docker.io/v1/";

/// The keys that hold for a repository, longest first: `host/a/b`, `host/a`, `host`.
pub(super) fn keys(host: &str, repository: &str) -> Vec<String> {
    let mut key = host.to_owned();
    let mut keys = vec![key.clone()];
    for part in repository.split('/').filter(|part| !part.is_empty()) {
        key = format!("{key}/{part}");
        keys.push(key.clone());
    }
    keys.reverse();
    keys
}

/// The host of a URL key, Docker Hub's several names made one; other keys as they are.
pub(super) fn normalise(name: &str) -> &str {
    let stripped = name
        .strip_prefix("https://")
        .or_else(|| name.strip_prefix("http://"));
    let (key, path) = match stripped {
        Some(rest) => rest.split_once('/').unwrap_or((rest, "")),
        None => (name, ""),
    };
    match key {
        "index.docker.io" | "registry-1.docker.io" | DEFAULT_REGISTRY => {
            // Docker Desktop keeps tokens of its own beside, as .../v1/access-token and
            // .../v1/refresh-token.
            let is_registry = matches!(path.trim_end_matches('/'), "" | "v1" | "v2");
            if is_registry { DEFAULT_REGISTRY } else { name }
        }
        other => other,
    }
}

/// The key under which a file of this form keeps a whole host.
pub(super) fn file_key(form: Form, host: &str) -> &str {
    match form {
        Form::Docker | Form::Legacy => docker_key(host),
        Form::Containers => host,
    }
}

/// What helpers named in a file of this form are asked for, in order: `docker login` and `podman
/// login` store Docker Hub under different names.
pub(super) fn helper_servers(form: Form, host: &str) -> Vec<&str> {
    let mut servers = vec![docker_key(host)];
    if form == Form::Containers && host != servers[0] {
        servers.push(host);
    }
    servers
}

/// Docker's name of a host.
pub(super) fn docker_key(host: &str) -> &str {
    if host == DEFAULT_REGISTRY {
        DOCKER_HUB_KEY
    } else {
        host
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_hosts_and_namespaces() {
        let check = |host: &str, repository: &str, expected: &str| {
            assert_eq!(keys(host, repository).join(" "), expected);
        };
        check("h:5000", "a/b", "h:5000/a/b h:5000/a h:5000");
        check("h", "a", "h/a h");
        check("h", "", "h");
    }

    #[test]
    fn old_keys_are_urls() {
        let check = |name: &str, expected: &str| assert_eq!(normalise(name), expected, "{name}");
        check("h:5000", "h:5000");
        check("h/a", "h/a");
        check("https://h/v1/", "h");
        check("http://h:5000", "h:5000");
        check("docker.io", "docker.io");
        check("docker.io/library", "docker.io/library");
        check("https://index.docker.io/v1/", "docker.io");
        check("https://docker.io", "docker.io");
        check("index.docker.io", "docker.io");
        check(
            "https://index.docker.io/v1/access-token",
            "https://index.docker.io/v1/access-token",
        );
    }

    #[test]
    fn helpers_know_docker_hub_by_its_url() {
        let check = |form, host: &str, expected: &str| {
            assert_eq!(helper_servers(form, host).join(" "), expected);
        };
        check(Form::Docker, "docker.io", DOCKER_HUB_KEY);
        check(
            Form::Containers,
            "docker.io",
            "https://index.docker.io/v1/ docker.io",
        );
        check(Form::Docker, "h:1", "h:1");
        check(Form::Containers, "h:1", "h:1");
    }
}
