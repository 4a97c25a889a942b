//! One layer: tar, compression, spans and the index over them.
//!
//! A layer is one array of uncompressed bytes; a format is a table of spans over it. A tar member's data is
//! contiguous there, so a file is `(layer, offset, size)`. This module turns bytes into values and does no
//! I/O: it knows no registry and no cache.

mod toc;

pub use toc::{Entry, EntryKind, Extent, Mtime, Toc, TocBuilder, TocError, Xattrs};
