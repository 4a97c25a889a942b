//! Several hosts that have the same: a [`BlobSource`] over the registry and its mirrors.
//!
//! They are asked in their order. One that fails, does not have it, or gives wrong bytes is passed over for the next
//! one, and that is said once; the last one's failure is the answer. A host that is dead rests meanwhile
//! ([`super::health`]).

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use futures_util::StreamExt;

use super::endpoint::Serves;
use super::health::{Health, Tolerance};
use super::stream::Provenance;
use super::{BlobSource, ByteStream, Resolved, SourceError, Traffic, read_verified};
use crate::oci::{Descriptor, Digest, MAX_MANIFEST_SIZE};

/// Times that the last host may give wrong bytes for one place of a blob before a reader is told: the second time
/// it is hardly the network.
const LAST_HOSTS_LIES: u32 = 2;

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
    /// Of which blobs wrong bytes came.
    lies: Mutex<HashMap<Digest, Lies>>,
    /// The last problem of each host that was passed over.
    problems: Mutex<BTreeMap<usize, String>>,
}

/// Wrong bytes of one blob.
#[derive(Default)]
struct Lies {
    /// The hosts they came from that others can stand in for: they are not asked for this blob again.
    liars: BTreeSet<usize>,
    /// How often the last host gave them, by where in the blob.
    last_host: BTreeMap<u64, u32>,
}

impl Mirrored {
    pub(super) fn new(hosts: Vec<Host>, pinned: bool) -> Self {
        Self {
            hosts: hosts.into(),
            pinned,
            lies: Mutex::default(),
            problems: Mutex::default(),
        }
    }

    fn tolerance(&self, host: usize) -> Tolerance {
        if host + 1 == self.hosts.len() {
            Tolerance::Last
        } else {
            Tolerance::Replaceable
        }
    }

    /// Goes through the hosts that may be asked for a blob or manifest.
    fn tries_for(&self, digest: &Digest) -> Tries<'_> {
        let mut left = self.serving(|serves| serves.digests);
        if let Some(lies) = self.lies().get(digest) {
            left.retain(|host| !lies.liars.contains(host));
        }
        Tries::new(self, left)
    }

    fn serving(&self, wanted: impl Fn(&Serves) -> bool) -> VecDeque<usize> {
        let hosts = self.hosts.iter().enumerate();
        hosts
            .filter(|(_, host)| wanted(&host.serves))
            .map(|(position, _)| position)
            .collect()
    }

    fn lies(&self) -> MutexGuard<'_, HashMap<Digest, Lies>> {
        self.lies.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says once what is wrong with a host that others can stand in for, and keeps it for the status.
    fn report(&self, host: usize, problem: &str) {
        let Some(name) = self.hosts.get(host).map(|host| &host.name) else {
            return;
        };
        let mut problems = self.problems.lock().unwrap_or_else(PoisonError::into_inner);
        if problems.insert(host, problem.to_owned()).is_none() {
            tracing::warn!("{name} is passed over for the next host: {problem}");
        } else {
            tracing::debug!("{name} is passed over for the next host: {problem}");
        }
    }

    /// A host's body, whose failures are the host's.
    fn watched(&self, position: usize, stream: ByteStream) -> ByteStream {
        let hosts = Arc::clone(&self.hosts);
        let tolerance = self.tolerance(position);
        let mut came = false;
        let provenance = Provenance::host(position);
        ByteStream::from(
            provenance,
            stream.inspect(move |piece| match (piece, hosts.get(position)) {
                // Servers that cut every body short are no dead servers.
                (Err(err), Some(host)) if err.is_transient() && !came => {
                    host.health.failed(err, tolerance, Instant::now());
                }
                _ => came = true,
            }),
        )
    }
}

/// The hosts still to be asked for one thing.
struct Tries<'a> {
    all: &'a Mirrored,
    left: VecDeque<usize>,
    failure: Option<SourceError>,
}

impl<'a> Tries<'a> {
    fn new(all: &'a Mirrored, left: VecDeque<usize>) -> Self {
        Self {
            all,
            left,
            failure: None,
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
                Err(resting) => {
                    self.failure = Some(SourceError::Resting {
                        host: host.name.clone(),
                        silent_for: resting.silent_for,
                        retry_in: resting.retry_in,
                        cause: resting.cause,
                    });
                }
            }
        }
        Err(self.failure.take().unwrap_or_else(|| SourceError::NoHost {
            hosts: self.all.describe(),
        }))
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
        if err.is_transient() {
            let tolerance = self.all.tolerance(position);
            host.health.failed(&err, tolerance, Instant::now());
        } else {
            host.health.answered();
        }
        // That a mirror does not have everything is how mirrors are.
        let is_usual = matches!(err, SourceError::NotFound { .. });
        if !self.left.is_empty() && !is_usual {
            self.all.report(position, &err.to_string());
        }
        self.failure = Some(err);
        None
    }
}

#[async_trait::async_trait]
impl BlobSource for Mirrored {
    async fn resolve(&self, known: Option<&Descriptor>) -> Result<Resolved, SourceError> {
        let left = self.serving(|serves| {
            if self.pinned {
                serves.digests
            } else {
                serves.tags
            }
        });
        let mut tries = Tries::new(self, left);
        loop {
            let (position, host) = tries.next()?;
            let result = host.source.resolve(known).await;
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
            let (position, host) = tries.next()?;
            let result = host.source.open(blob, range.clone()).await;
            if let Some(stream) = tries.judge(position, result) {
                return Ok(self.watched(position, stream));
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

    fn reject(&self, blob: &Descriptor, at: u64, provenance: &Provenance) -> bool {
        let suspects = provenance.hosts();
        let problem = format!("wrong bytes of blob {} came from it", blob.digest);
        for position in &suspects {
            if let Some(host) = self.hosts.get(*position) {
                host.source.reject(blob, at, provenance);
                match self.tolerance(*position) {
                    Tolerance::Replaceable => self.report(*position, &problem),
                    Tolerance::Last => tracing::warn!("{}: {problem}", host.name),
                }
            }
        }
        let mut all_lies = self.lies();
        let lies = all_lies.entry(blob.digest).or_default();
        let is_last = |host: &usize| self.tolerance(*host) == Tolerance::Last;
        // Of several who gave bytes any may be the liar: all are left alone, and the last host is asked for all.
        lies.liars
            .extend(suspects.iter().filter(|host| !is_last(host)));
        let others = self.serving(|serves| serves.digests);
        let others = others
            .iter()
            .any(|host| !lies.liars.contains(host) && !is_last(host));
        let told = lies.last_host.entry(at).or_default();
        *told += u32::from(suspects.iter().any(is_last));
        let again = others || *told < LAST_HOSTS_LIES;
        if !again {
            // The reader is told; whoever asks next starts from the beginning.
            all_lies.remove(&blob.digest);
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
        let problems = self.problems.lock().unwrap_or_else(PoisonError::into_inner);
        let passed_over = problems.iter().filter_map(|(position, problem)| {
            let name = &self.hosts.get(*position)?.name;
            Some(format!("{name} was passed over: {problem}"))
        });
        let own = self
            .hosts
            .iter()
            .filter_map(|host| host.source.shortcoming());
        let last = self.hosts.last();
        let trouble = last.and_then(|host| host.health.trouble());
        let all: Vec<String> = trouble.into_iter().chain(own).chain(passed_over).collect();
        (!all.is_empty()).then(|| all.join("; "))
    }
}
