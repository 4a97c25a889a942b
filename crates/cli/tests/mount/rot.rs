//! A cache that rots or was left half made: noticed, fetched anew, never served.

use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use rustix::process::Signal;

use super::*;
use crate::process::{run, start, wait_for};

/// The files below `dir`.
fn files(dir: &PathBuf) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found
}

/// Flips a bit in the middle of each file.
fn rot(files: &[PathBuf]) {
    assert!(!files.is_empty());
    for path in files {
        let file = std::fs::File::options()
            .read(true)
            .write(true)
            .open(path)
            .unwrap();
        let middle = file.metadata().unwrap().len() / 2;
        let mut byte = [0];
        file.read_exact_at(&mut byte, middle).unwrap();
        file.write_all_at(&[byte[0] ^ 4], middle).unwrap();
    }
}

/// Mounts the sample once, spoils the cache, and mounts again: everything is right. Gives the bytes
/// fetched.
#[track_caller]
fn survives(spoil: impl Fn(&World), words: &[&str]) -> Option<u64> {
    let world = World::mounting()?;
    let reference = world.put(&sample());
    world.mount(&reference, &[]).end(&world);
    spoil(&world);
    world.registry.forget_requests();
    let (mount, said) = world.mount_saying(&reference, &[]);
    for word in words {
        assert!(said.contains(word), "{said}");
    }
    assert!(mount.read("noise") == noise(1, 3_000_000));
    assert!(mount.read("zeros") == vec![0; 2_000_000]);
    assert_eq!(mount.text("etc/release"), "top\n");
    let fetched = world.registry.bytes();
    mount.end(&world);
    // Now it is whole again.
    world.registry.forget_requests();
    let mount = world.mount(&reference, &[]);
    assert!(mount.read("noise") == noise(1, 3_000_000));
    assert!(mount.read("zeros") == vec![0; 2_000_000]);
    assert_eq!(world.registry.bytes(), 0);
    Some(fetched)
}

#[test]
fn damaged_layer_bytes_are_fetched_anew() {
    let damage = |world: &World| {
        let all = files(&world.cache().join("layers"));
        let data: Vec<_> = all
            .into_iter()
            .filter(|path| path.ends_with("data"))
            .collect();
        assert_eq!(data.len(), 3);
        rot(&data);
    };
    let Some(fetched) = survives(damage, &[]) else {
        return;
    };
    // One span of each layer, not the layers.
    assert!((1..2_500_000).contains(&fetched), "{fetched}");
}

#[test]
fn missing_layer_bytes_are_fetched_anew() {
    let cut = |world: &World| {
        for path in files(&world.cache().join("layers")) {
            if path.ends_with("data") {
                std::fs::File::options()
                    .write(true)
                    .open(&path)
                    .unwrap()
                    .set_len(600_000)
                    .unwrap();
            }
        }
    };
    survives(cut, &[]);
}

#[test]
fn damaged_indexes_are_made_anew() {
    let damage = |world: &World| rot(&files(&world.cache().join("indexes")));
    let Some(fetched) = survives(damage, &["is made anew"]) else {
        return;
    };
    assert_eq!(fetched, layer_bytes(&sample()));
}

#[test]
fn indexes_cut_short_or_of_another_version_are_made_anew() {
    let damage = |world: &World| {
        let indexes = files(&world.cache().join("indexes"));
        std::fs::write(&indexes[0], "").unwrap();
        std::fs::write(&indexes[1], "imgfs index of the future").unwrap();
        let bytes = std::fs::read(&indexes[2]).unwrap();
        std::fs::write(&indexes[2], &bytes[..bytes.len() - 5]).unwrap();
    };
    survives(damage, &[]);
}

#[test]
fn an_index_of_another_layer_is_not_used() {
    let swap = |world: &World| {
        let indexes = files(&world.cache().join("indexes"));
        std::fs::copy(&indexes[0], &indexes[1]).unwrap();
    };
    survives(swap, &["is made anew"]);
}

#[test]
fn damaged_documents_and_records_are_fetched_anew() {
    let damage = |world: &World| {
        rot(&files(&world.cache().join("documents")));
        rot(&files(&world.cache().join("refs")));
    };
    let Some(fetched) = survives(damage, &[]) else {
        return;
    };
    assert_eq!(fetched, document_bytes(&sample()));
}

#[test]
fn marks_without_data_are_not_trusted() {
    let mark = |world: &World| {
        world.evict();
        for path in files(&world.cache().join("layers")) {
            if path.ends_with("present") {
                std::fs::write(&path, [1; 64]).unwrap();
            }
        }
    };
    survives(mark, &[]);
}

#[test]
fn a_kill_during_first_contact_leaves_nothing_bad() {
    let Some(world) = World::mounting() else {
        return;
    };
    let image = sample();
    let reference = world.put(&image);
    // The layers begin to come and then stop.
    world.imgfs(&["inspect", &reference]).ok();
    world.registry.fault(On::Blob, Fault::Stall(300_000));
    let dir = world.mountpoint();
    let mut command = world.command(IMGFS);
    let mut running = start(
        command
            .args(["mount", "--foreground", &reference])
            .arg(&dir),
    );
    wait_for("the first bytes of layers", || {
        world.registry.bytes() > document_bytes(&image)
    });
    world::kill(running.child.id(), Signal::KILL);
    running.child.wait().unwrap();
    drop(running);
    assert!(!world::is_mounted(&dir));
    world.registry.clear_faults();
    let mount = world.mount(&reference, &[]);
    assert!(mount.read("noise") == noise(1, 3_000_000));
    assert!(mount.read("zeros") == vec![0; 2_000_000]);
    assert_eq!(mount.text("etc/release"), "top\n");
}

#[test]
fn an_interrupt_during_first_contact_leaves_nothing() {
    use std::os::unix::process::CommandExt;
    let Some(world) = World::mounting() else {
        return;
    };
    let image = sample();
    let reference = world.put(&image);
    world.registry.fault(On::Blob, Fault::Silence);
    let dir = world.mountpoint();
    let mut command = world.command(IMGFS);
    // As a shell does it: a process group of its own, which gets the signal as a whole.
    let running = start(
        command
            .args(["mount", &reference])
            .arg(&dir)
            .process_group(0),
    );
    wait_for("the first request for a blob", || {
        world
            .registry
            .log()
            .iter()
            .any(|line| line.contains("/blobs/"))
    });
    // Not before both processes are there.
    let group = rustix::process::Pid::from_raw(running.child.id().try_into().unwrap()).unwrap();
    rustix::process::kill_process_group(group, Signal::INT).unwrap();
    let outcome = process::finish(running);
    assert_ne!(outcome.code, Some(0));
    assert!(!world::is_mounted(&dir));
    let members = || {
        let mut ps = world.command("ps");
        run(ps.args(["-o", "pid=", "-g", &group.as_raw_nonzero().to_string()])).stdout
    };
    wait_for("the end of the process group", || members().is_empty());
    assert_eq!(world.daemon(&dir), None);
    let mount = world.mount(&reference, &[]);
    assert_eq!(mount.text("etc/release"), "top\n");
}
