//! Proving a layer that is read by an index that was found: all of the blob is fetched beside what
//! readers fetch, its digest checked, the layer's own index made from it, and both are compared.
//!
//! ```text
//! fetch what nobody has fetched     a piece at a time, while no read waits for the network    (keep.rs, blob.rs)
//! check the digest                  piece by piece with midstates, else in the pass           (segments.rs)
//! make the own index                the pass of a first contact, from the blob that is here   (first_contact.rs)
//! compare                                                                                     (compare.rs)
//! ```
//!
//! The same: the own index and its bytes are in the cache already, and the next mount uses them.
//! (They are written once more for it, even if the found index numbers bytes alike: a file that two
//! slots shared could be evicted by one while the other one reads it.) Not the same: the layer is
//! quarantined and the index refused.
//!
//! An end at any moment costs no more than what was on its way: the bytes that are here stay.

use std::fs::File;
use std::io::Seek;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use tokio::sync::OwnedSemaphorePermit;

use super::blob::KeptBlob;
use super::compare;
use super::keep::Keeping;
use super::proof::Proof;
use super::segments::Segments;
use crate::backoff::Backoff;
use crate::store::disk::{LayerFiles, Locked, PartialBlob};
use crate::store::ingest::index_kept;
use crate::store::read::LayerReader;
use crate::store::{Hope, Slot, StoreError};
use imgfs_formats::layer::{IndexError, LayerIndex};
use imgfs_formats::oci::{DiffId, Digest, Midstates};

/// Bytes of the blob fetched at a time: at 200 Mbit/s 160 ms for which a read that comes meanwhile
/// shares the line.
const PIECE: u64 = 4 << 20;
/// Between two looks at whether reads wait, and whether another process is done.
pub(super) const PAUSE: Duration = Duration::from_millis(20);
/// First and longest pause after a failure that may pass.
const PAUSES: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(30));
/// Times that wrong bytes are fetched anew: as many hosts as anybody lists, and a second time for
/// the last one.
const MAX_ATTEMPTS: u32 = 8;

impl LayerReader {
    /// How far the proof of its index is.
    pub fn proof(&self) -> Proof {
        self.proof_cell().get()
    }

    /// Keeps the midstates that were published for the layer: hints, which nobody has to believe.
    pub fn keep_midstates(&self, midstates: &Midstates) {
        self.store().keep_found_midstates(self.slot(), midstates);
    }

    /// The layer is to be proven; `keeping` is its source.
    pub(in crate::store) fn begin_proof(&self, keeping: Arc<Keeping>) {
        if self.keeping().set(keeping).is_ok() {
            self.proof_cell().set(Proof::Waiting);
        }
    }

    /// The layer was to be proven, and cannot be.
    pub(in crate::store) fn give_up_proof(&self, why: String) {
        self.proof_cell().set(Proof::Waiting);
        self.proof_cell().set(Proof::Stopped { why });
    }

    /// Once no other layer of the store is being proven, proves the layer, and that its
    /// uncompressed bytes are `diff_id`, however long it takes; a layer that cannot be contradicted
    /// is left as it is. Must run on the runtime. Can be given up at any time.
    pub async fn prove(self: &Arc<Self>, diff_id: Option<DiffId>) -> Proof {
        let Some(keeping) = self.keeping().get().filter(|_| !self.proof().is_settled()) else {
            return self.proof();
        };
        let midstates = (self.store()).found_midstates(self.slot(), self.blob_size());
        let mut prover = Prover {
            reader: self,
            keeping,
            segments: Segments::new(*self.digest(), midstates),
            attempts: 0,
            decodes: true,
            pauses: 0,
            claimed: None,
            turn: None,
            has_room: false,
        };
        let settled = loop {
            let verdict = tokio::select! {
                biased;
                // Below.
                () = self.until_quarantined() => Err(StoreError::Worker("proving")),
                verdict = prover.verdict() => verdict,
            };
            // It is a true layer, but not the one that this user's image means: others go on with it
            // and with its index.
            if let Some(reason) = self.quarantine_reason_here() {
                let what = reason.to_owned();
                break Proof::Contradicted { what };
            }
            // It contradicted itself, which somebody else has noticed: no byte more is worth
            // fetching.
            let verdict = match self.quarantine_reason() {
                Some(reason) => Ok(Verdict::Differs(reason.to_owned())),
                None => verdict,
            };
            let settled = match verdict {
                Ok(Verdict::Same(own)) => prover.proven(&own, diff_id).await,
                Ok(Verdict::Differs(what)) => {
                    prover.contradicted(&what);
                    Ok(Proof::Contradicted { what })
                }
                Err(err) => Err(err),
            };
            match settled {
                Ok(settled) => break settled,
                Err(err) => {
                    if let Err(err) = prover.wait(err).await {
                        let why = prover.stopped(&err);
                        break Proof::Stopped { why };
                    }
                }
            }
        };
        if let Ok(Some(kept)) = keeping.try_take() {
            kept.release();
        }
        let layer = *self.digest();
        match &settled {
            Proof::Proven => tracing::info!("layer {layer} is proven"),
            Proof::Stopped { why } => tracing::warn!("layer {layer} cannot be proven: {why}"),
            // The quarantine has said it.
            _ => {}
        }
        self.proof_cell().set(settled.clone());
        settled
    }
}

