//! Fetching spans on demand: one fetch for each span however many wait, neighbours in one request, and reading
//! ahead when the reads are sequential.
//!
//! A *run* is a stretch of neighbouring spans fetched by one range request in one task. Its spans are decoded
//! one by one as their bytes arrive, so who waits for the first does not wait for the last. Spans inside a
//! zstd frame only decode from the frame's start, so a run is widened to whole chains. Of a chain that is partly in
//! flight already the start is fetched again, only to decode what follows from it.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::BytesMut;
use futures_util::StreamExt;
use tokio::sync::watch;

use super::StoreError;
use super::patience::LastFailure;
use super::reader::LayerReader;
use crate::layer::{Checkpoint, SpanDecoder};
use crate::source::{ByteStream, SourceError};

/// Most compressed bytes asked for in one run (a single span or chain may have more): at 200 Mbit/s a third of
/// a second.
pub(super) const MAX_RUN: u64 = 8 << 20;
/// Most spans read ahead: at a third of a MiB each about the transfer of two round trips at 200 Mbit/s.
const MAX_AHEAD: usize = 16;

pub(super) type Outcome = Option<Result<(), Arc<StoreError>>>;

/// The spans being fetched, and how sequential the reads are.
#[derive(Default)]
pub(super) struct Flights {
    state: Mutex<FlightState>,
    pub(super) last_failure: LastFailure,
}

impl Flights {
    /// Whether nothing is being fetched.
    pub(super) fn are_none(&self) -> bool {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.waiting.is_empty()
    }
}

#[derive(Default)]
struct FlightState {
    waiting: HashMap<usize, watch::Receiver<Outcome>>,
    ahead: ReadAhead,
}

/// Grows while reads go on where the last fetch ended or inside of what it still brings, and shrinks at once when
/// they do not.
#[derive(Default)]
struct ReadAhead {
    /// The furthest spans asked for by this sequence of reads.
    last: Range<usize>,
    /// First span behind the last fetch.
    next: usize,
    /// How many spans to fetch beyond those asked for.
    window: usize,
}

impl ReadAhead {
    /// A read needs the missing spans `wanted`: how far to fetch.
    fn extend(&mut self, wanted: &Range<usize>) -> usize {
        // A network slower than the reader is met inside the window: there the spans are on their way. Several
        // requests of the kernel may also wait for one span.
        let sequential = self.next > 0 && (self.last.start..=self.next).contains(&wanted.start);
        if !sequential {
            self.window = 0;
            self.next = wanted.end;
            self.last = wanted.clone();
        } else if wanted.end > self.last.end {
            // Each span on its own would be a request on its own: only when half of the window is used up.
            if self.next.saturating_sub(wanted.end) <= self.window / 2 {
                self.window = (self.window * 2).clamp(1, MAX_AHEAD);
                self.next = self.next.max(wanted.end + self.window);
            }
            self.last = wanted.clone();
        }
        self.next
    }
}

impl LayerReader {
    /// Makes sure that the spans `ids` can be read, fetching those that are missing. Waits and tries again as
    /// [`super::patience`] says; a fetch that comes too late for its reader goes on and helps the next one.
    pub(super) async fn ensure(self: &Arc<Self>, ids: Range<usize>) -> Result<(), StoreError> {
        self.patiently(ids.start, || self.ensure_once(ids.clone()))
            .await
    }

    /// Does `work` for a read that begins with the span `first`, again and again as far as its patience goes.
    pub(super) async fn patiently<W: Future<Output = Result<(), StoreError>>>(
        &self,
        first: usize,
        work: impl Fn() -> W,
    ) -> Result<(), StoreError> {
        if let Some(err) = self.flights.last_failure.take(first) {
            return Err(err);
        }
        let _demanding = self.store.demand.begin();
        let mut waiting = self.store.patience.begin(self.blob.digest, &*self.source);
        loop {
            let Err(err) = waiting.limit(work()).await else {
                return Ok(());
            };
            if let Err(err) = waiting.pause(err).await {
                return Err(if waiting.was_long() {
                    self.flights.last_failure.set(first, err)
                } else {
                    err
                });
            }
        }
    }

