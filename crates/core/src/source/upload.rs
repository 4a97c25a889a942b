//! A blob on its way from one place to another: passed on piece by piece, checked before its last
//! byte leaves, watched.
//!
//! ```text
//! source ── hashed ── one piece held back ──> request's body      the last piece leaves once all of it has the digest
//! ```
//!
//! So wrong bytes never make up a whole blob elsewhere, and memory holds two pieces whatever the
//! size. A request that is sent again opens the source anew.

use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use std::{fmt, io};

use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};

use super::error::SourceError;
use super::{BlobSource, ByteStream};
use imgfs_formats::oci::{Descriptor, Digester};

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

    /// Begins an attempt: its watcher, and the bytes.
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
    /// Waits for the answer as long as the receiver takes bytes: `None` if it has taken none for
    /// `stall`, or has taken all and said nothing for `limit`. How long the source may take is the
    /// source's matter.
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

    /// The source's failure, if that ended the attempt.
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

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use super::*;
    use crate::source::{Resolved, Traffic};
    use imgfs_formats::oci::Digest;

    const PIECE: usize = 64 << 10;

    /// A blob of so many pieces, each of them made when it is asked for.
    struct Pieces {
        count: u64,
        made: Arc<AtomicU64>,
        wrong: bool,
    }

    #[async_trait::async_trait]
    impl BlobSource for Pieces {
        async fn resolve(&self, _: Option<&Descriptor>) -> Result<Resolved, SourceError> {
            unreachable!("blobs only")
        }

        async fn open_manifest(&self, _: &Descriptor) -> Result<ByteStream, SourceError> {
            unreachable!("blobs only")
        }

        async fn open(&self, _: &Descriptor, _: Range<u64>) -> Result<ByteStream, SourceError> {
            let (count, wrong, made) = (self.count, self.wrong, Arc::clone(&self.made));
            Ok(ByteStream::new(stream::iter(0..count).map(move |i| {
                made.fetch_add(1, Ordering::Relaxed);
                let is_wrong = wrong && i + 1 == count;
                Ok(vec![u8::from(is_wrong); PIECE].into())
            })))
        }

        async fn tags(&self) -> Result<Vec<String>, SourceError> {
            unreachable!("blobs only")
        }

        fn traffic(&self) -> Traffic {
            Traffic::default()
        }

        fn describe(&self) -> String {
            String::new()
        }

        fn parallel_ranges(&self) -> usize {
            1
        }
    }

    fn upload(count: u64, wrong: bool) -> (Upload, Arc<AtomicU64>, Arc<AtomicU64>) {
        let (made, left) = (Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default());
        let size = count * PIECE as u64;
        let zeros = vec![0; usize::try_from(size).unwrap()];
        let blob = Descriptor::of_document(Digest::sha256(&zeros), size);
        let source = Pieces {
            count,
            made: Arc::clone(&made),
            wrong,
        };
        let watched = Arc::clone(&left);
        let watch = Arc::new(move |bytes| watched.store(bytes, Ordering::Relaxed));
        (Upload::new(Arc::new(source), blob, watch), made, left)
    }

    #[tokio::test]
    async fn pieces_are_made_when_they_are_taken_and_none_is_kept() {
        let (upload, made, left) = upload(10, false);
        // A second attempt is like the first.
        for attempt in 0..2 {
            made.store(0, Ordering::Relaxed);
            let (sending, bytes) = upload.start();
            assert_eq!(left.load(Ordering::Relaxed), 0, "attempt {attempt}");
            let mut bytes = std::pin::pin!(bytes);
            let mut taken = 0;
            while let Some(piece) = bytes.next().await {
                taken += piece.unwrap().len();
                assert_eq!(left.load(Ordering::Relaxed), taken as u64);
                let ahead = made.load(Ordering::Relaxed) - (taken / PIECE) as u64;
                assert!(ahead <= 1, "{ahead} pieces are held");
            }
            assert_eq!(taken, 10 * PIECE);
            assert!(sending.take_failure().is_none());
        }
    }

    #[tokio::test]
    async fn the_last_piece_of_wrong_bytes_never_leaves() {
        let (upload, _, left) = upload(3, true);
        let (sending, bytes) = upload.start();
        let pieces: Vec<_> = bytes.collect().await;
        assert_eq!(pieces.iter().filter(|piece| piece.is_ok()).count(), 2);
        assert!(pieces.last().unwrap().is_err());
        assert_eq!(left.load(Ordering::Relaxed), 2 * PIECE as u64);
        let failure = sending.take_failure().unwrap();
        assert!(matches!(failure, SourceError::Digest { .. }), "{failure}");
        assert!(!upload.take_again(), "this source gives the same again");
    }

    #[tokio::test]
    async fn a_receiver_is_waited_for_as_long_as_it_takes_bytes() {
        let (stall, limit) = (Duration::from_millis(100), Duration::from_secs(60));
        let (upload, ..) = upload(5, false);
        let (sending, bytes) = upload.start();
        let mut bytes = Box::pin(bytes);
        // Slower than `stall` for all of it, and not for a piece.
        let slow = async {
            while bytes.next().await.is_some() {
                tokio::time::sleep(stall * 3 / 5).await;
            }
            "answer"
        };
        assert_eq!(sending.watch(slow, stall, limit).await, Some("answer"));
        // All is taken, and nothing said.
        let never = std::future::pending::<()>();
        assert_eq!(sending.watch(never, limit, stall).await, None);
        // Nothing is taken.
        let (sending, _bytes) = upload.start();
        let never = std::future::pending::<()>();
        assert_eq!(sending.watch(never, stall, limit).await, None);
    }
}
