//! The filesystem operations over a tree and its layers.
//!
//! [`ImageFs`] answers in values and [`FsError`]s, so that all of it is tested without FUSE; `fuse` only
//! translates, and `session` mounts. Operations on metadata touch the tree alone. Reads try what the store
//! has without the network first ([`ImageFs::try_read`]); only a miss becomes something to wait for
//! ([`ImageFs::read`]). There are no handles: every operation names an inode, and inodes live as long as the
//! mount.

mod elf;
mod error;
mod executable;
mod fuse;
mod image;
mod libraries;
mod read;
mod sequence;
mod session;
#[cfg(test)]
mod tests;

pub use error::FsError;
pub use executable::EXECUTABLE_LIMIT;
pub use image::{Attributes, BLOCK_SIZE, DirectoryEntry, FilesystemSize, ImageFs};
pub use sequence::FilesInOrder;
pub use session::{Forgetter, MountError, MountOptions, Mounted, Unmounter, check_device, serve};
