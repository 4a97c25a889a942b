//! `imgfs pull`: all of an image beforehand, and going on where a killed one ended.

use std::path::PathBuf;

use super::*;
use crate::process::{run, start, wait_for};
use crate::support::image::{OCI_INDEX, image_index};
use crate::support::registry::Registry;

/// A part of a blob as it is fetched, and how many of them may be on their way behind the first.
const PART: u64 = 4 << 20;
const PARTS_AHEAD: u64 = 3;

fn pulled(world: &World, arguments: &[&str]) -> serde_json::Value {
    let mut all = vec!["pull", "--json"];
    all.extend(arguments);
    serde_json::from_str(&world.imgfs(&all).ok()).unwrap()
}

/// Bytes of blobs, configs not counted, that were sent.
fn layer_traffic(world: &World, image: &Image) -> u64 {
    world.registry.bytes() - document_bytes(image)
}

/// The registry is gone; each of these images mounts all the same and reads like this.
#[track_caller]
fn reads_without_a_registry(world: &mut World, reference: &str, files: &[(&str, &[u8])]) {
    world.registry = Registry::start();
    let mount = world.mount(reference, &["--pull=never"]);
    for (name, content) in files {
        assert!(mount.read(name) == *content, "{name}");
    }
    let mut all = world.command("find");
    run(all
        .arg(&mount.dir)
        .args(["-type", "f", "-exec", "cmp", "{}", "{}", ";"]))
    .ok();
    assert_eq!(world.registry.log(), [""; 0]);
}

#[test]
fn after_a_pull_the_registry_is_not_needed() {
    let Some(mut world) = World::mounting() else {
        return;
    };
    let image = sample();
    let descriptor = world.registry.put_image("r", "t", &image);
    let reference = world.registry.reference("r:t");
    let outcome = world.imgfs(&["pull", &reference]);
    let size = layer_bytes(&image);
    assert_eq!(world.registry.bytes(), size + document_bytes(&image));
    let summary = format!("pulled {reference} for {}: 3 layers, ", host());
    assert_eq!(outcome.ok_saying(&[&summary, "fetched, 0 B were here"]), "");
    let again = pulled(&world, &[&reference]);
    let result = &again[0];
    assert_eq!(result["reference"], reference);
    assert_eq!(result["digest"], descriptor.digest.to_string());
    assert_eq!(
        (&result["bytes_fetched"], &result["bytes_cached"]),
        (&0.into(), &size.into())
    );
    assert_eq!(result["layers"].as_array().unwrap().len(), 3);
    let noise = noise(1, 3_000_000);
    let files = [("etc/release", &b"top\n"[..]), ("noise", &noise)];
    reads_without_a_registry(&mut world, &reference, &files);
}

#[test]
fn only_what_is_missing_is_fetched() {
    let Some(mut world) = World::mounting() else {
        return;
    };
    let content = noise(9, 24 << 20);
    let image = host_image(vec![gzip(&[file("first", "f"), file("large", &content)])]);
    let reference = world.put(&image);
    world.mount(&reference, &[]).end(&world);
    world.evict();
    world.registry.forget_requests();
    let mount = world.mount(&reference, &[]);
    assert_eq!(mount.text("first"), "f");
    mount.end(&world);
    let before = world.registry.bytes();
    assert!(before > 0);
    let result = pulled(&world, &[&reference]);
    let size = layer_bytes(&image);
    // Neighbouring spans may share a byte.
    let sent = world.registry.bytes();
    assert!((size - 32..=size + 32).contains(&sent), "{sent} of {size}");
    assert_eq!(
        result[0]["bytes_fetched"].as_u64().unwrap() / 64,
        (sent - before) / 64
    );
    assert!(world.registry.requests().len() < 8, "in long runs");
    reads_without_a_registry(&mut world, &reference, &[("large", &content)]);
}

#[test]
fn a_rotten_span_is_pulled_anew() {
    let Some(mut world) = World::mounting() else {
        return;
    };
    let content = noise(5, 5 << 20);
    let image = host_image(vec![zstd(&[file("large", &content)])]);
    let reference = world.put(&image);
    pulled(&world, &[&reference]);
    let data = layer_dir(&world, &image).join("data");
    let file = std::fs::File::options().write(true).open(data).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"rot", 2_000_000).unwrap();
    world.registry.forget_requests();
    let result = pulled(&world, &[&reference]);
    assert!(result[0]["bytes_fetched"].as_u64().unwrap() > 0);
    reads_without_a_registry(&mut world, &reference, &[("large", &content)]);
}

