//! Login and logout: one entry of a file changed, everything else in it kept as it was, in its
//! order.
//!
//! Which file: the one the user named; else the first that has an entry for the registry already,
//! as an entry in a later file would not be found; else Docker's, which all the other tools read
//! too. A file is replaced as a whole, so that no reader ever sees a half of it, and only its owner
//! may read it.

use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::{Map, Value};

use super::file::{encode_pair, not_json, read_bounded};
use super::keys::{docker_key, file_key, helper_servers, normalise};
use super::places::{CredentialFile, Form};
use super::{CredentialKey, Credentials, CredentialsError, Origin};
use crate::source::secret::Secret;

/// What of an entry is a login.
const LOGIN_FIELDS: [&str; 5] = [
    "auth",
    "username",
    "password",
    "identitytoken",
    "registrytoken",
];
/// Symbolic links followed from a file's name to the file, as the kernel does.
const MAX_LINKS: usize = 40;

/// A file's JSON while it is changed.
struct Draft<'a> {
    file: &'a CredentialFile,
    root: Map<String, Value>,
    original: Map<String, Value>,
}

impl Credentials {
    /// Keeps a user name and a password for a registry or a namespace; where.
    pub fn store(
        &self,
        key: &CredentialKey,
        username: &str,
        password: &Secret,
    ) -> Result<Origin, CredentialsError> {
        let file = self.file_for(key)?;
        let failed = |cause| CredentialsError::Write {
            file: file.path.clone(),
            cause,
        };
        make_dir(&file.path).map_err(failed)?;
        let _alone = Lock::of(&file.path);
        if file.form != Form::Containers && !key.repository.is_empty() {
            return Err(CredentialsError::Namespace {
                file: file.path.clone(),
                key: key.to_string(),
                host: key.host.clone(),
            });
        }
        let mut draft = Draft::read(file)?;
        let helper = draft.helper(key);
        if let Some(helper) = &helper {
            let server = docker_key(&key.host);
            (self.helpers).store(helper, server, username, password, &file.path)?;
        }
        if helper.is_none() {
            draft.set(key, Some(encode_pair(username, password)))?;
        } else if file.form == Form::Docker {
            // As docker does: an empty entry says for whom the helper has something.
            draft.set(key, None)?;
        } else {
            draft.remove(key, None)?;
        }
        draft.write()?;
        Ok(match helper {
            Some(helper) => Origin::helper(&helper, file),
            None => Origin::File(file.path.clone()),
        })
    }

    /// Forgets the login for a registry or a namespace in the first file that has one; where that
    /// was.
    pub fn erase(&self, key: &CredentialKey) -> Result<Option<Origin>, CredentialsError> {
        for file in self.files_to_erase() {
            let _alone = Lock::of(&file.path);
            let mut draft = Draft::read(file)?;
            let origin = self.erase_in(&mut draft, key)?;
            draft.write()?;
            if origin.is_some() {
                return Ok(origin);
            }
        }
        Ok(None)
    }

    /// Forgets every login in every file, those that helpers keep for registries listed in the
    /// files too.
    pub fn erase_all(&self) -> Result<Vec<(String, Origin)>, CredentialsError> {
        let mut erased = Vec::new();
        for file in self.files_to_erase() {
            let _alone = Lock::of(&file.path);
            let mut draft = Draft::read(file)?;
            for key in draft.names()? {
                if let Some(origin) = self.erase_in(&mut draft, &key)? {
                    erased.push((key.to_string(), origin));
                }
            }
            draft.write()?;
        }
        Ok(erased)
    }

    /// With a file named by the user, only that one.
    fn files_to_erase(&self) -> impl Iterator<Item = &CredentialFile> {
        let only_explicit = self.files.iter().any(|file| file.explicit);
        (self.files.iter()).filter(move |file| file.explicit || !only_explicit)
    }

    fn erase_in(
        &self,
        draft: &mut Draft,
        key: &CredentialKey,
    ) -> Result<Option<Origin>, CredentialsError> {
        let mut origin = None;
        if let Some(helper) = draft.helper(key) {
            let path = &draft.file.path;
            for server in helper_servers(draft.file.form, &key.host) {
                if self.helpers.get(&helper, server, path)?.is_some() {
                    self.helpers.erase(&helper, server, path)?;
                    origin = Some(Origin::helper(&helper, draft.file));
                }
            }
        }
        if draft.remove(key, None)? && origin.is_none() {
            origin = Some(Origin::File(draft.file.path.clone()));
        }
        Ok(origin)
    }

