//! Where published indexes are looked for: among the referrers of an image, and in a repository by
//! layer digest.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;

use crate::error::Result;
use crate::hint::Hint;
use crate::source::{BlobSource, Options, SourceError, open, read_verified};
use imgfs_formats::oci::{
    Artifact, Descriptor, Digest, INDEX_ARTIFACT, Location, MAX_MANIFEST_SIZE, Reference,
};

/// Artifacts of one image that are read, of those that are listed: one for each who publishes.
const MAX_ARTIFACTS: usize = 8;
/// How long a lookup may take: a registry that hangs must not hold up a mount that can do without.
const PATIENCE: Duration = Duration::from_secs(5);

/// What was found.
#[derive(Default)]
pub(super) struct Lookup {
    pub(super) artifacts: Vec<FoundArtifact>,
    /// Where the files are, if that is not where the image is.
    pub(super) source: Option<Arc<dyn BlobSource>>,
    pub(super) problems: Vec<String>,
}

/// An artifact and where it was, for people.
pub(super) struct FoundArtifact {
    pub(super) manifest: Artifact,
    pub(super) origin: String,
}

/// Looks among what belongs to an image.
pub(super) async fn of_image(source: &dyn BlobSource, image: &Digest) -> Lookup {
    let mut lookup = Lookup::default();
    let listing = source.referrers(image, INDEX_ARTIFACT);
    let listed = match tokio::time::timeout(PATIENCE, listing).await {
        Ok(Ok(listed)) => listed,
        Ok(Err(err)) => {
            let problem = format!("whether an index is published is not known: {err}");
            lookup.problems.push(problem);
            return lookup;
        }
        Err(_) => {
            lookup.problems.push(too_slow(&source.describe()));
            return lookup;
        }
    };
    let reading = listed
        .iter()
        .take(MAX_ARTIFACTS)
        .map(|descriptor| read_artifact(source, descriptor, image));
    for (descriptor, read) in listed.iter().zip(join_all(reading).await) {
        match read {
            Ok(artifact) => lookup.artifacts.push(artifact),
            Err(problem) => lookup.problems.push(format!(
                "the published indexes {} are of no use: {problem}",
                descriptor.digest
            )),
        }
    }
    lookup
}

async fn read_artifact(
    source: &dyn BlobSource,
    descriptor: &Descriptor,
    image: &Digest,
) -> Result<FoundArtifact, String> {
    let reading = async {
        let stream = source.open_manifest(descriptor).await?;
        read_verified(stream, descriptor, MAX_MANIFEST_SIZE).await
    };
    let body = match tokio::time::timeout(PATIENCE, reading).await {
        Ok(body) => body.map_err(|err| err.to_string())?,
        Err(_) => return Err(too_slow(&source.describe())),
    };
    let manifest = Artifact::parse(&body).map_err(|err| err.to_string())?;
    let subject = manifest.subject.as_ref().map(|subject| &subject.digest);
    if subject != Some(image) {
        return Err("they do not say that they belong to this image".to_owned());
    }
    Ok(FoundArtifact {
        manifest,
        origin: format!("{}@{}", source.describe(), descriptor.digest),
    })
}

/// Looks in a repository of indexes.
pub(super) async fn of_layer(repository: &Reference, layer: &Digest, options: &Options) -> Lookup {
    let mut lookup = Lookup::default();
    let reference = match tagged(repository, layer) {
        Ok(reference) => reference,
        Err(problem) => {
            lookup.problems.push(problem);
            return lookup;
        }
    };
    let reading = async {
        let (name, options) = (reference.clone(), options.clone());
        let source = tokio::task::spawn_blocking(move || open(&name, &options)).await;
        let source = source.map_err(|_| "the program ends".to_owned())?;
        let source = source.map_err(|err| err.to_string())?;
        let resolved = match source.resolve(None).await {
            Ok(resolved) => resolved,
            // It has none: that is no problem.
            Err(SourceError::NotFound { .. }) => return Ok(None),
            Err(err) => return Err(err.to_string()),
        };
        let body = resolved.body.unwrap_or_default();
        let manifest = Artifact::parse(&body).map_err(|err| err.to_string())?;
        let artifact = FoundArtifact {
            manifest,
            origin: reference.to_string(),
        };
        Ok(Some((source, artifact)))
    };
    match tokio::time::timeout(PATIENCE, reading).await {
        Ok(Ok(Some((source, artifact)))) => {
            lookup.artifacts.push(artifact);
            lookup.source = Some(source);
        }
        Ok(Ok(None)) => {}
        Ok(Err(problem)) => lookup.problems.push(format!(
            "the published index {reference} is of no use: {problem}"
        )),
        Err(_) => lookup.problems.push(too_slow(&reference.to_string())),
    }
    lookup
}

/// The name of a layer's index in a repository of indexes.
pub(crate) fn tagged(repository: &Reference, layer: &Digest) -> Result<Reference, String> {
    let Location::Registry {
        host, repository, ..
    } = repository.location()
    else {
        return Err(format!(
            "{repository} is in no registry: {}",
            Hint::IndexRepository
        ));
    };
    let name = format!("{host}/{repository}:{}", layer.tag());
    name.parse()
        .map_err(|err: imgfs_formats::oci::ReferenceError| err.to_string())
}

fn too_slow(place: &str) -> String {
    format!(
        "whether an index is published is not known: {place} did not answer within {} s",
        PATIENCE.as_secs()
    )
}