#[test]
fn a_killed_pull_goes_on_from_where_it_ended() {
    let Some(mut world) = World::mounting() else {
        return;
    };
    let content = noise(6, 8 << 20);
    let image = host_image(vec![gzip(&[file("large", &content)])]);
    let reference = world.put(&image);
    let size = layer_bytes(&image);
    world.imgfs(&["inspect", &reference]).ok();
    let partial = layer_dir(&world, &image).join("partial");
    let mut kept = 0;
    // Inside the first part, up to its last byte, soon after, at once, and one byte before the end.
    for stop in [
        300_000,
        300_000 + PART - 1,
        PART + 370_000,
        PART + 370_001,
        size - 1,
    ] {
        world
            .registry
            .fault_always(On::Blob, Fault::Stall(stop - kept));
        let mut pulling = start(world.command(IMGFS).args(["pull", &reference]));
        wait_for("the stall", || length(&partial) >= stop);
        pulling.child.kill().unwrap();
        drop(pulling);
        kept = length(&partial);
        assert_eq!(kept, stop, "as far as it came");
        world.registry.clear_faults();
    }
    world.registry.forget_requests();
    let result = pulled(&world, &[&reference]);
    assert_eq!(result[0]["bytes_cached"], kept);
    assert_eq!(result[0]["bytes_fetched"], size - kept);
    // Besides, only the tag was asked for.
    assert_eq!(world.registry.bytes(), size - kept);
    assert!(!partial.exists(), "used up");
    reads_without_a_registry(&mut world, &reference, &[("large", &content)]);
}

#[test]
fn in_all_a_killed_pull_costs_little_more_than_the_blob() {
    let Some(mut world) = World::mounting() else {
        return;
    };
    let content = noise(6, 40 << 20);
    let image = host_image(vec![plain(&[file("large", &content)])]);
    let reference = world.put(&image);
    let partial = layer_dir(&world, &image).join("partial");
    world.imgfs(&["inspect", &reference]).ok();
    for _ in 0..3 {
        let stop = length(&partial) + PART;
        world
            .registry
            .fault(On::Blob, Fault::Header("X-Good", "yes"));
        world
            .registry
            .fault(On::Blob, Fault::Header("X-Good", "yes"));
        world.registry.fault_always(On::Blob, Fault::Stall(100_000));
        let mut pulling = start(world.command(IMGFS).args(["pull", &reference]));
        wait_for("some parts", || length(&partial) >= stop);
        pulling.child.kill().unwrap();
        drop(pulling);
        world.registry.clear_faults();
    }
    // A mount goes on from there as well.
    let mount = world.mount(&reference, &[]);
    assert!(mount.read("large") == content);
    let sent = layer_traffic(&world, &image);
    // What came ahead of the first gap: whole parts once, and a piece of the others.
    let overlap = 3 * (PART + PARTS_AHEAD * 400_000);
    assert!(sent <= layer_bytes(&image) + overlap, "{sent}");
    assert!(!partial.exists());
    mount.end(&world);
    reads_without_a_registry(&mut world, &reference, &[("large", &content)]);
}

#[test]
fn a_damaged_start_is_thrown_away_once() {
    let Some(world) = World::mounting() else {
        return;
    };
    let content = noise(6, 3 << 20);
    let image = host_image(vec![gzip(&[file("large", &content)])]);
    let reference = world.put(&image);
    let dir = layer_dir(&world, &image);
    let blob = &image.layers[0].blob;
    std::fs::create_dir_all(&dir).unwrap();
    for (start, words) in [
        (vec![7; 1_000_000], "what an earlier pull left is damaged"),
        ([&blob[..500_000], &vec![0; 500_000]].concat(), "is damaged"),
        // Longer than the blob: not even tried.
        (vec![7; blob.len() + 1], "pulled"),
    ] {
        std::fs::write(dir.join("partial"), start).unwrap();
        let outcome = world.imgfs(&["pull", &reference]);
        outcome.ok_saying(&[words]);
        assert!(!dir.join("partial").exists());
        let mount = world.mount(&reference, &["--pull=never"]);
        assert!(mount.read("large") == content);
        mount.end(&world);
        std::fs::remove_dir_all(world.cache().join("indexes")).unwrap();
        world.evict();
    }
    // What is damaged at its source stays damaged, and nothing of it stays here.
    world.registry.fault_always(On::Blob, Fault::Corrupt);
    std::fs::write(dir.join("partial"), &blob[..500_000]).unwrap();
    world
        .imgfs(&["pull", &reference])
        .fails(1, &["corrupt", &reference]);
    assert!(!dir.join("partial").exists());
}

