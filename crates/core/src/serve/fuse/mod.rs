//! FUSE: the connection to the kernel, the session over it, and the translation of its requests.
//! Nothing else names the fuser crate.

mod connect;
mod options;
mod session;
mod tree;

pub use options::MountOptions;
pub use session::{MountError, Unmounter, check_device};

pub(crate) use session::{Forgetter, Session, serve};
