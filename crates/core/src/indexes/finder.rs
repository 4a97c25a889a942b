//! The search itself: for each layer of an image the kinds of index in turn, from the cache or from
//! where they are.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{OnceCell, Semaphore};

use tracing::Instrument;

use super::format::in_format;
use super::soci::{SOCI_V1, SociIndex};
use super::toc_image::TocImage;
use super::{IndexPolicy, MidstatesBlob, format, soci};
use crate::error::Result;
use crate::hint::Hint;
use crate::indexes::published::Published;
use crate::source::BlobSource;
use crate::store::{Finding, OpenLayer, Slot, Store, StoreError, Trust};
use imgfs_formats::layer::{LayerIndex, SpanDigest};
use imgfs_formats::oci::{Descriptor, Digest, Manifest, PublicKey};
use imgfs_formats::trust::IndexKind;

/// How long the search for one layer's index may take: a few round trips, and 1 % of a large layer
/// over a slow line. A mount can do without.
const PATIENCE: Duration = Duration::from_secs(30);
/// Layers searched for at a time: each may hold a table of contents and what is made of it.
const SEARCHES: usize = 4;

/// An index that was found, of whatever kind.
struct Discovery {
    /// The index.
    pub(crate) index: LayerIndex,
    /// The file that it came in, if it is one of ours.
    pub(crate) file: Option<Bytes>,
    /// Digest of what defines it: of the table of contents, or of the index itself.
    pub(crate) identity: Digest,
    /// How it was found.
    pub(crate) finding: Finding,
    /// What its maker wants fetched first: bytes of the blob.
    pub(crate) prefetch: Vec<Range<u64>>,
    /// Hints for checking the blob's digest, if there are any.
    pub(crate) midstates: Option<MidstatesBlob>,
}

/// A layer that can be read without being streamed.
pub(crate) struct FoundLayer {
    /// It.
    pub(crate) layer: OpenLayer,
    /// How its index came to be.
    pub(crate) finding: Finding,
    /// What its maker wants fetched first: bytes of the blob.
    pub(crate) prefetch: Vec<Range<u64>>,
    /// Hints for checking the blob's digest, if there are any.
    pub(crate) midstates: Option<MidstatesBlob>,
}

/// What a search came to.
#[derive(Default)]
pub(crate) struct Search {
    /// The layer, if an index was found.
    pub(crate) found: Option<FoundLayer>,
    /// For people: what was wrong with an index that was not used.
    pub(crate) problem: Option<String>,
}

/// Searches indexes for the layers of one image, each once.
pub(crate) struct Finder {
    store: Arc<Store>,
    source: Arc<dyn BlobSource>,
    policy: IndexPolicy,
    image: Digest,
    /// The image's annotation of it, for SOCI.
    manifest: Manifest,
    soci: [OnceCell<Option<SociIndex>>; 2],
    toc_image: TocImage,
    /// Begun when it is first needed, or by a caller that knew that it would be.
    published: OnceCell<Published>,
    turns: Semaphore,
    layers: HashMap<Digest, Slots>,
    /// What is being written down of what was found.
    writes: Mutex<Vec<tokio::task::JoinHandle<()>>>,
}

/// A layer and what was found for it, until somebody takes it.
struct Slots {
    blob: Descriptor,
    search: OnceCell<Mutex<Search>>,
}

impl Finder {
    /// Searches nothing yet. `image` is the digest of the manifest, `published` what was begun for
    /// it before.
    pub(crate) fn new(
        store: Arc<Store>,
        source: Arc<dyn BlobSource>,
        (image, manifest): (Digest, &Manifest),
        policy: IndexPolicy,
        published: Option<Published>,
        toc_image: TocImage,
    ) -> Self {
        let layer = |blob: &Descriptor| {
            let search = OnceCell::new();
            let blob = blob.clone();
            (blob.digest, Slots { blob, search })
        };
        Self {
            store,
            source,
            policy,
            image,
            manifest: manifest.clone(),
            soci: [OnceCell::new(), OnceCell::new()],
            toc_image,
            published: OnceCell::new_with(published),
            turns: Semaphore::new(SEARCHES),
            layers: manifest.layers.iter().map(layer).collect(),
            writes: Mutex::default(),
        }
    }

