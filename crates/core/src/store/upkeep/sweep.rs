//! Removal: names and images first, then whatever nothing refers to any more.
//!
//! A [`Removal`] decides everything before anything is touched, which makes a [`Plan`], a list of
//! steps that each take one name away. They are in an order in which an end at any moment leaves a
//! cache that works, and leftovers that the next removal of everything finds:
//!
//! ```text
//! 1  tags              then the images are untagged
//! 2  records, then manifests, of the images that go
//! 3  layer by layer: its indexes, its midstates; its directories move to `trash`, each whole
//! 4  documents         lists, configs, manifests that nothing names
//! 5  trash             without any lock
//! ```
//!
//! What is kept is found from what refers to it: tag records and image records name documents,
//! lists name manifests, manifests name configs and layers. What another process does at the same
//! time is safe because of two locks:
//!
//! - `CACHE/v1/lock`. A removal has it alone from looking to step 4. A process that resolves an
//!   image writes its documents at any time, but records it and its tag under the shared lock and
//!   then looks that its documents are still here. So either the removal sees the record, or the
//!   record's writer sees what the removal took and writes it again. It is held for disk work only,
//!   never for the network.
//! - `layers/ALGORITHM/SLOT/lock`. A mount, a first contact, a pull or a command that has a layer
//!   open shares it. A layer is removed with all of its slots locked alone, or not at all: then it
//!   stays, indexes and all, for the next removal. One layer is locked at a time, when its turn
//!   comes: caches have more of them than a process may have files open. A process that waited for
//!   a lock that was removed meanwhile sees that its file has no name any more, and begins anew
//!   (files.rs).

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::evict::list;
use crate::store::disk::{KnownImage, Locked, NEW_DATA, TagRecord, blocks};
use crate::store::{Cache, StoreError};
use imgfs_formats::oci::{Digest, Document};

/// How old a file must be that somebody wrote beside its place and never moved there: writing one
/// takes a moment.
const UNFINISHED_AGE: Duration = Duration::from_secs(60 * 60);
/// How their names begin (the tempfile crate's).
const UNFINISHED_PREFIX: &str = ".tmp";

/// What is to be removed. As long as it lives nobody else removes anything, and no image is
/// recorded.
pub struct Removal<'a> {
    store: &'a Cache,
    lock: Locked,
    tags: HashSet<String>,
    images: Vec<KnownImage>,
}

/// What a removal does, in order.
pub struct Plan<'a> {
    store: &'a Cache,
    /// Released when the last step is done.
    lock: Locked,
    parts: Vec<Part>,
    /// What is removed by any of them.
    removed: HashSet<PathBuf>,
    /// Names in the trash that were taken or looked at.
    discarded: usize,
}

/// Steps that are taken together, or not at all.
#[derive(Default)]
struct Part {
    /// Directories of layers that nobody may use meanwhile.
    locked: Vec<PathBuf>,
    /// The layer that is gone with it.
    layer: Option<Digest>,
    steps: Vec<Step>,
    /// Disk space that this frees, in bytes.
    bytes: u64,
}

/// One name to take away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// A file goes.
    Remove(PathBuf),
    /// A directory moves to the trash, whole.
    Discard {
        /// The directory.
        dir: PathBuf,
        /// Its place in the trash.
        to: PathBuf,
    },
}

/// What a removal did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Swept {
    /// Layers that are gone.
    pub layers: Vec<Digest>,
    /// Disk space freed, in bytes.
    pub bytes: u64,
    /// Layers that nothing refers to, but somebody has open.
    pub in_use: usize,
}

/// What is referred to.
#[derive(Default)]
struct Marked {
    documents: HashSet<Digest>,
    layers: HashSet<Digest>,
}

impl Cache {
    /// Begins to remove. Waits for others who remove or record, which is a matter of moments.
    pub fn removal(&self) -> Result<Removal<'_>, StoreError> {
        Ok(Removal {
            store: self,
            lock: Locked::take_now(&self.removal_lock())?,
            tags: HashSet::new(),
            images: Vec::new(),
        })
    }

    /// The layers that somebody has open: a mount, a first contact, a pull, a command, here or in
    /// another process.
    pub fn layers_in_use(&self) -> Result<HashSet<Digest>, StoreError> {
        let used = Locked::in_use(self.layers()?)?;
        Ok(used.iter().map(|(slot, _)| *slot.layer()).collect())
    }
}

impl<'a> Removal<'a> {
    /// A tag goes.
    pub fn untag(&mut self, tag: &TagRecord) {
        self.tags.insert(tag.reference.clone());
    }

    /// An image goes; its tags are gone already or stay without it.
    pub fn forget(&mut self, image: KnownImage) {
        self.images.push(image);
    }

