//! Several hosts that have the same: a [`BlobSource`] over the registry and its mirrors.
//!
//! They are asked in their order, and the first that can answers:
//!
//! ```text
//! no answer, an error, a refusal    the next one; all leave this one alone for a while (health)
//! it does not have it               the next one, for this blob from now on
//! wrong bytes                       the next one, for this blob from now on
//! a body that breaks off            the rest from the next one, if little or nothing came (see WORTH_RESUMING)
//! ```
//!
//! A host's problem is said once. The last one's failure is the answer; where bytes of a blob are
//! wanted, a failure that may pass goes before one that will not, as somebody waits for them.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use futures_util::StreamExt;

use super::endpoint::Serves;
use super::health::{Health, Tolerance};
use super::problems::Problems;
use super::stream::Provenance;
use super::{BlobSource, ByteStream, Resolved, SourceError, Traffic, read_verified};
use imgfs_formats::oci::{Descriptor, Digest, Document, MAX_MANIFEST_SIZE};

/// Times that the last host may give wrong bytes for one place of a blob before a reader is told:
/// the second time it is hardly the network.
const LAST_HOSTS_LIES: u32 = 2;
/// A body that broke off after so many bytes is resumed at the same host: many servers cap the
/// length of an answer. With less, a mirror is not worth its requests.
const WORTH_RESUMING: u64 = 64 << 10;

/// One of the hosts.
pub(super) struct Host {
    pub(super) source: Arc<dyn BlobSource>,
    /// For people: host and port.
    pub(super) name: String,
    pub(super) serves: Serves,
    pub(super) health: Arc<Health>,
}

/// The hosts that have a repository, in the order in which they are asked.
pub(super) struct Mirrored {
    hosts: Arc<[Host]>,
    /// Whether the reference has a digest: then any host may resolve it.
    pinned: bool,
    blobs: Mutex<HashMap<Digest, Findings>>,
    problems: Arc<Problems>,
}

/// The findings about one blob.
#[derive(Default)]
struct Findings {
    /// The hosts that wrong bytes came from and that others can stand in for: they are not asked
    /// for it again.
    liars: BTreeSet<usize>,
    /// Likewise those that do not have it, until nobody else gives it either.
    without: BTreeSet<usize>,
    /// How often the last host gave wrong bytes, by where in the blob.
    last_host: BTreeMap<u64, u32>,
}

impl Mirrored {
    /// Those that list the same hosts share `problems`, so that each is said once.
    pub(super) fn new(hosts: Vec<Host>, pinned: bool, problems: Arc<Problems>) -> Self {
        Self {
            hosts: hosts.into(),
            pinned,
            blobs: Mutex::default(),
            problems,
        }
    }

    /// Goes through the hosts that may be asked what the reference means.
    fn tries_for_name(&self) -> Tries<'_> {
        Tries::new(
            self,
            self.serving(|serves| {
                if self.pinned {
                    serves.digests
                } else {
                    serves.tags
                }
            }),
        )
    }

    /// Goes through the hosts that may be asked for a blob or manifest.
    fn tries_for(&self, digest: &Digest) -> Tries<'_> {
        let mut tries = Tries::new(self, self.serving(|serves| serves.digests));
        tries.digest = Some(*digest);
        if let Some(findings) = self.blobs().get(digest) {
            tries
                .left
                .retain(|host| !findings.liars.contains(host) && !findings.without.contains(host));
        }
        tries
    }

    fn serving(&self, wanted: impl Fn(&Serves) -> bool) -> VecDeque<usize> {
        let hosts = self.hosts.iter().enumerate();
        hosts
            .filter(|(_, host)| wanted(&host.serves) && (host.serves.pinned || !self.pinned))
            .map(|(position, _)| position)
            .collect()
    }

    fn blobs(&self) -> MutexGuard<'_, HashMap<Digest, Findings>> {
        self.blobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says what is wrong with a host that others can stand in for, and keeps it for the status.
    fn report(&self, host: usize, problem: &str) {
        if let Some(one) = self.hosts.get(host) {
            self.problems.report(host, &one.name, problem);
        }
    }

    /// A host's body, whose failures are the host's.
    fn watched(&self, position: usize, tolerance: Tolerance, stream: ByteStream) -> ByteStream {
        let (hosts, problems) = (Arc::clone(&self.hosts), Arc::clone(&self.problems));
        let mut came = 0;
        let provenance = Provenance::host(position);
        ByteStream::from(
            provenance,
            stream.inspect(move |piece| match (piece, hosts.get(position)) {
                (Ok(piece), _) => came += piece.len() as u64,
                (Err(err), Some(host)) if is_hosts(err, came, tolerance) => {
                    host.health.failed(err, tolerance, Instant::now());
                    if tolerance == Tolerance::Replaceable {
                        problems.report(position, &host.name, &err.to_string());
                    }
                }
                (Err(_), _) => {}
            }),
        )
    }
}

