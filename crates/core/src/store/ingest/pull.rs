//! Bringing all of a layer into the cache beforehand.
//!
//! ```text
//! no index      first contact, which keeps the blob's bytes until it is done    (first_contact.rs, partial.rs)
//! an index      every span that is not here, in long runs, a few at a time      (fetch.rs)
//! ```
//!
//! Either way an end at any moment costs no more than what was on its way, and the next pull goes
//! on from there.

use std::ops::Range;
use std::sync::Arc;

use futures_util::{TryStreamExt, stream};

use super::first_contact::{PassOptions, Progress};
use crate::source::BlobSource;
use crate::store::read::{LayerReader, MAX_RUN};
use crate::store::{OpenLayer, Store, StoreError};
use imgfs_formats::oci::Descriptor;

impl Store {
    /// Opens a layer like [`Store::open_layer`]; if it has to be streamed and that is broken off,
    /// the next time goes on from where it ended.
    pub async fn open_layer_resumably(
        self: &Arc<Self>,
        source: &Arc<dyn BlobSource>,
        blob: &Descriptor,
        progress: &Progress,
    ) -> Result<OpenLayer, StoreError> {
        let options = PassOptions {
            keep: true,
            ..PassOptions::default()
        };
        self.open_keeping(source, blob, options, progress).await
    }
}

impl LayerReader {
    /// Brings every span that is not here into the cache. What is here is checked first, so this
    /// may read all of it. Must run on the runtime.
    pub async fn fetch_all(self: &Arc<Self>, progress: &Progress) -> Result<(), StoreError> {
        let missing = self.missing(0..self.spans().len()).await?;
        let lacking: u64 = missing.iter().map(|id| self.compressed_size(*id)).sum();
        progress.begin(self.blob().size.saturating_sub(lacking));
        self.fetch_missing(&missing, Some(progress)).await?;
        progress.finish(self.blob().size);
        self.check_kept()
    }

    /// Brings the spans that lie in the bytes `part` of the blob into the cache: what an index's
    /// maker wants fetched first.
    pub async fn prefetch(self: &Arc<Self>, part: Range<u64>) -> Result<(), StoreError> {
        let first = (self.spans()).first_in_blob(part.start);
        let end = (self.spans()).first_in_blob(part.end);
        let missing = self.missing(first..end).await?;
        self.fetch_missing(&missing, None).await
    }

    /// Brings what is missing of the uncompressed bytes `ranges` into the cache, in long runs, a
    /// few at a time, for who reads all of them soon. Does nothing where nothing can be kept: what
    /// would have to stay in memory until then has limits.
    pub async fn fetch_beforehand(
        self: &Arc<Self>,
        ranges: &[Range<u64>],
    ) -> Result<(), StoreError> {
        let mut ids: Vec<usize> = (ranges.iter())
            .flat_map(|range| self.spans().covering(range.clone()))
            .collect();
        ids.sort_unstable();
        ids.dedup();
        let mut missing = Vec::new();
        for neighbours in ids.chunk_by(|id, next| id + 1 == *next) {
            if let (Some(first), Some(last)) = (neighbours.first(), neighbours.last()) {
                missing.extend(self.missing(*first..*last + 1).await?);
            }
        }
        if missing.is_empty() || !self.is_kept() {
            return Ok(());
        }
        self.fetch_missing(&missing, None).await
    }

    /// Makes sure that the spans of the uncompressed bytes `ranges` can be read, as patiently as
    /// one read. What was fetched when it fails is kept, so that another attempt may succeed. If
    /// `is_read`, somebody reads them, and others may be read next.
    pub async fn fetch_ranges(
        self: &Arc<Self>,
        ranges: &[Range<u64>],
        is_read: bool,
    ) -> Result<(), StoreError> {
        let first = (ranges.first()).map_or(0, |range| self.spans().covering(range.clone()).start);
        if let Some(err) = self.last_failure(first) {
            return Err(err);
        }
        for range in ranges {
            let ids = self.spans().covering(range.clone());
            let missing = self.missing(ids.clone()).await?;
            if is_read {
                self.note_needed(ids, &missing);
            }
            // Each run has the time of a read: a large program over a slow line takes longer than
            // one.
            let parallel = self.source().parallel_ranges().max(1);
            stream::iter(self.runs(&missing).into_iter().map(Ok))
                .try_for_each_concurrent(parallel, |run| async move {
                    self.patiently(first, || self.fetch_exactly(&run)).await
                })
                .await?;
        }
        Ok(())
    }

    /// Whether the cache says that it has the uncompressed bytes `range`. Looks at the marks only.
    pub fn is_marked_here(&self, range: Range<u64>) -> bool {
        (self.spans().covering(range)).all(|id| {
            self.is_known_here(id) || self.files().is_marked(id).is_ok_and(|is_marked| is_marked)
        })
    }

    /// That all of it is in the cache: not if the disk is full.
    pub fn check_kept(&self) -> Result<(), StoreError> {
        let counters = self.counters();
        if counters.cached == counters.size {
            return Ok(());
        }
        let dir = self.store().layer_dir(self.slot());
        let cause = "it cannot be written: is the disk full?";
        Err(StoreError::io("keep all of", &dir)(std::io::Error::other(
            cause,
        )))
    }

    /// Those of the spans that are not here, or not right. Reads and hashes the others, so not on
    /// this thread.
    pub(in crate::store) async fn missing(
        self: &Arc<Self>,
        ids: Range<usize>,
    ) -> Result<Vec<usize>, StoreError> {
        let reader = Arc::clone(self);
        let checked = move || ids.filter(|id| !reader.is_here(*id)).collect();
        let missing = self.store().cores().run(checked).await;
        missing.ok_or(StoreError::Worker("checking"))
    }

    /// Fetches these spans, a few runs at a time.
    pub(in crate::store) async fn fetch_missing(
        self: &Arc<Self>,
        ids: &[usize],
        progress: Option<&Progress>,
    ) -> Result<(), StoreError> {
        let parallel = self.source().parallel_ranges().max(1);
        stream::iter(self.runs(ids).into_iter().map(Ok))
            .try_for_each_concurrent(parallel, |run| async move {
                self.fetch_patiently(&run).await?;
                if let Some(progress) = progress {
                    progress.add(run.iter().map(|id| self.compressed_size(*id)).sum());
                }
                Ok(())
            })
            .await
    }

    /// Fetches a run, however long it takes, as long as failures pass in time.
    async fn fetch_patiently(self: &Arc<Self>, run: &[usize]) -> Result<(), StoreError> {
        let mut waiting = self
            .store()
            .reads
            .begin(self.blob().digest, &**self.source());
        loop {
            match self.fetch_exactly(run).await {
                Ok(()) => return Ok(()),
                Err(err) => waiting.pause(err).await?,
            }
        }
    }

    /// Cuts ascending spans into neighbours that are worth one request each.
    fn runs(&self, ids: &[usize]) -> Vec<Vec<usize>> {
        let mut runs: Vec<Vec<usize>> = Vec::new();
        let mut size = 0;
        for id in ids {
            let more = self.compressed_size(*id);
            match runs.last_mut() {
                Some(run)
                    if run.last().map(|last| last + 1) == Some(*id) && size + more <= MAX_RUN =>
                {
                    run.push(*id);
                    size += more;
                }
                _ => {
                    runs.push(vec![*id]);
                    size = more;
                }
            }
        }
        runs
    }

    fn compressed_size(&self, id: usize) -> u64 {
        (self.spans().get(id)).map_or(0, |span| span.compressed.end - span.compressed.start)
    }
}
