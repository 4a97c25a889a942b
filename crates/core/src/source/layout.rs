//! An OCI image layout on disk (image-spec image-layout.md).
//!
//! ```text
//! DIR/oci-layout             {"imageLayoutVersion":"1.0.0"}
//! DIR/index.json             lists the images, their tags as annotations
//! DIR/blobs/sha256/<hex>     manifests, configs and layers alike
//! ```
//!
//! File names are made of parsed digests only, so nothing in an image leads out of the directory.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;

use super::choose::{choose, tags};
use super::error::SourceError;
use super::file::{SourceFile, read_small};
use super::traffic::{Counters, Traffic};
use super::{BlobSource, ByteStream, Resolved};
use imgfs_formats::oci::{Descriptor, Digest, ImageIndex, MAX_MANIFEST_SIZE};

/// One image of a layout.
#[derive(Debug)]
pub struct OciLayout {
    dir: PathBuf,
    image: Descriptor,
    tags: Vec<String>,
    counters: Arc<Counters>,
}

impl OciLayout {
    /// Checks the layout and finds the image in it.
    pub fn open(
        dir: &Path,
        tag: Option<&str>,
        digest: Option<Digest>,
    ) -> Result<Self, SourceError> {
        let marker =
            read_small(&dir.join("oci-layout"), MAX_MANIFEST_SIZE).map_err(|err| match err {
                SourceError::File { cause, .. } if cause.kind() == std::io::ErrorKind::NotFound => {
                    SourceError::Local {
                        path: dir.to_owned(),
                        problem: "no OCI image layout there (it has no file oci-layout)".to_owned(),
                    }
                }
                err => err,
            })?;
        check_marker(&marker, dir)?;
        let index = read_small(&dir.join("index.json"), MAX_MANIFEST_SIZE)?;
        let index = parse_index(&index, dir)?;
        let image = choose(&index, tag, digest.as_ref(), dir)?.clone();
        // Whoever serves a mount leaves the directory that a relative path is relative to.
        let dir = std::path::absolute(dir).map_err(|cause| SourceError::File {
            path: dir.to_owned(),
            cause,
        })?;
        Ok(Self {
            dir,
            image,
            tags: tags(&index),
            counters: Arc::default(),
        })
    }

    async fn open_blob(
        &self,
        blob: &Descriptor,
        range: Range<u64>,
    ) -> Result<ByteStream, SourceError> {
        let path = self
            .dir
            .join("blobs")
            .join(blob.digest.algorithm().name())
            .join(blob.digest.hex());
        let counters = Arc::clone(&self.counters);
        let opened = tokio::task::spawn_blocking(move || {
            let file = SourceFile::open(&path, &counters)?;
            let size = file.size()?;
            Ok::<_, SourceError>((file, size))
        });
        let (file, size) = match opened.await {
            Ok(opened) => opened?,
            // Only at shutdown: the runtime drops the task.
            Err(_) => {
                return Err(SourceError::Local {
                    path: self.dir.clone(),
                    problem: "the program is ending".to_owned(),
                });
            }
        };
        let range = match blob.size {
            Descriptor::UNKNOWN_SIZE => range.start..range.end.min(size),
            _ => range,
        };
        if ![size, Descriptor::UNKNOWN_SIZE].contains(&blob.size) || range.end > size {
            return Err(SourceError::Size {
                digest: blob.digest,
                expected: blob.size.max(range.end),
                found: size,
            });
        }
        Ok(Arc::new(file).stream(range))
    }
}

/// Checks the content of `oci-layout`.
pub(super) fn check_marker(body: &[u8], path: &Path) -> Result<(), SourceError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Marker {
        image_layout_version: String,
    }
    match serde_json::from_slice::<Marker>(body) {
        Ok(marker) if marker.image_layout_version.starts_with("1.") => Ok(()),
        Ok(marker) => Err(SourceError::Local {
            path: path.to_owned(),
            problem: format!(
                "its layout version {:?} is not supported: 1.0.0 is",
                marker.image_layout_version
            ),
        }),
        Err(cause) => Err(SourceError::Local {
            path: path.to_owned(),
            problem: format!("its file oci-layout is not valid: {cause}"),
        }),
    }
}

/// Reads `index.json`.
pub(super) fn parse_index(body: &[u8], path: &Path) -> Result<ImageIndex, SourceError> {
    serde_json::from_slice(body).map_err(|cause| SourceError::Local {
        path: path.to_owned(),
        problem: format!("its index.json is not valid: {cause}"),
    })
}

#[async_trait::async_trait]
impl BlobSource for OciLayout {
    async fn resolve(&self, _known: Option<&Descriptor>) -> Result<Resolved, SourceError> {
        Ok(Resolved {
            descriptor: self.image.clone(),
            body: None,
        })
    }

    async fn open_manifest(&self, descriptor: &Descriptor) -> Result<ByteStream, SourceError> {
        // Known by its digest alone: all that is there, for the digest to decide.
        let range = match descriptor.size {
            Descriptor::UNKNOWN_SIZE => 0..MAX_MANIFEST_SIZE,
            size => 0..size,
        };
        self.open_blob(descriptor, range).await
    }

    async fn open(&self, blob: &Descriptor, range: Range<u64>) -> Result<ByteStream, SourceError> {
        self.open_blob(blob, range).await
    }

    async fn tags(&self) -> Result<Vec<String>, SourceError> {
        Ok(self.tags.clone())
    }

    fn traffic(&self) -> Traffic {
        self.counters.traffic()
    }

    fn describe(&self) -> String {
        format!("oci:{}", self.dir.display())
    }

    fn parallel_ranges(&self) -> usize {
        // A disk is fastest in order.
        1
    }
}
