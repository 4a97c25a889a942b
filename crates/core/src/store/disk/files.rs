//! The files of one layer in the cache.
//!
//! ```text
//! layers/ALGORITHM/SLOT/data     sparse: the uncompressed bytes, at their own offsets
//!                      present   u32 (little-endian) for each span: 0 if it is not in `data`, else when it
//!                                was last used by a process that had not used it before, in Unix seconds
//!                      lock      shared lock: in use, spans stay; exclusive lock: eviction, removal
//!                      build     exclusive lock: somebody makes the index
//!                      decoded   BLAKE3 of each span's bytes in `data`, where the index does not say it
//!                      claims    locks on its bytes, one for each span: somebody fetches it (claim.rs)
//!                      diff_id   the DiffId that the uncompressed bytes were found to have
//!                      diff_id.lock  exclusive lock: somebody computes it
//!                      data.new  what a first contact has written so far; becomes `data` when all of it is right
//!                      blob, blob.map, proof  the blob, as far as it is here, while the layer is proven (blob.rs)
//!                      partial   the start of the blob, as far as a pull that was broken off got (partial.rs)
//! ```
//!
//! A span is marked present after its bytes are written. Nothing is synced: after a power failure a
//! mark may stand for bytes that were lost, which is noticed by the span's digest on first use.

use std::fs::{File, OpenOptions};
use std::io;
use std::num::NonZeroU64;
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::{Advice, FallocateFlags, FlockOperation, fadvise, fallocate, flock};

use crate::store::{Slot, StoreError};
use imgfs_formats::layer::{Hash, Span, SpanDigest};

/// Between two looks at a lock that somebody has. A `flock` that waits could not be given up: a
/// thread in it would keep the whole program from ending.
const LOCK_PAUSE: Duration = Duration::from_millis(20);
/// Between two looks at whether a layer is in use: a process that took a lock only to look has let
/// it go by then.
const LOOK_PAUSE: Duration = Duration::from_millis(2);
/// Data that is not complete or not checked yet.
pub(in crate::store) const NEW_DATA: &str = "data.new";
/// The blob's start, kept by a pull.
pub(in crate::store) const PARTIAL: &str = "partial";
/// What is here of the blob of a layer that is being proven, and which bytes that are.
pub(in crate::store) const BLOB: &str = "blob";
pub(in crate::store) const BLOB_MAP: &str = "blob.map";
/// All of those: a process that has the layer open uses them or will.
pub(in crate::store) const UNFINISHED: [&str; 4] = [NEW_DATA, PARTIAL, BLOB_MAP, BLOB];

/// Open files of one layer. While it lives nobody evicts spans of the layer.
pub(in crate::store) struct LayerFiles {
    data: File,
    present: File,
    /// Holds the shared lock.
    lock: Arc<File>,
    /// Opened where it is needed: most layers do without.
    decoded: OnceLock<File>,
    dir: PathBuf,
}

/// An exclusive lock, released on drop.
pub(in crate::store) struct Locked(File);

impl LayerFiles {
    /// Keeps eviction away as long as it lives, with nothing but the lock open.
    pub(in crate::store) fn lock(&self) -> Arc<File> {
        Arc::clone(&self.lock)
    }

    /// Opens or creates the files of the layer in `dir` and takes the shared lock. Waits at most
    /// for an eviction.
    pub(in crate::store) async fn open(dir: &Path) -> Result<Self, StoreError> {
        let lock_path = dir.join("lock");
        loop {
            std::fs::create_dir_all(dir).map_err(StoreError::io("create", dir))?;
            let Some(lock) = if_there(open(&lock_path))? else {
                continue;
            };
            while !try_lock(&lock, &lock_path, FlockOperation::NonBlockingLockShared)? {
                tokio::time::sleep(LOCK_PAUSE).await;
            }
            // While we waited the layer may have been removed, and begun anew by somebody else.
            if !is_at(&lock, &lock_path) {
                continue;
            }
            return Ok(Self {
                data: open(&dir.join("data"))?,
                present: open(&dir.join("present"))?,
                lock: Arc::new(lock),
                decoded: OnceLock::new(),
                dir: dir.to_owned(),
            });
        }
    }

