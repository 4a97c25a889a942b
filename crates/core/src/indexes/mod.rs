//! Finding an index for a layer that was never streamed here, so that its first mount costs almost
//! nothing.
//!
//! For each layer the first of these that is there and good enough for [`IndexPolicy::require`]:
//!
//! ```text
//! index                    where it is found                                          trust
//! the layer's own          the cache                                                  proven
//! eStargz, zstd:chunked    in the blob; its digest is in the layer's descriptor       pinned
//! SOCI, version 2          in the repository; the image's manifest names it            pinned
//! published                beside the image, or in a repository of indexes            pinned by a signature, else claimed
//! SOCI, version 1          beside the image, with [`IndexPolicy::soci_v1`]             claimed
//! none of these: the layer is streamed once, which makes its own                      proven
//! ```
//!
//! Each is looked for in the cache first. What is wrong with an index is said once, in words for
//! people, and never fails a mount: the layer is then treated as if it had none.

mod estargz;
mod finder;
mod format;
pub(crate) mod published;
mod range;
mod soci;
mod toc;
mod toc_image;
mod zstd_chunked;

use std::sync::Arc;

pub(super) use finder::{Finder, FoundLayer, Search};
pub use format::in_format;
pub(super) use format::pinned;
pub use published::{FindOptions, FoundIndex, Published, PublishedAnswer, Vouched};
pub use toc::FoundToc;
pub use toc_image::TocImage;

use crate::error::Result;
use crate::source::BlobSource;
use crate::store::{LayerReader, OpenLayer, Progress, Store, Trust};
use imgfs_formats::layer::LayerIndex;
use imgfs_formats::layer::estargz::{FORMAT_FILES, TOC_DIGEST};
use imgfs_formats::oci::Descriptor;
use imgfs_formats::tree::TreeError;

/// Which indexes may be used, and where they are looked for.
#[derive(Clone)]
pub struct IndexPolicy {
    /// The least trust.
    pub require: Trust,
    /// SOCI indexes of version 1, too, which anybody who may push can add to an image.
    pub soci_v1: bool,
    /// Where published ones are, and whose signature pins them.
    pub published: FindOptions,
    /// Nobody is asked: only what the cache has.
    pub offline: bool,
}

impl IndexPolicy {
    /// Whether an index that was published could be of use.
    pub(super) fn wants_published(&self) -> bool {
        let named = self.published.key.is_some() || self.published.repository.is_some();
        self.require == Trust::Claimed || named && self.require == Trust::Pinned
    }
}

/// A file with SHA-256 midstates of a layer's blob, and where it can be had.
pub type MidstatesBlob = (Descriptor, Arc<dyn BlobSource>);

/// Leaves out of an index what belongs to its layer's format and not to the image. Whether a layer
/// is of that format is the manifest's word, so that the tree does not depend on which index it is
/// made from.
pub(super) fn hide_format_files(blob: &Descriptor, index: &mut LayerIndex) {
    if hides_format_files(blob) {
        index.toc = std::mem::take(&mut index.toc).without_root_files(&FORMAT_FILES);
    }
}

/// Whether a layer has files that belong to its format.
pub(super) fn hides_format_files(blob: &Descriptor) -> bool {
    blob.annotations.contains_key(TOC_DIGEST)
}

/// Streams a layer whose entries no tree can be made of, if that is the word of an index that was
/// found: that is not used again. Of the layer's own index it is the layer that is wrong.
pub(super) async fn stream_instead(
    store: &Arc<Store>,
    source: &Arc<dyn BlobSource>,
    blob: &Descriptor,
    found: &LayerReader,
    err: TreeError,
) -> Result<OpenLayer> {
    let slot = found.slot();
    if slot.is_own() {
        return Err(err.into());
    }
    store.refuse(slot, &err.to_string());
    tracing::warn!("an index that was found is not used, so all of the layer is fetched: {err}");
    let mut layer = store.open_layer(source, blob, &Progress::default()).await?;
    hide_format_files(blob, &mut layer.index);
    Ok(layer)
}
