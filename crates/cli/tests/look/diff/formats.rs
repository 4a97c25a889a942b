//! Layers whose indexes came from elsewhere, and have no digests of files or others than ours.

use imgfs_formats::oci::Digest;
use serde_json::{Value, json};

use super::*;
use crate::support::estargz::{Form, write};
use crate::support::image::OCI_TAR_GZIP;
use crate::support::ztoc::{SOCI_SPAN, Ztoc, soci_v2};

const MIB: usize = 1 << 20;

type Files<'a> = &'a [(&'a str, &'a [u8])];

/// Puts an image of one eStargz layer, with chunks of this size, into the registry.
fn put_estargz(world: &World, tag: &str, files: Files<'_>, chunk: usize) -> String {
    let form = Form {
        chunk,
        ..Form::default()
    };
    let written = write(files, form, |_| {});
    let mut image = host_image(vec![Layer {
        media_type: OCI_TAR_GZIP,
        blob: written.blob,
        tar: written.tar,
    }]);
    let mut manifest: Value = serde_json::from_slice(&image.manifest).unwrap();
    manifest["layers"][0]["annotations"] = json!({
        "containerd.io/snapshot/stargz/toc.digest": Digest::sha256(&written.json).to_string(),
    });
    image.manifest = manifest.to_string().into();
    world.registry.put_image("r", tag, &image);
    world.registry.reference(&format!("r:{tag}"))
}

/// The same files in a plain layer, with the attributes that the other writer gives them.
fn put_plain(world: &World, tag: &str, files: Files<'_>) -> String {
    let members: Vec<_> = (files.iter())
        .map(|(name, content)| file(name, content).mode(0o755).mtime(1_700_000_000, 0))
        .collect();
    world
        .registry
        .put_image("r", tag, &host_image(vec![gzip(&members)]));
    world.registry.reference(&format!("r:{tag}"))
}

#[test]
fn chunks_of_two_tables_of_contents_are_compared_without_their_content() {
    let world = World::new();
    let (large, small) = (noise(1, 3 * MIB), noise(2, MIB));
    let old = put_estargz(
        &world,
        "old",
        &[("large", &large), ("a", b"1"), ("same", &small)],
        MIB,
    );
    let mut other = large.clone();
    other[2 * MIB + 5] ^= 1;
    let new = put_estargz(
        &world,
        "new",
        &[("same", &small), ("a", b"2"), ("large", &other)],
        MIB,
    );
    let images = [old, new];
    world.registry.forget_requests();
    assert_eq!(diff(&world, &[], &images), "M /a\nM /large\n");
    let fetched = world.registry.bytes();
    assert!(fetched < 300 << 10, "{fetched}");
}

#[test]
fn chunks_of_other_sizes_are_read() {
    let world = World::new();
    let (large, rest) = (noise(1, MIB), noise(2, 8 * MIB));
    let mut other = large.clone();
    other[MIB - 1] ^= 1;
    let old = [("equal", &large[..]), ("large", &large), ("rest", &rest)];
    let new = [("equal", &large[..]), ("large", &other), ("other", &rest)];
    let images = [
        put_estargz(&world, "old", &old, 300_000),
        put_estargz(&world, "new", &new, 400_000),
    ];
    world.registry.forget_requests();
    let arguments = ["diff", &images[0], &images[1]];
    let found = world
        .imgfs(&arguments)
        .ok_saying(&["2 files had to be read"]);
    assert_eq!(found, "M /large\nA /other\nD /rest\n");
    let fetched = world.registry.bytes();
    assert!(
        fetched < 5 << 20,
        "{fetched} bytes for two files of 1 MiB in two layers of 10 MiB"
    );
}

