//! `imgfs cache`: what it takes, making room, checking every byte.

use std::collections::BTreeMap;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::*;
use crate::listing::{dir, file, noise};
use crate::process::{Outcome, run, wait_for};
use crate::support::image::{OCI_INDEX, image_index, zstd_layer};
use crate::world::IMGFS;

/// The files below `dir` whose path ends so.
fn files(dir: &Path, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut pending = vec![dir.to_owned()];
    while let Some(dir) = pending.pop() {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                pending.push(path);
            } else if path.to_str().unwrap().ends_with(ending) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// Flips a bit of a file.
fn flip(path: &Path, position: u64) {
    let file = std::fs::File::options().read(true).write(true).open(path);
    let file = file.unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, position).unwrap();
    file.write_all_at(&[byte[0] ^ 0x10], position).unwrap();
}

/// Two layers of several spans each, and a small one.
fn layered() -> Image {
    host_image(vec![
        gzip(&[dir("a"), file("a/low", noise(1, 5_000_000))]),
        zstd_layer(tar_of(&[dir("b"), file("b/mid", noise(2, 4_000_000))])),
        gzip(&[file("top", "top\n")]),
    ])
}

/// A world with that image pulled.
fn pulled() -> (World, String, Image) {
    let world = World::new();
    let image = layered();
    let reference = world.put(&image);
    world.imgfs(&["pull", "-q", &reference]).ok();
    world.registry.forget_requests();
    (world, reference, image)
}

#[track_caller]
fn reads_right_offline(world: &World, reference: &str) {
    world.registry.forget_requests();
    let cat = |path: &str| {
        world
            .imgfs(&["cat", "--offline", reference, path])
            .ok_bytes()
    };
    assert!(cat("/a/low") == noise(1, 5_000_000));
    assert!(cat("/b/mid") == noise(2, 4_000_000));
    assert_eq!(cat("/top"), b"top\n");
    assert_eq!(world.registry.log(), [""; 0]);
}

/// The report of a check that ended with this code.
#[track_caller]
fn verify(world: &World, arguments: &[&str], code: i32) -> Value {
    let mut all = vec!["cache", "verify", "--json"];
    all.extend(arguments);
    let outcome = world.imgfs(&all);
    outcome.fails(code, &[]);
    schema::check("cache-verify", &String::from_utf8(outcome.stdout).unwrap())
}

#[track_caller]
fn is_all_right(world: &World) {
    world.registry.forget_requests();
    let report = verify(world, &[], 0);
    assert_eq!(report["damage"], serde_json::json!([]));
    assert_eq!(world.registry.log(), [""; 0], "nothing is asked for");
}

/// How many of each kind were damaged, with what became of them.
fn damage(report: &Value) -> BTreeMap<(String, String), usize> {
    let mut found = BTreeMap::new();
    for one in report["damage"].as_array().unwrap() {
        let text = |name: &str| one[name].as_str().unwrap().to_owned();
        *found.entry((text("kind"), text("outcome"))).or_default() += 1;
    }
    found
}

fn counts(expected: &[(&str, &str, usize)]) -> BTreeMap<(String, String), usize> {
    (expected.iter())
        .map(|(kind, outcome, count)| (((*kind).to_owned(), (*outcome).to_owned()), *count))
        .collect()
}

#[test]
fn a_right_cache_is_all_right() {
    let (world, _, _) = pulled();
    let report = verify(&world, &[], 0);
    assert_eq!(report["layers"]["count"], 3);
    let bytes = report["layers"]["bytes"].as_u64().unwrap();
    assert!(bytes > 9_000_000, "every byte is read: {bytes}");
    assert_eq!(report["documents"]["count"], 2);
    assert_eq!(
        (&report["indexes"]["count"], &report["names"]["count"]),
        (&3.into(), &1.into())
    );
    assert_eq!(world.registry.log(), [""; 0], "nothing is asked for");
    let said = world.imgfs(&["cache", "verify"]).ok();
    assert!(said.ends_with("1 name: all right\n"), "{said}");
    assert_eq!(world.imgfs(&["cache", "verify", "-q"]).ok(), "");
}

