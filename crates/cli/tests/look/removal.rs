//! `imgfs rm` and `prune`: what goes, what stays, and what an end at any moment leaves.

use std::collections::BTreeSet;
use std::path::Path;

use imgfs_core::store::{Step, Store};
use imgfs_formats::oci::Digest;
use serde_json::json;

use super::images::{id_of, layer, made};
use super::*;
use crate::listing::file;
use crate::process::{finish, run, run_with_input, start, wait_for};
use crate::support::image::{OCI_INDEX, image_index, write_layout};
use crate::world::IMGFS;

/// Images over one base, in the cache whole: `r/a:1`, `r/a:same` (the same image), `r/b:1`.
struct Three {
    world: World,
    a: Image,
    b: Image,
}

impl Three {
    fn new() -> Self {
        Self::fill(World::new())
    }

    fn fill(world: World) -> Self {
        let base = gzip(&[file("base", noise(1, 200_000))]);
        let top = |seed| gzip(&[file("top", noise(seed, 50_000))]);
        let a = made(
            "2020-01-01T00:00:00Z",
            &json!({"l": "a"}),
            vec![base.clone(), top(2)],
        );
        let b = made("2021-01-01T00:00:00Z", &json!({}), vec![base, top(3)]);
        world.registry.put_image("r/a", "1", &a);
        world.registry.put_image("r/a", "same", &a);
        world.registry.put_image("r/b", "1", &b);
        let three = Self { world, a, b };
        three.pull();
        three
    }

    fn pull(&self) {
        for name in ["r/a:1", "r/a:same", "r/b:1"] {
            self.world.imgfs(&["pull", "-q", &self.name(name)]).ok();
        }
    }

    fn name(&self, name: &str) -> String {
        self.world.registry.reference(name)
    }

    /// Layers with anything of them here.
    fn layers(&self) -> BTreeSet<String> {
        names(&self.world.cache().join("layers/sha256"))
    }

    /// Whether all of an image can be read with the registry out of reach.
    #[track_caller]
    fn reads_offline(&self, name: &str, image: &Image) {
        let tops = [("base", &image.layers[0]), ("top", &image.layers[1])];
        for (path, layer) in tops {
            let bytes = self
                .world
                .imgfs(&["cat", "--offline", &self.name(name), path])
                .ok_bytes();
            let tar = &layer.tar;
            assert!(
                tar.windows(bytes.len())
                    .step_by(512)
                    .any(|window| window == bytes)
            );
        }
    }

    /// Every image that is still listed under a tag can be read, and a prune leaves nothing that no
    /// image needs.
    #[track_caller]
    fn is_usable(&self) {
        let listed = self.world.imgfs(&["images", "--json"]).ok();
        let listed = schema::check("images", &listed);
        for image in listed.as_array().unwrap() {
            for tag in image["tags"].as_array().unwrap() {
                let reference = tag["reference"].as_str().unwrap();
                let name = reference.split_once('/').unwrap().1;
                let image = if name.starts_with("r/a") {
                    &self.a
                } else {
                    &self.b
                };
                // Names go first: what has one is whole.
                let top = (self.world)
                    .imgfs(&["cat", "--offline", reference, "top"])
                    .ok_bytes();
                assert_eq!(top.len(), 50_000);
                assert!(
                    image.layers[1]
                        .tar
                        .windows(top.len())
                        .step_by(512)
                        .any(|window| window == top)
                );
            }
        }
        self.world.imgfs(&["prune", "-f"]).ok();
        self.nothing_is_left_over();
    }

    /// Layers and documents are those of the images that are listed.
    #[track_caller]
    fn nothing_is_left_over(&self) {
        let listed = self.world.imgfs(&["images", "--json"]).ok();
        let listed = schema::check("images", &listed);
        let (mut layers, mut documents) = (BTreeSet::new(), BTreeSet::new());
        let hex = |value: &serde_json::Value| value.as_str().unwrap().replace("sha256:", "");
        for image in listed.as_array().unwrap() {
            layers.extend(image["layers"].as_array().unwrap().iter().map(hex));
            documents.extend([hex(&image["id"]), hex(&image["manifest"])]);
        }
        let cache = self.world.cache();
        assert!(self.layers().is_subset(&layers), "{:?}", self.layers());
        assert!(names(&cache.join("indexes/sha256")).is_subset(&layers));
        assert_eq!(names(&cache.join("documents/sha256")), documents);
        assert_eq!(names(&cache.join("trash")), BTreeSet::new());
    }
}