/// Whether a body that broke off after so many bytes speaks against its host.
fn is_hosts(err: &SourceError, came: u64, tolerance: Tolerance) -> bool {
    match tolerance {
        // Servers that cut every body short are no dead servers.
        Tolerance::Last => err.is_transient() && came == 0,
        Tolerance::Replaceable => {
            matches!(err, SourceError::Timeout { .. })
                || err.is_transient() && came < WORTH_RESUMING
        }
    }
}

/// The hosts still to be asked for one thing.
struct Tries<'a> {
    all: &'a Mirrored,
    left: VecDeque<usize>,
    /// The one that no other can stand in for.
    last: Option<usize>,
    /// What is asked for, if it is a blob or manifest.
    digest: Option<Digest>,
    failure: Option<SourceError>,
    /// A failure that may pass, of whichever host.
    passing: Option<SourceError>,
}

impl<'a> Tries<'a> {
    fn new(all: &'a Mirrored, left: VecDeque<usize>) -> Self {
        Self {
            all,
            last: left.back().copied(),
            left,
            digest: None,
            failure: None,
            passing: None,
        }
    }

    fn tolerance(&self, position: usize) -> Tolerance {
        if self.last == Some(position) {
            Tolerance::Last
        } else {
            Tolerance::Replaceable
        }
    }

    /// The next host that may be asked; the last failure if there is none.
    fn next(&mut self) -> Result<(usize, &'a Host), SourceError> {
        while let Some(position) = self.left.pop_front() {
            let Some(host) = self.all.hosts.get(position) else {
                continue;
            };
            match host.health.admit(Instant::now()) {
                Ok(()) => return Ok((position, host)),
                Err(resting) => self.fail(SourceError::Resting {
                    host: host.name.clone(),
                    silent_for: resting.silent_for,
                    retry_in: resting.retry_in,
                    cause: resting.cause,
                }),
            }
        }
        if let Some(findings) = (self.digest).and_then(|digest| self.forget_without(digest)) {
            tracing::debug!("nobody gave what {findings} hosts do not have: asking them again");
        }
        Err(self.failure.take().unwrap_or_else(|| SourceError::NoHost {
            hosts: self.all.describe(),
        }))
    }

    /// Likewise for bytes that somebody waits for: as long as one host may come back, nothing is
    /// decided.
    fn next_patiently(&mut self) -> Result<(usize, &'a Host), SourceError> {
        let next = self.next();
        match (next, self.passing.take()) {
            (Err(err), Some(passing)) if !err.is_transient() => {
                if let Some(last) = self.last {
                    self.all.report(last, &err.to_string());
                }
                Err(passing)
            }
            (next, passing) => {
                self.passing = passing;
                next
            }
        }
    }

