//! The formats from outside: scanning and decoding, the index's digest, the union.
#![allow(unreachable_pub, reason = "a test program exports nothing")]
#![allow(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "other programs are asked what they make of the same bytes"
)]

mod index_digest;
mod scan;
mod union;
