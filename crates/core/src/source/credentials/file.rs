//! The JSON that `docker login` and `podman login` write: read whole, then looked into.
//!
//! ```text
//! { "auths": { KEY: { "auth": base64(user:password) | "identitytoken" | "registrytoken" } },
//!   "credHelpers": { HOST: NAME }, "credsStore": NAME }
//! ```

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use serde::Deserialize;

use super::keys::{keys, normalise};
use super::places::{CredentialFile, Form};
use super::{Credential, CredentialsError};
use crate::source::secret::Secret;
use crate::source::small_file::{MAX_FILE, Unreadable, read_small_file};

/// What a file says.
#[derive(Debug)]
pub(super) struct FileLogins {
    path: PathBuf,
    auths: BTreeMap<String, Option<Entry>>,
    helper_of_host: BTreeMap<String, String>,
    helper_of_all: String,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct AuthFile {
    auths: Option<BTreeMap<String, Option<Entry>>>,
    creds_store: Option<String>,
    cred_helpers: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Entry {
    auth: Option<Secret>,
    username: Option<String>,
    password: Option<Secret>,
    identitytoken: Option<Secret>,
    registrytoken: Option<Secret>,
}

impl std::fmt::Debug for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Entry")
    }
}

impl FileLogins {
    /// Reads a file; `None` if there is none, or nothing in it.
    pub(super) fn read(file: &CredentialFile) -> Result<Option<Self>, CredentialsError> {
        match read_bounded(&file.path)? {
            Some(body) => Self::parse(&body, file).map(Some),
            None => Ok(None),
        }
    }

    pub(super) fn parse(body: &[u8], file: &CredentialFile) -> Result<Self, CredentialsError> {
        let parsed = match file.form {
            Form::Legacy => serde_json::from_slice(body).map(|auths| AuthFile {
                auths: Some(auths),
                ..AuthFile::default()
            }),
            Form::Docker | Form::Containers => serde_json::from_slice(body),
        };
        let parsed: AuthFile = parsed.map_err(|cause| not_json(&file.path, &cause))?;
        Ok(Self {
            path: file.path.clone(),
            auths: parsed.auths.unwrap_or_default(),
            helper_of_host: parsed.cred_helpers.unwrap_or_default(),
            helper_of_all: parsed.creds_store.unwrap_or_default(),
        })
    }

    /// The helpers to ask about a host, in order. An empty name for the host means, as for Docker:
    /// none at all.
    pub(super) fn helpers(&self, host: &str) -> Vec<&str> {
        let of_host = (self.helper_of_host.iter())
            .find(|(name, _)| normalise(name) == host)
            .map(|(_, helper)| helper.as_str());
        let mut helpers = match of_host {
            Some("") => Vec::new(),
            Some(helper) => vec![helper, &self.helper_of_all],
            None => vec![self.helper_of_all.as_str()],
        };
        helpers.retain(|helper| !helper.is_empty());
        helpers.dedup();
        helpers
    }

    /// The entry for a repository that has something in it, and its key.
    pub(super) fn entry(
        &self,
        host: &str,
        repository: &str,
    ) -> Result<Option<(&str, Credential)>, CredentialsError> {
        for key in keys(host, repository) {
            // The key itself goes before other ways to write it.
            let exact = self.auths.iter().filter(|(name, _)| **name == key);
            let others =
                (self.auths.iter()).filter(|(name, _)| **name != key && normalise(name) == key);
            for (name, entry) in exact.chain(others) {
                if let Some(entry) = entry
                    && let Some(credential) = self.read_entry(name, entry)?
                {
                    return Ok(Some((name, credential)));
                }
            }
        }
        Ok(None)
    }

    fn read_entry(&self, key: &str, entry: &Entry) -> Result<Option<Credential>, CredentialsError> {
        let some =
            |secret: &Option<Secret>| secret.clone().filter(|secret| !secret.expose().is_empty());
        if let Some(token) = some(&entry.registrytoken) {
            return Ok(Some(Credential::RegistryToken(token)));
        }
        // Beside it stands an `auth` with a user name and no password.
        if let Some(token) = some(&entry.identitytoken) {
            return Ok(Some(Credential::IdentityToken(token)));
        }
        if let Some(auth) = some(&entry.auth) {
            let pair = decode_pair(auth.expose()).ok_or_else(|| CredentialsError::Entry {
                file: self.path.clone(),
                key: key.to_owned(),
            })?;
            return Ok(Some(pair));
        }
        match (&entry.username, some(&entry.password)) {
            (Some(username), Some(password)) => Ok(Some(Credential::Password {
                username: username.clone(),
                password,
            })),
            _ => Ok(None),
        }
    }
}

/// Base64 of `user:password`.
fn decode_pair(auth: &str) -> Option<Credential> {
    let bytes = STANDARD
        .decode(auth)
        .or_else(|_| STANDARD_NO_PAD.decode(auth))
        .ok()?;
    let text = String::from_utf8(bytes).ok()?;
    let (username, password) = text.split_once(':')?;
    Some(Credential::Password {
        username: username.to_owned(),
        // Old docker versions padded with NUL bytes.
        password: Secret::new(password.trim_end_matches('\0')),
    })
}

pub(super) fn encode_pair(username: &str, password: &Secret) -> String {
    STANDARD.encode(format!("{username}:{}", password.expose()))
}

