//! What each fault of a network costs a mount, in requests and bytes: the table of
//! `docs/benchmarks.md`.
//!
//! `cargo test --test mount faults:: -- --nocapture` prints it.

use super::*;
use crate::support::registry::Registry;

/// 8 MiB of one file, in one gzip layer of nine spans.
const SIZE: usize = 8 << 20;

/// What a whole read cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Cost {
    requests: usize,
    bytes: u64,
    /// Whether the first read failed, with EIO; the next one always brings the bytes.
    failed: bool,
}

/// Mounts an image of which only the index is cached, lets things go wrong, and reads all of it.
fn read_with(spoil: impl FnOnce(&World, &Registry), storage: bool) -> Option<Cost> {
    let world = World::mounting()?;
    let other = Registry::start();
    let content = noise(77, SIZE);
    let reference = world.put(&host_image(vec![gzip(&[file("file", &content)])]));
    if storage {
        world.registry.redirect_blobs_to(&other);
    }
    world.mount(&reference, &[]).end(&world);
    world.evict();
    let mount = world.mount(&reference, &[]);
    // The first bytes: so that what is spoilt later is a mount that has tokens, URLs and
    // connections.
    let mut start = [0; 1];
    std::os::unix::fs::FileExt::read_exact_at(
        &std::fs::File::open(mount.path("file")).unwrap(),
        &mut start,
        0,
    )
    .unwrap();
    world.registry.forget_requests();
    other.forget_requests();
    spoil(&world, &other);
    let first = std::fs::read(mount.path("file"));
    if let Err(err) = &first {
        assert_eq!(err.raw_os_error(), Some(libc::EIO));
    }
    let failed = first.is_err();
    let read = first.unwrap_or_else(|_| mount.read("file"));
    assert!(read == content, "every byte is right");
    assert_eq!(world.registry.faults_left() + other.faults_left(), 0);
    mount.end(&world);
    Some(Cost {
        requests: world.registry.requests().len() + other.requests().len(),
        bytes: world.registry.bytes() + other.bytes(),
        failed,
    })
}

#[expect(clippy::print_stdout, reason = "the table is for people")]
fn head() {
    println!("| fault | requests | bytes | more requests | more bytes | first read |");
    println!("| --- | --- | --- | --- | --- | --- |");
}

#[expect(clippy::print_stdout, reason = "the table is for people")]
fn row(name: &str, cost: Cost, healthy: Cost) {
    println!(
        "| {name} | {} | {} kB | {:+} | {:+} kB | {} |",
        cost.requests,
        cost.bytes / 1000,
        cost.requests.cast_signed() - healthy.requests.cast_signed(),
        (cost.bytes.cast_signed() - healthy.bytes.cast_signed()) / 1000,
        if cost.failed { "EIO" } else { "right" },
    );
}

/// The most that it costs when nothing goes wrong: what is read ahead is cut into requests by who
/// is faster.
fn healthy(storage: bool) -> Option<Cost> {
    let mut most = read_with(|_, _| {}, storage)?;
    for _ in 0..2 {
        let cost = read_with(|_, _| {}, storage)?;
        most.requests = most.requests.max(cost.requests);
        most.bytes = most.bytes.max(cost.bytes);
    }
    Some(most)
}

/// Prints what it cost, and looks that this is no more than so many requests and KiB.
#[track_caller]
fn check(name: &str, cost: Cost, healthy: Cost, requests: usize, kib: u64) {
    row(name, cost, healthy);
    let both = format!("{name}: {cost:?}, {healthy:?} without");
    assert!(cost.requests <= healthy.requests + requests, "{both}");
    assert!(cost.bytes <= healthy.bytes + (kib << 10), "{both}");
}

/// What strikes, and what it may cost: more requests, and more KiB (pieces of 256 KiB that were
/// under way when a connection was given up, or a run that has to come again).
#[rustfmt::skip]
const FAULTS: [(&str, &[Fault], usize, u64); 14] = [
    ("connection closed without an answer", &[Fault::Drop], 1, 0),
    ("connection reset after 300 kB", &[Fault::Truncate(300_000)], 1, 256),
    ("body cut short again and again", &[const { Fault::Truncate(100_000) }; 5], 5, 5 * 256),
    ("206 with fewer bytes than asked for", &[Fault::ShortRange(200_000)], 1, 0),
    ("200 and the whole blob, for a part", &[Fault::IgnoreRange], 1, 9 << 10),
    ("a body at 64 KiB in a second", &[Fault::Drip(64)], 1, 256),
    ("stall after 300 kB", &[Fault::Stall(300_000)], 1, 256),
    ("no answer at all", &[Fault::Silence], 1, 0),
    ("503 five times", &[const { Fault::Status(503) }; 5], 5, 0),
    ("429 with Retry-After", &[Fault::RetryAfter(429, "1")], 1, 0),
    ("corrupt bytes once", &[Fault::Corrupt], 3, 9 << 10),
    ("corrupt bytes twice for one place", &[const { Fault::Corrupt }; 2], 5, 18 << 10),
    ("another range than asked for", &[Fault::WrongRange], 3, 9 << 10),
    ("another size of the blob", &[Fault::WrongTotal], 3, 9 << 10),
];

#[test]
fn what_each_fault_costs() {
    let Some(healthy) = healthy(false) else {
        return;
    };
    head();
    row("none", healthy, healthy);
    for (name, faults, requests, kib) in FAULTS {
        let spoil = |world: &World, _: &Registry| {
            for fault in faults {
                world.registry.fault(On::Blob, fault.clone());
            }
        };
        let cost = read_with(spoil, false).unwrap();
        check(name, cost, healthy, requests, kib);
    }
    // One token for all, and one request again for each that was refused: as many as go on at a
    // time.
    let revoked = read_with(|world, _| world.registry.require_token(None), false);
    let name = "the token is no longer accepted";
    check(name, revoked.unwrap(), healthy, 1 + 8, 0);
}

#[test]
fn what_expired_urls_cost() {
    let Some(healthy) = healthy(true) else {
        return;
    };
    head();
    row("none, blobs redirected to a storage", healthy, healthy);
    let expired = read_with(|_, storage| storage.expire_urls(), true);
    let name = "the storage's URLs expire (403)";
    check(name, expired.unwrap(), healthy, 4, 256);
    for status in [400, 401, 410] {
        let refuse = |_: &World, storage: &Registry| {
            storage.fault(On::Blob, Fault::Status(status));
        };
        let cost = read_with(refuse, true).unwrap();
        let name = format!("the storage answers {status}");
        check(&name, cost, healthy, 3, 256);
    }
}
