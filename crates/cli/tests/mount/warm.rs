//! Later mounts: what the cache has is not asked for again.

use super::*;

#[test]
fn a_tag_is_checked_with_one_request_and_nothing_else_is_asked() {
    let Some(world) = World::mounting() else {
        return;
    };
    let reference = world.put(&sample());
    world.mount(&reference, &[]).end(&world);
    world.registry.forget_requests();
    let mount = world.mount(&reference, &[]);
    assert_eq!(world.registry.log(), ["HEAD /v2/r/manifests/t 200"]);
    assert!(mount.read("noise") == noise(1, 3_000_000));
    assert_eq!(
        (world.registry.requests().len(), world.registry.bytes()),
        (1, 0)
    );
}

#[test]
fn a_tag_that_moved_is_noticed() {
    let Some(world) = World::mounting() else {
        return;
    };
    let reference = world.put(&sample());
    world.mount(&reference, &[]).end(&world);
    world.put(&host_image(vec![gzip(&[file("moved", "m")])]));
    assert_eq!(world.mount(&reference, &[]).names(""), ["moved"]);
}

#[test]
fn by_digest_and_offline_nobody_is_asked() {
    let Some(world) = World::mounting() else {
        return;
    };
    let descriptor = world.registry.put_image("r", "t", &sample());
    let by_digest = world
        .registry
        .reference(&format!("r@{}", descriptor.digest));
    let by_tag = world.registry.reference("r:t");
    world.mount(&by_digest, &[]).end(&world);
    world.mount(&by_tag, &[]).end(&world);
    world.registry.forget_requests();
    for (reference, options) in [
        (&by_digest, &[][..]),
        (&by_digest, &["--offline"]),
        (&by_tag, &["--offline"]),
        (&by_tag, &["-o", "offline"]),
    ] {
        let mount = world.mount(reference, options);
        assert_eq!(mount.text("etc/release"), "top\n");
        assert_eq!(world.registry.log(), [""; 0], "{reference} {options:?}");
    }
}

#[test]
fn offline_works_after_the_registry_is_gone() {
    let Some(mut world) = World::mounting() else {
        return;
    };
    let reference = world.put(&sample());
    world.mount(&reference, &[]).end(&world);
    world.registry = crate::support::registry::Registry::start();
    let mount = world.mount(&reference, &["--offline"]);
    assert!(mount.read("noise") == noise(1, 3_000_000));
    assert_eq!(world.status(&mount)["source"], "offline");
}

#[test]
fn offline_without_a_cache_names_the_image_and_the_way_out() {
    let Some(world) = World::mounting() else {
        return;
    };
    let reference = world.put(&sample());
    let words = [
        "is not in the cache",
        "try again without --offline",
        &reference,
    ];
    world.refused(&reference, &["--offline"], &words);
    assert_eq!(world.registry.log(), [""; 0]);
    // The documents alone are not enough either.
    world.imgfs(&["inspect", &reference]).ok();
    world.refused(&reference, &["--offline"], &words);
}

#[test]
fn offline_an_evicted_read_fails_and_nothing_else() {
    let Some(world) = World::mounting() else {
        return;
    };
    let reference = world.put(&sample());
    world.mount(&reference, &[]).end(&world);
    world.evict();
    let mount = world.mount(&reference, &["--offline"]);
    assert_eq!(mount.names("old"), ["b"]);
    let err = std::fs::read(mount.path("etc/release")).unwrap_err();
    assert_eq!(err.raw_os_error(), Some(libc::EIO), "{err}");
}