#[test]
fn bad_spans_are_fetched_anew_and_nothing_else() {
    let (world, reference, _) = pulled();
    let data = files(&world.cache(), "/data");
    let before: Vec<Vec<u8>> = data
        .iter()
        .map(|path| std::fs::read(path).unwrap())
        .collect();
    let sizes: Vec<u64> = before.iter().map(|bytes| bytes.len() as u64).collect();
    for (path, size) in data.iter().zip(&sizes) {
        flip(path, size * 2 / 3);
    }
    let report = verify(&world, &[], 0);
    assert_eq!(damage(&report), counts(&[("data", "repaired", 3)]));
    for one in report["damage"].as_array().unwrap() {
        assert_eq!(one["spans"], 1, "{one}");
    }
    let fetched = world.registry.bytes();
    assert_eq!(report["bytes_fetched"], fetched);
    // A span of each gzip layer, and the zstd frame, which decodes from its start only.
    assert!((1_000_000..6_000_000).contains(&fetched), "{fetched}");
    let no_documents = world
        .registry
        .log()
        .iter()
        .all(|line| line.contains("/blobs/"));
    assert!(no_documents, "{:?}", world.registry.log());
    for (path, before) in data.iter().zip(&before) {
        assert!(
            std::fs::read(path).unwrap() == *before,
            "{}",
            path.display()
        );
    }
    is_all_right(&world);
    reads_right_offline(&world, &reference);
}

#[test]
fn every_kind_of_damage_is_found_and_repaired() {
    let (world, reference, image) = pulled();
    for (path, position) in [
        (&files(&world.cache().join("documents"), "")[0], 5),
        (&files(&world.cache().join("documents"), "")[1], 60),
        (&files(&world.cache().join("indexes"), "")[0], 40),
        // In the quotes: the reference itself stays.
        (&files(&world.cache().join("refs"), ".json")[0], 0),
        (&files(&world.cache(), "/data")[1], 700_000),
    ] {
        flip(path, position);
    }
    let report = verify(&world, &[], 0);
    let expected = [
        ("data", "repaired", 1),
        ("document", "repaired", 1),
        ("index", "repaired", 1),
        ("name", "repaired", 1),
    ];
    // Asking for the name brings the manifest, too.
    assert_eq!(damage(&report), counts(&expected), "{report}");
    assert_eq!(report["bytes_fetched"], world.registry.bytes());
    assert!(world.registry.bytes() > image.layers[2].blob.len() as u64);
    is_all_right(&world);
    reads_right_offline(&world, &reference);
}

#[test]
fn damage_anywhere_is_found() {
    let (world, reference, _) = pulled();
    // Where it falls is decided by the number of the round: all over the files in the end.
    for round in 0_u64..6 {
        let mut flipped = 0;
        for dir in ["documents", "indexes", "layers"] {
            let paths = files(&world.cache().join(dir), "");
            let paths: Vec<_> = (paths.iter())
                .filter(|path| dir != "layers" || path.ends_with("data"))
                .collect();
            let path = paths[usize::try_from(round).unwrap() % paths.len()];
            let size = path.metadata().unwrap().len();
            flip(path, (size - 1) * round / 5);
            flipped += 1;
        }
        let report = verify(&world, &[], 0);
        let found = report["damage"].as_array().unwrap();
        // Streaming a layer for its index makes its data anew, so bad data of the same layer is not
        // seen.
        assert!(
            (flipped - 1..=flipped).contains(&found.len()),
            "{round}: {report}"
        );
        is_all_right(&world);
    }
    reads_right_offline(&world, &reference);
}

