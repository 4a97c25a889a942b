//! [`Keeping`]: a source whose bytes of one blob are kept as they pass, and come from there the next time.
//!
//! So while a layer is proven, what readers fetch is part of the proof, and no byte is fetched
//! twice: a range is put together of what is here, what another reader of the same range is
//! fetching, and what is missing. Bytes are kept before anybody has checked them; a reader that
//! finds them wrong rejects them, and they are forgotten.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use futures_util::{StreamExt, stream};

use super::blob::{Flying, KeptBlob, Part};
use crate::source::{BlobSource, ByteStream, Provenance, Resolved, SourceError, Traffic};
use crate::store::StoreError;
use imgfs_formats::oci::Descriptor;

/// Bytes read from the disk at a time.
const PIECE: u64 = 1 << 20;

/// The source of a layer that is being proven.
pub(in crate::store) struct Keeping {
    inner: Arc<dyn BlobSource>,
    blob: Descriptor,
    dir: PathBuf,
    kept: OnceLock<Arc<KeptBlob>>,
    /// The hosts that gave any bytes.
    provenance: Provenance,
}

impl Keeping {
    /// The blob comes from `inner` and is kept in `dir`, from now on unless another process does
    /// that.
    pub(in crate::store) fn new(
        inner: Arc<dyn BlobSource>,
        blob: Descriptor,
        dir: &Path,
    ) -> Result<Self, StoreError> {
        let keeping = Self {
            inner,
            blob,
            dir: dir.to_owned(),
            kept: OnceLock::new(),
            provenance: Provenance::default(),
        };
        keeping.try_take()?;
        Ok(keeping)
    }

    /// What is kept; `None` as long as another process keeps it.
    pub(in crate::store) fn try_take(&self) -> Result<Option<&Arc<KeptBlob>>, StoreError> {
        if self.kept.get().is_none()
            && let Some(kept) = KeptBlob::try_open(&self.dir, self.blob.size)?
        {
            return Ok(Some(self.kept.get_or_init(|| Arc::new(kept))));
        }
        Ok(self.kept.get())
    }

    /// The bytes of a span that came with `provenance` are not what its index says. Says whether
    /// asking again at once may bring others. Bytes of which midstates say that they are the blob's
    /// stay: then it is the index that is wrong, or the midstates are, and the blob's digest tells.
    pub(in crate::store) fn reject_span(&self, span: &Range<u64>, provenance: &Provenance) -> bool {
        let Some(kept) = self.kept.get() else {
            return self.inner.reject(&self.blob, span.start, provenance);
        };
        let forgotten = kept.forget(span);
        if forgotten.were_here {
            return true;
        }
        // None of it would come anew.
        !forgotten.stays && self.inner.reject(&self.blob, span.start, provenance)
    }

    /// These bytes are wrong, from wherever they came. Says whether asking again at once may bring
    /// the right ones.
    pub(in crate::store) fn reject_all(&self, wrong: &[Range<u64>]) -> bool {
        let Some(kept) = self.kept.get() else {
            return false;
        };
        let mut were_here = false;
        for range in wrong {
            // What hints say of them did not help.
            kept.doubt(range);
            were_here |= kept.forget(range).were_here;
        }
        let at = wrong.first().map_or(0, |range| range.start);
        // Who had nothing to do with it is not to be blamed for what was here.
        were_here || self.inner.reject(&self.blob, at, &self.provenance)
    }
}

#[async_trait::async_trait]
impl BlobSource for Keeping {
    async fn resolve(&self, known: Option<&Descriptor>) -> Result<Resolved, SourceError> {
        self.inner.resolve(known).await
    }

    async fn open_manifest(&self, descriptor: &Descriptor) -> Result<ByteStream, SourceError> {
        self.inner.open_manifest(descriptor).await
    }

    async fn open(&self, blob: &Descriptor, range: Range<u64>) -> Result<ByteStream, SourceError> {
        let Some(kept) = self
            .kept
            .get()
            .filter(|_| blob.digest == self.blob.digest && !range.is_empty())
        else {
            return self.inner.open(blob, range).await;
        };
        let provenance = Provenance::default();
        let mut passing = Passing {
            inner: Arc::clone(&self.inner),
            blob: self.blob.clone(),
            kept: Arc::clone(kept),
            rest: range,
            now: None,
            provenance: [provenance.clone(), self.provenance.clone()],
        };
        // So that an error of the first request is this call's.
        passing.begin().await?;
        let pieces = stream::try_unfold(passing, async |mut passing| {
            let piece = passing.next().await?;
            Ok(piece.map(|piece| (piece, passing)))
        });
        Ok(ByteStream::from(provenance, pieces))
    }

