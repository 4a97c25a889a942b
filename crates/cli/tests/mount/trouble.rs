//! Bad input from outside: each is said in one message that names it, and nothing bad is kept or
//! served.

use super::*;
use crate::support::image::{OCI_CONFIG, OCI_INDEX, OCI_MANIFEST, descriptor, image_index};
use crate::support::registry::Registry;
use serde_json::json;

/// After `spoil` a first mount fails with these words; once the registry is well again the same
/// cache works.
#[track_caller]
fn first_contact_fails(spoil: impl Fn(&World), words: &[&str]) {
    let Some(world) = World::mounting() else {
        return;
    };
    let reference = world.put(&sample());
    spoil(&world);
    let words: Vec<&str> = words.iter().copied().chain([reference.as_str()]).collect();
    world.refused(&reference, &[], &words);
    world.registry.clear_faults();
    let mount = world.mount(&reference, &[]);
    assert!(mount.read("noise") == noise(1, 3_000_000));
    assert_eq!(mount.text("etc/release"), "top\n");
}

/// A digest as the messages print it.
fn hex(bytes: &[u8]) -> String {
    imgfs_formats::oci::Digest::sha256(bytes).hex()
}

#[test]
fn a_corrupt_layer() {
    // The config comes first.
    first_contact_fails(
        |world| {
            world
                .imgfs(&["inspect", &world.registry.reference("r:t")])
                .ok();
            world.registry.fault_always(On::Blob, Fault::Corrupt);
        },
        &["is corrupt at its source", "nothing of it was kept"],
    );
}

#[test]
fn a_corrupt_layer_names_its_digest() {
    let Some(world) = World::mounting() else {
        return;
    };
    let image = host_image(vec![gzip(&[file("a", "b")])]);
    let mut blob = image.layers[0].blob.to_vec();
    let middle = blob.len() / 2;
    blob[middle] ^= 0x10;
    world.registry.put_image("r", "t", &image);
    world.registry.replace_blob(&image.layers[0].blob, blob);
    let digest = hex(&image.layers[0].blob);
    let reference = world.registry.reference("r:t");
    world.refused(&reference, &[], &[&digest, "corrupt", &reference]);
    assert_eq!(cached_bytes(&world, &image.layers[0].blob), 0);
}

#[test]
fn a_corrupt_manifest() {
    first_contact_fails(
        |world| world.registry.fault_always(On::Manifest, Fault::Corrupt),
        &[
            "does not match its digest",
            "expected sha256:",
            "got sha256:",
        ],
    );
}

#[test]
fn a_corrupt_config() {
    let config = hex(&sample().blobs[0]);
    first_contact_fails(
        |world| world.registry.fault_always(On::Blob, Fault::Corrupt),
        &["does not match its digest", &config],
    );
}

#[test]
fn a_config_that_comes_corrupt_once() {
    let Some(world) = World::mounting() else {
        return;
    };
    let reference = world.put(&sample());
    world.registry.fault(On::Blob, Fault::Corrupt);
    let outcome = world.imgfs(&["inspect", &reference]).ok();
    assert!(outcome.contains("sha256:"), "{outcome}");
}

#[test]
fn a_truncated_layer() {
    let Some(world) = World::mounting() else {
        return;
    };
    let image = sample();
    let reference = world.put(&image);
    let blob = &image.layers[0].blob;
    world.registry.replace_blob(blob, blob.slice(..1000));
    let said = world.refused(&reference, &[], &[&reference]);
    assert!(said.contains(&hex(blob)[..12]), "{said}");
    assert_eq!(cached_bytes(&world, blob), 0);
    world.registry.put_blob(blob.clone());
    assert_eq!(world.mount(&reference, &[]).names("old"), ["b"]);
}

#[test]
fn a_layer_longer_than_its_descriptor() {
    let Some(world) = World::mounting() else {
        return;
    };
    let image = sample();
    let reference = world.put(&image);
    let blob = &image.layers[2].blob;
    world
        .registry
        .replace_blob(blob, [blob, &[0; 1024][..]].concat());
    let said = world.refused(&reference, &[], &[&reference]);
    assert!(said.contains(&hex(blob)[..12]), "{said}");
}

#[test]
fn a_layer_that_is_no_tar_or_no_gzip() {
    let Some(world) = World::mounting() else {
        return;
    };
    let mut layer = gzip(&[file("a", "b")]);
    let blob = layer.blob.len();
    layer.blob = layer.blob.slice(..blob - 10);
    let reference = world.put(&host_image(vec![layer]));
    let said = world.refused(&reference, &[], &["layer ", &reference]);
    assert!(said.lines().last().unwrap().len() < 400, "{said}");
    let text = plain_layer(Bytes::from(vec![b'x'; 4096]));
    world.refused(&world.put(&host_image(vec![text])), &[], &["layer ", "tar"]);
}

