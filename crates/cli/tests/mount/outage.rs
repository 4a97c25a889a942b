//! A registry that goes away under a mount and comes back: whoever reads meanwhile waits and gets
//! the right bytes.

use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::*;
use crate::support::registry::Registry;

/// Files of the image, each in spans of its own, and their size.
const FILES: usize = 50;
const SIZE: usize = 400_000;

fn content(number: usize) -> Vec<u8> {
    noise(300 + number as u64, SIZE)
}

/// So that bodies are under way when a registry goes.
const SLOW: Fault = Fault::Drip(24 << 10);
const OUTAGE: Duration = Duration::from_secs(2);

/// A mount of an image of which only the index is cached.
fn cold(world: &World, options: &[&str]) -> Mount {
    let contents: Vec<_> = (0..FILES).map(content).collect();
    let members: Vec<_> = (contents.iter().enumerate())
        .map(|(number, content)| file(&format!("file{number}"), content))
        .collect();
    let reference = world.put(&host_image(vec![gzip(&members)]));
    world.mount(&reference, &[]).end(world);
    world.evict();
    let mount = world.mount(&reference, options);
    world.registry.forget_requests();
    mount
}

/// Reads all files one after the other. Each byte is right.
fn read_all(mount: &Mount, meanwhile: impl Fn(usize)) {
    for number in 0..FILES {
        meanwhile(number);
        assert!(
            mount.read(&format!("file{number}")) == content(number),
            "{number}"
        );
    }
}

/// Reads all of a cold mount. After a third of it `goes` is away for this long, and something
/// happens `meanwhile`.
fn read_all_with_outage(mount: &Mount, goes: &Registry, outage: Duration, meanwhile: impl Fn()) {
    goes.forget_requests();
    goes.fault_always(On::Blob, SLOW);
    std::thread::scope(|scope| {
        read_all(mount, |number| {
            if number == FILES / 3 {
                goes.away();
                let came = goes.bytes();
                assert!(came < (FILES * SIZE) as u64, "something is still to come");
                meanwhile();
                scope.spawn(move || {
                    std::thread::sleep(outage);
                    goes.back();
                });
            }
        });
    });
}

#[test]
fn a_reader_waits_until_the_registry_is_back() {
    let Some(world) = World::mounting() else {
        return;
    };
    let mut sent = Vec::new();
    for outage in [Duration::ZERO, OUTAGE] {
        let mount = cold(&world, &[]);
        world.registry.fault_always(On::Blob, SLOW);
        let begin = Instant::now();
        if outage.is_zero() {
            read_all(&mount, |_| {});
        } else {
            read_all_with_outage(&mount, &world.registry, outage, || {});
        }
        assert!(begin.elapsed() >= outage);
        sent.push(world.registry.requests().len());
        world.registry.clear_faults();
        mount.end(&world);
    }
    // What was under way is asked for again.
    assert!(
        sent[1] <= sent[0] + 8,
        "without and with: {sent:?} requests"
    );
}

#[test]
fn tokens_that_are_gone_after_the_outage_are_asked_for_again() {
    let Some(world) = World::mounting() else {
        return;
    };
    world.registry.require_token(None);
    let mount = cold(&world, &[]);
    let before = world.registry.token_requests().0;
    let second = Duration::from_secs(1);
    read_all_with_outage(&mount, &world.registry, second, || {
        world.registry.revoke_tokens();
    });
    let renewed = world.registry.token_requests().0 - before;
    assert!((1..=2).contains(&renewed), "{renewed} token requests");
}

#[test]
fn a_storage_that_goes_away_is_waited_for() {
    let Some(world) = World::mounting() else {
        return;
    };
    let storage = Registry::start();
    world.registry.redirect_blobs_to(&storage);
    let mount = cold(&world, &[]);
    let second = Duration::from_secs(1);
    read_all_with_outage(&mount, &storage, second, || storage.expire_urls());
    let asked = world.registry.requests().len();
    assert!(asked <= 12, "{asked} requests for the place of one blob");
}

#[test]
fn many_readers_that_wait_do_not_hammer() {
    let Some(world) = World::mounting() else {
        return;
    };
    let mount = cold(&world, &[]);
    let connections = world.registry.connections();
    world.registry.away();
    let waiting = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for number in 0..FILES {
            let (mount, waiting) = (&mount, &waiting);
            scope.spawn(move || {
                waiting.fetch_add(1, Ordering::Relaxed);
                let got = mount.read(&format!("file{number}"));
                assert!(got == content(number), "{number}");
                waiting.fetch_sub(1, Ordering::Relaxed);
            });
        }
        std::thread::sleep(OUTAGE);
        assert_eq!(waiting.load(Ordering::Relaxed), FILES, "nobody was refused");
        world.registry.back();
    });
    // Each span at most by itself, and what the first connections brought.
    let sent = world.registry.requests().len();
    assert!(sent <= 2 * FILES, "{sent} requests");
    let connections = world.registry.connections() - connections;
    assert!(connections <= 16, "{connections} connections");
}

