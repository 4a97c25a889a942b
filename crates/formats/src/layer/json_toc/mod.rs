//! The table of contents that eStargz and zstd:chunked share: a JSON document with an object for
//! each tar member.
//!
//! It has been compared with the digest in the manifest before it gets here, and still is input of
//! somebody else: every number is checked against the blob, every name against the others. What is
//! refused makes the layer a plain one, which is slower and never wrong.
//!
//! The writers differ from each other and from the specification (seen in stargz-snapshotter 0.12
//! and containers/storage as in skopeo 1.9):
//!
//! - eStargz rounds `modtime` to seconds and leaves it out for 1970; containers/storage keeps
//!   nanoseconds.
//! - eStargz gives each chunk a `chunkDigest` and no end; containers/storage gives `endOffset`, of
//!   the *file* where it has several chunks, and a file of one chunk has only the file's `digest`,
//!   which is the same.
//! - Go's JSON turns bytes of a name that are not UTF-8 into U+FFFD. Such a table describes another
//!   tree than the tar.

mod error;
mod listing;
mod names;
mod payloads;

use std::collections::HashSet;
use std::ops::Range;

use crate::layer::index::LayerIndex;
use crate::layer::scan::Codec;
use crate::layer::toc::{Entry, EntryKind, Toc, TocBuilder};
use crate::oci::Digest;
pub use error::ContentsError;
use listing::read_listing;
use names::VERSION;
pub use names::{FORMAT_FILES, MAX_CONTENTS};
pub(in crate::layer) use names::{TOC_NAME, cleaned};
use payloads::{File, Payloads};

/// What a table of contents comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableOfContents {
    /// The layer's index.
    pub index: LayerIndex,
    /// The bytes of the blob that its maker wants fetched first.
    pub prefetch: Option<Range<u64>>,
}

/// The layer a table of contents is of.
#[derive(Debug, Clone)]
pub(in crate::layer) struct Layer {
    pub blob: Digest,
    pub blob_size: u64,
    pub codec: Codec,
    /// Where the payloads end in the blob at the latest.
    pub payload_end: u64,
    /// Whether landmarks are no files.
    pub has_landmarks: bool,
}

/// The index that `json` describes.
pub(in crate::layer) fn read_contents(
    json: &[u8],
    layer: &Layer,
) -> Result<TableOfContents, ContentsError> {
    let listed = read_listing(json, layer.has_landmarks)?;
    if listed.version != VERSION {
        return Err(ContentsError::Version(listed.version));
    }
    // Offsets in the layer are not known before all payloads are: they come with the second table.
    let draft = listed.entries;
    check_names(&draft)?;
    let mut payloads = listed.payloads;
    let name = |file: &File| {
        let entry = file.entry.and_then(|entry| draft.iter().nth(entry));
        entry.map_or_else(|| "a landmark".to_owned(), |entry| lossy(entry.path))
    };
    let spans = payloads.lay_out(layer.codec, layer.blob_size, layer.payload_end, name)?;
    let toc = with_places(&draft, &payloads, spans.layer_size())?;
    Ok(TableOfContents {
        index: LayerIndex {
            blob: layer.blob,
            blob_size: layer.blob_size,
            codec: layer.codec,
            toc,
            spans,
            file_digests: Vec::new(),
        },
        prefetch: listed.landmark.map(|offset| 0..offset),
    })
}

/// The same entries, each file with its place in the layer.
fn with_places(draft: &Toc, payloads: &Payloads, layer_size: u64) -> Result<Toc, ContentsError> {
    let mut builder = TocBuilder::default();
    let mut files = payloads
        .files
        .iter()
        .filter(|file| file.entry.is_some())
        .peekable();
    for (number, entry) in draft.iter().enumerate() {
        let Some(file) = files.next_if(|file| file.entry == Some(number)) else {
            builder.push(&entry)?;
            continue;
        };
        let extents = payloads.extents(file);
        let kind = match extents.as_slice() {
            [whole] if whole.length == file.size => EntryKind::File {
                offset: whole.layer_offset,
                size: file.size,
            },
            extents => EntryKind::SparseFile {
                extents,
                size: file.size,
            },
        };
        builder.push(&Entry { kind, ..entry })?;
    }
    Ok(builder.finish(layer_size)?)
}

/// No name twice, no hard link to what is not there.
fn check_names(toc: &Toc) -> Result<(), ContentsError> {
    let mut names = HashSet::with_capacity(toc.len());
    for entry in toc.iter() {
        if !names.insert(cleaned(entry.path)) {
            return Err(ContentsError::Duplicate(lossy(entry.path)));
        }
    }
    for entry in toc.iter() {
        if let EntryKind::HardLink { target } = entry.kind
            && !names.contains(&cleaned(target))
        {
            return Err(ContentsError::MissingTarget {
                name: lossy(entry.path),
                target: lossy(target),
            });
        }
    }
    Ok(())
}

fn lossy(name: &[u8]) -> String {
    String::from_utf8_lossy(name).into_owned()
}

#[cfg(test)]
mod tests;
