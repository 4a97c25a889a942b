//! Where blobs come from: a registry, an OCI layout on disk, a docker archive.
//!
//! A [`BlobSource`] delivers bytes by descriptor and range and knows no layer's tar, no compression
//! and no store (a docker archive is itself a tar, whose headers [`DockerArchive`] lists to find
//! the blobs). The bytes that it returns are *unverified*; [`read_verified`] is the one way to get
//! a whole manifest or config, and the reader of a layer verifies its bytes, against the layer
//! digest or a span digest.
//!
//! ```text
//! open(reference) -> Limited(Retrying(Racing(Mirrored(Registry, ..)))), OciLayout or DockerArchive
//! resolve_image(source, platform)    indexes, manifest and config, each verified
//!
//! which hosts are asked       route (configuration files) -> endpoint
//! in which order, how often   limit -> retry -> race (pace) -> mirrors (health, problems)
//! one host                    search; registry (location, tags, referrers) -> transport -> auth (challenge, credentials), http (clients, failure)
//! writing to the registry     push (blob, manifest, referrer), upload; no mirrors
//! shared by all of them       network; timeouts, traffic
//! local images                layout, archive -> choose, file
//! ```

mod archive;
mod auth;
pub mod challenge;
mod choose;
mod clients;
mod credentials;
mod endpoint;
mod error;
mod failure;
mod file;
mod health;
mod http;
mod layout;
mod limit;
mod location;
mod login;
mod mirrors;
mod network;
mod options;
mod pace;
mod pages;
mod problems;
mod push;
mod race;
mod redact;
mod referrers;
mod registry;
mod resolve;
mod retry;
pub mod route;
mod search;
mod secret;
mod small_file;
mod stream;
mod tags;
mod timeouts;
mod traffic;
mod transport;
mod upload;

use std::ops::Range;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;

pub use archive::DockerArchive;
pub use credentials::{
    Credential, CredentialKey, Credentials, CredentialsError, FoundCredential, Origin,
};
pub use endpoint::{Endpoint, Scheme, Serves, Tls};
pub use error::{ServerMessage, SourceError};
pub use layout::OciLayout;
pub use login::{Login, check_login};
pub use network::Network;
pub use options::Options;
pub use push::{Placed, Pusher, push_to, push_to_mounting};
pub use registry::Registry;
pub use resolve::{
    ResolvedImage, VerifiedDocument, Watch, config_platform, image_of, image_of_watched, images_of,
    list_entry, manifests_of, resolve_image,
};
pub use route::RouteError;
pub use search::{FoundRepository, MAX_SEARCH_RESULTS, search};
pub use secret::Secret;
pub use stream::{ByteStream, Provenance};
pub use timeouts::{RetryPolicy, Timeouts};
pub use traffic::Traffic;
pub use upload::WatchUpload;

use imgfs_formats::oci::{Descriptor, Digest, Location, Platform, Reference};
use limit::Limited;
use mirrors::{Host, Mirrored};
use race::Racing;
use retry::Retrying;

/// The document that a reference points to right now.
#[derive(Debug, Clone)]
pub struct Resolved {
    /// Descriptor of the manifest or index: its digest is what everything below is verified
    /// against.
    pub descriptor: Descriptor,
    /// Its bytes, already checked against the digest, when resolving brought them anyway.
    pub body: Option<Bytes>,
}

/// A place that has the blobs of one image repository.
#[async_trait::async_trait]
pub trait BlobSource: Send + Sync {
    /// Finds out what the reference points to. `known` is the digest it had when last asked: a
    /// source that can confirm that without transferring the document does so, and answers without
    /// a body.
    async fn resolve(&self, known: Option<&Descriptor>) -> Result<Resolved, SourceError>;

    /// Opens a manifest or index by digest, whole.
    async fn open_manifest(&self, descriptor: &Descriptor) -> Result<ByteStream, SourceError>;

    /// Opens the bytes `range` of a blob (config or layer).
    async fn open(&self, blob: &Descriptor, range: Range<u64>) -> Result<ByteStream, SourceError>;

    /// Takes note that bytes of `blob` from offset `at` on were wrong, and which hosts gave them.
    /// The answer is whether asking again at once may bring the right ones.
    fn reject(&self, _blob: &Descriptor, _at: u64, _provenance: &Provenance) -> bool {
        // A file gives the same bytes again.
        false
    }

    /// The tags there are beside the one that is meant: of the repository, the layout or the
    /// archive.
    async fn tags(&self) -> Result<Vec<String>, SourceError>;

    /// The manifests of this type that say of themselves that they belong to the manifest
    /// `subject`. Nobody vouches for them, and a source without such a list gives none.
    async fn referrers(
        &self,
        _subject: &Digest,
        _artifact_type: &str,
    ) -> Result<Vec<Descriptor>, SourceError> {
        Ok(Vec::new())
    }

    /// Requests and bytes so far.
    fn traffic(&self) -> Traffic;

    /// For people: where this is, without secrets.
    fn describe(&self) -> String;

