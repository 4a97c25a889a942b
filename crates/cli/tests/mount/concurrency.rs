//! Many users of one cache at once: every byte is fetched once, whoever asks for it.

use std::path::PathBuf;

use super::*;
use crate::process::{finish, start};

/// Starts mounts of all these references at the same instant, each by a process of its own.
fn mount_all(world: &World, references: &[String]) -> Vec<Mount> {
    let dirs: Vec<PathBuf> = references.iter().map(|_| world.mountpoint()).collect();
    let starting: Vec<_> = (references.iter().zip(&dirs))
        .map(|(reference, dir)| start(world.command(IMGFS).arg("mount").arg(reference).arg(dir)))
        .collect();
    for process in starting {
        finish(process).ok();
    }
    dirs.into_iter().map(|dir| world.adopt(dir)).collect()
}

/// Bytes of these blobs that were asked for, those that two ranges share counted twice.
fn asked(world: &World, layers: &[&Layer]) -> u64 {
    let digests: Vec<_> = (layers.iter())
        .map(|layer| imgfs_formats::oci::Digest::sha256(&layer.blob).to_string())
        .collect();
    let requests = world.registry.requests();
    let of_layers = requests
        .iter()
        .filter(|seen| digests.iter().any(|digest| seen.path.contains(digest)));
    let lengths = of_layers.map(|seen| {
        let range = seen.range.as_ref()?.strip_prefix("bytes=")?;
        let (first, last) = range.split_once('-')?;
        Some(last.parse::<u64>().ok()? + 1 - first.parse::<u64>().ok()?)
    });
    // A layer asked for as a whole has no range.
    let whole = |layer: &&Layer| layer.blob.len() as u64;
    lengths
        .map(|length| length.unwrap_or_else(|| layers.iter().map(whole).max().unwrap()))
        .sum()
}

/// Each reads all of `name` in all mounts at once.
fn read_all(mounts: &[Mount], readers: usize, name: &str, expected: &[u8]) {
    std::thread::scope(|scope| {
        for mount in mounts {
            for _ in 0..readers {
                scope.spawn(|| assert!(mount.read(name) == expected, "wrong bytes"));
            }
        }
    });
}

#[test]
fn twenty_first_contacts_at_once_fetch_each_layer_once() {
    let Some(world) = World::mounting() else {
        return;
    };
    let content = noise(2, 3 << 20);
    let shared = [
        gzip(&[file("shared", &content)]),
        zstd(&[file("more", noise(3, 2 << 20))]),
    ];
    let mut layers = shared.to_vec();
    let references: Vec<String> = (0..20)
        .map(|number| {
            let own = plain(&[file("own", format!("{number}"))]);
            layers.push(own.clone());
            let image = host_image(vec![shared[0].clone(), shared[1].clone(), own]);
            let tag = format!("t{number}");
            world.registry.put_image("r", &tag, &image);
            world.registry.reference(&format!("r:{tag}"))
        })
        .collect();
    let mounts = mount_all(&world, &references);
    for layer in &layers {
        assert_eq!(asked(&world, &[layer]), layer.blob.len() as u64);
    }
    for (number, mount) in mounts.iter().enumerate() {
        assert_eq!(mount.text("own"), number.to_string());
    }
    world.registry.forget_requests();
    read_all(&mounts, 1, "shared", &content);
    assert_eq!(world.registry.log(), [""; 0]);
}

#[test]
fn several_mounts_fetch_each_span_once() {
    let Some(world) = World::mounting() else {
        return;
    };
    let content = noise(4, 20 << 20);
    for layer in [gzip, zstd, plain] {
        let layer = layer(&[file("large", &content)]);
        let image = host_image(vec![layer.clone()]);
        let reference = world.put(&image);
        world.mount(&reference, &[]).end(&world);
        world.evict();
        let mounts = mount_all(&world, &vec![reference; 4]);
        world.registry.forget_requests();
        read_all(&mounts, 2, "large", &content);
        // Neighbouring spans may share a byte.
        let (asked, size) = (asked(&world, &[&layer]), layer.blob.len() as u64);
        assert!(
            asked <= size + 32,
            "{}: {asked} of {size}",
            layer.media_type
        );
        for mount in mounts {
            mount.end(&world);
        }
    }
}

