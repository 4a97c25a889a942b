//! Programs are here as a whole before they start: a network that fails later cannot hurt them.

use std::os::unix::fs::FileExt;
use std::process::Command;

use super::*;
use crate::process::run;

/// A program of several spans that still runs, with a large file of another kind beside it.
struct Sample {
    program: Vec<u8>,
    text: Vec<u8>,
    image: Image,
}

fn sample() -> Option<Sample> {
    if !has(&["busybox"]) {
        return None;
    }
    let path = run(Command::new("sh").args(["-c", "command -v busybox"])).ok();
    let mut program = std::fs::read(path.trim()).unwrap();
    program.extend(noise(8, 5 << 20));
    let text = [b"#!/bin/sh\n".to_vec(), noise(9, 7 << 20)].concat();
    let image = host_image(vec![gzip(&[
        file("text", &text),
        file("busybox", &program).mode(0o755),
    ])]);
    Some(Sample {
        program,
        text,
        image,
    })
}

/// Mounts it when only its index is cached.
fn cold(world: &World, sample: &Sample, options: &[&str]) -> Mount {
    let reference = world.put(&sample.image);
    world.mount(&reference, &[]).end(world);
    world.evict();
    let mount = world.mount(&reference, options);
    world.registry.forget_requests();
    mount
}

fn first_page(mount: &Mount, name: &str) -> Vec<u8> {
    let mut page = vec![0; 4096];
    let file = std::fs::File::open(mount.path(name)).unwrap();
    file.read_exact_at(&mut page, 0).unwrap();
    page
}

#[test]
fn after_the_first_page_the_network_is_not_needed() {
    let (Some(world), Some(sample)) = (World::mounting(), sample()) else {
        return;
    };
    let mount = cold(&world, &sample, &[]);
    assert_eq!(first_page(&mount, "busybox"), sample.program[..4096]);
    let sent = world.registry.bytes();
    let size = sample.program.len() as u64;
    assert!(sent < size + (2 << 20), "{sent} for a program of {size}");
    assert!(world.registry.requests().len() <= 4, "{:?}", ranges(&world));
    world.registry.fault_always(On::Any, Fault::Status(404));
    world.registry.forget_requests();
    let mut echo = Command::new(mount.path("busybox"));
    assert_eq!(run(echo.args(["echo", "alive"])).ok(), "alive\n");
    assert!(mount.read("busybox") == sample.program);
    assert_eq!(world.registry.log(), [""; 0]);
}

#[test]
fn a_program_that_cannot_be_had_does_not_start() {
    let (Some(world), Some(sample)) = (World::mounting(), sample()) else {
        return;
    };
    let mount = cold(&world, &sample, &[]);
    let start = || Command::new(mount.path("busybox")).arg("true").status();
    world.registry.fault_always(On::Any, Fault::Status(404));
    assert_eq!(start().unwrap_err().raw_os_error(), Some(libc::EIO));
    // The first piece comes, the rest does not.
    world.registry.clear_faults();
    world
        .registry
        .fault(On::Blob, Fault::Header("X-Good", "yes"));
    world.registry.fault_always(On::Any, Fault::Status(404));
    assert_eq!(start().unwrap_err().raw_os_error(), Some(libc::EIO));
    world.registry.clear_faults();
    assert!(start().unwrap().success(), "and starts when it can be had");
}

#[test]
fn other_files_and_large_programs_stay_lazy() {
    let (Some(world), Some(sample)) = (World::mounting(), sample()) else {
        return;
    };
    for (options, name, content) in [
        (&[][..], "text", &sample.text),
        (&["--fetch-executables", "0"], "busybox", &sample.program),
        (&["-o", "fetch_executables=0"], "busybox", &sample.program),
        (&["--fetch-executables=5MiB"], "busybox", &sample.program),
    ] {
        let mount = cold(&world, &sample, options);
        assert_eq!(first_page(&mount, name), content[..4096]);
        let sent = world.registry.bytes();
        assert!(sent < 4 << 20, "{options:?}: {sent}");
        mount.end(&world);
    }
    let wrong = world.imgfs(&["mount", "-o", "fetch_executables=much", "x", "/mnt"]);
    wrong.fails(1, &["fetch_executables=much", "500MB or 20GiB"]);
}

#[test]
fn what_is_here_is_not_fetched_again() {
    let (Some(world), Some(sample)) = (World::mounting(), sample()) else {
        return;
    };
    let reference = world.put(&sample.image);
    let mount = world.mount(&reference, &[]);
    world.registry.forget_requests();
    for _ in 0..2 {
        let mut echo = Command::new(mount.path("busybox"));
        assert_eq!(run(echo.args(["echo", "alive"])).ok(), "alive\n");
    }
    assert_eq!(world.registry.log(), [""; 0]);
}
