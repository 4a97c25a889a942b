//! Keeping the cache in bounds: what takes space, eviction, removal.

mod evict;
mod sweep;
mod usage;

pub(in crate::store) use evict::list;
pub use evict::{DEFAULT_LIMIT, Evicted};
pub use sweep::{Plan, Removal, Step, Swept};
pub use usage::{CacheFile, Holding, LayerUsage};
