//! Checking what is written down of names and images, and the documents that they speak of.

use std::path::Path;
use std::time::UNIX_EPOCH;

use crate::store::disk::{ImageRecord, Locked, TagRecord, publish, read_if_there, remove_if_there};
use crate::store::{Cache, StoreError};
use imgfs_formats::oci::{Descriptor, Digest, Document, MAX_CONFIG_SIZE, Reference};

/// What came of checking a cached name.
#[derive(Debug)]
pub enum NameCheck {
    /// It is right, whether what it points to is here or not.
    Right(Box<TagRecord>),
    /// It is right but for the size of what it points to, which is here; this is it with the right
    /// one.
    WrongSize(Box<TagRecord>),
    /// It cannot be read.
    Damaged {
        /// Name of its file.
        file: String,
        /// The reference, if that can still be read.
        reference: Option<String>,
    },
}

/// What came of checking a cached document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DocumentCheck {
    /// The digest that it has to have.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// Whether it has it.
    pub is_right: bool,
}

/// What came of checking the record of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageCheck {
    /// It; where it cannot be read, as much of it as can: its config may be anything then.
    pub record: ImageRecord,
    /// Whether it can be read.
    pub is_readable: bool,
}

/// What came of comparing the record of an image with its manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImageMended {
    /// It was right.
    Right,
    /// It is now.
    Repaired,
    /// It cannot be read, and there is no manifest to make it anew from.
    NoManifest,
}

impl Cache {
    /// Checks all names. Damaged ones stay as they are: nobody believes them.
    pub fn check_names(&self) -> Result<Vec<NameCheck>, StoreError> {
        let mut checked = Vec::new();
        for (file, path) in self.files_in("refs")? {
            if file.strip_suffix(".json").is_some() {
                checked.extend(self.check_name(file, &path)?);
            }
        }
        Ok(checked)
    }

    /// Checks a name; `None` if it is gone.
    fn check_name(&self, file: String, path: &Path) -> Result<Option<NameCheck>, StoreError> {
        let Some(bytes) = read_if_there(path)? else {
            return Ok(None);
        };
        let hash = file.trim_end_matches(".json");
        let is_at_home = |text: &str| Digest::sha256(text.as_bytes()).hex() == hash;
        let record: Option<TagRecord> = serde_json::from_slice(&bytes).ok();
        if let Some(record) = record.filter(|record| is_at_home(&record.reference)) {
            return Ok(Some(self.with_right_size(record)));
        }
        // The name of the file tells which of the strings in it is the reference, if that is
        // intact.
        let text = String::from_utf8_lossy(&bytes);
        let reference = text.split('"').find(|part| is_at_home(part));
        let reference = reference.map(str::to_owned);
        Ok(Some(NameCheck::Damaged { file, reference }))
    }

    /// Its document decides: that has a digest.
    fn with_right_size(&self, mut record: TagRecord) -> NameCheck {
        // Of a name that was given with a digest the size may not be known.
        let said = record.descriptor.size;
        let body = (said != Descriptor::UNKNOWN_SIZE)
            .then(|| self.document(&record.descriptor.digest).ok().flatten());
        match body.flatten().map(|body| body.len() as u64) {
            Some(size) if size != said => {
                record.descriptor.size = size;
                NameCheck::WrongSize(Box::new(record))
            }
            _ => NameCheck::Right(Box::new(record)),
        }
    }

    /// Writes a name down as it was checked.
    pub fn rewrite_name(&self, record: &TagRecord) -> Result<(), StoreError> {
        let json = serde_json::to_vec_pretty(record).unwrap_or_default();
        publish(&self.tag_path(&record.reference), &json)
    }

    /// Forgets a name, if it is damaged still.
    pub fn drop_name(&self, file: &str) -> Result<bool, StoreError> {
        let path = self.root.join("refs").join(file);
        let checked = self.check_name(file.to_owned(), &path)?;
        if !matches!(checked, None | Some(NameCheck::Damaged { .. })) {
            return Ok(false);
        }
        remove_if_there(&path).map_err(StoreError::io("remove", &path))?;
        Ok(true)
    }

    /// Whether there is a file for a name, right or not.
    pub fn has_name(&self, reference: &str) -> bool {
        self.tag_path(reference).exists()
    }

    /// Checks all manifests, lists of them and configs. Damaged ones stay as they are: nobody
    /// believes them.
    pub fn check_documents(&self) -> Result<Vec<DocumentCheck>, StoreError> {
        let mut checked = Vec::new();
        for (algorithm, file, path) in self.files_by_algorithm("documents")? {
            let Ok(digest) = format!("{algorithm}:{file}").parse::<Digest>() else {
                continue;
            };
            let Ok(size) = std::fs::metadata(&path).map(|metadata| metadata.len()) else {
                continue;
            };
            // No document is larger, so a larger file need not be read to know that it is damaged.
            let is_right = size <= MAX_CONFIG_SIZE
                && self
                    .document(&digest)
                    .is_ok_and(|document| document.is_some());
            checked.push(DocumentCheck {
                digest,
                size,
                is_right,
            });
        }
        Ok(checked)
    }