fn names(dir: &Path) -> BTreeSet<String> {
    let Ok(entries) = std::fs::read_dir(dir) else {
        return BTreeSet::new();
    };
    entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

fn hex(layer: &Layer) -> String {
    Digest::sha256(&layer.blob).hex()
}

#[test]
fn tags_go_first_and_shared_layers_last() {
    let three = Three::new();
    let world = &three.world;
    let base = hex(&three.a.layers[0]);
    let said = world.imgfs(&["rm", &three.name("r/a:1")]).ok();
    assert_eq!(
        said,
        format!("Untagged: {}\n", three.name("r/a:1")),
        "it has another tag"
    );
    three.reads_offline("r/a:same", &three.a);
    let said = world.imgfs(&["rm", &three.name("r/a:same")]).ok();
    let manifest = Digest::sha256(&three.a.manifest);
    let expected = format!(
        "Untagged: {}\nUntagged: {}@{manifest}\nDeleted: sha256:{}\nDeleted: sha256:{}\n",
        three.name("r/a:same"),
        three.name("r/a"),
        id_of(&three.a),
        hex(&three.a.layers[1])
    );
    assert_eq!(said, expected);
    assert!(three.layers().contains(&base), "the other image has it");
    three.reads_offline("r/b:1", &three.b);
    three.nothing_is_left_over();
    let removed = world.imgfs(&["rm", "--json", &three.name("r/b:1")]).ok();
    let removed = schema::check("rm", &removed);
    assert_eq!(removed["layers"].as_array().unwrap().len(), 2);
    assert!(
        removed["reclaimed"].as_u64().unwrap() > 250_000,
        "{removed}"
    );
    assert_eq!(three.layers(), BTreeSet::new());
    three.nothing_is_left_over();
    world
        .imgfs(&["cat", "--offline", &three.name("r/b:1"), "top"])
        .fails(1, &["r/b:1"]);
    // And it can be had again.
    three.pull();
    three.reads_offline("r/b:1", &three.b);
}

#[test]
fn images_go_by_id_and_digest() {
    let three = Three::new();
    let world = &three.world;
    let (a, b) = (id_of(&three.a), id_of(&three.b));
    world
        .imgfs(&["rm", &a[..12]])
        .fails(1, &["has several tags", "r/a:1", "r/a:same", "-f"]);
    let common = a.bytes().zip(b.bytes()).take_while(|(a, b)| a == b).count();
    if common > 0 {
        world
            .imgfs(&["rm", &a[..common]])
            .fails(1, &["start of several", &a[..12], &b[..12]]);
    }
    // What fails does not keep the others.
    let outcome = world.imgfs(&["rm", "deadbeef00", "nothing:here", &b[..12]]);
    outcome.fails(
        1,
        &[
            "no image deadbeef00",
            "no image nothing:here",
            "imgfs images",
        ],
    );
    let said = String::from_utf8(outcome.stdout).unwrap();
    assert!(said.contains(&format!("Deleted: sha256:{b}")), "{said}");
    let said = world
        .imgfs(&["rm", "-f", &format!("sha256:{}", &a[..12])])
        .ok();
    assert_eq!(said.matches("Untagged: ").count(), 4, "{said}");
    assert_eq!(world.imgfs(&["images", "-q"]).ok(), "");
    three.nothing_is_left_over();

    // By digest; an image that was never asked for by tag is dangling.
    let digest = Digest::sha256(&three.b.manifest);
    let pinned = format!("{}@{digest}", three.name("r/b"));
    world.imgfs(&["ls", &pinned]).ok();
    let dangling = world
        .imgfs(&["images", "-q", "--filter", "dangling=true"])
        .ok();
    assert_eq!(dangling.trim(), &b[..12]);
    let said = world.imgfs(&["rm", &pinned]).ok();
    assert!(said.starts_with(&format!("Deleted: sha256:{b}")), "{said}");
    world.imgfs(&["rm", "-f", "gone"]).ok();
    three.nothing_is_left_over();
}

#[test]
fn what_is_mounted_stays() {
    let Some(world) = World::mounting() else {
        return;
    };
    let three = Three::fill(world);
    let world = &three.world;
    let mount = world.mount(&three.name("r/b:1"), &[]);
    let mountpoint = mount.dir.to_str().unwrap().to_owned();
    world
        .imgfs(&["rm", "-f", &three.name("r/b:1")])
        .fails(1, &["stays", "mounted on", &mountpoint, "unmount"]);
    // A second tag may go, and another image over the same base.
    world.imgfs(&["rm", "-f", &id_of(&three.a)]).ok();
    let said = world.imgfs(&["prune", "-af"]).ok();
    assert!(said.ends_with("Total reclaimed space: 0 B\n"), "{said}");
    assert_eq!(mount.read("top").len(), 50_000);
    mount.end(world);
    let pruned = world.imgfs(&["prune", "-af", "--json"]).ok();
    let pruned = schema::check("prune", &pruned);
    assert_eq!(
        pruned["images"],
        json!([format!("sha256:{}", id_of(&three.b))])
    );
    assert_eq!(three.layers(), BTreeSet::new());
    three.nothing_is_left_over();
}

/// Somebody else's mount, a pull or any command has its layers open: the lock says so, whoever it
/// is.
#[test]
fn what_somebody_uses_stays() {
    let three = Three::new();
    let world = &three.world;
    let dir = world
        .cache()
        .join("layers/sha256")
        .join(hex(&three.b.layers[1]));
    let lock = std::fs::File::open(dir.join("lock")).unwrap();
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockShared).unwrap();
    world
        .imgfs(&["rm", &three.name("r/b:1")])
        .fails(1, &["stays", "somebody uses it"]);
    world.imgfs(&["prune", "-af"]).ok();
    three.reads_offline("r/b:1", &three.b);
    assert!(
        !three.layers().contains(&hex(&three.a.layers[1])),
        "the other is gone"
    );
    drop(lock);
    world.imgfs(&["rm", &three.name("r/b:1")]).ok();
    three.nothing_is_left_over();
}

