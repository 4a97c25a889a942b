//! A process's mounts: any number of them over one cache. Images of the same layers share readers, trees and connections.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::mounted::{Mounted, Shared};
use super::mounting::{MountRequest, Mounting};
use super::runtime_dir::{MountId, RuntimeDir};
use crate::error::Result;
use crate::image::Trees;
use crate::store::Cache;

/// The mounts of a process. Clones are the same host.
#[derive(Clone)]
pub struct Host(Arc<Inner>);

pub(super) struct Inner {
    pub(super) cache: Arc<Cache>,
    pub(super) runtime_dir: RuntimeDir,
    pub(super) trees: Trees,
    mounts: Mutex<BTreeMap<MountId, Weak<Shared>>>,
}

impl Host {
    /// A host without mounts, over this cache. Other processes find its mounts by `runtime_dir`.
    pub fn new(cache: Arc<Cache>, runtime_dir: RuntimeDir) -> Self {
        Self(Arc::new(Inner {
            cache,
            runtime_dir,
            trees: Trees::default(),
            mounts: Mutex::default(),
        }))
    }

    /// Gets an image as far as it costs next to nothing: finds out which it is, and the indexes of its layers. Must run on
    /// a runtime, which serves the mount, too.
    pub async fn prepare(&self, request: MountRequest) -> Result<Mounting> {
        // Large futures, as finding an image takes many steps.
        Box::pin(Mounting::prepare(Arc::clone(&self.0), request)).await
    }

    /// Mounts an image: [`Host::prepare`] and [`Mounting::start`] in one.
    pub async fn mount(&self, request: MountRequest) -> Result<Mounted> {
        let mounting = self.prepare(request).await?;
        Box::pin(mounting.start()).await
    }

    /// The mounts that are being served, in the order of their ids.
    pub fn mounts(&self) -> Vec<Mounted> {
        let mounts = self.0.lock();
        let running = mounts.values().filter_map(Weak::upgrade);
        running.map(Mounted::new).collect()
    }

    /// The mount with this id, if it is being served.
    pub fn get(&self, id: &MountId) -> Option<Mounted> {
        let mounts = self.0.lock();
        mounts.get(id)?.upgrade().map(Mounted::new)
    }

    /// The cache.
    pub fn cache(&self) -> &Arc<Cache> {
        &self.0.cache
    }

    /// Where other processes find the mounts.
    pub fn runtime_dir(&self) -> &RuntimeDir {
        &self.0.runtime_dir
    }
}

impl Inner {
    pub(super) fn add(&self, id: &MountId, mount: &Arc<Shared>) {
        self.lock().insert(id.clone(), Arc::downgrade(mount));
    }

    pub(super) fn forget(&self, id: &MountId) {
        self.lock().remove(id);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<MountId, Weak<Shared>>> {
        self.mounts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
