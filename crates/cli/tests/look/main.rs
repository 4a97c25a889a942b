//! Looking inside, comparing, managing: the real binary on images in a registry of this process,
//! without a mount but where a mount is in the way. Requests and bytes are counted.
#![allow(unreachable_pub, reason = "a test program exports nothing")]
#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on has found what it looks for"
)]
#![allow(
    clippy::format_collect,
    reason = "a few strings more cost a test nothing"
)]

mod browse;
mod cache;
mod completions;
mod diff;
mod export;
mod help;
mod images;
mod inspect;
#[allow(dead_code, reason = "other test crates use the rest")]
#[path = "../mount/listing.rs"]
mod listing;
mod lists;
#[allow(dead_code, reason = "other test crates use the rest")]
#[path = "../mount/process.rs"]
mod process;
mod provenance;
mod removal;
mod schema;
mod search;
mod start;
#[path = "../../../core/tests/support/mod.rs"]
mod support;
mod walks;
mod walks_counterparts;
#[allow(dead_code, reason = "other test crates use the rest")]
#[path = "../mount/world.rs"]
mod world;

use listing::{Member, noise, tar_of};
use support::image::{Image, Layer, gzip_layer, image};
use world::World;

/// Whether these programs are installed; says so if not.
fn has(programs: &[&str]) -> bool {
    support::programs::find(&world::test_name(), programs).is_some()
}

/// An image for this machine.
fn host_image(layers: Vec<Layer>) -> Image {
    image(&imgfs_core::source::host_platform().to_string(), layers)
}

fn gzip(members: &[Member]) -> Layer {
    gzip_layer(tar_of(members))
}
