//! Racing: when a transfer stalls or crawls, the rest of it is asked for once more on another
//! connection, from the byte reached on, and the transfer that is ahead wins.
//!
//! A [`BlobSource`] around two: the usual one and one with connections of its own. A transfer is
//! slow when
//!
//! ```text
//! no answer, or no next byte     for the time that the options give
//! the bytes come                 at less than half the usual speed of this registry, with more than a second to go,
//!                                or where nothing is usual yet, at less than 128 KiB/s
//! ```
//!
//! One that brings next to nothing for long, alone or against another, is given up: the rest is
//! asked for anew.
//!
//! Only waiting for the network counts: a reader that takes the bytes slowly does not make a
//! transfer slow. Nothing that arrived is asked for twice; bytes that the loser had under way are
//! lost.

use std::future::{Future, poll_fn};
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, stream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::network::Limits;
use super::pace::{Pace, speed};
use super::stream::Provenance;
use super::{BlobSource, ByteStream, Resolved, SourceError, Traffic};
use imgfs_formats::oci::{Descriptor, Digest};

/// How often a transfer is looked at.
const LOOK: Duration = Duration::from_millis(100);
/// Time of waiting after which a speed can be told.
const OBSERVED: Duration = Duration::from_millis(400);
/// A transfer that will be over within this time is not worth another connection.
const NEARLY_DONE: Duration = Duration::from_secs(1);
/// A transfer that brings less than this in such a time of waiting is given up and begun again
/// where it stands: it would go on for ever and keep one of the few places that a registry's
/// transfers have.
const LEAST: (u64, Duration) = (20 << 10, Duration::from_secs(20));
/// Slow where nothing is usual yet, in bytes per second: what each of eight connections gets of a
/// line of 8 Mbit/s.
const CRAWL: u64 = 128 << 10;
/// Second connections for one transfer, one after the other; each has to wait twice as long as the
/// one before.
const MAX_RACES: u32 = 4;

/// Races what the source inside is slow at.
pub(super) struct Racing {
    lanes: [Arc<dyn BlobSource>; 2],
    races: Arc<Semaphore>,
    pace: Arc<Pace>,
    patience: Duration,
}

impl Racing {
    /// `patience` is how long no byte may come.
    pub(super) fn new(
        usual: Arc<dyn BlobSource>,
        spare: Arc<dyn BlobSource>,
        limits: &Limits,
        patience: Duration,
    ) -> Self {
        Self {
            lanes: [usual, spare],
            races: Arc::clone(&limits.races),
            pace: Arc::clone(&limits.pace),
            patience,
        }
    }
}

#[async_trait::async_trait]
impl BlobSource for Racing {
    async fn resolve(&self, known: Option<&Descriptor>) -> Result<Resolved, SourceError> {
        self.lanes[0].resolve(known).await
    }

    async fn open_manifest(&self, descriptor: &Descriptor) -> Result<ByteStream, SourceError> {
        self.lanes[0].open_manifest(descriptor).await
    }

    async fn open(&self, blob: &Descriptor, range: Range<u64>) -> Result<ByteStream, SourceError> {
        let mut race = Race {
            sources: self.lanes.clone(),
            races: Arc::clone(&self.races),
            pace: Arc::clone(&self.pace),
            patience: self.patience,
            blob: blob.clone(),
            range,
            runners: Vec::new(),
            started: 0,
            provenance: Provenance::default(),
            next_look: Instant::now() + LOOK,
        };
        race.start(None);
        race.until_answered().await?;
        let provenance = race.provenance.clone();
        let pieces = stream::try_unfold(race, |mut race| async move {
            let piece = race.next().await?;
            Ok(piece.map(|piece| (piece, race)))
        });
        Ok(ByteStream::from(provenance, pieces))
    }

    async fn tags(&self) -> Result<Vec<String>, SourceError> {
        self.lanes[0].tags().await
    }

    fn reject(&self, blob: &Descriptor, at: u64, provenance: &Provenance) -> bool {
        // Both list the same hosts.
        let [usual, spare] = &self.lanes;
        spare.reject(blob, at, provenance);
        usual.reject(blob, at, provenance)
    }

    async fn referrers(
        &self,
        subject: &Digest,
        artifact_type: &str,
    ) -> Result<Vec<Descriptor>, SourceError> {
        self.lanes[0].referrers(subject, artifact_type).await
    }

