//! The image as a filesystem: lookup, attributes, reading and seeking, in values and errors.
//!
//! Operations on metadata touch the tree alone. Reads try what the store has without the network
//! first ([`ImageFs::try_read`]); only a miss becomes something to wait for ([`ImageFs::read`]).
//! There are no handles: every operation names an inode, and inodes live as long as the mount.

mod error;
mod image;
mod read;
#[cfg(test)]
mod tests;

pub use error::FsError;
pub use image::{Attributes, BLOCK_SIZE, DirectoryEntry, FilesystemSize, ImageFs};
