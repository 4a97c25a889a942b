//! The forward pass as a whole: from the bytes of a blob to its index.
//!
//! Two halves, so that they can run on two threads with decoded pieces in between: [`Scanner`]
//! decodes and finds spans, [`ContentPass`] reads the tar and hashes what comes out.
//! [`LayerIndex::join`] makes the index of both.

use super::index::LayerIndex;
use super::scan::{Codec, Piece, ScanError, ScannedSpan, Scanner};
use super::span::{Hash, Span, SpanDigest, SpanTable, SpanTableError};
use super::tar::{TarError, TarScanner};
use super::toc::Toc;
use crate::oci::Digest;

/// Why a layer's content is refused.
#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    /// It cannot be decoded.
    #[error(transparent)]
    Scan(#[from] ScanError),
    /// It is no tar this program can read.
    #[error(transparent)]
    Tar(#[from] TarError),
    /// The spans found do not fit together: a fault of this program.
    #[error(transparent)]
    Spans(#[from] SpanTableError),
}

/// The second half: decoded pieces in, entries and digests out.
pub struct ContentPass {
    tar: TarScanner,
    span_hasher: blake3::Hasher,
    decoded_digests: Vec<Hash>,
    size: u64,
}

/// What [`ContentPass`] found.
pub struct PassResult {
    toc: Toc,
    file_digests: Vec<Hash>,
    decoded_digests: Vec<Hash>,
    /// For people: what was odd about the tar.
    pub warnings: Vec<String>,
}

impl ContentPass {
    /// At the start of a layer.
    pub fn new() -> Self {
        Self {
            tar: TarScanner::new(),
            span_hasher: blake3::Hasher::new(),
            decoded_digests: Vec::new(),
            size: 0,
        }
    }

    /// Takes the next decoded bytes.
    pub fn bytes(&mut self, bytes: &[u8]) -> Result<(), TarError> {
        self.size += bytes.len() as u64;
        self.span_hasher.update(bytes);
        self.tar.push(bytes)
    }

    /// The span ends here.
    pub fn cut(&mut self) {
        self.decoded_digests
            .push(*self.span_hasher.finalize().as_bytes());
        self.span_hasher.reset();
    }

    /// The layer is complete.
    pub fn finish(self) -> Result<PassResult, TarError> {
        let (toc, file_digests, warnings) = self.tar.finish(self.size)?;
        Ok(PassResult {
            toc,
            file_digests,
            decoded_digests: self.decoded_digests,
            warnings,
        })
    }
}

impl Default for ContentPass {
    fn default() -> Self {
        Self::new()
    }
}

impl LayerIndex {
    /// Joins what the two halves of the pass over `blob` found.
    pub fn join(
        blob: Digest,
        blob_size: u64,
        (codec, scanned): (Codec, Vec<ScannedSpan>),
        content: PassResult,
    ) -> Result<Self, SpanTableError> {
        let spans = (scanned.into_iter().zip(content.decoded_digests))
            .map(|(span, decoded_digest)| Span {
                compressed: span.compressed,
                uncompressed: span.uncompressed,
                checkpoint: span.checkpoint,
                digest: SpanDigest::Own {
                    compressed: span.digest,
                    decoded: decoded_digest,
                },
            })
            .collect();
        let spans = SpanTable::new(spans, blob_size)?;
        Ok(Self {
            blob,
            blob_size,
            codec,
            toc: content.toc,
            spans,
            file_digests: content.file_digests,
        })
    }

    /// The whole pass on one thread over a blob in memory, for small layers and tests.
    pub fn of_blob(blob: &[u8]) -> Result<Self, LayerError> {
        let mut content = ContentPass::new();
        let mut failure = None;
        let scanned = {
            let mut sink = |piece: Piece| match piece {
                Piece::Cut => {
                    content.cut();
                    Some(Vec::new())
                }
                Piece::Bytes(bytes) => match content.bytes(&bytes) {
                    Ok(()) => Some(bytes),
                    Err(err) => {
                        failure = Some(err);
                        None
                    }
                },
            };
            let mut scanner = Scanner::new();
            scanner
                .push(blob, &mut sink)
                .and_then(|()| scanner.finish(&mut sink))
        };
        if let Some(err) = failure {
            return Err(err.into());
        }
        Ok(Self::join(
            Digest::sha256(blob),
            blob.len() as u64,
            scanned?,
            content.finish()?,
        )?)
    }
}
