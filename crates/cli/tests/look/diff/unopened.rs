//! What `imgfs diff` does not fetch: layers that both images have at the bottom.

use serde_json::Value;

use super::*;

/// Two images on a base of 3 MiB, the new one with a layer more that adds, changes and removes.
fn put_one_more_layer(world: &World) -> [String; 2] {
    let more = gzip(&[
        dir("app"),
        file("app/new", noise(2, 4096)),
        file("app/old", "new"),
        whiteout("app/nothing"),
        whiteout("usr"),
    ]);
    put_both(world, vec![base()], vec![base(), more])
}

const EXACT: &str = "A /app/new\nM /app/old\nD /usr\nD /usr/large\n";
const FROM_TOPS: &str = "X /app\nX /app/new\nX /app/nothing\nX /app/old\nX /usr\n";

#[test]
fn a_shared_base_is_not_fetched_to_tell_added_from_changed() {
    let world = World::new();
    let images = put_one_more_layer(&world);
    world.registry.forget_requests();
    let arguments = ["diff", &images[0], &images[1]];
    let said = world.imgfs(&arguments).ok_saying(&[
        "5 paths (X)",
        "layer 0, which both have, was not opened; --all opens it (3.1 MB to fetch)",
    ]);
    assert_eq!(said, FROM_TOPS);
    let quiet = world.imgfs(&["diff", "-q", &images[0], &images[1]]);
    assert_eq!((quiet.stderr.as_str(), quiet.code), ("", Some(0)));
    let changed = world.imgfs(&["diff", "--exit-code", &images[0], &images[1]]);
    changed.fails(1, &[]);
    let fetched = world.registry.bytes();
    assert!(fetched < 64 << 10, "{fetched} bytes for a layer of 4 kB");
    let base_digest = imgfs_formats::oci::Digest::sha256(&base().blob).to_string();
    let is_of_base = |path: &str| path.contains(&base_digest);
    assert!(
        !(world.registry.requests().iter()).any(|seen| is_of_base(&seen.path)),
        "{:?}",
        world.registry.log()
    );
    // What was asked for is fetched.
    let all = world.imgfs(&["diff", "--all", &images[0], &images[1]]);
    assert!(!all.stderr.contains("(X)"), "{}", all.stderr);
    assert_eq!(all.ok(), EXACT);
    assert!(world.registry.bytes() > BASE as u64);
    // And known from now on.
    world.evict();
    world.registry.forget_requests();
    let again = world.imgfs(&arguments);
    assert_eq!((again.stderr.as_str(), again.code), ("", Some(0)));
    assert_eq!(again.stdout, EXACT.as_bytes());
    let fetched = world.registry.bytes();
    assert!(fetched < 8 << 10, "{fetched}");
}

#[test]
fn a_layer_is_described_without_those_below_it() {
    let world = World::new();
    let top = gzip(&[dir("app"), file("app/new", "n")]);
    let name = world.put(&host_image(vec![base(), base(), top]));
    world.registry.forget_requests();
    let found = world
        .imgfs(&["diff", "--layer=2", &name])
        .ok_saying(&["layers 0 to 1, which both have, were not opened"]);
    assert_eq!(found, "X /app\nX /app/new\n");
    let fetched = world.registry.bytes();
    assert!(fetched < 64 << 10, "{fetched}");
    let found = world.imgfs(&["diff", "--layer=2", "--all", &name]).ok();
    assert_eq!(found, "A /app/new\n");
}

#[test]
fn what_is_not_known_in_every_form() {
    let world = World::new();
    let images = put_one_more_layer(&world);
    let tabs: String = (FROM_TOPS.lines())
        .map(|line| line.replacen(' ', "\t", 1) + "\n")
        .collect();
    assert_eq!(diff(&world, &["--name-status"], &images), tabs);
    let details = diff(&world, &["-v"], &images);
    for line in [
        "X /app/new [added, changed or the same]",
        "X /app/nothing [removed, if it was there]",
    ] {
        assert!(details.lines().any(|one| one == line), "{line}\n{details}");
    }
    let backwards = [images[1].clone(), images[0].clone()];
    let details = diff(&world, &["-v"], &backwards);
    for line in [
        "X /app/new [removed, changed or the same]",
        "X /usr [added, if it is there]",
    ] {
        assert!(details.lines().any(|one| one == line), "{line}\n{details}");
    }
    let sizes = diff(&world, &["--stat"], &images);
    for line in [
        "| ? -> 4.0 kB\n",
        "| ? -> none\n",
        "0 paths added, 0 removed, 0 changed, 5 not known, +0 B\n",
    ] {
        assert!(sizes.contains(line), "{line}\n{sizes}");
    }
    let json = schema::check("diff", &diff(&world, &["--json"], &images));
    let row = |path: &str| {
        let rows = json.as_array().unwrap();
        rows.iter().find(|row| row["path"] == path).unwrap()
    };
    let new = row("/app/new");
    assert_eq!(new["status"], "unknown");
    assert_eq!(new["new"]["size"], 4096);
    assert_eq!(new.get("old"), None);
    assert_eq!(row("/usr").get("new"), Some(&Value::Null));
    // Lines of text are those of both.
    let text = world
        .imgfs(&["diff", "-u", &images[0], &images[1], "/app/old"])
        .ok();
    assert!(text.contains("\n-old\n"), "{text}");
    assert!(text.contains("\n+new\n"), "{text}");
}

#[test]
fn an_index_beside_the_image_is_used() {
    let world = World::new();
    let more = gzip(&[dir("app"), file("app/new", "n")]);
    let images = put_both(&world, vec![base()], vec![base(), more]);
    world.imgfs(&["index", "push", "-q", &images[0]]).ok();
    std::fs::remove_dir_all(world.cache()).unwrap();
    world.registry.forget_requests();
    let found = diff(&world, &["--require=claimed"], &images);
    assert_eq!(found, "A /app/new\n");
    let fetched = world.registry.bytes();
    assert!(fetched < 64 << 10, "{fetched}");
}

#[test]
fn whether_a_path_exists_is_not_fetched_either() {
    let world = World::new();
    let images = put_one_more_layer(&world);
    let [old, new] = &images;
    let said = ["not known whether /nowhere exists: layer 0"];
    let found = world.imgfs(&["diff", old, new, "/nowhere"]);
    assert_eq!(found.ok_saying(&said), "");
    let all = world.imgfs(&["diff", "--all", old, new, "/nowhere"]);
    all.fails(1, &["/nowhere: no such file or directory"]);
    // The index of the base is here now.
    let again = world.imgfs(&["diff", old, new, "/nowhere"]);
    again.fails(1, &["/nowhere: no such file or directory"]);
}
