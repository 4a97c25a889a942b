//! `mount -t fuse.imgfs` and /etc/fstab: mount(8) and mount.fuse find us by the file system's type.

use super::*;
use crate::process::Outcome;

/// Runs a script in which `$1` is the reference and `$2` a mountpoint.
fn mount8(script: &str) -> Option<(World, Outcome)> {
    let world = World::as_root()?;
    let helper = ["/sbin/mount.fuse", "/usr/sbin/mount.fuse"];
    if !helper
        .iter()
        .any(|path| std::path::Path::new(path).exists())
    {
        support::programs::skip(&world::test_name(), "mount.fuse is not installed");
        return None;
    }
    let (reference, dir) = (world.put(&sample()), world.mountpoint());
    let outcome = world.namespace(script, &[reference.as_ref(), dir.as_os_str()]);
    Some((world, outcome))
}

#[test]
fn mount_with_a_type_and_options() {
    let script = r#"
        mount -t fuse.imgfs "$1" "$2" -o "allow_other,noexec,nosuid,nodev,_netdev,cache_dir=$W/other"
        cat "$2/etc/release"; grep "$2" /proc/self/mountinfo; ls "$W/other/v1"
        umount "$2"
        until [ -z "$(ls /run/imgfs)" ]; do sleep 0.05; done"#;
    let Some((world, outcome)) = mount8(script) else {
        return;
    };
    let out = outcome.ok();
    let reference = world.registry.reference("r:t");
    for word in [
        "top\n",
        "fuse.imgfs",
        &reference,
        "noexec",
        "nosuid",
        "nodev",
        "allow_other",
        " ro,",
        "indexes",
    ] {
        assert!(out.contains(word), "{word:?} is not in {out}");
    }
    assert!(!world.cache().exists());
}

#[test]
fn a_line_in_fstab() {
    let script = r#"
        echo "$1 $2 fuse.imgfs noauto,user,_netdev,x-systemd.automount 0 0" > "$W/fstab"
        mount -T "$W/fstab" "$2"
        cat "$2/etc/release"; umount "$2""#;
    let Some((_world, outcome)) = mount8(script) else {
        return;
    };
    assert_eq!(outcome.ok(), "top\n");
}

#[test]
fn what_goes_wrong_is_said_by_mount_too() {
    let script = r#"
        mount -t fuse.imgfs "$1-absent" "$2" || echo "failed"
        grep "$2" /proc/self/mountinfo || echo "not mounted""#;
    let Some((_world, outcome)) = mount8(script) else {
        return;
    };
    assert_eq!(
        outcome.ok_saying(&["check the name", "r:t-absent"]),
        "failed\nnot mounted\n"
    );
}
