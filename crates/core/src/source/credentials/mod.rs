//! Credentials: those that `docker login`, `podman login` and `imgfs login` keep, and one from the
//! command line.
//!
//! ```text
//! --username                               for the host it was given for
//! $REGISTRY_AUTH_FILE                      the files, asked in this order; the first that has something wins
//! $XDG_RUNTIME_DIR/containers/auth.json    (/run/containers/UID without the variable)
//! $XDG_CONFIG_HOME/containers/auth.json    (~/.config without the variable)
//! $DOCKER_CONFIG/config.json               (~/.docker without the variable)
//! ~/.dockercfg
//! ```
//!
//! In a file: the helper that `credHelpers` names for the host, the helper in `credsStore`, then
//! `auths`, whose keys may be namespaces: the longest one that contains the repository wins. A
//! helper that has nothing passes on to the next place; one that fails ends the search, as going on
//! anonymously would hide why access is refused.
//!
//! `file` reads a file, `keys` compares names, `helper` runs programs, `places` knows where files
//! are, `write` is the other direction: login and logout.

mod error;
mod file;
mod helper;
mod keys;
mod places;
mod write;

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use super::secret::Secret;
use file::FileLogins;
use helper::Helpers;
use places::CredentialFile;

pub use error::CredentialsError;

/// Where credentials are looked up, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Credentials {
    given: Option<Given>,
    files: Vec<CredentialFile>,
    helpers: Helpers,
}

/// A credential for one host, from the command line.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Given {
    host: String,
    credential: Credential,
}

/// A proof that lets somebody in.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Credential {
    /// A user name and a password, or an access token in the place of a password.
    Password {
        /// User name.
        username: String,
        /// Password.
        password: Secret,
    },
    /// A refresh token, which the token server takes instead of a password.
    IdentityToken(Secret),
    /// A token for the registry itself, sent as it is.
    RegistryToken(Secret),
}

/// A credential and where it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundCredential {
    /// The credential.
    pub credential: Credential,
    /// Where it was, for people.
    pub origin: Origin,
}

/// Where a credential is kept. Reads on after "the credentials".
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Given on the command line.
    CommandLine,
    /// In a file.
    File(PathBuf),
    /// With a credential helper.
    Helper {
        /// The program's name, `docker-credential-` included.
        helper: String,
        /// The file that names it.
        file: PathBuf,
    },
}

/// The names under which a credential is looked up: those that credential files know, which need
/// not be where the requests go.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct CredentialKey {
    /// Host and port as in the reference; `docker.io` for Docker Hub.
    pub host: String,
    /// Repository, or a namespace; empty for the whole host.
    pub repository: String,
}

impl Credentials {
    /// Looks in these files, in order. Their names tell their form: `.dockercfg`, `config.json`
    /// (Docker's), or else containers' `auth.json`.
    pub fn new(files: Vec<PathBuf>) -> Self {
        Self {
            files: files.into_iter().map(CredentialFile::found).collect(),
            ..Self::default()
        }
    }

    /// Uses this credential for `host`, before any file.
    #[must_use]
    pub fn with_given(mut self, host: &str, credential: Credential) -> Self {
        self.given = Some(Given {
            host: host.to_owned(),
            credential,
        });
        self
    }

    /// Gives helpers this long, instead of half a minute.
    #[must_use]
    pub fn with_helper_limit(mut self, limit: Duration) -> Self {
        self.helpers.limit = limit;
        self
    }

    /// Looks for helpers in these directories, and in no others.
    #[must_use]
    pub fn with_helper_dirs(mut self, dirs: Vec<PathBuf>) -> Self {
        self.helpers.dirs = dirs;
        self
    }

    /// Finds the credential for a repository. Reads files and runs helpers: not for an async
    /// thread.
    pub fn find(
        &self,
        host: &str,
        repository: &str,
    ) -> Result<Option<FoundCredential>, CredentialsError> {
        if let Some(given) = self.given_for(host) {
            return Ok(Some(FoundCredential {
                credential: given.credential.clone(),
                origin: Origin::CommandLine,
            }));
        }
        for file in &self.files {
            let Some(content) = FileLogins::read(file)? else {
                continue;
            };
            for helper in content.helpers(host) {
                for server in keys::helper_servers(file.form, host) {
                    let found = self.helpers.get(helper, server, &file.path)?;
                    if let Some(credential) = found {
                        let origin = Origin::helper(helper, file);
                        return Ok(Some(FoundCredential { credential, origin }));
                    }
                }
            }
            if let Some((_, credential)) = content.entry(host, repository)? {
                let origin = Origin::File(file.path.clone());
                return Ok(Some(FoundCredential { credential, origin }));
            }
        }
        Ok(None)
    }

    /// For people: where the credential for a repository would come from. Runs no helper and tells
    /// no secret.
    pub fn describe(&self, host: &str, repository: &str) -> String {
        if self.given_for(host).is_some() {
            return "given on the command line".to_owned();
        }
        let mut asked = Vec::new();
        for file in &self.files {
            let content = match FileLogins::read(file) {
                Ok(Some(content)) => content,
                Ok(None) => continue,
                Err(err) => {
                    asked.push(format!("an error: {err}"));
                    return asked.join(", else ");
                }
            };
            for helper in content.helpers(host) {
                asked.push(format!(
                    "what {} has, named in {}",
                    helper::program_name(helper),
                    file.path.display()
                ));
            }
            let found = match content.entry(host, repository) {
                Ok(None) => continue,
                Ok(Some((key, credential))) => {
                    let kind = credential.kind();
                    format!("the {kind} of the entry {key:?} in {}", file.path.display())
                }
                Err(err) => format!("an error: {err}"),
            };
            asked.push(found);
            return asked.join(", else ");
        }
        asked.push("none".to_owned());
        asked.join(", else ")
    }

    fn given_for(&self, host: &str) -> Option<&Given> {
        self.given.as_ref().filter(|given| given.host == host)
    }
}

impl Credential {
    /// What it is, for people.
    fn kind(&self) -> &'static str {
        match self {
            Self::Password { .. } => "user name and password",
            Self::IdentityToken(_) => "identity token",
            Self::RegistryToken(_) => "registry token",
        }
    }
}

impl Origin {
    fn helper(helper: &str, file: &CredentialFile) -> Self {
        Self::Helper {
            helper: helper::program_name(helper),
            file: file.path.clone(),
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CommandLine => f.write_str("from the command line"),
            Self::File(file) => write!(f, "in {}", file.display()),
            Self::Helper { helper, file } => {
                write!(f, "of {helper} (named in {})", file.display())
            }
        }
    }
}

impl fmt::Display for CredentialKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.host)?;
        if self.repository.is_empty() {
            return Ok(());
        }
        write!(f, "/{}", self.repository)
    }
}

#[cfg(test)]
mod tests;
