//! Where the bytes of regular files are in their layers.

use super::Tree;
use super::node::{Content, Ino};
use crate::layer::Extent;

/// Where the bytes of a regular file are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stored<'a> {
    /// Position of the layer.
    pub layer: usize,
    /// Its stored parts, ascending; what lies between them are holes.
    pub extents: Extents<'a>,
    /// Size of the file in bytes.
    pub size: u64,
}

/// Stored parts of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extents<'a> {
    /// All of it, in one piece.
    One(Extent),
    /// Those of a sparse file.
    Many(&'a [Extent]),
}

impl Extents<'_> {
    /// As a list.
    pub fn as_slice(&self) -> &[Extent] {
        match self {
            Self::One(extent) => std::slice::from_ref(extent),
            Self::Many(extents) => extents,
        }
    }
}

impl Tree {
    /// Where the bytes of a regular file are; `None` for everything else.
    pub fn stored(&self, ino: Ino) -> Option<Stored<'_>> {
        match self.content(self.node(ino)?) {
            Content::File {
                layer,
                offset,
                size,
            } => {
                let extent = Extent {
                    file_offset: 0,
                    layer_offset: offset,
                    length: size,
                };
                Some(Stored {
                    layer,
                    extents: Extents::One(extent),
                    size,
                })
            }
            Content::SparseFile {
                layer,
                extents,
                size,
            } => Some(Stored {
                layer,
                extents: Extents::Many(extents),
                size,
            }),
            Content::Directory
            | Content::Symlink(_)
            | Content::Device { .. }
            | Content::Fifo
            | Content::Missing => None,
        }
    }
}
