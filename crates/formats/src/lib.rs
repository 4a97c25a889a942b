//! Bytes in, values out: what imgfs knows of OCI documents, of layers and of the merged filesystem.
//!
//! Nothing here does I/O, reads a clock or knows tokio, so fuzzers and other tools can use all of
//! it; `clippy.toml` beside this package's manifest refuses the types and functions that would.

#![warn(missing_docs)]

pub mod layer;
pub mod oci;
pub mod tree;
pub mod trust;
