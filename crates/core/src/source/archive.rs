//! An archive as `docker save` writes it, read in place.
//!
//! The tar's headers are read once, to know where each member's bytes lie. Two forms exist:
//!
//! ```text
//! old   manifest.json       [{"Config":"<id>.json","RepoTags":["busybox:1"],"Layers":["<id>/layer.tar"]}]
//!       <id>/layer.tar      sometimes a symlink to the layer of another image
//! new   the same, and an OCI layout beside it: oci-layout, index.json, blobs/sha256/<hex>
//! ```
//!
//! The new form is read as the layout, so digests are those of the registry. For the old form a
//! manifest is made up, whose layers are the uncompressed tars with their `diff_id` as digest; it
//! is the same for the same image.

use std::collections::{BTreeSet, HashMap};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::json;
use tar_core::parse::{Limits, ParseEvent, Parser};

use super::choose::choose;
use super::error::SourceError;
use super::file::SourceFile;
use super::layout::{check_marker, parse_index};
use super::traffic::{Counters, Traffic};
use super::{BlobSource, ByteStream, Resolved};
use imgfs_formats::oci::{
    Algorithm, Descriptor, Digest, Digester, ImageConfig, MAX_CONFIG_SIZE, MAX_MANIFEST_SIZE,
    Reference,
};

const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const OCI_TAR: &str = "application/vnd.oci.image.layer.v1.tar";
const OCI_TAR_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// Most members of an archive; an image has a few for each layer. Protects memory.
const MAX_MEMBERS: usize = 1 << 16;
/// Bytes read for each header: enough for a long name's extension blocks.
const HEADER_WINDOW: u64 = 8 << 10;
/// Most bytes of one member's headers.
const MAX_HEADER: u64 = 1 << 20;
/// Symlinks followed for one member.
const MAX_LINKS: usize = 8;
/// Bytes hashed at a time.
const HASH_PIECE: u64 = 1 << 20;

/// One image of an archive.
#[derive(Debug)]
pub struct DockerArchive {
    path: PathBuf,
    file: Arc<SourceFile>,
    counters: Arc<Counters>,
    image: Descriptor,
    /// The manifest made up for the old form.
    made_up: Option<Bytes>,
    /// Where each blob lies in the archive.
    blobs: HashMap<Digest, Range<u64>>,
    tags: Vec<String>,
}

/// An entry of `manifest.json`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct SavedImage {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Option<Vec<String>>,
}

/// What a member of the tar is.
#[derive(Debug)]
enum Member {
    File(Range<u64>),
    /// Another member, by its name in the archive.
    HardLink(String),
    /// A path beside this member.
    Symlink(String),
}

/// The archive while it is being opened.
struct Archive<'a> {
    path: &'a Path,
    file: &'a SourceFile,
    members: HashMap<String, Member>,
}

impl DockerArchive {
    /// Lists the archive and finds the image in it: by its normalised name, by `@N`, or the only
    /// one.
    pub fn open(path: &Path, image: Option<&str>) -> Result<Self, SourceError> {
        let counters = Arc::default();
        let file = SourceFile::open(path, &counters)?;
        let archive = Archive {
            path,
            file: &file,
            members: list_members(path, &file)?,
        };
        let tags = archive.tags()?;
        let is_position = image.is_some_and(|image| image.starts_with('@'));
        let (descriptor, made_up, blobs) =
            if archive.members.contains_key("index.json") && !is_position {
                let (descriptor, blobs) = archive.open_layout(image)?;
                (descriptor, None, blobs)
            } else {
                archive.open_saved(image)?
            };
        Ok(Self {
            path: path.to_owned(),
            file: Arc::new(file),
            counters,
            image: descriptor,
            made_up,
            blobs,
            tags,
        })
    }

