//! An image on its way from a reference to something that can be read.
//!
//! ```text
//! Request ── resolve ──> Image ── find indexes ──> Prepared ── open layers ──> Opened (tree + readers)
//!                          └───── top-down, as far as needed ──> Peek
//! ```
//!
//! [`CachedImage`] and [`KnownLayer`] are what the cache alone can say.

mod cached;
mod known;
mod opened;
mod peek;
mod resolve;
mod trees;

pub use cached::{
    CachedImage, CachedLayer, cached_images, cached_layers, cached_tree, find_cached,
};
pub(crate) use cached::{cached_images_of, cached_names, not_cached};
pub use known::{KnownContent, KnownIndex, KnownLayer, known_layers};
pub use opened::{LayerOrigin, LayerProgress, Opened, Prepared};
pub use peek::Peek;
pub(crate) use peek::merge;
pub use resolve::{Freshness, Image, Pull, Request};
pub use trees::Trees;
