//! Proving a layer that is read by an index that was found, and the DiffIds.

mod blob;
mod compare;
mod diff_id;
mod keep;
mod proof;
mod prover;
mod segments;
#[cfg(test)]
mod tests;

pub(in crate::store) use keep::Keeping;
pub(in crate::store) use proof::ProofCell;
pub use proof::{Proof, ProofStep};