    fn forget_without(&self, digest: Digest) -> Option<usize> {
        let mut blobs = self.all.blobs();
        let findings = blobs.get_mut(&digest)?;
        let without = std::mem::take(&mut findings.without);
        (!without.is_empty()).then_some(without.len())
    }

    fn fail(&mut self, err: SourceError) {
        let before = self.failure.replace(err);
        self.passing = before
            .filter(SourceError::is_transient)
            .or(self.passing.take());
    }

    /// Takes in what a host came to: its answer, or nothing if the next one is to be asked.
    fn judge<T>(&mut self, position: usize, result: Result<T, SourceError>) -> Option<T> {
        let host = self.all.hosts.get(position)?;
        let err = match result {
            Ok(found) => {
                host.health.answered();
                return Some(found);
            }
            Err(err) => err,
        };
        let tolerance = self.tolerance(position);
        let lacks_it = matches!(err, SourceError::NotFound { .. });
        if lacks_it || tolerance == Tolerance::Last && !err.is_transient() {
            host.health.answered();
        } else {
            host.health.failed(&err, tolerance, Instant::now());
        }
        if tolerance == Tolerance::Replaceable {
            match self.digest {
                // That a mirror does not have everything is how mirrors are.
                Some(digest) if lacks_it => {
                    let mut blobs = self.all.blobs();
                    blobs.entry(digest).or_default().without.insert(position);
                }
                _ if lacks_it => {}
                _ => self.all.report(position, &err.to_string()),
            }
        }
        self.fail(err);
        None
    }
}

/// A mirror may answer with anything (a page made for browsers, say): then the others are asked
/// what a tag means.
fn check_document(host: &Host, resolved: Resolved) -> Result<Resolved, SourceError> {
    if let Some(body) = &resolved.body {
        let declared = Some(resolved.descriptor.media_type.as_str());
        let declared = declared.filter(|text| !text.is_empty());
        Document::parse(body, declared).map_err(|cause| SourceError::Protocol {
            host: host.name.clone(),
            what: "what a tag points to".to_owned(),
            problem: cause.to_string(),
        })?;
    }
    Ok(resolved)
}

#[async_trait::async_trait]
impl BlobSource for Mirrored {
    async fn resolve(&self, known: Option<&Descriptor>) -> Result<Resolved, SourceError> {
        let mut tries = self.tries_for_name();
        loop {
            let (position, host) = tries.next()?;
            let result = host.source.resolve(known).await;
            let result = match tries.tolerance(position) {
                Tolerance::Replaceable if !self.pinned => {
                    result.and_then(|resolved| check_document(host, resolved))
                }
                // By digest it is what it is.
                Tolerance::Replaceable | Tolerance::Last => result,
            };
            if let Some(resolved) = tries.judge(position, result) {
                return Ok(resolved);
            }
        }
    }

    async fn open_manifest(&self, descriptor: &Descriptor) -> Result<ByteStream, SourceError> {
        let mut tries = self.tries_for(&descriptor.digest);
        loop {
            let (position, host) = tries.next()?;
            // Small and whole, so checked at once: a mirror's wrong answer must not end the search.
            let result = match host.source.open_manifest(descriptor).await {
                Ok(stream) => read_verified(stream, descriptor, MAX_MANIFEST_SIZE).await,
                Err(err) => Err(err),
            };
            if let Some(body) = tries.judge(position, result) {
                return Ok(ByteStream::of(body));
            }
        }
    }

    async fn open(&self, blob: &Descriptor, range: Range<u64>) -> Result<ByteStream, SourceError> {
        let mut tries = self.tries_for(&blob.digest);
        loop {
            let (position, host) = tries.next_patiently()?;
            let result = host.source.open(blob, range.clone()).await;
            if let Some(stream) = tries.judge(position, result) {
                return Ok(self.watched(position, tries.tolerance(position), stream));
            }
        }
    }

