//! Answers without a mount: `ls`, `cat`, `stat`, `cp`, `inspect`, `manifest inspect`,
//! `completions`.

use std::os::unix::fs::{MetadataExt, PermissionsExt};

use super::*;
use crate::support::image::{OCI_INDEX, image_index};

/// A world with the sample.
fn world() -> (World, String) {
    let world = World::new();
    let reference = world.put(&sample());
    (world, reference)
}

/// A small top layer over a big one.
fn small_over_big() -> Image {
    host_image(vec![
        gzip(&[
            file("big", noise(11, 3_000_000)),
            dir("shared"),
            file("shared/low", "l"),
            dir("replaced"),
            file("replaced/low", "l"),
        ]),
        gzip(&[
            dir("replaced"),
            opaque("replaced"),
            file("replaced/top", "t"),
            file("shared/top", "T"),
        ]),
    ])
}

#[test]
fn ls_lists_like_ls() {
    let (world, reference) = world();
    let names = "bin\netc\nhidden\nnoise\nnull\nold\npipe\nsrv\nvar\nzeros\n";
    assert_eq!(world.imgfs(&["ls", &reference]).ok(), names);
    assert_eq!(world.imgfs(&["ls", &reference, "old"]).ok(), "b\n");
    assert_eq!(world.imgfs(&["ls", &reference, "/hidden/"]).ok(), "y\n");
    let long = world.imgfs(&["ls", "-l", &reference, "/bin"]).ok();
    let row = |name: &str| {
        long.lines()
            .find(|row| row.contains(name))
            .unwrap()
            .to_owned()
    };
    assert!(row(" su").starts_with("-rwsr-xr-x"), "{long}");
    assert!(row(" sh ").ends_with("sh -> ../usr/bin/shell"), "{long}");
    let long = world.imgfs(&["ls", "-l", &reference]).ok();
    assert!(long.contains("1, 3"), "the device's number\n{long}");
    assert!(long.contains("2023-11-14 22:13:20  srv"), "{long}");
    world
        .imgfs(&["ls", &reference, "/absent"])
        .fails(1, &["/absent", "no such file", &reference]);
}

#[test]
fn ls_speaks_json() {
    let (world, reference) = world();
    let list = world.imgfs(&["ls", "--json", &reference, "/etc"]).ok();
    let list: serde_json::Value = serde_json::from_str(&list).unwrap();
    let entry = |name: &str| {
        let found = list
            .as_array()
            .unwrap()
            .iter()
            .find(|entry| entry["name"] == name);
        found.unwrap().clone()
    };
    let owned = entry("owned");
    assert_eq!(
        (&owned["uid"], &owned["gid"]),
        (&1000.into(), &4_000_000_000_u64.into())
    );
    assert_eq!(
        (&owned["mode"], &owned["kind"]),
        (&"0640".into(), &"file".into())
    );
    let fraction = entry("fraction");
    assert_eq!(
        (&fraction["mtime"], &fraction["mtime_nanoseconds"]),
        (&1_234_567_890.into(), &123_456_789.into())
    );
    assert_eq!(owned["mtime_nanoseconds"], 0, "always there");
}

#[test]
fn cat_prints_files_byte_for_byte() {
    let (world, reference) = world();
    assert_eq!(
        world
            .imgfs(&["cat", &reference, "etc/release", "/old/b"])
            .ok(),
        "top\nb"
    );
    let noise_again = world.imgfs(&["cat", &reference, "/noise"]).ok_bytes();
    assert!(noise_again == noise(1, 3_000_000));
    world
        .imgfs(&["cat", &reference, "/etc"])
        .fails(1, &["/etc is a directory"]);
    world
        .imgfs(&["cat", &reference, "/null"])
        .fails(1, &["/null is a character device"]);
    world
        .imgfs(&["cat", &reference, "/old/a"])
        .fails(1, &["/old/a", "no such file"]);
    world
        .imgfs(&["cat", &reference, "/bin/sh"])
        .fails(1, &["no such file"]);
}

