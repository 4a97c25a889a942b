//! The compressed bytes of a layer that is being proven, kept as they come, in any order.
//!
//! ```text
//! layers/ALG/SLOT/blob        sparse: the blob's bytes, at their own offsets
//!                 blob.map    16 bytes each: start u64 | end u64 (little-endian) of bytes that are in `blob`; with the
//!                             top bit of `start` set they are gone again
//!                 proof       exclusive lock: a process keeps bytes and proves the layer
//! ```
//!
//! A record is appended after its bytes are written, so a process that is killed loses at most what
//! was on its way. Nothing is synced and nothing here is checked: the blob's digest decides, when
//! all of it is here.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::io::Write;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::Notify;
use tokio::sync::futures::Notified;

use crate::store::StoreError;
use crate::store::disk::{BLOB, BLOB_MAP, Locked, publish, read_if_there, remove_if_there};

/// In a record's start: the bytes are gone.
const GONE: u64 = 1 << 63;

/// What is here of a blob. While it lives nobody else keeps or proves it.
pub(in crate::store) struct KeptBlob {
    dir: PathBuf,
    size: u64,
    data: File,
    map: File,
    state: Mutex<State>,
    changed: Notify,
    /// Nothing more can be written: the disk is full.
    failed: AtomicBool,
    lock: Mutex<Option<Locked>>,
}

#[derive(Default)]
struct State {
    here: Ranges,
    /// What of that this process has fetched.
    fresh: Ranges,
    /// What of that is the blob's, by its midstates.
    vouched: Ranges,
    /// What somebody is fetching.
    flying: Ranges,
}

/// What became of bytes that are wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store) struct Forgotten {
    /// Some of them were here before this process came.
    pub(in crate::store) were_here: bool,
    /// All of them are vouched for, and stay.
    pub(in crate::store) stays: bool,
}

/// Where the first bytes of a range are.
pub(in crate::store) enum Part {
    /// They are here, so many.
    Here(Range<u64>),
    /// Somebody is fetching them: ask again when something has changed.
    Flying,
    /// Nobody: they are the asker's to fetch.
    Missing(Flying),
}

/// Bytes that are being fetched. Dropping it says that they have come, or will not.
pub(in crate::store) struct Flying {
    blob: Arc<KeptBlob>,
    pub(in crate::store) range: Range<u64>,
}

impl KeptBlob {
    /// Opens or creates it for the layer in `dir`, with a blob of `size` bytes; `None` if another
    /// process has it.
    pub(in crate::store) fn try_open(dir: &Path, size: u64) -> Result<Option<Self>, StoreError> {
        let Some(lock) = Locked::try_take(&dir.join("proof"))? else {
            return Ok(None);
        };
        let (data_path, map_path) = (dir.join(BLOB), dir.join(BLOB_MAP));
        let records = read_if_there(&map_path)?.unwrap_or_default();
        let here = replay(&records, size);
        // Once written anew it is as short as it can be.
        publish(&map_path, &here.records())?;
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let data = options
            .open(&data_path)
            .map_err(StoreError::io("open", &data_path))?;
        let map = OpenOptions::new().append(true).open(&map_path);
        let map = map.map_err(StoreError::io("open", &map_path))?;
        let state = State {
            here,
            ..State::default()
        };
        Ok(Some(Self {
            dir: dir.to_owned(),
            size,
            data,
            map,
            state: Mutex::new(state),
            changed: Notify::new(),
            failed: AtomicBool::new(false),
            lock: Mutex::new(Some(lock)),
        }))
    }

    /// Where its bytes are.
    pub(in crate::store) fn path(&self) -> PathBuf {
        self.dir.join(BLOB)
    }

    /// Bytes that are here.
    pub(in crate::store) fn here(&self) -> u64 {
        self.state().here.total()
    }

    /// Whether all of these are here.
    pub(in crate::store) fn has(&self, range: &Range<u64>) -> bool {
        let state = self.state();
        let known = state.here.at(range.start);
        range.is_empty() || known.is_some_and(|known| known.end >= range.end)
    }

