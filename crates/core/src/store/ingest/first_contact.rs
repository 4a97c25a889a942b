//! First contact: a layer that has no index yet is streamed once, and everything is made on the
//! way.
//!
//! ```text
//!  network ──> in order ──┬──> SHA-256 of the blob                       thread 1
//!                         └──> decode, find spans, hash them             thread 2
//!                                  └──> tar, file digests, write data    thread 3
//! ```
//!
//! Between the stages are short channels, so memory stays bounded and the slowest stage decides.
//! Nothing counts before the blob's digest is right: only then are the spans marked present and the
//! index published.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc as std_mpsc;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use super::parts::BlobStream;
use crate::polite;
use crate::source::{BlobSource, Provenance};
use crate::store::disk::{NewData, PartialBlob};
use crate::store::{Cache, Slot, StoreError};
use imgfs_formats::layer::{
    Codec, ContentPass, Hash, LayerError, LayerIndex, PassResult, Piece, ScanError, ScannedSpan,
    Scanner,
};
use imgfs_formats::oci::{
    Algorithm, Descriptor, Digest, Digester, MIDSTATE_INTERVAL, MidstateDigester, Midstates,
};

/// Pieces of the network waiting for a stage.
const NETWORK_PIECES: usize = 64;
/// Decoded pieces (256 KiB each) between the second and the third stage.
const DECODED_PIECES: usize = 8;

/// Times that a blob is streamed when its bytes are wrong: as many hosts as anybody lists, and a
/// second time for the last one.
const MAX_ATTEMPTS: u32 = 8;

/// How far a download is, to be looked at while it runs. Bytes of the blob.
#[derive(Debug, Default)]
pub struct Progress {
    done: AtomicU64,
    /// What of that was here before.
    here: AtomicU64,
}

impl Progress {
    /// Bytes received and taken over so far.
    pub fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    /// Those that were here before it began.
    pub fn here(&self) -> u64 {
        self.here.load(Ordering::Relaxed)
    }

    /// It begins, with so much already here.
    pub(in crate::store) fn begin(&self, here: u64) {
        self.here.store(here, Ordering::Relaxed);
        self.done.store(here, Ordering::Relaxed);
    }

    /// So much is done, of what may begin anew.
    pub fn set(&self, done: u64) {
        self.done.store(done, Ordering::Relaxed);
    }

    /// More is here now.
    pub(in crate::store) fn add(&self, bytes: u64) {
        self.done.fetch_add(bytes, Ordering::Relaxed);
    }

    /// All of it is here; neighbouring spans may share a byte, and the last ones belong to none.
    pub(in crate::store) fn finish(&self, size: u64) {
        self.done.store(size, Ordering::Relaxed);
    }
}

/// Streams the blob once. Gives its index; the decoded bytes are in the files in `dir` and marked
/// present, unless the disk is full. A reader that has the files open sees nothing of it.
///
/// What a pull that was broken off has left of the blob is not fetched again; with `keep` this
/// leaves the same if it is broken off. If the blob's hash is wrong it is begun anew, as long as
/// somebody may have the right bytes.
pub(in crate::store) async fn index_layer(
    cache: &Cache,
    source: Arc<dyn BlobSource>,
    blob: &Descriptor,
    dir: &Path,
    options: PassOptions,
    progress: &Progress,
) -> Result<LayerIndex, StoreError> {
    let keep = options.keep;
    let layer = blob.digest;
    let short = layer.short();
    let mut attempts = 0;
    loop {
        attempts += 1;
        let mut partial = PartialBlob::open(dir, blob.size, keep)?;
        let began_here = partial.length() > 0;
        let provenance = Provenance::default();
        let attempt = Attempt {
            partial: &partial,
            options,
            provenance: provenance.clone(),
            manner: Manner::Prompt,
        };
        let result = stream_layer(cache, &source, blob, Some(dir), &attempt, progress).await;
        let result = result.map(|(index, midstates)| {
            if let Some(midstates) = midstates {
                cache.keep_midstates(&layer, &midstates);
            }
            index
        });
        if let Err(StoreError::Fetch { .. }) = result {
            return result;
        }
        if let Ok(index) = &result {
            // Before the bytes that were kept go: an end in between must not cost the whole layer.
            cache.keep_index(&Slot::own(layer), index)?;
        }
        // Used up, or of no use: then these bytes would never become a layer.
        partial.remove()?;
        let Err(StoreError::Corrupt { .. }) = result else {
            return result;
        };
        if began_here {
            // Whoever gave the rest may well be right.
            tracing::warn!(
                "layer {short}: what an earlier pull left is damaged, fetching all of it anew"
            );
        } else if attempts < MAX_ATTEMPTS && source.reject(blob, 0, &provenance) {
            tracing::warn!("layer {short}: wrong bytes came, fetching all of it anew");
        } else {
            return result;
        }
    }
}

