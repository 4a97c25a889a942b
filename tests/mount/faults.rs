//! What each fault of a network costs a mount, in requests and bytes: the table of `docs/benchmarks.md`.
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
    // The first bytes: so that what is spoilt later is a mount that has tokens, URLs and connections.
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
    mount.end(&world);
    Some(Cost {
        requests: world.registry.requests().len() + other.requests().len(),
        bytes: world.registry.bytes() + other.bytes(),
        failed,
    })
}

#[test]
fn what_each_fault_costs() {
    let nothing = |_: &World, _: &Registry| {};
    let (Some(healthy), Some(redirected)) = (read_with(nothing, false), read_with(nothing, true))
    else {
        return;
    };
    println!("| fault | requests | bytes | more requests | more bytes | first read |");
    println!("| --- | --- | --- | --- | --- | --- |");
    let row = |name: &str, cost: Cost, healthy: Cost| {
        println!(
            "| {name} | {} | {} kB | {:+} | {:+} kB | {} |",
            cost.requests,
            cost.bytes / 1000,
            cost.requests.cast_signed() - healthy.requests.cast_signed(),
            (cost.bytes.cast_signed() - healthy.bytes.cast_signed()) / 1000,
            if cost.failed { "EIO" } else { "right" },
        );
    };
    row("none", healthy, healthy);
    // More requests at most, and more KiB at most: pieces of 256 KiB that were under way when a connection was given
    // up, or what has to come again.
    let check = |name: &str, faults: &[Fault], requests: usize, kib: u64| {
        let spoil = |world: &World, _: &Registry| {
            for fault in faults {
                world.registry.fault(On::Blob, fault.clone());
            }
        };
        let cost = read_with(spoil, false).unwrap();
        row(name, cost, healthy);
        assert!(
            cost.requests <= healthy.requests + requests && cost.requests > healthy.requests,
            "{name}: {cost:?}, {healthy:?} without"
        );
        assert!(
            cost.bytes <= healthy.bytes + (kib << 10),
            "{name}: {cost:?}, {healthy:?} without"
        );
    };
    check("connection closed without an answer", &[Fault::Drop], 1, 0);
    check(
        "connection reset after 300 kB",
        &[Fault::Truncate(300_000)],
        1,
        256,
    );
    check(
        "body cut short again and again",
        &[const { Fault::Truncate(100_000) }; 5],
        5,
        5 * 256,
    );
    check(
        "206 with fewer bytes than asked for",
        &[Fault::ShortRange(200_000)],
        1,
        0,
    );
    check("stall after 300 kB", &[Fault::Stall(300_000)], 1, 256);
    check("no answer at all", &[Fault::Silence], 1, 0);
    check("503 five times", &[const { Fault::Status(503) }; 5], 5, 0);
    check("429 with Retry-After", &[Fault::RetryAfter(429, "1")], 1, 0);
    check("corrupt bytes once", &[Fault::Corrupt], 3, 9 << 10);
    check(
        "corrupt bytes twice for one place",
        &[const { Fault::Corrupt }; 2],
        5,
        18 << 10,
    );
    check(
        "another range than asked for",
        &[Fault::WrongRange],
        3,
        9 << 10,
    );

    let check_redirected = |name: &str, spoil: &dyn Fn(&World, &Registry), requests: usize| {
        let cost = read_with(spoil, true).unwrap();
        row(name, cost, redirected);
        assert!(
            cost.requests <= redirected.requests + requests && cost.requests > redirected.requests,
            "{name}: {cost:?}, {redirected:?} without"
        );
        assert!(cost.bytes <= redirected.bytes + (256 << 10), "{name}");
    };
    row(
        "none, blobs redirected to a storage",
        redirected,
        redirected,
    );
    let expired: &dyn Fn(&World, &Registry) = &|_, storage| storage.expire_urls();
    check_redirected("the storage's URLs expire (403)", expired, 4);
    for status in [400, 401, 410] {
        let refuse =
            move |_: &World, storage: &Registry| storage.fault(On::Blob, Fault::Status(status));
        check_redirected(&format!("the storage answers {status}"), &refuse, 3);
    }
    let revoke: &dyn Fn(&World, &Registry) = &|world, _| world.registry.require_token(None);
    check_token("the token is no longer accepted", revoke, healthy, row);
}

/// A registry that wants a token from one request to the next.
fn check_token(
    name: &str,
    spoil: &dyn Fn(&World, &Registry),
    healthy: Cost,
    row: impl Fn(&str, Cost, Cost),
) {
    let cost = read_with(spoil, false).unwrap();
    row(name, cost, healthy);
    // One token for all, and one request again for each that was refused: as many as go on at a time.
    assert!(cost.requests <= healthy.requests + 1 + 8, "{cost:?}");
    assert_eq!(cost.bytes, healthy.bytes);
}