    fn traffic(&self) -> Traffic {
        let [usual, spare] = self.lanes.each_ref().map(|lane| lane.traffic());
        Traffic {
            requests: usual.requests + spare.requests,
            bytes: usual.bytes + spare.bytes,
        }
    }

    fn describe(&self) -> String {
        self.lanes[0].describe()
    }

    fn parallel_ranges(&self) -> usize {
        self.lanes[0].parallel_ranges()
    }

    fn shortcoming(&self) -> Option<String> {
        self.lanes[0].shortcoming()
    }
}

/// One transfer, by one runner or two.
struct Race {
    sources: [Arc<dyn BlobSource>; 2],
    races: Arc<Semaphore>,
    pace: Arc<Pace>,
    patience: Duration,
    blob: Descriptor,
    /// What is still to come.
    range: Range<u64>,
    runners: Vec<Runner>,
    /// Runners so far.
    started: u32,
    provenance: Provenance,
    next_look: Instant,
}

/// One request of a race.
struct Runner {
    state: RunnerState,
    /// Where it began, and the next byte it will give.
    start: u64,
    position: u64,
    answered: Option<Instant>,
    /// Time spent waiting for it, and the part of that since its last byte.
    waited: Duration,
    waited_in_vain: Duration,
    /// Position and time of waiting when it was last found to bring enough.
    brought_enough: (u64, Duration),
    _permit: Option<OwnedSemaphorePermit>,
}

type Opening = Pin<Box<dyn Future<Output = Result<ByteStream, SourceError>> + Send>>;

enum RunnerState {
    Opening(Opening),
    Running(ByteStream),
}

enum Event {
    Answered(usize),
    Piece(usize, Bytes),
    /// Ended with an error, or too early without one.
    Lost(usize, Option<SourceError>),
    Look,
}

impl Race {
    fn start(&mut self, permit: Option<OwnedSemaphorePermit>) {
        let source = if self.started.is_multiple_of(2) {
            &self.sources[0]
        } else {
            &self.sources[1]
        };
        self.started += 1;
        let (source, blob, range) = (Arc::clone(source), self.blob.clone(), self.range.clone());
        self.runners.push(Runner {
            state: RunnerState::Opening(Box::pin(async move { source.open(&blob, range).await })),
            start: self.range.start,
            position: self.range.start,
            answered: None,
            waited: Duration::ZERO,
            waited_in_vain: Duration::ZERO,
            brought_enough: (self.range.start, Duration::ZERO),
            _permit: permit,
        });
    }

    /// Waits for somebody's answer, so that errors show where they can be acted on.
    async fn until_answered(&mut self) -> Result<(), SourceError> {
        loop {
            match self.event().await {
                Event::Answered(_) => return Ok(()),
                Event::Lost(number, err) => self.lost(number, err)?,
                Event::Piece(..) | Event::Look => {}
            }
        }
    }

    async fn next(&mut self) -> Result<Option<Bytes>, SourceError> {
        while !self.range.is_empty() {
            match self.event().await {
                Event::Piece(number, piece) => {
                    if let Some(news) = self.take(number, piece) {
                        return Ok(Some(news));
                    }
                }
                Event::Lost(number, err) => self.lost(number, err)?,
                Event::Answered(_) | Event::Look => {}
            }
        }
        Ok(None)
    }

    /// The part of a piece that is news. A transfer that brings news after a later start than
    /// another is the faster one.
    fn take(&mut self, number: usize, mut piece: Bytes) -> Option<Bytes> {
        let runner = self.runners.get_mut(number)?;
        let known = self.range.start.saturating_sub(runner.position);
        runner.position += piece.len() as u64;
        let known = usize::try_from(known).unwrap_or(usize::MAX);
        if known >= piece.len() {
            return None;
        }
        let news = piece.split_off(known);
        self.range.start = runner.position;
        if number > 0 {
            tracing::debug!("the second connection won at byte {}", self.range.start);
            self.runners.drain(..number);
        }
        let winner = self.runners.first_mut()?;
        if self.range.is_empty()
            && let Some(answered) = winner.answered
        {
            self.pace
                .record(winner.position - winner.start, answered.elapsed());
        }
        Some(news)
    }

    /// A runner is out. An error if it was the last one.
    fn lost(&mut self, number: usize, err: Option<SourceError>) -> Result<(), SourceError> {
        self.runners.remove(number);
        if !self.runners.is_empty() {
            tracing::debug!("one of two connections broke: {err:?}");
            return Ok(());
        }
        Err(err.unwrap_or(SourceError::Size {
            digest: self.blob.digest,
            expected: self.blob.size,
            found: self.range.start,
        }))
    }

