//! Resolving: which image a reference means, by registry or by cache.

use std::sync::Arc;

use anyhow::Context;

use crate::oci::{Location, MAX_MANIFEST_SIZE, Platform, Reference};
use crate::source::{
    BlobSource, Options, ResolvedImage, VerifiedDocument, open, read_verified, resolve_image,
};
use crate::store::{CachedDocuments, Offline, Store};

/// Whether the source may be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pull {
    /// A tag is checked each time; what is cached by digest is not asked for again.
    Check,
    /// Nobody is asked: the cache has it or it cannot be had.
    Never,
}

/// What the user asked for.
pub struct Request {
    /// The image.
    pub reference: Reference,
    /// The platform to choose.
    pub platform: Platform,
    /// Whether the source may be asked.
    pub pull: Pull,
    /// How to reach the source.
    pub options: Options,
}

/// An image that was resolved: everything but its layers.
pub struct Image {
    /// What the user asked for, normalised.
    pub reference: Reference,
    /// Manifest and config, and how they were found.
    pub resolved: ResolvedImage,
    /// Where the layers come from.
    pub source: Arc<dyn BlobSource>,
}

impl Image {
    /// What the reference points to, as it is: a list or a manifest.
    pub async fn root(store: &Arc<Store>, request: &Request) -> anyhow::Result<VerifiedDocument> {
        let source = open_source(store, request).await?;
        let resolved = source.resolve(None).await?;
        let body = if let Some(body) = resolved.body {
            body
        } else {
            let stream = source.open_manifest(&resolved.descriptor).await?;
            read_verified(stream, &resolved.descriptor, MAX_MANIFEST_SIZE).await?
        };
        Ok(VerifiedDocument {
            descriptor: resolved.descriptor,
            body,
        })
    }

    /// Finds the image. A tag that was resolved is recorded, so that it can be mounted offline.
    pub async fn resolve(store: &Arc<Store>, request: &Request) -> anyhow::Result<Self> {
        let name = request.reference.to_string();
        let source = open_source(store, request).await?;
        let is_tag = request.reference.digest().is_none();
        let known = if is_tag {
            store.tag_record(&name)?
        } else {
            None
        };
        // Without the document itself, an answer that nothing changed would only cost a second request.
        let known = known.map(|record| record.descriptor).filter(|known| {
            store
                .document(&known.digest)
                .is_ok_and(|document| document.is_some())
        });
        let resolved = resolve_image(&*source, &request.platform, known.as_ref()).await?;
        if is_tag
            && request.pull == Pull::Check
            && let Some(root) = resolved.chain.first()
        {
            // Without this record only mounting offline by tag is lost.
            if let Err(err) = store.record_tag(&name, &root.descriptor) {
                tracing::warn!("{err}");
            }
        }
        for warning in &resolved.warnings {
            tracing::warn!("{warning}");
        }
        Ok(Self {
            reference: request.reference.clone(),
            resolved,
            source,
        })
    }
}

async fn open_source(store: &Arc<Store>, request: &Request) -> anyhow::Result<Arc<dyn BlobSource>> {
    let reference = request.reference.clone();
    let is_remote = matches!(reference.location(), Location::Registry { .. });
    let inner: Arc<dyn BlobSource> = if is_remote && request.pull == Pull::Never {
        let record = store.tag_record(&reference.to_string())?;
        Arc::new(Offline::new(reference.to_string(), record))
    } else {
        let options = request.options.clone();
        let opening = tokio::task::spawn_blocking(move || open(&reference, &options));
        opening
            .await
            .context("internal: opening the source stopped")??
    };
    let pinned = request.reference.digest().copied();
    Ok(Arc::new(CachedDocuments::new(
        inner,
        Arc::clone(store),
        pinned,
    )))
}
