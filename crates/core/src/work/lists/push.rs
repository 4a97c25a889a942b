//! Pushing a list: its members first, as registries want it.
//!
//! ```text
//! member is in the list's repository        HEAD, nothing else
//! in another one of the same registry       its blobs are mounted there, the manifest is written
//! in another registry                       its blobs are passed on from there, checked on the way
//! ```

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use serde::Serialize;

use super::open_source;
use crate::error::{EngineError, ErrorKind, Expected, Result, Within, fail};
use crate::image::LayerProgress;
use crate::source::{
    BlobSource, Options, Placed, Pusher, SourceError, push_to_mounting, read_verified,
};
use imgfs_formats::oci::{
    Descriptor, Digest, Document, ListFormat, Location, MAX_MANIFEST_SIZE, ManifestList, MediaType,
    Reference,
};

/// Blobs placed at a time: most of them cost two short requests.
const BLOBS_AT_A_TIME: usize = 4;

/// A list that is ready to be pushed.
pub struct ListPush {
    target: Reference,
    tag: String,
    format: ListFormat,
    encoded: Bytes,
    pusher: Pusher,
    members: Vec<Member>,
}

/// A member, and what has to be done for it.
struct Member {
    manifest: Descriptor,
    /// `None` if the repository has it.
    missing: Option<MissingMember>,
}

struct MissingMember {
    source: Arc<dyn BlobSource>,
    body: Bytes,
    blobs: Vec<LayerProgress>,
    /// Another repository of the same registry, where they are.
    mounting_from: Option<String>,
}

/// What was pushed.
#[derive(Debug, Clone, Serialize)]
pub struct PushedList {
    /// Where to, with the tag.
    pub reference: String,
    /// The list's digest.
    pub digest: String,
    /// The list's media type.
    pub media_type: &'static str,
    /// Its size in bytes.
    pub size: u64,
    /// Its members.
    pub members: Vec<PushedMember>,
}

/// A member of it.
#[derive(Debug, Clone, Serialize)]
pub struct PushedMember {
    /// The manifest's digest.
    pub digest: String,
    /// The platform that the list says.
    pub platform: String,
    /// Whether the repository had it before.
    pub was_there: bool,
    /// Its blobs, all of them none if it was there.
    pub blobs: BlobsPlaced,
}

/// How many blobs came to be in the repository, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct BlobsPlaced {
    /// Those that were there.
    pub were_there: u64,
    /// Those that the registry took from another of its repositories.
    pub mounted: u64,
    /// Those that were passed on.
    pub copied: u64,
    /// Their size in bytes.
    pub copied_bytes: u64,
}

impl ListPush {
    /// Looks at what there is and what is missing. `target` has a tag.
    pub async fn prepare(
        list: &ManifestList,
        target: &Reference,
        format: ListFormat,
        options: &Options,
    ) -> Result<Self> {
        let Location::Registry {
            host,
            repository,
            tag,
            ..
        } = target.location()
        else {
            return Err(SourceError::NoRegistry {
                reference: target.to_string(),
            }
            .into());
        };
        let Some(tag) = tag.clone().filter(|_| target.digest().is_none()) else {
            fail!(
                Invalid,
                "{target}: a list is pushed to a tag, its digest comes of it: leave the digest out"
            );
        };
        let encoded = Bytes::from(list.encode_complete(format)?);
        let origins = list
            .members
            .iter()
            .filter_map(|member| member.reference.repository());
        let others: BTreeSet<String> = origins
            .filter(|origin| origin.0 == host && origin.1 != repository)
            .map(|origin| origin.1.to_owned())
            .collect();
        let (name, reaching) = (target.clone(), options.clone());
        let others = others.into_iter().collect();
        let opening = move || push_to_mounting(&name, others, &reaching);
        let pusher = tokio::task::spawn_blocking(opening)
            .await
            .expected("opening the repository stopped")??;
        let mut push = Self {
            target: target.clone(),
            tag,
            format,
            encoded,
            pusher,
            members: Vec::new(),
        };
        for member in &list.members {
            let known = |known: &Member| known.manifest.digest == member.manifest.digest;
            if push.members.iter().any(known) {
                continue;
            }
            let missing =
                if push.pusher.has_manifest(&member.manifest.digest).await? {
                    None
                } else {
                    let found = push.look_up(&member.reference, &member.manifest, options);
                    Some(found.await.within(|| {
                        format!("cannot read {}, which is in the list", member.reference)
                    })?)
                };
            let manifest = member.manifest.clone();
            push.members.push(Member { manifest, missing });
        }
        Ok(push)
    }