    /// Begins to search for all layers at once, in the background.
    pub(crate) fn start(self: &Arc<Self>) {
        for digest in self.layers.keys() {
            let (finder, digest) = (Arc::clone(self), *digest);
            let searching = async move {
                finder.search(&digest).await;
            };
            tokio::spawn(searching.in_current_span());
        }
    }

    /// What there is for a layer; a second time nothing.
    pub(crate) async fn take(&self, digest: &Digest) -> Search {
        match self.search(digest).await {
            Some(search) => {
                std::mem::take(&mut search.lock().unwrap_or_else(PoisonError::into_inner))
            }
            None => Search::default(),
        }
    }

    /// Waits until what was found so far is written down, for a caller that reads more of an index
    /// than opening a layer takes.
    pub(crate) async fn written(&self) {
        let writes =
            std::mem::take(&mut *self.writes.lock().unwrap_or_else(PoisonError::into_inner));
        for write in writes {
            if let Err(err) = write.await {
                tracing::warn!("internal: writing down an index stopped: {err}");
            }
        }
    }

    async fn search(&self, digest: &Digest) -> Option<&Mutex<Search>> {
        let layer = self.layers.get(digest)?;
        let search = async { Mutex::new(self.search_for(&layer.blob).await) };
        Some(layer.search.get_or_init(|| search).await)
    }

    async fn search_for(&self, blob: &Descriptor) -> Search {
        if self.policy.require == Trust::Proven || self.store.has_index(&blob.digest) {
            return Search::default();
        }
        let mut problem = None;
        let _turn = self.turns.acquire().await;
        let searching = tokio::time::timeout(PATIENCE, self.try_all(blob, &mut problem)).await;
        let found = match searching {
            Ok(Ok(found)) => found,
            Ok(Err(err)) => {
                problem = Some(err.to_string());
                None
            }
            Err(_) => {
                problem = Some(format!(
                    "layer {}: no index came within {} s, so all of it is fetched",
                    blob.digest.short(),
                    PATIENCE.as_secs()
                ));
                None
            }
        };
        match (&found, &problem) {
            (None, Some(problem)) => tracing::warn!("{problem}"),
            // Another one did.
            (Some(_), Some(problem)) => tracing::debug!("{problem}"),
            (_, None) => {}
        }
        let problem = problem.filter(|_| found.is_none());
        Search { found, problem }
    }

    /// Tries them in order. What was wrong with one goes to `problem`.
    async fn try_all(
        &self,
        blob: &Descriptor,
        problem: &mut Option<String>,
    ) -> Result<Option<FoundLayer>, StoreError> {
        if let Some(layer) = self.find_contents(blob, problem).await? {
            return Ok(Some(layer));
        }
        if let Some(layer) = self.find_soci(blob, Trust::Pinned, problem).await? {
            return Ok(Some(layer));
        }
        if let Some(layer) = self.published_before(blob, problem).await? {
            return Ok(Some(layer));
        }
        if !self.policy.offline
            && self.policy.wants_published()
            && let Some(found) = self.find_published(blob, problem).await
            && let Some(layer) = self.accept(blob, found, problem).await?
        {
            return Ok(Some(layer));
        }
        if self.policy.soci_v1 {
            return self.find_soci(blob, Trust::Claimed, problem).await;
        }
        Ok(None)
    }

