//! What is known of the image: first from its documents, then from its layers' indexes.

use imgfs_formats::oci::Digest;

/// What the manifest and the config tell.
#[derive(Debug, Clone)]
pub(in super::super) struct ImageInfo {
    /// The reference, normalised.
    pub reference: String,
    /// Digest of the manifest, shortened.
    pub digest: String,
    /// Its platform.
    pub platform: String,
    /// Base first: the blob, its size in bytes, the command that made it.
    pub layers: Vec<(Digest, u64, Option<String>)>,
}

/// What the layers' indexes tell. Bytes are those of regular files, uncompressed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in super::super) struct Summary {
    /// For each layer, base first.
    pub layers: Vec<LayerSum>,
    /// Nodes of the merged tree.
    pub nodes: u64,
}

/// One layer's part.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in super::super) struct LayerSum {
    /// Entries, whiteouts too.
    pub entries: usize,
    /// Bytes of its files.
    pub added: u64,
    /// What of these is not in the merged tree.
    pub wasted: u64,
}

impl Summary {
    /// Bytes of all layers' files.
    pub(in super::super) fn added(&self) -> u64 {
        self.layers.iter().map(|layer| layer.added).sum()
    }

    /// What of these is not in the merged tree.
    pub(in super::super) fn wasted(&self) -> u64 {
        self.layers.iter().map(|layer| layer.wasted).sum()
    }

    /// The share of the layers' bytes that is in the merged tree, in thousandths.
    pub(in super::super) fn efficiency(&self) -> u64 {
        let (added, wasted) = (u128::from(self.added()), u128::from(self.wasted()));
        let thousandths = ((added - wasted.min(added)) * 1000).checked_div(added);
        thousandths
            .and_then(|share| share.try_into().ok())
            .unwrap_or(1000)
    }
}