#[test]
fn a_read_fails_when_its_time_is_over_and_the_next_one_tries_again() {
    let Some(world) = World::mounting() else {
        return;
    };
    let mount = cold(&world, &["--read-timeout", "2s"]);
    world.registry.away();
    let begin = Instant::now();
    let err = std::fs::read(mount.path("file7")).unwrap_err();
    let waited = begin.elapsed();
    assert_eq!(err.raw_os_error(), Some(libc::EIO), "{err}");
    assert!(
        waited >= Duration::from_millis(1900) && waited < Duration::from_secs(10),
        "{waited:?}"
    );
    let said = world.log(&mount);
    for words in [
        "file7",
        "the bytes did not come within 2s",
        &world.registry.host(),
        "nothing listens there",
    ] {
        assert!(said.contains(words), "{words}: {said}");
    }
    world.registry.back();
    assert!(mount.read("file7") == content(7));
}

#[test]
fn a_read_that_never_gives_up_outlives_its_time() {
    let Some(world) = World::mounting() else {
        return;
    };
    let mount = cold(&world, &["--read-timeout", "1s", "--on-error", "retry"]);
    world.registry.away();
    std::thread::scope(|scope| {
        let reading = scope.spawn(|| mount.read("file7"));
        std::thread::sleep(Duration::from_secs(4));
        assert!(!reading.is_finished(), "it waits");
        world.registry.back();
        assert!(reading.join().unwrap() == content(7));
    });
}

#[test]
fn the_end_of_a_mount_does_not_wait_for_reads() {
    let Some(world) = World::mounting() else {
        return;
    };
    for on_error in ["eio", "retry"] {
        let mount = cold(&world, &["--on-error", on_error]);
        world.registry.away();
        std::thread::scope(|scope| {
            let reading = scope.spawn(|| std::fs::read(mount.path("file7")));
            std::thread::sleep(Duration::from_millis(700));
            assert!(!reading.is_finished(), "it waits");
            let begin = Instant::now();
            world::kill(mount.pid, Signal::TERM);
            assert!(reading.join().unwrap().is_err());
            mount.has_ended();
            assert!(
                begin.elapsed() < Duration::from_secs(5),
                "{:?}",
                begin.elapsed()
            );
        });
        world.registry.back();
    }
}

/// A name that cannot be looked up is a network that is not there yet.
#[test]
fn a_name_that_is_unknown_for_a_while_is_waited_for() {
    let Some(world) = World::as_root() else {
        return;
    };
    if !has(&["unshare"]) {
        return;
    }
    let contents = content(0);
    world.put(&host_image(vec![gzip(&[file("file", &contents)])]));
    std::fs::write(world.path("expected"), &contents).unwrap();
    // Without connections to use again each request needs the name.
    let closing = Fault::Header("connection", "close");
    world.registry.fault_always(On::Any, closing);
    let port = world.registry.host().replace("127.0.0.1:", "");
    let script = r#"
        printf '127.0.0.1 localhost registry.example\n' > "$W/known"
        printf '127.0.0.1 localhost\n' > "$W/unknown"
        cp "$W/known" "$W/hosts"
        printf 'nameserver 127.0.0.1\noptions timeout:1 attempts:1\n' > "$W/resolv.conf"
        touch /etc/resolv.conf
        mount --bind "$W/hosts" /etc/hosts
        mount --bind "$W/resolv.conf" /etc/resolv.conf
        mkdir "$W/mnt"
        name="registry.example:$1/r:t"
        imgfs mount --plain-http "$name" "$W/mnt"
        imgfs unmount "$W/mnt"
        imgfs cache evict --data
        imgfs mount --plain-http "$name" "$W/mnt"
        cat "$W/unknown" > /etc/hosts
        cat "$W/mnt/file" > "$W/read" &
        reading=$!
        sleep 2
        if ! kill -0 "$reading" 2>/dev/null; then echo "it did not wait"; exit 1; fi
        cat "$W/known" > /etc/hosts
        wait "$reading"
        cmp "$W/read" "$W/expected"
        imgfs unmount "$W/mnt"
        echo right
    "#;
    let said = world.namespace(script, &[port]).ok();
    assert!(said.ends_with("right\n"), "{said}");
}

#[test]
fn two_hundred_readers_over_a_registry_that_fails_one_request_in_five() {
    let Some(world) = World::mounting() else {
        return;
    };
    let mount = cold(&world, &[]);
    let faults = [
        Fault::Status(500),
        Fault::Status(503),
        Fault::Drop,
        Fault::Truncate(0),
        Fault::Truncate(100_000),
    ];
    world.registry.chaos(5, 5, &faults);
    std::thread::scope(|scope| {
        for reader in 0..200 {
            let mount = &mount;
            scope.spawn(move || {
                let number = reader % FILES;
                let open = std::fs::File::open(mount.path(&format!("file{number}"))).unwrap();
                let mut got = vec![0; SIZE / 4];
                let offset = reader / FILES * SIZE / 4;
                open.read_exact_at(&mut got, offset as u64).unwrap();
                assert!(
                    got == content(number)[offset..offset + SIZE / 4],
                    "{reader}"
                );
            });
        }
    });
    let sent = world.registry.requests().len();
    let struck = world.registry.clear_faults();
    assert!(struck > 0, "nothing went wrong in {sent} requests");
    let struck = usize::try_from(struck).unwrap();
    assert!(
        sent <= FILES + 2 * struck + 8,
        "{sent} requests, {struck} went wrong"
    );
}