#[test]
fn offline_damage_is_dropped_and_fetched_when_it_is_needed() {
    let (world, reference, _) = pulled();
    let data = files(&world.cache(), "/data");
    for path in &data {
        flip(path, path.metadata().unwrap().len() / 2);
    }
    let report = verify(&world, &["--offline"], 1);
    assert_eq!(damage(&report), counts(&[("data", "dropped", 3)]));
    assert_eq!(world.registry.log(), [""; 0]);
    let said = world.imgfs(&["cache", "verify", "--offline"]).ok();
    assert!(
        said.contains("all right"),
        "it is gone, so all that is left is right\n{said}"
    );
    let low = world.imgfs(&["cat", &reference, "/a/low"]).ok_bytes();
    assert!(low == noise(1, 5_000_000));
    assert!(
        (1..2_500_000).contains(&world.registry.bytes()),
        "{}",
        world.registry.bytes()
    );
}

#[test]
fn damage_that_cannot_be_repaired_is_said() {
    let (world, _, _) = pulled();
    flip(&files(&world.cache(), "/data")[0], 100);
    flip(&files(&world.cache().join("indexes"), "")[1], 300);
    world.registry.fault_always(
        crate::support::registry::On::Blob,
        crate::support::registry::Fault::Status(404),
    );
    let outcome = world.imgfs(&["cache", "verify"]);
    outcome.fails(1, &[]);
    let said = String::from_utf8(outcome.stdout).unwrap();
    assert!(said.contains("2 damaged, 0 repaired, 2 dropped"), "{said}");
    assert!(said.contains("has no blob"), "{said}");
    world.registry.clear_faults();
    is_all_right(&world);
}

#[test]
fn one_image_is_checked_alone() {
    let (world, reference, _) = pulled();
    let other = host_image(vec![gzip(&[file("other", noise(9, 2_000_000))])]);
    world.registry.put_image("r", "other", &other);
    let other = world.registry.reference("r:other");
    world.imgfs(&["pull", "-q", &other]).ok();
    for path in files(&world.cache(), "/data") {
        flip(&path, 1000);
    }
    let report = verify(&world, &[&other], 0);
    assert_eq!(damage(&report), counts(&[("data", "repaired", 1)]));
    assert_eq!(report["layers"]["count"], 1);
    assert_eq!(report["documents"]["count"], 2);
    let report = verify(&world, &[&reference], 0);
    assert_eq!(damage(&report), counts(&[("data", "repaired", 3)]));
    is_all_right(&world);
    world.imgfs(&["cache", "verify", "absent:1"]).fails(
        1,
        &[
            "docker.io/library/absent:1 is not in the cache",
            "imgfs pull",
        ],
    );
}

/// The last use of each span is what eviction goes by: a check is none.
#[test]
fn checking_is_no_use() {
    let (world, _, _) = pulled();
    let marks = files(&world.cache(), "/present");
    for path in &marks {
        let count = std::fs::read(path).unwrap().len() / 4;
        std::fs::write(path, 7_u32.to_le_bytes().repeat(count)).unwrap();
    }
    is_all_right(&world);
    for path in &marks {
        let words = std::fs::read(path).unwrap();
        assert!(words.chunks(4).all(|word| word == 7_u32.to_le_bytes()));
    }
}

/// Where a layer of an image is.
fn layer_dir(world: &World, layer: &Layer) -> PathBuf {
    let digest = imgfs_formats::oci::Digest::sha256(&layer.blob);
    world.cache().join("layers/sha256").join(digest.hex())
}

fn diff_id(layer: &Layer) -> String {
    imgfs_formats::oci::Digest::sha256(&layer.tar).to_string()
}

/// A noted DiffId that is damaged would make the next mount refuse a right layer.
#[test]
fn a_noted_diff_id_that_is_wrong_is_computed_anew() {
    let (world, reference, image) = pulled();
    let noted = layer_dir(&world, &image.layers[0]).join("diff_id");
    std::fs::write(&noted, format!("sha256:{}", "0".repeat(64))).unwrap();
    let report = verify(&world, &[], 0);
    assert_eq!(damage(&report), counts(&[("diff_id", "repaired", 1)]));
    assert_eq!(
        std::fs::read_to_string(&noted).unwrap(),
        diff_id(&image.layers[0])
    );
    is_all_right(&world);
    reads_right_offline(&world, &reference);
}