    /// What has to be passed on from other registries, to be shown while it is.
    pub fn copies(&self) -> Vec<LayerProgress> {
        let missing = self
            .members
            .iter()
            .filter_map(|member| member.missing.as_ref());
        missing
            .filter(|member| member.mounting_from.is_none())
            .flat_map(|member| member.blobs.iter().cloned())
            .collect()
    }

    /// Does it.
    pub async fn run(&self) -> Result<PushedList> {
        let mut members = Vec::new();
        for member in &self.members {
            let blobs = match &member.missing {
                None => BlobsPlaced::default(),
                Some(missing) => {
                    let placed = self.place(missing).await?;
                    let name = member.manifest.digest.to_string();
                    let media_type = &member.manifest.media_type;
                    (self.pusher)
                        .put_document(&name, media_type, &missing.body)
                        .await?;
                    placed
                }
            };
            let platform = member.manifest.platform.as_ref();
            members.push(PushedMember {
                digest: member.manifest.digest.to_string(),
                platform: platform.map(ToString::to_string).unwrap_or_default(),
                was_there: member.missing.is_none(),
                blobs,
            });
        }
        let media_type = self.format.media_type();
        (self.pusher)
            .put_document(&self.tag, media_type, &self.encoded)
            .await?;
        Ok(PushedList {
            reference: self.target.to_string(),
            digest: Digest::sha256(&self.encoded).to_string(),
            media_type,
            size: self.encoded.len() as u64,
            members,
        })
    }

    /// Reads a member's manifest where it is.
    async fn look_up(
        &self,
        reference: &Reference,
        manifest: &Descriptor,
        options: &Options,
    ) -> Result<MissingMember> {
        let (host, repository) = reference
            .repository()
            .ok_or_else(|| EngineError::new(ErrorKind::Invalid, "it is in no registry"))?;
        let pinned = format!("{host}/{repository}@{}", manifest.digest).parse()?;
        let source = open_source(&pinned, options).await?;
        let stream = source.open_manifest(manifest).await?;
        let body = read_verified(stream, manifest, MAX_MANIFEST_SIZE).await?;
        let Document::Manifest(parsed) = Document::parse(&body, Some(&manifest.media_type))? else {
            fail!(Invalid, "it is a manifest list");
        };
        let mut seen = BTreeSet::new();
        let blobs = std::iter::once(parsed.config)
            .chain(parsed.layers)
            // Those are elsewhere by intention, and registries do not miss them.
            .filter(|blob| !matches!(blob.kind(), MediaType::ForeignLayer(_)))
            .filter(|blob| seen.insert(blob.digest));
        let blobs = blobs.map(|blob| LayerProgress {
            blob,
            progress: Arc::default(),
        });
        let is_here = self
            .target
            .repository()
            .is_some_and(|(here, _)| here == host);
        Ok(MissingMember {
            source,
            body,
            blobs: blobs.collect(),
            mounting_from: is_here.then(|| repository.to_owned()),
        })
    }

    async fn place(&self, member: &MissingMember) -> Result<BlobsPlaced> {
        let from = member.mounting_from.as_deref();
        let placing = member
            .blobs
            .iter()
            .map(|LayerProgress { blob, progress }| async {
                let watched = Arc::clone(progress);
                let watch = Arc::new(move |done| watched.set(done));
                let placed = (self.pusher)
                    .copy_blob(&member.source, blob, from, watch)
                    .await?;
                progress.set(blob.size);
                Ok::<_, SourceError>((placed, blob.size))
            });
        let placed: Vec<(Placed, u64)> = stream::iter(placing)
            .buffer_unordered(BLOBS_AT_A_TIME)
            .try_collect()
            .await?;
        let mut blobs = BlobsPlaced::default();
        for (placed, size) in placed {
            match placed {
                Placed::WasThere => blobs.were_there += 1,
                Placed::Mounted => blobs.mounted += 1,
                Placed::Sent => {
                    blobs.copied += 1;
                    blobs.copied_bytes += size;
                }
            }
        }
        Ok(blobs)
    }
}
