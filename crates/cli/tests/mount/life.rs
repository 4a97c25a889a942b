//! The life of a mount: start, `ps`, `status`, all the ways to its end.

use rustix::process::Signal;

use super::*;
use crate::process::{finish, run, start, wait_for};
use crate::world::{is_mounted, is_running, kill};

fn small() -> Image {
    host_image(vec![gzip(&[file("a", "1"), dir("d"), file("d/b", "2")])])
}

#[test]
fn mount_returns_when_ready_and_the_daemon_outlives_its_caller() {
    let Some(world) = World::mounting() else {
        return;
    };
    let reference = world.put(&small());
    let dir = world.mountpoint();
    // A shell in a session of its own that is gone afterwards.
    let mut shell = world.command("setsid");
    let script = "cd / && \"$0\" mount \"$1\" \"$2\" && cat \"$2/a\"";
    run(shell
        .args(["--wait", "sh", "-c", script, IMGFS, &reference])
        .arg(&dir))
    .ok();
    let mount = world.adopt(dir);
    assert_eq!(mount.text("d/b"), "2");
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", mount.pid)).unwrap();
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
    assert_eq!(
        fields[3],
        mount.pid.to_string(),
        "it leads a session of its own"
    );
    assert_eq!(fields[4], "0", "it has no terminal");
    let cwd = std::fs::read_link(format!("/proc/{}/cwd", mount.pid)).unwrap();
    assert_eq!(cwd.to_str(), Some("/"));
    mount.end(&world);
}

#[test]
fn the_foreground_stays_until_it_is_unmounted() {
    let Some(world) = World::mounting() else {
        return;
    };
    let reference = world.put(&small());
    let dir = world.mountpoint();
    let mut command = world.command(IMGFS);
    let running = start(
        command
            .args(["mount", "--foreground", &reference])
            .arg(&dir),
    );
    wait_for("the mount", || is_mounted(&dir));
    wait_for("its record", || world.daemon(&dir).is_some());
    assert_eq!(world.daemon(&dir), Some(running.child.id()));
    let mount = world.adopt(dir);
    assert_eq!(mount.text("a"), "1");
    run(world.command(IMGFS).arg("unmount").arg(&mount.dir)).ok();
    let words = format!("{reference} is mounted on {}", mount.dir.display());
    assert_eq!(finish(running).ok_saying(&[&words]), "");
    mount.has_ended();
}

#[test]
fn ps_and_status_show_it() {
    let Some(world) = World::mounting() else {
        return;
    };
    let image = sample();
    let reference = world.put(&image);
    let mount = world.mount(&reference, &[]);
    let ps = world.imgfs(&["ps"]).ok();
    let row = ps
        .lines()
        .find(|row| row.ends_with(mount.dir.to_str().unwrap()))
        .unwrap();
    assert!(
        row.trim_start().starts_with(&format!("{} ", mount.pid)),
        "{row}"
    );
    assert!(row.contains(&reference), "{row}");
    mount.read("noise");
    wait_for("the diff_ids", || {
        let status = world.status(&mount);
        status["layers"]
            .as_array()
            .unwrap()
            .iter()
            .all(|layer| layer["diff_id"] == "ok")
    });
    let status = world.status(&mount);
    assert_eq!(status["reference"], reference);
    assert_eq!(status["pid"], mount.pid);
    assert_eq!(status["mountpoint"], mount.dir.to_str().unwrap());
    assert_eq!(status["platform"], host());
    assert_eq!(
        status["manifest"],
        imgfs_formats::oci::Digest::sha256(&image.manifest).to_string()
    );
    assert_eq!(status["requests"], world.registry.requests().len());
    assert_eq!(status["bytes_fetched"], world.registry.bytes());
    for (layer, expected) in status["layers"]
        .as_array()
        .unwrap()
        .iter()
        .zip(&image.layers)
    {
        assert_eq!(
            layer["digest"],
            imgfs_formats::oci::Digest::sha256(&expected.blob).to_string()
        );
        assert_eq!(layer["size"], expected.blob.len());
        assert_eq!(layer["cached"], layer["uncompressed"]);
        assert_eq!(layer["index"], "first-contact");
        assert_eq!(layer["trust"], "proven");
        assert!(layer["problem"].is_null());
    }
    let text = run(world.command(IMGFS).arg("status").arg(&mount.dir)).ok();
    for word in [
        reference.as_str(),
        "proven",
        "100 %",
        "first-contact",
        "DIFF_ID",
    ] {
        assert!(text.contains(word), "{text}");
    }
    assert_eq!(
        text.lines().filter(|line| line.contains("proven")).count(),
        3
    );
    mount.end(&world);
    assert!(!world.imgfs(&["ps"]).ok().contains(&reference));
}