    /// What the image's SOCI index, bound by this much, has for a layer.
    async fn find_soci(
        &self,
        blob: &Descriptor,
        trust: Trust,
        problem: &mut Option<String>,
    ) -> Result<Option<FoundLayer>, StoreError> {
        if !trust.satisfies(self.policy.require) {
            return Ok(None);
        }
        let [pinned, claimed] = &self.soci;
        let (cell, pinned) = match trust {
            Trust::Claimed => (claimed, false),
            Trust::Proven | Trust::Pinned => (pinned, true),
        };
        let search = async || self.soci_index(pinned).await;
        let Some(index) = cell.get_or_init(search).await else {
            return Ok(None);
        };
        let Some(identity) = index.ztoc(&blob.digest) else {
            return Ok(None);
        };
        let finding = Finding {
            origin: IndexKind::Soci,
            trust: index.trust,
            place: String::new(),
            key: None,
        };
        let slot = Slot::found(blob.digest, &identity);
        if let Some(layer) = self.open_kept(blob, slot.clone(), finding.clone()).await? {
            return Ok(Some(layer));
        }
        if let Some(refused) = self.refused(&slot, IndexKind::Soci)? {
            *problem = Some(refused);
            return Ok(None);
        }
        if self.policy.offline {
            return Ok(None);
        }
        match index.find(&*self.source, blob).await {
            Ok(None) => Ok(None),
            Ok(Some(found)) => {
                if let Some(list) = &found.problem {
                    tracing::warn!("{list}");
                }
                let discovery = Discovery {
                    index: found.index,
                    file: None,
                    identity,
                    finding,
                    prefetch: found.prefetch,
                    midstates: None,
                };
                self.accept(blob, discovery, problem).await
            }
            Err(err) => {
                *problem = Some(format!("{err:#}; all of the layer is fetched"));
                Ok(None)
            }
        }
    }

    /// The image's SOCI index, if it has one: the one that its manifest names, or one that says it
    /// belongs to it.
    async fn soci_index(&self, pinned: bool) -> Option<SociIndex> {
        let (store, source) = (&self.store, &*self.source);
        let found = if pinned {
            soci::pinned(store, source, &self.manifest).await
        } else {
            match source.referrers(&self.image, SOCI_V1).await {
                Ok(listed) => soci::claimed(store, source, &self.image, &listed).await,
                Err(err) => Err(err.into()),
            }
        };
        // Of an image, so not the problem of one of its layers.
        found.unwrap_or_else(|err| {
            tracing::warn!("a SOCI index is not used: {err:#}");
            None
        })
    }

    /// The table of contents that the layer's own format has, from the cache or from the blob.
    async fn find_contents(
        &self,
        blob: &Descriptor,
        problem: &mut Option<String>,
    ) -> Result<Option<FoundLayer>, StoreError> {
        let finding = |origin: IndexKind| Finding {
            origin,
            trust: Trust::Pinned,
            place: String::new(),
            key: None,
        };
        if let Some((identity, origin)) = format::pinned(blob) {
            let slot = Slot::found(blob.digest, &identity);
            if let Some(layer) = self.open_kept(blob, slot.clone(), finding(origin)).await? {
                return Ok(Some(layer));
            }
            if let Some(problem_before) = self.refused(&slot, origin)? {
                *problem = Some(problem_before);
                return Ok(None);
            }
        }
        if self.policy.offline {
            return Ok(None);
        }
        match in_format(&*self.source, blob, &self.toc_image).await {
            None => Ok(None),
            Some(Err(what)) => {
                *problem = Some(what);
                Ok(None)
            }
            Some(Ok(found)) => {
                let discovery = Discovery {
                    file: None,
                    identity: found.identity,
                    finding: finding(found.origin),
                    prefetch: found.prefetch.into_iter().collect(),
                    midstates: None,
                    index: found.index,
                };
                self.accept(blob, discovery, problem).await
            }
        }
    }

    /// That an index is bound to its layer by too little.
    fn too_little(&self, trust: Trust) -> String {
        let name = trust.name();
        let hint = Hint::AcceptTrust {
            trust: name,
            or_key: self.policy.published.key.is_none(),
        };
        format!("the index that was published for it is only {name}: {hint}")
    }

    /// What to say of an index that was refused before, if it was.
    fn refused(&self, slot: &Slot, origin: IndexKind) -> Result<Option<String>, StoreError> {
        let why = self.store.refusal(slot)?;
        Ok(why.map(|why| {
            format!(
                "layer {}: its {origin} index is not used any more ({why}), so all of it is fetched",
                slot.layer().short()
            )
        }))
    }

