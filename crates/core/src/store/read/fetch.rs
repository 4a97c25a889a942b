//! Fetching spans on demand: one fetch for each span however many wait, neighbours in one request,
//! and those ahead of the reads that `super::neighbours` chooses.
//!
//! A *run* is a stretch of neighbouring spans fetched by one range request in one task. Its spans
//! are decoded one by one as their bytes arrive, so a reader of the first does not wait for the
//! last. Spans inside a zstd frame only decode from the frame's start, so a run is widened to whole
//! chains. Of a chain that is partly in flight already the start is fetched again, only to decode
//! what follows from it.
//!
//! Spans that a reader waits for never stand behind spans that nobody has asked for. A run that is
//! waited for may go on with spans ahead, whose bytes come behind its own; all other spans ahead
//! are fetched in short runs, of which only a few are under way at a time. The rest is not queued
//! anywhere: it can be asked for as if it had never been chosen, and is forgotten when the reads
//! turn elsewhere or a fetch fails.

use std::collections::VecDeque;
use std::collections::hash_map::Entry;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::BytesMut;
use futures_util::StreamExt;
use tokio::sync::watch;
use tracing::Instrument;

use super::flights::{FlightError, FlightState, Outcome};
use super::reader::LayerReader;
use crate::source::{ByteStream, SourceError};
use crate::store::StoreError;
use imgfs_formats::layer::{Checkpoint, SpanDecoder};

/// Most compressed bytes asked for in one run (a single span or chain may have more): at 200 Mbit/s
/// a third of a second.
pub(in crate::store) const MAX_RUN: u64 = 8 << 20;
/// Most compressed bytes in one run ahead (a single span or chain may have more): half of the
/// largest window of a usual gzip layer; incompressible data comes three spans at a time. Shorter
/// ones cost a request for each span; longer ones would be in the way of a read that turns
/// elsewhere for longer.
const RUN_AHEAD: u64 = 4 << 20;
/// Runs ahead of all layers of a process at a time: those of four busy mounts, with at most 64 MiB
/// on their way.
pub(in crate::store) const ALL_RUNS_AHEAD: usize = 16;
/// Spans fetched with the first one of what looks like a program, before that is known: the bytes
/// of a round trip or two, which would be lost by waiting for the first one.
const GUESS: usize = 4;

/// Why a span that was waited for did not come.
enum Lost {
    /// By a flight of one's own, or one whose task ended.
    Own(StoreError),
    /// By another user's flight.
    Others,
}

impl LayerReader {
    /// Makes sure that the spans `ids` can be read, fetching those that are missing; `whole` is
    /// what is probably needed with them, all of it. Waits and tries again as [`super::reads`]
    /// says; a fetch that comes too late for its reader goes on and helps the next one.
    pub(super) async fn ensure(
        self: &Arc<Self>,
        ids: Range<usize>,
        whole: Range<usize>,
    ) -> Result<(), StoreError> {
        self.patiently(ids.start, || self.ensure_once(ids.clone(), whole.clone()))
            .await
    }

    /// Does `work` for a read that begins with the span `first`, again and again as far as its
    /// patience goes.
    pub(in crate::store) async fn patiently<W: Future<Output = Result<(), StoreError>>>(
        &self,
        first: usize,
        work: impl Fn() -> W,
    ) -> Result<(), StoreError> {
        if let Some(err) = self.last_failure.take(first) {
            return Err(err);
        }
        let _demanding = self.store.demand.begin();
        let mut waiting = self.store.reads.begin(self.blob.digest, &*self.source);
        loop {
            let Err(err) = waiting.limit(work()).await else {
                return Ok(());
            };
            if let Err(err) = waiting.pause(err).await {
                return Err(if waiting.was_long() {
                    self.last_failure.set(first, err)
                } else {
                    err
                });
            }
        }
    }

    async fn ensure_once(
        self: &Arc<Self>,
        ids: Range<usize>,
        whole: Range<usize>,
    ) -> Result<(), StoreError> {
        loop {
            let missing: Vec<usize> = ids.clone().filter(|id| !self.is_here(*id)).collect();
            if missing.is_empty() {
                return Ok(());
            }
            let mut waiting = Vec::new();
            let runs = self.plan(&missing, &whole, &mut waiting);
            self.start(runs);
            self.fetch_ahead();
            match self.land_all(waiting).await {
                Ok(()) => return Ok(()),
                Err(Lost::Own(err)) => return Err(err),
                // By its own source it may come.
                Err(Lost::Others) => {}
            }
        }
    }