#[test]
fn prune_takes_what_has_no_name_and_what_nothing_needs() {
    let three = Three::new();
    let world = &three.world;
    // A tag that moves leaves an image without a name.
    let newer = made("2022-01-01T00:00:00Z", &json!({}), vec![layer(9, 5000)]);
    world.registry.put_image("r/b", "1", &newer);
    world.imgfs(&["ls", &three.name("r/b:1")]).ok();
    // What was left by others: a layer that no image has, a document, what was never finished,
    // damaged records.
    let cache = world.cache();
    let stray = cache.join("layers/sha256").join("ab".repeat(32));
    std::fs::create_dir(&stray).unwrap();
    std::fs::write(stray.join("data"), noise(7, 100_000)).unwrap();
    let unfinished = cache
        .join("layers/sha256")
        .join(hex(&newer.layers[0]))
        .join("data.new");
    std::fs::write(&unfinished, noise(8, 100_000)).unwrap();
    let document = cache
        .join("documents/sha256")
        .join(Digest::sha256(b"{}").hex());
    std::fs::write(&document, "{}").unwrap();
    std::fs::create_dir_all(cache.join("trash/1-0")).unwrap();
    std::fs::write(cache.join("refs/zz.json"), "{").unwrap();
    let midstates = cache.join("midstates/sha256").join("cd".repeat(32));
    std::fs::create_dir_all(midstates.parent().unwrap()).unwrap();
    std::fs::write(&midstates, "x").unwrap();

    // Nobody who answers, nothing that goes.
    world
        .imgfs(&["prune"])
        .fails(1, &["Are you sure", "-f does not ask"]);
    let mut asked = world.command(IMGFS);
    run_with_input(asked.arg("prune"), "n\n").ok_saying(&["WARNING!", "nothing was removed"]);
    assert!(stray.exists());
    let said = run_with_input(world.command(IMGFS).arg("prune"), "y\n").ok();
    let b = id_of(&three.b);
    assert!(
        said.starts_with(&format!("Deleted Images:\ndeleted: sha256:{b}\n")),
        "{said}"
    );
    assert!(said.contains("\nTotal reclaimed space: "), "{said}");
    for path in [
        stray,
        unfinished,
        document,
        midstates,
        cache.join("refs/zz.json"),
    ] {
        assert!(!path.exists(), "{}", path.display());
    }
    three.reads_offline("r/a:1", &three.a);
    three.nothing_is_left_over();

    // With filters, of all images.
    let left = |filter: &str| {
        world.imgfs(&["prune", "-af", "--filter", filter]).ok();
        world.imgfs(&["images", "-q"]).ok().lines().count()
    };
    assert_eq!(left("label=none"), 3);
    assert_eq!(left("until=2019-01-01"), 3);
    assert_eq!(left("label!=l"), 2, "r/b:1 had no such label");
    assert_eq!(left("until=2020-06-01"), 0);
    three.nothing_is_left_over();
}