    /// Decides what that takes: what only the images that go refer to, or, with `everything`, all
    /// that nothing refers to, and what was left unfinished.
    pub fn plan(self, everything: bool) -> Result<Plan<'a>, StoreError> {
        let Self {
            store,
            lock,
            tags,
            images,
        } = self;
        let mut plan = Plan {
            store,
            lock,
            parts: Vec::new(),
            removed: HashSet::new(),
            discarded: 0,
        };
        let mut names = Part::default();
        for tag in &tags {
            plan.remove(&mut names, store.tag_path(tag));
        }
        for image in &images {
            plan.remove(&mut names, store.image_path(&image.digest));
            plan.remove(&mut names, store.document_path(&image.digest));
        }
        plan.parts.push(names);
        let marked = store.marked(&tags, &images)?;
        let scope = if everything {
            None
        } else {
            Some(store.below(&images)?)
        };
        let in_scope = |digests: fn(&Marked) -> &HashSet<Digest>, digest: &Digest| {
            !digests(&marked).contains(digest)
                && scope
                    .as_ref()
                    .is_none_or(|scope| digests(scope).contains(digest))
        };
        plan.add_layers(&|layer| in_scope(|marked| &marked.layers, layer))?;
        let mut documents = Part::default();
        for (digest, path) in store.files_by_digest("documents")? {
            let goes = in_scope(|marked| &marked.documents, &digest);
            if goes && !store.belongs_to_marked(&digest, &marked) {
                plan.remove(&mut documents, path);
            }
        }
        plan.parts.push(documents);
        if everything {
            plan.add_unfinished(&marked)?;
        }
        Ok(plan)
    }
}

impl Plan<'_> {
    /// The steps.
    pub fn steps(&self) -> Vec<Step> {
        let steps = self.parts.iter().flat_map(|part| &part.steps);
        steps.cloned().collect()
    }

    /// Takes them, but for those of layers that somebody uses, and empties the trash.
    pub fn run(self) -> Result<Swept, StoreError> {
        let mut swept = Swept::default();
        for part in &self.parts {
            let mut locks = Vec::new();
            for dir in &part.locked {
                locks.extend(Locked::try_take_layer_twice(dir)?);
            }
            if locks.len() < part.locked.len() {
                swept.in_use += usize::from(part.layer.is_some());
                continue;
            }
            for step in &part.steps {
                step.run()?;
            }
            swept.layers.extend(part.layer);
            swept.bytes += part.bytes;
        }
        drop(self.lock);
        self.store.empty_trash()?;
        Ok(swept)
    }

    fn remove(&mut self, part: &mut Part, path: PathBuf) {
        if path.exists() && self.removed.insert(path.clone()) {
            part.bytes += blocks(&path);
            part.steps.push(Step::Remove(path));
        }
    }

    /// Layers that go, unless somebody uses them then.
    fn add_layers(&mut self, goes: &dyn Fn(&Digest) -> bool) -> Result<(), StoreError> {
        let mut layers: BTreeMap<Digest, (Vec<PathBuf>, Vec<PathBuf>)> = BTreeMap::new();
        for (slot, path) in self.store.index_files()? {
            layers.entry(*slot.layer()).or_default().0.push(path);
        }
        for (layer, path) in self.store.files_by_digest("midstates")? {
            layers.entry(layer).or_default().0.push(path);
        }
        for (slot, dir) in self.store.layers()? {
            layers.entry(*slot.layer()).or_default().1.push(dir);
        }
        for (layer, (files, dirs)) in layers {
            if !goes(&layer) {
                continue;
            }
            let mut part = Part {
                locked: dirs.clone(),
                layer: Some(layer),
                ..Part::default()
            };
            for file in files {
                self.remove(&mut part, file);
            }
            for dir in dirs {
                self.discard(&mut part, dir)?;
            }
            self.parts.push(part);
        }
        Ok(())
    }

    fn discard(&mut self, part: &mut Part, dir: PathBuf) -> Result<(), StoreError> {
        let trash = self.store.trash();
        fs::create_dir_all(&trash).map_err(StoreError::io("create", &trash))?;
        part.bytes += list(&dir)?.iter().map(|path| blocks(path)).sum::<u64>();
        // A process of the same number may have been killed and left something.
        let to = loop {
            let to = trash.join(format!("{}-{}", std::process::id(), self.discarded));
            self.discarded += 1;
            if !to.exists() {
                break to;
            }
        };
        part.steps.push(Step::Discard { dir, to });
        Ok(())
    }

    /// Records that are damaged or whose image is not here, files that were never moved to their
    /// places, and what first contacts that were killed left of layers that stay. What a pull or a
    /// proof can go on with stays, too.
    fn add_unfinished(&mut self, marked: &Marked) -> Result<(), StoreError> {
        let store = self.store;
        let tags = store.tag_records()?;
        let tags: HashSet<_> = (tags.iter())
            .map(|tag| store.tag_path(&tag.reference))
            .collect();
        let mut images = HashSet::new();
        for record in store.image_records()? {
            if store.image_manifest(&record.manifest)?.is_some() {
                images.insert(store.image_path(&record.manifest));
            }
        }
        let mut files = list(&store.root.join("refs"))?;
        for kind in ["images", "documents", "indexes", "midstates", "layers"] {
            for algorithm in list(&store.root.join(kind))? {
                files.extend(list(&algorithm)?);
            }
        }
        for (_, dir) in store.layers()? {
            files.extend(list(&dir)?);
        }
        let mut useless = Part::default();
        for path in files {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let is_record = path.extension().is_some_and(|ending| ending == "json")
                && (path.starts_with(store.root.join("refs"))
                    || path.starts_with(store.root.join("images")));
            let is_useless = is_record && !tags.contains(&path) && !images.contains(&path);
            let is_unfinished = name.starts_with(UNFINISHED_PREFIX) && is_old(&path);
            if is_useless || is_unfinished {
                self.remove(&mut useless, path);
            }
        }
        self.parts.push(useless);
        for (slot, dir) in store.layers()? {
            let new_data = dir.join(NEW_DATA);
            if marked.layers.contains(slot.layer()) && new_data.exists() {
                // Who is at it has the layer open.
                let mut part = Part {
                    locked: vec![dir],
                    ..Part::default()
                };
                self.remove(&mut part, new_data);
                self.parts.push(part);
            }
        }
        Ok(())
    }
}