/// What the pass is to do beside making the index.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::store) struct PassOptions {
    /// Keep the blob's bytes until it is done, for the case that it is broken off.
    pub(in crate::store) keep: bool,
    /// Make midstates, with a hash that is half as fast where the processor has no instructions for
    /// it.
    pub(in crate::store) midstates: bool,
}

/// Makes the index of a blob all of which is here, beside what else there is to do. Otherwise like
/// [`index_layer`]. `segments` are the BLAKE3 hashes of pieces of [`MIDSTATE_INTERVAL`] whose
/// SHA-256 was checked already; if it is known of all.
pub(in crate::store) async fn index_kept(
    cache: &Cache,
    source: &Arc<dyn BlobSource>,
    blob: &Descriptor,
    dir: &Path,
    kept: &PartialBlob,
    segments: Option<Vec<Hash>>,
) -> Result<LayerIndex, StoreError> {
    let attempt = |segments| Attempt {
        partial: kept,
        options: PassOptions::default(),
        provenance: Provenance::default(),
        manner: Manner::Beside { segments },
    };
    let has_segments = segments.is_some();
    let progress = Progress::default();
    let mut result = stream_layer(
        cache,
        source,
        blob,
        Some(dir),
        &attempt(segments),
        &progress,
    )
    .await;
    if has_segments && matches!(result, Err(StoreError::Corrupt { .. })) {
        // They changed on the disk after they were checked: what they are now is told by the digest
        // alone.
        result = stream_layer(cache, source, blob, Some(dir), &attempt(None), &progress).await;
    }
    let (index, _) = result?;
    cache.keep_index(&Slot::own(blob.digest), &index)?;
    Ok(index)
}

/// Streams a blob and keeps nothing of it: only what the pass found.
pub(in crate::store) async fn recompute(
    cache: &Cache,
    source: &Arc<dyn BlobSource>,
    blob: &Descriptor,
    progress: &Progress,
) -> Result<(LayerIndex, Option<Midstates>), StoreError> {
    let attempt = Attempt {
        partial: &PartialBlob::none(),
        options: PassOptions {
            keep: false,
            midstates: true,
        },
        provenance: Provenance::default(),
        manner: Manner::Prompt,
    };
    stream_layer(cache, source, blob, None, &attempt, progress).await
}

/// What a layer is streamed with, this time.
struct Attempt<'a> {
    /// What is here already.
    partial: &'a PartialBlob,
    options: PassOptions,
    /// Takes in the hosts that gave the rest.
    provenance: Provenance,
    manner: Manner,
}

/// How urgent it is.
enum Manner {
    /// Somebody waits for it.
    Prompt,
    /// Nobody does, so it takes what others leave of the processor.
    Beside {
        /// What its pieces hashed to when they were checked.
        segments: Option<Vec<Hash>>,
    },
}

impl Manner {
    /// Starts a stage on a thread of its own.
    fn start<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> oneshot::Receiver<T> {
        if let Self::Beside { .. } = self {
            return polite::start(work);
        }
        let (sender, receiver) = oneshot::channel();
        let span = tracing::Span::current();
        tokio::task::spawn_blocking(move || {
            // The asker may be gone.
            let _gone = sender.send(span.in_scope(work));
        });
        receiver
    }
}