/// Of a layer that is not all here nobody can tell whether the note is right.
#[test]
fn a_noted_diff_id_stays_while_it_cannot_be_computed() {
    let (world, reference, image) = pulled();
    let noted = layer_dir(&world, &image.layers[0]).join("diff_id");
    let wrong = format!("sha256:{}", "0".repeat(64));
    std::fs::write(&noted, &wrong).unwrap();
    world.evict();
    let report = verify(&world, &[], 1);
    assert_eq!(damage(&report), counts(&[("diff_id", "kept", 1)]));
    assert_eq!(std::fs::read_to_string(&noted).unwrap(), wrong);
    assert_eq!(world.registry.log(), [""; 0]);
    world.imgfs(&["pull", "-q", &reference]).ok();
    let report = verify(&world, &[], 0);
    assert_eq!(damage(&report), counts(&[("diff_id", "repaired", 1)]));
}

/// What a mount found out about an image that lies stays known: the next one refuses the layer,
/// too.
#[test]
fn a_config_that_contradicts_its_layer_is_reported_and_not_repaired() {
    let world = World::new();
    let mut layer = gzip(&[file("lie", noise(7, 1_500_000))]);
    let right = diff_id(&layer);
    layer.tar = tar_of(&[file("lie", "another")]);
    let claimed = diff_id(&layer);
    let image = host_image(vec![layer]);
    let reference = world.put(&image);
    world.imgfs(&["pull", "-q", &reference]).ok();
    let noted = layer_dir(&world, &image.layers[0]).join("diff_id");
    // As mounts do.
    std::fs::write(&noted, &right).unwrap();
    world.registry.forget_requests();
    for arguments in [&[][..], &["--offline"], &[&reference]] {
        let report = verify(&world, arguments, 1);
        assert_eq!(damage(&report), counts(&[("diff_id", "kept", 1)]));
        assert_eq!(report["all_right"], false);
        let reason = report["damage"][0]["reason"].as_str().unwrap();
        for said in [&right, &claimed, &reference] {
            assert!(reason.contains(said), "{reason}");
        }
        assert_eq!(std::fs::read_to_string(&noted).unwrap(), right);
    }
    assert_eq!(world.registry.log(), [""; 0]);
    let outcome = world.imgfs(&["cache", "verify"]);
    outcome.fails(1, &[]);
    let said = String::from_utf8(outcome.stdout).unwrap();
    assert!(said.contains("1 damaged, 0 repaired, 1 kept"), "{said}");
}

/// A document's state says nothing about the names that point to it.
#[test]
fn a_name_stays_what_it_is_when_its_document_is_lost() {
    let (world, reference, image) = pulled();
    let other = host_image(vec![gzip(&[file("other", "other\n")])]);
    // The tag moves on, which is none of our business.
    world.put(&other);
    let manifest = imgfs_formats::oci::Digest::sha256(&image.manifest);
    let document = world.cache().join("documents/sha256").join(manifest.hex());
    let name = files(&world.cache().join("refs"), ".json")[0].clone();
    let before = std::fs::read(&name).unwrap();
    let lose: [&dyn Fn(); 3] = [
        &|| std::fs::remove_file(&document).unwrap(),
        &|| std::fs::write(&document, &image.manifest[..20]).unwrap(),
        &|| std::fs::write(&document, b"").unwrap(),
    ];
    for (round, lose) in lose.iter().enumerate() {
        lose();
        let report = verify(&world, &["--offline"], 1);
        assert_eq!(
            damage(&report),
            counts(&[("document", "dropped", 1)]),
            "{round}"
        );
        assert!(std::fs::read(&name).unwrap() == before, "{round}");
        // Nor when nobody has it any more.
        world.registry.fault_always(
            crate::support::registry::On::Manifest,
            crate::support::registry::Fault::Status(404),
        );
        verify(&world, &[], 1);
        assert!(std::fs::read(&name).unwrap() == before, "{round}");
        world.registry.clear_faults();
        if round > 0 {
            lose();
        }
        world.registry.forget_requests();
        let only = [reference.as_str()];
        let report = verify(&world, &only[..round % 2], 0);
        assert_eq!(
            damage(&report),
            counts(&[("document", "repaired", 1)]),
            "{round}"
        );
        assert_eq!(report["bytes_fetched"], image.manifest.len() as u64);
        let mut asked = world.registry.requests().into_iter();
        let digest = manifest.to_string();
        assert!(asked.all(|seen| seen.path.ends_with(&digest)), "{round}");
        assert!(std::fs::read(&name).unwrap() == before, "{round}");
        is_all_right(&world);
        reads_right_offline(&world, &reference);
    }
}