    /// Takes note that `ids` were read from the cache: where that had been fetched ahead, it goes
    /// on.
    pub(super) fn note_read(self: &Arc<Self>, ids: Range<usize>) {
        let mut read: Option<Range<usize>> = None;
        for id in ids.filter(|id| self.shared.flights.is_first_read(*id)) {
            read.get_or_insert(id..id).end = id + 1;
        }
        let Some(read) = read else {
            return;
        };
        self.shared.flights.lock().ahead.needed(&read, true);
        self.fetch_ahead();
    }

    /// Takes note that all of `ids` is needed, of which `missing` is not here.
    pub(in crate::store) fn note_needed(self: &Arc<Self>, ids: Range<usize>, missing: &[usize]) {
        let mut state = self.shared.flights.lock();
        if let Some((needed, was_guessed)) = self.needed_now(&state, ids, missing) {
            state.ahead.needed(&needed, was_guessed);
        }
        drop(state);
        self.fetch_ahead();
    }

    /// What of `ids` nobody has needed before, and whether all of it was fetched ahead, of which
    /// `missing` is not here.
    fn needed_now(
        &self,
        state: &FlightState,
        ids: Range<usize>,
        missing: &[usize],
    ) -> Option<(Range<usize>, bool)> {
        let mut found: Option<(Range<usize>, bool)> = None;
        for id in ids {
            let was_guessed = self.shared.flights.is_first_read(id);
            let is_new = missing.binary_search(&id).is_ok() && !state.waiting.contains_key(&id);
            if was_guessed || is_new {
                let (needed, all_guessed) = found.get_or_insert((id..id, true));
                needed.end = id + 1;
                *all_guessed &= was_guessed;
            }
        }
        found
    }

    /// Fetches ahead as much as may be under way at a time. Each run that has landed calls for the
    /// next one.
    fn fetch_ahead(self: &Arc<Self>) {
        if !self.may_fetch_ahead() {
            return;
        }
        loop {
            let budgets = [
                &self.shared.flights.turns_ahead,
                &self.store.reads.runs_ahead,
                &self.store.runs_ahead,
            ];
            let turns: Result<Vec<_>, _> = (budgets.into_iter())
                .map(|budget| Arc::clone(budget).try_acquire_owned())
                .collect();
            let Ok(turns) = turns else {
                return;
            };
            let chosen = self.take_ahead(&mut self.shared.flights.lock());
            if chosen.is_empty() {
                return;
            }
            let ids: Vec<usize> = chosen.filter(|id| !self.is_marked_anew(*id)).collect();
            let runs = self.plan_exactly(&ids, &[], &mut Vec::new());
            if runs.is_empty() {
                continue;
            }
            let reader = Arc::clone(self);
            let flights = async move {
                for run in runs {
                    let reader = Arc::clone(&reader);
                    Flight { reader, run }.fetch().await;
                }
                drop(turns);
                reader.fetch_ahead();
            };
            let span = self.store.reads.span.clone();
            self.runtime.spawn(flights.instrument(span));
        }
    }

    /// Not from a server without ranges, which would send the blob from its start for each run; and
    /// not onto a full disk: what has to be kept in memory would push out what is read.
    fn may_fetch_ahead(&self) -> bool {
        self.source.parallel_ranges() > 1 && self.is_kept()
    }

    /// The next run ahead, as far as is known without reading the disk.
    fn take_ahead(&self, state: &mut FlightState) -> Range<usize> {
        let FlightState { waiting, ahead } = state;
        ahead.take(
            |id| {
                id < self.shared.spans.len()
                    && !waiting.contains_key(&id)
                    && !self.is_known_here(id)
            },
            |run| {
                let (first, last) = (
                    self.shared.spans.get(run.start),
                    self.shared.spans.get(run.end - 1),
                );
                let size = first
                    .zip(last)
                    .map(|(first, last)| last.compressed.end - first.compressed.start);
                size.is_some_and(|size| size <= RUN_AHEAD)
            },
        )
    }