#[test]
fn eviction_takes_what_a_killed_pull_left() {
    let world = World::new();
    let image = host_image(vec![plain(&[file("large", noise(6, 6 << 20))])]);
    let reference = world.put(&image);
    let partial = layer_dir(&world, &image).join("partial");
    world.imgfs(&["inspect", &reference]).ok();
    world
        .registry
        .fault_always(On::Blob, Fault::Stall(1_000_000));
    let mut pulling = start(world.command(IMGFS).args(["pull", &reference]));
    wait_for("the stall", || length(&partial) >= 1_000_000);
    let outcome = world.imgfs(&["cache", "evict", "--data"]);
    outcome.ok_saying(&["1 in use"]);
    assert!(length(&partial) >= 1_000_000);
    pulling.child.kill().unwrap();
    drop(pulling);
    world.evict();
    assert!(!partial.exists());
}

#[test]
fn ctrl_c_says_that_it_can_be_gone_on_with() {
    let world = World::new();
    let image = host_image(vec![plain(&[file("large", noise(6, 6 << 20))])]);
    let reference = world.put(&image);
    let partial = layer_dir(&world, &image).join("partial");
    world.imgfs(&["inspect", &reference]).ok();
    world
        .registry
        .fault_always(On::Blob, Fault::Stall(1_000_000));
    let pulling = start(world.command(IMGFS).args(["pull", &reference]));
    wait_for("the stall", || length(&partial) >= 1_000_000);
    world::kill(pulling.child.id(), rustix::process::Signal::INT);
    let outcome = process::finish(pulling);
    outcome.fails(1, &["interrupted", "goes on from there"]);
    assert!(length(&partial) >= 1_000_000);
}

#[test]
fn an_image_larger_than_the_cache_is_refused() {
    let world = World::new();
    // Packed it would fit.
    let zeros = gzip(&[file("zeros", vec![0; 9 << 20])]);
    let noise = plain(&[file("noise", noise(3, 5 << 20))]);
    let limit = |limit, layers, words: &[&str]| {
        let reference = world.put(&host_image(layers));
        let outcome = world.imgfs(&["--cache-limit", limit, "pull", &reference]);
        outcome.fails(1, words);
    };
    let words = ["which has a limit of 4.1 MB", "raise --cache-limit"];
    limit("4MiB", vec![noise.clone()], &words);
    assert!(
        !world.cache().join("layers").exists(),
        "before anything is fetched"
    );
    limit("4MiB", vec![zeros.clone()], &words);
    limit("12MiB", vec![zeros, noise], &["limit of 12.5 MB"]);
}

/// A mount goes on without its cache then; a pull has nothing else to give.
#[test]
fn a_full_disk_is_a_failure() {
    let Some(world) = World::as_root() else {
        return;
    };
    let image = host_image(vec![gzip(&[file("large", noise(5, 12 << 20))])]);
    let reference = world.put(&image);
    let script = r#"
        mkdir "$W/tiny" && mount -t tmpfs -o size=3m tmpfs "$W/tiny"
        export IMGFS_CACHE_DIR="$W/tiny"
        if imgfs pull "$1"; then echo pulled; fi
        mount -o remount,size=40m "$W/tiny"
        imgfs pull --quiet "$1" && echo pulled with room
        find "$W/tiny" -name partial -o -name data.new"#;
    let outcome = world.namespace(script, &[&reference]);
    let words = ["cannot pull", "cannot keep all of", "is the disk full?"];
    assert_eq!(outcome.ok_saying(&words), "pulled with room\n");
}

#[test]
fn room_is_made_for_what_was_pulled() {
    let Some(mut world) = World::mounting() else {
        return;
    };
    let image = |seed| host_image(vec![plain(&[file("noise", noise(seed, 5 << 20))])]);
    for (tag, seed) in [("old", 1), ("new", 2)] {
        world.registry.put_image("r", tag, &image(seed));
    }
    let (old, new) = (
        world.registry.reference("r:old"),
        world.registry.reference("r:new"),
    );
    world.imgfs(&["pull", &old]).ok();
    world.imgfs(&["--cache-limit", "8MiB", "pull", &new]).ok();
    let content = noise(2, 5 << 20);
    reads_without_a_registry(&mut world, &new, &[("noise", &content)]);
    let result = world.imgfs(&["pull", "--pull=never", &old]);
    result.fails(1, &["not in the cache"]);
}