/// What a name says of its document's size is less sure than the document.
#[test]
fn a_wrong_size_in_a_name_is_put_right() {
    let (world, reference, image) = pulled();
    let name = files(&world.cache().join("refs"), ".json")[0].clone();
    let before = std::fs::read_to_string(&name).unwrap();
    let size = image.manifest.len().to_string();
    let wrong = before.replace(&size, "77");
    assert_ne!(wrong, before);
    std::fs::write(&name, wrong).unwrap();
    let report = verify(&world, &["--offline"], 0);
    assert_eq!(damage(&report), counts(&[("name", "repaired", 1)]));
    assert_eq!(std::fs::read_to_string(&name).unwrap(), before);
    reads_right_offline(&world, &reference);
}

#[test]
fn an_image_without_tag_is_repaired() {
    let (world, reference, image) = pulled();
    let other = host_image(vec![gzip(&[file("other", "other\n")])]);
    world.put(&other);
    world.imgfs(&["pull", "-q", &reference]).ok();
    for document in [&image.manifest, &image.blobs[0]] {
        let digest = imgfs_formats::oci::Digest::sha256(document);
        let path = world.cache().join("documents/sha256").join(digest.hex());
        flip(&path, 40);
    }
    flip(&layer_dir(&world, &image.layers[0]).join("data"), 1000);
    let report = verify(&world, &[], 0);
    let expected = [("data", "repaired", 1), ("document", "repaired", 2)];
    assert_eq!(damage(&report), counts(&expected), "{report}");
    is_all_right(&world);
    let pinned = reference.rsplit_once(':').unwrap().0;
    let manifest = imgfs_formats::oci::Digest::sha256(&image.manifest);
    reads_right_offline(&world, &format!("{pinned}@{manifest}"));
}

/// The record of the only image.
fn image_record(world: &World) -> PathBuf {
    let records = files(&world.cache().join("images"), ".json");
    assert_eq!(records.len(), 1);
    records[0].clone()
}