impl Step {
    /// Takes it. What is gone already is no fault.
    pub fn run(&self) -> Result<(), StoreError> {
        let (done, path) = match self {
            Self::Remove(path) => (fs::remove_file(path), path),
            Self::Discard { dir, to } => (fs::rename(dir, to), dir),
        };
        if_there(done).map_err(StoreError::io("remove", path))
    }
}

impl Cache {
    /// What is referred to when these tags and images are gone.
    fn marked(&self, tags: &HashSet<String>, images: &[KnownImage]) -> Result<Marked, StoreError> {
        let gone: HashSet<Digest> = images.iter().map(|image| image.digest).collect();
        let mut pending = Vec::new();
        for tag in self.tag_records()? {
            if !tags.contains(&tag.reference) {
                pending.push(tag.descriptor.digest);
            }
        }
        for record in self.image_records()? {
            if !gone.contains(&record.manifest) {
                pending.push(record.manifest);
                pending.extend(record.via);
            }
        }
        let mut marked = Marked::default();
        while let Some(digest) = pending.pop() {
            if gone.contains(&digest) || !marked.documents.insert(digest) {
                continue;
            }
            match self.parsed(&digest)? {
                Some(Document::Manifest(manifest)) => {
                    marked.documents.insert(manifest.config.digest);
                    let layers = manifest.layers.iter();
                    marked.layers.extend(layers.map(|blob| blob.digest));
                }
                Some(Document::Index(index)) => {
                    pending.extend(index.manifests.iter().map(|entry| entry.digest));
                }
                None => {}
            }
        }
        Ok(marked)
    }

    /// What images refer to, and the manifests beside them in their lists: somebody may have looked
    /// at those.
    fn below(&self, images: &[KnownImage]) -> Result<Marked, StoreError> {
        let mut below = Marked::default();
        for image in images {
            below.documents.extend([image.digest, *image.id()]);
            let via = image.record.iter().flat_map(|record| &record.via);
            let roots = image.tags.iter().map(|tag| &tag.descriptor.digest);
            for list in via.chain(roots) {
                if below.documents.insert(*list)
                    && let Some(Document::Index(index)) = self.parsed(list)?
                {
                    let listed = index.manifests.iter().map(|entry| entry.digest);
                    below.documents.extend(listed);
                }
            }
            let layers = image.manifest.layers.iter();
            below.layers.extend(layers.map(|blob| blob.digest));
        }
        Ok(below)
    }

    /// Whether a document says that it belongs to one that stays, as artifacts beside an image do.
    fn belongs_to_marked(&self, digest: &Digest, marked: &Marked) -> bool {
        #[derive(serde::Deserialize)]
        struct Artifact {
            subject: Subject,
        }
        #[derive(serde::Deserialize)]
        struct Subject {
            digest: Digest,
        }
        let body = self.document(digest).ok().flatten();
        let artifact: Option<Artifact> = body.and_then(|body| serde_json::from_slice(&body).ok());
        artifact.is_some_and(|artifact| marked.documents.contains(&artifact.subject.digest))
    }

    fn trash(&self) -> PathBuf {
        self.root.join("trash")
    }

    /// Frees what was discarded, by this process or by one that was killed.
    fn empty_trash(&self) -> Result<(), StoreError> {
        for dir in list(&self.trash())? {
            // Somebody else may be at it, too.
            if_there(fs::remove_dir_all(&dir)).map_err(StoreError::io("remove", &dir))?;
        }
        Ok(())
    }
}

fn if_there(result: std::io::Result<()>) -> std::io::Result<()> {
    match result {
        Err(err) if err.kind() != std::io::ErrorKind::NotFound => Err(err),
        _ => Ok(()),
    }
}

fn is_old(path: &Path) -> bool {
    let written = fs::metadata(path).and_then(|metadata| metadata.modified());
    let age = written.map(|written| SystemTime::now().duration_since(written));
    age.is_ok_and(|age| age.is_ok_and(|age| age > UNFINISHED_AGE))
}