    fn open_blob(&self, blob: &Descriptor, range: &Range<u64>) -> Result<ByteStream, SourceError> {
        let place = self
            .blobs
            .get(&blob.digest)
            .ok_or_else(|| local(&self.path, format!("it has no blob {}", blob.digest)))?;
        let size = place.end - place.start;
        if size != blob.size || range.end > size {
            return Err(SourceError::Size {
                digest: blob.digest,
                expected: blob.size.max(range.end),
                found: size,
            });
        }
        // No overflow: the member lies inside the file.
        let range = place.start + range.start..place.start + range.end;
        Ok(Arc::clone(&self.file).stream(range))
    }
}

impl Archive<'_> {
    /// The names that its images have; none if it says none.
    fn tags(&self) -> Result<Vec<String>, SourceError> {
        if !self.members.contains_key("manifest.json") {
            return Ok(Vec::new());
        }
        let tags: BTreeSet<String> = (self.saved()?.into_iter())
            .flat_map(|saved| saved.repo_tags.unwrap_or_default())
            .collect();
        Ok(tags.into_iter().collect())
    }

    /// What `manifest.json` lists.
    fn saved(&self) -> Result<Vec<SavedImage>, SourceError> {
        let listed = self.read("manifest.json", MAX_MANIFEST_SIZE)?;
        serde_json::from_slice(&listed)
            .map_err(|cause| self.error(format!("its manifest.json is not valid: {cause}")))
    }

    fn open_layout(
        &self,
        image: Option<&str>,
    ) -> Result<(Descriptor, HashMap<Digest, Range<u64>>), SourceError> {
        if self.members.contains_key("oci-layout") {
            check_marker(&self.read("oci-layout", MAX_MANIFEST_SIZE)?, self.path)?;
        }
        let index = parse_index(&self.read("index.json", MAX_MANIFEST_SIZE)?, self.path)?;
        let chosen = choose(&index, image, None, self.path)?.clone();
        let blobs = self
            .members
            .keys()
            .filter_map(|name| {
                let (algorithm, hex) = name.strip_prefix("blobs/")?.split_once('/')?;
                let digest: Digest = format!("{algorithm}:{hex}").parse().ok()?;
                Some((digest, self.place(name).ok()?))
            })
            .collect();
        Ok((chosen, blobs))
    }

    #[expect(
        clippy::type_complexity,
        reason = "three parts of one value, used once"
    )]
    fn open_saved(
        &self,
        image: Option<&str>,
    ) -> Result<(Descriptor, Option<Bytes>, HashMap<Digest, Range<u64>>), SourceError> {
        let listed = self.saved()?;
        let saved = self.choose_saved(&listed, image)?;
        let config_place = self.place(&saved.config)?;
        let config_body = self.read(&saved.config, MAX_CONFIG_SIZE)?;
        let layers = saved.layers.as_deref().unwrap_or_default();
        let config = ImageConfig::parse(&config_body, layers.len())
            .map_err(|cause| self.error(format!("{}: {cause}", saved.config)))?;
        let config_descriptor = descriptor(OCI_CONFIG, Digest::sha256(&config_body), &config_place);
        let mut blobs = HashMap::from([(config_descriptor.digest, config_place)]);
        let mut descriptors = Vec::new();
        for (name, diff_id) in layers.iter().zip(&config.rootfs.diff_ids) {
            let place = self.place(name)?;
            let layer = if self.is_gzip(&place)? {
                // Some writers compress; no name tells the digest of these bytes, so they are read
                // once.
                descriptor(OCI_TAR_GZIP, self.hash(&place)?, &place)
            } else {
                descriptor(OCI_TAR, diff_id.0, &place)
            };
            blobs.insert(layer.digest, place);
            descriptors.push(layer);
        }
        // serde_json sorts the keys of an object: the same image gives the same bytes.
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": config_descriptor,
            "layers": descriptors,
        });
        let manifest = Bytes::from(manifest.to_string());
        let image = descriptor(
            OCI_MANIFEST,
            Digest::sha256(&manifest),
            &(0..manifest.len() as u64),
        );
        Ok((image, Some(manifest), blobs))
    }

    fn choose_saved<'a>(
        &self,
        listed: &'a [SavedImage],
        image: Option<&str>,
    ) -> Result<&'a SavedImage, SourceError> {
        let tags = |saved: &'a SavedImage| saved.repo_tags.iter().flatten();
        let list = || {
            let names: Vec<String> = listed
                .iter()
                .enumerate()
                .map(|(position, saved)| match tags(saved).next() {
                    Some(tag) => format!(":{tag}"),
                    None => format!(":@{position}"),
                })
                .collect();
            names.join(", ")
        };
        match image {
            Some(image) => {
                let found = match image.strip_prefix('@') {
                    Some(position) => position
                        .parse()
                        .ok()
                        .and_then(|position: usize| listed.get(position)),
                    None => listed.iter().find(|saved| {
                        tags(saved).any(|tag| {
                            tag.parse::<Reference>()
                                .is_ok_and(|tag| tag.to_string() == image)
                        })
                    }),
                };
                found.ok_or_else(|| {
                    self.error(format!("it has no image {image:?}: add one of {}", list()))
                })
            }
            None => match listed {
                [only] => Ok(only),
                [] => Err(self.error("it has no image".to_owned())),
                _ => Err(self.error(format!("it has several images: add one of {}", list()))),
            },
        }
    }

    /// Where a member's bytes lie, links followed.
    fn place(&self, name: &str) -> Result<Range<u64>, SourceError> {
        let mut name = clean(name);
        for _ in 0..MAX_LINKS {
            match self.members.get(&name) {
                Some(Member::File(place)) => return Ok(place.clone()),
                Some(Member::HardLink(target)) => name = clean(target),
                Some(Member::Symlink(target)) if target.starts_with('/') => name = clean(target),
                Some(Member::Symlink(target)) => {
                    let dir = name.rsplit_once('/').map_or("", |(dir, _)| dir);
                    name = clean(&format!("{dir}/{target}"));
                }
                None => {
                    return Err(self.error(format!(
                        "it has no {name}: it is no docker archive, or not all of one"
                    )));
                }
            }
        }
        Err(self.error(format!("too many links at {name}")))
    }

    fn read(&self, name: &str, limit: u64) -> Result<Vec<u8>, SourceError> {
        let place = self.place(name)?;
        if place.end - place.start > limit {
            return Err(self.error(format!(
                "its {name} has more than the limit of {limit} bytes"
            )));
        }
        self.file.read(&place)
    }

    fn is_gzip(&self, place: &Range<u64>) -> Result<bool, SourceError> {
        let head = place.start..place.end.min(place.start + 2);
        Ok(self.file.read(&head)? == [0x1f, 0x8b])
    }

    fn hash(&self, place: &Range<u64>) -> Result<Digest, SourceError> {
        let mut digester = Digester::new(Algorithm::Sha256);
        let mut offset = place.start;
        while offset < place.end {
            let piece = offset..place.end.min(offset + HASH_PIECE);
            digester.update(&self.file.read(&piece)?);
            offset = piece.end;
        }
        Ok(digester.finish())
    }

    fn error(&self, problem: String) -> SourceError {
        local(self.path, problem)
    }
}