    async fn tags(&self) -> Result<Vec<String>, SourceError> {
        let mut tries = Tries::new(self, self.serving(|serves| serves.tags));
        loop {
            let (position, host) = tries.next()?;
            let result = host.source.tags().await;
            if let Some(tags) = tries.judge(position, result) {
                return Ok(tags);
            }
        }
    }

    async fn referrers(
        &self,
        subject: &Digest,
        artifact_type: &str,
    ) -> Result<Vec<Descriptor>, SourceError> {
        let mut tries = Tries::new(self, self.serving(|serves| serves.digests));
        let mut somebody_answered = false;
        loop {
            let (position, host) = match tries.next() {
                Ok(next) => next,
                Err(_) if somebody_answered => return Ok(Vec::new()),
                Err(err) => return Err(err),
            };
            let err = match host.source.referrers(subject, artifact_type).await {
                Ok(referrers) => {
                    host.health.answered();
                    // That a mirror lists none says nothing: many know only images.
                    if !referrers.is_empty() {
                        return Ok(referrers);
                    }
                    somebody_answered = true;
                    continue;
                }
                Err(err) => err,
            };
            // A refusal of what few hosts are asked for is no reason to leave one alone.
            if err.is_transient() {
                let tolerance = tries.tolerance(position);
                host.health.failed(&err, tolerance, Instant::now());
            } else {
                host.health.answered();
            }
            tries.fail(err);
        }
    }

    fn reject(&self, blob: &Descriptor, at: u64, provenance: &Provenance) -> bool {
        let suspects = provenance.hosts();
        let asked = self.serving(|serves| serves.digests);
        let is_last = |host: &usize| asked.back() == Some(host);
        let problem = format!("wrong bytes of blob {} came from it", blob.digest);
        for position in &suspects {
            if let Some(host) = self.hosts.get(*position) {
                host.source.reject(blob, at, provenance);
                if is_last(position) {
                    tracing::warn!("{}: {problem}", host.name);
                } else {
                    self.report(*position, &problem);
                }
            }
        }
        let mut blobs = self.blobs();
        let findings = blobs.entry(blob.digest).or_default();
        // Of several who gave bytes any may be the liar: all are left alone, and the last host is
        // asked for all.
        let known_liars = findings.liars.len();
        findings
            .liars
            .extend(suspects.iter().filter(|host| !is_last(host)));
        let is_news = findings.liars.len() > known_liars;
        let told = findings.last_host.entry(at).or_default();
        // Where nobody is known to have given them it may have been anybody.
        let counts = suspects.iter().any(is_last) || suspects.is_empty();
        *told += u32::from(counts);
        // Each time comes nearer to an end: there is a new liar, or the last host has used up one
        // of its chances.
        let again = is_news || counts && *told < LAST_HOSTS_LIES;
        if !again {
            // The reader is told; whoever asks next starts from the beginning.
            blobs.remove(&blob.digest);
        }
        again
    }

    fn traffic(&self) -> Traffic {
        let each = self.hosts.iter().map(|host| host.source.traffic());
        each.fold(Traffic::default(), |sum, one| Traffic {
            requests: sum.requests + one.requests,
            bytes: sum.bytes + one.bytes,
        })
    }

    fn describe(&self) -> String {
        let names: Vec<String> = self
            .hosts
            .iter()
            .map(|host| host.source.describe())
            .collect();
        names.join(", then ")
    }

    fn parallel_ranges(&self) -> usize {
        let each = self.hosts.iter().map(|host| host.source.parallel_ranges());
        each.min().unwrap_or(1)
    }

    fn shortcoming(&self) -> Option<String> {
        let own = self
            .hosts
            .iter()
            .filter_map(|host| host.source.shortcoming());
        let last = self.hosts.last();
        let trouble = last.and_then(|host| host.health.trouble());
        let all: Vec<String> = (trouble.into_iter().chain(own))
            .chain(self.problems.each())
            .collect();
        (!all.is_empty()).then(|| all.join("; "))
    }
}