#[test]
fn two_hundred_readers_of_cold_data_fetch_each_span_once() {
    let Some(world) = World::mounting() else {
        return;
    };
    let content = noise(4, 12 << 20);
    let layer = gzip(&[file("large", &content)]);
    let reference = world.put(&host_image(vec![layer.clone()]));
    world.mount(&reference, &[]).end(&world);
    world.evict();
    let mount = world.mount(&reference, &[]);
    world.registry.forget_requests();
    std::thread::scope(|scope| {
        for reader in 0..200_usize {
            let (mount, content) = (&mount, &content);
            scope.spawn(move || {
                let file = std::fs::File::open(mount.path("large")).unwrap();
                let mut piece = vec![0; 100_000];
                for step in 0..10 {
                    let at = (reader * 999_983 + step * 1_299_709) % (content.len() - piece.len());
                    std::os::unix::fs::FileExt::read_exact_at(&file, &mut piece, at as u64)
                        .unwrap();
                    assert!(
                        piece == content[at..at + piece.len()],
                        "wrong bytes at {at}"
                    );
                }
            });
        }
    });
    let (asked, size) = (asked(&world, &[&layer]), layer.blob.len() as u64);
    assert!(asked <= size + 32, "{asked} of {size}");
}

/// A process that is killed in the middle of a fetch takes its claims with it.
#[test]
fn a_killed_process_is_in_nobodys_way() {
    let Some(world) = World::mounting() else {
        return;
    };
    let content = noise(4, 6 << 20);
    let reference = world.put(&host_image(vec![gzip(&[file("large", &content)])]));
    world.mount(&reference, &[]).end(&world);
    world.evict();
    let killed = world.mount(&reference, &[]);
    let other = world.mount(&reference, &[]);
    world.registry.forget_requests();
    world.registry.fault(On::Blob, Fault::Stall(1000));
    let path = killed.path("large");
    let reading = std::thread::spawn(move || std::fs::read(path).is_err());
    process::wait_for("the stalled fetch", || world.registry.bytes() >= 1000);
    let begin = std::time::Instant::now();
    let waiting = std::thread::scope(|scope| {
        let waiting = scope.spawn(|| other.read("large"));
        world::kill(killed.pid, rustix::process::Signal::KILL);
        waiting.join().unwrap()
    });
    assert!(waiting == content);
    // Sooner than a stalled transfer is given up.
    assert!(begin.elapsed() < std::time::Duration::from_secs(8));
    assert!(reading.join().unwrap());
}

/// A process that is stopped keeps its claims; it is not waited for for ever.
#[test]
fn a_stopped_process_is_not_waited_for_for_ever() {
    let Some(world) = World::mounting() else {
        return;
    };
    let content = noise(4, 6 << 20);
    let reference = world.put(&host_image(vec![gzip(&[file("large", &content)])]));
    world.mount(&reference, &[]).end(&world);
    world.evict();
    let stopped = world.mount(&reference, &[]);
    let other = world.mount(&reference, &[]);
    world.registry.forget_requests();
    world.registry.fault(On::Blob, Fault::Stall(1000));
    let path = stopped.path("large");
    let reading = std::thread::spawn(move || std::fs::read(path).is_err());
    process::wait_for("the stalled fetch", || world.registry.bytes() >= 1000);
    world::kill(stopped.pid, rustix::process::Signal::STOP);
    assert!(other.read("large") == content);
    world::kill(stopped.pid, rustix::process::Signal::KILL);
    assert!(reading.join().unwrap());
}

#[test]
fn a_pull_and_mounts_share_the_work() {
    let Some(world) = World::mounting() else {
        return;
    };
    let content = noise(4, 20 << 20);
    let layer = gzip(&[file("large", &content)]);
    let reference = world.put(&host_image(vec![layer.clone()]));
    world.mount(&reference, &[]).end(&world);
    world.evict();
    let mounts = mount_all(&world, &vec![reference.clone(); 2]);
    world.registry.forget_requests();
    let pulls: Vec<_> = (0..3)
        .map(|_| start(world.command(IMGFS).args(["pull", &reference])))
        .collect();
    read_all(&mounts, 1, "large", &content);
    for pull in pulls {
        finish(pull).ok();
    }
    let (asked, size) = (asked(&world, &[&layer]), layer.blob.len() as u64);
    assert!(asked <= size + 64, "{asked} of {size}");
}

#[test]
fn pulls_and_mounts_of_a_new_image_share_the_work() {
    let Some(world) = World::mounting() else {
        return;
    };
    let content = noise(4, 9 << 20);
    let layer = gzip(&[file("large", &content)]);
    let reference = world.put(&host_image(vec![layer.clone()]));
    let pulls: Vec<_> = (0..3)
        .map(|_| start(world.command(IMGFS).args(["pull", &reference])))
        .collect();
    let mounts = mount_all(&world, &vec![reference; 3]);
    for pull in pulls {
        finish(pull).ok();
    }
    read_all(&mounts, 1, "large", &content);
    assert_eq!(asked(&world, &[&layer]), layer.blob.len() as u64);
}
