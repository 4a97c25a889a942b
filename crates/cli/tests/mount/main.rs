//! The whole program: the real binary in processes of its own, against a registry in this process.
//!
//! Every wait has a limit, every mount is unmounted at the end, and each test has its own registry
//! and cache.
#![allow(unreachable_pub, reason = "a test program exports nothing")]
#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on has found what it looks for"
)]

#[path = "../../../core/tests/support/mod.rs"]
mod support;

mod ahead;
mod commands;
mod concurrency;
mod contract;
mod counterparts;
mod executables;
mod explain;
mod faults;
mod first_contact;
mod found;
mod lazy;
mod life;
mod limits;
mod listing;
mod login;
mod mirrors;
mod mount8;
mod offline;
mod outage;
mod process;
mod prove;
mod published;
mod publishing;
mod pull;
mod rootfs;
mod rot;
mod soak;
mod sources;
mod tree;
mod trouble;
mod usage;
mod user;
mod warm;
mod world;

use bytes::Bytes;

use listing::{
    Member, char_device, dir, fifo, file, hard_link, noise, opaque, symlink, tar_of, whiteout,
};
use support::image::{Image, Layer, gzip_layer, image, plain_layer, zstd_layer};
use support::registry::{Fault, On};
use world::{IMGFS, Mount, World};

/// Whether these programs are installed; says so if not.
fn has(programs: &[&str]) -> bool {
    support::programs::find(&world::test_name(), programs).is_some()
}

/// The platform of this machine, as images call it.
fn host() -> String {
    imgfs_core::source::host_platform().to_string()
}

/// An image for this machine.
fn host_image(layers: Vec<Layer>) -> Image {
    image(&host(), layers)
}

fn gzip(members: &[Member]) -> Layer {
    gzip_layer(tar_of(members))
}

fn zstd(members: &[Member]) -> Layer {
    zstd_layer(tar_of(members))
}

fn plain(members: &[Member]) -> Layer {
    plain_layer(tar_of(members))
}

/// Three layers in three compressions, with everything that a layer can say.
fn sample() -> Image {
    sample_with(zstd)
}

/// The same with another compression in the middle.
fn sample_with(middle_layer: fn(&[Member]) -> Layer) -> Image {
    let base = [
        dir("etc"),
        file("etc/release", "base\n"),
        file("etc/fraction", "t").mtime(1_234_567_890, 123_456_789),
        file("etc/owned", "o")
            .owner(1000, 4_000_000_000)
            .mode(0o640),
        dir("bin"),
        file("bin/su", "#!/bin/sh\n").mode(0o4755),
        hard_link("bin/sudo", "bin/su").mode(0o4755),
        symlink("bin/sh", "../usr/bin/shell"),
        file("bin/capable", "c")
            .xattr("user.note", b"hello")
            .xattr("security.capability", &CAPABILITY),
        dir("old"),
        file("old/a", "a"),
        file("old/b", "b"),
        dir("hidden"),
        file("hidden/x", "x"),
        dir("var"),
        dir("var/tmp").mode(0o1777),
        file("noise", noise(1, 3_000_000)),
    ];
    let middle = [
        whiteout("old/a"),
        dir("hidden"),
        opaque("hidden"),
        file("hidden/y", "y"),
        file("etc/release", "middle\n"),
        char_device("null", (1, 3)),
        fifo("pipe"),
        file("zeros", vec![0; 2_000_000]),
    ];
    let top = [
        file("etc/release", "top\n"),
        dir("srv").mtime(1_700_000_000, 5),
        file("srv/a name with \"quotes\" and \u{fc}", "q"),
    ];
    host_image(vec![gzip(&base), middle_layer(&middle), plain(&top)])
}

/// A `security.capability` of version 2: `cap_net_raw=ep`.
const CAPABILITY: [u8; 20] = [1, 0, 0, 2, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// Sum of the sizes of the layers' blobs.
fn layer_bytes(image: &Image) -> u64 {
    image
        .layers
        .iter()
        .map(|layer| layer.blob.len() as u64)
        .sum()
}

/// Sum of the sizes of manifest and config.
fn document_bytes(image: &Image) -> u64 {
    let config: &Bytes = &image.blobs[0];
    (image.manifest.len() + config.len()) as u64
}

/// The ranges of blobs asked for so far, as first and last byte.
fn ranges(world: &World) -> Vec<(u64, u64)> {
    let requests = world.registry.requests();
    let ranges = requests.iter().filter_map(|seen| {
        let (first, last) = seen
            .range
            .as_ref()?
            .strip_prefix("bytes=")?
            .split_once('-')?;
        Some((first.parse().unwrap(), last.parse().unwrap()))
    });
    ranges.collect()
}
