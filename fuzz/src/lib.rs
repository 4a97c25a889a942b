//! The fuzz targets' bodies: one function for each, bytes in, panic if something is wrong.
//!
//! The modules under test are compiled right here from imgfs's sources, not through the imgfs
//! crate: they do no I/O and need a tenth of its dependencies, so the targets build in a minute.
//! And what is private there can be reached without a hook in the product.

#[path = "../../crates/formats/src/layer/mod.rs"]
pub mod layer;
#[path = "../../crates/formats/src/oci/mod.rs"]
pub mod oci;
#[path = "../../crates/core/src/source/challenge.rs"]
pub mod source_challenge;
#[path = "../../crates/formats/src/tree/mod.rs"]
pub mod tree;

mod blobs;
mod contents;
mod indexes;
mod tars;
mod texts;
mod ztocs;

pub use blobs::{layer, spans};
pub use contents::{contents, footers};
pub use indexes::{index, toc};
pub use tars::tar;
pub use texts::{challenge, manifest, platform, reference};
pub use ztocs::ztoc;

/// Takes `N` bytes from the front, zeros where there are none.
fn take<const N: usize>(data: &mut &[u8]) -> [u8; N] {
    let mut bytes = [0; N];
    let count = N.min(data.len());
    let (head, rest) = data.split_at(count);
    bytes[..count].copy_from_slice(head);
    *data = rest;
    bytes
}

/// Lengths that follow from `seed` alone, from 1 to `most`.
fn lengths(seed: &[u8], most: usize) -> impl Iterator<Item = usize> {
    let mut state = seed.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    std::iter::repeat_with(move || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        1 + (state >> 33) as usize % most
    })
}

/// Cuts `data` into pieces of these lengths.
fn pieces(mut data: &[u8], mut lengths: impl Iterator<Item = usize>) -> Vec<&[u8]> {
    let mut pieces = Vec::new();
    while !data.is_empty() {
        let length = lengths.next().unwrap_or(usize::MAX).min(data.len());
        let (piece, rest) = data.split_at(length);
        pieces.push(piece);
        data = rest;
    }
    pieces
}
