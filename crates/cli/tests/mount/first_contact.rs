//! The first mount of an image: every byte once.

use super::*;
use crate::support::image::{OCI_INDEX, image_index};

/// The ranges, put in order, are the blob from first to last byte, without a gap or a byte twice.
#[track_caller]
fn covers_once(mut ranges: Vec<(u64, u64)>, size: usize) {
    ranges.sort_unstable();
    let mut next = 0;
    for (first, last) in &ranges {
        assert_eq!(*first, next, "{ranges:?}");
        next = last + 1;
    }
    assert_eq!(next, size as u64, "{ranges:?}");
}

#[test]
fn a_list_of_platforms_is_fetched_for_this_machine_each_byte_once() {
    let Some(world) = World::mounting() else {
        return;
    };
    let (here, other) = (
        sample(),
        image("linux/s390x", vec![gzip(&[file("other", "s390x")])]),
    );
    world.put(&other);
    world.put(&here);
    let index = image_index(&[("linux/s390x", &other), (&host(), &here)]);
    world
        .registry
        .put_manifest("r", "list", OCI_INDEX, index.clone());
    let reference = world.registry.reference("r:list");
    let mount = world.mount(&reference, &[]);
    let expected = index.len() as u64 + document_bytes(&here) + layer_bytes(&here);
    assert_eq!(world.registry.bytes(), expected);
    assert_eq!(mount.text("etc/release"), "top\n");
    mount.read("noise");
    assert_eq!(world.registry.bytes(), expected, "reading needs no more");
    let mount = world.mount(&reference, &["--platform", "linux/s390x"]);
    assert_eq!(mount.text("other"), "s390x");
}

#[test]
fn a_large_blob_comes_in_several_ranges_each_byte_once() {
    let Some(world) = World::mounting() else {
        return;
    };
    let content = noise(7, 11 << 20);
    let image = host_image(vec![gzip(&[file("large", &content)])]);
    let mount = world.mount(&world.put(&image), &[]);
    let expected = layer_bytes(&image) + document_bytes(&image);
    assert_eq!(world.registry.bytes(), expected);
    assert!(mount.read("large") == content);
    let blobs = ranges(&world);
    assert!(blobs.len() > 2, "{blobs:?}");
    // The config is a blob too.
    let layer = blobs
        .into_iter()
        .filter(|(first, last)| *first > 0 || *last > 10_000);
    covers_once(layer.collect(), image.layers[0].blob.len());
}

#[test]
fn a_server_without_ranges_is_streamed() {
    let Some(world) = World::mounting() else {
        return;
    };
    let content = noise(8, 9 << 20);
    let image = host_image(vec![
        gzip(&[file("large", &content)]),
        plain(&[file("small", "s")]),
    ]);
    world.registry.fault_always(On::Blob, Fault::IgnoreRange);
    let mount = world.mount(&world.put(&image), &[]);
    assert!(mount.read("large") == content);
    assert_eq!(mount.text("small"), "s");
    let expected = layer_bytes(&image) + document_bytes(&image);
    // The first range's answer shows that there are none; the rest is then streamed from the start.
    let sent = world.registry.bytes();
    assert!(sent <= 2 * expected, "{sent} for {expected}");
}

#[test]
fn a_layer_that_occurs_twice_is_fetched_once() {
    let Some(world) = World::mounting() else {
        return;
    };
    let repeated = gzip(&[file("twice", noise(3, 200_000))]);
    let between = gzip(&[whiteout("twice"), file("between", "b")]);
    let image = host_image(vec![repeated.clone(), between, repeated]);
    let mount = world.mount(&world.put(&image), &[]);
    assert_eq!(mount.read("twice").len(), 200_000);
    let once: usize = image.layers[..2].iter().map(|layer| layer.blob.len()).sum();
    assert_eq!(world.registry.bytes(), once as u64 + document_bytes(&image));
    assert_eq!(world.status(&mount)["layers"].as_array().unwrap().len(), 3);
}

#[test]
fn passing_failures_cost_no_byte_twice() {
    let Some(world) = World::mounting() else {
        return;
    };
    let image = sample();
    world.registry.fault(On::Manifest, Fault::Status(503));
    world.registry.fault(On::Blob, Fault::Drop);
    world.registry.fault(On::Blob, Fault::Truncate(100));
    let mount = world.mount(&world.put(&image), &[]);
    assert_eq!(
        world.registry.bytes(),
        layer_bytes(&image) + document_bytes(&image)
    );
    assert!(mount.read("noise") == noise(1, 3_000_000));
}

#[test]
fn two_first_contacts_at_once_share_the_work() {
    let Some(world) = World::mounting() else {
        return;
    };
    let image = sample();
    let reference = world.put(&image);
    let (one, other) = std::thread::scope(|scope| {
        let one = scope.spawn(|| world.mount(&reference, &[]));
        let other = scope.spawn(|| world.mount(&reference, &[]));
        (one.join().unwrap(), other.join().unwrap())
    });
    assert!(one.read("noise") == other.read("noise"));
    let documents = 2 * document_bytes(&image);
    let sent = world.registry.bytes();
    assert!(sent <= layer_bytes(&image) + documents, "{sent}");
}

#[test]
fn an_image_without_layers_is_an_empty_directory() {
    let Some(world) = World::mounting() else {
        return;
    };
    let mount = world.mount(&world.put(&host_image(Vec::new())), &[]);
    assert_eq!(mount.names(""), [""; 0]);
}

#[test]
fn other_processes_can_mount_on_the_same_cache_at_once() {
    let Some(world) = World::mounting() else {
        return;
    };
    let shared = gzip(&[file("shared", noise(4, 500_000))]);
    let one = host_image(vec![shared.clone(), plain(&[file("one", "1")])]);
    let other = host_image(vec![shared.clone(), plain(&[file("other", "2")])]);
    world.registry.put_image("r", "one", &one);
    world.registry.put_image("r", "other", &other);
    let first = world.mount(&world.registry.reference("r:one"), &[]);
    let before = world.registry.bytes();
    let second = world.mount(&world.registry.reference("r:other"), &[]);
    let fetched = world.registry.bytes() - before;
    assert_eq!(
        fetched,
        document_bytes(&other) + other.layers[1].blob.len() as u64
    );
    assert!(first.read("shared") == second.read("shared"));
    assert_eq!(
        (first.text("one"), second.text("other")),
        ("1".to_owned(), "2".to_owned())
    );
    first.end(&world);
    assert_eq!(second.read("shared").len(), 500_000);
}