/// Reads the headers of the tar, and only these.
fn list_members(path: &Path, file: &SourceFile) -> Result<HashMap<String, Member>, SourceError> {
    let size = file.size()?;
    check_magic(path, file, size)?;
    let mut parser = Parser::new(Limits::default());
    parser.set_ignore_pax_errors(true);
    let mut members = HashMap::new();
    let mut offset = 0;
    let mut window = HEADER_WINDOW;
    loop {
        let end = size.min(offset + window);
        if offset == end {
            // Without the two empty blocks at the end: as good as with them.
            return Ok(members);
        }
        let header = file.read(&(offset..end))?;
        let event = parser
            .parse(&header)
            .map_err(|cause| local(path, format!("it is no tar archive: {cause}")))?;
        match event {
            ParseEvent::NeedData { min_bytes } => {
                let wanted = (min_bytes as u64).max(window * 2);
                if end == size {
                    return Err(local(path, "the archive is cut off".to_owned()));
                }
                if wanted > MAX_HEADER {
                    return Err(local(path, "a header is too large".to_owned()));
                }
                window = wanted;
                continue;
            }
            ParseEvent::Entry { consumed, entry } => {
                let start = offset + consumed as u64;
                let stop = start.checked_add(entry.size).filter(|stop| *stop <= size);
                let Some(stop) = stop else {
                    return Err(local(path, "the archive is cut off".to_owned()));
                };
                let name = clean(&String::from_utf8_lossy(&entry.path));
                if entry.is_file() {
                    members.insert(name, Member::File(start..stop));
                } else if let Some(target) = &entry.link_target {
                    let target = String::from_utf8_lossy(target).into_owned();
                    let link = if entry.is_hard_link() {
                        Member::HardLink(target)
                    } else {
                        Member::Symlink(target)
                    };
                    members.insert(name, link);
                }
                offset = start + entry.padded_size().min(size - start);
            }
            ParseEvent::SparseEntry { .. } => {
                return Err(local(path, "it has sparse members".to_owned()));
            }
            ParseEvent::GlobalExtensions { consumed, .. } => offset += consumed as u64,
            ParseEvent::End { .. } => return Ok(members),
        }
        window = HEADER_WINDOW;
        if members.len() > MAX_MEMBERS {
            return Err(local(
                path,
                format!("it has more than {MAX_MEMBERS} members"),
            ));
        }
    }
}