    /// How many ranges of one blob may usefully be fetched at the same time (1 when ranges are not
    /// supported).
    fn parallel_ranges(&self) -> usize;

    /// For people: how this source does worse than it should, and why. Nothing by default.
    fn shortcoming(&self) -> Option<String> {
        None
    }
}

/// Opens the source that a reference names. Sends nothing; for local images, reads what lists their
/// content, so not for an async thread.
pub fn open(reference: &Reference, options: &Options) -> Result<Arc<dyn BlobSource>, SourceError> {
    match reference.location() {
        Location::Registry {
            host,
            repository,
            tag,
            digest,
        } => {
            let route = route::route(host, repository, options)?;
            for note in &route.notes {
                tracing::warn!("{note}");
            }
            open_registry(&route.endpoints, host, tag.as_deref(), *digest, options)
        }
        Location::OciLayout { dir, tag, digest } => {
            Ok(Arc::new(OciLayout::open(dir, tag.as_deref(), *digest)?))
        }
        Location::DockerArchive { file, image } => {
            Ok(Arc::new(DockerArchive::open(file, image.as_deref())?))
        }
    }
}

/// A repository of the registry `host`, to be had at these endpoints.
fn open_registry(
    endpoints: &[Endpoint],
    host: &str,
    tag: Option<&str>,
    digest: Option<Digest>,
    options: &Options,
) -> Result<Arc<dyn BlobSource>, SourceError> {
    let problems = Arc::<problems::Problems>::default();
    let mirrored = |options: &Options| -> Result<Arc<dyn BlobSource>, SourceError> {
        let hosts = endpoints.iter().enumerate().map(|(position, endpoint)| {
            let is_last = position + 1 == endpoints.len();
            Ok(Host {
                name: endpoint.authority.clone(),
                serves: endpoint.serves,
                health: options.network.health(endpoint, is_last),
                source: Arc::new(Registry::new(endpoint.clone(), tag, digest, options)?),
            })
        });
        let hosts = hosts.collect::<Result<_, SourceError>>()?;
        let problems = Arc::clone(&problems);
        Ok(Arc::new(Mirrored::new(hosts, digest.is_some(), problems)))
    };
    let spare = Options {
        network: options.network.spare(),
        ..options.clone()
    };
    let limits = options.network.limits(host);
    let racing = Racing::new(
        mirrored(options)?,
        mirrored(&spare)?,
        &limits,
        options.timeouts.race,
    );
    let retrying = Retrying::new(Arc::new(racing), options.retry, options.timeouts.give_up);
    Ok(Arc::new(Limited::new(Arc::new(retrying), limits.reads)))
}

/// The platform of this machine.
pub fn host_platform() -> Platform {
    // Only 32-bit arm needs it; without it the common default holds.
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    Platform::host(std::env::consts::OS, std::env::consts::ARCH, &cpuinfo)
}

/// Reads a whole small blob, from the next host if one gives wrong bytes. `limit` bounds memory.
pub async fn read_blob(
    source: &dyn BlobSource,
    blob: &Descriptor,
    limit: u64,
) -> Result<Bytes, SourceError> {
    loop {
        let stream = source.open(blob, 0..blob.size.min(limit)).await?;
        let provenance = stream.provenance();
        let err = match read_verified(stream, blob, limit).await {
            Err(err @ (SourceError::Digest { .. } | SourceError::Size { .. })) => err,
            result => return result,
        };
        if !source.reject(blob, 0, &provenance) {
            return Err(err);
        }
    }
}

/// Reads a whole small blob or manifest from `stream` and checks size and digest before anyone sees
/// a byte. `limit` bounds memory. Of a document named by its digest alone
/// ([`Descriptor::UNKNOWN_SIZE`]) the digest decides.
pub async fn read_verified(
    mut stream: ByteStream,
    descriptor: &Descriptor,
    limit: u64,
) -> Result<Bytes, SourceError> {
    let expected = Some(descriptor.size).filter(|size| *size != Descriptor::UNKNOWN_SIZE);
    let too_large = |size| SourceError::TooLarge {
        digest: descriptor.digest,
        size,
        limit,
    };
    let wrong_size = |expected, found| SourceError::Size {
        digest: descriptor.digest,
        expected,
        found,
    };
    if let Some(size) = expected.filter(|size| *size > limit) {
        return Err(too_large(size));
    }
    let mut body = BytesMut::new();
    while let Some(piece) = stream.next().await {
        let piece = piece?;
        let size = (body.len() + piece.len()) as u64;
        match expected {
            Some(expected) if size > expected => return Err(wrong_size(expected, size)),
            None if size > limit => return Err(too_large(size)),
            _ => body.extend_from_slice(&piece),
        }
    }
    let found = Digest::of(descriptor.digest.algorithm(), &body);
    let size = body.len() as u64;
    if let Some(expected) = expected.filter(|expected| *expected != size) {
        return Err(wrong_size(expected, size));
    }
    if found != descriptor.digest {
        return Err(SourceError::Digest {
            expected: Box::new(descriptor.digest),
            found: Box::new(found),
        });
    }
    Ok(body.freeze())
}