/// A file's bytes; `None` if it is not there or blank.
pub(super) fn read_bounded(path: &Path) -> Result<Option<Vec<u8>>, CredentialsError> {
    let file = path.to_owned();
    let body = read_small_file(path).map_err(|err| match err {
        Unreadable::Io(cause) => CredentialsError::Read { file, cause },
        Unreadable::TooLarge => CredentialsError::TooLarge {
            file,
            limit: MAX_FILE,
        },
    })?;
    Ok(body.filter(|body| !body.iter().all(u8::is_ascii_whitespace)))
}

pub(super) fn not_json(path: &Path, cause: &serde_json::Error) -> CredentialsError {
    CredentialsError::Json {
        file: path.to_owned(),
        line: cause.line(),
        column: cause.column(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(path: &str, body: &str, host: &str, repository: &str) -> String {
        let file = CredentialFile::found(path.into());
        let found = FileLogins::parse(body.as_bytes(), &file).and_then(|content| {
            let entry = content.entry(host, repository)?;
            Ok(entry.map(|(key, credential)| (key.to_owned(), credential)))
        });
        match found {
            Ok(Some((_, Credential::Password { username, password }))) => {
                format!("{username}:{}", password.expose())
            }
            Ok(Some((_, Credential::IdentityToken(token)))) => format!("id {}", token.expose()),
            Ok(Some((_, Credential::RegistryToken(token)))) => format!("reg {}", token.expose()),
            Ok(None) => "none".to_owned(),
            Err(err) => err.to_string(),
        }
    }

    fn auth(text: &str) -> serde_json::Value {
        serde_json::json!({"auth": STANDARD.encode(text)})
    }

    #[test]
    fn the_most_special_entry_wins() {
        let body = serde_json::json!({"auths": {
            "https://index.docker.io/v1/": auth("hub:1"),
            "https://index.docker.io/v1/access-token": auth("desktop:1"),
            "docker.io/team": auth("team:1"),
            "h:5000": auth("host:2"),
            "h:5000/a/b": auth("deep:3:4"),
            "h:5000/empty": {},
            "x.io": {"username": "u", "password": "p"},
            "empty": {},
            "http://twice.io": {},
            "https://twice.io": auth("second:1"),
            "https://old.io/v1": auth("old:5\0\0"),
            "id.io": {"auth": STANDARD.encode("user:"), "identitytoken": "i"},
            "reg.io": {"registrytoken": "r", "identitytoken": "i"},
            "blank.io": {"auth": "", "identitytoken": "", "registrytoken": ""},
        }});
        let body = body.to_string();
        let check = |host: &str, repository: &str, expected: &str| {
            let got = find("/f", &body, host, repository);
            assert_eq!(got, expected, "{host} {repository}");
        };
        check("docker.io", "library/golang", "hub:1");
        check("docker.io", "team/x", "team:1");
        check("h:5000", "a", "host:2");
        check("h:5000", "", "host:2");
        check("h:5000", "a/b/c", "deep:3:4");
        check("h:5000", "a/bc", "host:2");
        check("h:5000", "empty/x", "host:2");
        check("x.io", "a", "u:p");
        check("old.io", "a", "old:5");
        check("twice.io", "a", "second:1");
        check("empty", "a", "none");
        check("h", "a", "none");
        check("id.io", "a", "id i");
        check("reg.io", "a", "reg r");
        check("blank.io", "a", "none");
    }

    #[test]
    fn the_old_file_has_entries_only() {
        let body = serde_json::json!({"https://index.docker.io/v1/": auth("hub:1")}).to_string();
        assert_eq!(find("/.dockercfg", &body, "docker.io", "a"), "hub:1");
        assert_eq!(find("/config.json", &body, "docker.io", "a"), "none");
    }

    #[test]
    fn bad_files_are_named_without_quoting_them() {
        let check = |body: &str, expected: &str| {
            let got = find("/f", body, "h", "r");
            assert!(got.contains(expected), "{body}: {got}");
            assert!(!got.contains("hunter2"), "{got}");
        };
        check("{}", "none");
        check("{\"auths\":null}", "none");
        check("{\"auths\":{\"h\":null}}", "none");
        check(
            "{\"auths\":{\"h\":\"hunter2\"}}",
            "in /f are not valid JSON",
        );
        check("{\"auths\":{\"h\":{\"auth\":\"%\"}}}", "entry \"h\" in /f");
        check(r#"{"auths":{"h":{"auth":"aHVudGVyMg=="}}}"#, "entry \"h\"");
        check(r#"{"auths":{"h":{"auth":["hunter2"]}}}"#, "not valid JSON");
    }

    #[test]
    fn helpers_in_order() {
        let body = r#"{"credsStore":"all","credHelpers":{"h":"one","none.io":"","https://u.io/v1/":"url","same":"all"}}"#;
        let file = CredentialFile::found("/f".into());
        let content = FileLogins::parse(body.as_bytes(), &file).unwrap();
        let check = |host: &str, expected: &str| {
            assert_eq!(content.helpers(host).join(" "), expected, "{host}");
        };
        check("h", "one all");
        check("u.io", "url all");
        check("same", "all");
        check("none.io", "");
        check("other", "all");
    }
}