#[test]
fn a_diff_id_that_contradicts_the_layer_stops_its_reads() {
    let Some(world) = World::mounting() else {
        return;
    };
    let mut layer = gzip(&[file("a", "b")]);
    layer.tar = Bytes::from_static(b"something else");
    let mount = world.mount(&world.put(&host_image(vec![layer])), &[]);
    process::wait_for("the diff_id check", || {
        world.status(&mount)["layers"][0]["diff_id"] == "mismatch"
    });
    process::wait_for("EIO", || std::fs::read(mount.path("a")).is_err());
    let problem = world.status(&mount)["layers"][0]["problem"].to_string();
    assert!(problem.contains("config says"), "{problem}");
}

#[test]
fn an_image_that_does_not_exist() {
    let Some(world) = World::mounting() else {
        return;
    };
    let reference = world.registry.reference("r:absent");
    world.refused(
        &reference,
        &[],
        &["cannot mount", &reference, "has no", "check the name"],
    );
}

#[test]
fn a_registry_that_wants_a_login() {
    let Some(world) = World::mounting() else {
        return;
    };
    let reference = world.put(&sample());
    world.registry.require_basic("user", "secret");
    let said = world.refused(
        &reference,
        &[],
        &["refuses access to r", "login", &reference],
    );
    assert!(!said.contains("secret"));
}

#[test]
fn credentials_of_docker_login_are_used() {
    let Some(world) = World::mounting() else {
        return;
    };
    let reference = world.put(&sample());
    world.registry.require_token(Some(("user", "secret")));
    // base64 of user:secret
    let config = json!({"auths": {world.registry.host(): {"auth": "dXNlcjpzZWNyZXQ="}}});
    std::fs::create_dir(world.path(".docker")).unwrap();
    std::fs::write(world.path(".docker/config.json"), config.to_string()).unwrap();
    assert_eq!(world.mount(&reference, &[]).text("etc/release"), "top\n");
}

#[test]
fn a_registry_that_always_fails() {
    let Some(world) = World::mounting() else {
        return;
    };
    let reference = world.put(&sample());
    world.registry.fault_always(On::Any, Fault::Status(503));
    world.refused(
        &reference,
        &[],
        &["unexpected status 503", "try again later", &reference],
    );
}

#[test]
fn nobody_listens() {
    let Some(mut world) = World::mounting() else {
        return;
    };
    let reference = world.put(&sample());
    world.registry = Registry::start();
    world.refused(
        &reference,
        &[],
        &["cannot connect to 127.0.0.1:", "refused", &reference],
    );
}

#[test]
fn an_unknown_host() {
    let Some(world) = World::mounting() else {
        return;
    };
    let words = ["cannot connect to registry.invalid", "registry.invalid/r:t"];
    world.refused("registry.invalid/r:t", &[], &words);
}

#[test]
fn no_image_for_this_platform_lists_what_there_is() {
    let Some(world) = World::mounting() else {
        return;
    };
    let other = image("linux/s390x", vec![gzip(&[file("other", "s390x")])]);
    world.put(&other);
    let index = image_index(&[("linux/s390x", &other), ("linux/ppc64le", &other)]);
    world.registry.put_manifest("r", "list", OCI_INDEX, index);
    let reference = world.registry.reference("r:list");
    let words = [
        "nothing for",
        "linux/s390x",
        "linux/ppc64le",
        "--platform",
        &reference,
    ];
    world.refused(&reference, &[], &words);
    world.refused(
        &reference,
        &["--platform", "vax"],
        &["\"vax\"", "write os/arch"],
    );
}

#[test]
fn an_image_of_another_platform_alone_says_so() {
    let Some(world) = World::mounting() else {
        return;
    };
    let reference = world.put(&image("linux/s390x", vec![gzip(&[file("other", "x")])]));
    let dir = world.mountpoint();
    let outcome = world.imgfs(&["mount".as_ref(), reference.as_ref(), dir.as_os_str()]);
    assert!(outcome.stderr.contains("linux/s390x"), "{}", outcome.stderr);
}

#[test]
fn schema_1_is_refused_with_advice() {
    let Some(world) = World::mounting() else {
        return;
    };
    let manifest =
        json!({"schemaVersion": 1, "name": "r", "tag": "t", "fsLayers": [], "history": []});
    let kind = "application/vnd.docker.distribution.manifest.v1+prettyjws";
    world
        .registry
        .put_manifest("r", "old", kind, manifest.to_string());
    let reference = world.registry.reference("r:old");
    world.refused(
        &reference,
        &[],
        &["schema 1", "push the image again", &reference],
    );
}

#[test]
fn a_foreign_layer_is_refused_by_name() {
    let Some(world) = World::mounting() else {
        return;
    };
    let image = sample();
    let mut foreign = descriptor(
        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
        b"somewhere else",
    );
    foreign.urls = vec!["https://example.invalid/layer".to_owned()];
    let digest = foreign.digest.to_string();
    let config = world.registry.put_blob(image.blobs[0].clone());
    let manifest = json!({
        "schemaVersion": 2, "mediaType": OCI_MANIFEST,
        "config": {"mediaType": OCI_CONFIG, "digest": config.digest, "size": config.size},
        "layers": [foreign, foreign, foreign],
    });
    world
        .registry
        .put_manifest("r", "foreign", OCI_MANIFEST, manifest.to_string());
    let reference = world.registry.reference("r:foreign");
    world.refused(&reference, &[], &["foreign layer", &digest, &reference]);
}