    /// The first bytes of `range` that are neither here nor on their way.
    pub(in crate::store) fn first_missing(&self, range: Range<u64>) -> Option<Range<u64>> {
        let state = self.state();
        let mut position = range.start;
        while position < range.end {
            let known = state.here.at(position).or(state.flying.at(position));
            match known {
                Some(known) => position = known.end,
                None => return Some(state.until_known(position..range.end)),
            }
        }
        None
    }

    /// Whether all of it is here.
    pub(in crate::store) fn is_complete(&self) -> bool {
        self.has(&(0..self.size))
    }

    /// Whether nothing more can be kept.
    pub(in crate::store) fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }

    /// Ends when something has come or is not on its way any more; to be called before looking.
    pub(in crate::store) fn changed(&self) -> Notified<'_> {
        self.changed.notified()
    }

    /// Where the first bytes of `range` are, which is not empty.
    pub(in crate::store) fn part(self: &Arc<Self>, range: &Range<u64>) -> Part {
        let mut state = self.state();
        if let Some(known) = state.here.at(range.start) {
            return Part::Here(range.start..known.end.min(range.end));
        }
        if state.flying.at(range.start).is_some() {
            return Part::Flying;
        }
        let range = state.until_known(range.clone());
        state.flying.insert(range.clone());
        Part::Missing(Flying {
            blob: Arc::clone(self),
            range,
        })
    }

    /// Keeps bytes that came. Writes to the disk; a write that fails ends the keeping.
    pub(in crate::store) fn keep(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        let range = at..at + bytes.len() as u64;
        if self.has_failed() || range.is_empty() {
            return Ok(());
        }
        let written = (self.data.write_all_at(bytes, at))
            .and_then(|()| (&self.map).write_all(&record(range.start, range.end)));
        if let Err(err) = written {
            self.failed.store(true, Ordering::Relaxed);
            return Err(err);
        }
        let mut state = self.state();
        state.here.insert(range.clone());
        state.fresh.insert(range);
        drop(state);
        self.changed.notify_waiters();
        Ok(())
    }

    /// Bytes that are here. Reads the disk.
    pub(in crate::store) fn read(&self, range: &Range<u64>) -> io::Result<Bytes> {
        let length = usize::try_from(range.end - range.start).map_err(io::Error::other)?;
        let mut bytes = vec![0; length];
        self.data.read_exact_at(&mut bytes, range.start)?;
        Ok(bytes.into())
    }

    /// By midstates these bytes, which are here, are the blob's.
    pub(in crate::store) fn vouch(&self, range: Range<u64>) {
        self.state().vouched.insert(range);
    }

    /// Nobody vouches for these bytes any more.
    pub(in crate::store) fn doubt(&self, range: &Range<u64>) {
        self.state().vouched.remove(range);
    }

    /// These bytes turned out to be wrong: they are not here any more, but for those that are
    /// vouched for.
    pub(in crate::store) fn forget(&self, range: &Range<u64>) -> Forgotten {
        let mut state = self.state();
        let before = (state.here.total(), state.fresh.total());
        let wrong = state.vouched.gaps(range);
        for range in &wrong {
            if let Err(err) = (&self.map).write_all(&record(range.start | GONE, range.end)) {
                // Whoever reads the map next finds them wrong again.
                tracing::debug!("cannot note that bytes of a blob are wrong: {err}");
            }
            state.here.remove(range);
            state.fresh.remove(range);
        }
        Forgotten {
            were_here: before.0 - state.here.total() > before.1 - state.fresh.total(),
            stays: wrong.is_empty(),
        }
    }

    /// Removes it: it was used up, or is of no use.
    pub(in crate::store) fn remove(&self) -> Result<(), StoreError> {
        self.failed.store(true, Ordering::Relaxed);
        let mut state = self.state();
        (state.here, state.vouched) = (Ranges::default(), Ranges::default());
        drop(state);
        for name in [BLOB_MAP, BLOB] {
            let path = self.dir.join(name);
            remove_if_there(&path).map_err(StoreError::io("remove", &path))?;
        }
        self.release();
        Ok(())
    }

    /// Keeps nothing more: it is another process's turn.
    pub(in crate::store) fn release(&self) {
        self.failed.store(true, Ordering::Relaxed);
        let lock = self.lock.lock();
        drop(lock.unwrap_or_else(PoisonError::into_inner).take());
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The start of `range` up to what is here or on its way.
    fn until_known(&self, range: Range<u64>) -> Range<u64> {
        let next = [&self.here, &self.flying].map(|known| known.next(range.start));
        let end = next.into_iter().flatten().min().unwrap_or(range.end);
        range.start..end.min(range.end)
    }
}

