//! `--pull`: when the registry is asked what a tag means, and what happens when it does not answer.

use std::time::{Duration, Instant};

use super::*;
use crate::support::registry::Registry;

/// What the note of a mount that went on without the registry says.
const NOTE: &str = "using the image as of 20";

/// A world whose cache has all of an image, and a registry that may go away.
fn warm() -> Option<(World, String)> {
    let world = World::mounting()?;
    let reference = world.put(&sample());
    world.mount(&reference, &[]).end(&world);
    world.registry.forget_requests();
    Some((world, reference))
}

/// The other content that the tag has in the registry from now on.
fn move_tag(world: &World) {
    world.put(&host_image(vec![gzip(&[file("moved", "m")])]));
}

#[test]
fn an_unreachable_registry_is_no_reason_to_fail() {
    let Some((mut world, reference)) = warm() else {
        return;
    };
    world.registry = Registry::start();
    let (mount, said) = world.mount_saying(&reference, &[]);
    for words in ["cannot be reached", "nothing listens there", NOTE, "ago)"] {
        assert!(said.contains(words), "{words}: {said}");
    }
    assert!(mount.read("noise") == noise(1, 3_000_000));
    mount.end(&world);
    let (mount, said) = world.mount_saying(&reference, &["--quiet"]);
    assert_eq!(said, "");
    mount.end(&world);
    let words = ["cannot connect to", &reference];
    world.refused(&reference, &["--pull", "always"], &words);
    world.refused(&reference, &["-o", "pull=always"], &words);
    let said = world.imgfs(&["cat", &reference, "/etc/release"]);
    assert_eq!(said.ok_saying(&[NOTE]), "top\n");
    let said = world.imgfs(&["manifest", "inspect", &reference]);
    assert!(said.ok_saying(&[NOTE]).contains("layers"));
}

#[test]
fn failures_that_pass_are_unreachable_and_refusals_are_not() {
    let Some((world, reference)) = warm() else {
        return;
    };
    for fault in [
        Fault::Status(503),
        Fault::Status(500),
        Fault::RetryAfter(429, "3600"),
        Fault::Drop,
    ] {
        world.registry.fault_always(On::Any, fault.clone());
        let (mount, said) = world.mount_saying(&reference, &[]);
        assert!(said.contains(NOTE), "{fault:?}: {said}");
        assert_eq!(mount.text("etc/release"), "top\n");
        mount.end(&world);
        world.registry.clear_faults();
    }
    for status in [403, 404] {
        world.registry.fault_always(On::Any, Fault::Status(status));
        world.refused(&reference, &[], &[&reference]);
        world.registry.clear_faults();
    }
}

#[test]
fn a_registry_that_says_nothing_is_not_waited_for_long() {
    let Some((world, reference)) = warm() else {
        return;
    };
    world.registry.fault_always(On::Any, Fault::Silence);
    let begin = Instant::now();
    let (mount, said) = world.mount_saying(&reference, &[]);
    assert!(begin.elapsed() < Duration::from_secs(15), "{said}");
    assert!(
        said.contains("an answer did not come") && said.contains(NOTE),
        "{said}"
    );
    assert_eq!(mount.text("etc/release"), "top\n");
}

#[test]
fn what_was_never_seen_cannot_be_had_from_a_registry_that_is_gone() {
    let Some((mut world, reference)) = warm() else {
        return;
    };
    let host = world.registry.host();
    world.registry = Registry::start();
    let other = reference.replace("r:t", "r:other");
    world.refused(&other, &[], &["cannot connect to", &host]);
    world.refused(&other, &["--pull=missing"], &["cannot connect to", &host]);
    world.refused(
        &other,
        &["--pull=never"],
        &["not in the cache", "--pull=never"],
    );
}

