//! One layer: tar, compression, spans and the index over them.
//!
//! A layer is one array of uncompressed bytes; a format is a table of spans over it. A tar member's
//! data is contiguous there, so a file is `(layer, offset, size)`. This module turns bytes into
//! values and does no I/O: it knows no registry and no cache.
//!
//! The way in is the forward pass ([`Scanner`], [`ContentPass`]) that makes a [`LayerIndex`], or a
//! table of contents that the layer's maker wrote ([`estargz`], [`zstd_chunked`]); the way out is
//! [`SpanDecoder`], which turns one span's compressed bytes into checked uncompressed ones.

mod agreement;
mod chunks;
mod decode;
mod difference;
pub mod estargz;
mod index;
mod inflate;
mod json_toc;
mod pass;
mod rfc3339;
mod scan;
pub mod soci;
mod span;
mod span_error;
mod tar;
mod toc;
mod window;
pub mod zstd_chunked;
mod zstd_stream;

pub use agreement::{FileBytes, FilePair};
pub use decode::SpanDecoder;
pub use index::{IndexError, LayerIndex};
pub use json_toc::{ContentsError, MAX_CONTENTS, TableOfContents};
pub use pass::{ContentPass, LayerError, PassResult};
pub use scan::{Codec, PIECE_SIZE, Piece, ScanError, ScannedSpan, Scanner};
pub use span::{
    Checkpoint, Chunk, Hash, MAX_LAYER_SIZE, MAX_SPAN_COMPRESSED, MAX_SPAN_SIZE, MEMBER_SPAN_SIZE,
    SPAN_SIZE, Span, SpanDigest, SpanTable, SpanTableError,
};
pub use span_error::SpanError;
pub use tar::{TarError, TarScanner};
pub use toc::{Entry, EntryKind, Extent, Mtime, Toc, TocBuilder, TocError, Xattrs};
