//! The catalogue: which images the cache knows.
//!
//! ```text
//! images/ALGORITHM/HEX.json   an image, by its manifest's digest: [`ImageRecord`]
//! refs/HEX.json               a tag, and what it pointed to          (documents.rs)
//! lock                        shared: records an image; exclusive: removes (sweep.rs)
//! ```
//!
//! An image is recorded when it is resolved, by tag or digest, and stays known when its tag moves
//! on. A tag names those images among what its document lists that were recorded, or whose
//! manifests and configs are here: so caches from before there were records list by their tags,
//! too. Listing reads these small documents and looks at the layers' sizes, never at their bytes.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::documents::TagRecord;
use super::files::{Locked, disk_usage, publish, read_if_there};
use crate::source::ResolvedImage;
use crate::store::upkeep::list;
use crate::store::{Cache, Slot, StoreError};
use imgfs_formats::layer::LayerIndex;
use imgfs_formats::oci::{
    Descriptor, Digest, Document, ImageConfig, Manifest, MediaType, may_be_image,
};

/// An image used again within so many seconds is not written down again: a mount of a cached image
/// writes nothing.
const USE_RESOLUTION: u64 = 60 * 60;
/// References kept of one image, the latest: they only tell where an untagged image came from.
const MAX_REFERENCES: usize = 16;
/// Lists within lists.
const MAX_DEPTH: usize = 4;

/// An image that was resolved here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageRecord {
    /// Its manifest.
    pub manifest: Digest,
    /// Its config: Docker's image ID.
    pub config: Digest,
    /// The lists it was reached through.
    #[serde(default)]
    pub via: Vec<Digest>,
    /// What it was asked for as, normalised, the latest last.
    #[serde(default)]
    pub references: Vec<String>,
    /// When it was first resolved, in Unix seconds.
    pub first_seen: u64,
    /// When it was last resolved, within an hour, in Unix seconds.
    pub last_used: u64,
}

/// An image of which at least the manifest is here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownImage {
    /// Its manifest's digest.
    pub digest: Digest,
    /// What that says.
    pub manifest: Manifest,
    /// Its config, if that is here.
    pub config: Option<ImageConfig>,
    /// The tags that name it now.
    pub tags: Vec<TagRecord>,
    /// Its record; none in a cache from before there were records.
    pub record: Option<ImageRecord>,
}

/// Disk space of one layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LayerUse {
    /// Of its bytes and indexes, in bytes.
    pub disk: u64,
    /// The size of its uncompressed tar in bytes; `None` without an index.
    pub unpacked: Option<u64>,
}

impl Cache {
    /// Notes that an image was resolved as `reference`, and what that points to, if its source said
    /// so. A cache that cannot be written is no reason to fail.
    ///
    /// What a removal took away meanwhile, as nobody had recorded it yet, is written again. Of an
    /// image that is known this looks at four files and writes the tag alone.
    pub async fn record_image(
        &self,
        reference: &str,
        tag: Option<&Descriptor>,
        image: &ResolvedImage,
    ) {
        let Some((manifest, lists)) = image.chain.split_last() else {
            return;
        };
        let digest = manifest.descriptor.digest;
        let now = now();
        // Before looking: a removal under way could take what is found here.
        let lock = Locked::share(&self.removal_lock()).await;
        let known = self.image_record(&digest).ok().flatten();
        let is_new = known.is_none();
        let mut record = known.unwrap_or(ImageRecord {
            manifest: digest,
            config: image.manifest.config.digest,
            via: Vec::new(),
            references: Vec::new(),
            first_seen: now,
            last_used: now,
        });
        let mut changed = is_new;
        for list in lists {
            if !record.via.contains(&list.descriptor.digest) {
                record.via.push(list.descriptor.digest);
                changed = true;
            }
        }
        if !record.references.iter().any(|known| known == reference) {
            record.references.push(reference.to_owned());
            let surplus = record.references.len().saturating_sub(MAX_REFERENCES);
            record.references.drain(..surplus);
            changed = true;
        }
        if now.saturating_sub(record.last_used) >= USE_RESOLUTION {
            record.last_used = now;
            changed = true;
        }
        let documents = image.chain.iter().chain([&image.config_document]);
        let missing: Vec<_> = documents
            .map(|document| (self.document_path(&document.descriptor.digest), document))
            .filter(|(path, _)| !path.exists())
            .collect();
        let write = || -> Result<(), StoreError> {
            let _lock = lock?;
            if changed || !missing.is_empty() {
                for (path, document) in missing {
                    publish(&path, &document.body)?;
                }
                let json = serde_json::to_vec_pretty(&record).unwrap_or_default();
                publish(&self.image_path(&digest), &json)?;
            }
            match tag {
                Some(tag) => self.record_tag(reference, tag),
                None => Ok(()),
            }
        };
        if let Err(err) = write() {
            self.caching_failed(&err);
        }
    }

