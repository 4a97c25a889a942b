//! `--prove`: a layer that is read by an index that somebody published is proven in the background,
//! or not served.

use std::fs::File;
use std::os::unix::fs::FileExt;

use imgfs_core::store::{DEFAULT_LIMIT, Finding, Slot, Store, Trust};
use imgfs_formats::layer::{EntryKind, LayerIndex, TocBuilder};
use imgfs_formats::oci::Digest;
use rustix::process::Signal;

use super::*;
use crate::process::wait_for;
use crate::world::kill;

const OPTIONS: [&str; 2] = ["--require=claimed", "--prove"];
/// Of each file.
const SIZE: usize = 3_000_000;

/// Two files of one size in one layer.
fn layer() -> Layer {
    gzip(&[
        file("one", noise(1, SIZE)),
        file("other", noise(2, SIZE)),
        file("small", "s"),
    ])
}

/// Puts an image of this layer into the registry, and the index into the cache, as if it had been
/// found beside the image by an earlier mount. Gives the image's reference and the index's slot.
fn found(world: &World, layer: &Layer, index: &LayerIndex) -> (String, Slot) {
    let reference = world.put(&host_image(vec![layer.clone()]));
    let store = Store::open(&world.path("cache"), DEFAULT_LIMIT).unwrap();
    let slot = Slot::found(index.blob, &Digest::sha256(b"found"));
    let finding = Finding {
        origin: imgfs_formats::trust::IndexKind::Published,
        trust: Trust::Claimed,
        place: "here".to_owned(),
        key: None,
    };
    store.keep_found(&slot, index, &finding).unwrap();
    (reference, slot)
}

/// The same index, but for one lie: the first two files have each other's bytes.
fn swapped(index: &LayerIndex) -> LayerIndex {
    let mut entries: Vec<_> = index.toc.iter().collect();
    let [one, other] = [0, 1].map(|number| entries[number].kind);
    let place = |kind: EntryKind<'_>| match kind {
        EntryKind::File { offset, size } => (offset, size),
        _ => panic!("a file"),
    };
    assert_eq!(place(one).1, place(other).1);
    (entries[0].kind, entries[1].kind) = (other, one);
    let mut builder = TocBuilder::default();
    for entry in &entries {
        builder.push(entry).unwrap();
    }
    LayerIndex {
        toc: builder.finish(index.spans.layer_size()).unwrap(),
        ..index.clone()
    }
}

fn layer_status(world: &World, mount: &Mount) -> serde_json::Value {
    world.status(mount)["layers"][0].clone()
}

#[test]
fn a_layer_is_proven_and_every_byte_fetched_once() {
    let Some(world) = World::mounting() else {
        return;
    };
    let layer = layer();
    let index = LayerIndex::of_blob(&layer.blob).unwrap();
    let (reference, _) = found(&world, &layer, &index);
    let mount = world.mount(&reference, &OPTIONS);
    let mut bytes = [0; 1000];
    let other = File::open(mount.path("other")).unwrap();
    other.read_exact_at(&mut bytes, 1_234_567).unwrap();
    assert_eq!(bytes, noise(2, SIZE)[1_234_567..1_235_567]);
    wait_for("the proof", || {
        let status = layer_status(&world, &mount);
        assert_eq!(status["problem"], serde_json::Value::Null);
        status["trust"] == "proven"
    });
    let asked: u64 = (ranges(&world).iter())
        .map(|(first, last)| last + 1 - first)
        .sum();
    assert_eq!(asked, layer.blob.len() as u64);
    assert_eq!(layer_status(&world, &mount)["diff_id"], "ok");
    assert!(mount.read("one") == noise(1, SIZE));
    drop(other);
    mount.end(&world);
    // The index is the layer's own now: no trust is needed, and no network.
    world.registry.away();
    let mount = world.mount(&reference, &["--require=proven"]);
    assert!(mount.read("other") == noise(2, SIZE));
    assert_eq!(layer_status(&world, &mount)["index"], "cache");
    mount.end(&world);
}

