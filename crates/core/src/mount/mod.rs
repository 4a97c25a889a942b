//! Composition: from a reference to something that can be served or printed.
//!
//! ```text
//! Request ── resolve ──> Image ── find indexes ──> Prepared ── open layers ──> Opened (tree + readers) ── serve ──> a mount
//!                          ├───── published indexes, made and sent (publish)
//!                          ├───── top-down, as far as needed ──> Peek ──> an answer
//!                          └───── two of them, likewise ──> Comparison ──> what differs
//! ```

mod cached;
mod compare;
pub mod found;
mod image;
mod known;
mod lists;
mod memory;
mod mountpoint;
mod opened;
mod peek;
mod proof;
mod prove;
mod publish;
mod published;
mod pull;
mod record;
mod status;
mod verify;

pub use cached::{
    CachedImage, CachedLayer, cached_images, cached_layers, cached_tree, find_cached,
};
pub use compare::{Compared, Comparison, Cost, Differences, Unopened};
pub use found::{IndexPolicy, MidstatesBlob};
pub use image::{Freshness, Image, Pull, Request};
pub use known::{KnownContent, KnownIndex, KnownLayer, known_layers};
pub use lists::{BlobsPlaced, ListPush, Lists, PushedList, PushedMember, member_of};
pub use mountpoint::{Cleared, clear, imgfs_mounted_on, unmount};
pub use opened::{LayerOrigin, LayerProgress, Opened, Prepared};
pub use peek::Peek;
pub use proof::prove_diff_ids;
pub use prove::{forget_quarantined, prove};
pub use publish::{PublishedImage, PublishedLayer, build, builds, publish};
pub use published::{FindOptions, Found, FoundIndex, Published, Vouched};
pub use pull::{Pulled, PulledLayer, Puller};
pub use record::{MountRecord, records};
pub use status::{LayerStatus, Live, MountStatus};
pub use verify::{Damage, Kind, Outcome, Tally, Verified, Verifying, verify};