#[test]
fn the_record_of_an_image_is_made_anew() {
    let (world, reference, image) = pulled();
    let record = image_record(&world);
    let right: Value = serde_json::from_slice(&std::fs::read(&record).unwrap()).unwrap();
    let config = right["config"].as_str().unwrap();
    let other = format!("sha256:{}", "1".repeat(64));
    let text = std::fs::read_to_string(&record).unwrap();
    // Not JSON, another image's, another config.
    for wrong in [
        text.replacen('{', "[", 1),
        text.replace(right["manifest"].as_str().unwrap(), &other),
        text.replace(config, &other),
    ] {
        std::fs::write(&record, wrong).unwrap();
        let report = verify(&world, &["--offline"], 0);
        assert_eq!(damage(&report), counts(&[("image", "repaired", 1)]));
        assert_eq!(report["images"]["count"], 1);
        let found: Value = serde_json::from_slice(&std::fs::read(&record).unwrap()).unwrap();
        for field in ["manifest", "config", "via", "references"] {
            assert_eq!(found[field], right[field], "{field}");
        }
        is_all_right(&world);
    }
    // Without its manifest, which is fetched from where the record still says.
    std::fs::write(&record, text.replacen('{', "[", 1)).unwrap();
    std::fs::remove_file(&files(&world.cache().join("refs"), ".json")[0]).unwrap();
    let manifest = imgfs_formats::oci::Digest::sha256(&image.manifest).hex();
    flip(&world.cache().join("documents/sha256").join(manifest), 9);
    let report = verify(&world, &["--offline"], 1);
    let expected = [("document", "dropped", 1), ("image", "kept", 1)];
    assert_eq!(damage(&report), counts(&expected));
    let report = verify(&world, &[], 0);
    let expected = [("document", "repaired", 1), ("image", "repaired", 1)];
    assert_eq!(damage(&report), counts(&expected));
    is_all_right(&world);
    let found: Value = serde_json::from_slice(&std::fs::read(&record).unwrap()).unwrap();
    assert_eq!(found["references"], serde_json::json!([reference]));
}

#[test]
fn the_record_of_an_image_of_a_list_says_so_again() {
    let world = World::new();
    let here = layered();
    world.put(&here);
    let host = imgfs_core::source::host_platform().to_string();
    let list = image_index(&[(&host, &here)]);
    let list = world.registry.put_manifest("r", "list", OCI_INDEX, list);
    let reference = world.registry.reference("r:list");
    world.imgfs(&["pull", "-q", &reference]).ok();
    let record = image_record(&world);
    // Nothing of it is left.
    std::fs::write(&record, "").unwrap();
    let report = verify(&world, &[&reference, "--offline"], 0);
    assert_eq!(damage(&report), counts(&[("image", "repaired", 1)]));
    let found: Value = serde_json::from_slice(&std::fs::read(&record).unwrap()).unwrap();
    assert_eq!(found["via"], serde_json::json!([list.digest]));
    assert_eq!(found["references"], serde_json::json!([reference]));
}

/// What is damaged at the root, or cannot even be read, keeps nothing else from being checked and
/// reported.
#[test]
fn one_trouble_does_not_hide_the_others() {
    let (world, reference, image) = pulled();
    let manifest = imgfs_formats::oci::Digest::sha256(&image.manifest).hex();
    let manifest = world.cache().join("documents/sha256").join(manifest);
    flip(&manifest, 9);
    let report = verify(&world, &["--offline", &reference], 1);
    assert_eq!(damage(&report), counts(&[("document", "dropped", 1)]));
    assert!(!manifest.exists());
    // A directory can be opened, and not read.
    let unreadable = files(&world.cache().join("indexes"), "")[0].clone();
    let hex = unreadable.file_name().unwrap().to_str().unwrap().to_owned();
    std::fs::remove_file(&unreadable).unwrap();
    std::fs::create_dir(&unreadable).unwrap();
    let config = imgfs_formats::oci::Digest::sha256(&image.blobs[0]).hex();
    let config = world.cache().join("documents/sha256").join(config);
    std::fs::remove_file(&config).unwrap();
    std::fs::create_dir(&config).unwrap();
    for layer in &image.layers {
        let data = layer_dir(&world, layer).join("data");
        flip(&data, 1);
    }
    let report = verify(&world, &[&reference], 1);
    let expected = [
        ("data", "repaired", 2),
        ("document", "kept", 1),
        ("document", "repaired", 1),
        ("index", "kept", 1),
    ];
    assert_eq!(damage(&report), counts(&expected), "{report}");
    let mut all = report["damage"].as_array().unwrap().iter();
    let kept = all.find(|one| one["kind"] == "index").unwrap();
    assert!(kept["name"].as_str().unwrap().ends_with(&hex), "{kept}");
    assert!(
        kept["reason"].as_str().unwrap().contains("directory"),
        "{kept}"
    );
    assert!(unreadable.is_dir() && config.is_dir(), "nothing is dropped");
    std::fs::remove_dir(&unreadable).unwrap();
    std::fs::remove_dir(&config).unwrap();
    let report = verify(&world, &[&reference], 0);
    assert_eq!(damage(&report), counts(&[("document", "repaired", 1)]));
}

