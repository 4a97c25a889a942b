//! Little memory, few files, no disk: imgfs goes on.

use super::*;
use crate::process::run;

/// Mounts `reference` with a limit of 64 open files, `-S` for the soft one alone, and reads
/// everything, twice.
fn mount_with_64_files(world: &World, reference: &str, kind: &str, files: u64) {
    for round in ["cold", "warm"] {
        let dir = world.mountpoint();
        let mut shell = world.command("sh");
        let script = format!("ulimit {kind} -n 64; exec \"$0\" mount \"$1\" \"$2\"");
        run(shell.args(["-c", &script, IMGFS, reference]).arg(&dir)).ok();
        let mount = world.adopt(dir);
        for n in 0..files {
            assert!(
                mount.read(&format!("f{n:02}")) == noise(n, 100_000),
                "{round}"
            );
        }
        mount.end(world);
    }
}

fn many_layers(count: u64) -> Image {
    let layers = (0..count).map(|n| gzip(&[file(&format!("f{n:02}"), noise(n, 100_000))]));
    host_image(layers.collect())
}

#[test]
fn the_soft_limit_on_open_files_is_raised() {
    let Some(world) = World::mounting() else {
        return;
    };
    mount_with_64_files(&world, &world.put(&many_layers(40)), "-S", 40);
}

#[test]
fn sixty_four_open_files_are_enough_for_a_small_image() {
    let Some(world) = World::mounting() else {
        return;
    };
    mount_with_64_files(&world, &world.put(&many_layers(5)), "", 5);
}

#[test]
fn a_full_disk_turns_the_cache_off_and_nothing_else() {
    let Some(world) = World::as_root() else {
        return;
    };
    let content = noise(5, 12 << 20);
    std::fs::write(world.path("expected"), &content).unwrap();
    let reference = world.put(&host_image(vec![
        gzip(&[file("small", "s")]),
        gzip(&[file("large", &content)]),
    ]));
    let script = r#"
        mkdir "$W/tiny" && mount -t tmpfs -o size=3m tmpfs "$W/tiny"
        export IMGFS_CACHE_DIR="$W/tiny"
        imgfs mount "$1" "$2" 2> "$W/said"
        cat "$2/small"; cmp "$2/large" "$W/expected" && echo equal
        cmp "$2/large" "$W/expected" && echo equal again
        imgfs status "$2" | grep -c proven
        cat /run/imgfs/*.log >> "$W/said"
        imgfs unmount "$2""#;
    let dir = world.mountpoint();
    let outcome = world.namespace(script, &[reference.as_ref(), dir.as_os_str()]);
    assert_eq!(outcome.ok(), "sequal\nequal again\n2\n");
    let said = std::fs::read_to_string(world.path("said")).unwrap();
    assert!(said.contains("No space left on device"), "{said}");
    assert!(said.matches("WARN").count() <= 2, "{said}");
}

#[test]
fn a_full_disk_with_room_for_nothing() {
    let Some(world) = World::as_root() else {
        return;
    };
    let reference = world.put(&sample());
    let script = r#"
        mkdir "$W/tiny" && mount -t tmpfs -o size=64k tmpfs "$W/tiny"
        head -c 65536 /dev/zero > "$W/tiny/full" || true
        export IMGFS_CACHE_DIR="$W/tiny"
        imgfs mount "$1" "$2"
        cat "$2/etc/release"; wc -c < "$2/noise"
        imgfs unmount "$2""#;
    let dir = world.mountpoint();
    let outcome = world.namespace(script, &[reference.as_ref(), dir.as_os_str()]);
    assert_eq!(outcome.ok(), "top\n3000000\n");
}

#[test]
fn little_memory_is_enough() {
    let Some(world) = World::mounting() else {
        return;
    };
    let content = noise(6, 20 << 20);
    let reference = world.put(&host_image(vec![gzip(&[file("large", &content)])]));
    let mount = world.mount(&reference, &[]);
    assert!(mount.read("large") == content);
    let status = std::fs::read_to_string(format!("/proc/{}/status", mount.pid)).unwrap();
    let value = |name: &str| {
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap()
    };
    // 40 MiB may be fetched ahead; a debug build itself takes some 30 MB.
    assert!(value("VmHWM:") < 150_000, "{status}");
    assert!(value("Threads:") < 60, "{status}");
}