#[test]
fn a_table_of_contents_and_an_index_of_our_own() {
    let world = World::new();
    let (large, rest) = (noise(1, MIB), noise(2, 4 * MIB));
    let mut other = large.clone();
    other[7] ^= 1;
    let old = [("equal", &large[..]), ("large", &large), ("rest", &rest)];
    let new = [("equal", &large[..]), ("large", &other), ("other", &rest)];
    let expected = "M /large\nA /other\nD /rest\n";
    let estargz = [
        put_estargz(&world, "e-old", &old, MIB),
        put_estargz(&world, "e-new", &new, MIB),
    ];
    let plain = [
        put_plain(&world, "p-old", &old),
        put_plain(&world, "p-new", &new),
    ];
    assert_eq!(diff(&world, &[], &plain), expected);
    // The plain layers' bytes are here: they are hashed as the tables do it.
    for images in [[&estargz[0], &plain[1]], [&plain[0], &estargz[1]]] {
        world.registry.forget_requests();
        let images = images.map(String::clone);
        assert_eq!(diff(&world, &[], &images), expected);
        assert!(
            world.registry.bytes() < 300 << 10,
            "{}",
            world.registry.bytes()
        );
    }
    // Nothing is here but the plain layers' indexes: what is read of either is checked against the
    // other.
    world.evict();
    world.registry.forget_requests();
    assert_eq!(
        diff(&world, &[], &[estargz[0].clone(), plain[1].clone()]),
        expected
    );
    let fetched = world.registry.bytes();
    assert!(
        (2 << 20..4 << 20).contains(&fetched),
        "{fetched} bytes for two files of 1 MiB of one layer"
    );
}

#[test]
fn where_most_would_be_read_the_layer_is_streamed() {
    let world = World::new();
    let (one, two) = (noise(1, MIB), noise(2, MIB));
    let files = [("one", &one[..]), ("two", &two)];
    let images = [
        put_estargz(&world, "old", &files, 300_000),
        put_estargz(&world, "new", &files, 400_000),
    ];
    world.registry.forget_requests();
    let arguments = ["diff", &images[0], &images[1]];
    assert_eq!(
        world
            .imgfs(&arguments)
            .ok_saying(&["so all of it was fetched"]),
        ""
    );
    let fetched = world.registry.bytes();
    assert!(fetched < 5 << 20, "{fetched} bytes for two layers of 2 MiB");
    world.registry.forget_requests();
    let again = world.imgfs(&arguments);
    assert_eq!(again.stderr, "");
    assert_eq!(again.ok(), "");
    assert!(
        world.registry.bytes() < 16 << 10,
        "{:?}",
        world.registry.log()
    );
}

#[test]
fn soci_indexes_have_no_digests_of_files() {
    let world = World::new();
    let (large, rest) = (noise(1, MIB), noise(2, 30 * MIB));
    let mut other = large.clone();
    other[9] ^= 1;
    let layer = |large: &[u8], extra: &str| {
        gzip(&[
            file("rest", &rest),
            hard_link(extra, "rest"),
            file("large", large),
            file("equal", "e"),
        ])
    };
    let images = [("old", layer(&large, "x")), ("new", layer(&other, "y"))].map(|(tag, layer)| {
        let ztoc = Ztoc::of_blob(&layer.blob, SOCI_SPAN).encode();
        let made = soci_v2(&host_image(vec![layer]), &[Some(ztoc)], &[]);
        world.registry.put_image("r", tag, &made.image);
        for blob in &made.blobs {
            world.registry.put_blob(blob.clone());
        }
        let digest = Digest::sha256(&made.index).to_string();
        let media_type = crate::support::image::OCI_MANIFEST;
        world
            .registry
            .put_manifest("r", &digest, media_type, made.index.clone());
        world.registry.reference(&format!("r:{tag}"))
    });
    world.registry.forget_requests();
    let arguments = ["diff", &images[0], &images[1], "/large"];
    let found = world
        .imgfs(&arguments)
        .ok_saying(&["1 file had to be read"]);
    assert_eq!(found, "M /large\n");
    let fetched = world.registry.bytes();
    assert!(
        fetched < 20 << 20,
        "{fetched} bytes for a few spans of 4 MiB"
    );
    let found = world
        .imgfs(&["diff", &images[0], &images[1]])
        .ok_saying(&["so all of it was fetched"]);
    assert_eq!(found, "M /large\nD /x\nA /y\n");
}

#[test]
fn published_indexes_have_digests_of_files() {
    let world = World::new();
    let layer = |seed| {
        gzip(&[
            file("large", noise(seed, 2 * MIB)),
            file("same", noise(9, MIB)),
        ])
    };
    let images = put_both(&world, vec![layer(1)], vec![layer(2)]);
    for image in &images {
        world.imgfs(&["index", "push", "-q", image]).ok();
    }
    std::fs::remove_dir_all(world.cache()).unwrap();
    world.registry.forget_requests();
    assert_eq!(diff(&world, &["--require=claimed"], &images), "M /large\n");
    assert!(
        world.registry.bytes() < 64 << 10,
        "{:?}",
        world.registry.log()
    );
}
