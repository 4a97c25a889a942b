//! Programs are fetched whole before their first bytes are answered.
//!
//! The kernel maps a program and its libraries and reads them page by page as they run. A page that
//! cannot be fetched then is a SIGBUS in the middle of whatever the program does; an error of the
//! first read is an `execve` or a `dlopen` that fails, which programs know how to handle. So the
//! read that covers the ELF header makes sure that everything else is in the cache, too.
//!
//! What looks like a program before its header is here (it may be executed, or its name says that
//! it is a library) is fetched beyond the first piece at once: asking for the rest only after the
//! header has come would cost a round trip for each program and each library.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use crate::store::{LayerReader, StoreError};
use imgfs_formats::tree::{Extents, Ino, Tree};

/// Larger programs are fetched as they are read. 64 MiB holds nearly all programs and libraries,
/// and takes three seconds at 200 Mbit/s.
pub const EXECUTABLE_LIMIT: u64 = 64 << 20;

/// What is known of the image's libraries.
#[derive(Debug, Default)]
pub(super) struct Libraries {
    state: Mutex<Known>,
}

/// What a lock protects.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// Programs and libraries that were looked at.
    pub(super) seen: HashSet<Ino>,
    /// The interpreters' own directories: libraries usually lie beside them.
    pub(super) directories: Vec<Vec<u8>>,
}

impl Libraries {
    pub(super) fn lock(&self) -> MutexGuard<'_, Known> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The programs and libraries of an image: which of them are here, and what they need.
pub struct Programs {
    pub(super) tree: Arc<Tree>,
    pub(super) layers: Vec<Arc<LayerReader>>,
    pub(super) libraries: Libraries,
    /// Size of the largest file that is fetched whole; 0 for none.
    limit: AtomicU64,
    whole: Mutex<HashSet<Ino>>,
    /// What the names of libraries lead to, looked for once: names are not known when a file is
    /// read.
    named: OnceLock<HashSet<Ino>>,
}

impl Programs {
    /// Those of this tree, whose files' bytes are in these layers. None is fetched whole yet.
    pub fn new(tree: Arc<Tree>, layers: Vec<Arc<LayerReader>>) -> Self {
        Self {
            tree,
            layers,
            libraries: Libraries::default(),
            limit: AtomicU64::new(0),
            whole: Mutex::default(),
            named: OnceLock::new(),
        }
    }

    /// From now on ELF programs and libraries of at most this size are fetched whole at their first
    /// read.
    pub fn fetch_up_to(&self, limit: u64) {
        self.limit.store(limit, Ordering::Relaxed);
    }

    /// Size of the largest program that is fetched whole.
    pub(super) fn limit(&self) -> u64 {
        self.limit.load(Ordering::Relaxed)
    }

    /// A reader needed `bytes`, the start of a file: whether it is a program or library of which
    /// the rest is not here, so that [`Programs::fetch`] has to come before the answer. Where all
    /// of it is here, its libraries are looked for, on another thread, so that the reader does not
    /// wait for that. Looks at the marks of the cache only, once for each program.
    pub fn lacks(self: &Arc<Self>, ino: Ino, offset: u64, bytes: &[u8]) -> bool {
        if offset != 0 || !is_program(bytes) || self.whole().contains(&ino) {
            return false;
        }
        let Some((layer, ranges)) = self.place(ino) else {
            return false;
        };
        let is_here = ranges
            .iter()
            .all(|range| layer.is_marked_here(range.clone()));
        if is_here {
            self.whole().insert(ino);
            let programs = Arc::clone(self);
            layer
                .runtime()
                .spawn_blocking(move || programs.fetch_libraries(ino));
        }
        !is_here
    }

    /// The size of a file whose start is about to be read, and that is probably a program or
    /// library that will be fetched whole.
    pub fn probable_size(&self, ino: Ino, offset: u64) -> Option<u64> {
        let node = self.tree.node(ino)?;
        let Extents::One(extent) = self.tree.stored(ino)?.extents else {
            return None;
        };
        let is_probable = offset == 0
            && extent.length <= self.limit()
            && (node.permissions() & 0o111 != 0 || self.named().contains(&ino));
        is_probable.then_some(extent.length)
    }

    /// Fetches what is missing of a program that a reader waits for, and begins to fetch what it
    /// needs. Must run on the runtime.
    pub async fn fetch(self: &Arc<Self>, ino: Ino) -> Result<(), StoreError> {
        self.fetch_whole(ino, true).await?;
        let programs = Arc::clone(self);
        tokio::task::spawn_blocking(move || programs.fetch_libraries(ino));
        Ok(())
    }

    /// Fetches what is missing of a file, which somebody reads if `is_read`.
    pub(super) async fn fetch_whole(&self, ino: Ino, is_read: bool) -> Result<(), StoreError> {
        if let Some((layer, ranges)) = self.place(ino) {
            layer.fetch_ranges(&ranges, is_read).await?;
            self.whole().insert(ino);
        }
        Ok(())
    }

    /// The layer of a file that is not too large to be fetched whole, and its ranges there.
    fn place(&self, ino: Ino) -> Option<(&Arc<LayerReader>, Vec<Range<u64>>)> {
        let stored = self.tree.stored(ino)?;
        let layer = self.layers.get(stored.layer)?;
        let ranges = (stored.extents.as_slice().iter())
            .map(|extent| extent.layer_offset..extent.layer_offset + extent.length);
        (stored.size <= self.limit()).then(|| (layer, ranges.collect()))
    }

    fn named(&self) -> &HashSet<Ino> {
        self.named.get_or_init(|| {
            let names = self.tree.names().filter(|(name, _)| is_library(name));
            names.map(|(_, ino)| ino).collect()
        })
    }

    fn whole(&self) -> MutexGuard<'_, HashSet<Ino>> {
        self.whole.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a name is that of a shared library: `libc.so.6`,
/// `_json.cpython-311-x86_64-linux-gnu.so`.
fn is_library(name: &[u8]) -> bool {
    name.ends_with(b".so") || name.windows(4).any(|part| part == b".so.")
}

/// Whether a file that begins like this can be run or loaded: `ET_EXEC` or `ET_DYN` in an ELF
/// header (System V ABI, chapter 4), not an object file or a core dump.
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
