//! The image that has the tables of contents of another's layers: eStargz with an external TOC.
//!
//! It has the same name with `-esgztoc` behind the tag. Its layers are the tables, each annotated
//! with the digest of the layer that it is of. The manifest is the only one, without platforms.

use std::sync::Arc;

use tokio::sync::OnceCell;

use crate::error::Result;
use crate::source::{BlobSource, Options, SourceError, open, read_verified};
use imgfs_formats::layer::estargz::LAYER_DIGEST;
use imgfs_formats::oci::{Descriptor, Digest, Document, Location, MAX_MANIFEST_SIZE, Reference};

/// What ctr-remote and nerdctl put behind the tag.
const SUFFIX: &str = "-esgztoc";
/// What a name without a tag means.
const DEFAULT_TAG: &str = "latest";

/// That image. It is looked for when the first layer asks, once.
pub struct TocImage {
    reference: Result<Reference, &'static str>,
    options: Options,
    opened: OnceCell<Result<Opened, String>>,
}

struct Opened {
    source: Arc<dyn BlobSource>,
    tables: Vec<Descriptor>,
}

impl TocImage {
    /// The one beside the image that `reference` names.
    pub fn beside(reference: &Reference, options: &Options) -> Self {
        Self {
            reference: beside(reference),
            options: options.clone(),
            opened: OnceCell::new(),
        }
    }

    /// The table of this layer, and where it can be had.
    pub(super) async fn of(
        &self,
        layer: &Digest,
    ) -> Result<(Arc<dyn BlobSource>, Descriptor), String> {
        let reference = self.reference.as_ref().map_err(ToString::to_string)?;
        let opened = self.opened.get_or_init(|| async {
            let opened = open_image(reference, &self.options).await;
            opened.map_err(|err| format!("it should be in the image {}: {err}", reference.short()))
        });
        let opened = opened.await.as_ref().map_err(Clone::clone)?;
        let wanted = layer.to_string();
        let table = (opened.tables.iter())
            .find(|table| table.annotations.get(LAYER_DIGEST) == Some(&wanted));
        let table =
            table.ok_or_else(|| format!("the image {} has none of it", reference.short()))?;
        Ok((Arc::clone(&opened.source), table.clone()))
    }
}

async fn open_image(reference: &Reference, options: &Options) -> Result<Opened, String> {
    let words = |err: SourceError| err.to_string();
    let (reference, options) = (reference.clone(), options.clone());
    // For local images it reads files.
    let opened = tokio::task::spawn_blocking(move || open(&reference, &options)).await;
    let source = opened.map_err(|err| err.to_string())?.map_err(words)?;
    let resolved = source.resolve(None).await.map_err(words)?;
    let body = if let Some(body) = resolved.body {
        body
    } else {
        let document = &resolved.descriptor;
        let stream = source.open_manifest(document).await.map_err(words)?;
        let body = read_verified(stream, document, MAX_MANIFEST_SIZE).await;
        body.map_err(words)?
    };
    match Document::parse(&body, None) {
        Ok(Document::Manifest(manifest)) => Ok(Opened {
            source,
            tables: manifest.layers,
        }),
        Ok(Document::Index(_)) => Err("it is a list of images, not one".to_owned()),
        Err(err) => Err(err.to_string()),
    }
}

/// Its name.
fn beside(reference: &Reference) -> Result<Reference, &'static str> {
    let by_digest = "it is in another image whose tag follows from this one's, and this one is named by its digest alone";
    let with = |tag: &Option<String>, is_pinned: bool| match tag {
        Some(tag) => Ok(format!("{tag}{SUFFIX}")),
        None if is_pinned => Err(by_digest),
        None => Ok(format!("{DEFAULT_TAG}{SUFFIX}")),
    };
    let text = match reference.location() {
        Location::Registry {
            host,
            repository,
            tag,
            digest,
        } => format!("{host}/{repository}:{}", with(tag, digest.is_some())?),
        Location::OciLayout { dir, tag, digest } => {
            format!("oci:{}:{}", dir.display(), with(tag, digest.is_some())?)
        }
        Location::DockerArchive { .. } => {
            return Err("it is in another image, which a docker archive does not have");
        }
    };
    text.parse()
        .map_err(|_| "it is in another image, whose tag would be too long")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_name_follows_from_the_images() {
        let check = |image: &str, expected: Option<&str>| {
            let found = beside(&image.parse().unwrap());
            assert_eq!(found.ok().map(|it| it.to_string()).as_deref(), expected);
        };
        let digest = format!("sha256:{}", "0".repeat(64));
        check("h:5000/a/b:c", Some("h:5000/a/b:c-esgztoc"));
        check("h:5000/a/b", Some("h:5000/a/b:latest-esgztoc"));
        check(
            &format!("h:5000/a/b:c@{digest}"),
            Some("h:5000/a/b:c-esgztoc"),
        );
        check(&format!("h:5000/a/b@{digest}"), None);
        check("golang", Some("docker.io/library/golang:latest-esgztoc"));
        check("oci:/x/y:t", Some("oci:/x/y:t-esgztoc"));
        check("docker-archive:/x.tar", None);
        check(&format!("h:5000/a/b:{}", "t".repeat(125)), None);
    }
}
