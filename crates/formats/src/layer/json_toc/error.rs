//! Why a table of contents is refused: in words for people, as they learn that a layer is read in a
//! slower way.

use super::names::VERSION;
use crate::layer::span::SpanTableError;
use crate::layer::toc::TocError;
use crate::oci::Digest;

/// Why a table of contents cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ContentsError {
    /// Nothing in the manifest says which table is the right one.
    #[error("it cannot be verified: {0}")]
    NotVerifiable(&'static str),
    /// The manifest contradicts itself.
    #[error("the manifest's annotations contradict each other: {0}")]
    Ambiguous(&'static str),
    /// An annotation is not of its form.
    #[error("annotation {key} has the value {value:?}, which is no {what}")]
    Annotation {
        /// The annotation.
        key: &'static str,
        /// What it says.
        value: String,
        /// What it should be.
        what: &'static str,
    },
    /// The end of the blob is not what the format has there.
    #[error("the blob does not end in a footer of this format")]
    Footer,
    /// It is somewhere in the blob where it cannot be.
    #[error("its position, bytes {start} to {end}, is not in the blob of {blob_size} bytes")]
    Position {
        /// First byte.
        start: u64,
        /// Behind the last.
        end: u64,
        /// Size of the blob.
        blob_size: u64,
    },
    /// It does not decompress, or not to what it should.
    #[error("it does not decompress: {0}")]
    Compressed(&'static str),
    /// Its bytes are not those that the manifest names.
    #[error("its digest is {found}, the manifest says {expected}")]
    Digest {
        /// The manifest's.
        expected: Digest,
        /// That of the bytes.
        found: Digest,
    },
    /// More than [`super::MAX_CONTENTS`].
    #[error("it has {size} bytes, more than the limit of {limit}")]
    TooLarge {
        /// As announced, or as far as it was decompressed.
        size: u64,
        /// The limit.
        limit: u64,
    },
    /// Not the JSON that it should be.
    #[error("invalid JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// Of another version.
    #[error("it is of version {0}, known is {VERSION}")]
    Version(i64),
    /// A type of entry or chunk that nobody has defined yet.
    #[error("{name:?} is of the unknown type {kind:?}")]
    UnknownType {
        /// The entry.
        name: String,
        /// Its type.
        kind: String,
    },
    /// A field's value makes no sense.
    #[error("{name:?} has a wrong {field}: {value:?}")]
    Field {
        /// The entry.
        name: String,
        /// The field.
        field: &'static str,
        /// What it says.
        value: String,
    },
    /// A name whose bytes were not UTF-8.
    #[error("{0:?} is the name of a file after bytes of it were lost")]
    LostBytes(String),
    /// A name with a NUL byte.
    #[error("{0:?} contains a NUL byte")]
    Nul(String),
    /// Two entries have one name.
    #[error("{0:?} is listed twice")]
    Duplicate(String),
    /// A hard link to nothing.
    #[error("{name:?} is a hard link to {target:?}, which is not listed")]
    MissingTarget {
        /// The link.
        name: String,
        /// Where it leads.
        target: String,
    },
    /// A chunk that belongs to no file.
    #[error("a chunk of {0:?} does not follow that file")]
    StrayChunk(String),
    /// Chunks that do not make up their file.
    #[error("the chunks of {name:?} do not make up its {size} bytes")]
    Chunks {
        /// The file.
        name: String,
        /// Its size.
        size: u64,
    },
    /// Content that nothing vouches for.
    #[error("{0:?} has a chunk without a digest: its content cannot be verified")]
    NoDigest(String),
    /// Content that is not in the blob.
    #[error("{name:?} has content beyond byte {end} of the blob, where the files end")]
    Beyond {
        /// The file.
        name: String,
        /// Where the files end.
        end: u64,
    },
    /// Content where other content is.
    #[error("{0:?} has its content where another file's is")]
    Overlap(String),
    /// Chunks of a file that other content stands between, or in the wrong order.
    #[error("the content of {0:?} is not in order in the blob")]
    Order(String),
    /// A member or frame that would need too much memory.
    #[error(
        "{name:?} is in a gzip member or zstd frame of at least {size} bytes: the limit is {limit}"
    )]
    LargeMember {
        /// The file.
        name: String,
        /// Bytes up to the file's end.
        size: u64,
        /// The limit.
        limit: u64,
    },
    /// More content than a layer may have.
    #[error("its files have more than {limit} bytes")]
    TooMuch {
        /// The limit.
        limit: u64,
    },
    /// A limit on entries.
    #[error(transparent)]
    Toc(#[from] TocError),
    /// A limit on spans.
    #[error(transparent)]
    Spans(#[from] SpanTableError),
}

impl ContentsError {
    /// Whether other bytes in the place of those read could be right. Once a digest has vouched for
    /// them, they are what the image's maker wrote.
    pub fn may_be_wrong_bytes(&self) -> bool {
        matches!(
            self,
            Self::Footer | Self::Position { .. } | Self::Compressed(_) | Self::Digest { .. }
        )
    }
}