#[test]
fn layers_of_other_platforms_are_repaired_from_their_list() {
    let world = World::new();
    let here = layered();
    world.put(&here);
    let other = image("linux/s390x", vec![gzip(&[file("o", noise(5, 1_500_000))])]);
    world.registry.put_image("r", "other", &other);
    let host = imgfs_core::source::host_platform().to_string();
    let index = image_index(&[(&host, &here), ("linux/s390x", &other)]);
    world.registry.put_manifest("r", "list", OCI_INDEX, index);
    let reference = world.registry.reference("r:list");
    let pull = ["pull", "-q", "--platform=linux/s390x", &reference];
    world.imgfs(&pull).ok();
    for path in files(&world.cache(), "/data") {
        flip(&path, 1000);
    }
    for path in files(&world.cache().join("documents"), "") {
        flip(&path, 30);
    }
    let report = verify(&world, &[], 0);
    assert_eq!(
        damage(&report),
        counts(&[("data", "repaired", 1), ("document", "repaired", 3)])
    );
    is_all_right(&world);
}

#[test]
fn a_mounted_image_is_checked_and_repaired_in_place() {
    let Some(world) = World::mounting() else {
        return;
    };
    let image = layered();
    let reference = world.put(&image);
    world.imgfs(&["pull", "-q", &reference]).ok();
    let mount = world.mount(&reference, &[]);
    assert_eq!(mount.text("top"), "top\n");
    // A mount that still computes them would note what it reads between here and the repair.
    wait_for("the diff_ids", || {
        let status = world.status(&mount);
        let mut layers = status["layers"].as_array().unwrap().iter();
        layers.all(|layer| layer["diff_id"] == "ok")
    });
    let data = files(&world.cache(), "/data");
    let before: Vec<Vec<u8>> = data
        .iter()
        .map(|path| std::fs::read(path).unwrap())
        .collect();
    for path in &data {
        flip(path, 1000);
    }
    let report = verify(&world, &[], 0);
    assert_eq!(damage(&report), counts(&[("data", "repaired", 3)]));
    for one in report["damage"].as_array().unwrap() {
        assert_eq!(one["in_use"], true, "{one}");
    }
    for (path, before) in data.iter().zip(&before) {
        assert!(
            std::fs::read(path).unwrap() == *before,
            "{}",
            path.display()
        );
    }
    // Mounts have their own view of what is right, and it goes on being so.
    assert!(mount.read("a/low") == noise(1, 5_000_000));
    assert!(mount.read("b/mid") == noise(2, 4_000_000));
    let df = df(&world, &["-v"]);
    let row = |kind: &str| {
        let rows = df["types"].as_array().unwrap().iter();
        rows.clone()
            .find(|row| row["type"] == kind)
            .unwrap()
            .clone()
    };
    assert_eq!(row("layers")["active"], 3);
    assert_eq!(row("layers")["reclaimable"], 0);
    assert_eq!(
        (&row("documents")["active"], &row("indexes")["active"]),
        (&2.into(), &3.into())
    );
    for layer in df["layers"].as_array().unwrap() {
        assert_eq!(
            layer["mounts"],
            serde_json::json!([mount.dir.to_str().unwrap()])
        );
        assert_eq!(layer["in_use"], true);
    }
    let text = world.imgfs(&["cache", "df", "-v"]).ok();
    assert!(text.contains(mount.dir.to_str().unwrap()), "{text}");
    world
        .imgfs(&["cache", "evict", &reference])
        .ok_saying(&["freed 0 B, from 0 layers; 3 in use"]);
    mount.end(&world);
}

