//! `imgfs export` and `imgfs cp`: what is written, and what that fetches.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::*;
use crate::listing::{char_device, dir, fifo, file, hard_link, opaque, symlink, whiteout};
use crate::process::{Outcome, run};
use crate::support::image::write_layout;
use crate::support::registry::{Fault, On};
use crate::world::IMGFS;

/// A layer with a file of `size` bytes that has data at its start and in its middle only, as GNU
/// tar stores it.
fn sparse_layer(world: &World, size: u64) -> Layer {
    let script = r#"mkdir -p "$1/sparse"; cd "$1/sparse"
        printf start > holes; truncate -s "$2" holes
        printf middle | dd of=holes bs=1 seek="$(($2 / 2))" conv=notrunc status=none
        touch -d @1234567 holes
        tar --format=pax -S -c holes"#;
    let mut shell = world.command("sh");
    shell.args(["-euc", script, "sh"]).arg(world.path(""));
    gzip_layer(run(shell.arg(size.to_string())).ok_bytes().into())
}

/// Everything that an image can hold.
fn everything(world: &World) -> Image {
    let long = format!("long/{}/{}", "d".repeat(90), "f".repeat(200));
    let base = [
        dir("."),
        dir("etc"),
        file("etc/release", "base\n"),
        file("etc/fraction", "t").mtime(1_234_567_890, 123_456_789),
        file("etc/before", "t").pax("mtime", "-1234567.25"),
        file("etc/owned", "o")
            .owner(3_000_000, 4_000_000_000)
            .mode(0o640),
        file("etc/empty", ""),
        dir("bin"),
        file("bin/su", "#!/bin/sh\n").mode(0o4755),
        hard_link("bin/sudo", "bin/su").mode(0o4755),
        hard_link("bin/again", "bin/su").mode(0o4755),
        symlink("bin/sh", "../usr/bin/shell"),
        symlink("bin/far", &"x/".repeat(120)),
        file("bin/capable", "c")
            .xattr("user.note", b"hel\0lo\n")
            .xattr("security.capability", &CAPABILITY),
        dir("long"),
        dir(&format!("long/{}", "d".repeat(90))).xattr("user.of-directory", b"d"),
        file(&long, "l"),
        hard_link("long/link", &long),
        file("long/\u{fc}mlaut", "u"),
        file("", "bytes").named(b"long/\xff\xfe"),
        file("", "bytes").named(&[b"long/\xff".to_vec(), vec![b'y'; 150]].concat()),
        dir("old"),
        file("old/a", "a"),
        file("old/b", "b"),
        dir("hidden"),
        file("hidden/x", "x"),
        dir("tmp").mode(0o1777).mtime(1_700_000_000, 5),
        char_device("null", (1, 3)),
        char_device("high", (250, 1_000_000)),
        fifo("pipe"),
        file("noise", noise(1, 3_000_001)),
    ];
    let top = [
        whiteout("old/a"),
        dir("hidden"),
        opaque("hidden"),
        file("hidden/y", "y"),
        dir("etc").mode(0o750),
        file("etc/release", "top\n"),
        file("more", noise(2, 700_000)),
    ];
    host_image(vec![
        gzip(&base),
        sparse_layer(world, 5_000_000),
        gzip(&top),
    ])
}

