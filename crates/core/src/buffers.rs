//! What cached reads are read into, and spans that are checked: buffers that all mounts of the
//! process share, as each grows to the largest read (1 MiB) or span, and a mount has several
//! threads.

use std::sync::{Mutex, PoisonError};

/// Buffers that are kept: those of four reads at the same time. More would be memory that a busy
/// moment leaves behind.
const KEPT: usize = 4;

static BUFFERS: Mutex<Vec<Vec<u8>>> = Mutex::new(Vec::new());

/// Does `work` with a buffer in any state, the one that was used last if it is free.
pub(crate) fn with_buffer<T>(work: impl FnOnce(&mut Vec<u8>) -> T) -> T {
    let lock = || BUFFERS.lock().unwrap_or_else(PoisonError::into_inner);
    let mut buffer = lock().pop().unwrap_or_default();
    let result = work(&mut buffer);
    let mut buffers = lock();
    if buffers.len() < KEPT {
        buffers.push(buffer);
    }
    result
}