    /// Whether these are the same files on the disk, and not others of the same names.
    pub(in crate::store) fn are_the_same(&self, other: &Self) -> bool {
        let identity = |file: &File| {
            let metadata = file.metadata().ok()?;
            Some((metadata.dev(), metadata.ino()))
        };
        let is_same = |one, other| identity(one).is_some_and(|one| Some(one) == identity(other));
        is_same(&self.data, &other.data) && is_same(&self.present, &other.present)
    }

    /// What the bytes of a span had to hash to (BLAKE3) when they were written; `None` if nobody
    /// noted it.
    fn decoded_digest(&self, span: usize) -> io::Result<Option<Hash>> {
        let mut digest = [0; 32];
        match self.decoded()?.read_exact_at(&mut digest, span as u64 * 32) {
            Ok(()) => Ok(Some(digest)),
            Err(err) if err.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
            Err(err) => Err(err),
        }
    }

    /// What a span's bytes in the cache have to hash to: the index says it, or the cache remembers
    /// it from when they were fetched and checked.
    pub(in crate::store) fn expected_digest(
        &self,
        id: usize,
        span: &Span,
    ) -> io::Result<Option<Hash>> {
        match &span.digest {
            SpanDigest::Own { decoded, .. } => Ok(Some(*decoded)),
            SpanDigest::Compressed(_) | SpanDigest::Chunks(_) => self.decoded_digest(id),
        }
    }

    /// Lets the kernel forget bytes that nobody will read soon. Without that it only remembers
    /// more.
    pub(in crate::store) fn forget_pages(&self, range: &Range<u64>) {
        let length = NonZeroU64::new(range.end.saturating_sub(range.start));
        if let Err(err) = fadvise(&self.data, range.start, length, Advice::DontNeed) {
            tracing::debug!("the pages of what was read stay: {err}");
        }
    }

    /// Notes what the bytes of a span hash to. To be called before the span is marked.
    pub(in crate::store) fn note_decoded_digest(
        &self,
        span: usize,
        digest: &Hash,
    ) -> io::Result<()> {
        self.decoded()?.write_all_at(digest, span as u64 * 32)
    }

    fn decoded(&self) -> io::Result<&File> {
        if let Some(file) = self.decoded.get() {
            return Ok(file);
        }
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let file = options.open(self.dir.join("decoded"))?;
        Ok(self.decoded.get_or_init(|| file))
    }

    /// Fills `buf` with uncompressed bytes from `offset` on; they are whatever the file holds.
    pub(in crate::store) fn read_unchecked(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.data.read_exact_at(buf, offset)
    }

    /// Writes uncompressed bytes.
    pub(in crate::store) fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.data.write_all_at(bytes, offset)
    }

    /// Marks a span present (or used again) now.
    pub(in crate::store) fn mark(&self, span: usize) -> io::Result<()> {
        self.present
            .write_all_at(&now().to_le_bytes(), position(span))
    }

    /// Whether a span is marked present.
    pub(in crate::store) fn is_marked(&self, span: usize) -> io::Result<bool> {
        let mut mark = [0; 4];
        match self.present.read_exact_at(&mut mark, position(span)) {
            Ok(()) => Ok(mark != [0; 4]),
            Err(err) if err.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
            Err(err) => Err(err),
        }
    }

    /// Marks a span absent: its bytes turned out to be bad.
    pub(in crate::store) fn unmark(&self, span: usize) -> io::Result<()> {
        self.present.write_all_at(&[0; 4], position(span))
    }

    /// When each of `count` spans was last used; 0 for those that are not there.
    pub(in crate::store) fn marks(&self, count: usize) -> io::Result<Vec<u32>> {
        read_marks(&self.present, count)
    }
}

/// The data of a layer that is fetched as a whole. It grows beside the files in use: a process that
/// has the layer open goes on reading those, and never meets a byte whose blob was not checked.
pub(in crate::store) struct NewData {
    data: Arc<File>,
    dir: PathBuf,
    published: bool,
}

impl NewData {
    /// Empty data for the layer in `dir`. The caller holds the lock `build`, so what a killed
    /// process left there may go.
    pub(in crate::store) fn create(dir: &Path) -> Result<Self, StoreError> {
        let path = dir.join(NEW_DATA);
        remove_if_there(&path).map_err(StoreError::io("remove", &path))?;
        let data = OpenOptions::new().write(true).create_new(true).open(&path);
        Ok(Self {
            data: Arc::new(data.map_err(StoreError::io("create", &path))?),
            dir: dir.to_owned(),
            published: false,
        })
    }