#[test]
fn every_way_of_unmounting_ends_the_process_and_its_record() {
    let Some(world) = World::mounting() else {
        return;
    };
    let reference = world.put(&small());
    let mut ways = vec![
        vec![IMGFS, "unmount"],
        vec![IMGFS, "umount"],
        vec!["fusermount3", "-u"],
    ];
    if world::is_root() {
        ways.push(vec!["umount"]);
    }
    for way in ways {
        let mount = world.mount(&reference, &[]);
        run(world.command(way[0]).args(&way[1..]).arg(&mount.dir)).ok();
        mount.has_ended();
        assert_eq!(world.daemon(&mount.dir), None, "{way:?}");
        for ending in ["json", "sock", "log"] {
            let left = format!("/run/imgfs/{}.{ending}", mount.pid);
            assert!(!std::path::Path::new(&left).exists(), "{left} is left");
        }
    }
}

#[test]
fn a_mount_in_use_is_kept_unless_lazy() {
    let Some(world) = World::mounting() else {
        return;
    };
    let mount = world.mount(&world.put(&small()), &[]);
    let user = std::fs::File::open(mount.path("a")).unwrap();
    let unmount = |options: &[&str]| {
        run(world
            .command(IMGFS)
            .arg("unmount")
            .args(options)
            .arg(&mount.dir))
    };
    unmount(&[]).fails(1, &["stays mounted", "busy", "--lazy"]);
    assert_eq!(mount.text("d/b"), "2");
    unmount(&["--lazy"]).ok();
    assert!(!is_mounted(&mount.dir));
    assert!(is_running(mount.pid), "somebody still reads");
    let mut byte = [0];
    std::os::unix::fs::FileExt::read_exact_at(&user, &mut byte, 0).unwrap();
    assert_eq!(&byte, b"1");
    drop(user);
    mount.has_ended();
}

#[test]
fn signals_unmount() {
    let Some(world) = World::mounting() else {
        return;
    };
    let reference = world.put(&small());
    for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
        let mount = world.mount(&reference, &[]);
        kill(mount.pid, signal);
        mount.has_ended();
        assert_eq!(world.daemon(&mount.dir), None);
    }
    // In use: it disappears, and ends with its user.
    let mount = world.mount(&reference, &[]);
    let user = std::fs::File::open(mount.path("a")).unwrap();
    kill(mount.pid, Signal::TERM);
    wait_for("the unmount", || !is_mounted(&mount.dir));
    drop(user);
    mount.has_ended();
}

#[test]
fn a_killed_daemon_is_noticed_and_replaced() {
    let Some(world) = World::mounting() else {
        return;
    };
    let reference = world.put(&small());
    let mount = world.mount(&reference, &[]);
    let dir = mount.dir.clone();
    kill(mount.pid, Signal::KILL);
    wait_for("the dead mount", || {
        let answer = std::fs::metadata(&dir).map_err(|err| err.raw_os_error());
        answer.is_err_and(|errno| errno == Some(libc::ENOTCONN))
    });
    assert!(is_mounted(&dir), "the kernel keeps the dead mount");
    assert_eq!(world.daemon(&dir), None, "ps does not list it");
    let again = run(world.command(IMGFS).args(["mount", &reference]).arg(&dir));
    again.ok_saying(&["replacing a dead mount on", dir.to_str().unwrap()]);
    let again = world.adopt(dir);
    assert_eq!(again.text("a"), "1");
    again.end(&world);
}

#[test]
fn a_dead_mount_can_be_unmounted() {
    let Some(world) = World::mounting() else {
        return;
    };
    let mount = world.mount(&world.put(&small()), &[]);
    kill(mount.pid, Signal::KILL);
    wait_for("its end", || !is_running(mount.pid));
    mount.end(&world);
}

#[test]
fn the_daemon_keeps_no_directory_and_no_terminal_busy() {
    let Some(world) = World::mounting() else {
        return;
    };
    let mount = world.mount(&world.put(&small()), &[]);
    let id = world.status(&mount)["id"].as_str().unwrap().to_owned();
    for number in 0..3 {
        let target = std::fs::read_link(format!("/proc/{}/fd/{number}", mount.pid)).unwrap();
        let target = target.to_string_lossy().into_owned();
        let is_detached = target == "/dev/null" || target.ends_with(&format!("/{id}.log"));
        assert!(is_detached, "{number}: {target}");
    }
}

#[test]
fn relative_paths_and_links_name_the_same_mount() {
    let Some(world) = World::mounting() else {
        return;
    };
    let reference = world.put(&small());
    let dir = world.mountpoint();
    std::os::unix::fs::symlink(&dir, world.path("link")).unwrap();
    let parent = world.path("");
    let imgfs = |arguments: &[&str]| run(world.command(IMGFS).args(arguments).current_dir(&parent));
    imgfs(&["mount", &reference, "link"]).ok();
    let mount = world.adopt(dir);
    assert!(imgfs(&["status", "link"]).ok().contains(&reference));
    imgfs(&["unmount", "./link"]).ok();
    mount.has_ended();
}
