//! Resolving: which image a reference means, by registry or by cache.
//!
//! ```text
//!           tag, known and cached              tag, not cached   digest
//! always    asked; an error if nobody answers  asked             asked for what is not cached
//! newer     asked; the cache if nobody answers asked             the same
//! missing   the cache                          asked             the same
//! never     the cache                          an error          the cache, or an error
//! ```

use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::error::{EngineError, ErrorKind, Expected, Result, fail};
use crate::hint::Hint;
use crate::indexes::published::Published;
use crate::indexes::{Finder, IndexPolicy, TocImage};
use crate::source::{
    BlobSource, Options, Resolved, ResolvedImage, SourceError, VerifiedDocument, image_of_watched,
    images_of, manifests_of, open, read_verified,
};
use crate::store::{CachedDocuments, Offline, Store, TagRecord};
use imgfs_formats::oci::{
    Descriptor, Digest, Location, MAX_MANIFEST_SIZE, Manifest, Platform, Reference,
};

/// How long a registry may take to say what a tag means when the cache could answer instead: a
/// connection, a token and two requests over a slow line, but not the half minute for which a fetch
/// that nothing can replace goes on.
const PATIENCE: Duration = Duration::from_secs(6);

/// When the registry is asked what a tag means, as podman has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Pull {
    /// It must answer.
    Always,
    /// It is asked; if it cannot be reached, what the cache knows is used.
    #[default]
    Newer,
    /// Only about what the cache does not know.
    Missing,
    /// Nobody is asked for anything: the cache has it or it cannot be had.
    Never,
}

impl Pull {
    /// What users write.
    pub const NAMES: [&str; 4] = ["always", "newer", "missing", "never"];
}

impl FromStr for Pull {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "always" => Ok(Self::Always),
            "newer" => Ok(Self::Newer),
            "missing" => Ok(Self::Missing),
            "never" => Ok(Self::Never),
            _ => Err(format!("{text:?} is none of {}", Self::NAMES.join(", "))),
        }
    }
}

/// What the user asked for.
#[derive(Clone)]
pub struct Request {
    /// The image.
    pub reference: Reference,
    /// What else a short name may mean: tried in order if that cannot be had.
    pub others: Vec<Reference>,
    /// The platform to choose.
    pub platform: Platform,
    /// When the source is asked.
    pub pull: Pull,
    /// How to reach the source.
    pub options: Options,
    /// Which indexes may be used for layers that were never streamed here.
    pub indexes: IndexPolicy,
}

impl Request {
    /// For people: the image, or all that it may be.
    pub fn name(&self) -> String {
        let all = std::iter::once(&self.reference).chain(&self.others);
        let all: Vec<String> = all.map(Reference::to_string).collect();
        all.join(" or ")
    }
}

/// How current the answer is. Times in Unix seconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Freshness {
    /// The reference has a digest: it means the same for ever.
    Pinned,
    /// The source said so just now.
    Asked {
        /// Now.
        checked: u64,
    },
    /// Nobody was asked, as the user wished.
    Unasked {
        /// When its source was last asked.
        checked: u64,
    },
    /// The source was asked and did not answer.
    Unreachable {
        /// When it last did.
        checked: u64,
        /// Its host.
        host: String,
        /// Why not.
        why: String,
    },
}

impl Freshness {
    /// When the source last said what the reference means; `None` if that cannot change.
    pub fn checked(&self) -> Option<u64> {
        match self {
            Self::Pinned => None,
            Self::Asked { checked }
            | Self::Unasked { checked }
            | Self::Unreachable { checked, .. } => Some(*checked),
        }
    }
}

/// An image that was resolved: everything but its layers.
#[derive(Clone)]
pub struct Image {
    /// What the user asked for, normalised.
    pub reference: Reference,
    /// Manifest and config, and how they were found.
    pub resolved: ResolvedImage,
    /// Where the layers come from.
    pub source: Arc<dyn BlobSource>,
    /// How current that is.
    pub freshness: Freshness,
    /// What finds indexes of its layers.
    pub(crate) finder: Arc<Finder>,
}

