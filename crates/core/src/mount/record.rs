//! What is mounted: one record for each serving process, so that `ps`, `status` and `unmount` find it.
//!
//! ```text
//! RUNTIME/imgfs/PID.json   written once the mount is ready, removed at its end
//!               PID.sock   answers every connection with the mount's status as JSON
//!               PID.log    the daemon's messages
//! ```
//!
//! RUNTIME is `/run` for root, else `$XDG_RUNTIME_DIR`, else a private directory below `/tmp`. A record whose
//! process is gone is removed by whoever sees it.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context;
use serde::{Deserialize, Serialize};

use crate::store::Store;

/// How often to look whether a process has ended; it takes some ten milliseconds.
const POLL: Duration = Duration::from_millis(5);

/// One serving process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountRecord {
    /// Its process id.
    pub pid: u32,
    /// Where it is mounted: absolute, links resolved.
    pub mountpoint: PathBuf,
    /// The image, normalised.
    pub reference: String,
    /// Digest of the image's manifest.
    pub manifest: String,
    /// When the mount was ready, in Unix seconds.
    pub since: u64,
    /// The directory of its cache, links resolved; nothing from versions that did not say it.
    #[serde(default)]
    pub cache: Option<String>,
}

impl MountRecord {
    /// Writes it down.
    pub fn publish(&self) -> anyhow::Result<()> {
        let dir = runtime_dir()?;
        let path = dir.join(format!("{}.json", self.pid));
        let mut file = tempfile::NamedTempFile::new_in(&dir)
            .with_context(|| format!("cannot write {}", dir.display()))?;
        serde_json::to_writer(&mut file, self)?;
        file.persist(&path)
            .with_context(|| format!("cannot write {}", path.display()))?;
        Ok(())
    }

    /// Removes what the process left, as far as it is there.
    pub fn remove(pid: u32) {
        let Ok(dir) = runtime_dir() else { return };
        for ending in ["json", "sock", "log"] {
            let path = dir.join(format!("{pid}.{ending}"));
            if let Err(err) = std::fs::remove_file(&path)
                && err.kind() != std::io::ErrorKind::NotFound
            {
                tracing::debug!("cannot remove {}: {err}", path.display());
            }
        }
    }

    /// The socket that answers with the status.
    pub fn socket(pid: u32) -> anyhow::Result<PathBuf> {
        Ok(runtime_dir()?.join(format!("{pid}.sock")))
    }

    /// The daemon's messages.
    pub fn log(pid: u32) -> anyhow::Result<PathBuf> {
        Ok(runtime_dir()?.join(format!("{pid}.log")))
    }
}

impl MountRecord {
    /// Whether it reads this cache, as far as is known.
    pub fn uses(&self, store: &Store) -> bool {
        let is_it = |cache: &String| *cache == store.place();
        self.cache.as_ref().is_none_or(is_it)
    }

    /// Waits until the process has ended, so that its cache is free; says whether it did within `limit`.
    pub fn wait_for_end(&self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        while is_alive(self.pid) {
            if Instant::now() > deadline {
                return false;
            }
            std::thread::sleep(POLL);
        }
        true
    }
}

/// The living mounts of this user (all, for root's own), by mountpoint. Records of dead processes are removed.
pub fn records() -> anyhow::Result<Vec<MountRecord>> {
    let dir = runtime_dir()?;
    let mut records = Vec::new();
    for entry in
        std::fs::read_dir(&dir).with_context(|| format!("cannot list {}", dir.display()))?
    {
        let path = entry?.path();
        if path.extension().is_none_or(|ending| ending != "json") {
            continue;
        }
        // A file that vanished or is of another version is nobody's mount.
        let Ok(bytes) = std::fs::read(&path) else {
            continue;
        };
        let Ok(record) = serde_json::from_slice::<MountRecord>(&bytes) else {
            continue;
        };
        if is_alive(record.pid) {
            records.push(record);
        } else {
            MountRecord::remove(record.pid);
        }
    }
    records.sort_by(|a, b| a.mountpoint.cmp(&b.mountpoint));
    Ok(records)
}

/// Whether the process serves a mount: its socket takes connections. A pid alone may have been used again.
fn is_alive(pid: u32) -> bool {
    MountRecord::socket(pid).is_ok_and(|path| std::os::unix::net::UnixStream::connect(path).is_ok())
}

fn runtime_dir() -> anyhow::Result<PathBuf> {
    use std::os::unix::fs::{DirBuilderExt, MetadataExt};
    let uid = rustix::process::getuid();
    let base = match std::env::var_os("XDG_RUNTIME_DIR") {
        _ if uid.is_root() => Path::new("/run/imgfs").to_owned(),
        Some(dir) if !dir.is_empty() => Path::new(&dir).join("imgfs"),
        _ => PathBuf::from(format!("/tmp/imgfs-{}", uid.as_raw())),
    };
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true).mode(0o700);
    builder
        .create(&base)
        .with_context(|| format!("cannot create {}", base.display()))?;
    let owner = std::fs::metadata(&base)
        .with_context(|| format!("cannot look at {}", base.display()))?
        .uid();
    // Somebody else could have made a directory of that name below /tmp first.
    anyhow::ensure!(
        owner == uid.as_raw(),
        "{} belongs to another user: remove it or set XDG_RUNTIME_DIR",
        base.display()
    );
    Ok(base)
}