    /// Fetches the spans `ids`, neighbours that are missing, and nothing ahead of them. Takes as
    /// long as it takes: the source gives up where nothing comes any more.
    pub(in crate::store) async fn fetch_exactly(
        self: &Arc<Self>,
        ids: &[usize],
    ) -> Result<(), StoreError> {
        loop {
            let mut waiting = Vec::new();
            let runs = self.plan_exactly(ids, ids, &mut waiting);
            self.start(runs);
            match self.land_all(waiting).await {
                Ok(()) => return Ok(()),
                Err(Lost::Own(err)) => return Err(err),
                Err(Lost::Others) => {}
            }
        }
    }

    fn start(self: &Arc<Self>, runs: Vec<Run>) {
        for run in runs {
            let reader = Arc::clone(self);
            let span = self.store.reads.span.clone();
            tokio::spawn(Flight { reader, run }.fetch().instrument(span));
        }
    }

    /// Waits until all that is waited for has landed.
    async fn land_all(&self, waiting: Vec<watch::Receiver<Outcome>>) -> Result<(), Lost> {
        for mut outcome in waiting {
            let result = outcome.wait_for(Option::is_some).await;
            // The sender is gone without a word only if its task died.
            let result = result.map_err(|_| Lost::Own(StoreError::Worker("fetch")))?;
            if let Some(Err(err)) = &*result {
                return Err(if err.led_by == self.store.reads.id {
                    Lost::Own(StoreError::Shared(Arc::clone(&err.cause)))
                } else {
                    Lost::Others
                });
            }
        }
        Ok(())
    }

    /// Joins the flights under way and decides on new runs for the spans `missing` (ascending) and
    /// what follows. May read the disk, but not under the lock.
    fn plan(
        &self,
        missing: &[usize],
        whole: &Range<usize>,
        waiting: &mut Vec<watch::Receiver<Outcome>>,
    ) -> Vec<Run> {
        let (Some(first), Some(last)) = (missing.first(), missing.last()) else {
            return Vec::new();
        };
        let wanted = *first..*last + 1;
        let guess = wanted.end..whole.end.min(wanted.start + GUESS);
        let mut follow = guess.clone();
        let mut state = self.shared.flights.lock();
        if let Some((now, was_guessed)) = self.needed_now(&state, wanted.clone(), missing) {
            let needed = now.start.min(whole.start)..now.end.max(whole.end);
            state.ahead.needed(&needed, was_guessed);
        }
        if guess.is_empty() && state.ahead.goes_on_at(wanted.end) {
            follow = self.take_ahead(&mut state);
        }
        drop(state);
        let mut ids: Vec<usize> = missing.to_vec();
        ids.extend(follow.filter(|id| !self.is_known_here(*id) && !self.is_marked_anew(*id)));
        self.plan_exactly(&ids, missing, waiting)
    }

    /// Likewise for the spans `ids`, of which `wanted` (ascending) are waited for.
    fn plan_exactly(
        &self,
        ids: &[usize],
        wanted: &[usize],
        waiting: &mut Vec<watch::Receiver<Outcome>>,
    ) -> Vec<Run> {
        let is_wanted = |id: &usize| wanted.binary_search(id).is_ok();
        let mut state = self.shared.flights.lock();
        let mut runs: Vec<Run> = Vec::new();
        for &id in ids {
            if let Some(outcome) = state.waiting.get(&id) {
                if is_wanted(&id) {
                    waiting.push(outcome.clone());
                }
                continue;
            }
            // Asked again under the lock: it may have arrived since, and then its flight is gone.
            if self.is_known_here(id) {
                continue;
            }
            let chain = self.shared.spans.chain(id);
            let in_flight = |link: &usize| state.waiting.contains_key(link);
            let end = chain.clone().rfind(|link| !in_flight(link));
            for link in chain.start..end.map_or(chain.start, |last| last + 1) {
                // What another flight brings is needed again where later links decode from it.
                let mut waits = None;
                if let Entry::Vacant(place) = state.waiting.entry(link) {
                    let (sender, receiver) = watch::channel(None);
                    if is_wanted(&link) {
                        waiting.push(receiver.clone());
                    } else {
                        self.shared.flights.note_guess(link);
                    }
                    place.insert(receiver);
                    waits = Some(sender);
                }
                match runs.last_mut() {
                    Some(run) if self.may_join(run, link) => run.push_back((link, waits)),
                    _ => runs.push(Run::from([(link, waits)])),
                }
            }
        }
        runs
    }

