//! `imgfs diff` against what `tar` and `diff -r` make of the same images.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::*;
use crate::listing::Member;
use crate::process::run;
use crate::support::image::{plain_layer, zstd_layer};

/// A member of a layer, as text: `d/`, `f=content`, `l -> target`, `-path` a deletion, `!path` an
/// opaque directory; with a mode before it.
#[derive(Debug, Clone)]
struct Step {
    mode: u32,
    path: &'static str,
    what: What,
}

#[derive(Debug, Clone, PartialEq)]
enum What {
    Directory,
    File(String),
    Link(&'static str),
    Deletion,
    Opaque,
}

impl Step {
    fn member(&self) -> Member {
        let member = match &self.what {
            What::Directory => dir(self.path),
            What::File(content) => file(self.path, content),
            What::Link(target) => return symlink(self.path, target),
            What::Deletion => return whiteout(self.path),
            What::Opaque => return opaque(self.path),
        };
        member.mode(self.mode)
    }

    /// Makes way for it in a directory: deletions are done, what is of another kind goes.
    fn prepare(&self, root: &Path) {
        let path = root.join(self.path);
        let Ok(there) = path.symlink_metadata() else {
            return;
        };
        match self.what {
            What::Opaque if there.is_dir() => {
                for entry in std::fs::read_dir(&path).unwrap() {
                    remove(&entry.unwrap().path());
                }
            }
            What::Opaque => {}
            What::Directory if there.is_dir() => {}
            _ => remove(&path),
        }
    }
}

fn remove(path: &Path) {
    if path.symlink_metadata().unwrap().is_dir() {
        std::fs::remove_dir_all(path).unwrap();
    } else {
        std::fs::remove_file(path).unwrap();
    }
}

/// Numbers that look random, the same each time.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % limit
    }

    fn chance(&mut self, one_in: usize) -> bool {
        self.below(one_in) == 0
    }
}

/// A layer whose directories all have entries of their own, as real builders write them.
fn layer(random: &mut Random) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut whole = |mode, path, what| steps.push(Step { mode, path, what });
    for (directory, names) in [
        ("d", &["d/f", "d/g", "d/\u{e9}"][..]),
        ("d/s", &["d/s/f", "d/s/g"]),
        ("e", &["e/f", "e/k"]),
        ("t", &["t/f"]),
    ] {
        if random.chance(2) || directory == "d/s" && random.chance(2) {
            if directory == "t" && random.chance(2) {
                match random.below(3) {
                    0 => whole(0o644, "t", What::File("t".repeat(random.below(3)))),
                    1 => whole(0o777, "t", What::Link("d")),
                    _ => whole(0, "t", What::Deletion),
                }
            }
            continue;
        }
        if random.chance(6) {
            whole(0, directory, What::Deletion);
        }
        whole(
            if random.chance(5) { 0o700 } else { 0o755 },
            directory,
            What::Directory,
        );
        if random.chance(6) {
            whole(0, directory, What::Opaque);
        }
        for path in names {
            match random.below(8) {
                0 => whole(0, path, What::Deletion),
                1 => whole(0o777, path, What::Link(["a", "b"][random.below(2)])),
                2..5 => {
                    let mode = if random.chance(4) { 0o600 } else { 0o644 };
                    let content = ["", "1", "2", "longer"][random.below(4)];
                    whole(mode, path, What::File(content.to_owned()));
                }
                _ => {}
            }
        }
    }
    // A directory of the layer has one above it in the layer.
    if !steps
        .iter()
        .any(|step| step.path == "d" && step.what == What::Directory)
    {
        steps.retain(|step| !step.path.starts_with("d/"));
    }
    steps
}

fn blob(steps: &[Step], random: &mut Random) -> Layer {
    let members: Vec<_> = steps.iter().map(Step::member).collect();
    match random.below(3) {
        0 => plain_layer(tar_of(&members)),
        1 => zstd_layer(tar_of(&members)),
        _ => gzip(&members),
    }
}

/// What the layers make of a directory, by removing what they remove and extracting the rest.
fn extract(world: &World, layers: &[Vec<Step>], root: &Path) {
    std::fs::create_dir(root).unwrap();
    for steps in layers {
        let is_mark = |step: &Step| matches!(step.what, What::Deletion | What::Opaque);
        let (marks, entries): (Vec<_>, Vec<_>) = steps.iter().cloned().partition(is_mark);
        for step in marks.iter().chain(&entries) {
            step.prepare(root);
        }
        let members: Vec<_> = entries.iter().map(Step::member).collect();
        let tar = world.path("layer.tar");
        std::fs::write(&tar, tar_of(&members)).unwrap();
        run(world
            .command("tar")
            .arg("-xpf")
            .arg(&tar)
            .arg("-C")
            .arg(root))
        .ok();
    }
}