    async fn event(&mut self) -> Event {
        let before = Instant::now();
        let next_look = self.next_look;
        let runners = &mut self.runners;
        let mut look = std::pin::pin!(tokio::time::sleep_until(next_look));
        let event = poll_fn(|context| {
            for (number, runner) in runners.iter_mut().enumerate() {
                if let Poll::Ready(event) = runner.poll(number, context) {
                    return Poll::Ready(event);
                }
            }
            look.as_mut().poll(context).map(|()| Event::Look)
        })
        .await;
        let now = Instant::now();
        for runner in &mut self.runners {
            runner.waited += now - before;
            runner.waited_in_vain += now - before;
        }
        match &event {
            Event::Answered(number) | Event::Piece(number, _) => {
                if let Some(runner) = self.runners.get_mut(*number) {
                    runner.waited_in_vain = Duration::ZERO;
                    if runner.answered.is_none() {
                        runner.answered = Some(now);
                        // The time until the answer says nothing about speed.
                        runner.waited = Duration::ZERO;
                        runner.brought_enough.1 = Duration::ZERO;
                        if let RunnerState::Running(stream) = &runner.state {
                            self.provenance.add(&stream.provenance());
                        }
                    }
                }
            }
            Event::Lost(..) | Event::Look => {}
        }
        if now >= self.next_look {
            self.next_look = now + LOOK;
            self.look();
        }
        match (event, self.brings_too_little()) {
            (Event::Look, Some(number)) => Event::Lost(
                number,
                Some(SourceError::Timeout {
                    host: self.sources[0].describe(),
                    what: format!("blob {}", self.blob.digest),
                    waited_for: "more than a few bytes",
                    limit: LEAST.1,
                }),
            ),
            (event, _) => event,
        }
    }

    /// A runner that is to be given up.
    fn brings_too_little(&mut self) -> Option<usize> {
        let (least, time) = LEAST;
        self.runners.iter_mut().position(|runner| {
            let (position, waited) = runner.brought_enough;
            if runner.answered.is_none() || runner.waited < waited + time {
                return false;
            }
            if runner.position - position < least {
                return true;
            }
            runner.brought_enough = (runner.position, runner.waited);
            false
        })
    }

    /// Starts a second runner if the only one is slow.
    fn look(&mut self) {
        let [runner] = &self.runners[..] else {
            return;
        };
        // A server without ranges would give the second one everything from the beginning.
        let has_ranges = self.sources[0].parallel_ranges() > 1;
        if self.started > MAX_RACES || !has_ranges || !self.is_slow(runner) {
            return;
        }
        if let Ok(permit) = Arc::clone(&self.races).try_acquire_owned() {
            tracing::debug!(
                "blob {}: bytes {}-{} are slow, asking on a second connection",
                self.blob.digest.short(),
                self.range.start,
                self.range.end
            );
            self.start(Some(permit));
        }
    }

    fn is_slow(&self, runner: &Runner) -> bool {
        let factor = 1 << (self.started - 1);
        if runner.waited_in_vain >= self.patience * factor {
            return true;
        }
        if runner.answered.is_none() || runner.waited < OBSERVED * factor {
            return false;
        }
        let found = speed(runner.position - runner.start, runner.waited);
        let to_come = self.range.end - runner.position;
        if found.saturating_mul(NEARLY_DONE.as_secs()) >= to_come {
            return false;
        }
        match self.pace.usual() {
            Some(usual) => found < usual / 2,
            None => runner.waited >= self.patience * factor && found < CRAWL,
        }
    }
}

impl Runner {
    fn poll(&mut self, number: usize, context: &mut Context<'_>) -> Poll<Event> {
        match &mut self.state {
            RunnerState::Opening(opening) => {
                opening.as_mut().poll(context).map(|opened| match opened {
                    Ok(stream) => {
                        self.state = RunnerState::Running(stream);
                        Event::Answered(number)
                    }
                    Err(err) => Event::Lost(number, Some(err)),
                })
            }
            RunnerState::Running(stream) => {
                Pin::new(stream)
                    .poll_next(context)
                    .map(|piece| match piece {
                        Some(Ok(piece)) => Event::Piece(number, piece),
                        Some(Err(err)) => Event::Lost(number, Some(err)),
                        None => Event::Lost(number, None),
                    })
            }
        }
    }
}