#[test]
fn a_closed_pipe_is_no_error() {
    let (world, reference) = world();
    let mut shell = world.command("sh");
    let script = "set -e; { \"$0\" cat \"$1\" /noise; echo \"code $?\" >&2; } | head -c 10 | wc -c";
    let outcome = process::run(shell.args(["-c", script, IMGFS, &reference]));
    assert_eq!(outcome.ok_saying(&["code 0"]).trim(), "10");
}

#[test]
fn stat_tells_all() {
    let (world, reference) = world();
    let text = world.imgfs(&["stat", &reference, "/bin/capable"]).ok();
    for word in [
        "kind    file",
        "mode    0644",
        "owner   0:0",
        "size    1",
        "user.note",
        "security.capability",
    ] {
        assert!(text.contains(word), "{text}");
    }
    let text = world.imgfs(&["stat", &reference, "/bin/sh"]).ok();
    assert!(text.contains("/bin/sh -> ../usr/bin/shell"), "{text}");
    let json = world
        .imgfs(&["stat", "--json", &reference, "/bin/sudo"])
        .ok();
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&json["links"], &json["mode"]), (&2.into(), &"4755".into()));
}

#[test]
fn cp_copies_files_and_trees() {
    let (world, reference) = world();
    let cp = |from: &str, to: &str| {
        let dest = world.path(to);
        world.imgfs(&[
            "cp".as_ref(),
            reference.as_ref(),
            from.as_ref(),
            dest.as_os_str(),
        ])
    };
    std::fs::create_dir(world.path("into")).unwrap();
    cp("/etc/release", "into").ok();
    cp("/etc/fraction", "renamed").ok();
    assert_eq!(
        std::fs::read_to_string(world.path("into/release")).unwrap(),
        "top\n"
    );
    let renamed = world.path("renamed").metadata().unwrap();
    assert_eq!(
        (renamed.mtime(), renamed.mtime_nsec()),
        (1_234_567_890, 123_456_789)
    );
    std::fs::write(world.path("into/release"), "before").unwrap();
    cp("/etc/release", "into").ok();
    assert_eq!(
        std::fs::read_to_string(world.path("into/release")).unwrap(),
        "top\n",
        "what is there is replaced"
    );
    cp("/noise", "absent/dir").fails(1, &["absent/dir"]);
    cp("/bin", "bin").ok();
    let copied = |name: &str| world.path(name).symlink_metadata().unwrap();
    assert_eq!(
        copied("bin/su").ino(),
        copied("bin/sudo").ino(),
        "hard links stay links"
    );
    let target = std::fs::read_link(world.path("bin/sh")).unwrap();
    assert_eq!(target.to_str(), Some("../usr/bin/shell"));
    cp("/var", "var").ok();
    let sticky = if world::is_root() { 0o1777 } else { 0o777 };
    assert_eq!(copied("var/tmp").permissions().mode() & 0o7777, sticky);
    cp("/zeros", "zeros").ok();
    assert!(std::fs::read(world.path("zeros")).unwrap() == vec![0; 2_000_000]);
    if world::is_root() {
        assert_eq!(copied("bin/su").permissions().mode() & 0o7777, 0o4755);
        cp("/", "everything").ok();
        assert_eq!(copied("everything/null").rdev(), rustix::fs::makedev(1, 3));
        assert_eq!(
            (
                copied("everything/etc/owned").uid(),
                copied("everything/etc/owned").gid()
            ),
            (1000, 4_000_000_000)
        );
        assert_eq!(copied("everything/srv").mtime_nsec(), 5);
    }
}