    /// Notes what `reference` points to, of which no image was made. Waits for a removal that is
    /// under way: it would take this for what the tag was before.
    pub async fn record_answer(&self, reference: &str, tag: &Descriptor) {
        let lock = Locked::share(&self.removal_lock()).await;
        let recorded = lock.and_then(|_lock| self.record_tag(reference, tag));
        if let Err(err) = recorded {
            self.caching_failed(&err);
        }
    }

    /// All images that are known here, by digest: those that were recorded, and of what tags lead
    /// to, what is here with its config. A manifest alone may have been looked at for what it says.
    pub fn images(&self) -> Result<Vec<KnownImage>, StoreError> {
        let mut images: BTreeMap<Digest, KnownImage> = BTreeMap::new();
        let records = self.image_records()?;
        let recorded: HashSet<Digest> = records.iter().map(|record| record.manifest).collect();
        for tag in self.tag_records()? {
            for (digest, manifest) in self.images_below(&tag.descriptor.digest)? {
                let config = self.document_path(&manifest.config.digest);
                if !recorded.contains(&digest) && !config.exists() {
                    continue;
                }
                let image = images.entry(digest).or_insert_with(|| KnownImage {
                    digest,
                    manifest,
                    config: None,
                    tags: Vec::new(),
                    record: None,
                });
                image.tags.push(tag.clone());
            }
        }
        for record in records {
            if let Some(image) = images.get_mut(&record.manifest) {
                image.record = Some(record);
            } else if let Some(manifest) = self.image_manifest(&record.manifest)? {
                let image = KnownImage {
                    digest: record.manifest,
                    manifest,
                    config: None,
                    tags: Vec::new(),
                    record: Some(record),
                };
                images.insert(image.digest, image);
            }
        }
        let mut images: Vec<_> = images.into_values().collect();
        for image in &mut images {
            let config = self.document(&image.manifest.config.digest)?;
            let layers = image.manifest.layers.len();
            image.config = config.and_then(|body| ImageConfig::parse(&body, layers).ok());
            image.tags.sort_by(|a, b| a.reference.cmp(&b.reference));
        }
        Ok(images)
    }

    /// Disk space of every layer of which anything is here.
    pub fn layer_uses(&self) -> Result<HashMap<Digest, LayerUse>, StoreError> {
        let mut uses: HashMap<Digest, LayerUse> = HashMap::new();
        for (slot, dir) in self.layers()? {
            uses.entry(*slot.layer()).or_default().disk += disk_usage(&dir);
        }
        for (slot, path) in self.index_files()? {
            let usage = uses.entry(*slot.layer()).or_default();
            usage.disk += blocks(&path);
            if path.extension().is_none() && (slot.is_own() || usage.unpacked.is_none()) {
                usage.unpacked = unpacked(&path).or(usage.unpacked);
            }
        }
        for (layer, path) in self.files_by_digest("midstates")? {
            uses.entry(layer).or_default().disk += blocks(&path);
        }
        Ok(uses)
    }

    /// All tags that are known. Damaged records count as none.
    pub fn tag_records(&self) -> Result<Vec<TagRecord>, StoreError> {
        let mut records = Vec::new();
        for path in list(&self.root.join("refs"))? {
            let bytes = read_if_there(&path)?.unwrap_or_default();
            let record: Option<TagRecord> = serde_json::from_slice(&bytes).ok();
            records.extend(record.filter(|record| self.tag_path(&record.reference) == path));
        }
        records.sort_by(|a, b| a.reference.cmp(&b.reference));
        Ok(records)
    }

    /// The records of images. Damaged ones count as none.
    pub fn image_records(&self) -> Result<Vec<ImageRecord>, StoreError> {
        let mut records = Vec::new();
        for algorithm in list(&self.root.join("images"))? {
            for path in list(&algorithm)? {
                let bytes = read_if_there(&path)?.unwrap_or_default();
                let record: Option<ImageRecord> = serde_json::from_slice(&bytes).ok();
                records.extend(record.filter(|record| self.image_path(&record.manifest) == path));
            }
        }
        Ok(records)
    }

