//! `imgfs diff`: what differs, from how little.

mod formats;
mod oracle;
mod text;
mod unopened;

use super::*;
use crate::listing::{dir, fifo, file, hard_link, noise, opaque, symlink, whiteout};
use crate::support::image::{OCI_INDEX, image_index, write_layout};

/// Uncompressed size of the base layers here, which do not compress.
const BASE: usize = 3 << 20;

/// Puts two images into the registry; their references.
fn put_both(world: &World, old: Vec<Layer>, new: Vec<Layer>) -> [String; 2] {
    [("old", old), ("new", new)].map(|(tag, layers)| {
        world.registry.put_image("r", tag, &host_image(layers));
        world.registry.reference(&format!("r:{tag}"))
    })
}

/// What `imgfs diff` prints with these options.
#[track_caller]
fn diff(world: &World, options: &[&str], images: &[String; 2]) -> String {
    let arguments = [&["diff"], options, &[&images[0], &images[1]]].concat();
    world.imgfs(&arguments).ok()
}

fn base() -> Layer {
    gzip(&[
        dir("usr"),
        file("usr/large", noise(1, BASE)),
        dir("app"),
        file("app/old", "old"),
    ])
}

#[test]
fn every_kind_of_change_in_every_form() {
    let world = World::new();
    let old = gzip(&[
        dir("etc"),
        file("etc/content", "one\n"),
        file("etc/gone", "x"),
        file("etc/mode", ""),
        file("etc/owner", ""),
        file("etc/same", "same"),
        file("etc/time", "t"),
        file("etc/type", "a file"),
        file("etc/xattr", ""),
        symlink("etc/link", "a"),
        dir("tree"),
        file("tree/in", "1234"),
    ]);
    let new = gzip(&[
        dir("etc"),
        file("etc/content", "three\n"),
        file("etc/mode", "").mode(0o4755),
        file("etc/owner", "").owner(1, 2),
        file("etc/same", "same"),
        file("etc/time", "t").mtime(7, 0),
        fifo("etc/type").mode(0o644),
        file("etc/xattr", "").xattr("user.a", b"b"),
        symlink("etc/link", "b"),
        dir("added"),
        file("added/\u{fc}\x1b", noise(1, 2000)),
    ]);
    let images = put_both(&world, vec![old], vec![new]);
    let lines = "A /added\nA /added/\u{fc}\x1b\nM /etc/content\nD /etc/gone\nM /etc/link\nM /etc/mode\nM /etc/owner\n\
                 T /etc/type\nM /etc/xattr\nD /tree\nD /tree/in\n";
    let arguments = ["diff", &images[0], &images[1]];
    let said = world
        .imgfs(&arguments)
        .ok_saying(&["1 path of which only the modification time differs"]);
    assert_eq!(said, lines);
    let quiet = world.imgfs(&["diff", "-q", &images[0], &images[1]]);
    assert_eq!((quiet.stderr.as_str(), quiet.code), ("", Some(0)));
    let by_git = diff(&world, &["--name-status"], &images);
    let tabs: String = lines
        .lines()
        .map(|line| line.replacen(' ', "\t", 1) + "\n")
        .collect();
    assert_eq!(by_git, tabs);
    let zeros = lines.replace([' ', '\n'], "\0");
    assert_eq!(diff(&world, &["-z"], &images), zeros);
    assert_eq!(diff(&world, &["-z", "--name-status"], &images), zeros);
    let details = diff(&world, &["-v", "--times"], &images);
    for line in [
        "M /etc/content [content]",
        "M /etc/mode [mode]",
        "M /etc/owner [owner]",
        "M /etc/time [mtime]",
        "T /etc/type [type]",
        "M /etc/xattr [xattrs]",
    ] {
        assert!(details.lines().any(|one| one == line), "{line}\n{details}");
    }
    let sizes = diff(&world, &["--stat"], &images);
    for line in [
        " | +2.0 kB\n",
        "\nM /etc/content | 4 B -> 6 B (+2 B)\n",
        "\nD /etc/gone    | -1 B\n",
        "\nM /etc/xattr   | xattrs\n",
        "2 paths added, 3 removed, 6 changed, +1.9 kB\n",
    ] {
        assert!(sizes.contains(line), "{line}\n{sizes}");
    }
    let json = schema::check("diff", &diff(&world, &["--json"], &images));
    let row = |path: &str| {
        let rows = json.as_array().unwrap();
        rows.iter().find(|row| row["path"] == path).unwrap()
    };
    assert_eq!(row("/added/\u{fc}\x1b")["new"]["size"], 2000);
    assert_eq!(row("/etc/type")["changed"], serde_json::json!(["type"]));
    assert_eq!(row("/etc/link")["old"]["target"], "a");
    assert_eq!(row("/etc/mode")["new"]["mode"], "4755");
    assert_eq!(row("/etc/gone")["status"], "removed");
    assert_eq!(
        diff(&world, &[], &[images[0].clone(), images[0].clone()]),
        ""
    );
    let one = world.imgfs(&["diff", &images[0], &images[1], "/tree"]).ok();
    assert_eq!(one, "D /tree\nD /tree/in\n");
}