impl Image {
    /// What the reference points to, as it is: a list or a manifest.
    pub async fn root(
        store: &Arc<Store>,
        request: &Request,
    ) -> Result<(VerifiedDocument, Freshness)> {
        let (name, found) = find(store, request, async |_, source, resolved| {
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
        })
        .await?;
        found.record_answer(store, &name).await;
        Ok((found.made, found.freshness))
    }

    /// The manifests that are listed where the reference points to, each with its entry in the
    /// list. A single manifest lists itself.
    pub async fn manifests(
        store: &Arc<Store>,
        request: &Request,
    ) -> Result<(Vec<(Descriptor, Manifest)>, Freshness)> {
        let (name, found) = find(store, request, async |_, source, resolved| {
            manifests_of(&**source, resolved).await
        })
        .await?;
        found.record_answer(store, &name).await;
        let (_, listed) = found.made;
        Ok((listed, found.freshness))
    }

    /// Finds the image. A tag that was asked for is recorded, so that it can be mounted offline.
    pub async fn resolve(store: &Arc<Store>, request: &Request) -> Result<Self> {
        Self::resolve_watched(store, request, &|_| {}).await
    }

    /// The same for a caller that will open all layers: the search for their indexes begins as soon
    /// as the layers are known. Must run on the runtime.
    pub async fn resolve_to_open(store: &Arc<Store>, request: &Request) -> Result<Self> {
        Self::resolve_watched(store, request, &Finder::start).await
    }

    /// The same; `begin` is told of the finder when the layers are known, before the image is
    /// complete.
    async fn resolve_watched(
        store: &Arc<Store>,
        request: &Request,
        begin: &(dyn Fn(&Arc<Finder>) + Send + Sync),
    ) -> Result<Self> {
        let (reference, found) = find(store, request, async |reference, source, resolved| {
            let (finder, published) = (Mutex::new(None), Mutex::new(None));
            let watch = |document: &Descriptor, manifest: Option<&Manifest>| {
                let mut published = published.lock().unwrap_or_else(PoisonError::into_inner);
                let Some(manifest) = manifest else {
                    *published = begin_published(store, source, document, request);
                    return;
                };
                let manifest = (document.digest, manifest);
                let begun = published.take();
                let new = new_finder(store, source, reference, manifest, request, begun);
                begin(&new);
                *finder.lock().unwrap_or_else(PoisonError::into_inner) = Some(new);
            };
            let image = image_of_watched(&**source, resolved, &request.platform, &watch).await?;
            // The last one that was announced is the one that was chosen.
            let finder = finder.into_inner().unwrap_or_else(PoisonError::into_inner);
            let finder =
                finder.unwrap_or_else(|| finder_of(store, source, reference, &image, request));
            Ok((image, finder))
        })
        .await?;
        let Answer {
            made: (resolved, finder),
            source,
            freshness,
            tag,
        } = found;
        warn(&resolved);
        let name = reference.to_string();
        store.record_image(&name, tag.as_ref(), &resolved).await;
        Ok(Self {
            reference,
            resolved,
            source,
            freshness,
            finder,
        })
    }

    /// Finds the images of all platforms.
    pub async fn resolve_all(store: &Arc<Store>, request: &Request) -> Result<Vec<Self>> {
        let (reference, found) = find(store, request, async |_, source, resolved| {
            images_of(&**source, resolved).await
        })
        .await?;
        let Answer {
            made: images,
            source,
            freshness,
            tag,
        } = found;
        images.iter().for_each(warn);
        let name = reference.to_string();
        for image in &images {
            store.record_image(&name, tag.as_ref(), image).await;
        }
        Ok(images
            .into_iter()
            .map(|resolved| Self {
                reference: reference.clone(),
                finder: finder_of(store, &source, &reference, &resolved, request),
                resolved,
                source: Arc::clone(&source),
                freshness: freshness.clone(),
            })
            .collect())
    }