    /// Whether a span may be fetched together with the run before it.
    fn may_join(&self, run: &Run, id: usize) -> bool {
        let (Some((first, _)), Some((last, _))) = (run.front(), run.back()) else {
            return true;
        };
        let (Some(start), Some(span)) = (self.shared.spans.get(*first), self.shared.spans.get(id))
        else {
            return false;
        };
        let is_link = span.checkpoint == Checkpoint::ZstdBlock;
        last + 1 == id && (is_link || span.compressed.end - start.compressed.start <= MAX_RUN)
    }

    pub(super) fn land(
        &self,
        id: usize,
        sender: &watch::Sender<Outcome>,
        result: Result<(), Arc<StoreError>>,
    ) {
        let result = result.map_err(|cause| FlightError {
            led_by: self.store.reads.id,
            cause,
        });
        let mut state = self.shared.flights.lock();
        state.waiting.remove(&id);
        drop(state);
        sender.send_replace(Some(result));
    }

    async fn try_fetch_run(self: &Arc<Self>, run: &mut Run) -> Result<(), StoreError> {
        let layer = self.blob.digest;
        let bounds = run.front().zip(run.back());
        let (Some(first), Some(last)) = (
            bounds.and_then(|(first, _)| self.shared.spans.get(first.0)),
            bounds.and_then(|(_, last)| self.shared.spans.get(last.0)),
        ) else {
            return Ok(());
        };
        let range = first.compressed.start..last.compressed.end;
        tracing::debug!("layer {}: fetching {range:?}", layer.short());
        self.counters.fetches.fetch_add(1, Ordering::Relaxed);
        let fetch = |cause| StoreError::Fetch { layer, cause };
        let mut stream = self
            .source
            .open(&self.blob, range.clone())
            .await
            .map_err(fetch)?;
        // Bytes from `position` on that arrived and may still be needed; neighbours can share a
        // byte.
        let mut buffer = BytesMut::new();
        let mut position = range.start;
        let mut decoder = SpanDecoder::default();
        while let Some((id, span)) = run
            .front()
            .and_then(|(id, _)| Some((*id, self.shared.spans.get(*id)?)))
        {
            let skip = usize::try_from(span.compressed.start - position).unwrap_or(usize::MAX);
            // Between two spans may lie what belongs to neither.
            self.fill(&mut stream, &mut buffer, skip)
                .await
                .map_err(fetch)?;
            let _shared_or_done = buffer.split_to(skip.min(buffer.len()));
            position = span.compressed.start;
            let length =
                usize::try_from(span.compressed.end - span.compressed.start).unwrap_or(usize::MAX);
            self.fill(&mut stream, &mut buffer, length)
                .await
                .map_err(fetch)?;
            let compressed = buffer.clone().split_to(length).freeze();
            let reader = Arc::clone(self);
            let work = move || {
                let Some(span) = reader.shared.spans.get(id) else {
                    return (decoder, Ok(()));
                };
                let result = decoder
                    .decode(span, &compressed)
                    .map(|bytes| reader.accept(id, span, bytes));
                (decoder, result)
            };
            let (back, result) =
                (self.store.cores.run(work).await).ok_or(StoreError::Worker("decoding"))?;
            result.map_err(|cause| {
                let provenance = stream.provenance();
                let again = match self.keeping().get() {
                    Some(keeping) => keeping.reject_span(&span.compressed, &provenance),
                    None => self.source.reject(&self.blob, position, &provenance),
                };
                self.wrong_span(id, cause, again)
            })?;
            decoder = back;
            if let Some((id, Some(sender))) = run.pop_front() {
                self.land(id, &sender, Ok(()));
            }
        }
        Ok(())
    }

    /// Reads from the stream until the buffer has `length` bytes.
    async fn fill(
        &self,
        stream: &mut ByteStream,
        buffer: &mut BytesMut,
        length: usize,
    ) -> Result<(), SourceError> {
        while buffer.len() < length {
            let Some(piece) = stream.next().await else {
                return Err(SourceError::Size {
                    digest: self.blob.digest,
                    expected: length as u64,
                    found: buffer.len() as u64,
                });
            };
            let piece = piece?;
            self.counters
                .fetched
                .fetch_add(piece.len() as u64, Ordering::Relaxed);
            buffer.extend_from_slice(&piece);
        }
        Ok(())
    }
}

/// Neighbouring spans fetched by one request, each with the sender that tells its readers: none
/// where another flight does.
pub(super) type Run = VecDeque<(usize, Option<watch::Sender<Outcome>>)>;