/// Streams the blob through the stages: what `partial` has of it from there, the rest from
/// `source`. Its bytes go into the files in `dir`, if there is one.
async fn stream_layer(
    cache: &Cache,
    source: &Arc<dyn BlobSource>,
    blob: &Descriptor,
    dir: Option<&Path>,
    attempt: &Attempt<'_>,
    progress: &Progress,
) -> Result<(LayerIndex, Option<Midstates>), StoreError> {
    let layer = blob.digest;
    let partial = attempt.partial;
    progress.begin(partial.length());
    let data = dir.map(NewData::create).transpose()?;
    let midstates = attempt.options.midstates && layer.algorithm() == Algorithm::Sha256;
    let (to_hash, hash_input) = mpsc::channel::<Bytes>(NETWORK_PIECES);
    let (to_scan, scan_input) = mpsc::channel::<Bytes>(NETWORK_PIECES);
    let (to_content, content_input) = std_mpsc::sync_channel::<Piece>(DECODED_PIECES);
    let (recycle, recycled) = std_mpsc::sync_channel::<Vec<u8>>(DECODED_PIECES + 2);

    let manner = &attempt.manner;
    let hash = match manner {
        Manner::Beside {
            segments: Some(segments),
        } => {
            let segments = segments.clone();
            manner.start(move || (segments_stage(layer, &segments, hash_input), None))
        }
        _ => manner.start(move || hash_stage(layer, midstates, hash_input)),
    };
    let scan = manner.start(move || scan_stage(scan_input, &to_content, &recycled));
    let writer = data.as_ref().map(NewData::file);
    let content = manner.start(move || content_stage(&content_input, &recycle, writer.as_deref()));

    let (to_keep, keep_input) = mpsc::channel::<Bytes>(NETWORK_PIECES);
    let keeper = attempt.options.keep.then(|| partial.keep(keep_input));

    let budget = Arc::clone(&cache.parts_ahead);
    let mut stream = BlobStream::new(Arc::clone(source), blob.clone(), partial.length(), budget);
    let mut received = 0;
    let fetched = loop {
        let is_here = received < partial.length();
        let next = if is_here {
            Some(partial.read(received).await)
        } else {
            let next = stream.next().await;
            next.map(|next| next.map_err(|cause| StoreError::Fetch { layer, cause }))
        };
        match next {
            None => break Ok(()),
            Some(Err(err)) => break Err(err),
            Some(Ok(bytes)) => {
                received += bytes.len() as u64;
                if keeper.is_some() && !is_here {
                    let _keeping_failed = to_keep.send(bytes.clone()).await;
                }
                // A stage that failed drops its end; the others still see the whole blob, because
                // only its hash tells a corrupt blob from an odd one.
                let _scan_failed = to_scan.send(bytes.clone()).await;
                let _hash_failed = to_hash.send(bytes).await;
                progress.done.fetch_max(received, Ordering::Relaxed);
            }
        }
    };
    drop((to_hash, to_scan, to_keep));
    attempt.provenance.add(&stream.provenance());
    if let Some(keeper) = keeper {
        keeper.await.map_err(|_| StoreError::Worker("keeping"))?;
    }
    let (found, midstates) = hash.await.map_err(|_| StoreError::Worker("hashing"))?;
    let scanned = scan.await.map_err(|_| StoreError::Worker("decoding"))?;
    let content = content
        .await
        .map_err(|_| StoreError::Worker("reading the tar"))?;
    let result = fetched.and_then(|()| {
        if received != blob.size || found != layer {
            return Err(StoreError::Corrupt {
                expected: layer,
                found,
                size: received,
            });
        }
        join(blob, scanned, content)
    });
    let (index, all_written) = result?;
    if let Some(data) = data.filter(|_| all_written)
        && let Err(err) = data.publish(index.spans.len())
    {
        cache.caching_failed(&err);
    }
    Ok((index, midstates))
}

