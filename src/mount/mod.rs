//! Composition: from a reference to something that can be served or printed.
//!
//! ```text
//! Request ── resolve ──> Image ── open layers ──> Opened (tree + readers) ── serve ──> a mount
//!                          └───── top-down, as far as needed ──> Peek ──> an answer
//! ```

#[allow(
    dead_code,
    reason = "what opens layers by indexes that are found is not here yet"
)]
mod found;
mod image;
mod memory;
mod mountpoint;
mod opened;
mod peek;
mod proof;
mod pull;
mod record;
mod status;

pub use image::{Freshness, Image, Pull, Request};
pub use mountpoint::{Cleared, clear, imgfs_mounted_on, unmount};
pub use opened::{LayerProgress, Opened};
pub use peek::Peek;
pub use proof::prove_diff_ids;
pub use pull::{Pulled, PulledLayer, Puller};
pub use record::{MountRecord, records};
pub use status::{LayerStatus, Live, MountStatus};
