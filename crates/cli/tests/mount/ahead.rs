//! Reading ahead: what is fetched before anybody asks for it, and above all what is not.

use std::os::unix::fs::FileExt;
use std::process::Command;
use std::time::Duration;

use super::*;
use crate::process::{run, wait_for};

/// Uncompressed size of a span; of an uncompressed layer also what it costs.
const SPAN: u64 = 1 << 20;

/// Mounts `image` when only its indexes are cached, and forgets the requests of that.
fn cold(world: &World, image: &Image) -> Mount {
    let reference = world.put(image);
    world.mount(&reference, &[]).end(world);
    world.evict();
    let mount = world.mount(&reference, &[]);
    world.registry.forget_requests();
    mount
}

/// 64 MiB in one file of an uncompressed layer.
fn large() -> Image {
    host_image(vec![plain(&[file("large", noise(7, 64 << 20))])])
}

/// Reads a page in the middle of each of these spans.
fn read_pages(mount: &Mount, spans: &[u64]) {
    let file = std::fs::File::open(mount.path("large")).unwrap();
    for span in spans {
        let mut page = vec![0; 4096];
        file.read_exact_at(&mut page, span * SPAN + SPAN / 2)
            .unwrap();
    }
}

/// The spans that the requests so far asked for, ascending.
fn asked(world: &World) -> Vec<u64> {
    let mut spans: Vec<u64> = (ranges(world).iter())
        .flat_map(|(first, last)| first / SPAN..(last + 1).div_ceil(SPAN))
        .collect();
    spans.sort_unstable();
    spans
}

/// Waits until all that was asked for has come and nothing more is asked for.
fn wait_until_quiet(world: &World) {
    let mut before = (0, 0);
    wait_for("the end of reading ahead", || {
        let asked: u64 = (ranges(world).iter())
            .map(|(first, last)| last + 1 - first)
            .sum();
        let now = (world.registry.bytes(), asked);
        let is_quiet = now == before && now.0 >= now.1;
        before = now;
        std::thread::sleep(Duration::from_millis(50));
        is_quiet
    });
}

#[test]
fn small_neighbours_take_few_requests_and_each_byte_once() {
    let Some(world) = World::mounting() else {
        return;
    };
    let names: Vec<String> = (0..400).map(|number| format!("d/{number:03}")).collect();
    let content = |number: usize| noise(number as u64, 60_000);
    let mut members = vec![dir("d")];
    members.extend((names.iter().enumerate()).map(|(i, name)| file(name, content(i))));
    for layer in [gzip(&members), plain(&members)] {
        let image = host_image(vec![layer]);
        let mount = cold(&world, &image);
        for (number, name) in names.iter().enumerate() {
            assert!(mount.read(name) == content(number), "{name}");
        }
        wait_until_quiet(&world);
        let (requests, bytes) = (world.registry.requests().len(), world.registry.bytes());
        assert!(requests <= 15, "{requests}: {:?}", ranges(&world));
        // Neighbouring spans may share a byte.
        let size = layer_bytes(&image);
        assert!(bytes <= size + 32, "{bytes} for a layer of {size}");
        mount.end(&world);
    }
}

#[test]
fn neighbours_in_any_order_are_read_ahead_too() {
    let Some(world) = World::mounting() else {
        return;
    };
    let mount = cold(&world, &large());
    let order: Vec<u64> = (0..24_usize)
        .map(|i| (i / 4 * 4) as u64 + [2, 0, 3, 1][i % 4])
        .collect();
    read_pages(&mount, &order);
    wait_until_quiet(&world);
    let (requests, spans) = (world.registry.requests().len(), asked(&world).len());
    assert!(requests * 2 <= spans, "{requests}: {:?}", ranges(&world));
}

#[test]
fn random_reads_fetch_one_span_each() {
    let Some(world) = World::mounting() else {
        return;
    };
    let mount = cold(&world, &large());
    let mut places = [50, 3, 40, 12, 60, 25, 33, 18, 55, 45];
    read_pages(&mount, &places);
    wait_until_quiet(&world);
    assert_eq!(world.registry.requests().len(), places.len());
    places.sort_unstable();
    assert_eq!(asked(&world), places);
}