    fn file_for(&self, key: &CredentialKey) -> Result<&CredentialFile, CredentialsError> {
        if let Some(file) = self.files.iter().find(|file| file.explicit) {
            return Ok(file);
        }
        let current = || self.files.iter().filter(|file| file.form != Form::Legacy);
        for file in current() {
            if Draft::read(file)?.knows(key)? {
                return Ok(file);
            }
        }
        let form = if key.repository.is_empty() {
            Form::Docker
        } else {
            Form::Containers
        };
        let mut usual = current().filter(|file| file.form == form);
        usual.next().ok_or(CredentialsError::NoPlace)
    }
}

impl<'a> Draft<'a> {
    fn read(file: &'a CredentialFile) -> Result<Self, CredentialsError> {
        let root = match read_bounded(&file.path)? {
            Some(body) => {
                serde_json::from_slice(&body).map_err(|cause| not_json(&file.path, &cause))?
            }
            None => Map::new(),
        };
        Ok(Self {
            file,
            original: root.clone(),
            root,
        })
    }

    /// The helper that is in charge of a host. A namespace's login is always in the file.
    fn helper(&self, key: &CredentialKey) -> Option<String> {
        if self.file.form == Form::Legacy || !key.repository.is_empty() {
            return None;
        }
        let of_host = self.root.get("credHelpers").and_then(Value::as_object);
        let of_host = of_host.and_then(|helpers| {
            let mut all = helpers.iter();
            all.find(|(name, _)| normalise(name) == key.host)
        });
        let helper = match of_host {
            Some((_, helper)) => helper.as_str(),
            None => self.root.get("credsStore").and_then(Value::as_str),
        };
        helper
            .filter(|helper| !helper.is_empty())
            .map(str::to_owned)
    }

    /// Whether a login for exactly this key is, or would be, found here.
    fn knows(&self, key: &CredentialKey) -> Result<bool, CredentialsError> {
        let wanted = key.to_string();
        let has_entry = self
            .entries()?
            .is_some_and(|entries| entries.keys().any(|name| is_key(name, &wanted)));
        let helpers = self.root.get("credHelpers").and_then(Value::as_object);
        let has_helper = helpers.is_some_and(|helpers| {
            let mut names = helpers.keys();
            names.any(|name| normalise(name) == wanted)
        });
        Ok(has_entry || has_helper)
    }

    /// All registries and namespaces that stand here.
    fn names(&self) -> Result<Vec<CredentialKey>, CredentialsError> {
        let helpers = self.root.get("credHelpers").and_then(Value::as_object);
        let of_helpers = helpers.into_iter().flat_map(Map::keys);
        let of_entries = self.entries()?.into_iter().flat_map(Map::keys);
        let mut names: Vec<CredentialKey> = Vec::new();
        for name in of_entries.chain(of_helpers) {
            // A key of Docker Desktop's own, which is left to it, keeps its scheme.
            let normal = normalise(name);
            if normal.contains("://") {
                continue;
            }
            let (host, repository) = normal.split_once('/').unwrap_or((normal, ""));
            let key = CredentialKey {
                host: host.to_owned(),
                repository: repository.to_owned(),
            };
            if !names.contains(&key) {
                names.push(key);
            }
        }
        Ok(names)
    }