    /// The tags of the reference's repository, layout or archive, with the reference that it is of
    /// those that the request may mean.
    pub async fn tags(request: &Request) -> Result<(Reference, Vec<String>)> {
        if request.pull == Pull::Never {
            return Err(EngineError::with_hint(
                ErrorKind::NotFound,
                format_args!(
                    "{}: the cache does not know what tags there are",
                    request.name()
                ),
                Hint::AskRegistry { offline: false },
            ));
        }
        let mut failure = None;
        for reference in std::iter::once(&request.reference).chain(&request.others) {
            match open_source(reference, request).await?.tags().await {
                Ok(tags) => return Ok((reference.clone(), tags)),
                Err(err) => failure = Some(err),
            }
        }
        Err(failure.expected("no reference")?.into())
    }
}

/// Begins to look for published indexes while the manifest is fetched. Of an image that was here
/// before it is as a rule known what indexes there are.
fn begin_published(
    store: &Arc<Store>,
    source: &Arc<dyn BlobSource>,
    manifest: &Descriptor,
    request: &Request,
) -> Option<Published> {
    let policy = &request.indexes;
    let is_known = store
        .document(&manifest.digest)
        .is_ok_and(|known| known.is_some());
    let begins = policy.wants_published() && !policy.offline && !is_known;
    begins.then(|| {
        let source = Arc::clone(source);
        Published::start(source, manifest.digest, policy.published.clone())
    })
}

fn new_finder(
    store: &Arc<Store>,
    source: &Arc<dyn BlobSource>,
    reference: &Reference,
    manifest: (Digest, &Manifest),
    request: &Request,
    published: Option<Published>,
) -> Arc<Finder> {
    let (store, source) = (Arc::clone(store), Arc::clone(source));
    let policy = request.indexes.clone();
    let toc_image = TocImage::beside(reference, &request.options);
    Arc::new(Finder::new(
        store, source, manifest, policy, published, toc_image,
    ))
}

fn finder_of(
    store: &Arc<Store>,
    source: &Arc<dyn BlobSource>,
    reference: &Reference,
    image: &ResolvedImage,
    request: &Request,
) -> Arc<Finder> {
    // An image always has a manifest; without its digest nothing published would be found.
    let digest = image.manifest_digest().copied();
    let digest = digest.unwrap_or(image.manifest.config.digest);
    new_finder(
        store,
        source,
        reference,
        (digest, &image.manifest),
        request,
        None,
    )
}

fn warn(image: &ResolvedImage) {
    for warning in &image.warnings {
        tracing::warn!("{warning}");
    }
}

/// What a request led to.
struct Answer<T> {
    /// What was made of it.
    made: T,
    source: Arc<dyn BlobSource>,
    freshness: Freshness,
    /// What the tag points to, if its source said so just now. To be recorded: without that only
    /// mounting offline by tag is lost.
    tag: Option<Descriptor>,
}

impl<T> Answer<T> {
    /// Notes what the tag points to where no image is recorded with it.
    async fn record_answer(&self, store: &Store, reference: &Reference) {
        if let Some(tag) = &self.tag {
            store.record_answer(&reference.to_string(), tag).await;
        }
    }
}

/// Finds the first of the names that the request may mean, and makes something of it with
/// `complete`.
async fn find<T>(
    store: &Arc<Store>,
    request: &Request,
    complete: impl AsyncFn(&Reference, &Arc<dyn BlobSource>, Resolved) -> Result<T, SourceError>,
) -> Result<(Reference, Answer<T>)> {
    let mut failures = Vec::new();
    for reference in std::iter::once(&request.reference).chain(&request.others) {
        match find_one(store, request, reference, &complete).await {
            Ok(found) => return Ok((reference.clone(), found)),
            Err(err) if request.others.is_empty() => return Err(err),
            Err(err) => {
                // As podman does: whatever the reason is, the next one is tried. It may be another
                // image, so say it.
                tracing::warn!("not {reference}: {err:#}");
                failures.push(format!("{reference}: {err:#}"));
            }
        }
    }
    fail!(
        NotFound,
        "none of these is there:\n  {}",
        failures.join("\n  ")
    )
}

