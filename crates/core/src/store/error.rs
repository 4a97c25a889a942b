//! What can go wrong in the store.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::source::SourceError;
use imgfs_formats::layer::{IndexError, LayerError, SpanError};
use imgfs_formats::oci::Digest;

/// Why the store could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The cache directory cannot be used.
    #[error("cache: cannot {action} {path}: {cause}", path = path.display())]
    Io {
        /// What was attempted.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// The system's words.
        cause: std::io::Error,
    },
    /// Fetching failed.
    #[error("layer {layer}: {cause}", layer = layer.short())]
    Fetch {
        /// Which layer.
        layer: Digest,
        /// Why.
        cause: SourceError,
    },
    /// Fetching something that is no layer failed.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The layer's bytes are not those its digest names.
    #[error(
        "layer {expected} is corrupt at its source: {size} bytes came and hash to {found}; nothing of it was kept"
    )]
    Corrupt {
        /// Its digest.
        expected: Digest,
        /// What the bytes hash to.
        found: Digest,
        /// How many bytes came.
        size: u64,
    },
    /// The layer's bytes are right, but no layer this program can read.
    #[error("layer {layer}: {cause}", layer = layer.short())]
    Layer {
        /// Which layer.
        layer: Digest,
        /// What is wrong with it.
        cause: LayerError,
    },
    /// Its index could not be written down.
    #[error("layer {layer}: {cause}", layer = layer.short())]
    Index {
        /// Which layer.
        layer: Digest,
        /// Why.
        cause: IndexError,
    },
    /// A fetched span is not what the index says.
    #[error("layer {layer}, span {span}: {cause}; it was not served", layer = layer.short())]
    Span {
        /// Which layer.
        layer: Digest,
        /// Number of the span.
        span: usize,
        /// What differs.
        cause: SpanError,
        /// Whether another host, or the same once more, may give the right bytes.
        again: bool,
    },
    /// A read's bytes did not come in time.
    #[error("layer {layer}: the bytes did not come within {limit:?}{cause}", layer = layer.short())]
    Deadline {
        /// Which layer.
        layer: Digest,
        /// How long the read waited.
        limit: std::time::Duration,
        /// What failed meanwhile, with a colon in front, or empty.
        cause: String,
    },
    /// The layer turned out to contradict what is known about it.
    #[error("layer {layer} is quarantined: {reason}", layer = layer.short())]
    Quarantined {
        /// Which layer.
        layer: Digest,
        /// What differed.
        reason: String,
    },
    /// A read beyond the layer's end: a fault of this program.
    #[error("layer {layer}: read of {length} bytes at {offset} is beyond its end", layer = layer.short())]
    OutOfRange {
        /// Which layer.
        layer: Digest,
        /// Where, in uncompressed bytes.
        offset: u64,
        /// How many bytes.
        length: u64,
    },
    /// A worker ended without an answer: a fault of this program.
    #[error("internal: a worker stopped without an answer ({0})")]
    Worker(&'static str),
    /// The same error for everyone who waited for one fetch.
    #[error(transparent)]
    Shared(Arc<StoreError>),
}

/// What may come of trying again what failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store) enum Hope {
    /// The next attempt goes elsewhere, so that waiting helps nobody.
    AtOnce,
    /// It may pass by itself.
    Later,
    /// It is the source's, so that somebody's doing may mend it: a login, a repaired registry.
    IfMended,
    /// Nothing.
    Never,
}

impl StoreError {
    /// What may come of trying the same again.
    pub(in crate::store) fn hope(&self) -> Hope {
        match self {
            Self::Deadline { .. } => Hope::Later,
            Self::Fetch { cause, .. } | Self::Source(cause) if cause.is_transient() => Hope::Later,
            Self::Span { again: true, .. } => Hope::AtOnce,
            Self::Fetch { .. } | Self::Source(_) | Self::Span { .. } => Hope::IfMended,
            Self::Shared(inner) => inner.hope(),
            Self::Io { .. }
            | Self::Corrupt { .. }
            | Self::Layer { .. }
            | Self::Index { .. }
            | Self::Quarantined { .. }
            | Self::OutOfRange { .. }
            | Self::Worker(_) => Hope::Never,
        }
    }

    /// That a span is not what the index says, if it is that.
    pub(in crate::store) fn span_error(&self) -> Option<String> {
        match self {
            Self::Span { span, cause, .. } => Some(format!("span {span}: {cause}")),
            Self::Shared(inner) => inner.span_error(),
            _ => None,
        }
    }

    /// An I/O error with what was attempted.
    pub(in crate::store) fn io(
        action: &'static str,
        path: &Path,
    ) -> impl FnOnce(std::io::Error) -> Self {
        move |cause| Self::Io {
            action,
            path: path.to_owned(),
            cause,
        }
    }
}