#[track_caller]
fn df(world: &World, arguments: &[&str]) -> Value {
    let mut all = vec!["cache", "df", "--json"];
    all.extend(arguments);
    schema::check("cache-df", &world.imgfs(&all).ok())
}

#[test]
fn df_counts_what_the_disk_has() {
    let (world, reference, _) = pulled();
    let report = df(&world, &["-v"]);
    let total: u64 = (report["types"].as_array().unwrap().iter())
        .map(|row| row["size"].as_u64().unwrap())
        .sum();
    let blocks =
        |path: &PathBuf| std::os::unix::fs::MetadataExt::blocks(&path.metadata().unwrap()) * 512;
    let on_disk: u64 = files(&world.cache(), "").iter().map(blocks).sum();
    assert_eq!(total, on_disk);
    let row = |position: usize| &report["types"][position];
    assert_eq!(
        (&row(0)["total"], &row(0)["active"]),
        (&3.into(), &0.into())
    );
    assert_eq!(row(0)["size"], row(0)["reclaimable"]);
    assert_eq!((&row(1)["total"], &row(2)["total"]), (&3.into(), &2.into()));
    for layer in report["layers"].as_array().unwrap() {
        assert_eq!(layer["present"], layer["unpacked"]);
        assert_eq!(layer["images"], serde_json::json!([reference]));
    }
    let text = world.imgfs(&["cache", "df"]).ok();
    assert!(
        text.starts_with("TYPE") && text.contains("(100 %)"),
        "{text}"
    );
    assert!(text.contains("of 21.4 GB (--cache-limit)"), "{text}");
    world.evict();
    let report = df(&world, &["-v"]);
    assert_eq!(report["types"][0]["total"], 0, "{report}");
    assert!(report.to_string().contains("\"present\":0"), "{report}");
}

#[test]
fn df_of_nothing_is_nothing() {
    let world = World::new();
    let report = df(&world, &[]);
    assert!(
        report["types"]
            .as_array()
            .unwrap()
            .iter()
            .all(|row| row["size"] == 0)
    );
    assert!(
        world
            .imgfs(&["cache", "df"])
            .ok()
            .contains("0 B of 21.4 GB")
    );
}

#[test]
fn one_image_is_evicted_alone() {
    let (world, reference, _) = pulled();
    let other = host_image(vec![gzip(&[file("other", noise(9, 2_000_000))])]);
    world.registry.put_image("r", "other", &other);
    let other = world.registry.reference("r:other");
    world.imgfs(&["pull", "-q", &other]).ok();
    world
        .imgfs(&["cache", "evict", &other])
        .ok_saying(&["from 1 layers"]);
    reads_right_offline(&world, &reference);
    world
        .imgfs(&["cat", "--offline", &other, "/other"])
        .fails(1, &["offline"]);
    assert!(world.imgfs(&["cat", &other, "/other"]).ok_bytes() == noise(9, 2_000_000));
    world
        .imgfs(&["cache", "evict", "absent"])
        .fails(1, &["is not in the cache"]);
    world
        .imgfs(&["cache", "evict", "--data", &other])
        .fails(2, &["cannot be used with"]);
}

/// Every command that adds to the cache keeps within the limit, as soon as nobody uses what it
/// added.
#[test]
fn the_limit_is_honoured_by_what_reads() {
    let (world, reference, _) = pulled();
    let limit = "--cache-limit=3MB";
    let limited = |arguments: &[&str]| -> Outcome {
        let mut command = world.command(IMGFS);
        run(command.arg(limit).args(arguments))
    };
    limited(&["cat", &reference, "/a/low"]).ok();
    limited(&["cat", &reference, "/top"]).ok();
    let report = df(&world, &[limit]);
    assert_eq!(report["limit"], 3_000_000);
    let size = report["types"][0]["size"].as_u64().unwrap();
    assert!(size < 3_500_000, "{size}");
    limited(&["pull", &reference]).fails(1, &["raise", "--cache-limit"]);
}