    /// Whether there is a file for a document, right or not.
    pub fn has_document(&self, digest: &Digest) -> bool {
        self.document_path(digest).exists()
    }

    /// Forgets a document, if it is damaged still.
    pub fn drop_document(&self, digest: &Digest) -> Result<bool, StoreError> {
        if self.document(digest)?.is_some() {
            return Ok(false);
        }
        let path = self.document_path(digest);
        remove_if_there(&path).map_err(StoreError::io("remove", &path))?;
        Ok(true)
    }

    /// Checks the records of all images by themselves. Damaged ones stay as they are: nobody
    /// believes them.
    pub fn check_images(&self) -> Result<Vec<ImageCheck>, StoreError> {
        let mut checked = Vec::new();
        for (algorithm, file, path) in self.files_by_algorithm("images")? {
            let hex = file.strip_suffix(".json");
            let digest = hex.and_then(|hex| format!("{algorithm}:{hex}").parse().ok());
            if let Some(manifest) = digest {
                checked.extend(self.check_image(&manifest, &path)?);
            }
        }
        Ok(checked)
    }

    /// Checks the record of an image; `None` if it is gone.
    fn check_image(
        &self,
        manifest: &Digest,
        path: &Path,
    ) -> Result<Option<ImageCheck>, StoreError> {
        let Some(bytes) = read_if_there(path)? else {
            return Ok(None);
        };
        let record: Option<ImageRecord> = serde_json::from_slice(&bytes).ok();
        if let Some(record) = record.filter(|record| record.manifest == *manifest) {
            return Ok(Some(ImageCheck {
                record,
                is_readable: true,
            }));
        }
        let text = String::from_utf8_lossy(&bytes);
        let strings = || text.split('"');
        let is_reference = |text: &&str| {
            let parsed: Option<Reference> = text.parse().ok();
            parsed.is_some_and(|reference| reference.to_string() == *text)
        };
        // Of the digests in it those are lists that are lists.
        let digests = strings().filter_map(|text| text.parse::<Digest>().ok());
        let lists = digests.filter(|digest| {
            let document = self.parsed(digest).ok().flatten();
            matches!(document, Some(Document::Index(_)))
        });
        let written = path
            .metadata()
            .and_then(|metadata| metadata.modified())
            .ok();
        let written = written.and_then(|written| written.duration_since(UNIX_EPOCH).ok());
        let written = written.map_or(0, |since| since.as_secs());
        Ok(Some(ImageCheck {
            record: ImageRecord {
                manifest: *manifest,
                config: *manifest,
                via: lists.collect(),
                references: strings().filter(is_reference).map(str::to_owned).collect(),
                first_seen: written,
                last_used: written,
            },
            is_readable: false,
        }))
    }

    /// Compares the record of an image with its manifest, which decides, and makes it anew where it
    /// is wrong.
    pub async fn mend_image(&self, check: &ImageCheck) -> Result<ImageMended, StoreError> {
        let digest = check.record.manifest;
        let _lock = Locked::share(&self.removal_lock()).await?;
        let path = self.image_path(&digest);
        // It may have been written anew, or removed.
        let Some(ImageCheck {
            mut record,
            is_readable,
        }) = self.check_image(&digest, &path)?
        else {
            return Ok(ImageMended::Right);
        };
        let Some(manifest) = self.image_manifest(&digest)? else {
            return Ok(if is_readable {
                ImageMended::Right
            } else {
                ImageMended::NoManifest
            });
        };
        if is_readable && record.config == manifest.config.digest {
            return Ok(ImageMended::Right);
        }
        record.config = manifest.config.digest;
        if !is_readable {
            for tag in self.tag_records()? {
                let root = tag.descriptor.digest;
                let mut images = self.images_below(&root)?.into_iter();
                if !images.any(|(image, _)| image == digest) {
                    continue;
                }
                if root != digest && !record.via.contains(&root) {
                    record.via.push(root);
                }
                if !record.references.contains(&tag.reference) {
                    record.references.push(tag.reference);
                }
            }
        }
        let json = serde_json::to_vec_pretty(&record).unwrap_or_default();
        publish(&path, &json)?;
        Ok(ImageMended::Repaired)
    }

    /// Whether there is a record of an image, right or not.
    pub fn has_image(&self, manifest: &Digest) -> bool {
        self.image_path(manifest).exists()
    }
}
