//! A blob as one ordered stream, fetched over several ranges at a time.
//!
//! One part is always at the head and its bytes flow through as they arrive; the parts behind it
//! are fetched ahead into memory, as far as the common budget allows. So the wire stays busy over
//! round trips and slow starts, memory stays bounded, and a stream never waits for another one's
//! budget.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use tracing::Instrument;

use crate::source::{BlobSource, Provenance, SourceError};
use imgfs_formats::oci::Descriptor;

/// Size of a part: at 200 Mbit/s 160 ms of transfer, several times a usual round trip.
const PART_SIZE: u64 = 4 << 20;
/// Pieces that may wait when a blob comes as a single stream (no ranges): a piece is what the
/// network gave in one read, rarely more than 64 KiB. A part's pieces need no bound but the part's
/// own size.
const STREAM_PIECES: usize = 64;
/// Pieces of a part: more than there can be, as each has at least a byte.
const PART_PIECES: usize = 4 << 20;
/// Parts fetched ahead, all blobs together: 40 MiB of memory at most.
pub(in crate::store) const PARTS_AHEAD: usize = 10;

/// The stream: call [`BlobStream::next`] until it says `None`.
pub(in crate::store) struct BlobStream {
    source: Arc<dyn BlobSource>,
    blob: Descriptor,
    budget: Arc<Semaphore>,
    /// Start of the next part to ask for.
    next: u64,
    parts: VecDeque<Part>,
    /// Whether anything has come yet: until then nobody knows whether the server has ranges at all.
    answered: bool,
    provenance: Provenance,
}

struct Part {
    pieces: mpsc::Receiver<Result<Bytes, SourceError>>,
    task: tokio::task::JoinHandle<()>,
    /// Held while the part is fetched ahead.
    permit: Option<OwnedSemaphorePermit>,
}

impl BlobStream {
    /// The bytes from `start` on.
    pub(in crate::store) fn new(
        source: Arc<dyn BlobSource>,
        blob: Descriptor,
        start: u64,
        budget: Arc<Semaphore>,
    ) -> Self {
        Self {
            source,
            blob,
            budget,
            next: start,
            parts: VecDeque::new(),
            answered: false,
            provenance: Provenance::default(),
        }
    }

    /// The hosts that gave the bytes; known of all of them after the last.
    pub(in crate::store) fn provenance(&self) -> Provenance {
        self.provenance.clone()
    }

    /// The next bytes of the blob, in order; `None` after the last.
    pub(in crate::store) async fn next(&mut self) -> Option<Result<Bytes, SourceError>> {
        loop {
            self.ask();
            let head = self.parts.front_mut()?;
            head.permit = None;
            match head.pieces.recv().await {
                Some(Ok(bytes)) => {
                    self.answered = true;
                    return Some(Ok(bytes));
                }
                Some(Err(err)) => {
                    self.next = self.blob.size;
                    self.parts.clear();
                    return Some(Err(err));
                }
                None => self.parts.pop_front(),
            };
        }
    }

    /// Starts parts until the wire is busy.
    fn ask(&mut self) {
        let parallel = self.source.parallel_ranges().max(1);
        let parts = if self.answered { parallel } else { 1 };
        while self.next < self.blob.size && self.parts.len() < parts {
            let permit = if self.parts.is_empty() {
                None
            } else {
                let Ok(permit) = Arc::clone(&self.budget).try_acquire_owned() else {
                    return;
                };
                Some(permit)
            };
            let end = if parallel == 1 {
                self.blob.size
            } else {
                (self.next + PART_SIZE).min(self.blob.size)
            };
            let bound = if parallel == 1 {
                STREAM_PIECES
            } else {
                PART_PIECES
            };
            self.parts
                .push_back(self.start(self.next..end, permit, bound));
            self.next = end;
        }
    }

    fn start(&self, range: Range<u64>, permit: Option<OwnedSemaphorePermit>, bound: usize) -> Part {
        let (sender, pieces) = mpsc::channel(bound);
        let (source, blob) = (Arc::clone(&self.source), self.blob.clone());
        let provenance = self.provenance.clone();
        let fetching = async move {
            match source.open(&blob, range).await {
                Ok(mut stream) => {
                    while let Some(piece) = stream.next().await {
                        let failed = piece.is_err();
                        if sender.send(piece).await.is_err() || failed {
                            return;
                        }
                    }
                    // Before the sender is dropped, which is how the end of the part is known.
                    provenance.add(&stream.provenance());
                }
                Err(err) => {
                    // The receiver may be gone, which is as good an end.
                    let _gone = sender.send(Err(err)).await;
                }
            }
        };
        let task = tokio::spawn(fetching.in_current_span());
        Part {
            pieces,
            task,
            permit,
        }
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        self.task.abort();
    }
}