/// All paths below, with their kind and mode; a link has none.
fn walk(root: &Path) -> BTreeMap<Vec<u8>, (u32, u32)> {
    let (mut found, mut pending) = (BTreeMap::new(), vec![root.to_owned()]);
    while let Some(path) = pending.pop() {
        let metadata = path.symlink_metadata().unwrap();
        if path != root {
            let name = path.strip_prefix(root).unwrap().as_os_str().as_bytes();
            let mode = if metadata.is_symlink() {
                0
            } else {
                metadata.mode() & 0o7777
            };
            found.insert([b"/", name].concat(), (metadata.mode() & 0o170_000, mode));
        }
        if metadata.is_dir() {
            pending.extend(
                std::fs::read_dir(&path)
                    .unwrap()
                    .map(|entry| entry.unwrap().path()),
            );
        }
    }
    found
}

/// What `imgfs diff` has to print, by `diff -r` and `lstat`.
fn expected(world: &World, old: &Path, new: &Path) -> Vec<u8> {
    let (before, after) = (walk(old), walk(new));
    let mut options = world.command("diff");
    options
        .env("LC_ALL", "C")
        .args(["-rq", "--no-dereference"])
        .arg(old)
        .arg(new);
    let said = run(&mut options);
    assert!(matches!(said.code, Some(0 | 1)), "{}", said.stderr);
    let said = said.stdout;
    let contains = |text: &[u8]| said.windows(text.len()).any(|window| window == text);
    let mut lines = BTreeMap::new();
    for (path, (kind, mode)) in &before {
        let at = |root: &Path| {
            root.join(OsStr::from_bytes(&path[1..]))
                .into_os_string()
                .into_encoded_bytes()
        };
        let differ = [&b"iles "[..], &at(old), b" and ", &at(new), b" differ\n"].concat();
        let links = [&b"links "[..], &at(old), b" and ", &at(new), b" differ\n"].concat();
        match after.get(path) {
            None => lines.insert(path, b'D'),
            Some((other, _)) if other != kind => lines.insert(path, b'T'),
            Some((_, other)) if other != mode => lines.insert(path, b'M'),
            Some(_) if contains(&differ) || contains(&links) => lines.insert(path, b'M'),
            Some(_) => None,
        };
    }
    for path in after.keys().filter(|path| !before.contains_key(*path)) {
        lines.insert(path, b'A');
    }
    let line = |(path, letter): (&Vec<u8>, u8)| [&[letter, b'\t'], path.as_slice(), b"\n"].concat();
    lines.into_iter().flat_map(line).collect()
}

#[test]
fn what_differs_is_what_differs_once_extracted() {
    if !has(&["tar", "diff"]) {
        return;
    }
    let world = World::new();
    let mut random = Random(5);
    let mut differences = 0;
    for case in 0..30 {
        let mut some =
            |count: usize| -> Vec<Vec<Step>> { (0..count).map(|_| layer(&mut random)).collect() };
        let (base, tops) = (some(case % 3), [some(1 + case % 2), some(1 + case / 2 % 2)]);
        let roots = ["old", "new"].map(|name| world.path(&format!("{name}{case}")));
        let bottom: Vec<Layer> = base.iter().map(|steps| blob(steps, &mut random)).collect();
        let [old, new] = tops.each_ref().map(|top| {
            let top = top.iter().map(|steps| blob(steps, &mut random));
            bottom.iter().cloned().chain(top).collect::<Vec<_>>()
        });
        for (root, top) in roots.iter().zip(&tops) {
            extract(&world, &[&base[..], top].concat(), root);
        }
        let images = put_both(&world, old, new);
        let cache = world.path(&format!("cache{case}"));
        let mut command = world.command(crate::world::IMGFS);
        command
            .args(["diff", "--all"])
            .arg("--cache-dir")
            .arg(cache)
            .arg("--name-status")
            .args(&images);
        let found = run(&mut command).ok_bytes();
        let expected = expected(&world, &roots[0], &roots[1]);
        differences += String::from_utf8_lossy(&expected).lines().count();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert_eq!(
            text(&found),
            text(&expected),
            "case {case}: {base:#?} {tops:#?}"
        );
    }
    assert!(differences > 50, "{differences}");
}