/// A compressed archive cannot be read in place.
fn check_magic(path: &Path, file: &SourceFile, size: u64) -> Result<(), SourceError> {
    let head = file.read(&(0..size.min(6)))?;
    let program = match head.as_slice() {
        [0x1f, 0x8b, ..] => "gunzip",
        [0x28, 0xb5, 0x2f, 0xfd, ..] => "unzstd",
        [0xfd, b'7', b'z', b'X', b'Z', 0] => "unxz",
        [b'B', b'Z', b'h', ..] => "bunzip2",
        _ => return Ok(()),
    };
    Err(local(
        path,
        format!(
            "the archive is compressed, and archives are read in place: decompress it with `{program}` first"
        ),
    ))
}

/// A path without `.`, `..` and empty parts; what would leave the archive stays at its root.
fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join("/")
}

fn descriptor(media_type: &str, digest: Digest, place: &Range<u64>) -> Descriptor {
    Descriptor {
        media_type: media_type.to_owned(),
        digest,
        size: place.end - place.start,
        urls: Vec::new(),
        annotations: std::collections::BTreeMap::new(),
        artifact_type: String::new(),
        platform: None,
    }
}

fn local(path: &Path, problem: String) -> SourceError {
    SourceError::Local {
        path: path.to_owned(),
        problem,
    }
}

#[async_trait::async_trait]
impl BlobSource for DockerArchive {
    async fn resolve(&self, _known: Option<&Descriptor>) -> Result<Resolved, SourceError> {
        Ok(Resolved {
            descriptor: self.image.clone(),
            body: None,
        })
    }

    async fn open_manifest(&self, descriptor: &Descriptor) -> Result<ByteStream, SourceError> {
        match &self.made_up {
            Some(body) if descriptor.digest == self.image.digest => {
                let body = body.clone();
                Ok(ByteStream::of(body))
            }
            _ => self.open_blob(descriptor, &(0..descriptor.size)),
        }
    }

    async fn open(&self, blob: &Descriptor, range: Range<u64>) -> Result<ByteStream, SourceError> {
        self.open_blob(blob, &range)
    }

    async fn tags(&self) -> Result<Vec<String>, SourceError> {
        Ok(self.tags.clone())
    }

    fn traffic(&self) -> Traffic {
        self.counters.traffic()
    }

    fn describe(&self) -> String {
        format!("docker-archive:{}", self.path.display())
    }

    fn parallel_ranges(&self) -> usize {
        // A disk is fastest in order.
        1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_cleaned_and_stay_inside() {
        let check = |path: &str, expected: &str| assert_eq!(clean(path), expected, "{path}");
        check("a/b", "a/b");
        check("./a//b/.", "a/b");
        check("a/../b/layer.tar", "b/layer.tar");
        check("../../etc/passwd", "etc/passwd");
        check("/abs/y", "abs/y");
    }
}
