//! The libraries of a program are fetched together.
//!
//! The loader maps one library after the other, and asks for the next one only when it has the one
//! before: a round trip for each. But a program names all of them, so when one has been fetched
//! whole (see `super::programs`), its interpreter and its libraries follow at the same time, and
//! theirs when they are here.
//!
//! These are hints: what is not found, or not where the usual loaders look, is fetched when
//! somebody reads it. Errors are left to that read, too.

use std::ops::Range;
use std::sync::Arc;

use tracing::Instrument;

use super::elf::{Headers, MAX_DYNAMIC};
use super::programs::Programs;
use crate::store::LayerReader;

use imgfs_formats::tree::{Extents, Ino, Tree};

/// Longest name or list of directories that is read.
const MAX_STRING: u64 = 4096;
/// Bytes from a program's start in which its headers are.
const MAX_HEAD: u64 = 4096;
/// Where loaders look at last (ld.so(8), and musl's and Fedora's places).
const USUAL_DIRECTORIES: [&[u8]; 5] = [
    b"/lib",
    b"/usr/lib",
    b"/lib64",
    b"/usr/lib64",
    b"/usr/local/lib",
];
/// glibc's loader reads this before it looks for anything.
const LOADER_CACHE: &[u8] = b"/etc/ld.so.cache";
/// A larger one is fetched when it is read.
const MAX_LOADER_CACHE: u64 = 1 << 20;

/// A file that lies in one piece in its layer.
struct Whole<'a> {
    layer: &'a Arc<LayerReader>,
    place: Range<u64>,
}

impl Programs {
    /// Fetches what the program or library `ino`, all of which is here, needs to start, without
    /// waiting for it. Reads the disk. Looks at each file once.
    pub(crate) fn fetch_libraries(self: &Arc<Self>, ino: Ino) {
        if !self.libraries.lock().seen.insert(ino) {
            return;
        }
        for needed in self.needs(ino).unwrap_or_default() {
            let Some(file) = self
                .in_one_piece(needed)
                .filter(|file| !file.layer.is_marked_here(file.place.clone()))
            else {
                continue;
            };
            let programs = Arc::clone(self);
            let fetching = async move {
                if let Err(err) = programs.fetch_whole(needed, false).await {
                    tracing::debug!("fetching a library ahead: {err}");
                    return;
                }
                let on = tokio::task::spawn_blocking(move || programs.fetch_libraries(needed));
                // It only hints.
                let _ended = on.await;
            };
            file.layer.runtime().spawn(fetching.in_current_span());
        }
    }

    /// The files that a program needs to start, as far as they are found.
    fn needs(&self, ino: Ino) -> Option<Vec<Ino>> {
        let program = self.in_one_piece(ino)?;
        let headers = Headers::parse(&program.read(0..MAX_HEAD)?)?;
        let mut found = Vec::new();
        if let Some(place) = headers.interpreter.clone() {
            found.extend(self.tree.resolve(&program.string(place.start)?, true));
            found.extend(self.tree.resolve(LOADER_CACHE, true));
            if let Some(interpreter) = found.first() {
                self.note_directory(*interpreter);
            }
        }
        let section = headers.dynamic.clone()?;
        let section = section.start..section.end.min(section.start.checked_add(MAX_DYNAMIC)?);
        let dynamic = headers.dynamic(&program.read(section)?)?;
        let mut directories = Vec::new();
        if let Some(paths) = dynamic.paths.and_then(|place| program.string(place)) {
            let origin = || {
                self.tree
                    .path(ino)
                    .as_deref()
                    .map(parent)
                    .unwrap_or_default()
            };
            directories.extend(
                paths
                    .split(|byte| *byte == b':')
                    .map(|path| with_origin(path, origin)),
            );
        }
        directories.extend(self.libraries.lock().directories.iter().cloned());
        directories.extend(USUAL_DIRECTORIES.map(<[u8]>::to_vec));
        for place in dynamic.needed {
            let Some(name) = program.string(place) else {
                continue;
            };
            found.extend(find(&self.tree, &directories, &name));
        }
        found.retain(|ino| self.is_worth_it(*ino));
        Some(found)
    }

    fn is_worth_it(&self, ino: Ino) -> bool {
        let is_cache = self.tree.resolve(LOADER_CACHE, true) == Ok(ino);
        let limit = if is_cache {
            MAX_LOADER_CACHE
        } else {
            self.limit()
        };
        (self.tree.node(ino)).is_some_and(|node| node.is_file() && node.size() <= limit)
    }

    fn note_directory(&self, interpreter: Ino) {
        if self.libraries.lock().seen.contains(&interpreter) {
            return;
        }
        // A search through all names, but once for each interpreter, and there are few.
        let Some(path) = self.tree.path(interpreter) else {
            return;
        };
        let directory = parent(&path);
        let mut known = self.libraries.lock();
        if !known.directories.contains(&directory) {
            known.directories.push(directory);
        }
    }

    fn in_one_piece(&self, ino: Ino) -> Option<Whole<'_>> {
        let stored = self.tree.stored(ino)?;
        let Extents::One(extent) = stored.extents else {
            return None;
        };
        Some(Whole {
            layer: self.layers.get(stored.layer)?,
            place: extent.layer_offset..extent.layer_offset.checked_add(extent.length)?,
        })
    }
}

impl Whole<'_> {
    /// The bytes `range` of the file as far as it goes, if they are here.
    fn read(&self, range: Range<u64>) -> Option<Vec<u8>> {
        let start = self.place.start.checked_add(range.start)?;
        let end = self.place.start.checked_add(range.end)?.min(self.place.end);
        let mut bytes = vec![0; usize::try_from(end.checked_sub(start)?).ok()?];
        let is_here = self.layer.try_read_quietly(start, &mut bytes).ok()?;
        is_here.then_some(bytes)
    }

    /// The string at `place`, without the zero at its end.
    fn string(&self, place: u64) -> Option<Vec<u8>> {
        let mut bytes = self.read(place..place.checked_add(MAX_STRING)?)?;
        let end = bytes.iter().position(|byte| *byte == 0)?;
        bytes.truncate(end);
        Some(bytes)
    }
}

/// The library `name`, where the loader would look for it.
fn find(tree: &Tree, directories: &[Vec<u8>], name: &[u8]) -> Option<Ino> {
    if name.contains(&b'/') {
        return tree.resolve(name, true).ok();
    }
    directories.iter().find_map(|directory| {
        let path = [directory.as_slice(), b"/", name].concat();
        tree.resolve(&path, true).ok()
    })
}

/// The directory that a path is in.
fn parent(path: &[u8]) -> Vec<u8> {
    let end = path.iter().rposition(|byte| *byte == b'/');
    path.get(..end.unwrap_or_default())
        .unwrap_or_default()
        .to_vec()
}

/// A directory to look in; `$ORIGIN` at its start is where the program is.
fn with_origin(path: &[u8], origin: impl Fn() -> Vec<u8>) -> Vec<u8> {
    let rest = (path.strip_prefix(b"$ORIGIN")).or_else(|| path.strip_prefix(b"${ORIGIN}"));
    rest.map_or_else(|| path.to_vec(), |rest| [&origin(), rest].concat())
}