/// That there is no room for a blob.
fn full(kept: &KeptBlob, why: impl Into<String>) -> StoreError {
    let cause = std::io::Error::new(std::io::ErrorKind::StorageFull, why.into());
    StoreError::io("keep", &kept.path())(cause)
}

/// What came out.
enum Verdict {
    /// The index is right; the reader of the layer's own.
    Same(Arc<LayerReader>),
    /// It is not, or there is no right blob.
    Differs(String),
}

struct Prover<'a> {
    reader: &'a Arc<LayerReader>,
    keeping: &'a Arc<Keeping>,
    segments: Segments,
    /// How often the blob was wrong.
    attempts: u32,
    /// Whether what is fetched is decoded for readers: not once a span turned out not to be what
    /// the index says.
    decodes: bool,
    /// How many there were since something came.
    pauses: u32,
    /// The index in question: open, as it is removed when it turns out to be of no use.
    claimed: Option<File>,
    /// Held while something is done, not while something is waited for.
    turn: Option<OwnedSemaphorePermit>,
    /// Whether what the proof needs of the disk was looked at.
    has_room: bool,
}

impl Prover<'_> {
    async fn verdict(&mut self) -> Result<Verdict, StoreError> {
        self.begin_turn().await?;
        self.open_claimed();
        let reader = self.reader;
        let slot = Slot::own(reader.blob().digest);
        let kept = self.take().await?;
        self.look_for_room(&kept).await?;
        let made = match reader
            .store()
            .cache()
            .load_index_beside(&slot, true)
            .await?
        {
            // By another process, which was at it until now.
            Some(made) => made,
            None => match self.make_own(&kept).await? {
                Ok(made) => made,
                Err(what) => return Ok(Verdict::Differs(what)),
            },
        };
        reader.proof_cell().set(Proof::Checking);
        let files = LayerFiles::open(&reader.store().layer_dir(&slot)).await?;
        let own = reader.store().reader(
            made.spans.clone(),
            Arc::new(files),
            reader.source(),
            reader.blob(),
            slot,
        );
        // So that it can say which bytes are wrong; it is not to be proven.
        if own.keeping().set(Arc::clone(self.keeping)).is_err() {
            return Err(StoreError::Worker("proving"));
        }
        let claimed = match self.claimed()? {
            Ok(claimed) => claimed,
            Err(what) => return Ok(Verdict::Differs(what)),
        };
        let difference = compare::difference(made, claimed, &own, reader).await?;
        Ok(difference.map_or(Verdict::Same(own), Verdict::Differs))
    }

    /// Opens the index that the layer is read by, if that was not done; it may be written only
    /// after the layer was opened.
    fn open_claimed(&mut self) {
        if self.claimed.is_none() {
            let path = self.reader.store().index_path(self.reader.slot());
            self.claimed = File::open(path).ok();
        }
    }

    /// That index; or what is wrong with its file.
    fn claimed(&mut self) -> Result<Result<LayerIndex, String>, StoreError> {
        self.open_claimed();
        let path = self.reader.store().index_path(self.reader.slot());
        let lost = |cause: &str| StoreError::io("read", &path)(std::io::Error::other(cause));
        let Some(mut file) = self.claimed.as_ref() else {
            return Err(lost(
                "the cache does not have the index that the layer is read by",
            ));
        };
        file.rewind().map_err(StoreError::io("read", &path))?;
        let index = match LayerIndex::read(file, &self.reader.blob().digest, true) {
            Ok(index) => index,
            Err(err @ IndexError::Io(_)) => return Err(lost(&err.to_string())),
            // A file of our own format is kept as somebody gave it, and mounts do not read all of
            // it: what they leave out was never right, and will not be the next time.
            Err(err) if compare::Kind::of(self.reader.spans()) == compare::Kind::Own => {
                return Ok(Err(format!("its index cannot be compared: {err}")));
            }
            Err(err) => return Err(lost(&err.to_string())),
        };
        // Else what is compared would not be what is served.
        if index.spans != *self.reader.spans() {
            return Err(lost("it is not the index that the layer is read by"));
        }
        Ok(Ok(index))
    }

    /// Waits until no other layer of this process is being proven.
    async fn begin_turn(&mut self) -> Result<(), StoreError> {
        if self.turn.is_none() {
            let turn = Arc::clone(&self.reader.store().proof_turn).acquire_owned();
            self.turn = Some(turn.await.map_err(|_| StoreError::Worker("queue"))?);
        }
        Ok(())
    }

    /// What is kept of the blob, once it is this process's turn. Meanwhile others can be proven.
    async fn take(&mut self) -> Result<Arc<KeptBlob>, StoreError> {
        loop {
            if let Some(kept) = self.keeping.try_take()? {
                self.begin_turn().await?;
                return Ok(Arc::clone(kept));
            }
            self.turn = None;
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Whether there is room for the rest of the blob, the layer's own bytes and the rest of those
    /// that are read.
    async fn look_for_room(&mut self, kept: &Arc<KeptBlob>) -> Result<(), StoreError> {
        if self.has_room {
            return Ok(());
        }
        let (reader, here) = (Arc::clone(self.reader), kept.here());
        let looked = tokio::task::spawn_blocking(move || {
            let counters = reader.counters();
            let own = if reader.store().has_index(reader.digest()) {
                0
            } else {
                counters.size
            };
            let rest = [
                reader.blob().size - here,
                counters.size - counters.cached,
                own,
            ];
            reader.store().make_room(rest.iter().sum())
        });
        let looked = looked.await.map_err(|_| StoreError::Worker("room"))?;
        looked?.map_err(|why| full(kept, why))?;
        self.has_room = true;
        Ok(())
    }

    /// Why it ends. Of a blob for which there is no room nothing stays: a user who lacks room would
    /// rather have that.
    fn stopped(&self, err: &StoreError) -> String {
        use std::io::ErrorKind::{QuotaExceeded, StorageFull};
        let is_full = matches!(err, StoreError::Io { cause, .. } if matches!(cause.kind(), StorageFull | QuotaExceeded));
        if is_full && let Ok(Some(kept)) = self.keeping.try_take() {
            return match kept.remove() {
                Ok(()) => format!("{err}; what was kept of its blob is removed"),
                Err(other) => format!("{err}; {other}"),
            };
        }
        err.to_string()
    }

    /// The layer's own index, from a blob with the right digest; or why there is none.
    async fn make_own(
        &mut self,
        kept: &Arc<KeptBlob>,
    ) -> Result<Result<LayerIndex, String>, StoreError> {
        let (store, blob) = (self.reader.store(), self.reader.blob());
        let slot = Slot::own(blob.digest);
        let dir = store.layer_dir(&slot);
        loop {
            self.fetch_rest(kept).await?;
            self.reader.proof_cell().set(Proof::Checking);
            let segments = self.segments.finish(kept).await;
            // Keeps eviction away from what is written.
            let _files = LayerFiles::open(&dir).await?;
            let _lock = Locked::take(&dir.join("build"), || {}).await?;
            if let Some(made) = store.cache().load_index_beside(&slot, true).await? {
                return Ok(Ok(made));
            }
            let whole = PartialBlob::whole(kept.path(), blob.size)?;
            let source = self.reader.source();
            let made = index_kept(store, source, blob, &dir, &whole, segments).await;
            match made {
                Ok(made) => {
                    if self.segments.are_hints_wrong() {
                        let layer = blob.digest.short();
                        tracing::warn!("layer {layer}: the midstates published for it are wrong");
                    }
                    return Ok(Ok(made));
                }
                Err(StoreError::Corrupt { found, .. }) if !self.may_come_right() => {
                    return Ok(Err(self.wrong_blob(&found)));
                }
                Err(StoreError::Corrupt { .. }) => {}
                Err(StoreError::Layer { cause, .. }) => {
                    return Ok(Err(format!("the layer cannot be read: {cause}")));
                }
                Err(err) => return Err(err),
            }
        }
    }

    fn wrong_blob(&self, found: &Digest) -> String {
        format!(
            "the bytes that its source gives hash to {found}, which is another blob than {}",
            self.reader.blob().digest
        )
    }

    /// Fetches what is missing of the blob; what was on its way for readers is waited for.
    async fn fetch_rest(&mut self, kept: &Arc<KeptBlob>) -> Result<(), StoreError> {
        let (reader, all) = (self.reader, self.reader.blob().size);
        loop {
            let here = kept.here();
            reader.proof_cell().set(Proof::Fetching { here, all });
            self.segments.advance(kept);
            self.open_claimed();
            let changed = kept.changed();
            if kept.is_complete() {
                return Ok(());
            }
            let Some(gap) = kept.first_missing(0..all) else {
                changed.await;
                continue;
            };
            self.quiet().await;
            let piece = gap.start..gap.end.min(gap.start + PIECE);
            self.fetch_spans(&piece).await?;
            while let Some(gap) = kept.first_missing(piece.clone()) {
                if kept.has_failed() {
                    return Err(full(kept, "it cannot be written: is the disk full?"));
                }
                self.fetch_bytes(gap).await?;
            }
            self.pauses = 0;
        }
    }

    /// Waits until no read waits for the network.
    async fn quiet(&self) {
        while !(self.reader.store().demand.is_none() && self.reader.is_idle()) {
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Fetches the spans that begin or end in these bytes of the blob as for a reader, so that they
    /// serve reads.
    async fn fetch_spans(&mut self, piece: &std::ops::Range<u64>) -> Result<(), StoreError> {
        if !self.decodes {
            return Ok(());
        }
        let ids = self.reader.spans().in_blob(piece);
        let missing = self.reader.missing(ids).await?;
        match self.reader.fetch_exactly(&missing).await {
            // The bytes may still be right.
            Err(err) if err.hope() != Hope::AtOnce && err.span_error().is_some() => {
                self.decodes = false;
                Ok(())
            }
            fetched => fetched,
        }
    }

    /// Fetches bytes that belong to no span, or to one that is here.
    async fn fetch_bytes(&self, range: std::ops::Range<u64>) -> Result<(), StoreError> {
        let layer = self.reader.blob().digest;
        let fetch = |cause| StoreError::Fetch { layer, cause };
        let source = self.reader.source();
        let mut stream = source
            .open(self.reader.blob(), range)
            .await
            .map_err(fetch)?;
        while let Some(piece) = stream.next().await {
            // It is kept on the way.
            drop(piece.map_err(fetch)?);
        }
        Ok(())
    }

    /// The blob's digest is wrong: forgets the bytes that are. Says whether the right ones may be
    /// had.
    fn may_come_right(&mut self) -> bool {
        self.attempts += 1;
        let whole = 0..self.reader.blob().size;
        let mut wrong = self.segments.take_wrong();
        // Hints that lead to the wrong ones would do so again.
        if wrong.is_empty() || self.attempts > 1 {
            wrong = vec![whole];
            self.segments.reset();
        }
        self.attempts < MAX_ATTEMPTS && self.keeping.reject_all(&wrong)
    }

    /// The index is right.
    async fn proven(
        &mut self,
        own: &Arc<LayerReader>,
        diff_id: Option<DiffId>,
    ) -> Result<Proof, StoreError> {
        if let Some(expected) = diff_id
            && let Some(found) = own.find_diff_id(&expected).await?
        {
            self.reader.check_diff_id(&expected, &found);
        }
        self.take().await?.remove()?;
        Ok(Proof::Proven)
    }

    /// It is not: nothing of it is served or used again.
    fn contradicted(&self, what: &str) {
        let reader = self.reader;
        reader.quarantine(what.to_owned());
        reader.store().refuse(reader.slot(), what);
        if let Ok(Some(kept)) = self.keeping.try_take()
            && let Err(err) = kept.remove()
        {
            tracing::warn!("{err}");
        }
    }

    /// Waits after a failure, longer each time. `Err`: it will not pass.
    async fn wait(&mut self, err: StoreError) -> Result<(), StoreError> {
        match err.hope() {
            _ if self.reader.store().reads.is_ending() => return Err(err),
            Hope::Never => return Err(err),
            Hope::AtOnce => return Ok(()),
            Hope::Later | Hope::IfMended => {}
        }
        if self.pauses == 0 {
            let layer = self.reader.blob().digest.short();
            tracing::warn!("layer {layer}: its proof waits: {err}");
        }
        self.pauses += 1;
        self.turn = None;
        tokio::select! {
            () = tokio::time::sleep(PAUSES.bound(self.pauses)) => {}
            () = self.reader.until_quarantined() => {}
        }
        Ok(())
    }
}
