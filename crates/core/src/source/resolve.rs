//! From a reference to one image: through indexes to the manifest for a platform, and its config.
//!
//! Every document is read through [`read_verified`] or was checked by the source, so the digest of
//! the first one pins everything. Entries of an index that do not say their platform are decided by
//! their config, last.

use std::collections::HashSet;

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};

use super::error::SourceError;
use super::{BlobSource, Resolved, read_blob, read_verified};
use imgfs_formats::oci::{
    Descriptor, Digest, Document, ImageConfig, MAX_CONFIG_SIZE, MAX_MANIFEST_SIZE, Manifest,
    ManifestError, MediaType, Platform, PlatformMatcher, may_be_image,
};

/// Most indexes inside each other; containerd and docker have no use for more than two.
const MAX_DEPTH: usize = 4;
/// Most entries of all indexes of one image together; protects memory and the registry.
const MAX_ENTRIES: usize = 4096;
/// Most indexes read for one image.
const MAX_INDEXES: usize = 32;
/// Manifests of a list fetched at a time.
const MANIFESTS_AT_ONCE: usize = 4;
/// Most layers of one image: several times what docker can make (about 128).
const MAX_LAYERS: usize = 1024;

/// A document whose bytes have the descriptor's digest and size.
#[derive(Debug, Clone)]
pub struct VerifiedDocument {
    /// Its descriptor.
    pub descriptor: Descriptor,
    /// Its bytes.
    pub body: Bytes,
}

/// One image, with everything that leads to it.
#[derive(Debug, Clone)]
pub struct ResolvedImage {
    /// What the reference points to, then any further index on the way, then the image's manifest.
    pub chain: Vec<VerifiedDocument>,
    /// The manifest: its layers are what is mounted.
    pub manifest: Manifest,
    /// The config's bytes.
    pub config_document: VerifiedDocument,
    /// The config: its `diff_ids` are the layers' contents.
    pub config: ImageConfig,
    /// Warnings for the user.
    pub warnings: Vec<String>,
}

impl ResolvedImage {
    /// Digest of the image's manifest.
    pub fn manifest_digest(&self) -> Option<&Digest> {
        self.chain
            .last()
            .map(|document| &document.descriptor.digest)
    }

    /// The platform that the config names.
    pub fn platform(&self) -> Platform {
        config_platform(&self.config)
    }
}

/// Finds the image that the source's reference means for `platform`. `known` is what the reference
/// pointed to when last asked.
pub async fn resolve_image(
    source: &dyn BlobSource,
    platform: &Platform,
    known: Option<&Descriptor>,
) -> Result<ResolvedImage, SourceError> {
    let resolved = source.resolve(known).await?;
    image_of(source, resolved, platform).await
}

/// The same when it is already known what the reference means.
pub async fn image_of(
    source: &dyn BlobSource,
    resolved: Resolved,
    platform: &Platform,
) -> Result<ResolvedImage, SourceError> {
    image_of_watched(source, resolved, platform, &|_, _| {}).await
}

/// Is told which manifest is about to be read, and then its content, so that a caller can begin
/// work before the image is resolved. Each may be of an entry that turns out not to be the one.
pub type Watch<'a> = dyn Fn(&Descriptor, Option<&Manifest>) + Send + Sync + 'a;

/// The same with a watcher.
pub async fn image_of_watched(
    source: &dyn BlobSource,
    resolved: Resolved,
    platform: &Platform,
    watch: &Watch<'_>,
) -> Result<ResolvedImage, SourceError> {
    let root = read_root(source, resolved).await?;
    let matcher = PlatformMatcher::new(platform);
    match parse(&root)? {
        Document::Manifest(manifest) => {
            watch(&root.descriptor, Some(&manifest));
            let mut image = complete(source, vec![root], manifest).await?;
            let found = image.platform();
            // Somebody who names one manifest means it; only say so.
            if found != Platform::default() && matcher.fit(&found).is_none() {
                image.warnings.push(format!(
                    "the image is for {}, not for {}, and there is no other to choose",
                    found.normalised(),
                    matcher.wanted()
                ));
            }
            Ok(image)
        }
        Document::Index(index) => {
            let candidates = flatten(source, &root, index.manifests).await?;
            choose(source, &root, &matcher, candidates, watch).await
        }
    }
}

