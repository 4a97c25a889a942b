//! imgfs mounts container images read-only, unmodified, fetching and verifying only what is read.
//!
//! # Code map
//!
//! A module imports only from modules of lower layers; `tests/layers.rs` reads the `use` lines and asserts it.
//!
//! | layer | module | what it is |
//! |---|---|---|
//! | 5 | [`cli`] | the command line: parses, runs, prints |
//! | 4 | [`mount`] | composition: resolve, open layers, build the tree, serve or print |
//! | 3 | [`fs`] | lookup, getattr, readdir, read, xattr over a tree; `fs::fuse` only translates |
//! | 2 | [`tree`] | union rules: layers' entries to one merged filesystem |
//! | 2 | [`store`] | the local cache: indexes and decoded layer bytes, fetched on demand, verified |
//! | 1 | [`layer`] | one layer: tar, compression, spans, the index over them |
//! | 1 | [`source`] | where blobs come from: registry, OCI layout, docker archive |
//! | 0 | [`oci`] | references, digests, manifests, platforms |
//!
//! # Invariants
//!
//! - [`oci`], [`layer`] and [`tree`] do no I/O: bytes in, values out.
//! - [`layer`] knows no registry; [`source`] knows no layers' tar and no compression (a docker
//!   archive is itself a tar, whose members it lists); [`tree`] knows no span.
//! - Only `fs::fuse` and the mount session name the fuser crate.
//! - Bytes leave [`store`] only verified, through one positional `read_at(&self, ..)`; no cursors, no seek.
//! - No lock is held across network or disk waits. A FUSE thread never waits for the network: a cached read is
//!   answered on the thread that received it; a miss moves the reply into a task on the runtime.
//! - After the mount, metadata operations cause no request. A published tree never changes.

#![warn(missing_docs)]

mod backoff;
mod cores;
pub mod error;
pub mod hint;
pub mod image;
pub mod indexes;
mod memory;
mod polite;
pub mod prefetch;
pub mod serve;
pub mod source;
pub mod store;
pub mod view;
pub mod work;