#[test]
fn sizes_align_and_count_each_file_once() {
    let world = World::new();
    let long = "l".repeat(100);
    let old = gzip(&[
        file("a", "12345"),
        file("gone", "123"),
        hard_link("b", "gone"),
    ]);
    let new = gzip(&[
        file("a", "12345"),
        hard_link("again", "a"),
        file("b", "123"),
        file(&long, "1"),
        file("\u{6f22}\u{5b57}", "12"),
    ]);
    let images = put_both(&world, vec![old], vec![new]);
    let expected = format!(
        "A /again | +5 B\nD /gone  | -3 B\nA /{long} | +1 B\nA /\u{6f22}\u{5b57}  | +2 B\n\
         3 paths added, 1 removed, 0 changed, +3 B\n"
    );
    assert_eq!(diff(&world, &["--stat"], &images), expected);
}

#[test]
fn exit_codes_are_those_of_diff() {
    let world = World::new();
    let [old, new] = put_both(
        &world,
        vec![gzip(&[file("a", "a")])],
        vec![gzip(&[file("a", "b")])],
    );
    world.imgfs(&["diff", &old, &new]).ok();
    world.imgfs(&["diff", "--exit-code", &old, &old]).ok();
    world
        .imgfs(&["diff", "--exit-code", &old, &new])
        .fails(1, &[]);
    let nowhere = world.registry.reference("r:nowhere");
    world
        .imgfs(&["diff", "--exit-code", &old, &nowhere])
        .fails(2, &["r:nowhere"]);
    world
        .imgfs(&["diff", &old, &nowhere])
        .fails(1, &["r:nowhere"]);
    let nowhere = format!("/b: no such file or directory in {old} or {new}");
    world
        .imgfs(&["diff", &old, &new, "/b"])
        .fails(1, &[&nowhere]);
    world
        .imgfs(&["diff", "--exit-code", &old, &new, "/b"])
        .fails(2, &[&nowhere]);
    world.imgfs(&["diff", &old]).fails(1, &["name two images"]);
    world
        .imgfs(&["diff", &old, "/etc"])
        .fails(1, &["/etc is a path"]);
}

#[test]
fn a_rebuilt_last_layer_costs_that_layer_alone() {
    let world = World::new();
    let last = |seed| {
        gzip(&[
            dir("app"),
            file("app/program", noise(seed, 1 << 20)),
            file("app/same", "s"),
        ])
    };
    let images = put_both(&world, vec![base(), last(2)], vec![base(), last(3)]);
    world.registry.forget_requests();
    assert_eq!(diff(&world, &[], &images), "M /app/program\n");
    let fetched = world.registry.bytes();
    assert!(
        fetched < (2 << 20) + (64 << 10),
        "{fetched} bytes for two layers of 1 MiB"
    );
    let base_digest = imgfs_formats::oci::Digest::sha256(&base().blob).to_string();
    assert!(
        !world
            .registry
            .requests()
            .iter()
            .any(|seen| seen.path.contains(&base_digest))
    );
    // What the first image has is known now.
    let other = put_both(&world, vec![base(), last(2)], vec![base(), last(4)]);
    world.registry.forget_requests();
    assert_eq!(diff(&world, &[], &other), "M /app/program\n");
    let fetched = world.registry.bytes();
    assert!(
        fetched < (1 << 20) + (64 << 10),
        "{fetched} bytes for a layer of 1 MiB"
    );
    // All of it is in indexes now.
    world.evict();
    world.registry.forget_requests();
    assert_eq!(diff(&world, &[], &other), "M /app/program\n");
    assert!(
        world.registry.bytes() < 8 << 10,
        "{:?}",
        world.registry.log()
    );
}