impl Drop for Flying {
    fn drop(&mut self) {
        self.blob.state().flying.remove(&self.range);
        self.blob.changed.notify_waiters();
    }
}

fn record(start: u64, end: u64) -> [u8; 16] {
    (u128::from(end) << 64 | u128::from(start)).to_le_bytes()
}

/// What the records come to. What makes no sense is left out: at worst it is fetched again.
fn replay(records: &[u8], size: u64) -> Ranges {
    let mut here = Ranges::default();
    for record in records.as_chunks::<16>().0 {
        let (halves, _) = record.as_chunks::<8>();
        let &[start, end] = halves else { continue };
        let (start, end) = (u64::from_le_bytes(start), u64::from_le_bytes(end));
        let range = (start & !GONE)..end;
        if range.start >= range.end || range.end > size {
            continue;
        }
        if start & GONE == 0 {
            here.insert(range);
        } else {
            here.remove(&range);
        }
    }
    here
}

/// A set of numbers: start to end of ranges that neither overlap nor touch.
#[derive(Default, Debug, PartialEq, Eq)]
struct Ranges(BTreeMap<u64, u64>);

impl Ranges {
    fn insert(&mut self, mut range: Range<u64>) {
        // All that overlap or touch become one.
        while let Some((&start, &end)) = self.0.range(..=range.end).next_back() {
            if end < range.start {
                break;
            }
            range = range.start.min(start)..range.end.max(end);
            self.0.remove(&start);
        }
        self.0.insert(range.start, range.end);
    }

    fn remove(&mut self, range: &Range<u64>) {
        while let Some((&start, &end)) = self.0.range(..range.end).next_back() {
            if end <= range.start {
                break;
            }
            self.0.remove(&start);
            if end > range.end {
                self.0.insert(range.end, end);
            }
            if start < range.start {
                self.0.insert(start, range.start);
            }
        }
    }

    /// The range that `position` is in.
    fn at(&self, position: u64) -> Option<Range<u64>> {
        let (&start, &end) = self.0.range(..=position).next_back()?;
        (position < end).then_some(start..end)
    }

    /// Where the next range begins behind `position`.
    fn next(&self, position: u64) -> Option<u64> {
        let (&start, _) = self.0.range(position + 1..).next()?;
        Some(start)
    }

    /// What of `range` is not in it.
    fn gaps(&self, range: &Range<u64>) -> Vec<Range<u64>> {
        let mut gaps = Vec::new();
        let mut position = range.start;
        while position < range.end {
            if let Some(known) = self.at(position) {
                position = known.end;
                continue;
            }
            let end = self.next(position).unwrap_or(range.end).min(range.end);
            gaps.push(position..end);
            position = end;
        }
        gaps
    }

    fn total(&self) -> u64 {
        self.0.iter().map(|(start, end)| end - start).sum()
    }