/// A `security.capability` of version 2: `cap_net_raw=ep`.
const CAPABILITY: [u8; 20] = [1, 0, 0, 2, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// Runs a shell script, `$1` is the world's directory, `$2` imgfs, `$3` an image.
fn sh(world: &World, script: &str, reference: &str) -> Outcome {
    let mut shell = world.command("bash");
    shell.args(["-euo", "pipefail", "-c", script, "sh"]);
    run(shell.arg(world.path("")).args([IMGFS, reference]))
}

#[track_caller]
fn same_trees(world: &World, one: &str, other: &str) {
    let compare = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/compare-tree");
    let mut command = world.command(compare);
    let outcome = run(command.args([world.path(one), world.path(other)]));
    assert_eq!(
        outcome.code,
        Some(0),
        "{}",
        String::from_utf8_lossy(&outcome.stdout)
    );
}

#[test]
fn an_extracted_export_is_what_umoci_unpacks() {
    if !world::is_root() {
        support::programs::skip(&world::test_name(), "needs root");
        return;
    }
    if !has(&["umoci", "python3"]) {
        return;
    }
    let world = World::new();
    let image = everything(&world);
    let reference = world.put(&image);
    write_layout(&world.path("layout"), &[("t", &image)]);
    let script = r#"cd "$1"; mkdir extracted copied by-cp
        umoci unpack --image layout:t bundle
        extract="tar -x --xattrs --xattrs-include=* --same-owner --numeric-owner -p"
        "$2" export "$3" | $extract -C extracted
        "$2" cp "$3:/" - | $extract -C copied
        "$2" cp "$3:/." by-cp"#;
    sh(&world, script, &reference).ok();
    same_trees(&world, "bundle/rootfs", "extracted");
    same_trees(&world, "bundle/rootfs", "copied");
    same_trees(&world, "bundle/rootfs", "by-cp");
    let holes = world.path("extracted/holes").metadata().unwrap();
    assert!(
        holes.blocks() * 512 < holes.size() / 2,
        "holes are not written"
    );
}

#[test]
fn two_exports_are_the_same_bytes() {
    let world = World::new();
    let reference = world.put(&everything(&world));
    let first = world.imgfs(&["export", &reference]).ok_bytes();
    world.evict();
    let file = world.path("out/export.tar");
    std::fs::create_dir(world.path("out")).unwrap();
    let to_file = ["export", "-o", file.to_str().unwrap(), &reference];
    assert_eq!(world.imgfs(&to_file).ok(), "");
    assert!(std::fs::read(&file).unwrap() == first);
    assert_eq!(std::fs::read_dir(world.path("out")).unwrap().count(), 1);
    // Another program reads the same names: the parser of imgfs's own layers.
    let layer = gzip_layer(first.into());
    world
        .registry
        .put_image("r", "again", &host_image(vec![layer]));
    let again = world.registry.reference("r:again");
    let list = |reference: &str| {
        let directories = ["/", "/etc", "/bin", "/long"];
        directories.map(|path| world.imgfs(&["ls", "-la", reference, path]).ok())
    };
    assert_eq!(list(&again), list(&reference));
    let more = |reference: &str| {
        world
            .imgfs(&["cat", reference, "/more", "/holes"])
            .ok_bytes()
    };
    assert!(more(&again) == more(&reference));
}

#[test]
fn a_terabyte_of_holes_is_a_small_archive() {
    let world = World::new();
    let reference = world.put(&host_image(vec![sparse_layer(&world, 1 << 40)]));
    let tar = world.imgfs(&["export", &reference]).ok_bytes();
    assert!(tar.len() < 100_000, "{} bytes", tar.len());
    std::fs::write(world.path("export.tar"), tar).unwrap();
    let listed = sh(&world, r#"tar -tvf "$1/export.tar""#, "").ok();
    assert!(listed.contains("1099511627776"), "{listed}");
    let copied = world.path("holes");
    let dest = copied.to_str().unwrap();
    world
        .imgfs(&["cp", &format!("{reference}:/holes"), dest])
        .ok();
    assert_eq!(copied.metadata().unwrap().len(), 1 << 40);
}

/// Two layers whose files alternate by name.
fn two_layers_in_turn() -> Image {
    let layer = |number: u64| {
        let files: Vec<Member> = (0..24)
            .map(|i| {
                file(
                    &format!("{i:02}-{number}"),
                    noise(100 * number + i, 700_000),
                )
            })
            .collect();
        gzip(&files)
    };
    host_image(vec![layer(1), layer(2)])
}

#[test]
fn what_is_exported_is_fetched_once_in_long_runs() {
    let world = World::new();
    let image = two_layers_in_turn();
    let reference = world.put(&image);
    let expected = world.imgfs(&["export", &reference]).ok_bytes();
    let bytes: usize = image.layers.iter().map(|layer| layer.blob.len()).sum();
    let runs = |arguments: &[&str]| {
        world.evict();
        world.registry.forget_requests();
        let output = world.imgfs(arguments).ok_bytes();
        let log = world.registry.log();
        let runs = log.iter().filter(|line| line.contains("/blobs/")).count();
        let fetched = usize::try_from(world.registry.bytes()).unwrap();
        assert!(
            fetched <= bytes + bytes / 100,
            "{fetched} of {bytes}: {log:#?}"
        );
        (runs, output)
    };
    // Each of the 34 MB in runs of 8 MB; files one by one would be 48 requests, or more.
    let (export_runs, again) = runs(&["export", &reference]);
    assert!(again == expected);
    assert!(export_runs <= 10, "{export_runs} requests");
    let dest = world.path("copy");
    let (copy_runs, _) = runs(&["cp", &reference, "/", dest.to_str().unwrap()]);
    assert!(copy_runs <= 10, "{copy_runs} requests");
    assert!(std::fs::read(dest.join("07-2")).unwrap() == noise(207, 700_000));
}

#[test]
fn a_part_of_an_image_fetches_a_part() {
    let world = World::new();
    let members = [
        dir("a"),
        file("a/x", noise(1, 3_000_000)),
        dir("b"),
        file("b/y", noise(2, 20_000_000)),
    ];
    let reference = world.put(&host_image(vec![gzip(&members)]));
    world.imgfs(&["ls", &reference]).ok();
    world.evict();
    world.registry.forget_requests();
    let tar = world.imgfs(&["cp", &reference, "/a", "-"]).ok_bytes();
    assert!(tar.len() > 3_000_000);
    let fetched = world.registry.bytes();
    assert!(fetched < 6_000_000, "{fetched} bytes");
}

#[test]
fn cp_names_what_it_copies_as_it_was_asked_for() {
    let world = World::new();
    let reference = world.put(&everything(&world));
    let list = |arguments: &[&str]| {
        let tar = world.imgfs(&[&["cp"], arguments].concat()).ok_bytes();
        std::fs::write(world.path("cp.tar"), tar).unwrap();
        let names = sh(&world, r#"tar -tf "$1/cp.tar""#, "").ok();
        names.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let bin = [
        "bin/",
        "bin/again",
        "bin/capable",
        "bin/far",
        "bin/sh",
        "bin/su",
        "bin/sudo",
    ];
    assert_eq!(list(&[&reference, "/bin", "-"]), bin);
    assert_eq!(list(&[&format!("{reference}:/bin/"), "-"]), bin);
    let content = list(&[&reference, "bin/.", "-"]);
    assert_eq!(content[..2], ["./", "again"]);
    assert_eq!(list(&[&reference, "/bin/sudo", "-"]), ["sudo"]);
    assert_eq!(list(&[&reference, "/etc/../null", "-"]), ["null"]);
    let into = world.path("into");
    std::fs::create_dir(&into).unwrap();
    let dest = into.to_str().unwrap();
    world
        .imgfs(&["cp", &format!("{reference}:/bin/sudo"), dest])
        .ok();
    world.imgfs(&["cp", &reference, "/hidden/.", dest]).ok();
    let mut names: Vec<_> = (std::fs::read_dir(&into).unwrap())
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, ["sudo", "y"], "not the first of its hard links");
    world
        .imgfs(&["cp", &reference, dest])
        .fails(1, &["IMAGE:/PATH", &reference]);
    world
        .imgfs(&["cp", "-L", &reference, "/bin/sh", dest])
        .fails(1, &["/bin/sh"]);
}

/// Names in a directory, in their order.
fn names_in(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> = (std::fs::read_dir(dir).unwrap())
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn cp_replaces_what_is_there() {
    let world = World::new();
    let reference = world.put(&host_image(vec![gzip(&[
        dir("etc"),
        file("etc/conf", "new\n").mode(0o640),
        file("etc/also", "also\n"),
        hard_link("etc/hard", "etc/also"),
        symlink("etc/link", "conf"),
        fifo("etc/pipe"),
        dir("etc/d"),
    ])]));
    let into = world.path("into");
    std::fs::create_dir(&into).unwrap();
    let dest = into.to_str().unwrap();
    let read = |name: &str| std::fs::read_to_string(into.join(name)).unwrap();
    world.imgfs(&["cp", &reference, "/etc/conf", dest]).ok();
    std::fs::write(into.join("conf"), "mine, and longer\n").unwrap();
    std::fs::hard_link(into.join("conf"), into.join("kept")).unwrap();
    world.imgfs(&["cp", &reference, "/etc/conf", dest]).ok();
    assert_eq!(
        (
            read("conf"),
            into.join("conf").metadata().unwrap().mode() & 0o777
        ),
        ("new\n".to_owned(), 0o640)
    );
    assert_eq!(
        read("kept"),
        "mine, and longer\n",
        "its other name is another file now"
    );
    // A link that is in the way is replaced, too: what it leads to stays.
    std::fs::write(world.path("elsewhere"), "safe").unwrap();
    std::os::unix::fs::symlink(world.path("elsewhere"), into.join("also")).unwrap();
    for name in ["hard", "link", "pipe"] {
        std::fs::write(into.join(name), "mine").unwrap();
    }
    for _ in 0..2 {
        world.imgfs(&["cp", &reference, "/etc/.", dest]).ok();
        let expected = ["also", "conf", "d", "hard", "kept", "link", "pipe"];
        assert_eq!(names_in(&into), expected, "nothing stays beside them");
        assert_eq!(
            (read("also"), read("link")),
            ("also\n".to_owned(), "new\n".to_owned())
        );
        let inode = |name: &str| into.join(name).symlink_metadata().unwrap().ino();
        assert_eq!(inode("also"), inode("hard"));
        let pipe = into.join("pipe").symlink_metadata().unwrap().file_type();
        assert!(std::os::unix::fs::FileTypeExt::is_fifo(&pipe));
    }
    assert_eq!(
        std::fs::read_to_string(world.path("elsewhere")).unwrap(),
        "safe"
    );
    std::fs::remove_file(into.join("conf")).unwrap();
    std::fs::create_dir(into.join("conf")).unwrap();
    world
        .imgfs(&["cp", &reference, "/etc/.", dest])
        .fails(1, &["into/conf", "a directory here"]);
    let absent = format!("{}/", world.path("absent").display());
    world
        .imgfs(&["cp", &reference, "/etc/conf", &absent])
        .fails(1, &["there is no directory", "/absent/"]);
    world
        .imgfs(&["cp", &format!("{reference}:/etc/conf")])
        .fails(2, &["it is not said where", ":/etc/conf"]);
    let pipe = into.join("pipe");
    world
        .imgfs(&["cp", &reference, "/etc/also", pipe.to_str().unwrap()])
        .fails(1, &["into/pipe", "no regular file", "imgfs cat"]);
}

#[test]
fn cp_takes_every_name_behind_a_colon() {
    let world = World::new();
    let member = file("", "odd\n").named(b"odd/latin1-\xe9");
    let reference = world.put(&host_image(vec![gzip(&[dir("odd"), member])]));
    let word = |bytes: &[u8]| OsStr::from_bytes(&[reference.as_bytes(), bytes].concat()).to_owned();
    let dest = world.path("copy");
    let path = word(b":/odd/latin1-\xe9");
    world.imgfs(&["cp".as_ref(), &*path, dest.as_os_str()]).ok();
    assert_eq!(std::fs::read_to_string(&dest).unwrap(), "odd\n");
    // Such a name is none of an image's.
    let image = word(b"\xe9");
    let arguments = ["cp".as_ref(), &*image, "/odd".as_ref(), dest.as_os_str()];
    world
        .imgfs(&arguments)
        .fails(1, &["\\xe9", "no name of an image"]);
}

#[test]
fn a_copy_that_breaks_leaves_what_was_there() {
    let world = World::new();
    let reference = world.put(&two_layers_in_turn());
    world.imgfs(&["ls", &reference]).ok();
    world.evict();
    let into = world.path("into");
    std::fs::create_dir(&into).unwrap();
    std::fs::write(into.join("00-1"), "before").unwrap();
    world.registry.fault_always(On::Blob, Fault::Status(404));
    let outcome = world.imgfs(&["cp", &reference, "/00-1", into.to_str().unwrap()]);
    outcome.fails(1, &["into/00-1"]);
    assert_eq!(names_in(&into), ["00-1"]);
    assert_eq!(
        std::fs::read_to_string(into.join("00-1")).unwrap(),
        "before"
    );
}

#[test]
fn nothing_is_written_to_a_terminal_and_nothing_half() {
    let world = World::new();
    let reference = world.put(&two_layers_in_turn());
    if has(&["script"]) {
        for command in ["export \"$3\"", "cp \"$3\" / -"] {
            let script = format!(
                "script -qec '\"{IMGFS}\" {}' /dev/null",
                command.replace("\"$3\"", &reference)
            );
            let outcome = sh(&world, &script, "");
            assert_eq!(outcome.code, Some(1), "{command}");
            let said = String::from_utf8_lossy(&outcome.stdout);
            assert!(said.contains("not written to a terminal"), "{said}");
            assert!(said.len() < 1000);
        }
    }
    assert_eq!(world.registry.log(), [""; 0], "nobody was asked");
    world.imgfs(&["ls", &reference]).ok();
    world.evict();
    world.registry.fault_always(On::Blob, Fault::Status(404));
    let file = world.path("export.tar");
    std::fs::write(&file, "before").unwrap();
    let nowhere = world.path("absent/export.tar");
    let outcome = world.imgfs(&["export", &reference, "-o", nowhere.to_str().unwrap()]);
    outcome.fails(1, &["absent/export.tar: No such file"]);
    assert!(
        !outcome.stderr.contains(".imgfs-export-"),
        "{}",
        outcome.stderr
    );
    let outcome = world.imgfs(&["export", &reference, "-o", file.to_str().unwrap()]);
    assert_eq!(outcome.code, Some(1));
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "before");
}
