//! Ranges of local files as byte streams: positional reads on blocking threads.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream;

use super::ByteStream;
use super::error::SourceError;
use super::traffic::Counters;

/// Bytes read at a time: large enough that the change of threads costs nothing, small enough to
/// bound memory.
const PIECE: u64 = 1 << 20;

/// An open file that counts what is read of it.
#[derive(Debug)]
pub(super) struct SourceFile {
    file: File,
    path: PathBuf,
    counters: Arc<Counters>,
}

impl SourceFile {
    pub(super) fn open(path: &Path, counters: &Arc<Counters>) -> Result<Self, SourceError> {
        let file = File::open(path).map_err(|cause| file_error(path, cause))?;
        Ok(Self {
            file,
            path: path.to_owned(),
            counters: Arc::clone(counters),
        })
    }

    pub(super) fn size(&self) -> Result<u64, SourceError> {
        let metadata = self
            .file
            .metadata()
            .map_err(|cause| file_error(&self.path, cause))?;
        Ok(metadata.len())
    }

    /// Reads exactly the range.
    pub(super) fn read(&self, range: &Range<u64>) -> Result<Vec<u8>, SourceError> {
        let length = usize::try_from(range.end - range.start)
            .map_err(|_| file_error(&self.path, io::ErrorKind::OutOfMemory.into()))?;
        let mut buf = vec![0; length];
        self.file
            .read_exact_at(&mut buf, range.start)
            .map_err(|cause| file_error(&self.path, cause))?;
        self.counters.add_bytes(length);
        Ok(buf)
    }

    /// Streams the range.
    pub(super) fn stream(self: Arc<Self>, range: Range<u64>) -> ByteStream {
        self.counters.add_request();
        ByteStream::new(stream::try_unfold(range.start, move |offset| {
            let file = Arc::clone(&self);
            let piece = offset..range.end.min(offset + PIECE);
            async move {
                if piece.is_empty() {
                    return Ok(None);
                }
                let end = piece.end;
                let path = file.path.clone();
                let read = tokio::task::spawn_blocking(move || file.read(&piece)).await;
                // Only at shutdown: the runtime drops the task.
                let bytes =
                    read.map_err(|_| file_error(&path, io::ErrorKind::Interrupted.into()))??;
                Ok(Some((Bytes::from(bytes), end)))
            }
        }))
    }
}

/// Reads a whole small file.
pub(super) fn read_small(path: &Path, limit: u64) -> Result<Vec<u8>, SourceError> {
    use std::io::Read;
    let mut body = Vec::new();
    File::open(path)
        .and_then(|file| file.take(limit + 1).read_to_end(&mut body))
        .map_err(|cause| file_error(path, cause))?;
    if body.len() as u64 > limit {
        return Err(SourceError::Local {
            path: path.to_owned(),
            problem: format!("more than the limit of {limit} bytes"),
        });
    }
    Ok(body)
}

pub(super) fn file_error(path: &Path, cause: io::Error) -> SourceError {
    SourceError::File {
        path: path.to_owned(),
        cause,
    }
}
