//! Where running mounts are found: their records, sockets and logs.
//!
//! ```text
//! DIR/ID.json   what is mounted: written once the mount is ready, removed at its end    (record)
//!     ID.sock   answers every connection with the mount's status as JSON                (status)
//!     ID.log    messages, where the serving process keeps them there
//! ```
//!
//! DIR is `/run/imgfs` for root, else `imgfs` in `$XDG_RUNTIME_DIR`, else a private directory below
//! `/tmp`. ID is a [`MountId`]; it says nothing about the process, which may have any number of
//! mounts.

use std::ffi::OsString;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

use crate::error::{EngineError, ErrorKind, Result, Within};
use crate::hint::Hint;

/// The directory of running mounts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuntimeDir(PathBuf);

/// Names a mount among all that run and ever ran.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct MountId(String);

impl MountId {
    /// A new one: 64 random bits as hex digits.
    pub(crate) fn new() -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        // Each state has keys of its own, which come from the system's randomness.
        let random = RandomState::new()
            .hash_one((std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed)));
        Self(format!("{random:016x}"))
    }

    /// One that stands in the name of a file.
    pub(super) fn named(name: &str) -> Self {
        Self(name.to_owned())
    }
}

impl fmt::Display for MountId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl RuntimeDir {
    /// This directory; it is made when it is needed.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self(dir.into())
    }

    /// The usual directory of this user, as the variables say that `variable` gives.
    pub fn from_env(variable: impl Fn(&str) -> Option<OsString>) -> Self {
        let uid = rustix::process::getuid();
        Self(match variable("XDG_RUNTIME_DIR") {
            _ if uid.is_root() => PathBuf::from("/run/imgfs"),
            Some(dir) if !dir.is_empty() => Path::new(&dir).join("imgfs"),
            _ => PathBuf::from(format!("/tmp/imgfs-{}", uid.as_raw())),
        })
    }

    /// The directory, made if it is missing: for nobody else, and nobody else's.
    pub(super) fn open(&self) -> Result<&Path> {
        use std::os::unix::fs::{DirBuilderExt, MetadataExt};
        let dir = &self.0;
        let mut builder = std::fs::DirBuilder::new();
        builder.recursive(true).mode(0o700);
        builder
            .create(dir)
            .within(|| format!("cannot create {}", dir.display()))?;
        let owner = std::fs::metadata(dir)
            .within(|| format!("cannot look at {}", dir.display()))?
            .uid();
        // Somebody else could have made a directory of that name below /tmp first.
        if owner != rustix::process::getuid().as_raw() {
            return Err(EngineError::with_hint(
                ErrorKind::Denied,
                format_args!("{} belongs to another user", dir.display()),
                Hint::RuntimeDir,
            ));
        }
        Ok(dir)
    }

    /// Where a mount's messages are kept, if the process that serves it keeps them.
    pub fn log(&self, id: &MountId) -> Result<PathBuf> {
        Ok(self.open()?.join(format!("{id}.log")))
    }

    pub(super) fn record(&self, id: &MountId) -> PathBuf {
        self.0.join(format!("{id}.json"))
    }

    pub(super) fn socket(&self, id: &MountId) -> PathBuf {
        self.0.join(format!("{id}.sock"))
    }

    /// Removes what a mount left, as far as it is there.
    pub(super) fn remove(&self, id: &MountId) {
        for ending in ["json", "sock", "log"] {
            let path = self.0.join(format!("{id}.{ending}"));
            if let Err(err) = std::fs::remove_file(&path)
                && err.kind() != std::io::ErrorKind::NotFound
            {
                tracing::debug!("cannot remove {}: {err}", path.display());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_mounts_have_one_id() {
        let ids: std::collections::HashSet<_> = (0..1000).map(|_| MountId::new()).collect();
        assert_eq!(ids.len(), 1000);
        assert!(ids.iter().all(|id| id.to_string().len() == 16));
    }
}
