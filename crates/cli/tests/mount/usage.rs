//! Wrong use: what is wrong, and what to do instead.

use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::process::run;

#[test]
fn bad_references() {
    let world = World::new();
    let dir = world.mountpoint();
    let check = |reference: &str, words: &[&str]| {
        let outcome = world.imgfs(&["mount".as_ref(), reference.as_ref(), dir.as_os_str()]);
        outcome.fails(1, words);
        world.imgfs(&["ls", reference]).fails(1, words);
    };
    check("", &["the image name is empty"]);
    check("Golang", &["lower case", "\"golang\""]);
    check("https://ghcr.io/a/b", &["is a URL", "\"ghcr.io/a/b\""]);
    check("golang:", &["is no tag"]);
    check("golang@sha256:12", &["64 hex digits"]);
    check("oci:", &["the path is missing"]);
    check("../golang", &["no "]);
    check("oci:/does/not/exist", &["/does/not/exist"]);
    check("docker-archive:/does/not/exist", &["/does/not/exist"]);
}

#[test]
fn bad_mountpoints() {
    let Some(world) = World::mounting() else {
        return;
    };
    let reference = world.put(&sample());
    let mount =
        |dir: &std::path::Path| run(world.command(IMGFS).args(["mount", &reference]).arg(dir));
    let absent = world.path("absent");
    mount(&absent).fails(
        1,
        &[&format!("{} does not exist: run `mkdir", absent.display())],
    );
    let file = world.path("file");
    std::fs::write(&file, "").unwrap();
    mount(&file).fails(1, &[&format!("{} is not a directory", file.display())]);
    mount(&file.join("below")).fails(1, &["file/below"]);
    assert_eq!(world.registry.log(), [""; 0], "nothing is fetched for that");
}

#[test]
fn a_mountpoint_in_use_names_what_is_there() {
    let Some(world) = World::mounting() else {
        return;
    };
    let reference = world.put(&sample());
    let mount = world.mount(&reference, &[]);
    let again = run(world
        .command(IMGFS)
        .args(["mount", &reference])
        .arg(&mount.dir));
    let words = [&reference, "is already mounted on", "run `imgfs unmount"].map(|word: &str| word);
    again.fails(1, &words);
    assert_eq!(mount.text("etc/release"), "top\n");
}

#[test]
fn unknown_options_and_commands_are_usage_errors() {
    let Some(world) = World::mounting() else {
        return;
    };
    let reference = world.put(&sample());
    world.refused(
        &reference,
        &["-o", "ro,frobnicate=1"],
        &["\"frobnicate=1\"", "imgfs mount --help"],
    );
    world
        .imgfs(&["mount", "--frobnicate"])
        .fails(2, &["--frobnicate"]);
    world.imgfs(&["mount", "one"]).fails(2, &["DIR"]);
    world.imgfs(&["frobnicate"]).fails(2, &["frobnicate"]);
    world
        .imgfs(&["--cache-limit", "3 pints", "ps"])
        .fails(2, &["unknown unit", "500MB"]);
    assert!(
        world
            .imgfs(&["--help"])
            .ok()
            .contains("imgfs mount golang:latest")
    );
    assert!(world.imgfs(&["--version"]).ok().starts_with("imgfs "));
}

#[test]
fn unmounting_what_is_not_mounted() {
    let world = World::new();
    let dir = world.mountpoint();
    let dir = dir.to_str().unwrap();
    world
        .imgfs(&["unmount", dir])
        .fails(1, &["no image is mounted on", dir, "imgfs ps"]);
    world
        .imgfs(&["status", dir])
        .fails(1, &["no image is mounted on", dir, "imgfs ps"]);
    world
        .imgfs(&["status", "/does/not/exist"])
        .fails(1, &["/does/not/exist"]);
}

#[test]
fn a_cache_directory_that_cannot_be_used_names_the_option() {
    let Some(world) = World::mounting() else {
        return;
    };
    let reference = world.put(&sample());
    let file = world.path("file");
    std::fs::write(&file, "").unwrap();
    let option = format!("--cache-dir={}", file.display());
    let words = ["--cache-dir or IMGFS_CACHE_DIR", file.to_str().unwrap()];
    world.refused(&reference, &[&option], &words);
    if !world::is_root() {
        let closed = world.path("closed");
        std::fs::create_dir(&closed).unwrap();
        std::fs::set_permissions(&closed, std::fs::Permissions::from_mode(0o500)).unwrap();
        world.refused(
            &reference,
            &[&format!("--cache-dir={}", closed.display())],
            &["closed"],
        );
    }
}

/// The daemon leaves its directory for `/`, and once wrote what came later below that.
#[test]
fn a_relative_cache_directory_is_where_it_was_meant() {
    let Some(world) = World::mounting() else {
        return;
    };
    let reference = world.put(&sample());
    let dir = world.mountpoint();
    let mut command = world.command(IMGFS);
    command
        .args(["--cache-dir", "relative-imgfs-cache", "mount", &reference])
        .arg(&dir);
    run(command.current_dir(world.path(""))).ok();
    let mount = world.adopt(dir);
    process::wait_for("the diff_ids", || {
        world.status(&mount)["layers"]
            .as_array()
            .unwrap()
            .iter()
            .all(|layer| layer["diff_id"] == "ok")
    });
    assert!(world.path("relative-imgfs-cache/v1/layers").is_dir());
    assert!(!std::path::Path::new("/relative-imgfs-cache").exists());
}
