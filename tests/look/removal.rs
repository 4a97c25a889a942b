//! `imgfs rm` and `prune`: what goes, what stays, and what an end at any moment leaves.

use std::collections::BTreeSet;
use std::path::Path;

use imgfs::oci::Digest;
use imgfs::store::Store;
use serde_json::json;

use super::images::{id_of, layer, made};
use super::*;
use crate::listing::file;
use crate::process::{finish, run, run_with_input, start};
use crate::world::{IMGFS, kill};

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

    /// Every image that is still listed under a tag can be read, and a prune leaves nothing that no image needs.
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

/// Somebody else's mount, a pull or any command has its layers open: the lock says so, whoever it is.
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
    // What was left by others: a layer that no image has, a document, what was never finished, damaged records.
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

/// A removal's steps are in an order in which any number of them, done alone, leaves a cache that works.
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
            removal.plan(false).unwrap().steps().to_vec()
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

/// Killed at moments that nobody chose.
#[test]
fn a_kill_leaves_a_usable_cache() {
    let three = Three::new();
    let mut killed = 0;
    for round in 0_u32..24 {
        let arguments: &[&str] = match round % 3 {
            0 => &["rm", "-f", &id_of(&three.a)],
            1 => &["prune", "-af", "--filter", "label=l"],
            _ => &["prune", "-af"],
        };
        let removing = start(three.world.command(IMGFS).args(arguments));
        // Further into its life in every round.
        let wait = std::time::Duration::from_micros(u64::from(round) * 700);
        std::thread::sleep(wait);
        kill(removing.child.id(), rustix::process::Signal::KILL);
        killed += u32::from(finish(removing).code.is_none());
        if round % 3 < 2 {
            three.reads_offline("r/b:1", &three.b);
        }
        three.is_usable();
        three.pull();
    }
    assert!(killed > 0, "every one was faster than its end");
}

/// Images are resolved and read while others remove all of them again and again: what is read is right.
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
