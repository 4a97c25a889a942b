//! The local cache of indexes and decoded layer bytes.

/// Reads the uncompressed bytes of one layer: from the cache when they are there, else fetched and verified.
pub struct LayerReader {}

/// Why bytes of a layer could not be read.
#[derive(Debug, thiserror::Error)]
#[error("stub")]
pub struct StoreError;

impl LayerReader {
    /// Fills `buf` with the layer's uncompressed bytes from `offset` on if all of them can be had without the
    /// network; says `false`, with `buf` in any state, if not. May read the disk.
    pub fn try_read_at(&self, offset: u64, buf: &mut [u8]) -> Result<bool, StoreError> {
        let _ = (offset, buf);
        Err(StoreError)
    }

    /// Fills `buf` likewise, fetching what is missing. Must run on the runtime.
    pub async fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), StoreError> {
        let _ = (offset, buf);
        Err(StoreError)
    }
}