#[test]
fn a_manifest_that_is_no_manifest() {
    let Some(world) = World::mounting() else {
        return;
    };
    let check = |body: &str| {
        world
            .registry
            .put_manifest("r", "bad", OCI_MANIFEST, body.to_owned());
        let reference = world.registry.reference("r:bad");
        world.refused(&reference, &[], &[&reference])
    };
    check("");
    check("not json");
    check("[]");
    check("{}");
    check("{\"schemaVersion\": 2, \"layers\": [], \"manifests\": []}");
    check(&format!(
        "{{\"schemaVersion\": 2, \"x\": \"{}\"}}",
        "y".repeat(5 << 20)
    ));
}

#[test]
fn an_index_that_contains_itself_ends() {
    let Some(world) = World::mounting() else {
        return;
    };
    // A digest cannot contain itself; a chain of indexes can be long.
    let mut inner = world.registry.put_image("r", "t", &sample());
    for _ in 0..40 {
        let index = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [inner]});
        inner = world
            .registry
            .put_manifest("r", "deep", OCI_INDEX, index.to_string());
    }
    world.refused(&world.registry.reference("r:deep"), &[], &["sha256:"]);
}

#[test]
fn hostile_names_stay_inside() {
    let Some(world) = World::mounting() else {
        return;
    };
    let layer = gzip(&[
        file("../../../../escaped", "1"),
        file("/absolute", "2"),
        file("a/../../beside", "3"),
        symlink("out", "/"),
        file("out/through", "4"),
        file("./dot/./inside", "5"),
        hard_link("stolen", "../../../etc/passwd"),
        whiteout("../../../mnt0"),
        file("../.wh..wh..opq", ""),
    ]);
    let reference = world.put(&host_image(vec![plain(&[file("keep", "k")]), layer]));
    let dir = world.mountpoint();
    let outcome = world.imgfs(&["mount".as_ref(), reference.as_ref(), dir.as_os_str()]);
    // Refused or kept inside, but never anything outside.
    if outcome.code == Some(0) {
        let mount = world.adopt(dir);
        assert_eq!(mount.text("absolute"), "2");
        assert_eq!(mount.text("dot/inside"), "5");
        assert!(
            std::fs::read(mount.path("stolen")).is_err(),
            "no file of the host"
        );
        let listing = process::run(world.command("find").arg(&mount.dir)).ok();
        assert!(!listing.contains(".."), "{listing}");
    } else {
        outcome.fails(1, &["layer", &reference]);
    }
    assert!(!world.path("escaped").exists());
    assert!(!std::path::Path::new("/through").exists());
    assert!(!std::path::Path::new("/escaped").exists());
}

#[test]
fn a_whiteout_without_a_name_is_refused() {
    let Some(world) = World::mounting() else {
        return;
    };
    let reference = world.put(&host_image(vec![gzip(&[dir("a"), file("a/.wh.", "")])]));
    world.refused(&reference, &[], &[".wh.", &reference]);
}

#[test]
fn a_compressed_bomb_is_cut_off_by_the_cache_and_not_by_memory() {
    let Some(world) = World::mounting() else {
        return;
    };
    // 64 MiB of zeros in some 60 kB: read with a cap on memory far below that times the stages.
    let reference = world.put(&host_image(vec![gzip(&[file("zeros", vec![0; 64 << 20])])]));
    let mount = world.mount(&reference, &[]);
    let status = std::fs::read_to_string(format!("/proc/{}/status", mount.pid)).unwrap();
    let peak = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .unwrap();
    let peak: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(peak < 120_000, "{peak} kB");
    assert_eq!(mount.path("zeros").metadata().unwrap().len(), 64 << 20);
}

/// Bytes of a layer in the cache.
fn cached_bytes(world: &World, blob: &[u8]) -> u64 {
    let data = world
        .cache()
        .join("layers/sha256")
        .join(hex(blob))
        .join("data");
    data.metadata().map_or(0, |metadata| metadata.len())
}

/// A config that the cache has was answered from there whatever size the manifest says, again and
/// again.
#[test]
fn a_config_with_another_size_than_the_cached_one() {
    let world = World::new();
    let image = sample();
    let reference = world.put(&image);
    world.imgfs(&["inspect", &reference]).ok();
    let mut manifest: serde_json::Value = serde_json::from_slice(&image.manifest).unwrap();
    for size in [0, image.blobs[0].len() + 1] {
        manifest["config"]["size"] = json!(size);
        let manifest = manifest.to_string();
        let kind = image.media_type.clone();
        world.registry.put_manifest("r", "wrong", &kind, manifest);
        let wrong = world.registry.reference("r:wrong");
        world.imgfs(&["inspect", &wrong]).fails(1, &["sha256:"]);
    }
}
