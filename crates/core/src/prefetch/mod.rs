//! What readers will need next, above the store: what they needed comes in, ranges of layers go out
//! to be fetched.
//!
//! ```text
//! a reader needed                   what is fetched                              where
//! the start of a program            the rest of it, then its libraries           programs, libraries (elf)
//! some of the files of a walk       the next ones, in long runs                  walk
//! a mount                           what its index's maker wants first           landmarks
//! a span                            its neighbours in tar order                  store/read/neighbours
//! ```
//!
//! The last one stays in the store, as it knows spans alone.

mod elf;
mod landmarks;
mod libraries;
mod programs;
mod walk;

pub use landmarks::Landmarks;
pub use programs::{EXECUTABLE_LIMIT, Programs};
pub use walk::{FilesInOrder, WalkError};