    fn records(&self) -> Vec<u8> {
        let records = self.0.iter().map(|(start, end)| record(*start, *end));
        records.flatten().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_a_set() {
        // A naive model: one bit for each number.
        let mut random = 1_u64;
        let mut next = |bound: u64| {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (random >> 33) % bound
        };
        let (mut ranges, mut model) = (Ranges::default(), [false; 64]);
        for step in 0..20_000 {
            let start = next(63);
            let range = start..start + 1 + next(63 - start);
            let is_insert = next(2) == 0;
            if is_insert {
                ranges.insert(range.clone());
            } else {
                ranges.remove(&range);
            }
            for at in range {
                model[usize::try_from(at).unwrap()] = is_insert;
            }
            let total = model.iter().filter(|is_in| **is_in).count();
            assert_eq!(ranges.total(), total as u64, "step {step}");
            for at in 0..64 {
                let is_in = model[usize::try_from(at).unwrap()];
                assert_eq!(ranges.at(at).is_some(), is_in, "step {step}: {at}");
            }
            let ends: Vec<_> = ranges.0.iter().collect();
            assert!(ends.windows(2).all(|pair| pair[0].1 < pair[1].0));
        }
    }

    #[tokio::test]
    async fn what_is_kept_is_there_the_next_time() {
        let dir = tempfile::tempdir().unwrap();
        let open = || KeptBlob::try_open(dir.path(), 100).unwrap();
        let blob = Arc::new(open().unwrap());
        assert!(open().is_none(), "one at a time");
        blob.keep(10, &[1; 20]).unwrap();
        blob.keep(50, &[2; 10]).unwrap();
        assert!(!blob.forget(&(15..20)).were_here, "all of it came just now");
        drop(blob);
        // A record that was cut off, and others that make no sense.
        let map = dir.path().join(BLOB_MAP);
        let mut records = std::fs::read(&map).unwrap();
        for (start, end) in [(90, 101), (30, 20), (u64::MAX, u64::MAX)] {
            records.extend(record(start, end));
        }
        records.extend([9; 7]);
        std::fs::write(&map, records).unwrap();
        let blob = Arc::new(open().unwrap());
        assert_eq!(blob.here(), 25);
        assert!(blob.has(&(10..15)) && blob.has(&(20..30)) && blob.has(&(50..60)));
        assert_eq!(blob.read(&(50..60)).unwrap(), [2; 10].as_slice());
        assert_eq!(blob.first_missing(0..100), Some(0..10));
        assert_eq!(blob.first_missing(10..100), Some(15..20));
        assert!(blob.forget(&(12..16)).were_here, "they came earlier");
        assert!(!blob.forget(&(12..16)).were_here);
        blob.vouch(22..25);
        assert!(blob.forget(&(22..24)).stays && blob.has(&(22..24)));
        assert!(!blob.forget(&(20..30)).stays);
        assert!(blob.has(&(22..25)) && !blob.has(&(21..22)) && !blob.has(&(25..26)));
        blob.doubt(&(22..25));
        assert!(blob.forget(&(22..25)).were_here && !blob.has(&(22..23)));
        blob.remove().unwrap();
        drop(blob);
        assert_eq!(open().unwrap().here(), 0);
    }

    #[tokio::test]
    async fn nobody_fetches_what_another_one_fetches() {
        let dir = tempfile::tempdir().unwrap();
        let blob = Arc::new(KeptBlob::try_open(dir.path(), 100).unwrap().unwrap());
        blob.keep(0, &[1; 10]).unwrap();
        blob.keep(40, &[1; 10]).unwrap();
        assert!(matches!(blob.part(&(5..60)), Part::Here(range) if range == (5..10)));
        let Part::Missing(flying) = blob.part(&(10..60)) else {
            panic!("nobody has them");
        };
        assert_eq!(flying.range, 10..40);
        assert!(matches!(blob.part(&(20..60)), Part::Flying));
        assert_eq!(blob.first_missing(0..100), Some(50..100));
        let changed = blob.changed();
        drop(flying);
        changed.await;
        assert!(matches!(blob.part(&(20..30)), Part::Missing(_)));
    }
}