/// The images of all platforms. Entries that are no images are left out; so are those that no
/// registry has whole, of which the first image's warnings say so.
pub async fn images_of(
    source: &dyn BlobSource,
    resolved: Resolved,
) -> Result<Vec<ResolvedImage>, SourceError> {
    let root = read_root(source, resolved).await?;
    let index = match parse(&root)? {
        Document::Manifest(manifest) => {
            return Ok(vec![complete(source, vec![root], manifest).await?]);
        }
        Document::Index(index) => index,
    };
    let mut images: Vec<ResolvedImage> = Vec::new();
    let mut left_out = Vec::new();
    for candidate in flatten(source, &root, index.manifests).await? {
        if !may_be_image(&candidate.descriptor) {
            continue;
        }
        let document = read_manifest(source, &candidate.descriptor).await?;
        let Document::Manifest(manifest) = parse(&document)? else {
            continue;
        };
        let mut chain = vec![root.clone()];
        chain.extend(candidate.path);
        chain.push(document);
        match complete(source, chain, manifest).await {
            Ok(image) => images.push(image),
            // Beside the images of containers there may be other things: signatures, charts.
            Err(SourceError::NotAnImage { .. }) => {}
            Err(err @ SourceError::ForeignLayer { .. }) => left_out.push(err),
            Err(err) => return Err(err),
        }
    }
    match (images.first_mut(), left_out.pop()) {
        (None, Some(err)) => return Err(err),
        (Some(first), Some(last)) => {
            left_out.push(last);
            let warnings = left_out.iter().map(|err| format!("left out: {err}"));
            first.warnings.extend(warnings);
        }
        (_, None) => {}
    }
    Ok(images)
}

/// The document that a reference points to, and the manifests that are listed there, each with its
/// entry in the list: those of images and all others. A single manifest lists itself.
pub async fn manifests_of(
    source: &dyn BlobSource,
    resolved: Resolved,
) -> Result<(VerifiedDocument, Vec<(Descriptor, Manifest)>), SourceError> {
    let root = read_root(source, resolved).await?;
    let index = match parse(&root)? {
        Document::Manifest(manifest) => {
            let listed = vec![(root.descriptor.clone(), manifest)];
            return Ok((root, listed));
        }
        Document::Index(index) => index,
    };
    let candidates = flatten(source, &root, index.manifests).await?;
    let read = |Candidate { descriptor, .. }| async move {
        let document = read_manifest(source, &descriptor).await?;
        Ok::<_, SourceError>(match parse(&document)? {
            Document::Manifest(manifest) => Some((descriptor, manifest)),
            Document::Index(_) => None,
        })
    };
    let documents = stream::iter(candidates)
        .map(read)
        .buffered(MANIFESTS_AT_ONCE);
    let listed: Vec<_> = documents.try_collect().await?;
    Ok((root, listed.into_iter().flatten().collect()))
}

/// The entry that a list would have for the one image that the source's reference means: its
/// manifest, with the platform that its config names. `None` if the reference means a list itself.
pub async fn list_entry(source: &dyn BlobSource) -> Result<Option<Descriptor>, SourceError> {
    let resolved = source.resolve(None).await?;
    let root = read_root(source, resolved).await?;
    let Document::Manifest(manifest) = parse(&root)? else {
        return Ok(None);
    };
    let body = read_blob(source, &manifest.config, MAX_CONFIG_SIZE).await?;
    let platform = serde_json::from_slice(&body).unwrap_or_else(|_| Platform::default());
    if manifest.config.kind() != MediaType::ImageConfig && platform == Platform::default() {
        return Err(SourceError::NotAnImage {
            digest: root.descriptor.digest,
            media_type: manifest.config.media_type,
        });
    }
    Ok(Some(Descriptor {
        // What the document says of itself: what the server announced may be less exact.
        media_type: Descriptor::of_manifest(&root.body).media_type,
        size: root.body.len() as u64,
        platform: Some(platform),
        ..Descriptor::of_document(root.descriptor.digest, 0)
    }))
}