#[test]
fn one_more_layer_costs_that_layer_if_the_base_is_known() {
    let world = World::new();
    let more = gzip(&[
        dir("app"),
        file("app/new", noise(2, 1 << 20)),
        file("app/old", "new"),
    ]);
    let images = put_both(&world, vec![base()], vec![base(), more]);
    world.imgfs(&["ls", "-l", &images[0], "/"]).ok();
    world.registry.forget_requests();
    assert_eq!(diff(&world, &[], &images), "A /app/new\nM /app/old\n");
    let fetched = world.registry.bytes();
    assert!(
        fetched < (1 << 20) + (64 << 10),
        "{fetched} bytes for a layer of 1 MiB"
    );
}

#[test]
fn shared_layers_are_opened_from_the_top_until_all_is_known() {
    let world = World::new();
    let middle = gzip(&[
        dir("app"),
        opaque("app"),
        file("app/a", "1"),
        dir("lib"),
        file("lib/x", noise(3, 4096)),
    ]);
    let top = gzip(&[dir("app"), file("app/b", "2")]);
    let images = put_both(
        &world,
        vec![base(), middle.clone()],
        vec![base(), middle, top],
    );
    world.registry.forget_requests();
    // The middle layer says all that there is in /app; the base is not needed.
    assert_eq!(diff(&world, &["--all"], &images), "A /app/b\n");
    let fetched = world.registry.bytes();
    assert!(fetched < 64 << 10, "{fetched}");
}

#[test]
fn platforms_and_layouts_are_compared_too() {
    let world = World::new();
    let layer = |text: &str| gzip(&[dir("bin"), file("bin/tool", text), file("readme", "r")]);
    let amd64 = image("linux/amd64", vec![layer("for amd64")]);
    let arm64 = image("linux/arm64", vec![layer("for arm64")]);
    let list = image_index(&[("linux/amd64", &amd64), ("linux/arm64", &arm64)]);
    for one in [&amd64, &arm64] {
        world.registry.put_image("r", "x", one);
    }
    world.registry.put_manifest("r", "list", OCI_INDEX, list);
    let name = world.registry.reference("r:list");
    let both = "--platforms=linux/amd64,linux/arm64";
    let check = |arguments: &[&str]| world.imgfs(arguments).ok();
    assert_eq!(check(&["diff", both, &name]), "M /bin/tool\n");
    assert_eq!(check(&["diff", both, &name, "/readme"]), "");
    assert_eq!(check(&["diff", both, &name, &name, "bin"]), "M /bin/tool\n");
    assert_eq!(check(&["diff", "--platform=linux/arm64", &name, &name]), "");
    let wrong = world.imgfs(&["diff", "--platforms=linux/amd64", &name]);
    wrong.fails(1, &["name two"]);
    let layout = world.path("layout");
    write_layout(&layout, &[("a", &amd64)]);
    let layout = format!("oci:{}:a", layout.display());
    assert_eq!(
        check(&[
            "diff",
            "--platforms=linux/amd64,linux/arm64",
            &layout,
            &name
        ]),
        "M /bin/tool\n"
    );
}

#[test]
fn layers_of_one_image() {
    let world = World::new();
    let layers = vec![
        gzip(&[dir("a"), file("a/x", "1"), file("a/y", "1")]),
        gzip(&[dir("a"), file("a/x", "2"), file("a/z", "2")]),
        gzip(&[dir("a"), whiteout("a/y"), file("a/z", "2")]),
    ];
    let second = imgfs_formats::oci::Digest::sha256(&layers[1].blob).to_string();
    let name = world.put(&host_image(layers));
    let check = |layer: &str, expected: &str| {
        let found = world.imgfs(&["diff", "--layer", layer, &name]).ok();
        assert_eq!(found, expected, "{layer}");
    };
    check("0", "A /a\nA /a/x\nA /a/y\n");
    check("1", "M /a/x\nA /a/z\n");
    check(&second[..20], "M /a/x\nA /a/z\n");
    check("2", "D /a/y\n");
    check("0..2", "M /a/x\nD /a/y\nA /a/z\n");
    check("2..0", "M /a/x\nA /a/y\nD /a/z\n");
    let one = world.imgfs(&["diff", "--layer=0..2", &name, "a/z"]).ok();
    assert_eq!(one, "A /a/z\n");
    world
        .imgfs(&["diff", "--layer=3", &name])
        .fails(1, &["the image has 3 layers, the base is 0"]);
}