#[test]
fn missing_and_never_do_not_ask() {
    let Some((world, reference)) = warm() else {
        return;
    };
    move_tag(&world);
    for options in [
        &["--pull=missing"][..],
        &["--pull=never"],
        &["--offline"],
        &["-o", "pull=missing"],
        &["-o", "pull=never"],
    ] {
        let (mount, said) = world.mount_saying(&reference, options);
        assert_eq!(mount.text("etc/release"), "top\n");
        assert!(
            said.contains("no registry was asked") && said.contains(NOTE),
            "{said}"
        );
        assert_eq!(world.registry.log(), [""; 0], "{options:?}");
        mount.end(&world);
    }
    for options in [&["--pull=always"][..], &["--pull=newer"], &[]] {
        let (mount, said) = world.mount_saying(&reference, options);
        assert_eq!(mount.names(""), ["moved"]);
        assert!(!said.contains("as of"), "{said}");
    }
}

#[test]
fn missing_asks_for_what_is_not_here() {
    let Some(world) = World::mounting() else {
        return;
    };
    let reference = world.put(&sample());
    let mount = world.mount(&reference, &["--pull=missing"]);
    assert_eq!(mount.text("etc/release"), "top\n");
    mount.end(&world);
    world.evict();
    move_tag(&world);
    world.registry.forget_requests();
    let mount = world.mount(&reference, &["--pull=missing"]);
    assert_eq!(world.registry.log(), [""; 0]);
    assert_eq!(mount.text("etc/release"), "top\n");
    assert_eq!(world.registry.requests().len(), 1, "a span");
}

#[test]
fn the_status_says_when_the_tag_was_checked() {
    let Some((world, reference)) = warm() else {
        return;
    };
    let mount = world.mount(&reference, &[]);
    let checked = world.status(&mount)["checked"].as_u64().unwrap();
    mount.end(&world);
    // The record is of a longer time ago, and that is what both say.
    let record = std::fs::read_dir(world.cache().join("refs")).unwrap();
    let path = record.map(|entry| entry.unwrap().path()).next().unwrap();
    let text = std::fs::read_to_string(&path).unwrap();
    let old = checked - 2 * 86_400 - 100;
    std::fs::write(&path, text.replace(&checked.to_string(), &old.to_string())).unwrap();
    let (mount, said) = world.mount_saying(&reference, &["--pull=never"]);
    assert!(said.contains("(2 days ago)"), "{said}");
    assert_eq!(world.status(&mount)["checked"], old);
    let outcome = process::run(world.command(IMGFS).arg("status").arg(&mount.dir));
    let text = outcome.ok();
    assert!(
        text.contains("checked") && text.contains("(2 days ago)"),
        "{text}"
    );
}

#[test]
fn an_uncached_read_says_why_it_fails() {
    let Some((mut world, reference)) = warm() else {
        return;
    };
    world.evict();
    world.registry = Registry::start();
    for (options, words) in [
        (&["--read-timeout", "1s"][..], "cannot connect to"),
        (&["--pull=never"], "not in the cache: try again without"),
    ] {
        let mount = world.mount(&reference, options);
        assert_eq!(mount.names("old"), ["b"]);
        let before = std::time::Instant::now();
        let err = std::fs::read(mount.path("etc/release")).unwrap_err();
        assert_eq!(err.raw_os_error(), Some(libc::EIO), "{err}");
        // The kernel asks twice for what one read(2) wants.
        assert!(before.elapsed() < std::time::Duration::from_millis(1900));
        let said = world.log(&mount);
        assert!(
            said.contains(words) && said.contains("etc/release"),
            "{said}"
        );
    }
}

#[test]
fn a_wrong_word_is_refused() {
    let world = World::new();
    let wrong = world.imgfs(&["cat", "--pull", "sometimes", "x", "/y"]);
    wrong.fails(2, &["always, newer, missing, never"]);
    let both = world.imgfs(&["cat", "--pull", "always", "--offline", "x", "/y"]);
    both.fails(2, &["--offline"]);
    let dir = world.mountpoint();
    let mut mount = world.command(IMGFS);
    let mount = mount.args(["mount", "-o", "pull=sometimes", "x"]).arg(dir);
    process::run(mount).fails(1, &["pull=sometimes", "always, newer, missing, never"]);
}
