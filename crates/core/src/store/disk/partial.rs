//! The start of a blob whose first contact was broken off, kept beside the layer so that the next
//! one goes on from there.
//!
//! Only a pull keeps it, as it costs a second write of the bytes; the next process that streams the
//! layer reads it. It is appended to as bytes arrive and never synced, so it may hold anything
//! after a power failure: the blob's digest decides, and if it is wrong the layer is begun anew
//! without it. A process that has it open holds the lock `build`.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc;

use super::files::{PARTIAL, remove_if_there};
use crate::store::StoreError;

/// Bytes read at a time.
const PIECE: u64 = 1 << 20;

/// What is here of a blob, from its start on.
pub(in crate::store) struct PartialBlob {
    path: PathBuf,
    /// `None` if there is nothing and nothing is to be kept.
    file: Option<Arc<File>>,
    length: u64,
}

impl PartialBlob {
    /// Looks what the layer in `dir`, with a blob of `size` bytes, has; with `keep` more can be
    /// added.
    pub(in crate::store) fn open(dir: &Path, size: u64, keep: bool) -> Result<Self, StoreError> {
        let path = dir.join(PARTIAL);
        let mut options = OpenOptions::new();
        options.read(true).write(keep).create(keep).truncate(false);
        let file = match options.open(&path) {
            Ok(file) => file,
            Err(err) if err.kind() == io::ErrorKind::NotFound => {
                return Ok(Self::nothing(path));
            }
            Err(err) => return Err(StoreError::io("open", &path)(err)),
        };
        let metadata = file.metadata().map_err(StoreError::io("read", &path))?;
        let mut partial = Self {
            path,
            file: Some(Arc::new(file)),
            length: metadata.len(),
        };
        if partial.length > size {
            // Of some other blob, or damaged.
            partial.remove()?;
            return Self::open(dir, size, keep);
        }
        Ok(partial)
    }

    /// A blob of `size` bytes that is all in the file `path`.
    pub(in crate::store) fn whole(path: PathBuf, size: u64) -> Result<Self, StoreError> {
        let file = File::open(&path).map_err(StoreError::io("open", &path))?;
        Ok(Self {
            path,
            file: Some(Arc::new(file)),
            length: size,
        })
    }

    /// Nothing, wherever.
    pub(in crate::store) fn none() -> Self {
        Self::nothing(PathBuf::new())
    }

    fn nothing(path: PathBuf) -> Self {
        Self {
            path,
            file: None,
            length: 0,
        }
    }

    /// How many bytes it had when it was opened.
    pub(in crate::store) fn length(&self) -> u64 {
        self.length
    }

    /// The bytes from `offset` on, at most a piece of them; none at the end.
    pub(in crate::store) async fn read(&self, offset: u64) -> Result<Bytes, StoreError> {
        let Some(file) = self.file.clone() else {
            return Ok(Bytes::new());
        };
        let length = self.length.saturating_sub(offset).min(PIECE);
        let read = tokio::task::spawn_blocking(move || {
            let mut bytes = vec![0; usize::try_from(length).unwrap_or_default()];
            file.read_exact_at(&mut bytes, offset)?;
            io::Result::Ok(Bytes::from(bytes))
        });
        let read = read.await.map_err(|_| StoreError::Worker("reading"))?;
        read.map_err(StoreError::io("read", &self.path))
    }

    /// What takes the bytes that follow, in order, on a thread of its own. A write that fails ends
    /// the keeping and nothing else: what is there stays right.
    pub(in crate::store) fn keep(
        &self,
        mut input: mpsc::Receiver<Bytes>,
    ) -> tokio::task::JoinHandle<()> {
        let (file, mut position) = (self.file.clone(), self.length);
        tokio::task::spawn_blocking(move || {
            while let (Some(file), Some(bytes)) = (&file, input.blocking_recv()) {
                if let Err(err) = file.write_all_at(&bytes, position) {
                    tracing::debug!("what is fetched cannot be kept for another attempt: {err}");
                    return;
                }
                position += bytes.len() as u64;
            }
        })
    }

    /// Removes it: it was used up, or is wrong.
    pub(in crate::store) fn remove(&mut self) -> Result<(), StoreError> {
        self.file = None;
        self.length = 0;
        remove_if_there(&self.path).map_err(StoreError::io("remove", &self.path))
    }
}