    async fn ensure_once(self: &Arc<Self>, ids: Range<usize>) -> Result<(), StoreError> {
        let missing: Vec<usize> = ids.filter(|id| !self.is_here(*id)).collect();
        let (Some(first), Some(last)) = (missing.first(), missing.last()) else {
            return Ok(());
        };
        let wanted = *first..*last + 1;
        let mut waiting = Vec::new();
        let runs = self.plan(wanted, &missing, &mut waiting);
        self.fly(runs, waiting).await
    }

    /// Fetches the spans `ids`, neighbours that are missing, and nothing ahead of them. Takes as long as it takes: the
    /// source gives up where nothing comes any more.
    pub(super) async fn fetch_exactly(self: &Arc<Self>, ids: &[usize]) -> Result<(), StoreError> {
        let mut waiting = Vec::new();
        let runs = self.plan_exactly(ids, ids, &mut waiting);
        self.fly(runs, waiting).await
    }

    /// Starts these runs and waits until all that is waited for has landed.
    async fn fly(
        self: &Arc<Self>,
        runs: Vec<Run>,
        waiting: Vec<watch::Receiver<Outcome>>,
    ) -> Result<(), StoreError> {
        for run in runs {
            let reader = Arc::clone(self);
            tokio::spawn(Flight { reader, run }.fetch());
        }
        for mut outcome in waiting {
            let result = outcome.wait_for(Option::is_some).await;
            // The sender is gone without a word only if its task died.
            let result = result.map_err(|_| StoreError::Worker("fetch"))?;
            if let Some(Err(err)) = &*result {
                return Err(StoreError::Shared(Arc::clone(err)));
            }
        }
        Ok(())
    }

