//! Eviction: keeping the decoded bytes within the cache's limit.
//!
//! The least recently used spans go first. A layer that is open anywhere is left alone (it holds a
//! shared lock); indexes and manifests are small and stay, so an evicted image still mounts at once
//! and fetches what it reads.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use rustix::fs::statvfs;

use crate::store::disk::{EvictableLayer, disk_usage};
use crate::store::{Cache, Slot, StoreError};
use imgfs_formats::layer::LayerIndex;
use imgfs_formats::oci::Digest;

/// Default space for decoded layer bytes: 20 GiB, a few dozen images.
pub const DEFAULT_LIMIT: u64 = 20 << 30;

/// What an eviction did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Evicted {
    /// Disk space freed, in bytes.
    pub bytes: u64,
    /// Layers that lost data.
    pub layers: usize,
    /// Layers left alone because they are in use.
    pub in_use: usize,
}

impl Cache {
    /// Drops the decoded bytes of all layers that are not in use; keeps indexes and manifests.
    pub fn evict_all(&self) -> Result<Evicted, StoreError> {
        self.evict_data(|_| true)
    }

    /// The same for these layers alone.
    pub fn evict_layers(&self, layers: &[Digest]) -> Result<Evicted, StoreError> {
        self.evict_data(|layer| layers.contains(layer))
    }

    fn evict_data(&self, is_meant: impl Fn(&Digest) -> bool) -> Result<Evicted, StoreError> {
        let mut evicted = Evicted::default();
        for (slot, dir) in self.layers()? {
            if !is_meant(slot.layer()) {
                continue;
            }
            let before = disk_usage(&dir);
            if before == 0 {
                continue;
            }
            let Some(layer) = EvictableLayer::try_open(&dir)? else {
                evicted.in_use += 1;
                continue;
            };
            layer.evict_all().map_err(StoreError::io("empty", &dir))?;
            evicted.bytes += before.saturating_sub(disk_usage(&dir));
            evicted.layers += 1;
        }
        Ok(evicted)
    }

    /// Disk space that decoded bytes take now.
    pub fn data_usage(&self) -> Result<u64, StoreError> {
        Ok(self.layers()?.iter().map(|(_, dir)| disk_usage(dir)).sum())
    }

    /// Brings the decoded bytes below the limit, as far as they are not in use. Does nothing while
    /// another thread of this process is at it: of many mounts that begin together one looks at the
    /// disk.
    pub fn enforce_limit(&self) -> Result<Evicted, StoreError> {
        match self.enforcing.try_lock() {
            Ok(_enforcing) => self.evict_down_to(self.limit),
            Err(_) => Ok(Evicted::default()),
        }
    }

    /// Makes room for so many bytes more, or says why it cannot be had; then nothing is evicted.
    pub(in crate::store) fn make_room(&self, bytes: u64) -> Result<Result<(), String>, StoreError> {
        let mut in_use = 0;
        for (_, dir) in self.layers()? {
            let used = disk_usage(&dir);
            if used > 0 && EvictableLayer::try_open(&dir)?.is_none() {
                in_use += used;
            }
        }
        let room = self.limit.saturating_sub(in_use);
        if bytes > room {
            return Ok(Err(format!(
                "it takes {bytes} bytes, and the cache's limit leaves {room} beside what is in use: raise the limit"
            )));
        }
        self.evict_down_to(self.limit - bytes)?;
        let disk =
            statvfs(&self.root).map_err(|err| StoreError::io("look at", &self.root)(err.into()))?;
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        if bytes > free {
            return Ok(Err(format!(
                "it takes {bytes} bytes, and the disk has {free} free"
            )));
        }
        Ok(Ok(()))
    }