/// A removal's steps are in an order in which any number of them, done alone, leaves a cache that
/// works.
#[test]
fn an_end_after_any_step_leaves_a_usable_cache() {
    let three = Three::new();
    let root = three.world.path("cache");
    let mut most = 1;
    let mut done = 0;
    while done <= most {
        let store = Store::open(&root, u64::MAX).unwrap();
        let steps = {
            let mut removal = store.removal().unwrap();
            for image in store.images().unwrap() {
                if image.id().hex() == id_of(&three.a) {
                    image.tags.iter().for_each(|tag| removal.untag(tag));
                    removal.forget(image);
                }
            }
            removal.plan(false).unwrap().steps()
        };
        most = steps.len();
        std::fs::create_dir_all(root.join("v1/trash")).unwrap();
        steps.iter().take(done).for_each(|step| step.run().unwrap());
        three.reads_offline("r/b:1", &three.b);
        three.is_usable();
        three.pull();
        done += 1;
    }
    // Two tags, a record, a manifest; an index and a directory; a config.
    assert!(most >= 7, "{most} steps");
}

/// Killed as soon as one of its steps is seen to be done, another one in every round.
#[test]
fn a_kill_leaves_a_usable_cache() {
    let three = Three::new();
    let root = three.world.path("cache");
    let mut killed = 0;
    for round in 0_usize..24 {
        let arguments: &[&str] = match round % 3 {
            0 => &["rm", "-f", &id_of(&three.a)],
            1 => &["prune", "-af", "--filter", "label=l"],
            _ => &["prune", "-af"],
        };
        let store = Store::open(&root, u64::MAX).unwrap();
        let mut removal = store.removal().unwrap();
        for image in store.images().unwrap() {
            if round % 3 == 2 || image.id().hex() == id_of(&three.a) {
                image.tags.iter().for_each(|tag| removal.untag(tag));
                removal.forget(image);
            }
        }
        let mut places = removal.plan(false).unwrap().steps();
        // After the last one nothing is left to be killed in.
        places.pop();
        let (Step::Remove(place) | Step::Discard { dir: place, .. }) =
            &places[round / 3 % places.len()];
        assert!(place.exists());
        let mut removing = start(three.world.command(IMGFS).args(arguments));
        while place.exists() && removing.child.try_wait().unwrap().is_none() {
            std::thread::yield_now();
        }
        removing.child.kill().unwrap();
        killed += u32::from(finish(removing).code.is_none());
        assert!(!place.exists());
        if round % 3 < 2 {
            three.reads_offline("r/b:1", &three.b);
        }
        three.is_usable();
        three.pull();
    }
    assert!(killed > 0, "every one was faster than its end");
}

