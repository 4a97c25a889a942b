//! Reading and seeking: a file's range as pieces of its layer, with zeros between them.

use std::ops::Range;
use std::sync::Arc;

use super::error::FsError;
use super::image::ImageFs;
use crate::store::{LayerReader, StoreError};
use imgfs_formats::tree::{Content, Extents, Ino, Stored};

/// A range of a file, cut to its size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Plan<'a> {
    layer: usize,
    /// Position in the file of the first byte.
    pub(super) offset: u64,
    length: usize,
    pub(super) extents: Extents<'a>,
}

/// A stored part of a plan: where it goes in the buffer, and where it begins in the layer.
#[derive(Debug, Clone, PartialEq, Eq)]
struct StoredPart {
    buffer: Range<usize>,
    layer_offset: u64,
}

impl ImageFs {
    /// Reads up to `size` bytes of a file without the network: `buf` is then what was read, short
    /// only at the end of the file. Says `false`, with `buf` in any state, if [`ImageFs::read`] has
    /// to fetch: these bytes, or the rest of a program that begins with them.
    pub fn try_read(
        self: &Arc<Self>,
        ino: Ino,
        offset: u64,
        size: usize,
        buf: &mut Vec<u8>,
    ) -> Result<bool, FsError> {
        let plan = self.plan(ino, offset, size)?;
        plan.prepare(buf);
        let layer = self.layer(ino, plan.layer)?;
        for piece in plan.pieces() {
            let read = layer.try_read_at(piece.layer_offset, &mut buf[piece.buffer]);
            if !read.map_err(|source| self.read_error(ino, source))? {
                return Ok(false);
            }
        }
        Ok(!self.programs.lacks(ino, offset, buf))
    }

    /// Reads likewise, fetching what is missing. Must run on the runtime.
    pub async fn read(
        self: &Arc<Self>,
        ino: Ino,
        offset: u64,
        size: usize,
        buf: &mut Vec<u8>,
    ) -> Result<(), FsError> {
        let plan = self.plan(ino, offset, size)?;
        plan.prepare(buf);
        let program = self.programs.probable_size(ino, offset);
        let layer = self.layer(ino, plan.layer)?;
        for piece in plan.pieces() {
            let whole = program.unwrap_or(piece.buffer.len() as u64);
            let read = layer.read_start_at(piece.layer_offset, &mut buf[piece.buffer], whole);
            read.await.map_err(|source| self.read_error(ino, source))?;
        }
        if self.programs.lacks(ino, offset, buf) {
            let fetched = self.programs.fetch(ino).await;
            fetched.map_err(|source| self.read_error(ino, source))?;
        }
        Ok(())
    }

    /// The next position with data, or the next in a hole, at or after `offset`. The end of a file
    /// is a hole.
    pub fn seek(&self, ino: Ino, offset: i64, whence: i32) -> Result<i64, FsError> {
        let nothing = FsError::NothingToSeek(offset);
        let Ok(from) = u64::try_from(offset) else {
            return Err(nothing);
        };
        let stored = self.stored(ino)?;
        if from >= stored.size {
            return Err(nothing);
        }
        let mut parts = (stored.extents.as_slice().iter())
            .map(|extent| extent.file_offset..extent.file_offset + extent.length)
            .filter(|extent| extent.end > from && !extent.is_empty());
        let found = match whence {
            libc::SEEK_DATA => parts.next().map(|extent| extent.start.max(from)),
            libc::SEEK_HOLE => {
                let mut hole = from;
                for extent in parts {
                    if extent.start > hole {
                        break;
                    }
                    hole = extent.end;
                }
                Some(hole)
            }
            _ => return Err(FsError::InvalidWhence(whence)),
        };
        // The tree has no file larger than i64 can say.
        found
            .and_then(|found| i64::try_from(found).ok())
            .ok_or(nothing)
    }