    fn image_record(&self, manifest: &Digest) -> Result<Option<ImageRecord>, StoreError> {
        let bytes = read_if_there(&self.image_path(manifest))?;
        let record: Option<ImageRecord> = bytes.and_then(|b| serde_json::from_slice(&b).ok());
        Ok(record.filter(|record| record.manifest == *manifest))
    }

    /// The images, of those whose manifests are here, that a document is or lists.
    pub fn images_below(&self, root: &Digest) -> Result<Vec<(Digest, Manifest)>, StoreError> {
        let mut images = Vec::new();
        let mut seen = HashSet::new();
        let mut pending = vec![(*root, 0)];
        while let Some((digest, depth)) = pending.pop() {
            if !seen.insert(digest) {
                continue;
            }
            match self.parsed(&digest)? {
                Some(Document::Manifest(manifest)) if is_image(&manifest) => {
                    images.push((digest, manifest));
                }
                Some(Document::Index(index)) if depth < MAX_DEPTH => {
                    let entries = index.manifests.iter().filter(|entry| may_be_image(entry));
                    pending.extend(entries.map(|entry| (entry.digest, depth + 1)));
                }
                _ => {}
            }
        }
        Ok(images)
    }

    /// The manifest of an image, if it is here and is one.
    pub(in crate::store) fn image_manifest(
        &self,
        digest: &Digest,
    ) -> Result<Option<Manifest>, StoreError> {
        match self.parsed(digest)? {
            Some(Document::Manifest(manifest)) if is_image(&manifest) => Ok(Some(manifest)),
            _ => Ok(None),
        }
    }

    /// A document that is a manifest or a list.
    pub(in crate::store) fn parsed(&self, digest: &Digest) -> Result<Option<Document>, StoreError> {
        let body = self.document(digest)?;
        Ok(body.and_then(|body| Document::parse(&body, None).ok()))
    }

    /// Index files and what stands beside them, by slot.
    pub(in crate::store) fn index_files(&self) -> Result<Vec<(Slot, PathBuf)>, StoreError> {
        let mut files = Vec::new();
        for algorithm in list(&self.root.join("indexes"))? {
            let name = algorithm.file_name().unwrap_or_default().to_string_lossy();
            for path in list(&algorithm)? {
                let stem = path.file_stem().unwrap_or_default().to_string_lossy();
                files.extend(Slot::parse(&name, &stem).map(|slot| (slot, path.clone())));
            }
        }
        files.sort();
        Ok(files)
    }

    /// The files `KIND/ALGORITHM/HEX`.
    pub(in crate::store) fn files_by_digest(
        &self,
        kind: &str,
    ) -> Result<Vec<(Digest, PathBuf)>, StoreError> {
        let mut files = Vec::new();
        for algorithm in list(&self.root.join(kind))? {
            let name = algorithm.file_name().unwrap_or_default().to_string_lossy();
            for path in list(&algorithm)? {
                let hex = path.file_name().unwrap_or_default().to_string_lossy();
                let digest: Option<Digest> = format!("{name}:{hex}").parse().ok();
                files.extend(digest.map(|digest| (digest, path.clone())));
            }
        }
        files.sort();
        Ok(files)
    }

    pub(in crate::store) fn image_path(&self, manifest: &Digest) -> PathBuf {
        let mut path = self.by_digest("images", manifest);
        path.set_extension("json");
        path
    }

    pub(in crate::store) fn removal_lock(&self) -> PathBuf {
        self.root.join("lock")
    }
}

impl KnownImage {
    /// Docker's image ID: the config's digest.
    pub fn id(&self) -> &Digest {
        &self.manifest.config.digest
    }

    /// Its layers, each once, base first.
    pub fn layers(&self) -> Vec<&Descriptor> {
        let mut seen = HashSet::new();
        let layers = self.manifest.layers.iter();
        layers.filter(|blob| seen.insert(blob.digest)).collect()
    }
}

/// Disk space of a file in bytes; 0 if there is none.
pub(in crate::store) fn blocks(path: &std::path::Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    std::fs::symlink_metadata(path).map_or(0, |metadata| metadata.blocks() * 512)
}

/// Whether it is an image's, and not that of something else that has layers.
fn is_image(manifest: &Manifest) -> bool {
    manifest.config.kind() == MediaType::ImageConfig
}

/// What an index file says of its layer's size.
fn unpacked(path: &std::path::Path) -> Option<u64> {
    LayerIndex::layer_size_of(std::fs::File::open(path).ok()?).ok()
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}
