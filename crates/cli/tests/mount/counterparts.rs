//! Other programs' registries, pushes and unpacked trees.

use super::*;
use crate::process::run;
use crate::support::docker_registry::DockerRegistry;
use crate::support::image::write_layout;
use crate::support::programs::find;

#[test]
fn an_image_pushed_by_skopeo_to_docker_registry_is_what_umoci_unpacks() {
    let Some(world) = World::as_root() else {
        return;
    };
    let Some(programs) = find(&world::test_name(), &["docker-registry", "skopeo", "umoci"]) else {
        return;
    };
    // umoci 0.4 and Docker's formats know no zstd.
    let image = sample_with(gzip);
    let layout = world.path("layout");
    write_layout(&layout, &[("t", &image)]);
    let registry = DockerRegistry::start(&programs[0], &world.path(""), "");
    let from = format!("oci:{}:t", layout.display());
    let to = format!("{}/some/name:t", registry.address);
    let mut skopeo = world.command(&programs[1]);
    skopeo.args([
        "--insecure-policy",
        "copy",
        "-q",
        "--preserve-digests",
        "--dest-tls-verify=false",
    ]);
    run(skopeo.args([&from, &format!("docker://{to}")])).ok();
    let mount = world.mount(&to, &[]);
    // What skopeo calls the image, we do.
    let mut skopeo = world.command(&programs[1]);
    skopeo.args(["inspect", "--tls-verify=false", "--format", "{{.Digest}}"]);
    let digest = run(skopeo.arg(format!("docker://{to}"))).ok();
    let ours = world.imgfs(&["inspect", "--json", &to]).ok();
    let ours: serde_json::Value = serde_json::from_str(&ours).unwrap();
    assert_eq!(ours["digest"], digest.trim());
    // Node by node what umoci makes of it. (umoci leaves out security.capability if it may not set
    // it, and overlayfs does not come into this.)
    let bundle = world.path("bundle");
    let mut umoci = world.command(&programs[2]);
    let tagged = format!("{}:t", layout.display());
    run(umoci.args(["unpack", "--image", &tagged]).arg(&bundle)).ok();
    let listing = |root: std::path::PathBuf| {
        let script = r#"
            find . -mindepth 1 -printf "%P|%y|%m|%U|%G|%n|%l|%T@\n" | sort
            find . -type f -print0 | sort -z | xargs -0 sha256sum
            find . -type f -print0 | sort -z | xargs -0 getfattr -h -d -m - -e hex"#;
        let mut shell = world.command("sh");
        run(shell.args(["-euc", script]).current_dir(root)).ok()
    };
    let (unpacked, mounted) = (listing(bundle.join("rootfs")), listing(mount.dir.clone()));
    let differing: Vec<_> = unpacked
        .lines()
        .zip(mounted.lines())
        .filter(|(a, b)| a != b)
        .collect();
    assert!(
        unpacked == mounted,
        "umoci and imgfs differ: {differing:#?}"
    );
}

#[test]
fn an_archive_of_skopeo_has_the_same_tree() {
    let Some(world) = World::mounting() else {
        return;
    };
    let Some(programs) = find(&world::test_name(), &["skopeo"]) else {
        return;
    };
    write_layout(&world.path("layout"), &[("t", &sample_with(gzip))]);
    let from = format!("oci:{}:t", world.path("layout").display());
    let archive = format!("docker-archive:{}", world.path("archive.tar").display());
    let mut skopeo = world.command(&programs[0]);
    skopeo.args([
        "--insecure-policy",
        "copy",
        "-q",
        &from,
        &format!("{archive}:busybox:1"),
    ]);
    run(&mut skopeo).ok();
    let mount = world.mount(&archive, &[]);
    assert_eq!(mount.text("etc/release"), "top\n");
    assert_eq!(mount.names("hidden"), ["y"]);
    assert!(mount.read("noise") == noise(1, 3_000_000));
}
