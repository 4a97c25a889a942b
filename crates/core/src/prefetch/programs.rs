//! Programs are fetched whole before their first bytes are answered.
//!
//! The kernel maps a program and its libraries and reads them page by page as they run. A page that cannot be fetched
//! then is a SIGBUS in the middle of whatever the program does; an error of the first read is an `execve` or a
//! `dlopen` that fails, which programs know how to handle. So the read that covers the ELF header makes sure that
//! everything else is in the cache, too.
//!
//! What looks like a program before its header is here (it may be executed, or its name says that it is a library) is
//! fetched beyond the first piece at once: asking for the rest only after the header has come would cost a round trip for
//! each program and each library.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use crate::view::{Extents, FsError, ImageFs, Plan};
use imgfs_formats::tree::Ino;

/// Larger programs are fetched as they are read. 64 MiB holds nearly all programs and libraries, and takes three
/// seconds at 200 Mbit/s.
pub const EXECUTABLE_LIMIT: u64 = 64 << 20;

/// Which programs are here.
#[derive(Debug, Default)]
pub(crate) struct Executables {
    /// Size of the largest file that is fetched whole; 0 for none.
    limit: AtomicU64,
    whole: Mutex<HashSet<Ino>>,
    /// What the names of libraries lead to, looked for once: names are not known when a file is read.
    libraries: OnceLock<HashSet<Ino>>,
}

impl Executables {
    fn is_whole(&self, ino: Ino) -> bool {
        self.whole().contains(&ino)
    }

    fn whole(&self) -> std::sync::MutexGuard<'_, HashSet<Ino>> {
        self.whole.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ImageFs {
    /// From now on ELF programs and libraries of at most this size are fetched whole at their first read.
    pub fn fetch_executables(&self, limit: u64) {
        self.executables.limit.store(limit, Ordering::Relaxed);
    }

    /// Whether the file of which `bytes` were read, from `offset` on, has to be fetched whole before they are answered.
    /// Looks at the marks of the cache only, once for each program.
    pub(crate) fn lacks_executable(
        self: &Arc<Self>,
        ino: Ino,
        offset: u64,
        bytes: &[u8],
    ) -> Result<bool, FsError> {
        if offset != 0 || !is_program(bytes) || self.executables.is_whole(ino) {
            return Ok(false);
        }
        let (layer, extents, size) = self.extents(ino)?;
        if size > self.executable_limit() {
            return Ok(false);
        }
        let layer = self.layer(ino, layer)?;
        let is_here = (extents.as_slice().iter()).all(|extent| {
            layer.is_marked_here(extent.layer_offset..extent.layer_offset + extent.length)
        });
        if is_here {
            self.executables.whole().insert(ino);
            self.fetch_libraries(ino);
        }
        Ok(!is_here)
    }

    /// Size of the largest program that is fetched whole.
    pub(crate) fn executable_limit(&self) -> u64 {
        self.executables.limit.load(Ordering::Relaxed)
    }

    fn named_libraries(&self) -> &HashSet<Ino> {
        self.executables.libraries.get_or_init(|| {
            let names = self.tree.names().filter(|(name, _)| is_library(name));
            names.map(|(_, ino)| ino).collect()
        })
    }

    /// The size of a file that is about to be read from its start and is probably a program that will be fetched whole.
    pub(crate) fn probable_program(&self, ino: Ino, plan: &Plan<'_>) -> Option<u64> {
        let node = self.tree.node(ino)?;
        let Extents::One(extent) = plan.extents else {
            return None;
        };
        let is_probable = plan.offset == 0
            && extent.length <= self.executable_limit()
            && (node.permissions() & 0o111 != 0 || self.named_libraries().contains(&ino));
        is_probable.then_some(extent.length)
    }

    /// Fetches what is missing of a program, and begins to fetch what it needs. Must run on the runtime.
    pub(crate) async fn fetch_executable(self: &Arc<Self>, ino: Ino) -> Result<(), FsError> {
        self.fetch_whole(ino, true).await?;
        self.fetch_libraries(ino);
        Ok(())
    }

    /// Fetches what is missing of a file, which somebody reads if `is_read`.
    pub(crate) async fn fetch_whole(&self, ino: Ino, is_read: bool) -> Result<(), FsError> {
        let (layer, extents, _) = self.extents(ino)?;
        let layer = self.layer(ino, layer)?;
        let ranges: Vec<_> = (extents.as_slice().iter())
            .map(|extent| extent.layer_offset..extent.layer_offset + extent.length)
            .collect();
        let fetched = layer.fetch_ranges(&ranges, is_read).await;
        fetched.map_err(|source| self.read_error(ino, source))?;
        self.executables.whole().insert(ino);
        Ok(())
    }
}

/// Whether a name is that of a shared library: `libc.so.6`, `_json.cpython-311-x86_64-linux-gnu.so`.
fn is_library(name: &[u8]) -> bool {
    name.ends_with(b".so") || name.windows(4).any(|part| part == b".so.")
}

/// Whether a file that begins like this can be run or loaded: `ET_EXEC` or `ET_DYN` in an ELF header (System V ABI,
/// chapter 4), not an object file or a core dump.
fn is_program(bytes: &[u8]) -> bool {
    let Some(header) = bytes.first_chunk::<18>() else {
        return false;
    };
    let [0x7f, b'E', b'L', b'F', _, order, .., low, high] = *header else {
        return false;
    };
    let kind = match order {
        1 => u16::from_le_bytes([low, high]),
        2 => u16::from_be_bytes([low, high]),
        _ => return false,
    };
    matches!(kind, 2 | 3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_known_by_their_header() {
        let check = |magic: &[u8], order, kind: [u8; 2], expected| {
            let mut bytes = magic.to_vec();
            bytes.extend([2, order]);
            bytes.resize(16, 0);
            bytes.extend(kind);
            assert_eq!(is_program(&bytes), expected, "{bytes:?}");
            assert!(!is_program(&bytes[..17]));
        };
        check(b"\x7fELF", 1, [2, 0], true);
        check(b"\x7fELF", 1, [3, 0], true);
        check(b"\x7fELF", 2, [0, 2], true);
        check(b"\x7fELF", 2, [0, 3], true);
        check(b"\x7fELF", 1, [1, 0], false);
        check(b"\x7fELF", 1, [4, 0], false);
        check(b"\x7fELF", 1, [0, 2], false);
        check(b"\x7fELF", 0, [2, 0], false);
        check(b"\x7fELX", 1, [2, 0], false);
        assert!(!is_program(b"#!/bin/sh\nexit 0\n"));
        assert!(!is_program(b""));
    }
}
