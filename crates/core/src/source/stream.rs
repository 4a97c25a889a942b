//! Bytes on their way from a source, and the hosts that gave them.

use std::collections::BTreeSet;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::{Stream, stream};

use super::SourceError;

/// Bytes of a blob's range, in order, in pieces of any size. Ends after exactly the range's length,
/// or with an error: a source never ends a stream early without one.
pub struct ByteStream {
    pieces: Pin<Box<dyn Stream<Item = Result<Bytes, SourceError>> + Send>>,
    provenance: Provenance,
}

/// The hosts that gave the bytes of a stream so far; grows while it is read, as a transfer may go
/// on elsewhere. A reader that finds the bytes wrong hands it back ([`super::BlobSource::reject`]).
#[derive(Debug, Clone, Default)]
pub struct Provenance {
    hosts: Arc<Mutex<BTreeSet<usize>>>,
}

impl ByteStream {
    /// Bytes from a source that is the only one.
    pub fn new(pieces: impl Stream<Item = Result<Bytes, SourceError>> + Send + 'static) -> Self {
        Self::from(Provenance::default(), pieces)
    }

    /// Bytes that are there already.
    pub fn of(bytes: Bytes) -> Self {
        Self::new(stream::iter((!bytes.is_empty()).then_some(Ok(bytes))))
    }

    /// Bytes from these hosts.
    pub fn from(
        provenance: Provenance,
        pieces: impl Stream<Item = Result<Bytes, SourceError>> + Send + 'static,
    ) -> Self {
        Self {
            pieces: Box::pin(pieces),
            provenance,
        }
    }

    /// The hosts that give them; shared with the stream.
    pub fn provenance(&self) -> Provenance {
        self.provenance.clone()
    }
}

impl Stream for ByteStream {
    type Item = Result<Bytes, SourceError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.pieces.as_mut().poll_next(context)
    }
}

impl Provenance {
    /// Host number `host` of a list, and no other yet.
    pub(super) fn host(host: usize) -> Self {
        Self {
            hosts: Arc::new(Mutex::new(BTreeSet::from([host]))),
        }
    }

    /// The hosts of `other` so far gave bytes too.
    pub fn add(&self, other: &Self) {
        let others = other.hosts();
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        hosts.extend(others);
    }

    /// The hosts so far.
    pub(super) fn hosts(&self) -> BTreeSet<usize> {
        let hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        hosts.clone()
    }
}
