//! Claims: several processes that read one layer fetch each span once.
//!
//! Before a run is fetched its spans are claimed: an open-file-description lock on the bytes
//! `first..=last` of the layer's file `claims`, one byte for each span. Nothing is ever written
//! there. A process that does not get the claim looks at the marks until the other process has
//! brought the spans, or until the claim is free.
//!
//! - A process that dies loses its claims with its files; one that is stopped is waited for only as
//!   long as [`PATIENCE`] says, then its spans are fetched a second time.
//! - Nobody waits for a claim while he has one: a run is one range, claimed at once, and is fetched
//!   without claiming anything more. So there is no circle in which all wait.
//! - Each run has a file of its own: locks of one open file do not exclude each other.
//!
//! A claim only saves traffic. Where it cannot be had (some network filesystems) everything goes on
//! without.

#![expect(unsafe_code, reason = "these locks have no safe face")]

use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::fetch::{Flight, Run};
use super::reader::LayerReader;

/// How long to wait for another process that brings nothing: as long as a source waits for a server
/// that stalls, shorter than a read waits for its bytes.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two looks at what another process does. The locks that wait cannot be given up, and know
/// no marks.
const PAUSE: Duration = Duration::from_millis(5);

/// A claim on some spans of a layer, released on drop.
pub(super) struct Claim {
    file: File,
}

impl Claim {
    /// Claims nothing yet.
    fn none(dir: &Path) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let file = options.open(dir.join("claims"))?;
        Ok(Self { file })
    }

    /// Claims these spans, all or none; says whether it did.
    fn try_take(&self, spans: &Range<usize>) -> io::Result<bool> {
        let position = |id: usize| libc::off_t::try_from(id).map_err(io::Error::other);
        let kind = |constant| libc::c_short::try_from(constant).map_err(io::Error::other);
        let lock = libc::flock {
            l_type: kind(libc::F_WRLCK)?,
            l_whence: kind(libc::SEEK_SET)?,
            l_start: position(spans.start)?,
            // Length 0 would mean everything up to the end.
            l_len: position(spans.len().max(1))?,
            l_pid: 0,
        };
        // SAFETY: the descriptor is open as long as `self`, and the kernel only reads the struct
        // during the call.
        let result =
            unsafe { libc::fcntl(self.file.as_raw_fd(), libc::F_OFD_SETLK, &raw const lock) };
        if result == 0 {
            return Ok(true);
        }
        let err = io::Error::last_os_error();
        match err.raw_os_error() {
            Some(libc::EAGAIN | libc::EACCES) => Ok(false),
            _ => Err(err),
        }
    }
}

