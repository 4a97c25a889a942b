//! Indexes that others made and that are found beside an image.

pub(super) mod soci;