    /// The file, to be written at the bytes' own offsets. It may outlive this value, which then
    /// leads nowhere.
    pub(in crate::store) fn file(&self) -> Arc<File> {
        Arc::clone(&self.data)
    }

    /// All `spans` spans are written and right: they take the place of what the layer had.
    pub(in crate::store) fn publish(mut self, spans: usize) -> Result<(), StoreError> {
        let path = self.dir.join("data");
        std::fs::rename(self.dir.join(NEW_DATA), &path).map_err(StoreError::io("write", &path))?;
        self.published = true;
        // The marks come last: without them, or with old ones, nothing is served that is not
        // checked first.
        publish(
            &self.dir.join("present"),
            &now().to_le_bytes().repeat(spans),
        )
    }
}

impl Drop for NewData {
    fn drop(&mut self) {
        let path = self.dir.join(NEW_DATA);
        if !self.published
            && let Err(err) = remove_if_there(&path)
        {
            tracing::warn!("cannot remove {}: {err}", path.display());
        }
    }
}

/// One layer as eviction sees it: locked exclusively.
pub(in crate::store) struct EvictableLayer {
    data: File,
    present: File,
    _lock: Locked,
}

impl EvictableLayer {
    /// The layer in `dir`, unless somebody uses it or has removed it.
    pub(in crate::store) fn try_open(dir: &Path) -> Result<Option<Self>, StoreError> {
        let Some(lock) = Locked::try_take_layer(dir)? else {
            return Ok(None);
        };
        // Who fetches a layer has it open, too: nobody is at these any more.
        for name in UNFINISHED {
            let left = dir.join(name);
            remove_if_there(&left).map_err(StoreError::io("remove", &left))?;
        }
        Ok(Some(Self {
            data: open(&dir.join("data"))?,
            present: open(&dir.join("present"))?,
            _lock: lock,
        }))
    }

    /// When each span was last used; 0 for those that are not there.
    pub(in crate::store) fn marks(&self) -> io::Result<Vec<u32>> {
        let count = usize::try_from(self.present.metadata()?.len() / 4).unwrap_or_default();
        read_marks(&self.present, count)
    }

    /// Drops a span: first its mark, then its bytes.
    pub(in crate::store) fn evict(&self, span: usize, range: &Range<u64>) -> io::Result<()> {
        self.present.write_all_at(&[0; 4], position(span))?;
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        Ok(fallocate(
            &self.data,
            flags,
            range.start,
            range.end - range.start,
        )?)
    }

    /// Drops all spans.
    pub(in crate::store) fn evict_all(&self) -> io::Result<()> {
        self.present.set_len(0)?;
        self.data.set_len(0)
    }
}

impl Locked {
    /// Takes the lock, waiting for its owner, however long; `waiting` is called once before that.
    pub(in crate::store) async fn take(
        path: &Path,
        waiting: impl FnOnce(),
    ) -> Result<Self, StoreError> {
        if let Some(lock) = Self::try_take(path)? {
            return Ok(lock);
        }
        waiting();
        loop {
            tokio::time::sleep(LOCK_PAUSE).await;
            if let Some(lock) = Self::try_take(path)? {
                return Ok(lock);
            }
        }
    }

    /// Takes the lock of the layer in `dir` if nobody uses the layer, nor has removed it.
    pub(in crate::store) fn try_take_layer(dir: &Path) -> Result<Option<Self>, StoreError> {
        let path = dir.join("lock");
        let lock = if_there(Self::try_take(&path))?.flatten();
        Ok(lock.filter(|lock| is_at(&lock.0, &path)))
    }

    /// The same, patiently: a process that only looks whether the layer is in use has it for a
    /// moment, too.
    pub(in crate::store) fn try_take_layer_twice(dir: &Path) -> Result<Option<Self>, StoreError> {
        if let Some(lock) = Self::try_take_layer(dir)? {
            return Ok(Some(lock));
        }
        std::thread::sleep(LOOK_PAUSE);
        Self::try_take_layer(dir)
    }

    /// Those of these layers that somebody uses.
    pub(in crate::store) fn in_use(
        dirs: Vec<(Slot, PathBuf)>,
    ) -> Result<Vec<(Slot, PathBuf)>, StoreError> {
        let look = |dirs: Vec<(Slot, PathBuf)>| {
            let mut used = Vec::new();
            for (slot, dir) in dirs {
                if Self::try_take_layer(&dir)?.is_none() && dir.exists() {
                    used.push((slot, dir));
                }
            }
            Ok(used)
        };
        let used = look(dirs)?;
        if used.is_empty() {
            return Ok(used);
        }
        std::thread::sleep(LOOK_PAUSE);
        look(used)
    }