/// What somebody opens between the decision and the deed stays.
#[test]
fn a_layer_that_is_opened_meanwhile_stays() {
    let three = Three::new();
    let store = Store::open(&three.world.path("cache"), u64::MAX).unwrap();
    let mut removal = store.removal().unwrap();
    for image in store.images().unwrap() {
        image.tags.iter().for_each(|tag| removal.untag(tag));
        removal.forget(image);
    }
    let plan = removal.plan(false).unwrap();
    let top = hex(&three.b.layers[1]);
    let cache = three.world.cache();
    let lock = cache.join("layers/sha256").join(&top).join("lock");
    let lock = std::fs::File::open(lock).unwrap();
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockShared).unwrap();
    let swept = plan.run().unwrap();
    assert_eq!((swept.layers.len(), swept.in_use), (2, 1));
    assert_eq!(three.layers(), BTreeSet::from([top.clone()]));
    assert_eq!(
        names(&cache.join("indexes/sha256")),
        BTreeSet::from([top.clone()])
    );
    // It is said that something stays.
    three
        .world
        .imgfs(&["prune", "-f"])
        .ok_saying(&["1 layer stays", "somebody uses"]);
    drop(lock);
    three.world.imgfs(&["prune", "-f"]).ok();
    assert_eq!(three.layers(), BTreeSet::new());
    three.nothing_is_left_over();
}

/// A digest is one of a repository: in another one it names nothing.
#[test]
fn a_digest_of_another_repository_is_not_meant() {
    let three = Three::new();
    let digest = Digest::sha256(&three.b.manifest);
    for name in ["r/a", "r/a:1", "r/nothing", "r/nothing:1"] {
        let name = format!("{}@{digest}", three.name(name));
        three
            .world
            .imgfs(&["rm", "-f", &name])
            .ok_saying(&["no image"]);
        three.world.imgfs(&["rm", &name]).fails(1, &["no image"]);
    }
    three.reads_offline("r/b:1", &three.b);
    // Nor does a tag of another repository go with it that nobody named.
    three.world.registry.put_image("r/other", "1", &three.b);
    let other = format!("{}@{digest}", three.name("r/other"));
    three.world.imgfs(&["ls", &other]).ok();
    three
        .world
        .imgfs(&["rm", &other])
        .fails(1, &["r/b:1", "-f"]);
    three.reads_offline("r/b:1", &three.b);
    let own = format!("{}:1@{digest}", three.name("r/b"));
    let said = three.world.imgfs(&["rm", &own]).ok();
    assert!(said.contains(&id_of(&three.b)), "{said}");
    assert_eq!(three.world.imgfs(&["images", "-q"]).ok().lines().count(), 2);
}

/// Manifests that somebody looked at are no images: they are not listed, and keep no tag.
#[test]
fn manifests_that_were_looked_at_are_no_images() {
    let world = World::new();
    let (here, there) = (
        host_image(vec![layer(1, 1000)]),
        image("plan9/mips", vec![layer(2, 1000)]),
    );
    for (tag, image) in [("h", &here), ("t", &there)] {
        world.registry.put_image("r", tag, image);
    }
    let host = imgfs_core::source::host_platform().to_string();
    let list = image_index(&[(&host, &here), ("plan9/mips", &there)]);
    world.registry.put_manifest("r", "list", OCI_INDEX, list);
    let reference = world.registry.reference("r:list");
    world.imgfs(&["ls", &reference]).ok();
    world.imgfs(&["manifest", "inspect", "-v", &reference]).ok();
    let listed = world.imgfs(&["images", "-q", "--no-trunc"]).ok();
    assert_eq!(listed, format!("sha256:{}\n", id_of(&here)));
    let said = world.imgfs(&["rm", &id_of(&here)]).ok();
    assert!(said.starts_with("Untagged: "), "{said}");
    assert_eq!(names(&world.cache().join("refs")), BTreeSet::new());
    assert_eq!(
        names(&world.cache().join("documents/sha256")),
        BTreeSet::new()
    );
}