async fn read_root(
    source: &dyn BlobSource,
    resolved: Resolved,
) -> Result<VerifiedDocument, SourceError> {
    match resolved.body {
        Some(body) => Ok(VerifiedDocument {
            descriptor: resolved.descriptor,
            body,
        }),
        None => read_manifest(source, &resolved.descriptor).await,
    }
}

/// An entry of an index, and the further indexes it was reached through.
struct Candidate {
    descriptor: Descriptor,
    path: Vec<VerifiedDocument>,
}

/// Replaces nested indexes by what they list, in place.
async fn flatten(
    source: &dyn BlobSource,
    root: &VerifiedDocument,
    entries: Vec<Descriptor>,
) -> Result<Vec<Candidate>, SourceError> {
    let mut visited = HashSet::from([root.descriptor.digest]);
    let mut candidates = Vec::new();
    let mut seen = entries.len();
    // A stack of what is still to be looked at, the next one last.
    let mut pending: Vec<Candidate> = entries
        .into_iter()
        .rev()
        .map(|descriptor| Candidate {
            descriptor,
            path: Vec::new(),
        })
        .collect();
    while let Some(candidate) = pending.pop() {
        let limit = |problem: String| SourceError::Nesting {
            digest: candidate.descriptor.digest,
            problem,
        };
        if seen > MAX_ENTRIES {
            return Err(limit(format!(
                "the image's indexes have more than {MAX_ENTRIES} entries"
            )));
        }
        let is_index = candidate.descriptor.kind() == MediaType::ImageIndex;
        if !is_index || !may_be_image(&candidate.descriptor) {
            candidates.push(candidate);
            continue;
        }
        if !visited.insert(candidate.descriptor.digest) {
            continue;
        }
        if visited.len() > MAX_INDEXES {
            return Err(limit(format!("more than {MAX_INDEXES} nested indexes")));
        }
        // The root is the first level.
        if candidate.path.len() + 2 > MAX_DEPTH {
            return Err(limit(format!(
                "indexes are nested more than {MAX_DEPTH} deep"
            )));
        }
        let document = read_manifest(source, &candidate.descriptor).await?;
        let Document::Index(index) = parse(&document)? else {
            continue;
        };
        seen += index.manifests.len();
        let mut path = candidate.path;
        path.push(document);
        let platform = candidate.descriptor.platform;
        pending.extend(index.manifests.into_iter().rev().map(|mut descriptor| {
            // What an index is said to be for holds for its entries, unless they say more.
            if descriptor.platform.is_none() {
                descriptor.platform.clone_from(&platform);
            }
            Candidate {
                descriptor,
                path: path.clone(),
            }
        }));
    }
    Ok(candidates)
}

