//! Reading many files one after the other, all of each: for a program that copies a tree.
//!
//! Their bytes are cut into pieces, and the pieces into windows. While one window is read the next
//! one is fetched, its files' spans sorted by layer and position and asked for in long runs,
//! whatever order the files are read in:
//!
//! ```text
//! files      a     b  c        d                 e  f
//! pieces     a0 a1 b0 c0 c1 c2 d0 d1 d2 d3 d4 d5 e0 f0
//! windows    |------ 0 ------|------ 1 ------|--- 2 --
//!              being read        fetched          not looked at
//! ```
//!
//! What is fetched goes to the cache, not to memory: only one piece is ever here.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;

use tokio::task::JoinSet;

use crate::store::{LayerReader, StoreError};
use imgfs_formats::tree::{Ino, Tree};

/// Most bytes read at a time.
const PIECE: u64 = 1 << 20;
/// Uncompressed bytes in a window: at 200 Mbit/s about a second's, which keeps several runs under
/// way at once.
const WINDOW: u64 = 32 << 20;
/// Windows under way: the one that is read, and the next.
const WINDOWS: usize = 2;

/// Why files cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum WalkError {
    /// A hard link whose target is in no layer, or no regular file.
    #[error("{path} is a hard link to nothing")]
    BrokenLink {
        /// One path of the file.
        path: String,
    },
    /// Its bytes could not be had.
    #[error("cannot read {path}")]
    Read {
        /// One path of the file.
        path: String,
        /// Why.
        #[source]
        source: Box<StoreError>,
    },
}

/// Some stored bytes of a file.
struct Stretch {
    ino: Ino,
    /// Where it begins in the file.
    file_offset: u64,
    layer: usize,
    /// Where it lies in the layer's uncompressed bytes.
    range: Range<u64>,
}

/// The pieces up to one, and what brings them into the cache.
struct Window {
    end: usize,
    fetches: JoinSet<Result<(), (Ino, StoreError)>>,
}

/// Files that are read one after the other.
pub struct FilesInOrder {
    tree: Arc<Tree>,
    layers: Vec<Arc<LayerReader>>,
    pieces: Vec<Stretch>,
    /// The next one to be read.
    next: usize,
    windows: VecDeque<Window>,
}

impl FilesInOrder {
    /// Will read these files in this order. Nothing is fetched yet.
    pub fn new(
        tree: Arc<Tree>,
        layers: Vec<Arc<LayerReader>>,
        files: &[Ino],
    ) -> Result<Self, WalkError> {
        let mut pieces = Vec::new();
        for ino in files {
            let path = || path(&tree, *ino);
            let stored = tree.stored(*ino);
            let stored = stored.ok_or_else(|| WalkError::BrokenLink { path: path() })?;
            for extent in stored.extents.as_slice() {
                for done in (0..extent.length).step_by(usize::try_from(PIECE).unwrap_or(1)) {
                    let start = extent.layer_offset + done;
                    let length = PIECE.min(extent.length - done);
                    pieces.push(Stretch {
                        ino: *ino,
                        file_offset: extent.file_offset + done,
                        layer: stored.layer,
                        range: start..start + length,
                    });
                }
            }
        }
        Ok(Self {
            tree,
            layers,
            pieces,
            next: 0,
            windows: VecDeque::new(),
        })
    }

    /// Stored bytes of all files together: holes do not count.
    pub fn bytes(&self) -> u64 {
        let lengths = self
            .pieces
            .iter()
            .map(|piece| piece.range.end - piece.range.start);
        lengths.sum()
    }

    /// Reads the next piece of `ino` into `buf` and says where in the file it lies; `None` behind
    /// its last one. All of a file must be read before the next one is. Must run on the runtime.
    pub async fn read(&mut self, ino: Ino, buf: &mut Vec<u8>) -> Result<Option<u64>, WalkError> {
        let position = self.next;
        self.prepare(position).await?;
        let Some(piece) = (self.pieces.get(position)).filter(|piece| piece.ino == ino) else {
            return Ok(None);
        };
        let Some(layer) = self.layers.get(piece.layer) else {
            return Ok(None);
        };
        let length = piece.range.end - piece.range.start;
        buf.resize(usize::try_from(length).unwrap_or(usize::MAX), 0);
        let read = layer.read_at(piece.range.start, buf);
        read.await.map_err(|source| self.failed(ino, source))?;
        self.next += 1;
        Ok(Some(piece.file_offset))
    }

    /// Waits for the window of a piece, and begins to fetch the next one.
    async fn prepare(&mut self, position: usize) -> Result<(), WalkError> {
        while (self.windows.front()).is_some_and(|window| window.end <= position) {
            self.windows.pop_front();
        }
        while self.windows.len() < WINDOWS {
            let start = (self.windows.back()).map_or(position, |window| window.end);
            if start >= self.pieces.len() {
                break;
            }
            let window = self.begin(start);
            self.windows.push_back(window);
        }
        let Some(window) = self.windows.front_mut() else {
            return Ok(());
        };
        while let Some(done) = window.fetches.join_next().await {
            // A task that died is as good as none: the read itself fetches.
            if let Ok(Err((ino, source))) = done {
                return Err(self.failed(ino, source));
            }
        }
        Ok(())
    }

    /// Begins to fetch a window.
    fn begin(&self, start: usize) -> Window {
        let mut layers: BTreeMap<usize, (Ino, Vec<Range<u64>>)> = BTreeMap::new();
        let (mut end, mut size) = (start, 0);
        for piece in self.pieces.iter().skip(start) {
            if size >= WINDOW {
                break;
            }
            let (_, ranges) =
                (layers.entry(piece.layer)).or_insert_with(|| (piece.ino, Vec::new()));
            ranges.push(piece.range.clone());
            size += piece.range.end - piece.range.start;
            end += 1;
        }
        let mut fetches = JoinSet::new();
        for (layer, (ino, ranges)) in layers {
            // A layer that is not there is said by the read.
            if let Some(reader) = self.layers.get(layer) {
                let reader = Arc::clone(reader);
                fetches.spawn(async move {
                    let fetched = reader.fetch_beforehand(&ranges).await;
                    fetched.map_err(|err| (ino, err))
                });
            }
        }
        Window { end, fetches }
    }

    fn failed(&self, ino: Ino, source: StoreError) -> WalkError {
        WalkError::Read {
            path: path(&self.tree, ino),
            source: Box::new(source),
        }
    }
}

fn path(tree: &Tree, ino: Ino) -> String {
    let path = tree.path(ino).unwrap_or_default();
    String::from_utf8_lossy(&path).into_owned()
}
