//! What the mounts of a process share, and which there are.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::mounted::{Mounted, Shared};
use super::runtime_dir::{MountId, RuntimeDir};
use crate::image::Trees;
use crate::store::Cache;

/// What a [`super::Host`] has.
pub(super) struct Mounts {
    pub(super) cache: Arc<Cache>,
    pub(super) runtime_dir: RuntimeDir,
    pub(super) trees: Trees,
    running: Mutex<BTreeMap<MountId, Weak<Shared>>>,
}

impl Mounts {
    /// None yet.
    pub(super) fn new(cache: Arc<Cache>, runtime_dir: RuntimeDir) -> Self {
        Self {
            cache,
            runtime_dir,
            trees: Trees::default(),
            running: Mutex::default(),
        }
    }

    /// Those that are being served, in the order of their ids.
    pub(super) fn all(&self) -> Vec<Mounted> {
        let running = self.lock();
        let running = running.values().filter_map(Weak::upgrade);
        let mounts = running.map(Mounted::new);
        mounts.filter(|mounted| !mounted.has_ended()).collect()
    }

    /// The mount with this id, if it is being served.
    pub(super) fn get(&self, id: &MountId) -> Option<Mounted> {
        self.lock().get(id)?.upgrade().map(Mounted::new)
    }

    /// One more, unless it has ended already.
    pub(super) fn add(&self, mounted: &Mounted) {
        let id = mounted.id().clone();
        let mut running = self.lock();
        running.retain(|_, mounted| mounted.strong_count() > 0);
        running.insert(id, Arc::downgrade(mounted.shared()));
    }

    /// It has ended.
    pub(super) fn forget(&self, id: &MountId) {
        self.lock().remove(id);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<MountId, Weak<Shared>>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
