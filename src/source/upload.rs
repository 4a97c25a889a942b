//! A blob on its way from one place to another: passed on piece by piece, checked before its last byte leaves, watched.
//!
//! ```text
//! source ── hashed ── one piece held back ──> request's body      the last piece leaves once all of it has the digest
//! ```
//!
//! So wrong bytes never make up a whole blob elsewhere, and memory holds two pieces whatever the size. A request that is sent
//! again opens the source anew.

use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use std::{fmt, io};

use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};

use super::error::SourceError;
use super::{BlobSource, ByteStream};
use crate::oci::{Descriptor, Digester};

/// Is told how many bytes have left; less than before when it begins anew.
pub type WatchUpload = Arc<dyn Fn(u64) + Send + Sync>;

/// A blob to be passed on.
#[derive(Clone)]
pub(super) struct Upload {
    source: Arc<dyn BlobSource>,
    blob: Descriptor,
    watch: WatchUpload,
    /// Whether the bytes were wrong and others may come from the same source.
    again: Arc<AtomicBool>,
}

/// One attempt under way.
pub(super) struct Sending {
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    /// Pieces that the receiver took.
    taken: AtomicU64,
    /// Whether the receiver waits for us and not we for it.
    waits_for_source: AtomicBool,
    all_taken: AtomicBool,
    failure: Mutex<Option<SourceError>>,
}

impl Upload {
    pub(super) fn new(source: Arc<dyn BlobSource>, blob: Descriptor, watch: WatchUpload) -> Self {
        Self {
            source,
            blob,
            watch,
            again: Arc::default(),
        }
    }

    /// Whether the bytes were wrong, and the source may give the right ones if it is asked again.
    pub(super) fn take_again(&self) -> bool {
        self.again.swap(false, Ordering::Relaxed)
    }

    /// In bytes.
    pub(super) fn size(&self) -> u64 {
        self.blob.size
    }

    /// Begins an attempt: what watches it, and the bytes.
    pub(super) fn start(
        &self,
    ) -> (
        Sending,
        impl Stream<Item = io::Result<Bytes>> + Send + 'static,
    ) {
        let state = Arc::<State>::default();
        (self.watch)(0);
        let passing = Passing {
            upload: self.clone(),
            state: Arc::clone(&state),
            stream: None,
            digester: Some(Digester::new(self.blob.digest.algorithm())),
            held: None,
            left: 0,
        };
        let pieces = stream::try_unfold(passing, |mut passing| async move {
            passing
                .state
                .waits_for_source
                .store(true, Ordering::Relaxed);
            let piece = passing.next().await;
            passing
                .state
                .waits_for_source
                .store(false, Ordering::Relaxed);
            match piece {
                Ok(Some(piece)) => {
                    passing.state.taken.fetch_add(1, Ordering::Relaxed);
                    passing.left += piece.len() as u64;
                    (passing.upload.watch)(passing.left);
                    Ok(Some((piece, passing)))
                }
                Ok(None) => {
                    passing.state.all_taken.store(true, Ordering::Relaxed);
                    Ok(None)
                }
                Err(err) => {
                    let words = io::Error::other(err.to_string());
                    passing.state.fail(err);
                    Err(words)
                }
            }
        });
        (Sending { state }, pieces)
    }
}

impl State {
    fn fail(&self, err: SourceError) {
        let failure = self.failure.lock();
        *failure.unwrap_or_else(PoisonError::into_inner) = Some(err);
    }
}

impl fmt::Debug for Upload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Upload({})", self.blob.digest)
    }
}

impl Sending {
    /// Waits for the answer as long as the receiver takes bytes: `None` if it has taken none for `stall`, or has taken all
    /// and said nothing for `limit`. How long the source may take is the source's matter.
    pub(super) async fn watch<T>(
        &self,
        answer: impl Future<Output = T>,
        stall: Duration,
        limit: Duration,
    ) -> Option<T> {
        let mut answer = std::pin::pin!(answer);
        loop {
            let (taken, all_taken) = self.progress();
            let wait = if all_taken { limit } else { stall };
            if let Ok(answer) = tokio::time::timeout(wait, &mut answer).await {
                return Some(answer);
            }
            let waits_for_source = self.state.waits_for_source.load(Ordering::Relaxed);
            if !waits_for_source && self.progress() == (taken, all_taken) {
                return None;
            }
        }
    }

    /// What was wrong with the source, if that ended the attempt.
    pub(super) fn take_failure(&self) -> Option<SourceError> {
        let failure = self.state.failure.lock();
        failure.unwrap_or_else(PoisonError::into_inner).take()
    }

    fn progress(&self) -> (u64, bool) {
        let all_taken = self.state.all_taken.load(Ordering::Relaxed);
        (self.state.taken.load(Ordering::Relaxed), all_taken)
    }
}

/// The bytes of one attempt.
struct Passing {
    upload: Upload,
    state: Arc<State>,
    stream: Option<ByteStream>,
    /// `None` once all bytes were checked.
    digester: Option<Digester>,
    /// What came last.
    held: Option<Bytes>,
    /// Bytes that have left.
    left: u64,
}

impl Passing {
    async fn next(&mut self) -> Result<Option<Bytes>, SourceError> {
        let Upload { source, blob, .. } = &self.upload;
        loop {
            let Some(digester) = &mut self.digester else {
                return Ok(None);
            };
            let stream = match &mut self.stream {
                Some(stream) => stream,
                None => self.stream.insert(source.open(blob, 0..blob.size).await?),
            };
            if let Some(piece) = stream.next().await.transpose()? {
                digester.update(&piece);
                if let Some(before) = self.held.replace(piece) {
                    return Ok(Some(before));
                }
                continue;
            }
            let provenance = stream.provenance();
            let found = self.digester.take().map(Digester::finish);
            match found {
                Some(found) if found != blob.digest => {
                    let err = SourceError::Digest {
                        expected: Box::new(blob.digest),
                        found: Box::new(found),
                    };
                    let again = source.reject(blob, 0, &provenance);
                    self.upload.again.store(again, Ordering::Relaxed);
                    return Err(err);
                }
                _ => return Ok(self.held.take()),
            }
        }
    }
}