async fn choose(
    source: &dyn BlobSource,
    root: &VerifiedDocument,
    matcher: &PlatformMatcher,
    candidates: Vec<Candidate>,
    watch: &Watch<'_>,
) -> Result<ResolvedImage, SourceError> {
    let (descriptors, paths): (Vec<_>, Vec<_>) = candidates
        .into_iter()
        .map(|candidate| (candidate.descriptor, candidate.path))
        .unzip();
    let mut offered: Vec<Platform> = descriptors
        .iter()
        .filter(|descriptor| may_be_image(descriptor))
        .filter_map(|descriptor| descriptor.platform.as_ref().map(Platform::normalised))
        .collect();
    for descriptor in matcher.order(&descriptors)? {
        let path = descriptors
            .iter()
            .position(|candidate| std::ptr::eq(candidate, descriptor))
            .and_then(|position| paths.get(position));
        let mut chain = vec![root.clone()];
        chain.extend(path.into_iter().flatten().cloned());
        watch(descriptor, None);
        let document = read_manifest(source, descriptor).await?;
        let parsed = parse(&document)?;
        chain.push(document);
        let Document::Manifest(manifest) = parsed else {
            // Without a media type only the body tells; nobody writes such nested indexes.
            continue;
        };
        watch(descriptor, Some(&manifest));
        if descriptor.platform.is_some() {
            return complete(source, chain, manifest).await;
        }
        // The config decides. An entry that turns out to be no image does not hide the others.
        let image = match complete(source, chain, manifest).await {
            Ok(image) => image,
            Err(SourceError::NotAnImage { .. }) => continue,
            Err(err) => return Err(err),
        };
        if matcher.fit(&image.platform()).is_some() {
            return Ok(image);
        }
        offered.push(image.platform().normalised());
    }
    Err(matcher.no_match(offered).into())
}

/// Reads the config of a manifest and checks what can be checked without the layers.
async fn complete(
    source: &dyn BlobSource,
    chain: Vec<VerifiedDocument>,
    manifest: Manifest,
) -> Result<ResolvedImage, SourceError> {
    let digest = chain
        .last()
        .map_or(manifest.config.digest, |last| last.descriptor.digest);
    let config_kind = manifest.config.kind();
    let not_an_image = || SourceError::NotAnImage {
        digest,
        media_type: manifest.config.media_type.clone(),
    };
    if manifest.config.media_type == "application/vnd.oci.empty.v1+json" {
        return Err(not_an_image());
    }
    if manifest.layers.len() > MAX_LAYERS {
        return Err(SourceError::Nesting {
            digest,
            problem: format!("the image has more than {MAX_LAYERS} layers"),
        });
    }
    for layer in &manifest.layers {
        if matches!(layer.kind(), MediaType::ForeignLayer(_)) {
            return Err(SourceError::ForeignLayer {
                digest: layer.digest,
                media_type: layer.media_type.clone(),
            });
        }
    }
    let body = read_blob(source, &manifest.config, MAX_CONFIG_SIZE).await?;
    let config = match ImageConfig::parse(&body, manifest.layers.len()) {
        Ok(config) => config,
        // Artifacts have configs of their own types; images with an unknown type are known to
        // exist.
        Err(ManifestError::Json { .. }) if config_kind != MediaType::ImageConfig => {
            return Err(not_an_image());
        }
        Err(cause) => {
            return Err(SourceError::Document {
                digest: manifest.config.digest,
                cause,
            });
        }
    };
    Ok(ResolvedImage {
        chain,
        config_document: VerifiedDocument {
            descriptor: manifest.config.clone(),
            body,
        },
        manifest,
        config,
        warnings: Vec::new(),
    })
}

async fn read_manifest(
    source: &dyn BlobSource,
    descriptor: &Descriptor,
) -> Result<VerifiedDocument, SourceError> {
    let stream = source.open_manifest(descriptor).await?;
    let body = read_verified(stream, descriptor, MAX_MANIFEST_SIZE).await?;
    Ok(VerifiedDocument {
        descriptor: descriptor.clone(),
        body,
    })
}

fn parse(document: &VerifiedDocument) -> Result<Document, SourceError> {
    let declared = Some(document.descriptor.media_type.as_str()).filter(|text| !text.is_empty());
    Document::parse(&document.body, declared).map_err(|cause| SourceError::Document {
        digest: document.descriptor.digest,
        cause,
    })
}

/// The platform that a config names.
pub fn config_platform(config: &ImageConfig) -> Platform {
    Platform {
        os: config.os.clone(),
        architecture: config.architecture.clone(),
        variant: config.variant.clone(),
        os_version: config.os_version.clone(),
        os_features: Vec::new(),
    }
}
