//! SOCI: indexes that somebody made beside an unchanged image, one zTOC for a layer.
//!
//! A zTOC (version 0.9) is a `FlatBuffer` with the tar's members, the states of the decompressor
//! about every 4 MiB, and the SHA-256 of the compressed bytes between two of them:
//!
//! ```text
//! Ztoc             version string | build tool string | compressed size i64 | uncompressed size i64 | TOC | CompressionInfo
//! TOC              [FileMetadata]
//! FileMetadata     name | type | offset i64 | size i64 | link name | mode i64 | uid u32 | gid u32 | user | group |
//!                  time, RFC 3339 | major i64 | minor i64 | [Xattr: key | value], the PAX records
//! CompressionInfo  algorithm i8 (1 gzip, 2 none) | number of the last span i32 | [digest string] | checkpoints
//! ```
//!
//! It describes the layer's tar as it is, so the [`LayerIndex`](super::LayerIndex) made of it has
//! the same addresses as the layer's own; only the spans are others. What it cannot describe (files
//! with holes) is refused: then the layer is read as one without a zTOC.

mod checkpoints;
mod error;
mod flatbuffer;
mod metadata;
mod prefetch;
mod ztoc;

pub use error::{MAX_ZTOC_SIZE, ZtocError};
pub use flatbuffer::FlatBufferError;
pub use prefetch::{MAX_PREFETCH_SIZE, PrefetchError, prefetch_ranges};
pub use ztoc::index_of_ztoc;