    fn entries(&self) -> Result<Option<&Map<String, Value>>, CredentialsError> {
        if self.file.form == Form::Legacy {
            return Ok(Some(&self.root));
        }
        match self.root.get("auths") {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Object(entries)) => Ok(Some(entries)),
            Some(_) => Err(self.not_an_object("auths")),
        }
    }

    fn entries_mut(&mut self) -> Result<&mut Map<String, Value>, CredentialsError> {
        let error = self.not_an_object("auths");
        if self.file.form == Form::Legacy {
            return Ok(&mut self.root);
        }
        let auths = self.root.entry("auths").or_insert(Value::Null);
        if auths.is_null() {
            *auths = Value::Object(Map::new());
        }
        auths.as_object_mut().ok_or(error)
    }

    /// Removes the entries of a key, under whatever name it stands there, except `keep`; whether
    /// any had a login.
    fn remove(
        &mut self,
        key: &CredentialKey,
        keep: Option<&str>,
    ) -> Result<bool, CredentialsError> {
        if self.entries()?.is_none() {
            return Ok(false);
        }
        let wanted = key.to_string();
        let mut had_login = false;
        self.entries_mut()?.retain(|name, entry| {
            if Some(name.as_str()) == keep || !is_key(name, &wanted) {
                return true;
            }
            let mut fields = LOGIN_FIELDS.iter().filter_map(|field| entry.get(field));
            had_login |= fields.any(|field| !is_blank(field));
            false
        });
        Ok(had_login)
    }

    /// Writes the entry of a key, with `auth` or without any login, and removes what the same key
    /// is called otherwise, which could be found before it.
    fn set(&mut self, key: &CredentialKey, auth: Option<String>) -> Result<(), CredentialsError> {
        let name = if key.repository.is_empty() {
            file_key(self.file.form, &key.host).to_owned()
        } else {
            key.to_string()
        };
        self.remove(key, Some(&name))?;
        let entry = self.entries_mut()?.entry(&name).or_insert(Value::Null);
        if !entry.is_object() {
            *entry = Value::Object(Map::new());
        }
        if let Some(fields) = entry.as_object_mut() {
            // What else stands there is not ours.
            fields.retain(|field, _| !LOGIN_FIELDS.contains(&field.as_str()));
            if let Some(auth) = auth {
                fields.insert("auth".to_owned(), Value::String(auth));
            }
        }
        Ok(())
    }

    fn write(self) -> Result<(), CredentialsError> {
        if self.root == self.original {
            return Ok(());
        }
        let failed = |cause| CredentialsError::Write {
            file: self.file.path.clone(),
            cause,
        };
        let mut text = Vec::new();
        // With tabs, as docker and podman write it.
        let indent = serde_json::ser::PrettyFormatter::with_indent(b"\t");
        let mut serializer = serde_json::Serializer::with_formatter(&mut text, indent);
        (self.root.serialize(&mut serializer)).map_err(|cause| failed(cause.into()))?;
        text.push(b'\n');
        replace(&self.file.path, &text).map_err(failed)
    }

    fn not_an_object(&self, key: &str) -> CredentialsError {
        CredentialsError::Form {
            file: self.file.path.clone(),
            key: key.to_owned(),
        }
    }
}

fn is_key(name: &str, wanted: &str) -> bool {
    name == wanted || normalise(name) == wanted
}

fn is_blank(value: &Value) -> bool {
    value.is_null() || value.as_str().is_some_and(str::is_empty)
}

/// Puts a new file in the place of what `path` leads to, for its owner alone.
fn replace(path: &Path, content: &[u8]) -> std::io::Result<()> {
    let target = follow_links(path)?;
    let dir = dir_of(&target);
    // Made with mode 0600.
    let mut beside = tempfile::Builder::new()
        .prefix(".imgfs-login-")
        .tempfile_in(dir)?;
    beside.write_all(content)?;
    // With sudo, the file stays its owner's.
    if let Ok(old) = target.metadata()
        && old.uid() != beside.as_file().metadata()?.uid()
    {
        std::os::unix::fs::fchown(beside.as_file(), Some(old.uid()), Some(old.gid()))?;
    }
    beside.as_file().sync_all()?;
    beside.persist(&target)?;
    Ok(())
}

/// Makes the directory for a file, for its owner alone.
fn make_dir(path: &Path) -> std::io::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    (builder.recursive(true).mode(0o700)).create(dir_of(&follow_links(path)?))
}

fn dir_of(path: &Path) -> &Path {
    match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    }
}

/// Keeps other logins and logouts of imgfs waiting, so that of two at one moment neither is lost.
/// It is the directory that is locked, as the file is replaced.
struct Lock(#[expect(dead_code, reason = "held, not used")] std::fs::File);

impl Lock {
    /// `None` where there is nothing to lock, or locks do not work as on some network filesystems:
    /// then the last one wins, as with the other tools.
    fn of(path: &Path) -> Option<Self> {
        let target = follow_links(path).ok()?;
        let dir = std::fs::File::open(dir_of(&target)).ok()?;
        rustix::fs::flock(&dir, rustix::fs::FlockOperation::LockExclusive).ok()?;
        Some(Self(dir))
    }
}

/// Where symbolic links lead in the end, whether there is a file or not.
fn follow_links(path: &Path) -> std::io::Result<PathBuf> {
    let mut path = path.to_owned();
    for _ in 0..MAX_LINKS {
        if !path.is_symlink() {
            return Ok(path);
        }
        let target = path.read_link()?;
        path = match path.parent() {
            Some(dir) => dir.join(target),
            None => target,
        };
    }
    Err(std::io::Error::other("too many symbolic links"))
}

#[cfg(test)]
#[path = "write_tests.rs"]
mod tests;