#[test]
fn a_random_reader_after_a_sequence_reads_nothing_ahead() {
    let Some(world) = World::mounting() else {
        return;
    };
    let mount = cold(&world, &large());
    read_pages(&mount, &[0, 1, 2, 3, 4, 5, 6]);
    wait_until_quiet(&world);
    let ahead = *asked(&world).last().unwrap();
    assert!((8..=6 + 24).contains(&ahead), "{ahead}");
    world.registry.forget_requests();
    let mut places = [60, 42, 52, 36];
    read_pages(&mount, &places);
    wait_until_quiet(&world);
    places.sort_unstable();
    assert_eq!(asked(&world), places);
}

#[test]
fn a_network_that_fails_is_not_asked_for_more_than_is_needed() {
    let Some(world) = World::mounting() else {
        return;
    };
    let mount = cold(&world, &large());
    read_pages(&mount, &[0, 1]);
    wait_until_quiet(&world);
    world.registry.fault_always(On::Blob, Fault::Status(404));
    world.registry.forget_requests();
    let file = std::fs::File::open(mount.path("large")).unwrap();
    let mut page = vec![0; 4096];
    for span in [2, 3] {
        // These were guessed right, so more is fetched ahead, in vain.
        let _one_of_them_is_here = file.read_exact_at(&mut page, span * SPAN + SPAN / 2);
    }
    wait_until_quiet_with_faults(&world);
    let requests = world.registry.requests().len();
    assert!(requests <= 8, "{:?}", ranges(&world));
    world.registry.clear_faults();
    read_pages(&mount, &[2, 3, 4, 5]);
}

/// Waits until nothing more is asked for.
fn wait_until_quiet_with_faults(world: &World) {
    let mut before = usize::MAX;
    wait_for("the end of requests", || {
        let now = world.registry.requests().len();
        let is_quiet = now == before;
        before = now;
        std::thread::sleep(Duration::from_millis(100));
        is_quiet
    });
}

/// The files that ldd(1) says a program needs, and the program.
fn with_libraries(program: &str) -> Vec<std::path::PathBuf> {
    let listed = run(Command::new("ldd").arg(program)).ok();
    let paths = listed.lines().filter_map(|line| {
        let line = line.trim();
        let path = line.split_once("=> ").map_or(line, |(_, path)| path);
        Some(path.split_once(" (")?.0).filter(|path| path.starts_with('/'))
    });
    paths.chain([program]).map(Into::into).collect()
}

#[test]
fn the_libraries_of_a_program_come_with_it() {
    let Some(world) = World::mounting() else {
        return;
    };
    if !has(&["ldd", "ls"]) || cfg!(not(target_endian = "little")) {
        return;
    }
    let program = run(Command::new("sh").args(["-c", "command -v ls"])).ok();
    let program = std::fs::canonicalize(program.trim()).unwrap();
    let files = with_libraries(program.to_str().unwrap());
    assert!(files.len() > 2, "{files:?}");
    let inside = |path: &std::path::Path| path.strip_prefix("/").unwrap().display().to_string();
    let mut members = Vec::new();
    for (number, path) in files.iter().enumerate() {
        // No neighbours of each other.
        members.push(file(
            &format!("noise{number}"),
            noise(number as u64, 6 << 20),
        ));
        let real = std::fs::canonicalize(path).unwrap();
        members.push(file(&inside(&real), std::fs::read(&real).unwrap()).mode(0o755));
        if real != *path && !inside(path).is_empty() {
            // Where the host's /lib is a link to /usr/lib, this one is a directory.
            members.push(symlink(&inside(path), real.to_str().unwrap()));
        }
    }
    let mount = cold(&world, &host_image(vec![plain(&members)]));
    let mut page = vec![0; 4096];
    let opened = std::fs::File::open(mount.path(&inside(&program))).unwrap();
    opened.read_exact_at(&mut page, 0).unwrap();
    wait_until_quiet(&world);
    let sent = world.registry.bytes();
    let size: u64 = (files.iter())
        .map(|path| path.metadata().unwrap().len())
        .sum();
    assert!(
        sent < size + 3 * SPAN * files.len() as u64,
        "{sent} for {size}"
    );
    world.registry.fault_always(On::Any, Fault::Status(404));
    for path in &files {
        assert!(
            mount.read(&inside(path)) == std::fs::read(path).unwrap(),
            "{path:?}"
        );
    }
}
