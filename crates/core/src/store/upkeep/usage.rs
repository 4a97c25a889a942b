//! What the cache holds and how much of the disk that takes, for `imgfs cache df`.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::store::disk::{LayerFiles, Locked, UNFINISHED};
use crate::store::{Cache, Slot, StoreError};
use imgfs_formats::oci::Digest;

/// What a file in the cache is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Holding {
    /// Decoded bytes of a layer, or what belongs to them.
    Data(Slot),
    /// What is on its way to be that.
    Unfinished(Slot),
    /// A layer's index, or what was noted with it.
    Index(Digest),
    /// A manifest, a list of them, or a config.
    Document(Digest),
    /// What a name means, or which images there are.
    Record,
    /// Anything else: midstates, files of a process that was killed.
    Other,
}

/// One file in the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheFile {
    /// What it is.
    pub holding: Holding,
    /// Disk space, in bytes.
    pub on_disk: u64,
}

/// How much of a layer is here. Sizes in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LayerUsage {
    /// All of it, unpacked.
    pub unpacked: u64,
    /// What of that is in the cache.
    pub present: u64,
}

impl Cache {
    /// All files of the cache. Those that vanish meanwhile are left out.
    pub fn files(&self) -> Result<Vec<CacheFile>, StoreError> {
        let mut files = Vec::new();
        let mut pending = vec![self.root.clone()];
        while let Some(dir) = pending.pop() {
            for (_, path) in list(&dir)? {
                let Ok(metadata) = path.symlink_metadata() else {
                    continue;
                };
                if metadata.is_dir() {
                    pending.push(path);
                    continue;
                }
                files.push(CacheFile {
                    holding: self.holding(&path),
                    on_disk: metadata.blocks() * 512,
                });
            }
        }
        Ok(files)
    }

    /// The cache's directory with links resolved, to tell caches apart. Where it is no text it is
    /// something near to that.
    pub fn place(&self) -> String {
        let dir = self.root.parent().unwrap_or(&self.root);
        let dir = dir.canonicalize().unwrap_or_else(|_| dir.to_owned());
        dir.to_string_lossy().into_owned()
    }

    /// Whether a process has a layer open: mounts do as long as they last.
    pub fn is_in_use(&self, slot: &Slot) -> Result<bool, StoreError> {
        let used = Locked::in_use(vec![(slot.clone(), self.layer_dir(slot))])?;
        Ok(!used.is_empty())
    }

    /// How much of a layer is here; `None` without an index that says it. Must run on the runtime.
    pub async fn layer_usage(&self, slot: &Slot) -> Result<Option<LayerUsage>, StoreError> {
        let Some(index) = self.load_index(slot, false)? else {
            return Ok(None);
        };
        let dir = self.layer_dir(slot);
        let unpacked = index.spans.layer_size();
        let mut present = 0;
        if dir.is_dir() {
            let files = LayerFiles::open(&dir).await?;
            let marks = files.marks(index.spans.len());
            let marks = marks.map_err(StoreError::io("read", &dir))?;
            let marked = index.spans.iter().zip(marks).filter(|(_, mark)| *mark != 0);
            present = marked.map(|(span, _)| span.size() as u64).sum();
        }
        Ok(Some(LayerUsage { unpacked, present }))
    }

    fn holding(&self, path: &Path) -> Holding {
        let below = path.strip_prefix(&self.root).unwrap_or(path);
        let mut names = below.iter().map(|name| name.to_string_lossy());
        let (kind, algorithm, name, file) =
            (names.next(), names.next(), names.next(), names.next());
        let algorithm = algorithm.unwrap_or_default();
        let name = name.unwrap_or_default();
        let slot = |name: &str| Slot::parse(&algorithm, name);
        let holding = match kind.as_deref() {
            Some("layers") => slot(&name).map(|slot| match file {
                Some(file) if UNFINISHED.contains(&&*file) => Holding::Unfinished(slot),
                _ => Holding::Data(slot),
            }),
            Some("indexes") => {
                let stem = name.split('.').next().unwrap_or_default();
                slot(stem).map(|slot| Holding::Index(*slot.layer()))
            }
            Some("documents") => {
                let digest = format!("{algorithm}:{name}").parse();
                digest.ok().map(Holding::Document)
            }
            Some("refs") => algorithm.ends_with(".json").then_some(Holding::Record),
            Some("images") => Some(Holding::Record),
            _ => None,
        };
        holding.unwrap_or(Holding::Other)
    }

    /// The files right in a directory of the cache, by name.
    pub(in crate::store) fn files_in(
        &self,
        dir: &str,
    ) -> Result<Vec<(String, PathBuf)>, StoreError> {
        list(&self.root.join(dir))
    }

    /// The files in the directories by algorithm below one of the cache: algorithm, name and path.
    pub(in crate::store) fn files_by_algorithm(
        &self,
        dir: &str,
    ) -> Result<Vec<(String, String, PathBuf)>, StoreError> {
        let mut files = Vec::new();
        for (algorithm, path) in self.files_in(dir)? {
            if path.is_dir() {
                let below = list(&path)?.into_iter();
                files.extend(below.map(|(name, path)| (algorithm.clone(), name, path)));
            }
        }
        Ok(files)
    }
}

/// What is in a directory, by name; names that are no text are not ours. Nothing if it does not
/// exist.
fn list(dir: &Path) -> Result<Vec<(String, PathBuf)>, StoreError> {
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(err) if err.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(err) => return Err(StoreError::io("list", dir)(err)),
    };
    let mut files = Vec::new();
    for entry in entries {
        let entry = entry.map_err(StoreError::io("list", dir))?;
        if let Ok(name) = entry.file_name().into_string() {
            files.push((name, entry.path()));
        }
    }
    files.sort();
    Ok(files)
}