fn join(
    blob: &Descriptor,
    scanned: Result<(Codec, Vec<ScannedSpan>), ScanError>,
    (content, write_error): (Result<PassResult, LayerError>, Option<std::io::Error>),
) -> Result<(LayerIndex, bool), StoreError> {
    let layer = blob.digest;
    let refuse = |cause| StoreError::Layer { layer, cause };
    // When the third stage stops, the second one only says that it was stopped.
    let scanned = match scanned {
        Err(ScanError::Stopped) => Err(match content {
            Err(err) => return Err(refuse(err)),
            Ok(_) => ScanError::Stopped,
        }),
        other => other,
    };
    let scanned = scanned.map_err(|err| refuse(err.into()))?;
    let content = content.map_err(refuse)?;
    for warning in &content.warnings {
        tracing::warn!("layer {}: {warning}", layer.short());
    }
    if let Some(err) = &write_error {
        tracing::warn!("layer {} is not kept in the cache: {err}", layer.short());
    }
    let index = LayerIndex::join(layer, blob.size, scanned, content)
        .map_err(|err| refuse(LayerError::Spans(err)))?;
    Ok((index, write_error.is_none()))
}

fn hash_stage(
    layer: Digest,
    midstates: bool,
    mut input: mpsc::Receiver<Bytes>,
) -> (Digest, Option<Midstates>) {
    if midstates {
        let mut digester = MidstateDigester::new();
        while let Some(bytes) = input.blocking_recv() {
            digester.update(&bytes);
        }
        let (digest, midstates) = digester.finish();
        return (digest, Some(midstates));
    }
    let mut digester = Digester::new(layer.algorithm());
    while let Some(bytes) = input.blocking_recv() {
        digester.update(&bytes);
    }
    (digester.finish(), None)
}

/// The layer's digest, if its pieces are those that were checked; else any other one.
fn segments_stage(layer: Digest, segments: &[Hash], mut input: mpsc::Receiver<Bytes>) -> Digest {
    let mut found = Vec::new();
    let mut hasher = blake3::Hasher::new();
    while let Some(mut bytes) = input.blocking_recv() {
        while !bytes.is_empty() {
            let left = usize::try_from(MIDSTATE_INTERVAL - hasher.count()).unwrap_or(usize::MAX);
            let piece = bytes.split_to(left.min(bytes.len()));
            hasher.update(&piece);
            if hasher.count() == MIDSTATE_INTERVAL {
                found.push(*hasher.finalize().as_bytes());
                hasher.reset();
            }
        }
    }
    if hasher.count() > 0 || found.is_empty() {
        found.push(*hasher.finalize().as_bytes());
    }
    if found == segments {
        layer
    } else {
        Digest::of(layer.algorithm(), found.as_flattened())
    }
}

fn scan_stage(
    mut input: mpsc::Receiver<Bytes>,
    output: &std_mpsc::SyncSender<Piece>,
    recycled: &std_mpsc::Receiver<Vec<u8>>,
) -> Result<(Codec, Vec<ScannedSpan>), ScanError> {
    let mut sink = |piece: Piece| {
        let is_cut = matches!(piece, Piece::Cut);
        output.send(piece).ok()?;
        if is_cut {
            Some(Vec::new())
        } else {
            Some(recycled.try_recv().unwrap_or_default())
        }
    };
    let mut scanner = Scanner::new();
    while let Some(bytes) = input.blocking_recv() {
        scanner.push(&bytes, &mut sink)?;
    }
    scanner.finish(&mut sink)
}

/// Reads the tar and writes the decoded bytes. A write that fails ends the writing, not the
/// reading.
fn content_stage(
    input: &std_mpsc::Receiver<Piece>,
    recycle: &std_mpsc::SyncSender<Vec<u8>>,
    data: Option<&File>,
) -> (Result<PassResult, LayerError>, Option<std::io::Error>) {
    let mut content = ContentPass::new();
    let mut position = 0;
    let mut write_error = None;
    while let Ok(piece) = input.recv() {
        let bytes = match piece {
            Piece::Cut => {
                content.cut();
                continue;
            }
            Piece::Bytes(bytes) => bytes,
        };
        if let Err(err) = content.bytes(&bytes) {
            return (Err(err.into()), write_error);
        }
        if let Some(data) = data
            && write_error.is_none()
        {
            write_error = data.write_all_at(&bytes, position).err();
        }
        position += bytes.len() as u64;
        // A full return channel only means that the buffer is freed instead.
        let _full = recycle.try_send(bytes);
    }
    (content.finish().map_err(Into::into), write_error)
}
