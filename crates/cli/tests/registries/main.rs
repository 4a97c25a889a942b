//! imgfs's registry client beside real counterparts: Debian's docker-registry behind nginx with
//! certificates of a private authority, a token server, proxies; and skopeo as the other client,
//! with the same files.
//!
//! On loopback clients check no certificate and use no proxy, so each test has a network of its own
//! (with names and addresses that are not loopback's), mounts of its own, and processes that end
//! with it: see [`world`]. That needs root.
#![allow(unreachable_pub, reason = "a test program exports nothing")]
#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on has found what it looks for"
)]

#[expect(dead_code, reason = "the images are used, archives of them are not")]
#[path = "../../../core/tests/support/image.rs"]
mod image;
#[expect(dead_code, reason = "shared with the tests of mounts")]
#[path = "../mount/process.rs"]
mod process;
#[path = "../../../core/tests/support/programs.rs"]
mod programs;

mod authority;
mod certificates;
mod front;
mod login;
mod mirrors;
mod outage;
mod proxies;
mod token_server;
mod tokens;
mod world;

use front::Front;
use world::World;
