//! Credentials from the files that `docker login` and `podman login` write.
//!
//! ```text
//! $REGISTRY_AUTH_FILE                      asked in this order; the first file with an entry wins
//! $XDG_RUNTIME_DIR/containers/auth.json
//! $XDG_CONFIG_HOME/containers/auth.json    (~/.config without the variable)
//! $DOCKER_CONFIG/config.json               (~/.docker without the variable)
//! ```
//!
//! In a file, keys may be namespaces: the longest one that contains the repository wins. Docker's old keys are
//! URLs, of which the host counts. Credential helpers are not run yet: where one applies, a warning says so.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use serde::Deserialize;

use super::secret::Secret;

/// Largest credential file read, in bytes; protects memory.
const MAX_FILE: u64 = 1 << 20;

/// The files to look in, in order.
#[derive(Debug, Clone, Default)]
pub struct CredentialFiles {
    files: Vec<PathBuf>,
}

/// A user name and a password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credential {
    /// User name.
    pub username: String,
    /// Password or access token.
    pub password: Secret,
    /// The file it stood in.
    pub file: PathBuf,
}

/// Why a credential file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// It is there but cannot be read.
    #[error("cannot read the credentials in {}: {cause}", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// The system's words.
        cause: io::Error,
    },
    /// It is no JSON of the expected form. The parser's words may quote a secret, so only the place is told.
    #[error("the credentials in {} are not valid JSON (line {line}, column {column}): correct the file or log in again", file.display())]
    Json {
        /// The file.
        file: PathBuf,
        /// Line, from one.
        line: usize,
        /// Column, from one.
        column: usize,
    },
    /// An entry's `auth` is not base64 of `user:password`.
    #[error("the entry {key:?} in {} is not base64 of user:password: log in again", file.display())]
    Entry {
        /// The file.
        file: PathBuf,
        /// The registry or namespace.
        key: String,
    },
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct AuthFile {
    auths: Option<BTreeMap<String, Option<AuthEntry>>>,
    creds_store: Option<String>,
    cred_helpers: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct AuthEntry {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    identitytoken: Option<String>,
    registrytoken: Option<String>,
}

impl CredentialFiles {
    /// Looks in these files, in order.
    pub fn new(files: Vec<PathBuf>) -> Self {
        Self { files }
    }

    /// The files that the environment names; `variable` reads it.
    pub fn from_env(variable: impl Fn(&str) -> Option<OsString>) -> Self {
        let dir = |name: &str| {
            variable(name)
                .filter(|value| !value.is_empty())
                .map(PathBuf::from)
        };
        let below_home = |path: &str| dir("HOME").map(|home| home.join(path));
        let files = [
            dir("REGISTRY_AUTH_FILE"),
            dir("XDG_RUNTIME_DIR").map(|runtime| runtime.join("containers/auth.json")),
            dir("XDG_CONFIG_HOME")
                .or_else(|| below_home(".config"))
                .map(|config| config.join("containers/auth.json")),
            dir("DOCKER_CONFIG")
                .or_else(|| below_home(".docker"))
                .map(|docker| docker.join("config.json")),
        ];
        Self {
            files: files.into_iter().flatten().collect(),
        }
    }

    /// Finds the credential for a repository. Reads files: not for an async thread.
    pub fn find(
        &self,
        host: &str,
        repository: &str,
    ) -> Result<Option<Credential>, CredentialsError> {
        for file in &self.files {
            let body = match read_bounded(file) {
                Ok(body) => body,
                Err(cause) if is_absent(&cause) => continue,
                Err(cause) => {
                    return Err(CredentialsError::Read {
                        file: file.clone(),
                        cause,
                    });
                }
            };
            if let Some(credential) = find_in(&body, file, host, repository)? {
                return Ok(Some(credential));
            }
        }
        Ok(None)
    }
}

fn is_absent(cause: &io::Error) -> bool {
    matches!(
        cause.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

fn read_bounded(file: &Path) -> io::Result<Vec<u8>> {
    use std::io::Read;
    let mut body = Vec::new();
    std::fs::File::open(file)?
        .take(MAX_FILE)
        .read_to_end(&mut body)?;
    Ok(body)
}

/// Looks into one file's content.
fn find_in(
    body: &[u8],
    file: &Path,
    host: &str,
    repository: &str,
) -> Result<Option<Credential>, CredentialsError> {
    if body.iter().all(u8::is_ascii_whitespace) {
        return Ok(None);
    }
    let parsed: AuthFile =
        serde_json::from_slice(body).map_err(|cause| CredentialsError::Json {
            file: file.to_owned(),
            line: cause.line(),
            column: cause.column(),
        })?;
    let auths = parsed.auths.unwrap_or_default();
    for key in keys(host, repository) {
        let entry = auths
            .iter()
            .find(|(name, _)| **name == key)
            .or_else(|| auths.iter().find(|(name, _)| normalise_key(name) == key));
        if let Some((name, Some(entry))) = entry
            && let Some(credential) = read_entry(name, entry, file)?
        {
            return Ok(Some(credential));
        }
    }
    let helpers = parsed.cred_helpers.unwrap_or_default();
    let helper = helpers
        .iter()
        .find(|(name, _)| normalise_key(name) == host)
        .map(|(_, helper)| helper.clone())
        .or(parsed.creds_store.filter(|store| !store.is_empty()));
    if let Some(helper) = helper {
        tracing::warn!(
            "{} keeps the credentials for {host} in the helper {helper:?}, which is not supported yet: \
             going on without; `podman login {host}` writes them where they are found",
            file.display()
        );
    }
    Ok(None)
}

fn read_entry(
    name: &str,
    entry: &AuthEntry,
    file: &Path,
) -> Result<Option<Credential>, CredentialsError> {
    let credential = |username: &str, password: &str| Credential {
        username: username.to_owned(),
        password: Secret::new(password),
        file: file.to_owned(),
    };
    if let Some(auth) = entry.auth.as_deref().filter(|auth| !auth.is_empty()) {
        let bad = || CredentialsError::Entry {
            file: file.to_owned(),
            key: name.to_owned(),
        };
        let bytes = STANDARD
            .decode(auth)
            .or_else(|_| STANDARD_NO_PAD.decode(auth))
            .map_err(|_| bad())?;
        let text = String::from_utf8(bytes).map_err(|_| bad())?;
        let (username, password) = text.split_once(':').ok_or_else(bad)?;
        // Old docker versions padded with NUL bytes.
        return Ok(Some(credential(username, password.trim_end_matches('\0'))));
    }
    if let (Some(username), Some(password)) = (&entry.username, &entry.password) {
        return Ok(Some(credential(username, password)));
    }
    if entry.identitytoken.is_some() || entry.registrytoken.is_some() {
        tracing::warn!(
            "{}: the entry {name:?} has only a token, which is not supported yet: going on without; \
             log in with user name and password",
            file.display()
        );
    }
    Ok(None)
}

/// The keys that hold for a repository, longest first: `host/a/b`, `host/a`, `host`.
fn keys(host: &str, repository: &str) -> Vec<String> {
    let mut key = format!("{host}/{repository}");
    let mut keys = vec![key.clone()];
    while let Some((shorter, _)) = key.rsplit_once('/') {
        key = shorter.to_owned();
        keys.push(key.clone());
    }
    keys
}

/// The host of a URL key, Docker Hub's several names made one; other keys as they are.
fn normalise_key(name: &str) -> String {
    let stripped = name
        .strip_prefix("https://")
        .or_else(|| name.strip_prefix("http://"));
    let key = match stripped {
        Some(rest) => rest.split('/').next().unwrap_or(rest),
        None => name,
    };
    match key {
        "index.docker.io" | "registry-1.docker.io" => "docker.io".to_owned(),
        other => other.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(body: &str, host: &str, repository: &str) -> String {
        match find_in(body.as_bytes(), Path::new("/f"), host, repository) {
            Ok(Some(found)) => format!("{}:{}", found.username, found.password.expose()),
            Ok(None) => "none".to_owned(),
            Err(err) => err.to_string(),
        }
    }

    #[test]
    fn the_most_special_entry_wins() {
        let auth = |text: &str| format!(r#"{{"auth":"{}"}}"#, STANDARD.encode(text));
        let body = format!(
            r#"{{"auths":{{"https://index.docker.io/v1/":{},"h:5000":{},"h:5000/a/b":{},"x.io":{{"username":"u","password":"p"}},"empty":{{}},"https://old.io/v1":{}}}}}"#,
            auth("hub:1"),
            auth("host:2"),
            auth("deep:3:4"),
            auth("old:5\0\0")
        );
        let check = |host: &str, repository: &str, expected: &str| {
            assert_eq!(
                find(&body, host, repository),
                expected,
                "{host} {repository}"
            );
        };
        check("docker.io", "library/golang", "hub:1");
        check("h:5000", "a", "host:2");
        check("h:5000", "a/b/c", "deep:3:4");
        check("h:5000", "a/bc", "host:2");
        check("x.io", "a", "u:p");
        check("old.io", "a", "old:5");
        check("empty", "a", "none");
        check("h", "a", "none");
    }

    #[test]
    fn bad_files_are_named_without_quoting_them() {
        let check = |body: &str, expected: &str| {
            let got = find(body, "h", "r");
            assert!(got.contains(expected), "{body}: {got}");
            assert!(!got.contains("hunter2"), "{got}");
        };
        check("", "none");
        check("{}", "none");
        check("{\"auths\":null}", "none");
        check("{\"auths\":{\"h\":null}}", "none");
        check(
            "{\"auths\":{\"h\":\"hunter2\"}}",
            "in /f are not valid JSON",
        );
        check("{\"auths\":{\"h\":{\"auth\":\"%\"}}}", "entry \"h\" in /f");
        check(r#"{"credsStore":"desktop"}"#, "none");
    }

    #[test]
    fn the_environment_names_the_files() {
        let files = CredentialFiles::from_env(|name| match name {
            "HOME" => Some("/h".into()),
            "DOCKER_CONFIG" => Some("/d".into()),
            _ => None,
        });
        let expected = ["/h/.config/containers/auth.json", "/d/config.json"];
        assert_eq!(files.files, expected.map(PathBuf::from));
    }
}
