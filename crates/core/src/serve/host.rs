//! A process's mounts: any number of them over one cache. Images of the same layers share readers,
//! trees and connections.

use std::sync::Arc;

use super::mounted::Mounted;
use super::mounting::{MountRequest, Mounting};
use super::mounts::Mounts;
use super::runtime_dir::{MountId, RuntimeDir};
use crate::error::Result;
use crate::store::Cache;

/// The mounts of a process. Clones are the same host.
#[derive(Clone)]
pub struct Host(Arc<Mounts>);

impl Host {
    /// A host without mounts, over this cache. Other processes find its mounts by `runtime_dir`.
    pub fn new(cache: Arc<Cache>, runtime_dir: RuntimeDir) -> Self {
        Self(Arc::new(Mounts::new(cache, runtime_dir)))
    }

    /// Gets an image as far as it costs next to nothing: finds out which it is, and the indexes of
    /// its layers. Must run on a runtime, which serves the mount, too.
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
        self.0.all()
    }

    /// The mount with this id, if it is being served.
    pub fn get(&self, id: &MountId) -> Option<Mounted> {
        self.0.get(id)
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
