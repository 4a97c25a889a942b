//! The merged image filesystem: union rules that turn the layers' entries into one [`Tree`].
//!
//! A [`Tree`] is one arena of [`Node`]s and one array of [`Dirent`]s in which a directory's
//! children are a slice sorted by name. Numbers are dense and follow from the layers alone: the
//! root is 1, the children of a directory are numbered in the order of their names, directories in
//! the order of their own numbers.
//!
//! A [`PartialTree`] is built by the same rules from the top layers only, and tells what is certain
//! from what a lower layer could still change.
//!
//! Nothing here does I/O or knows spans: a file is a layer's position, an offset there and a size.

mod builder;
mod changes;
mod extents;
mod finish;
mod links;
mod node;
mod partial;
mod path;
mod provenance;
#[cfg(test)]
mod provenance_tests;
mod resolve;
mod union;
#[cfg(test)]
mod vectors;

pub use changes::{Aspects, Change, ChangeKind, ChangesAbove, Side, changes, changes_above, known};
pub use extents::{Extents, Stored};
pub use node::{Content, Dirent, Ino, Kind, Node, Totals};
pub use partial::{Answer, PartialTree};
pub use provenance::{Appearance, Deed, DeedKind, Removal, SameContent, provenance};
pub use resolve::PathError;

use std::fmt;

use crate::layer::{Toc, Xattrs};

/// Most layers of an image; docker stops at about 128. Protects the 16 bits a node has for its
/// layer.
pub const MAX_LAYERS: usize = 1024;
/// Longest name of a directory entry, `NAME_MAX` of the kernel: a longer one cannot be looked up.
pub const MAX_NAME: usize = 255;
/// Longest path, `PATH_MAX` of the kernel; bounds the depth of the tree too.
pub const MAX_PATH: usize = 4096;
/// Most warnings kept of one build; protects memory against a layer made of mistakes.
pub const MAX_WARNINGS: usize = 1000;

/// A merged, immutable filesystem tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tree {
    nodes: Vec<Node>,
    dirents: Vec<Dirent>,
    /// Names and symlink targets.
    strings: Vec<u8>,
    extents: Vec<crate::layer::Extent>,
    xattrs: Vec<Xattrs>,
    layers: usize,
    totals: Totals,
}

/// Why layers cannot be merged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TreeError {
    /// More than [`MAX_LAYERS`].
    #[error("{found} layers are more than the limit of {MAX_LAYERS}")]
    TooManyLayers {
        /// Number of layers.
        found: usize,
    },
    /// `.wh.` alone, `.wh..` or `.wh...`: names nothing, or would escape its directory.
    #[error("layer {layer}: {} is not a valid whiteout", Lossy(.path))]
    InvalidWhiteout {
        /// Position of the layer, the bottom one is 0.
        layer: usize,
        /// Name as in the tar.
        path: Vec<u8>,
    },
    /// An entry lies below something that the same layer says is no directory.
    #[error("layer {layer}: {} lies below {:?}, which is not a directory in this layer", Lossy(.path), Lossy(.parent))]
    ParentNotDirectory {
        /// Position of the layer.
        layer: usize,
        /// Name as in the tar.
        path: Vec<u8>,
        /// The name in its way.
        parent: Vec<u8>,
    },
    /// The directories above an entry lead through more than 255 symbolic links.
    #[error("layer {layer}: too many symbolic links above {}", Lossy(.path))]
    TooManyLinks {
        /// Position of the layer.
        layer: usize,
        /// Name as in the tar.
        path: Vec<u8>,
    },
    /// An array would outgrow its 32-bit positions.
    #[error("the image has more {what} than the limit of 2^32 - 1")]
    TooLarge {
        /// What there is too much of.
        what: &'static str,
    },
}

impl TreeError {
    /// The layer whose entries are refused, if it is one's; the bottom one is 0.
    pub fn layer(&self) -> Option<usize> {
        match self {
            Self::InvalidWhiteout { layer, .. }
            | Self::ParentNotDirectory { layer, .. }
            | Self::TooManyLinks { layer, .. } => Some(*layer),
            Self::TooManyLayers { .. } | Self::TooLarge { .. } => None,
        }
    }
}

/// Something odd that a build went on after.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// Position of the layer, the bottom one is 0.
    pub layer: usize,
    /// The entry's name as in the tar.
    pub path: Vec<u8>,
    /// What is odd.
    pub kind: WarningKind,
}

/// What can be odd about an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WarningKind {
    /// A component is longer than [`MAX_NAME`]: hidden.
    NameTooLong,
    /// Longer than [`MAX_PATH`]: hidden.
    PathTooLong,
    /// A zero byte in a name, which no program could ask for: hidden.
    NulInName,
    /// Lies below a whiteout: hidden.
    BelowWhiteout,
    /// A root that is not a directory: ignored.
    RootNotDirectory,
    /// A size beyond 2^63 - 1, which the kernel refuses: hidden.
    SizeTooLarge,
    /// The target of a hard link is nowhere, or a directory: shown, reading fails.
    MissingLinkTarget,
    /// More than [`MAX_WARNINGS`]: the rest is not listed.
    More,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.kind {
            WarningKind::NameTooLong => "hidden, as a name in it is longer than 255 bytes",
            WarningKind::PathTooLong => "hidden, as it is longer than 4096 bytes",
            WarningKind::NulInName => "hidden, as there is a zero byte in it",
            WarningKind::BelowWhiteout => "hidden, as it lies below a whiteout",
            WarningKind::RootNotDirectory => "ignored, as the root must be a directory",
            WarningKind::SizeTooLarge => "hidden, as its size is beyond what the kernel accepts",
            WarningKind::MissingLinkTarget => {
                "is a hard link to nothing; reading it will fail with EIO"
            }
            WarningKind::More => "is not the last odd entry; the others are not listed",
        };
        write!(f, "layer {}: {} {what}", self.layer, Lossy(&self.path))
    }
}

/// A path in a message: shortened, and without control characters.
struct Lossy<'a>(&'a [u8]);

impl fmt::Display for Lossy<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 200;
        let shown = self.0.get(..SHOWN).unwrap_or(self.0);
        write!(f, "{}", shown.escape_ascii())?;
        f.write_str(if shown.len() < self.0.len() { ".." } else { "" })
    }
}

impl fmt::Debug for Lossy<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Tree {
    /// Merges layers, the bottom one first.
    pub fn build(layers: &[&Toc]) -> Result<(Self, Vec<Warning>), TreeError> {
        union::build(layers, union::Below::Nothing)
    }
}
