//! Fetching spans on demand: one fetch for each span however many wait, neighbours in one request, and reading
//! ahead when the reads are sequential.
//!
//! A *run* is a stretch of neighbouring spans fetched by one range request in one task. Its spans are decoded
//! one by one as their bytes arrive, so who waits for the first does not wait for the last. Spans inside a
//! zstd frame only decode from the frame's start, so a run is widened to whole chains.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::BytesMut;
use futures_util::StreamExt;
use tokio::sync::watch;

use super::StoreError;
use super::reader::LayerReader;
use crate::layer::SpanDecoder;
use crate::source::{ByteStream, SourceError};

/// Most compressed bytes asked for in one run (a single span or chain may have more): at 200 Mbit/s a third of
/// a second.
const MAX_RUN: u64 = 8 << 20;
/// Most spans read ahead: at a third of a MiB each about the transfer of two round trips at 200 Mbit/s.
const MAX_AHEAD: usize = 16;

/// Longest time one read waits for its spans: a program that waits for a read cannot be killed meanwhile. The
/// fetch itself goes on and helps the next read.
const READ_DEADLINE: Duration = Duration::from_secs(60);

type Outcome = Option<Result<(), Arc<StoreError>>>;

/// The spans being fetched, and how sequential the reads are.
#[derive(Default)]
pub(super) struct Flights {
    state: Mutex<FlightState>,
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
    /// Makes sure that the spans `ids` can be read, fetching those that are missing.
    pub(super) async fn ensure(self: &Arc<Self>, ids: Range<usize>) -> Result<(), StoreError> {
        let missing: Vec<usize> = ids.filter(|id| !self.is_here(*id)).collect();
        let (Some(first), Some(last)) = (missing.first(), missing.last()) else {
            return Ok(());
        };
        let wanted = *first..*last + 1;
        let mut waiting = Vec::new();
        for run in self.plan(wanted, &missing, &mut waiting) {
            let reader = Arc::clone(self);
            tokio::spawn(async move { reader.fetch_run(run).await });
        }
        let deadline = tokio::time::Instant::now() + READ_DEADLINE;
        for mut outcome in waiting {
            let result = tokio::time::timeout_at(deadline, outcome.wait_for(Option::is_some)).await;
            let result = result.map_err(|_| StoreError::Deadline {
                layer: self.blob.digest,
                limit: READ_DEADLINE,
            })?;
            // The sender is gone without a word only if its task died.
            let result = result.map_err(|_| StoreError::Worker("fetch"))?;
            if let Some(Err(err)) = &*result {
                return Err(StoreError::Shared(Arc::clone(err)));
            }
        }
        Ok(())
    }

    /// Joins the flights under way and decides on new runs; no waiting happens under the lock.
    fn plan(
        &self,
        wanted: Range<usize>,
        missing: &[usize],
        waiting: &mut Vec<watch::Receiver<Outcome>>,
    ) -> Vec<Run> {
        let mut state = self
            .flights
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let far = state.ahead.extend(&wanted).min(self.spans.len());
        let mut ids: Vec<usize> = missing.to_vec();
        ids.extend((wanted.end..far).filter(|id| !self.is_here(*id)));
        let mut runs: Vec<Run> = Vec::new();
        for id in ids {
            if let Some(outcome) = state.waiting.get(&id) {
                if wanted.contains(&id) {
                    waiting.push(outcome.clone());
                }
                continue;
            }
            for link in self.spans.chain(id) {
                // Asked again under the lock: it may have arrived since, and then its flight is gone.
                if state.waiting.contains_key(&link) || (link == id && self.is_here(link)) {
                    continue;
                }
                let (sender, receiver) = watch::channel(None);
                if wanted.contains(&link) && missing.contains(&link) {
                    waiting.push(receiver.clone());
                }
                state.waiting.insert(link, receiver);
                match runs.last_mut() {
                    Some(run) if self.may_join(run, link) => run.spans.push((link, sender)),
                    _ => runs.push(Run {
                        spans: vec![(link, sender)],
                    }),
                }
            }
        }
        runs
    }

    /// Whether a span may be fetched together with the run before it.
    fn may_join(&self, run: &Run, id: usize) -> bool {
        let (Some((first, _)), Some((last, _))) = (run.spans.first(), run.spans.last()) else {
            return true;
        };
        let (Some(start), Some(span)) = (self.spans.get(*first), self.spans.get(id)) else {
            return false;
        };
        let is_link = self.spans.chain(id).start != id;
        last + 1 == id && (is_link || span.compressed.end - start.compressed.start <= MAX_RUN)
    }

    /// Fetches a run and tells everyone who waits.
    async fn fetch_run(self: Arc<Self>, run: Run) {
        let mut run = run.spans.into_iter();
        let result = self.try_fetch_run(&mut run).await;
        // Those that are left did not make it.
        let result = result.map_err(Arc::new);
        for (id, sender) in run {
            let unfinished = Err(Arc::new(StoreError::Worker("fetch")));
            self.land(id, &sender, result.clone().and(unfinished));
        }
    }

    fn land(
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

    async fn try_fetch_run(
        self: &Arc<Self>,
        run: &mut std::vec::IntoIter<(usize, watch::Sender<Outcome>)>,
    ) -> Result<(), StoreError> {
        use std::sync::atomic::Ordering;
        let layer = self.blob.digest;
        let bounds = run.as_slice().first().zip(run.as_slice().last());
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
            .as_slice()
            .first()
            .and_then(|(id, _)| Some((*id, self.spans.get(*id)?)))
        {
            let skip = usize::try_from(span.compressed.start - position).unwrap_or(usize::MAX);
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
                (
                    decoder,
                    result.map_err(|cause| StoreError::Span {
                        layer,
                        span: id,
                        cause,
                    }),
                )
            };
            let (back, result) = tokio::task::spawn_blocking(work)
                .await
                .map_err(|_| StoreError::Worker("decoding"))?;
            result?;
            decoder = back;
            if let Some((id, sender)) = run.next() {
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

/// Neighbouring spans fetched by one request, each with who is to be told.
struct Run {
    spans: Vec<(usize, watch::Sender<Outcome>)>,
}

#[cfg(test)]
mod tests {
    use super::*;

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