    /// Brings the decoded bytes below `limit`, as far as they are not in use.
    fn evict_down_to(&self, limit: u64) -> Result<Evicted, StoreError> {
        let mut evicted = self.drop_useless()?;
        let mut excess = self.data_usage()?.saturating_sub(limit);
        if excess == 0 {
            return Ok(evicted);
        }
        let mut dirs = Vec::new();
        let mut spans = Vec::new();
        for (slot, dir) in self.layers()? {
            let before = disk_usage(&dir);
            if before == 0 {
                continue;
            }
            let Some(layer) = EvictableLayer::try_open(&dir)? else {
                evicted.in_use += 1;
                continue;
            };
            // Opening took away what a killed first contact left.
            let left = before.saturating_sub(disk_usage(&dir));
            evicted.bytes += left;
            excess = excess.saturating_sub(left);
            let Some(LayerIndex { spans: table, .. }) = self.load_index(&slot, false)? else {
                // Bytes without an index are of no use: what a killed first contact left behind.
                let before = disk_usage(&dir);
                layer.evict_all().map_err(StoreError::io("empty", &dir))?;
                evicted.bytes += before;
                evicted.layers += 1;
                excess = excess.saturating_sub(before);
                continue;
            };
            let marks = layer.marks().map_err(StoreError::io("read", &dir))?;
            for (id, (span, mark)) in table.iter().zip(marks).enumerate() {
                if mark != 0 {
                    let range = span.uncompressed.clone();
                    spans.push((mark, dirs.len(), id, range));
                }
            }
            dirs.push(dir);
        }
        spans.sort_by_key(|(mark, layer, id, _)| (*mark, *layer, *id));
        // Layer by layer, as a cache has more of them than a process may have files open.
        let mut going: BTreeMap<usize, Vec<Unused>> = BTreeMap::new();
        for (mark, layer, id, range) in spans {
            if excess == 0 {
                break;
            }
            excess = excess.saturating_sub(range.end - range.start);
            let unused = Unused { id, mark, range };
            going.entry(layer).or_default().push(unused);
        }
        for (layer, dir) in dirs.iter().enumerate() {
            let Some(spans) = going.get(&layer) else {
                continue;
            };
            let bytes = evict_spans(dir, spans)?;
            evicted.layers += usize::from(bytes.is_some_and(|bytes| bytes > 0));
            evicted.in_use += usize::from(bytes.is_none());
            evicted.bytes += bytes.unwrap_or(0);
        }
        Ok(evicted)
    }

    /// Drops what was fetched by indexes that were found and are not used any more: they were
    /// refused, or the layer has an index of its own now. Not what is in use.
    fn drop_useless(&self) -> Result<Evicted, StoreError> {
        let mut dropped = Evicted::default();
        for (slot, dir) in self.layers()? {
            let is_useful =
                slot.is_own() || (self.index_path(&slot).exists() && !self.has_index(slot.layer()));
            if is_useful {
                continue;
            }
            let before = disk_usage(&dir);
            if before == 0 {
                continue;
            }
            let Some(layer) = EvictableLayer::try_open(&dir)? else {
                continue;
            };
            layer.evict_all().map_err(StoreError::io("empty", &dir))?;
            dropped.bytes += before;
            dropped.layers += 1;
        }
        Ok(dropped)
    }

    /// All layers with files here.
    pub(in crate::store) fn layers(&self) -> Result<Vec<(Slot, PathBuf)>, StoreError> {
        let root = self.root.join("layers");
        let mut layers = Vec::new();
        for algorithm in list(&root)? {
            for dir in list(&algorithm)? {
                let name = |path: &PathBuf| {
                    path.file_name()
                        .map(|name| name.to_string_lossy().into_owned())
                };
                let (algorithm, name) = (name(&algorithm), name(&dir));
                // Anything else is not ours.
                if let Some(slot) = algorithm
                    .zip(name)
                    .and_then(|(algorithm, name)| Slot::parse(&algorithm, &name))
                {
                    layers.push((slot, dir));
                }
            }
        }
        layers.sort();
        Ok(layers)
    }
}

/// A span that was not used for long.
struct Unused {
    id: usize,
    /// When it was used, as its layer noted it.
    mark: u32,
    range: Range<u64>,
}

/// Drops spans of the layer in `dir`, but for those that were used meanwhile. How many bytes that
/// freed; `None` if somebody uses the layer.
fn evict_spans(dir: &Path, spans: &[Unused]) -> Result<Option<u64>, StoreError> {
    let Some(layer) = EvictableLayer::try_open(dir)? else {
        return Ok(None);
    };
    let marks = layer.marks().map_err(StoreError::io("read", dir))?;
    let mut bytes = 0;
    for Unused { id, mark, range } in spans {
        if marks.get(*id) == Some(mark) {
            (layer.evict(*id, range)).map_err(StoreError::io("free a part of", dir))?;
            bytes += range.end - range.start;
        }
    }
    Ok(Some(bytes))
}

pub(in crate::store) fn list(dir: &Path) -> Result<Vec<PathBuf>, StoreError> {
    match std::fs::read_dir(dir) {
        Ok(entries) => entries
            .map(|entry| entry.map(|entry| entry.path()))
            .collect::<Result<_, _>>()
            .map_err(StoreError::io("list", dir)),
        Err(err) if err.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(err) => Err(StoreError::io("list", dir)(err)),
    }
}