/// A tag that is resolved while a removal of it is under way is known afterwards.
#[test]
fn a_tag_that_is_asked_for_during_its_removal_is_kept() {
    let three = Three::new();
    let world = &three.world;
    let newer = made("2022-01-01T00:00:00Z", &json!({}), vec![layer(9, 5000)]);
    world.registry.put_image("r/b", "1", &newer);
    let store = Store::open(&world.path("cache"), u64::MAX).unwrap();
    let mut removal = store.removal().unwrap();
    for image in store.images().unwrap() {
        if image.id().hex() == id_of(&three.b) {
            image.tags.iter().for_each(|tag| removal.untag(tag));
            removal.forget(image);
        }
    }
    let listing = start(world.command(IMGFS).args(["ls", &three.name("r/b:1")]));
    // It knows what the tag means, and waits to write that down.
    let lock = world.cache().join("lock").canonicalize().unwrap();
    let files = format!("/proc/{}/fd", listing.child.id());
    wait_for("the lock", || {
        let files = std::fs::read_dir(&files).unwrap();
        let mut open = files.filter_map(|file| std::fs::read_link(file.unwrap().path()).ok());
        open.any(|file| file == lock)
    });
    removal.plan(false).unwrap().run().unwrap();
    finish(listing).ok();
    let (listed, id) = (world.imgfs(&["images", "--json"]).ok(), id_of(&newer));
    let listed = schema::check("images", &listed);
    let found = listed.as_array().unwrap().iter();
    let mut tags = found
        .filter(|image| image["id"] == format!("sha256:{id}"))
        .map(|image| image["tags"].as_array().unwrap().len());
    assert_eq!((tags.next(), tags.next()), (Some(1), None));
}

/// The start of several IDs is a mistake, and not something that is not there.
#[test]
fn force_does_not_forgive_what_is_ambiguous() {
    let three = Three::new();
    let a = id_of(&three.a);
    let similar = (0..10_000)
        .map(|n| {
            made(
                "2022-01-01T00:00:00Z",
                &json!({"n": n.to_string()}),
                vec![layer(9, 100)],
            )
        })
        .find(|image| id_of(image)[..1] == a[..1])
        .unwrap();
    three.world.registry.put_image("r/c", "1", &similar);
    three.world.imgfs(&["ls", &three.name("r/c:1")]).ok();
    three
        .world
        .imgfs(&["rm", "-f", &a[..12], &a[..1]])
        .fails(1, &["start of several"]);
    three.reads_offline("r/b:1", &three.b);
    // The same one twice is one.
    let c = format!("sha256:{}", id_of(&similar));
    three.world.imgfs(&["rm", &c, &c[..20]]).ok();
}

/// However many layers go, a few files are open.
#[test]
fn many_layers_go_with_few_files_open() {
    let world = World::new();
    let layers = (0..24).map(|seed| layer(seed, 20_000)).collect();
    let reference = world.put(&host_image(layers));
    world.imgfs(&["pull", "-q", &reference]).ok();
    let imgfs = |arguments: &[&str]| {
        let script = "ulimit -n 40; exec \"$@\"";
        let mut command = world.command("sh");
        run(command.args(["-c", script, "sh", IMGFS]).args(arguments))
    };
    imgfs(&["--cache-limit", "1kB", "cache", "evict"]).ok_saying(&["from 24 layers"]);
    let dir = world.cache().join("layers/sha256");
    for n in 0..60 {
        let stray = dir.join(format!("{n:064x}"));
        std::fs::create_dir(&stray).unwrap();
        std::fs::write(stray.join("data"), "x").unwrap();
    }
    assert_eq!(names(&dir).len(), 84);
    imgfs(&["prune", "-af"]).ok();
    assert_eq!(names(&dir), BTreeSet::new());
}

/// A mount that reads another cache is not in the way.
#[test]
fn a_mount_of_another_cache_keeps_nothing() {
    let Some(world) = World::mounting() else {
        return;
    };
    let three = Three::fill(world);
    let world = &three.world;
    let dir = world.mountpoint();
    let other = world.path("other");
    let cache = ["--cache-dir", other.to_str().unwrap()];
    run(world
        .command(IMGFS)
        .args(cache)
        .args(["mount", &three.name("r/b:1")])
        .arg(&dir))
    .ok();
    let mount = world.adopt(dir);
    let used = run(world
        .command(IMGFS)
        .args(cache)
        .args(["rm", &three.name("r/b:1")]));
    used.fails(1, &["mounted on", mount.dir.to_str().unwrap()]);
    let said = world.imgfs(&["rm", &three.name("r/b:1")]).ok();
    assert!(said.contains(&id_of(&three.b)), "{said}");
    assert_eq!(mount.read("top").len(), 50_000);
    mount.end(world);
}

