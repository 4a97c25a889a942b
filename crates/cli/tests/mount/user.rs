//! Ordinary users: they mount by fusermount3, for themselves.

use super::*;
use crate::process::Outcome;

/// Runs a script in which `$1` is the reference and `$D` a directory of nobody's.
fn as_nobody(prepare: impl Fn(&World), script: &str) -> Option<Outcome> {
    let world = World::as_root()?;
    if !has(&["fusermount3", "setpriv"]) {
        return None;
    }
    prepare(&world);
    let reference = world.put(&sample());
    let script = format!("D=\"$W/user/mnt\"; as_user mkdir \"$D\"\n{script}");
    Some(world.namespace(&script, &[reference]))
}

#[test]
fn a_user_mounts_reads_and_unmounts() {
    let script = r#"
        as_user imgfs mount "$1" "$D"
        as_user cat "$D/etc/release"
        grep -o "fuse.imgfs.*user_id=65534" /proc/self/mountinfo | grep -c "$1"
        as_user imgfs ps | grep -c "$D"
        as_user imgfs status "$D" | grep -c "$1"
        as_user imgfs unmount "$D"
        as_user imgfs mount "$1" "$D"
        as_user fusermount3 -u "$D"
        as_user ls "$D"
        ls "$W/user/cache"; ls /run/imgfs; ls "$W/cache" 2>/dev/null || echo "root has no cache""#;
    let Some(outcome) = as_nobody(|_| {}, script) else {
        return;
    };
    assert_eq!(outcome.ok(), "top\n1\n1\n1\nv1\nroot has no cache\n");
}

#[test]
fn a_dead_mount_of_a_user_is_replaced() {
    let script = r#"
        as_user imgfs mount "$1" "$D"
        kill -9 $(as_user imgfs ps --json | grep -o '"pid": [0-9]*' | grep -o '[0-9]*')
        as_user imgfs mount "$1" "$D"
        as_user cat "$D/etc/release"
        as_user imgfs unmount "$D""#;
    let Some(outcome) = as_nobody(|_| {}, script) else {
        return;
    };
    assert_eq!(outcome.ok_saying(&["replacing a dead mount"]), "top\n");
}

/// fusermount3 was told to be quiet, and so was the reason.
#[test]
fn a_mount_in_use_is_refused_with_the_reason() {
    let script = r#"
        as_user imgfs mount "$1" "$D"
        as_user sh -c 'exec 3< "$1/etc/release"; imgfs unmount "$1" || echo "code $?"' sh "$D"
        as_user imgfs unmount "$D""#;
    let Some(outcome) = as_nobody(|_| {}, script) else {
        return;
    };
    let out = outcome.ok_saying(&["stays mounted", "busy", "--lazy"]);
    assert_eq!(out, "code 1\n");
}

#[test]
fn other_users_are_kept_out_root_too() {
    let script = r#"
        as_user imgfs mount "$1" "$D"
        cat "$D/etc/release" && echo "root got in"
        setpriv --reuid=1 --regid=1 --clear-groups cat "$D/etc/release" && echo "daemon got in"
        as_user imgfs unmount "$D""#;
    let Some(outcome) = as_nobody(|_| {}, script) else {
        return;
    };
    assert_eq!(
        outcome.stderr.matches("Permission denied").count(),
        2,
        "{}",
        outcome.stderr
    );
    assert_eq!(outcome.ok(), "");
}

#[test]
fn allow_other_lets_them_in_by_the_modes() {
    let allow = |world: &World| {
        std::fs::write(world.path("fuse.conf"), "user_allow_other\n").unwrap();
    };
    let script = r#"
        as_user imgfs mount --allow-other "$1" "$D"
        cat "$D/etc/release"
        other() { setpriv --reuid=1 --regid=1 --clear-groups "$@"; }
        other cat "$D/etc/release"
        other cat "$D/etc/owned" || echo "0640 of somebody else"
        as_user imgfs unmount "$D""#;
    let Some(outcome) = as_nobody(allow, script) else {
        return;
    };
    assert_eq!(outcome.ok(), "top\ntop\n0640 of somebody else\n");
}

#[test]
fn allow_other_without_leave_is_refused_with_the_reason() {
    let forbid = |world: &World| std::fs::write(world.path("fuse.conf"), "").unwrap();
    let script = r#"
        as_user imgfs mount --allow-other "$1" "$D" || echo "code $?"
        grep "$D" /proc/self/mountinfo || echo "not mounted""#;
    let Some(outcome) = as_nobody(forbid, script) else {
        return;
    };
    let out = outcome.ok_saying(&["cannot mount on", "user_allow_other", "/etc/fuse.conf"]);
    assert_eq!(out, "code 1\nnot mounted\n");
}

#[test]
fn suid_and_dev_are_for_root() {
    let script = r#"
        for option in suid dev; do
            as_user imgfs mount -o $option "$1" "$D" || echo "code $?"
        done
        grep "$D" /proc/self/mountinfo || echo "not mounted""#;
    let Some(outcome) = as_nobody(|_| {}, script) else {
        return;
    };
    let out = outcome.ok_saying(&["-o suid needs root", "-o dev needs root"]);
    assert_eq!(out, "code 1\ncode 1\nnot mounted\n");
}

#[test]
fn a_mountpoint_of_somebody_else_is_refused() {
    let script = r#"
        mkdir "$W/roots"
        as_user imgfs mount "$1" "$W/roots" || echo "code $?""#;
    let Some(outcome) = as_nobody(|_| {}, script) else {
        return;
    };
    assert_eq!(outcome.ok_saying(&["cannot mount on", "roots"]), "code 1\n");
}

#[test]
fn a_device_that_is_closed_is_said() {
    let script = r#"
        chmod 600 /dev/fuse
        as_user imgfs mount "$1" "$D" || echo "code $?""#;
    let Some(outcome) = as_nobody(|_| {}, script) else {
        return;
    };
    assert_eq!(
        outcome.ok_saying(&["cannot open /dev/fuse", "Permission denied"]),
        "code 1\n"
    );
}
