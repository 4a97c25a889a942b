//! Layers with a table of contents, made by other programs and by a writer of oddities: the index
//! from the table against the one that a pass over the same blob makes. Same entries, same bytes,
//! and how many requests it took.
#![allow(unreachable_pub, reason = "a test program exports nothing")]
#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on has found what it looks for"
)]

#[path = "../support/mod.rs"]
mod support;

mod compare;
mod converted;
mod faults;
mod written;
