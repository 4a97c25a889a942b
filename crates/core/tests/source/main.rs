//! Sources of blobs: one contract for all, and what a registry's faults must come to.
#![allow(unreachable_pub, reason = "a test program exports nothing")]
#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on has found what it looks for"
)]

#[path = "../support/mod.rs"]
mod support;

mod authentication;
mod contract;
mod counterparts;
mod credentials;
mod faults;
mod mirrors;
mod pushing;
mod redirects;
mod resolving;
mod routes;
mod secrets;
mod slow;
mod tags;

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use imgfs_core::source::{
    BlobSource, ByteStream, Credentials, Options, RetryPolicy, SourceError, Timeouts,
    read_verified, resolve_image,
};
use imgfs_formats::oci::{Descriptor, Platform, Reference};
use support::image::{
    Image, gzip_layer, image, plain_layer, tar, write_layout, write_new_archive, write_old_archive,
};
use support::registry::{Fault, On, Registry};

/// Short waits: nothing here should take long, and what stalls is to be found out soon.
fn options() -> Options {
    Options {
        timeouts: Timeouts {
            connect: Duration::from_secs(5),
            first_byte: Duration::from_secs(5),
            stall: Duration::from_secs(5),
            race: Duration::from_secs(5),
            give_up: Duration::from_secs(20),
            ..Timeouts::default()
        },
        retry: RetryPolicy {
            attempts: 4,
            base: Duration::from_millis(1),
            cap: Duration::from_millis(2),
        },
        ..Options::default()
    }
}

/// For tests of what never comes.
fn impatient() -> Options {
    let mut options = options();
    options.timeouts.first_byte = Duration::from_millis(300);
    options.timeouts.stall = Duration::from_millis(300);
    options
}

fn open(reference: &str, options: &Options) -> Arc<dyn BlobSource> {
    let reference: Reference = reference.parse().unwrap();
    imgfs_core::source::open(&reference, options).unwrap()
}

fn linux() -> Platform {
    Platform::host("linux", "x86_64", "")
}

/// A range as positions in memory.
fn positions(range: &Range<u64>) -> Range<usize> {
    range.start.try_into().unwrap()..range.end.try_into().unwrap()
}

async fn collect(mut stream: ByteStream) -> Result<Bytes, SourceError> {
    let mut all = Vec::new();
    while let Some(piece) = stream.next().await {
        all.extend_from_slice(&piece?);
    }
    Ok(all.into())
}

async fn read(
    source: &dyn BlobSource,
    blob: &Descriptor,
    range: Range<u64>,
) -> Result<Bytes, SourceError> {
    collect(source.open(blob, range).await?).await
}

fn small_image() -> Image {
    let noise: Vec<u8> = (0..100_000_u32)
        .map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()[2])
        .collect();
    image(
        "linux/amd64",
        vec![
            gzip_layer(tar(&[("base", b"x"), ("noise", &noise)])),
            plain_layer(tar(&[("top", b"y")])),
        ],
    )
}