/// A run under way. Dropping it tells everyone who still waits: a span that stayed among the
/// waiting without a flight could never be read again.
pub(super) struct Flight {
    pub(super) reader: Arc<LayerReader>,
    pub(super) run: Run,
}

impl Flight {
    /// Fetches the run and tells everyone who waits.
    async fn fetch(mut self) {
        let _claim = self.claim().await;
        let reader = Arc::clone(&self.reader);
        let flights = reader.cut(std::mem::take(&mut self.run));
        for mut flight in flights {
            if let Err(err) = reader.try_fetch_run(&mut flight.run).await {
                reader.shared.flights.lock().ahead.stop();
                flight.fail(&Arc::new(err));
            }
        }
    }

    /// Those that are left did not make it.
    fn fail(&mut self, err: &Arc<StoreError>) {
        for (id, sender) in self.run.drain(..) {
            if let Some(sender) = sender {
                self.reader.land(id, &sender, Err(Arc::clone(err)));
            }
        }
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.fail(&Arc::new(StoreError::Worker("fetch")));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::BlobSource;
    use crate::store::disk::LayerFiles;
    use crate::store::disk::Offline;
    use crate::store::{Slot, Store};
    use imgfs_formats::layer::{Span, SpanDigest, SpanTable};
    use imgfs_formats::oci::{Descriptor, Digest};

    /// A layer of one zstd frame, of which nothing is in the cache.
    async fn one_frame(dir: &std::path::Path, spans: u64) -> Arc<LayerReader> {
        let span = |id| Span {
            compressed: id..id + 1,
            uncompressed: id..id + 1,
            checkpoint: if id == 0 {
                Checkpoint::ZstdFrame
            } else {
                Checkpoint::ZstdBlock
            },
            digest: SpanDigest::Compressed([0; 32]),
        };
        let source: Arc<dyn BlobSource> = Arc::new(Offline::new(String::new(), None));
        Arc::new(Store::open(dir, 0).unwrap()).reader(
            SpanTable::new((0..spans).map(span).collect(), spans).unwrap(),
            Arc::new(LayerFiles::open(dir).await.unwrap()),
            &source,
            &Descriptor::of_document(Digest::sha256(b""), spans),
            Slot::own(Digest::sha256(b"")),
        )
    }

    fn land(reader: &LayerReader, run: &mut Run, count: usize) {
        for (id, sender) in run.drain(..count) {
            reader.land(id, &sender.unwrap(), Ok(()));
        }
    }

    /// On a full disk spans leave memory again. While the first ones of a frame were fetched anew,
    /// a later one was fetched without them, and nobody could decode it: "span decoded out of
    /// order".
    #[tokio::test]
    async fn a_frame_partly_in_flight_is_decoded_from_its_start() {
        let dir = tempfile::tempdir().unwrap();
        let reader = one_frame(dir.path(), 10).await;
        let plan = |id: usize| {
            assert!(!reader.is_here(id));
            let mut waiting = Vec::new();
            let mut runs = reader.plan(&[id], &(id..id + 1), &mut waiting);
            assert_eq!((runs.len(), waiting.len()), (1, 1), "span {id}");
            runs.remove(0)
        };
        let mut first = plan(0);
        land(&reader, &mut first, 4);
        let again = plan(1);
        assert!(again.iter().map(|(id, _)| *id).eq(0..4));
        land(&reader, &mut first, 6);
        let last = plan(5);
        assert!(last.iter().map(|(id, _)| *id).eq(0..10));
        let told = last.iter().filter(|(_, sender)| sender.is_some());
        assert!(told.map(|(id, _)| *id).eq(4..10));
    }

    /// A task that ended without a word once left its spans in flight for ever: every later read
    /// failed.
    #[tokio::test]
    async fn a_flight_that_ends_early_can_be_repeated() {
        let dir = tempfile::tempdir().unwrap();
        let reader = one_frame(dir.path(), 3).await;
        let mut waiting = Vec::new();
        let run = reader.plan(&[0], &(0..1), &mut waiting).remove(0);
        let reader_of_flight = Arc::clone(&reader);
        drop(Flight {
            reader: reader_of_flight,
            run,
        });
        assert!(matches!(&*waiting[0].borrow(), Some(Err(_))));
        assert_eq!(reader.plan(&[0], &(0..1), &mut waiting).len(), 1);
    }
}