    /// Takes the lock together with others who share it. Waits for a process that has it alone.
    pub(in crate::store) async fn share(path: &Path) -> Result<Self, StoreError> {
        let file = open(path)?;
        while !try_lock(&file, path, FlockOperation::NonBlockingLockShared)? {
            tokio::time::sleep(LOCK_PAUSE).await;
        }
        Ok(Self(file))
    }

    /// Takes the lock; waits on this thread for those who have it.
    pub(in crate::store) fn take_now(path: &Path) -> Result<Self, StoreError> {
        loop {
            if let Some(lock) = Self::try_take(path)? {
                return Ok(lock);
            }
            std::thread::sleep(LOCK_PAUSE);
        }
    }

    /// Takes the lock if nobody has it.
    pub(in crate::store) fn try_take(path: &Path) -> Result<Option<Self>, StoreError> {
        let file = open(path)?;
        let taken = try_lock(&file, path, FlockOperation::NonBlockingLockExclusive)?;
        Ok(taken.then_some(Self(file)))
    }
}

fn try_lock(file: &File, path: &Path, operation: FlockOperation) -> Result<bool, StoreError> {
    match flock(file, operation) {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(false),
        Err(err) => Err(StoreError::io("lock", path)(err.into())),
    }
}

/// The value, or nothing if there is no such file.
fn if_there<T>(result: Result<T, StoreError>) -> Result<Option<T>, StoreError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(StoreError::Io { cause, .. }) if cause.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(err) => Err(err),
    }
}

/// Whether an open file is the one that has this name now.
fn is_at(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let same = |open: std::fs::Metadata, named: std::fs::Metadata| {
        open.dev() == named.dev() && open.ino() == named.ino()
    };
    (file.metadata().ok())
        .zip(std::fs::metadata(path).ok())
        .is_some_and(|(open, named)| same(open, named))
}

/// Disk space a layer's data takes, in bytes; 0 if there is none.
pub(in crate::store) fn disk_usage(dir: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let used = |name| std::fs::metadata(dir.join(name)).map_or(0, |data| data.blocks() * 512);
    used("data") + used(NEW_DATA) + used(PARTIAL) + used(BLOB)
}

/// Writes a small file beside its place and moves it there: readers see the old or the new one.
pub(in crate::store) fn publish(path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    let dir: PathBuf = path.parent().unwrap_or(Path::new("/")).to_owned();
    std::fs::create_dir_all(&dir).map_err(StoreError::io("create", &dir))?;
    let write = || -> io::Result<()> {
        let mut file = tempfile::NamedTempFile::new_in(&dir)?;
        io::Write::write_all(&mut file, bytes)?;
        file.persist(path).map_err(|err| err.error)?;
        Ok(())
    };
    write().map_err(StoreError::io("write", path))
}

/// Reads a file, or nothing if it does not exist.
pub(in crate::store) fn read_if_there(path: &Path) -> Result<Option<Vec<u8>>, StoreError> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(err) => Err(StoreError::io("read", path)(err)),
    }
}

pub(in crate::store) fn remove_if_there(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(err) if err.kind() != io::ErrorKind::NotFound => Err(err),
        _ => Ok(()),
    }
}

fn open(path: &Path) -> Result<File, StoreError> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    options.open(path).map_err(StoreError::io("open", path))
}

fn position(span: usize) -> u64 {
    span as u64 * 4
}

fn read_marks(present: &File, count: usize) -> io::Result<Vec<u32>> {
    let mut bytes = vec![0; count * 4];
    let mut filled = 0;
    // A short file means that nothing behind its end is present.
    while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match present.read_at(rest, filled as u64)? {
            0 => break,
            n => filled += n,
        }
    }
    let (words, _) = bytes.as_chunks::<4>();
    Ok(words.iter().map(|word| u32::from_le_bytes(*word)).collect())
}

fn now() -> u32 {
    let seconds = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(1, |since| since.as_secs());
    // 0 means absent; after 2106 everything was used at the same time, which only costs eviction
    // its order.
    u32::try_from(seconds).unwrap_or(u32::MAX).max(1)
}
