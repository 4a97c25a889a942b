//! What is seen in a mount.

use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};

use super::*;
use crate::process::run;

#[test]
fn the_merged_tree_has_the_right_names_and_contents() {
    let Some(world) = World::mounting() else {
        return;
    };
    let mount = world.mount(&world.put(&sample()), &[]);
    let names = [
        "bin", "etc", "hidden", "noise", "null", "old", "pipe", "srv", "var", "zeros",
    ];
    assert_eq!(mount.names(""), names);
    assert_eq!(mount.names("old"), ["b"], "the whiteout hides a");
    assert_eq!(mount.names("hidden"), ["y"], "the opaque whiteout hides x");
    assert_eq!(mount.names("bin"), ["capable", "sh", "su", "sudo"]);
    assert_eq!(mount.text("etc/release"), "top\n");
    assert_eq!(mount.text("bin/sudo"), "#!/bin/sh\n");
    assert_eq!(mount.text("srv/a name with \"quotes\" and \u{fc}"), "q");
    assert!(mount.read("noise") == noise(1, 3_000_000));
    assert!(mount.read("zeros") == vec![0; 2_000_000]);
    mount.end(&world);
}

#[test]
fn attributes_are_those_of_the_layers() {
    let Some(world) = World::mounting() else {
        return;
    };
    let mount = world.mount(&world.put(&sample()), &[]);
    let of = |name: &str| mount.path(name).symlink_metadata().unwrap();
    let mode = |name: &str| of(name).permissions().mode() & 0o7777;
    assert_eq!(mode("bin/su"), 0o4755, "setuid is shown");
    assert_eq!(mode("var/tmp"), 0o1777);
    assert_eq!(mode("etc/owned"), 0o640);
    assert_eq!(
        (of("etc/owned").uid(), of("etc/owned").gid()),
        (1000, 4_000_000_000)
    );
    let fraction = of("etc/fraction");
    assert_eq!(
        (fraction.mtime(), fraction.mtime_nsec()),
        (1_234_567_890, 123_456_789)
    );
    assert_eq!(
        (of("srv").mtime(), of("srv").mtime_nsec()),
        (1_700_000_000, 5)
    );
    assert_eq!(of("bin/su").nlink(), 2);
    assert_eq!(of("bin/su").ino(), of("bin/sudo").ino());
    assert_eq!(of("").nlink(), 2 + 6, "one for each directory in the root");
    assert_eq!(of("var").nlink(), 3);
    assert_eq!(of("noise").size(), 3_000_000);
    assert_eq!(of("noise").blocks(), 3_000_000_u64.div_ceil(512));
    assert!(of("null").file_type().is_char_device());
    assert_eq!(of("null").rdev(), rustix::fs::makedev(1, 3));
    assert!(of("pipe").file_type().is_fifo());
    let target = std::fs::read_link(mount.path("bin/sh")).unwrap();
    assert_eq!(target.to_str(), Some("../usr/bin/shell"));
}

#[test]
fn ordinary_programs_see_an_ordinary_filesystem() {
    let Some(world) = World::mounting() else {
        return;
    };
    let mount = world.mount(&world.put(&sample()), &[]);
    let program = |name: &str, arguments: &[&str]| {
        let mut command = world.command(name);
        run(command.args(arguments).current_dir(&mount.dir)).ok()
    };
    let found = program("find", &[".", "-type", "f", "-printf", "%P\n"]);
    assert_eq!(found.lines().count(), 11, "{found}");
    let listing = program("ls", &["-lR", "."]);
    assert!(listing.contains("-rwsr-xr-x 2"), "{listing}");
    assert!(listing.contains("sh -> ../usr/bin/shell"), "{listing}");
    let stat = program("stat", &["-c", "%a %h %s", "bin/su"]);
    assert_eq!(stat, "4755 2 10\n");
    let tar = program("tar", &["-cf", "-", "--exclude=./noise", "."]);
    assert!(tar.len() > 2_000_000);
    assert!(
        world
            .registry
            .log()
            .iter()
            .all(|line| !line.ends_with(" 0"))
    );
}

#[test]
fn extended_attributes_are_shown_and_no_others() {
    let Some(world) = World::mounting() else {
        return;
    };
    if !has(&["getfattr"]) {
        return;
    }
    let mount = world.mount(&world.put(&sample()), &[]);
    let getfattr = |arguments: &[&str], name: &str| {
        let mut command = world.command("getfattr");
        run(command
            .args(arguments)
            .arg("--absolute-names")
            .arg(mount.path(name)))
    };
    let text = getfattr(&["-d", "-m", "-", "-e", "hex"], "bin/capable").ok();
    assert!(text.contains("user.note=0x68656c6c6f"), "{text}");
    assert!(
        text.contains("security.capability=0x0100000200200000"),
        "{text}"
    );
    assert_eq!(getfattr(&["-d", "-m", "-"], "etc/release").ok(), "");
    getfattr(&["-n", "user.absent"], "bin/capable").fails(1, &["No such attribute"]);
}

#[test]
fn nothing_can_be_written() {
    let Some(world) = World::mounting() else {
        return;
    };
    let mount = world.mount(&world.put(&sample()), &[]);
    let refused = |result: std::io::Result<()>| {
        let err = result.unwrap_err();
        assert_eq!(err.raw_os_error(), Some(libc::EROFS), "{err}");
    };
    refused(std::fs::write(mount.path("etc/release"), "new"));
    refused(std::fs::write(mount.path("new"), "new"));
    refused(std::fs::create_dir(mount.path("new")));
    refused(std::fs::remove_file(mount.path("etc/release")));
    refused(std::fs::rename(
        mount.path("etc/release"),
        mount.path("etc/other"),
    ));
    refused(std::os::unix::fs::symlink("a", mount.path("new")));
    let mode = std::fs::Permissions::from_mode(0o777);
    refused(std::fs::set_permissions(mount.path("etc/release"), mode));
    assert_eq!(mount.text("etc/release"), "top\n");
}

#[test]
fn statfs_tells_the_truth() {
    let Some(world) = World::mounting() else {
        return;
    };
    let mount = world.mount(&world.put(&sample()), &[]);
    let found = rustix::fs::statvfs(&mount.dir).unwrap();
    let size = found.f_blocks * found.f_frsize;
    assert!((5_000_000..5_200_000).contains(&size), "{size}");
    assert_eq!((found.f_bfree, found.f_bavail, found.f_ffree), (0, 0, 0));
    assert_eq!(found.f_files, 21, "nodes of the tree");
    assert_eq!(found.f_namemax, 255);
    assert!(found.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY));
    assert!(found.f_flag.contains(rustix::fs::StatVfsMountFlags::NOSUID));
    assert!(found.f_flag.contains(rustix::fs::StatVfsMountFlags::NODEV));
}

#[test]
fn many_entries_in_one_directory_are_all_listed() {
    let Some(world) = World::mounting() else {
        return;
    };
    let members: Vec<_> = (0..5000)
        .map(|n| file(&format!("many/{n:05}"), ""))
        .collect();
    let mount = world.mount(&world.put(&host_image(vec![gzip(&members)])), &[]);
    let names = mount.names("many");
    assert_eq!(names.len(), 5000);
    assert_eq!(
        (names[0].as_str(), names[4999].as_str()),
        ("00000", "04999")
    );
}