    fn reject(&self, blob: &Descriptor, at: u64, provenance: &Provenance) -> bool {
        // How far the wrong bytes go is not known here: who has a layer of this source open says
        // it.
        self.inner.reject(blob, at, provenance)
    }

    async fn tags(&self) -> Result<Vec<String>, SourceError> {
        self.inner.tags().await
    }

    fn traffic(&self) -> Traffic {
        self.inner.traffic()
    }

    fn describe(&self) -> String {
        self.inner.describe()
    }

    fn parallel_ranges(&self) -> usize {
        self.inner.parallel_ranges()
    }

    fn shortcoming(&self) -> Option<String> {
        self.inner.shortcoming()
    }
}

/// A range on its way to its reader.
struct Passing {
    inner: Arc<dyn BlobSource>,
    blob: Descriptor,
    kept: Arc<KeptBlob>,
    /// What is still to come.
    rest: Range<u64>,
    now: Option<Now>,
    /// Of this stream, and of all.
    provenance: [Provenance; 2],
}

/// Where the next bytes come from.
enum Now {
    /// From the disk.
    Here(Range<u64>),
    /// From the source.
    Fetched(ByteStream, Flying),
}

impl Passing {
    /// Finds out where the next bytes come from.
    async fn begin(&mut self) -> Result<(), SourceError> {
        loop {
            let changed = self.kept.changed();
            match self.kept.part(&self.rest) {
                Part::Here(range) => {
                    self.now = Some(Now::Here(range));
                    return Ok(());
                }
                Part::Missing(flying) => {
                    let stream = self.inner.open(&self.blob, flying.range.clone()).await?;
                    self.now = Some(Now::Fetched(stream, flying));
                    return Ok(());
                }
                // Nobody who fetches waits for anybody: he has one part at a time, so this ends.
                Part::Flying => changed.await,
            }
        }
    }

    /// The next bytes; `None` at the end.
    async fn next(&mut self) -> Result<Option<Bytes>, SourceError> {
        while !self.rest.is_empty() {
            if self.now.is_none() {
                self.begin().await?;
            }
            match self.now.take() {
                None => {}
                Some(Now::Here(range)) => {
                    if let Some(bytes) = self.read(range).await {
                        return Ok(Some(bytes));
                    }
                }
                Some(Now::Fetched(mut stream, flying)) => {
                    let Some(piece) = stream.next().await.transpose()? else {
                        if self.rest.start < flying.range.end {
                            return Err(SourceError::Size {
                                digest: self.blob.digest,
                                expected: flying.range.end - flying.range.start,
                                found: self.rest.start - flying.range.start,
                            });
                        }
                        continue;
                    };
                    for provenance in &self.provenance {
                        provenance.add(&stream.provenance());
                    }
                    self.keep(&piece).await;
                    self.rest.start += piece.len() as u64;
                    // Before it is handed on: who gets it may take its time, and others wait for
                    // what is missing.
                    if self.rest.start < flying.range.end {
                        self.now = Some(Now::Fetched(stream, flying));
                    }
                    return Ok(Some(piece));
                }
            }
        }
        Ok(None)
    }

    /// Reads the start of what is here.
    async fn read(&mut self, mut range: Range<u64>) -> Option<Bytes> {
        range.end = range.end.min(range.start + PIECE);
        let (kept, wanted) = (Arc::clone(&self.kept), range.clone());
        let read = tokio::task::spawn_blocking(move || kept.read(&wanted)).await;
        match read.unwrap_or_else(|err| Err(std::io::Error::other(err))) {
            Ok(bytes) => {
                self.rest.start = range.end;
                Some(bytes)
            }
            Err(err) => {
                let layer = self.blob.digest.short();
                tracing::debug!("layer {layer}: what is kept of its blob cannot be read: {err}");
                self.kept.doubt(&range);
                self.kept.forget(&range);
                None
            }
        }
    }

    /// Keeps a piece. Waits for the disk, not on this thread.
    async fn keep(&mut self, piece: &Bytes) {
        let (kept, at, piece) = (Arc::clone(&self.kept), self.rest.start, piece.clone());
        let done = tokio::task::spawn_blocking(move || kept.keep(at, &piece)).await;
        if let Err(err) = done.unwrap_or_else(|err| Err(std::io::Error::other(err))) {
            let layer = self.blob.digest.short();
            tracing::warn!("layer {layer}: what is fetched cannot be kept for its proof: {err}");
        }
    }
}
