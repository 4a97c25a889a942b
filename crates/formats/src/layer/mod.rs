//! One layer: tar, compression, spans and the index over them.
//!
//! A layer is one array of uncompressed bytes; a format is a table of spans over it. A tar member's data is
//! contiguous there, so a file is `(layer, offset, size)`. This module turns bytes into values and does no
//! I/O: it knows no registry and no cache.
//!
//! The way in is the forward pass ([`Scanner`], [`ContentPass`]) that makes a [`LayerIndex`], or a table of contents that the
//! layer's maker wrote ([`estargz`], [`zstd_chunked`]); the way out is [`SpanDecoder`], which turns one span's compressed
//! bytes into checked uncompressed ones.

mod agreement;
mod chunks;
mod contents_error;
mod decode;
mod difference;
pub mod estargz;
mod index;
mod inflate;
mod json_listing;
mod json_toc;
mod pass;
mod payloads;
mod rfc3339;
mod scan;
pub mod soci;
mod span;
mod tar;
mod toc;
mod window;
pub mod zstd_chunked;

pub use agreement::{FileBytes, FilePair};
pub use contents_error::ContentsError;
pub use decode::{SpanDecoder, SpanError};
pub use index::{IndexError, LayerIndex};
pub use json_toc::{MAX_CONTENTS, TableOfContents};
pub use pass::{ContentPass, LayerError, PassResult};
pub use scan::{Codec, PIECE_SIZE, Piece, ScanError, ScannedSpan, Scanner};
pub use span::{
    Checkpoint, Chunk, Hash, MAX_LAYER_SIZE, MAX_SPAN_COMPRESSED, MAX_SPAN_SIZE, MEMBER_SPAN_SIZE,
    SPAN_SIZE, Span, SpanDigest, SpanTable, SpanTableError,
};
pub use tar::{TarError, TarScanner};
pub use toc::{Entry, EntryKind, Extent, Mtime, Toc, TocBuilder, TocError, Xattrs};