#[test]
fn inspect_names_digests_and_layers() {
    let world = World::new();
    let here = sample();
    world.put(&here);
    let other = image("linux/s390x", vec![gzip(&[file("o", "o")])]);
    let index = image_index(&[(&host(), &here), ("linux/s390x", &other)]);
    let root = world
        .registry
        .put_manifest("r", "list", OCI_INDEX, index.clone());
    let reference = world.registry.reference("r:list");
    let json: serde_json::Value =
        serde_json::from_str(&world.imgfs(&["inspect", "--json", &reference]).ok()).unwrap();
    let bytes = index.len() as u64 + document_bytes(&here);
    assert_eq!(world.registry.bytes(), bytes, "no layer is fetched");
    let digest = |bytes: &[u8]| imgfs_formats::oci::Digest::sha256(bytes).to_string();
    assert_eq!(json["digest"], root.digest.to_string());
    assert_eq!(json["manifest"], digest(&here.manifest));
    assert_eq!(json["id"], digest(&here.blobs[0]));
    assert_eq!(json["platform"], host());
    assert_eq!(json["config"]["Env"][0], "A=b");
    for (layer, expected) in json["layers"].as_array().unwrap().iter().zip(&here.layers) {
        assert_eq!(layer["digest"], digest(&expected.blob));
        assert_eq!(layer["diff_id"], digest(&expected.tar));
        assert_eq!(layer["size"], expected.blob.len());
    }
    let text = world.imgfs(&["inspect", &reference]).ok();
    assert!(text.contains(&root.digest.to_string()), "{text}");
    let raw = world.imgfs(&["manifest", "inspect", &reference]).ok_bytes();
    assert_eq!(raw, index, "the document as it is");
    let table = world.imgfs(&["manifest", "inspect", "-t", &reference]).ok();
    assert!(
        table.contains("linux/s390x") && table.contains(&host()),
        "{table}"
    );
}

#[test]
fn a_file_in_the_top_layer_costs_only_that_layer() {
    let world = World::new();
    let image = small_over_big();
    let reference = world.put(&image);
    let top = image.layers[1].blob.len() as u64 + document_bytes(&image);
    assert_eq!(world.imgfs(&["cat", &reference, "/shared/top"]).ok(), "T");
    assert_eq!(world.registry.bytes(), top);
    assert_eq!(world.imgfs(&["ls", &reference, "/replaced"]).ok(), "top\n");
    assert_eq!(
        world
            .imgfs(&["stat", "--json", &reference, "/replaced/top"])
            .ok()
            .matches("0644")
            .count(),
        1
    );
    let dest = world.path("copy");
    world
        .imgfs(&[
            "cp".as_ref(),
            reference.as_ref(),
            "/replaced".as_ref(),
            dest.as_os_str(),
        ])
        .ok();
    assert_eq!(
        world.registry.bytes(),
        top,
        "an opaque directory hides all below"
    );
    assert_eq!(
        world.imgfs(&["ls", &reference, "/shared"]).ok(),
        "low\ntop\n"
    );
    assert_eq!(
        world.registry.bytes(),
        top + image.layers[0].blob.len() as u64
    );
    // From now on everything is indexed, and read from the cache.
    world.registry.forget_requests();
    assert!(world.imgfs(&["cat", &reference, "/big"]).ok_bytes() == noise(11, 3_000_000));
    assert_eq!(world.registry.log(), ["HEAD /v2/r/manifests/t 200"]);
}

#[test]
fn a_warm_cache_answers_offline() {
    let (world, reference) = world();
    world.imgfs(&["cat", &reference, "/noise"]).ok();
    world.registry.forget_requests();
    assert_eq!(
        world
            .imgfs(&["cat", "--offline", &reference, "/etc/release"])
            .ok(),
        "top\n"
    );
    assert_eq!(world.registry.log(), [""; 0]);
}

#[test]
fn names_from_images_cannot_harm_scripts() {
    let world = World::new();
    let reference = world.put(&host_image(vec![gzip(&[
        file("a\u{1b}[2Jb", "x"),
        file("line\nbreak", "y"),
    ])]));
    let raw = world.imgfs(&["ls", &reference]).ok();
    assert_eq!(
        raw, "a\u{1b}[2Jb\nline\nbreak\n",
        "piped, names are what they are, as ls does it"
    );
    let long = world.imgfs(&["ls", "-l", &reference]).ok();
    assert!(
        long.contains("a\\u{1b}[2Jb") && long.contains("line\\nbreak"),
        "{long}"
    );
}

#[test]
fn completions_are_scripts() {
    let world = World::new();
    let bash = world.imgfs(&["completions", "bash"]).ok();
    assert!(bash.contains("_imgfs()"), "{bash}");
    std::fs::write(world.path("script"), bash).unwrap();
    process::run(world.command("bash").arg("-n").arg(world.path("script"))).ok();
    for shell in ["zsh", "fish"] {
        assert!(world.imgfs(&["completions", shell]).ok().contains("imgfs"));
    }
}
