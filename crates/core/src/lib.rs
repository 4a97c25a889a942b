//! imgfs mounts container images read-only, unmodified, fetching and verifying only what is read.
//! This is its library: resolve, open, read and serve an image.
//!
//! # Code map
//!
//! A room imports only from rooms above it in this list. What they read and write as values is in
//! `imgfs_formats`.
//!
//! | room | what it is |
//! |---|---|
//! | [`hint`] | what a person can do about a failure, as a value |
//! | [`source`] | where blobs come from: registry, OCI layout, docker archive |
//! | [`store`] | the local cache: indexes and decoded layer bytes, fetched on demand, verified |
//! | [`prefetch`] | what readers will need next: programs, walks, landmarks |
//! | [`view`] | the image as a filesystem: lookup, attributes, read |
//! | [`indexes`] | finding layer indexes that others made |
//! | [`image`] | from a request to an open image |
//! | [`work`] | pull, compare, verify, publish, export, unpack, lists |
//! | [`serve`] | mounts: any number of them in one process |
//! | [`error`] | the errors of all rooms, sorted for those who use the library |
//!
//! `docs/design.md` has the life of a read and of a mount, what lies on the disk, and every lock
//! with its order.
//!
//! # Invariants
//!
//! - This library knows no flag, no command and no terminal; what it takes from the environment it
//!   takes through options.
//! - [`source`] knows no layers' tar and no compression (a docker archive is itself a tar, whose
//!   members it lists).
//! - Only `serve::fuse` names the fuser crate.
//! - Bytes leave [`store`] only verified, through one positional `read_at(&self, ..)`; no cursors,
//!   no seek.
//! - No lock is held across network or disk waits. A FUSE thread never waits for the network: a
//!   cached read is answered on the thread that received it; a miss moves the reply into a task on
//!   the runtime.
//! - After the mount, metadata operations cause no request. A published tree never changes.
//! - Nothing assumes that a process has one mount: policies, records, sockets and messages belong
//!   to a mount; readers of a layer share it.

#![warn(missing_docs)]

mod backoff;
mod buffers;
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
