//! Where files of credentials are, and of which form.

use std::ffi::OsString;
use std::path::PathBuf;

use super::Credentials;
use super::helper::Helpers;

/// A file that may hold credentials.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct CredentialFile {
    pub(super) path: PathBuf,
    pub(super) form: Form,
    /// The user named it: a login is written to it, whatever other files there are.
    pub(super) explicit: bool,
}

/// The dialects of the one JSON format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Form {
    /// Docker's `config.json`, which podman and skopeo read too.
    Docker,
    /// containers' `auth.json`, with namespaces as keys.
    Containers,
    /// Docker's old `.dockercfg`: the entries without anything around them. Read, and cleaned by a
    /// logout.
    Legacy,
}

impl CredentialFile {
    /// A file that is looked into if it is there.
    pub(super) fn found(path: PathBuf) -> Self {
        let form = match path.file_name().and_then(|name| name.to_str()) {
            Some("config.json") => Form::Docker,
            Some(".dockercfg") => Form::Legacy,
            _ => Form::Containers,
        };
        Self {
            path,
            form,
            explicit: false,
        }
    }

    fn explicit(path: PathBuf) -> Self {
        Self {
            explicit: true,
            ..Self::found(path)
        }
    }
}

impl Credentials {
    /// Looks in this file, which the user named, and in no other.
    #[must_use]
    pub fn only(mut self, file: PathBuf) -> Self {
        self.files = vec![CredentialFile::explicit(file)];
        self
    }

    /// The files that the environment names, with helpers from its `$PATH`; `variable` reads it.
    pub fn from_env(variable: impl Fn(&str) -> Option<OsString>) -> Self {
        let dir = |name: &str| {
            variable(name)
                .filter(|value| !value.is_empty())
                .map(PathBuf::from)
        };
        let below_home = |path: &str| dir("HOME").map(|home| home.join(path));
        // Where containers' tools look without the variable, for root above all.
        let runtime = dir("XDG_RUNTIME_DIR").map_or_else(
            || {
                let user = rustix::process::getuid().as_raw();
                PathBuf::from(format!("/run/containers/{user}/auth.json"))
            },
            |runtime| runtime.join("containers/auth.json"),
        );
        let others = [
            Some(runtime),
            dir("XDG_CONFIG_HOME")
                .or_else(|| below_home(".config"))
                .map(|config| config.join("containers/auth.json")),
            dir("DOCKER_CONFIG")
                .or_else(|| below_home(".docker"))
                .map(|docker| docker.join("config.json")),
            below_home(".dockercfg"),
        ];
        let explicit = dir("REGISTRY_AUTH_FILE").map(CredentialFile::explicit);
        let found = others.into_iter().flatten().map(CredentialFile::found);
        Self {
            given: None,
            files: explicit.into_iter().chain(found).collect(),
            helpers: Helpers {
                dirs: variable("PATH")
                    .map(|path| std::env::split_paths(&path).collect())
                    .unwrap_or_default(),
                ..Helpers::default()
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn helpers_are_looked_for_in_the_path() {
        let check = |path: Option<&str>, expected: &[&str]| {
            let found =
                Credentials::from_env(|name| path.filter(|_| name == "PATH").map(Into::into));
            let expected: Vec<PathBuf> = expected.iter().map(PathBuf::from).collect();
            assert_eq!(found.helpers.dirs, expected, "{path:?}");
            let only = found.only("/f".into());
            assert_eq!(only.helpers.dirs, expected, "{path:?}");
        };
        check(Some("/a/bin:/bin"), &["/a/bin", "/bin"]);
        check(None, &[]);
    }

    #[test]
    fn the_environment_names_the_files() {
        let check = |variables: &[(&str, &str)], expected: &[&str]| {
            let credentials = Credentials::from_env(|name| {
                let found = variables.iter().find(|(variable, _)| *variable == name);
                found.map(|(_, value)| value.into())
            });
            let user = rustix::process::getuid().as_raw().to_string();
            let expected = expected.iter().map(|path| path.replace("UID", &user));
            let found = credentials.files.iter();
            let found = found.map(|file| format!("{} {:?}", file.path.display(), file.form));
            assert_eq!(
                found.collect::<Vec<_>>(),
                expected.collect::<Vec<_>>(),
                "{variables:?}"
            );
        };
        check(&[], &["/run/containers/UID/auth.json Containers"]);
        check(
            &[
                ("HOME", "/h"),
                ("DOCKER_CONFIG", "/d"),
                ("REGISTRY_AUTH_FILE", ""),
            ],
            &[
                "/run/containers/UID/auth.json Containers",
                "/h/.config/containers/auth.json Containers",
                "/d/config.json Docker",
                "/h/.dockercfg Legacy",
            ],
        );
        check(
            &[
                ("REGISTRY_AUTH_FILE", "/r"),
                ("XDG_RUNTIME_DIR", "/x"),
                ("XDG_CONFIG_HOME", "/c"),
                ("HOME", "/h"),
            ],
            &[
                "/r Containers",
                "/x/containers/auth.json Containers",
                "/c/containers/auth.json Containers",
                "/h/.docker/config.json Docker",
                "/h/.dockercfg Legacy",
            ],
        );
    }
}