/// Finds out what the reference means, as far as the request allows by asking, and makes something
/// of that with `complete`, which may be called a second time with what the cache knows.
async fn find_one<T>(
    store: &Arc<Store>,
    request: &Request,
    reference: &Reference,
    complete: &impl AsyncFn(&Reference, &Arc<dyn BlobSource>, Resolved) -> Result<T, SourceError>,
) -> Result<Answer<T>> {
    let name = reference.to_string();
    let pinned = reference.digest().copied();
    let record = match pinned {
        Some(_) => None,
        None => store.tag_record(&name)?,
    };
    // Without the document itself, an answer that nothing changed would only cost a second request.
    let known = record.clone().filter(|known| {
        let document = store.document(&known.descriptor.digest);
        document.is_ok_and(|document| document.is_some())
    });
    let is_remote = matches!(reference.location(), Location::Registry { .. });
    let unasked = match (request.pull, &known) {
        (Pull::Missing, known) if is_remote => known.as_ref(),
        (Pull::Never, _) if is_remote => record.as_ref(),
        _ => None,
    };
    let source: Arc<dyn BlobSource> = if is_remote && request.pull == Pull::Never {
        Arc::new(Offline::new(name.clone(), record.clone()))
    } else {
        open_source(reference, request).await?
    };
    let source = cached(source, store, pinned);
    if let Some(record) = unasked {
        let made = complete(reference, &source, answer_of(record)).await?;
        let checked = record.checked;
        return Ok(Answer {
            made,
            source,
            freshness: Freshness::Unasked { checked },
            tag: None,
        });
    }
    let asked = async {
        let resolved = ask(&*source, request.pull, known.as_ref()).await?;
        let root = resolved.descriptor.clone();
        Ok::<_, SourceError>((complete(reference, &source, resolved).await?, root))
    };
    match (asked.await, &known) {
        (Ok((made, root)), _) => {
            let checked = SystemTime::now().duration_since(UNIX_EPOCH);
            let checked = checked.map_or(0, |since| since.as_secs());
            let (freshness, tag) = match pinned {
                Some(_) => (Freshness::Pinned, None),
                None => (Freshness::Asked { checked }, Some(root)),
            };
            Ok(Answer {
                made,
                source,
                freshness,
                tag,
            })
        }
        (Err(err), Some(record)) if request.pull == Pull::Newer && err.is_transient() => {
            // What of it is not here either cannot be had: then the first error is what matters.
            let nowhere = Offline::new(name, None);
            let here = cached(Arc::new(nowhere), store, None);
            let Ok(made) = complete(reference, &here, answer_of(record)).await else {
                return Err(err.into());
            };
            let Location::Registry { host, .. } = reference.location() else {
                return Err(err.into());
            };
            let unreachable = Freshness::Unreachable {
                checked: record.checked,
                host: host.clone(),
                why: err.to_string(),
            };
            Ok(Answer {
                made,
                source,
                freshness: unreachable,
                tag: None,
            })
        }
        (Err(err), _) => Err(err.into()),
    }
}

/// Asks what the reference means. Where the cache can answer instead, not for long.
async fn ask(
    source: &dyn BlobSource,
    pull: Pull,
    known: Option<&TagRecord>,
) -> Result<Resolved, SourceError> {
    let resolving = source.resolve(known.map(|known| &known.descriptor));
    if pull != Pull::Newer || known.is_none() {
        return resolving.await;
    }
    match tokio::time::timeout(PATIENCE, resolving).await {
        Ok(resolved) => resolved,
        Err(_) => Err(SourceError::Timeout {
            host: source.describe(),
            what: "the tag".to_owned(),
            waited_for: "an answer",
            limit: PATIENCE,
        }),
    }
}

fn answer_of(record: &TagRecord) -> Resolved {
    Resolved {
        descriptor: record.descriptor.clone(),
        body: None,
    }
}

async fn open_source(reference: &Reference, request: &Request) -> Result<Arc<dyn BlobSource>> {
    let (reference, options) = (reference.clone(), request.options.clone());
    let opening = tokio::task::spawn_blocking(move || open(&reference, &options));
    Ok(opening.await.expected("opening the source stopped")??)
}

fn cached(
    inner: Arc<dyn BlobSource>,
    store: &Arc<Store>,
    pinned: Option<Digest>,
) -> Arc<dyn BlobSource> {
    Arc::new(CachedDocuments::new(
        inner,
        Arc::clone(store.cache()),
        pinned,
    ))
}
