//! The cache directory: its files, their locks, what is written where.

mod catalog;
mod documents;
mod files;
mod findings;
mod midstates;
mod partial;

pub(in crate::store) use catalog::blocks;
pub use catalog::{ImageRecord, KnownImage, LayerUse};
pub use documents::{CachedDocuments, Offline, TagRecord};
pub(in crate::store) use files::{
    BLOB, BLOB_MAP, EvictableLayer, LayerFiles, Locked, NEW_DATA, NewData, UNFINISHED, disk_usage,
    publish, read_if_there, remove_if_there,
};
pub use findings::Finding;
pub(in crate::store) use partial::PartialBlob;