#[test]
fn all_tags_and_all_platforms() {
    let Some(mut world) = World::mounting() else {
        return;
    };
    let base = gzip(&[file("base", noise(1, 300_000))]);
    let with = |platform: &str, name: &str| {
        image(platform, vec![base.clone(), plain(&[file(name, name)])])
    };
    let (here, other) = (with(&host(), "here"), with("linux/s390x", "other"));
    for image in [&here, &other] {
        for blob in &image.blobs {
            world.registry.put_blob(blob.clone());
        }
        let digest = imgfs_formats::oci::Digest::sha256(&image.manifest).to_string();
        let (media_type, bytes) = (&image.media_type, image.manifest.clone());
        world.registry.put_manifest("r", &digest, media_type, bytes);
    }
    // An image that lies elsewhere in part.
    let foreign = serde_json::json!({
        "schemaVersion": 2, "mediaType": support::image::OCI_MANIFEST,
        "config": support::image::descriptor(support::image::OCI_CONFIG, &here.blobs[0]),
        "layers": [support::image::descriptor("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", b"x")],
    });
    let foreign = Image {
        manifest: foreign.to_string().into(),
        ..here.clone()
    };
    let digest = imgfs_formats::oci::Digest::sha256(&foreign.manifest).to_string();
    let (media_type, bytes) = (&foreign.media_type, foreign.manifest.clone());
    world.registry.put_manifest("r", &digest, media_type, bytes);
    let index = image_index(&[
        ("windows/amd64", &foreign),
        ("linux/s390x", &other),
        (&host(), &here),
    ]);
    world.registry.put_manifest("r", "list", OCI_INDEX, index);
    world.registry.put_image("r", "one", &with(&host(), "one"));
    world.registry.put_image("r", "two", &with(&host(), "two"));
    let config = world.registry.put_blob("a chart");
    let chart = serde_json::json!({
        "schemaVersion": 2, "mediaType": support::image::OCI_MANIFEST,
        "config": {"mediaType": "application/vnd.cncf.helm.config.v1+json", "digest": config.digest, "size": config.size},
        "layers": [],
    });
    let media_type = support::image::OCI_MANIFEST;
    world
        .registry
        .put_manifest("r", "chart", media_type, chart.to_string());
    let repository = world.registry.reference("r");
    let outcome = world.imgfs(&[
        "pull",
        "--json",
        "--all-tags",
        "--all-platforms",
        &repository,
    ]);
    let said = ["left out: layer", "is a foreign layer", "r:chart: "];
    let all: serde_json::Value = serde_json::from_str(&outcome.ok_saying(&said)).unwrap();
    let names: Vec<_> = (all.as_array().unwrap().iter())
        .map(|one| {
            let reference = one["reference"].as_str().unwrap();
            let tag = reference.rsplit(':').next().unwrap().to_owned();
            (tag, one["platform"].as_str().unwrap().to_owned())
        })
        .collect();
    let expected = [
        ("list", "linux/s390x"),
        ("list", &host()),
        ("one", &host()),
        ("two", &host()),
    ];
    let expected = expected.map(|(tag, platform)| (tag.to_owned(), platform.to_owned()));
    for one in &expected {
        assert!(names.contains(one), "{one:?} in {names:?}");
    }
    // The layer they share was fetched once.
    let requests = world.registry.requests();
    let digest = imgfs_formats::oci::Digest::sha256(&base.blob).to_string();
    let times = requests.iter().filter(|seen| seen.path.contains(&digest));
    assert_eq!(times.count(), 1);
    world.registry = Registry::start();
    for (tag, platform, name) in [
        ("list", "linux/s390x", "other"),
        ("list", &host(), "here"),
        ("one", &host(), "one"),
        ("two", &host(), "two"),
    ] {
        let reference = format!("{repository}:{tag}");
        let mount = world.mount(&reference, &["--pull=never", "--platform", platform]);
        assert_eq!(mount.text(name), name);
        assert_eq!(mount.read("base").len(), 300_000);
        mount.end(&world);
    }
}

#[test]
fn a_pull_asks_the_registry_unless_told_otherwise() {
    let mut world = World::new();
    let reference = world.put(&sample());
    world.imgfs(&["pull", &reference]).ok();
    world.registry = Registry::start();
    world
        .imgfs(&["pull", &reference])
        .fails(1, &["cannot pull", "cannot connect"]);
    for option in [
        "--pull=newer",
        "--pull=missing",
        "--pull=never",
        "--offline",
    ] {
        world
            .imgfs(&["pull", option, &reference])
            .ok_saying(&["as of", "0 B fetched"]);
    }
    let nothing = world.registry.reference("r");
    world
        .imgfs(&["pull", "--all-tags", &nothing])
        .fails(1, &["has no tags"]);
    let quiet = world.imgfs(&["pull", "--quiet", "--pull=never", &reference]);
    assert_eq!((quiet.stderr.as_str(), quiet.stdout.len()), ("", 0));
}

fn layer_dir(world: &World, image: &Image) -> PathBuf {
    let hex = imgfs_formats::oci::Digest::sha256(&image.layers[0].blob).hex();
    world.cache().join("layers/sha256").join(hex)
}

fn length(path: &std::path::Path) -> u64 {
    path.metadata().map_or(0, |metadata| metadata.len())
}