    /// Joins the flights under way and decides on new runs. May read the disk, but not under the lock.
    fn plan(
        &self,
        wanted: Range<usize>,
        missing: &[usize],
        waiting: &mut Vec<watch::Receiver<Outcome>>,
    ) -> Vec<Run> {
        let lock = || {
            let state = self.flights.state.lock();
            state.unwrap_or_else(PoisonError::into_inner)
        };
        let far = lock().ahead.extend(&wanted).min(self.spans.len());
        let mut ids: Vec<usize> = missing.to_vec();
        ids.extend((wanted.end..far).filter(|id| !self.is_here(*id)));
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
        let mut state = self
            .flights
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
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
            let chain = self.spans.chain(id);
            let in_flight = |link: &usize| state.waiting.contains_key(link);
            let end = chain.clone().rfind(|link| !in_flight(link));
            for link in chain.start..end.map_or(chain.start, |last| last + 1) {
                // What another flight brings is needed again where later links decode from it.
                let mut waits = None;
                if let Entry::Vacant(place) = state.waiting.entry(link) {
                    let (sender, receiver) = watch::channel(None);
                    if is_wanted(&link) {
                        waiting.push(receiver.clone());
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
        let (Some(start), Some(span)) = (self.spans.get(*first), self.spans.get(id)) else {
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
        let mut state = self
            .flights
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        state.waiting.remove(&id);
        drop(state);
        sender.send_replace(Some(result));
    }

    async fn try_fetch_run(self: &Arc<Self>, run: &mut Run) -> Result<(), StoreError> {
        use std::sync::atomic::Ordering;
        let layer = self.blob.digest;
        let bounds = run.front().zip(run.back());
        let (Some(first), Some(last)) = (
            bounds.and_then(|(first, _)| self.spans.get(first.0)),
            bounds.and_then(|(_, last)| self.spans.get(last.0)),
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
        // Bytes from `position` on that arrived and may still be needed; neighbours can share a byte.
        let mut buffer = BytesMut::new();
        let mut position = range.start;
        let mut decoder = SpanDecoder::default();
        while let Some((id, span)) = run
            .front()
            .and_then(|(id, _)| Some((*id, self.spans.get(*id)?)))
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
            let turn = Arc::clone(&self.store.decoders).acquire_owned().await;
            let reader = Arc::clone(self);
            let work = move || {
                let _turn = turn;
                let Some(span) = reader.spans.get(id) else {
                    return (decoder, Ok(()));
                };
                let result = decoder
                    .decode(span, &compressed)
                    .map(|bytes| reader.accept(id, span, bytes));
                (decoder, result)
            };
            let (back, result) = tokio::task::spawn_blocking(work)
                .await
                .map_err(|_| StoreError::Worker("decoding"))?;
            result.map_err(|cause| {
                let again = self
                    .source
                    .reject(&self.blob, position, &stream.provenance());
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
        use std::sync::atomic::Ordering;
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

/// Neighbouring spans fetched by one request, each with who is to be told: nobody where another flight does.
pub(super) type Run = VecDeque<(usize, Option<watch::Sender<Outcome>>)>;

/// A run under way. Dropping it tells everyone who still waits: a span that stayed among the waiting without a
/// flight could never be read again.
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
    use crate::layer::{Span, SpanDigest, SpanTable};
    use crate::oci::{Descriptor, Digest};
    use crate::store::files::LayerFiles;
    use crate::store::{Offline, Slot, Store};

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
        LayerReader::new(
            Arc::new(Store::open(dir, 0).unwrap()),
            SpanTable::new((0..spans).map(span).collect(), spans).unwrap(),
            Arc::new(LayerFiles::open(dir).await.unwrap()),
            Arc::new(Offline::new(String::new(), None)),
            Descriptor::of_document(Digest::sha256(b""), spans),
            Slot::own(Digest::sha256(b"")),
        )
    }

    fn land(reader: &LayerReader, run: &mut Run, count: usize) {
        for (id, sender) in run.drain(..count) {
            reader.land(id, &sender.unwrap(), Ok(()));
        }
    }

    /// On a full disk spans leave memory again. While the first ones of a frame were fetched anew, a later one was
    /// fetched without them, and nobody could decode it: "span decoded out of order".
    #[tokio::test]
    async fn a_frame_partly_in_flight_is_decoded_from_its_start() {
        let dir = tempfile::tempdir().unwrap();
        let reader = one_frame(dir.path(), 10).await;
        let plan = |id: usize| {
            assert!(!reader.is_here(id));
            let mut waiting = Vec::new();
            let mut runs = reader.plan(id..id + 1, &[id], &mut waiting);
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

    /// A task that ended without a word once left its spans in flight for ever: every later read failed.
    #[tokio::test]
    async fn a_flight_that_ends_early_can_be_repeated() {
        let dir = tempfile::tempdir().unwrap();
        let reader = one_frame(dir.path(), 3).await;
        let mut waiting = Vec::new();
        let run = reader.plan(0..1, &[0], &mut waiting).remove(0);
        let reader_of_flight = Arc::clone(&reader);
        drop(Flight {
            reader: reader_of_flight,
            run,
        });
        assert!(matches!(&*waiting[0].borrow(), Some(Err(_))));
        assert_eq!(reader.plan(0..1, &[0], &mut waiting).len(), 1);
    }

    #[test]
    fn reading_ahead_grows_with_sequential_reads_only() {
        let mut ahead = ReadAhead::default();
        assert_eq!(ahead.extend(&(4..5)), 5);
        assert_eq!(ahead.extend(&(5..6)), 7);
        assert_eq!(ahead.extend(&(7..8)), 10);
        assert_eq!(ahead.extend(&(10..11)), 15);
        assert_eq!(ahead.extend(&(100..101)), 101, "elsewhere: nothing ahead");
        assert_eq!(ahead.extend(&(3..4)), 4);
    }

    #[test]
    fn a_reader_faster_than_the_network_still_reads_ahead() {
        let mut ahead = ReadAhead::default();
        ahead.extend(&(0..1));
        assert_eq!(ahead.extend(&(1..2)), 3);
        assert_eq!(ahead.extend(&(2..3)), 5, "2 is on its way");
        assert_eq!(ahead.extend(&(3..4)), 8, "half of the window is used up");
        assert_eq!(ahead.extend(&(3..4)), 8, "the same span again");
        assert_eq!(ahead.extend(&(4..5)), 8, "not yet half");
        assert_eq!(ahead.extend(&(5..6)), 14);
    }
}