    fn plan(&self, ino: Ino, offset: u64, size: usize) -> Result<Plan<'_>, FsError> {
        let stored = self.stored(ino)?;
        let rest = stored.size.saturating_sub(offset);
        Ok(Plan {
            layer: stored.layer,
            offset,
            length: usize::try_from(rest).unwrap_or(usize::MAX).min(size),
            extents: stored.extents,
        })
    }

    /// Where the bytes of a regular file are.
    fn stored(&self, ino: Ino) -> Result<Stored<'_>, FsError> {
        let node = self.node(ino)?;
        self.tree
            .stored(ino)
            .ok_or_else(|| match self.tree.content(node) {
                Content::Directory => FsError::IsADirectory(ino),
                Content::Missing => FsError::BrokenLink {
                    path: self.path(ino),
                },
                Content::File { .. }
                | Content::SparseFile { .. }
                | Content::Symlink(_)
                | Content::Device { .. }
                | Content::Fifo => FsError::WrongKind {
                    ino,
                    operation: "reading",
                },
            })
    }

    pub(super) fn layer(&self, ino: Ino, layer: usize) -> Result<&Arc<LayerReader>, FsError> {
        let found = self.layers.get(layer);
        found.ok_or_else(|| FsError::NoSuchLayer {
            path: self.path(ino),
            layer,
        })
    }

    pub(super) fn read_error(&self, ino: Ino, source: StoreError) -> FsError {
        let path = self.path(ino);
        FsError::Read {
            path,
            source: Box::new(source),
        }
    }

    fn path(&self, ino: Ino) -> String {
        let path = self.tree.path(ino).unwrap_or_default();
        String::from_utf8_lossy(&path).into_owned()
    }
}

impl Plan<'_> {
    /// Makes `buf` as long as the read will be; zeros stay where there is a hole.
    fn prepare(&self, buf: &mut Vec<u8>) {
        if let Extents::Many(_) = self.extents {
            buf.clear();
        }
        buf.resize(self.length, 0);
    }

    fn pieces(&self) -> impl Iterator<Item = StoredPart> {
        let end = self.offset.saturating_add(self.length as u64);
        let extents = self.extents.as_slice();
        let first =
            extents.partition_point(|extent| extent.file_offset + extent.length <= self.offset);
        let rest = extents.get(first..).unwrap_or_default();
        rest.iter()
            .take_while(move |extent| extent.file_offset < end)
            .map(move |extent| {
                let from = extent.file_offset.max(self.offset);
                let to = (extent.file_offset + extent.length).min(end);
                StoredPart {
                    buffer: self.in_buffer(from)..self.in_buffer(to),
                    layer_offset: extent.layer_offset + (from - extent.file_offset),
                }
            })
            .filter(|piece| !piece.buffer.is_empty())
    }

    fn in_buffer(&self, position: u64) -> usize {
        let offset = usize::try_from(position.saturating_sub(self.offset));
        offset.unwrap_or(usize::MAX).min(self.length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use imgfs_formats::layer::Extent;

    fn run(file_offset: u64, layer_offset: u64, length: u64) -> Extent {
        Extent {
            file_offset,
            layer_offset,
            length,
        }
    }

    /// Each expected piece: from, to in the buffer, and where in the layer.
    #[track_caller]
    fn check(extents: Extents<'_>, offset: u64, length: usize, expected: &[(usize, usize, u64)]) {
        let plan = Plan {
            layer: 0,
            offset,
            length,
            extents,
        };
        let pieces: Vec<_> = (plan.pieces())
            .map(|piece| (piece.buffer.start, piece.buffer.end, piece.layer_offset))
            .collect();
        assert_eq!(pieces, expected, "{length} bytes from {offset}");
    }

    #[test]
    fn a_plain_file_is_one_piece() {
        let file = Extents::One(run(0, 512, 100));
        check(file, 0, 100, &[(0, 100, 512)]);
        check(file, 90, 10, &[(0, 10, 602)]);
        check(file, 100, 0, &[]);
        check(file, u64::MAX, 0, &[]);
    }

    #[test]
    fn a_sparse_file_is_pieces_with_holes_between() {
        let extents = [
            run(10, 500, 5),
            run(15, 900, 5),
            run(30, 0, 0),
            run(40, 700, 10),
        ];
        let file = Extents::Many(&extents);
        check(file, 0, 60, &[(10, 15, 500), (15, 20, 900), (40, 50, 700)]);
        check(file, 12, 4, &[(0, 3, 502), (3, 4, 900)]);
        check(file, 20, 20, &[]);
        check(file, 45, 15, &[(0, 5, 705)]);
        check(file, 50, 10, &[]);
        check(file, 14, 1, &[(0, 1, 504)]);
    }

    #[test]
    fn a_reused_buffer_shows_nothing_of_the_read_before() {
        let mut buf = vec![7; 30];
        let plan = Plan {
            layer: 0,
            offset: 0,
            length: 20,
            extents: Extents::Many(&[]),
        };
        plan.prepare(&mut buf);
        assert_eq!(buf, [0; 20]);
    }
}
