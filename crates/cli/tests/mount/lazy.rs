//! Reading on demand: after an eviction only what is read is fetched, each span once.

use std::sync::LazyLock;

use super::*;
use crate::process::run;

/// Uncompressed size of a span.
const SPAN: u64 = 1 << 20;

/// 24 MiB in one file, of 24 spans, with a small file at each end.
fn large() -> &'static Image {
    static LARGE: LazyLock<Image> = LazyLock::new(|| {
        host_image(vec![gzip(&[
            file("first", "f"),
            file("large", &*CONTENT),
            file("last", "l"),
        ])])
    });
    &LARGE
}

/// What is in `large`.
static CONTENT: LazyLock<Vec<u8>> = LazyLock::new(|| noise(9, 24 << 20));

/// Mounts `image` when only its indexes are cached, and forgets the requests of that.
fn cold(world: &World, image: &Image) -> Mount {
    let reference = world.put(image);
    world.mount(&reference, &[]).end(world);
    world.evict();
    world.registry.forget_requests();
    let mount = world.mount(&reference, &[]);
    assert_eq!(
        world.registry.bytes(),
        0,
        "a mount with indexes needs no layer byte"
    );
    world.registry.forget_requests();
    mount
}

/// Bytes asked for, with those that two ranges share counted twice.
fn asked(world: &World) -> u64 {
    ranges(world)
        .iter()
        .map(|(first, last)| last + 1 - first)
        .sum()
}

#[test]
fn metadata_causes_no_request() {
    let Some(world) = World::mounting() else {
        return;
    };
    let mount = cold(&world, &sample());
    let mut find = world.command("find");
    run(find.arg(&mount.dir).args(["-ls"])).ok();
    if has(&["getfattr"]) {
        let mut getfattr = world.command("getfattr");
        run(getfattr.args(["-R", "-h", "-d", "-m", "-"]).arg(&mount.dir)).ok();
    }
    rustix::fs::statvfs(&mount.dir).unwrap();
    assert!(!mount.path("absent").exists());
    assert_eq!(world.registry.log(), [""; 0]);
}

#[test]
fn a_small_file_costs_about_one_span() {
    let Some(world) = World::mounting() else {
        return;
    };
    let mount = cold(&world, large());
    assert_eq!(mount.text("last"), "l");
    let fetched = world.registry.bytes();
    assert!(fetched < 2 * SPAN, "{fetched}");
    assert_eq!(world.registry.requests().len(), 1);
    assert_eq!(mount.text("last"), "l");
    assert_eq!(mount.text("first"), "f");
    assert_eq!(world.registry.requests().len(), 2);
    let status = world.status(&mount);
    assert_eq!(status["layers"][0]["fetched"], world.registry.bytes());
}

#[test]
fn what_was_fetched_is_there_for_the_next_mount() {
    let Some(world) = World::mounting() else {
        return;
    };
    let image = large();
    let mount = cold(&world, image);
    assert_eq!(mount.text("last"), "l");
    mount.end(&world);
    let mount = world.mount(&world.registry.reference("r:t"), &["--offline"]);
    assert_eq!(mount.text("last"), "l");
}

#[test]
fn many_readers_of_the_same_cold_file_share_each_fetch() {
    let Some(world) = World::mounting() else {
        return;
    };
    let image = large();
    let mount = cold(&world, image);
    let expected: &[u8] = &CONTENT;
    std::thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| assert!(mount.read("large") == expected, "wrong bytes"));
        }
    });
    // Neighbouring spans may share a byte.
    let (asked, size) = (asked(&world), layer_bytes(image));
    assert!(asked <= size + 32, "{asked} bytes for a blob of {size}");
}

#[test]
fn readers_at_different_places_get_their_bytes_and_none_twice() {
    let Some(world) = World::mounting() else {
        return;
    };
    let image = large();
    let mount = cold(&world, image);
    let expected: &[u8] = &CONTENT;
    let file = std::fs::File::open(mount.path("large")).unwrap();
    std::thread::scope(|scope| {
        for reader in 0..16_u64 {
            let file = &file;
            scope.spawn(move || {
                let mut piece = vec![0; 70_000];
                for step in 0..20 {
                    let at =
                        (reader * 7_919_993 + step * 1_234_567) % (expected.len() as u64 - 70_000);
                    std::os::unix::fs::FileExt::read_exact_at(file, &mut piece, at).unwrap();
                    let at = usize::try_from(at).unwrap();
                    assert!(piece == expected[at..at + 70_000], "wrong bytes at {at}");
                }
            });
        }
    });
    let (asked, size) = (asked(&world), layer_bytes(image));
    assert!(asked <= size + 32, "{asked} bytes for a blob of {size}");
}