impl Flight {
    /// Waits until no other process fetches spans of the run. Those that come meanwhile land.
    pub(super) async fn claim(&mut self) -> Option<Claim> {
        let dir = self.reader.store.layer_dir(&self.reader.shared.slot);
        let claim = Claim::none(&dir).inspect_err(no_claim).ok()?;
        let mut quiet_since = tokio::time::Instant::now();
        loop {
            let (first, last) = self.run.front().zip(self.run.back())?;
            let is_mine = (claim.try_take(&(first.0..last.0 + 1)))
                .inspect_err(no_claim)
                .ok()?;
            // After the claim is taken, too: another process may have had it until just now.
            if self.land_what_arrived().await {
                quiet_since = tokio::time::Instant::now();
            }
            if is_mine {
                return Some(claim);
            }
            if quiet_since.elapsed() > PATIENCE {
                let layer = self.reader.blob.digest.short();
                tracing::debug!("layer {layer}: another process fetches nothing of what it claims");
                return None;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Tells those who wait for spans that another process has brought; says whether there are any.
    async fn land_what_arrived(&mut self) -> bool {
        let marked: Vec<usize> = (self.run.iter())
            .filter(|(id, sender)| sender.is_some() && self.reader.is_marked_anew(*id))
            .map(|(id, _)| *id)
            .collect();
        if marked.is_empty() {
            return false;
        }
        let reader = Arc::clone(&self.reader);
        let arrived = tokio::task::spawn_blocking(move || {
            let arrived = marked.into_iter().filter(|id| reader.has_arrived(*id));
            arrived.collect::<Vec<_>>()
        });
        let Ok(arrived) = arrived.await else {
            return false;
        };
        for (id, sender) in &mut self.run {
            if arrived.binary_search(id).is_ok()
                && let Some(sender) = sender.take()
            {
                self.reader.land(*id, &sender, Ok(()));
            }
        }
        // Links that nobody waits for stay only between others: `cut` knows what decoding needs.
        while self.run.back().is_some_and(|(_, sender)| sender.is_none()) {
            self.run.pop_back();
        }
        !arrived.is_empty()
    }
}

impl LayerReader {
    /// The parts of a run that somebody waits for, each from where it can be decoded.
    pub(super) fn cut(self: &Arc<Self>, run: Run) -> Vec<Flight> {
        let mut flights: Vec<Flight> = Vec::new();
        for (id, sender) in run {
            if sender.is_none() {
                continue;
            }
            let start = self.shared.spans.chain(id).start;
            let last = (flights.last()).and_then(|flight| Some(flight.run.back()?.0 + 1));
            let from = match last {
                Some(next) if next >= start => next,
                _ => {
                    flights.push(Flight {
                        reader: Arc::clone(self),
                        run: Run::new(),
                    });
                    start
                }
            };
            if let Some(flight) = flights.last_mut() {
                flight.run.extend((from..id).map(|link| (link, None)));
                flight.run.push_back((id, sender));
            }
        }
        flights
    }
}

/// Claims only save traffic.
fn no_claim(err: &std::io::Error) {
    tracing::debug!("fetching without a claim: {err}");
}

#[cfg(test)]
mod tests {
    use tokio::sync::watch;

    use super::*;
    use crate::source::BlobSource;
    use crate::store::disk::LayerFiles;
    use crate::store::disk::Offline;
    use crate::store::{Slot, Store};
    use imgfs_formats::layer::{Checkpoint, Span, SpanDigest, SpanTable};
    use imgfs_formats::oci::{Descriptor, Digest};

    /// What is left of the first `count` spans of a layer when `arrived` have come, and how it is
    /// fetched. The layer is two single spans, a zstd frame of four, and two single spans.
    #[tokio::test]
    async fn what_is_left_of_a_run_is_fetched_from_where_it_decodes() {
        let dir = tempfile::tempdir().unwrap();
        let span = |id| Span {
            compressed: id..id + 1,
            uncompressed: id..id + 1,
            checkpoint: match id {
                2 => Checkpoint::ZstdFrame,
                3..6 => Checkpoint::ZstdBlock,
                _ => Checkpoint::Stored,
            },
            digest: SpanDigest::Compressed([0; 32]),
        };
        let source: Arc<dyn BlobSource> = Arc::new(Offline::new(String::new(), None));
        let reader = Arc::new(Store::open(dir.path(), 0).unwrap()).reader(
            SpanTable::new((0..8).map(span).collect(), 8).unwrap(),
            Arc::new(LayerFiles::open(dir.path()).await.unwrap()),
            &source,
            &Descriptor::of_document(Digest::sha256(b""), 8),
            Slot::own(Digest::sha256(b"")),
        );
        let check = |arrived: &[usize], expected: &[&[usize]]| {
            let run = (0..8).map(|id| {
                let waits = (!arrived.contains(&id)).then(|| watch::channel(None).0);
                (id, waits)
            });
            let flights = reader.cut(run.collect());
            let ids = |flight: &Flight| flight.run.iter().map(|(id, _)| *id).collect::<Vec<_>>();
            let found: Vec<_> = flights.iter().map(ids).collect();
            assert_eq!(found, expected, "{arrived:?}");
        };
        check(&[], &[&[0, 1, 2, 3, 4, 5, 6, 7]]);
        check(&[0, 7], &[&[1, 2, 3, 4, 5, 6]]);
        check(&[1], &[&[0], &[2, 3, 4, 5, 6, 7]]);
        check(&[2, 3], &[&[0, 1, 2, 3, 4, 5, 6, 7]]);
        check(&[1, 2, 3], &[&[0], &[2, 3, 4, 5, 6, 7]]);
        check(&[0, 1, 2, 3, 5, 7], &[&[2, 3, 4], &[6]]);
        check(&[0, 1, 3, 5, 6, 7], &[&[2, 3, 4]]);
        check(&[0, 1, 2, 3, 4, 5, 6, 7], &[]);
    }

    #[test]
    fn claims_exclude_each_other_where_they_overlap() {
        let dir = tempfile::tempdir().unwrap();
        let claim = || Claim::none(dir.path()).unwrap();
        let (one, other, third) = (claim(), claim(), claim());
        assert!(one.try_take(&(3..6)).unwrap());
        for (spans, expected) in [(0..4, false), (5..9, false), (4..5, false), (0..3, true)] {
            assert_eq!(other.try_take(&spans).unwrap(), expected, "{spans:?}");
        }
        assert!(third.try_take(&(6..7)).unwrap());
        drop(one);
        assert!(third.try_take(&(3..6)).unwrap());
        assert!(!third.try_take(&(0..1)).unwrap());
    }
}
