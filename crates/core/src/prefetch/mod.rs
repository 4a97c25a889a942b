//! Who will need what next: programs and their libraries, walks over many files.

mod elf;
mod libraries;
mod programs;
mod sequence;

pub(crate) use libraries::Libraries;
pub use programs::EXECUTABLE_LIMIT;
pub(crate) use programs::Executables;
pub use sequence::FilesInOrder;
