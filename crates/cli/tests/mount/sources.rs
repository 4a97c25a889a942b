//! The same image from a registry, an OCI layout and both forms of docker archives: the same tree.

use super::*;
use crate::process::run;
use crate::support::image::{write_layout, write_new_archive, write_old_archive};

/// Everything that a tree shows, contents included.
fn listing(world: &World, mount: &Mount) -> String {
    let mut find = world.command("find");
    let format = "%P %y %m %U %G %s %n %l %T@\n";
    let metadata = run(find.args([".", "-printf", format]).current_dir(&mount.dir)).ok();
    let mut metadata: Vec<&str> = metadata.lines().collect();
    metadata.sort_unstable();
    let mut sums = world.command("sh");
    let script = "find . -type f -print0 | sort -z | xargs -0 sha256sum";
    let sums = run(sums.args(["-euc", script]).current_dir(&mount.dir)).ok();
    format!("{}\n{sums}", metadata.join("\n"))
}

#[test]
fn every_source_gives_the_same_tree() {
    let Some(world) = World::mounting() else {
        return;
    };
    let image = sample();
    let registry = world.mount(&world.put(&image), &[]);
    let expected = listing(&world, &registry);
    assert_eq!(expected.matches(" f 4755 ").count(), 2, "{expected}");
    let path = |name: &str| world.path(name).display().to_string();
    write_layout(&world.path("layout"), &[("t", &image)]);
    write_old_archive(&world.path("old.tar"), &[("r:t", &image)]);
    write_new_archive(&world.path("new.tar"), &[("r:t", &image)]);
    let references = [
        format!("oci:{}:t", path("layout")),
        format!("oci:{}", path("layout")),
        format!("docker-archive:{}", path("old.tar")),
        format!("docker-archive:{}:r:t", path("new.tar")),
    ];
    for reference in references {
        // With a cache of its own, each is streamed from its source.
        let cache = format!("--cache-dir={}", path(&reference.replace(['/', ':'], "_")));
        let cold = world.mount(&reference, &[&cache]);
        assert_eq!(listing(&world, &cold), expected, "{reference}");
        cold.end(&world);
        world.imgfs(&[&cache, "cache", "evict", "--data"]).ok();
        let lazy = world.mount(&reference, &[&cache]);
        assert_eq!(listing(&world, &lazy), expected, "{reference}, lazily");
        lazy.end(&world);
    }
}

#[test]
fn a_relative_layout_works_in_the_background() {
    let Some(world) = World::mounting() else {
        return;
    };
    write_layout(&world.path("layout"), &[("t", &sample())]);
    let dir = world.mountpoint();
    let mut command = world.command(IMGFS);
    let parent = world.path("");
    run(command
        .args(["mount", "oci:layout:t"])
        .arg(dir.file_name().unwrap())
        .current_dir(&parent))
    .ok();
    let mount = world.adopt(dir.clone());
    mount.end(&world);
    run(world.command(IMGFS).args(["cache", "evict", "--data"])).ok();
    let mut command = world.command(IMGFS);
    run(command
        .args(["mount", "oci:layout:t"])
        .arg(dir.file_name().unwrap())
        .current_dir(&parent))
    .ok();
    let mount = world.adopt(dir);
    assert!(
        mount.read("noise") == noise(1, 3_000_000),
        "read after the daemon left the directory"
    );
}

#[test]
fn a_layout_without_the_tag_lists_what_there_is() {
    let Some(world) = World::mounting() else {
        return;
    };
    write_layout(
        &world.path("layout"),
        &[("one", &sample()), ("two", &sample_with(gzip))],
    );
    let layout = format!("oci:{}", world.path("layout").display());
    world.refused(&format!("{layout}:three"), &[], &["three", "one", "two"]);
    world.refused(&layout, &[], &["one", "two"]);
}

#[test]
fn a_corrupt_layout_is_noticed_at_first_contact_and_later() {
    let Some(world) = World::mounting() else {
        return;
    };
    let image = sample();
    write_layout(&world.path("layout"), &[("t", &image)]);
    let reference = format!("oci:{}:t", world.path("layout").display());
    let layer = imgfs_formats::oci::Digest::sha256(&image.layers[0].blob).hex();
    let blob = world.path("layout/blobs/sha256").join(&layer);
    let good = std::fs::read(&blob).unwrap();
    let mut bad = good.clone();
    let middle = bad.len() / 2;
    bad[middle] ^= 1;
    std::fs::write(&blob, &bad).unwrap();
    world.refused(&reference, &[], &[&layer, "corrupt"]);
    std::fs::write(&blob, &good).unwrap();
    world.mount(&reference, &[]).end(&world);
    world.evict();
    std::fs::write(&blob, &bad).unwrap();
    let mount = world.mount(&reference, &[]);
    let err = std::fs::read(mount.path("noise")).unwrap_err();
    assert_eq!(err.raw_os_error(), Some(libc::EIO), "{err}");
    assert_eq!(mount.text("old/b"), "b", "another span");
}
