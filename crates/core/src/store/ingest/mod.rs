//! Taking in a layer as a whole: the pass of a first contact, and pulls.

mod first_contact;
mod parts;
mod pull;

pub use first_contact::Progress;

pub(in crate::store) use first_contact::{PassOptions, index_kept, index_layer, recompute};
pub(in crate::store) use parts::PARTS_AHEAD;