    /// A published index that the cache keeps.
    async fn published_before(
        &self,
        blob: &Descriptor,
        problem: &mut Option<String>,
    ) -> Result<Option<FoundLayer>, StoreError> {
        let key = self.policy.published.key.as_ref().map(PublicKey::id);
        for (slot, mut finding) in self.store.found_indexes(&blob.digest)? {
            // The others are bound by what a manifest says, if it does.
            let is_claimed = finding.trust == Trust::Claimed && finding.origin == IndexKind::Soci;
            if finding.origin != IndexKind::Published && !(is_claimed && self.policy.soci_v1) {
                continue;
            }
            // A signature counts only if it is of the key that is asked for now.
            if finding.trust == Trust::Pinned && (key.is_none() || finding.key != key) {
                finding.trust = Trust::Claimed;
            }
            if !finding.trust.satisfies(self.policy.require) {
                let layer = blob.digest.short();
                *problem = Some(format!("layer {layer}: {}", self.too_little(finding.trust)));
                continue;
            }
            if let Some(layer) = self.open_kept(blob, slot, finding).await? {
                *problem = None;
                return Ok(Some(layer));
            }
        }
        Ok(None)
    }

    /// A published index that somebody else keeps.
    async fn find_published(
        &self,
        blob: &Descriptor,
        problem: &mut Option<String>,
    ) -> Option<Discovery> {
        let begin = async || {
            let source = Arc::clone(&self.source);
            Published::start(source, self.image, self.policy.published.clone())
        };
        let published = self.published.get_or_init(begin).await;
        let usable = |index: &Digest, trust: Trust| {
            let slot = Slot::found(blob.digest, index);
            match self.refused(&slot, IndexKind::Published) {
                Ok(None) if trust.satisfies(self.policy.require) => Ok(()),
                Ok(None) => Err(self.too_little(trust)),
                Ok(Some(refused)) => Err(refused),
                Err(err) => Err(err.to_string()),
            }
        };
        let found = published.find_usable(blob, &usable).await;
        if !found.problems.is_empty() {
            *problem = Some(found.problems.join("; "));
        }
        let found = found.index?;
        let finding = found.finding();
        let is_ours = |digest: &SpanDigest| matches!(digest, SpanDigest::Own { .. });
        if !found.index.spans.iter().all(|span| is_ours(&span.digest)) {
            *problem = Some(format!(
                "layer {}: the index at {} is not used: it is not of the kind that imgfs publishes",
                blob.digest.short(),
                found.origin
            ));
            return None;
        }
        Some(Discovery {
            index: found.index,
            file: Some(found.file),
            identity: found.digest,
            finding,
            prefetch: Vec::new(),
            midstates: found.midstates,
        })
    }

    /// Opens a layer by an index that the cache keeps, if it is intact.
    async fn open_kept(
        &self,
        blob: &Descriptor,
        slot: Slot,
        finding: Finding,
    ) -> Result<Option<FoundLayer>, StoreError> {
        if self.store.refusal(&slot)?.is_some() {
            return Ok(None);
        }
        let Some(index) = self.store.cache().load_index_beside(&slot, false).await? else {
            return Ok(None);
        };
        let layer = (self.store).open_found(&self.source, blob, slot, index);
        Ok(Some(FoundLayer {
            layer: layer.await?,
            finding,
            prefetch: Vec::new(),
            midstates: None,
        }))
    }

    /// Keeps what was found and opens the layer by it; `None`, with a problem, if it cannot be
    /// used.
    async fn accept(
        &self,
        blob: &Descriptor,
        found: Discovery,
        problem: &mut Option<String>,
    ) -> Result<Option<FoundLayer>, StoreError> {
        let slot = Slot::found(blob.digest, &found.identity);
        if let Some(refused) = self.refused(&slot, found.finding.origin)? {
            *problem = Some(refused);
            return Ok(None);
        }
        let index = found.index.clone();
        let (store, kept, finding) = (Arc::clone(&self.store), slot.clone(), found.finding.clone());
        // Nobody waits for it: writing it down takes longer than finding it.
        let write = tokio::task::spawn_blocking(move || match &found.file {
            Some(file) => store.keep_found_file(&kept, file, &finding),
            None => {
                if let Err(err) = store.keep_found(&kept, &index, &finding) {
                    tracing::warn!("{err}");
                }
            }
        });
        (self.writes.lock().unwrap_or_else(PoisonError::into_inner)).push(write);
        let layer = (self.store).open_found(&self.source, blob, slot, found.index);
        Ok(Some(FoundLayer {
            layer: layer.await?,
            finding: found.finding,
            prefetch: found.prefetch,
            midstates: found.midstates,
        }))
    }
}