/// Images that stay keep the part of a download that can go on.
#[test]
fn a_download_that_was_broken_off_can_go_on() {
    let three = Three::new();
    let layers = three.world.cache().join("layers/sha256");
    let dir = layers.join(hex(&three.b.layers[0]));
    for name in ["partial", "blob", "blob.map", "data.new"] {
        std::fs::write(dir.join(name), noise(1, 5000)).unwrap();
    }
    three.world.imgfs(&["prune", "-f"]).ok();
    let left = names(&dir);
    for name in ["partial", "blob", "blob.map"] {
        assert!(left.contains(name), "{left:?}");
    }
    assert!(!left.contains("data.new"));
}

/// Names may have what would do something to a terminal.
#[test]
fn names_are_printed_without_control_characters() {
    let world = World::new();
    let dir = world.path("a\u{1b}[31mb");
    std::fs::create_dir_all(&dir).unwrap();
    let image = host_image(vec![layer(1, 1000)]);
    write_layout(&dir, &[("one", &image), ("two", &image)]);
    let name = |tag: &str| format!("oci:{}:{tag}", dir.display());
    for tag in ["one", "two"] {
        world.imgfs(&["ls", &name(tag)]).ok();
    }
    let id = id_of(&image);
    let refused = world.imgfs(&["rm", &id]);
    refused.fails(1, &["\\u{1b}[31mb:one"]);
    assert!(!refused.stderr.contains('\u{1b}'));
    let said = world.imgfs(&["rm", &name("one")]).ok();
    assert!(said.contains("\\u{1b}[31mb:one"), "{said:?}");
    assert!(!said.contains('\u{1b}'));
    let said = world.imgfs(&["prune", "-af"]).ok();
    assert!(said.contains("\\u{1b}[31mb:two"), "{said:?}");
    assert!(!said.contains('\u{1b}'));
}

/// A short name that may mean several is never taken for the start of an ID if one of them is here.
#[test]
fn an_ambiguous_name_is_no_id() {
    let world = World::new();
    let with_start = (0..100_000)
        .map(|n| {
            made(
                "2022-01-01T00:00:00Z",
                &json!({"n": n.to_string()}),
                vec![layer(9, 100)],
            )
        })
        .find(|image| id_of(image).starts_with("ab"))
        .unwrap();
    let named = made("2020-01-01T00:00:00Z", &json!({}), vec![layer(1, 1000)]);
    world.registry.put_image("r", "t", &with_start);
    world.registry.put_image("ab", "latest", &named);
    for name in ["r:t", "ab:latest"] {
        world.imgfs(&["ls", &world.registry.reference(name)]).ok();
    }
    let configuration = world.path(".config/containers");
    std::fs::create_dir_all(&configuration).unwrap();
    std::fs::write(
        configuration.join("registries.conf"),
        format!(
            "unqualified-search-registries = [\"{}\", \"two.example\"]\nshort-name-mode = \"enforcing\"\n",
            world.registry.host()
        ),
    )
    .unwrap();
    world
        .imgfs(&["rm", "ab"])
        .fails(1, &["may mean", "ab:latest"]);
    assert_eq!(world.imgfs(&["images", "-q"]).ok().lines().count(), 2);
    world.imgfs(&["rm", &id_of(&with_start)[..12]]).ok();
    // Of these nothing is here, whatever they mean.
    world
        .imgfs(&["rm", "nothing"])
        .fails(1, &["no image nothing"]);
    world.imgfs(&["rm", "-f", "deadbeef"]).ok();
}

/// Images are resolved and read while others remove all of them again and again: what is read is
/// right.
#[test]
fn readers_and_removers_do_not_harm_each_other() {
    let three = Three::new();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..12 {
                run(three.world.command(IMGFS).args(["prune", "-af"])).ok();
            }
        });
        for _ in 0..2 {
            scope.spawn(|| {
                for _ in 0..8 {
                    for (name, image) in [("r/a:1", &three.a), ("r/b:1", &three.b)] {
                        let top = three
                            .world
                            .imgfs(&["cat", &three.name(name), "top"])
                            .ok_bytes();
                        let tar = &image.layers[1].tar;
                        assert!(tar.windows(50_000).step_by(512).any(|window| window == top));
                    }
                }
            });
        }
    });
    three.is_usable();
}
