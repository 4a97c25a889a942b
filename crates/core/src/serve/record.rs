//! What is mounted: one record for each mount, so that other processes find it. A record whose
//! mount nobody serves any more is removed by the next program that sees it.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::runtime_dir::{MountId, RuntimeDir};
use crate::error::{Result, Within};
use crate::store::Cache;

/// How often to look whether a mount has ended; it takes some ten milliseconds.
const POLL: Duration = Duration::from_millis(5);

/// One mount.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountRecord {
    /// Its id; empty from versions that named records by their process.
    #[serde(default)]
    pub id: MountId,
    /// The process that serves it.
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

/// A mount that runs, and its record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunningMount {
    /// What is mounted where.
    pub record: MountRecord,
    dir: RuntimeDir,
}

impl MountRecord {
    /// Writes it down.
    pub(super) fn publish(&self, dir: &RuntimeDir) -> Result<()> {
        let place = dir.open()?;
        let mut file = tempfile::NamedTempFile::new_in(place)
            .within(|| format!("cannot write {}", place.display()))?;
        serde_json::to_writer(&mut file, self)?;
        let path = dir.record(&self.id);
        (file.persist(&path).map_err(|err| err.error))
            .within(|| format!("cannot write {}", path.display()))?;
        Ok(())
    }

    /// Whether it reads this cache, as far as is known.
    pub fn uses(&self, cache: &Cache) -> bool {
        let is_it = |place: &String| *place == cache.place();
        self.cache.as_ref().is_none_or(is_it)
    }
}

impl RunningMount {
    /// Waits until nobody serves it any more, so that its cache is free; says whether that is so
    /// within `limit`. Blocks the thread.
    pub fn wait_for_end(&self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        while self.is_served() {
            if Instant::now() > deadline {
                return false;
            }
            std::thread::sleep(POLL);
        }
        true
    }

    /// The socket that answers with its status.
    pub(super) fn socket(&self) -> PathBuf {
        self.dir.socket(&self.record.id)
    }

    /// Whether its socket takes connections. A process id alone may have been used again.
    fn is_served(&self) -> bool {
        std::os::unix::net::UnixStream::connect(self.socket()).is_ok()
    }
}

/// The mounts that run, of this user, by mountpoint. Records of mounts that nobody serves are
/// removed.
pub fn running_mounts(dir: &RuntimeDir) -> Result<Vec<RunningMount>> {
    let place = dir.open()?;
    let cannot_list = || format!("cannot list {}", place.display());
    let mut mounts = Vec::new();
    for entry in std::fs::read_dir(place).within(cannot_list)? {
        let path = entry.within(cannot_list)?.path();
        if path.extension().is_none_or(|ending| ending != "json") {
            continue;
        }
        // A file that vanished or is of another version is nobody's mount.
        let Some(name) = path.file_stem().and_then(|name| name.to_str()) else {
            continue;
        };
        let Ok(bytes) = std::fs::read(&path) else {
            continue;
        };
        let Ok(mut record) = serde_json::from_slice::<MountRecord>(&bytes) else {
            continue;
        };
        record.id = MountId::named(name);
        let mount = RunningMount {
            record,
            dir: dir.clone(),
        };
        if mount.is_served() {
            mounts.push(mount);
        } else {
            dir.remove(&mount.record.id);
        }
    }
    mounts.sort_by(|one, other| one.record.mountpoint.cmp(&other.record.mountpoint));
    Ok(mounts)
}