#[test]
fn sequential_reading_needs_far_fewer_requests_than_spans() {
    let Some(world) = World::mounting() else {
        return;
    };
    for image in [
        large(),
        &host_image(vec![plain(&[file("large", &*CONTENT)])]),
    ] {
        let mount = cold(&world, image);
        assert!(mount.read("large") == *CONTENT);
        let requests = world.registry.requests().len();
        assert!(
            requests <= 12,
            "{requests} requests for 24 spans: {:?}",
            ranges(&world)
        );
        mount.end(&world);
    }
}

#[test]
fn a_corrupt_span_is_an_error_and_never_bytes() {
    let Some(world) = World::mounting() else {
        return;
    };
    let mount = cold(&world, large());
    world.registry.fault_always(On::Blob, Fault::Corrupt);
    let err = std::fs::read(mount.path("last")).unwrap_err();
    assert_eq!(err.raw_os_error(), Some(libc::EIO), "{err}");
    world.registry.clear_faults();
    assert_eq!(mount.text("first"), "f", "other spans are not concerned");
    assert_eq!(
        mount.text("last"),
        "l",
        "and this one comes when the registry is well again"
    );
}

#[test]
fn a_registry_that_fails_for_good_gives_eio_and_the_mount_lives_on() {
    let Some(world) = World::mounting() else {
        return;
    };
    let mount = cold(&world, large());
    world.registry.fault_always(On::Blob, Fault::Status(404));
    let err = std::fs::read(mount.path("last")).unwrap_err();
    assert_eq!(err.raw_os_error(), Some(libc::EIO), "{err}");
    assert_eq!(mount.names(""), ["first", "large", "last"]);
    world.registry.clear_faults();
    assert_eq!(mount.text("last"), "l");
}

#[test]
fn passing_failures_are_not_seen_by_readers() {
    let Some(world) = World::mounting() else {
        return;
    };
    let mount = cold(&world, large());
    world.registry.fault(On::Blob, Fault::Status(503));
    world.registry.fault(On::Blob, Fault::Truncate(1000));
    world.registry.fault(On::Blob, Fault::Drop);
    assert!(mount.read("large") == *CONTENT);
}

#[test]
fn a_server_that_stops_serving_ranges_still_gives_the_right_bytes() {
    let Some(world) = World::mounting() else {
        return;
    };
    let mount = cold(&world, large());
    world.registry.fault_always(On::Blob, Fault::IgnoreRange);
    assert_eq!(mount.text("last"), "l");
    assert_eq!(mount.text("first"), "f");
}

#[test]
fn eviction_leaves_mounts_alone() {
    let Some(world) = World::mounting() else {
        return;
    };
    let image = large();
    let mount = world.mount(&world.put(image), &[]);
    let outcome = world.imgfs(&["cache", "evict", "--data"]);
    outcome.ok_saying(&["1 in use keep theirs"]);
    world.registry.forget_requests();
    assert!(mount.read("large") == *CONTENT);
    assert_eq!(world.registry.log(), [""; 0]);
}

#[test]
fn the_cache_limit_is_kept_after_use() {
    let Some(world) = World::mounting() else {
        return;
    };
    let image = large();
    let reference = world.put(image);
    world.mount(&reference, &[]).end(&world);
    world
        .imgfs(&["--cache-limit", "5MiB", "cache", "evict"])
        .ok();
    let data = world
        .cache()
        .join("layers/sha256")
        .join(image_digest(image))
        .join("data");
    let used = std::os::unix::fs::MetadataExt::blocks(&data.metadata().unwrap()) * 512;
    assert!((1 << 20..=5 << 20).contains(&used), "{used}");
    let mount = world.mount(&reference, &[]);
    assert!(mount.read("large") == *CONTENT);
}

/// The digest of an image's first layer, in hex.
fn image_digest(image: &Image) -> String {
    imgfs_formats::oci::Digest::sha256(&image.layers[0].blob).hex()
}