/// Until the proof is done the lie is believed; then it is not even in the kernel's cache any more.
#[test]
fn what_the_kernel_keeps_of_a_lie_is_gone() {
    let Some(world) = World::mounting() else {
        return;
    };
    let layer = layer();
    let lie = swapped(&LayerIndex::of_blob(&layer.blob).unwrap());
    let (reference, slot) = found(&world, &layer, &lie);
    let mount = world.mount(&reference, &["--require=claimed"]);
    assert!(mount.read("one") == noise(2, SIZE), "it lies");
    mount.end(&world);
    // As long as nobody gives the rest the lie goes on: the cache has its bytes, and then the
    // kernel.
    world.registry.away();
    let mount = world.mount(
        &reference,
        &["--require=claimed", "--prove", "--pull=missing"],
    );
    let one = File::open(mount.path("one")).unwrap();
    let mut bytes = [0; 4096];
    one.read_exact_at(&mut bytes, 0).unwrap();
    assert_eq!(bytes, noise(2, SIZE)[..4096]);
    world.registry.back();
    // Nobody else has a problem by now: `one` is the first file in the layer.
    let mut status = serde_json::Value::Null;
    wait_for("the contradiction", || {
        status = layer_status(&world, &mount);
        let problem = status["problem"].as_str().unwrap_or_default();
        problem.contains("kind or place of \"one\" is")
    });
    assert_eq!(status["trust"], "claimed");
    wait_for("EIO", || {
        let read = one.read_exact_at(&mut bytes, 0);
        read.is_err_and(|err| err.raw_os_error() == Some(libc::EIO))
    });
    for name in ["one", "other", "small"] {
        let read = std::fs::read(mount.path(name)).unwrap_err();
        assert_eq!(read.raw_os_error(), Some(libc::EIO), "{name}");
    }
    let log = world.log(&mount);
    assert!(
        log.contains("is quarantined") && log.contains("\"one\""),
        "{log}"
    );
    drop(one);
    mount.end(&world);
    let store = Store::open(&world.path("cache"), DEFAULT_LIMIT).unwrap();
    assert!(store.refusal(&slot).unwrap().is_some());
    // The next mount reads by the layer's own index, and removes what was fetched by the other one.
    let mount = world.mount(&reference, &OPTIONS);
    assert!(mount.read("one") == noise(1, SIZE));
    let data = world.cache().join(format!("layers/sha256/{slot}/data"));
    wait_for("nothing of it to stay", || {
        data.metadata().unwrap().len() == 0
    });
    mount.end(&world);
}

#[test]
fn a_proof_survives_a_kill() {
    let Some(world) = World::mounting() else {
        return;
    };
    let layer = gzip(&[file("large", noise(3, 20_000_000))]);
    let index = LayerIndex::of_blob(&layer.blob).unwrap();
    let (reference, slot) = found(&world, &layer, &index);
    let size = layer.blob.len() as u64;
    world.registry.fault_always(On::Blob, Fault::Drip(4000));
    let mount = world.mount(&reference, &OPTIONS);
    let blob = world.cache().join(format!("layers/sha256/{slot}/blob"));
    wait_for("some of the blob", || {
        blob.metadata().is_ok_and(|blob| blob.len() > 4 << 20)
    });
    kill(mount.pid, Signal::KILL);
    wait_for("the end", || !world::is_running(mount.pid));
    let map = std::fs::read(blob.with_extension("map")).unwrap_or_default();
    let kept: u64 = (map.chunks_exact(16))
        .map(|record| {
            let at = |place: usize| {
                let bytes = record[place..place + 8].try_into().unwrap();
                u64::from_le_bytes(bytes)
            };
            at(8) - at(0)
        })
        .sum();
    assert!(kept > 4 << 20 && kept <= size, "{kept}");
    drop(mount);
    world.registry.clear_faults();
    world.registry.forget_requests();
    let mount = world.mount(&reference, &OPTIONS);
    wait_for("the proof", || {
        layer_status(&world, &mount)["trust"] == "proven"
    });
    let asked: u64 = (ranges(&world).iter())
        .map(|(first, last)| last + 1 - first)
        .sum();
    assert_eq!(asked, size - kept);
    assert!(mount.read("large") == noise(3, 20_000_000));
    mount.end(&world);
}
