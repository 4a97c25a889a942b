//! Indexes that were found and turn out to be of no use: said, and the layer is streamed as if it
//! had none.

use imgfs_core::store::{DEFAULT_LIMIT, Slot, Store};
use imgfs_formats::oci::Digest;
use serde_json::{Value, json};

use super::*;
use crate::support::estargz::{self, Form};
use crate::support::image::OCI_TAR_GZIP;

/// An image of one eStargz layer whose table of contents says what `change` makes of it.
fn estargz_image(files: &[(&str, &[u8])], change: impl FnOnce(&mut Value)) -> Image {
    let written = estargz::write(files, Form::default(), change);
    let layer = Layer {
        media_type: OCI_TAR_GZIP,
        blob: written.blob,
        tar: written.tar,
    };
    let mut image = host_image(vec![layer]);
    let mut manifest: Value = serde_json::from_slice(&image.manifest).unwrap();
    manifest["layers"][0]["annotations"] = json!({
        "containerd.io/snapshot/stargz/toc.digest": Digest::sha256(&written.json).to_string(),
    });
    image.manifest = manifest.to_string().into();
    image
}

/// Where the first layer's index comes from.
fn index(world: &World, mount: &Mount) -> String {
    let status = world.status(mount);
    status["layers"][0]["index"].as_str().unwrap().to_owned()
}

/// What no tree can be made of used to be kept in the cache and to fail each mount from then on.
#[test]
fn entries_that_make_no_tree_are_no_reason_to_fail() {
    let Some(world) = World::mounting() else {
        return;
    };
    let files: [(&str, &[u8]); 2] = [("a", b"file"), ("b", b"another")];
    for entry in [
        json!({"name": "d/.wh.", "type": "reg"}),
        json!({"name": "a/below", "type": "reg"}),
    ] {
        let image = estargz_image(&files, |table| {
            table["entries"].as_array_mut().unwrap().push(entry);
        });
        let reference = world.put(&image);
        let (mount, said) = world.mount_saying(&reference, &[]);
        assert!(said.contains("so all of the layer is fetched"), "{said}");
        assert_eq!(mount.text("a"), "file");
        assert_eq!(index(&world, &mount), "first-contact");
        mount.end(&world);
        let again = world.mount(&reference, &["--offline"]);
        assert_eq!(index(&world, &again), "cache");
        again.end(&world);
        let cat = world.imgfs(&["cat", &reference, "/b"]);
        assert_eq!(cat.ok(), "another");
    }
}

/// One file's bytes are claimed to be another's: reading says so, the next mount does without.
#[test]
fn a_table_that_lies_about_bytes_is_used_once() {
    let Some(world) = World::mounting() else {
        return;
    };
    let files: [(&str, &[u8]); 2] = [("one", b"the first"), ("two", b"the other")];
    let image = estargz_image(&files, |table| {
        let entries = table["entries"].as_array_mut().unwrap();
        let (one, two) = (entries[0].clone(), entries[1].clone());
        entries[0]["digest"] = two["digest"].clone();
        entries[0]["chunkDigest"] = two["chunkDigest"].clone();
        entries[1]["digest"] = one["digest"].clone();
        entries[1]["chunkDigest"] = one["chunkDigest"].clone();
    });
    let reference = world.put(&image);
    let mount = world.mount(&reference, &["--read-timeout=1s"]);
    assert_eq!(index(&world, &mount), "eStargz");
    let err = std::fs::read(mount.path("one")).unwrap_err();
    assert_eq!(err.raw_os_error(), Some(libc::EIO));
    mount.end(&world);
    let (mount, said) = world.mount_saying(&reference, &[]);
    assert!(said.contains("is not used any more"), "{said}");
    assert_eq!(index(&world, &mount), "first-contact");
    assert_eq!(
        (mount.text("one"), mount.text("two")),
        ("the first".into(), "the other".into())
    );
}

/// Once refused, an index came back with the next `imgfs index pull`.
#[test]
fn a_refused_index_stays_refused() {
    let Some(world) = World::mounting() else {
        return;
    };
    let image = host_image(vec![gzip(&[file("file", "content")])]);
    let reference = world.put(&image);
    world.imgfs(&["index", "push", &reference]).ok();
    let other = World::mounting().unwrap();
    let pulled = other.imgfs(&["index", "pull", "--json", &reference]).ok();
    let pulled: Value = serde_json::from_str(&pulled).unwrap();
    let digest: Digest = pulled[0]["index"].as_str().unwrap().parse().unwrap();
    let slot = Slot::found(Digest::sha256(&image.layers[0].blob), &digest);
    let store = Store::open(&other.path("cache"), DEFAULT_LIMIT).unwrap();
    store.refuse(&slot, "it lied");
    for _ in 0..2 {
        other.imgfs(&["index", "pull", &reference]).ok();
        assert!(store.load_index(&slot, false).unwrap().is_none());
        let (mount, said) = other.mount_saying(&reference, &["--require=claimed"]);
        assert_eq!(mount.text("file"), "content");
        if index(&other, &mount) == "first-contact" {
            assert!(said.contains("is not used any more (it lied)"), "{said}");
        }
        mount.end(&other);
    }
}

/// With less trust than the user requires nothing is used, and nothing but the lookup is fetched of
/// it.
#[test]
fn what_is_only_claimed_is_not_fetched_for_who_requires_more() {
    let Some(world) = World::mounting() else {
        return;
    };
    let image = host_image(vec![gzip(&[file("file", noise(5, 2_000_000))])]);
    let reference = world.put(&image);
    world.imgfs(&["index", "push", &reference]).ok();
    let other = World::mounting().unwrap();
    let repository = reference.rsplit_once(':').unwrap().0.to_owned();
    world.registry.forget_requests();
    let named = format!("--index-repo={repository}");
    let (mount, said) = other.mount_saying(&reference, &[&named]);
    assert_eq!(index(&other, &mount), "first-contact");
    assert!(
        said.contains("only claimed: use it with --require=claimed"),
        "{said}"
    );
    let fetched = world.registry.bytes();
    let size = layer_bytes(&image) + document_bytes(&image);
    assert!(
        (size..size + 8192).contains(&fetched),
        "{fetched} of {size}"
    );
}
