//! Serving: an opened image as a mount, what it tells about itself, and its end; any number of
//! mounts in one process.
//!
//! ```text
//! Host ── prepare ──> Mounting ── start ──> Mounted ── unmounted by whoever ──> nothing is left
//!   │                                          ├── session with the kernel         (fuse)
//!   └── cache, trees, where mounts are found   ├── record, socket with the status  (record, status)
//!                                              └── DiffIds, proofs, quarantines    (diff_ids, prove)
//! ```

mod diff_ids;
mod fuse;
mod host;
mod mounted;
mod mounting;
mod mountpoint;
mod mounts;
mod prove;
mod record;
mod runtime_dir;
mod status;

pub use fuse::{MountError, MountOptions, Unmounter, check_device};
pub use host::Host;
pub use mounted::Mounted;
pub use mounting::{MountRequest, Mounting};
pub use mountpoint::{Cleared, clear, imgfs_mounted_on, unmount};
pub use record::{MountRecord, RunningMount, running_mounts};
pub use runtime_dir::{MountId, RuntimeDir};
pub use status::{DiffIdCheck, LayerStatus, MountStatus};
