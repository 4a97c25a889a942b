//! A mount as the root of something: chroot, overlayfs, bubblewrap, crun.

use serde_json::json;

use super::*;
use crate::process::{Outcome, run};

/// An image with a busybox in it, and a setuid copy.
fn with_busybox() -> Option<Image> {
    let candidates = ["/bin/busybox", "/usr/bin/busybox"];
    let Some(busybox) = candidates.iter().find_map(|path| std::fs::read(path).ok()) else {
        support::programs::skip(&world::test_name(), "busybox is not installed");
        return None;
    };
    let base = [
        dir("bin"),
        file("bin/busybox", &busybox).mode(0o755),
        symlink("bin/sh", "busybox"),
        symlink("bin/cat", "busybox"),
        dir("proc"),
        dir("dev"),
        dir("tmp").mode(0o1777),
        dir("etc"),
        file("etc/release", "base\n"),
        file("etc/doomed", "d"),
        dir("etc/dir"),
        file("etc/dir/x", "x"),
    ];
    let top = [
        file("bin/id", std::fs::read("/usr/bin/id").unwrap()).mode(0o4755),
        char_device("etc/null", (1, 3)),
        file("etc/release", "top\n"),
    ];
    Some(host_image(vec![gzip(&base), gzip(&top)]))
}

/// Runs a shell script of the host, `$1` is the mount and `$2` the world's directory.
fn sh(world: &World, mount: &Mount, script: &str) -> Outcome {
    let mut shell = world.command("sh");
    run(shell
        .args(["-euc", script, "sh"])
        .arg(&mount.dir)
        .arg(world.path("")))
}

fn mounted(options: &[&str]) -> Option<(World, Mount)> {
    let world = World::as_root()?;
    let mount = world.mount(&world.put(&with_busybox()?), options);
    Some((world, mount))
}

#[test]
fn chroot_runs_programs() {
    let Some((world, mount)) = mounted(&[]) else {
        return;
    };
    let script = "chroot \"$1\" /bin/sh -c 'cat /etc/release && echo $((6*7))'";
    assert_eq!(sh(&world, &mount, script).ok(), "top\n42\n");
}

#[test]
fn overlayfs_writes_above_it() {
    let Some((world, mount)) = mounted(&[]) else {
        return;
    };
    // In a mount namespace, so that nothing is left; upper and work on a tmpfs, which overlayfs can
    // use anywhere.
    let script = r#"unshare -m sh -euc '
        mount -t tmpfs tmpfs "$2" -o mode=755 2>/dev/null
        mkdir "$2/upper" "$2/work" "$2/merged"
        mount -t overlay overlay -o "lowerdir=$1,upperdir=$2/upper,workdir=$2/work" "$2/merged"
        cd "$2/merged"
        echo new > etc/new; echo changed >> etc/release
        rm etc/doomed; mv etc/new etc/renamed; rm -r etc/dir; mkdir etc/dir; chmod 700 bin/busybox
        cat etc/release etc/renamed; ls etc; ls etc/dir; stat -c %a bin/busybox
        chroot . /bin/sh -c "echo in >> /etc/renamed; cat /etc/renamed"
    ' sh "$1" "$3""#;
    // The tmpfs must not hide the mount.
    let place = world.path("overlay");
    std::fs::create_dir(&place).unwrap();
    let mut shell = world.command("sh");
    let outcome = run(shell
        .args(["-euc", script, "sh"])
        .arg(&mount.dir)
        .arg("")
        .arg(&place));
    let expected = "top\nchanged\nnew\ndir\nnull\nrelease\nrenamed\n700\nnew\nin\n";
    assert_eq!(outcome.ok(), expected);
    assert_eq!(mount.text("etc/release"), "top\n");
    assert_eq!(mount.text("etc/doomed"), "d");
}

#[test]
fn bubblewrap_uses_it_as_root() {
    let Some((world, mount)) = mounted(&[]) else {
        return;
    };
    if !has(&["bwrap"]) {
        return;
    }
    let script = "bwrap --ro-bind \"$1\" / --proc /proc --dev /dev --unshare-pid /bin/sh -c 'cat /etc/release; echo $$'";
    let out = sh(&world, &mount, script).ok();
    assert!(out.starts_with("top\n"), "{out}");
}

#[test]
fn crun_runs_a_bundle_on_it() {
    let Some((world, mount)) = mounted(&[]) else {
        return;
    };
    if !has(&["crun"]) {
        return;
    }
    let bundle = world.path("bundle");
    std::fs::create_dir(&bundle).unwrap();
    let config = json!({
        "ociVersion": "1.0.0",
        "process": {"terminal": false, "user": {"uid": 0, "gid": 0}, "cwd": "/",
            "args": ["/bin/sh", "-c", "cat /etc/release; echo no > /x || echo read-only"], "env": ["PATH=/bin"]},
        "root": {"path": mount.dir, "readonly": true},
        "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs"}],
        "linux": {"namespaces": [{"type": "mount"}, {"type": "pid"}]},
    });
    std::fs::write(bundle.join("config.json"), config.to_string()).unwrap();
    // crun of Debian 12 fails where cgroups are mounted the hybrid way, and needs none.
    let script = "mount -t tmpfs tmpfs /sys/fs/cgroup
        crun --root \"$W/crun\" --cgroup-manager=disabled run --bundle \"$W/bundle\" imgfs-test";
    let out = world.namespace(script, &[""; 0]).ok();
    assert_eq!(out, "top\nread-only\n");
    mount.end(&world);
}

#[test]
fn setuid_is_honoured_only_when_asked_for() {
    // Group and user as ordinary as can be.
    let script = "setpriv --reuid=65534 --regid=65534 --clear-groups \"$1/bin/id\" -u";
    let Some((world, mount)) = mounted(&["--allow-other", "-o", "suid"]) else {
        return;
    };
    let root = world.path("").canonicalize().unwrap();
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&root, open).unwrap();
    assert_eq!(sh(&world, &mount, script).ok(), "0\n");
    let plain = world.mount(&world.registry.reference("r:t"), &["--allow-other"]);
    assert_eq!(sh(&world, &plain, script).ok(), "65534\n");
}

#[test]
fn devices_work_only_when_asked_for() {
    let Some((world, mount)) = mounted(&["-o", "dev"]) else {
        return;
    };
    let script = "echo x > \"$1/etc/null\"";
    sh(&world, &mount, script).ok();
    let plain = world.mount(&world.registry.reference("r:t"), &[]);
    let outcome = sh(&world, &plain, script);
    assert_ne!(outcome.code, Some(0));
    assert!(
        outcome.stderr.contains("Permission denied"),
        "{}",
        outcome.stderr
    );
}

#[test]
fn programs_do_not_run_with_noexec() {
    let Some((world, mount)) = mounted(&["-o", "noexec"]) else {
        return;
    };
    let outcome = sh(&world, &mount, "\"$1/bin/busybox\" true");
    assert_eq!(outcome.code, Some(126), "{}", outcome.stderr);
}
