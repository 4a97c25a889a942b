//! FUSE: the connection to the kernel, the session over it, and the translation of its requests. Nothing else names the fuser
//! crate.

mod buffers;
mod connect;
mod session;
mod tree;

pub use session::{MountError, MountOptions, Unmounter, check_device};

pub(crate) use session::{Forgetter, Session, serve};
