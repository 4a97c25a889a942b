//! The union against a naive model, and partial trees against full ones, on random layers over tiny
//! alphabets.
//!
//! The model keeps a map from path to what is there and does what an unpacker does, one layer after
//! the other, by searching prefixes. It shares nothing with the tree but the rules.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;

use imgfs_formats::layer::{Entry, EntryKind, Mtime, Toc, TocBuilder};
use imgfs_formats::tree::{Answer, Content, Ino, Kind, PartialTree, Tree};
use proptest::prelude::*;

#[derive(Debug, Clone, PartialEq)]
enum What {
    File,
    Directory,
    Symlink(String),
    HardLink(String),
}

/// A member: its path, what it is, and its mode, by which entries are told apart.
type Member = (String, What, u32);

fn names() -> impl Strategy<Value = String> {
    prop_oneof![4 => Just("a"), 4 => Just("b"), 2 => Just("c"), 1 => Just(".wh.a"), 1 => Just(".wh.b"),
        1 => Just(".wh..wh..opq")]
    .prop_map(str::to_owned)
}

fn parents() -> impl Strategy<Value = Vec<String>> {
    let name = prop_oneof![4 => Just("a"), 4 => Just("b"), 1 => Just(".."), 1 => Just(".")];
    prop::collection::vec(name.prop_map(str::to_owned), 0..3)
}

fn plain_path() -> impl Strategy<Value = String> {
    let name = prop_oneof![Just("a"), Just("b"), Just("c"), Just("..")];
    prop::collection::vec(name, 1..4).prop_map(|names| names.join("/"))
}

fn member() -> impl Strategy<Value = Member> {
    let what = prop_oneof![
        4 => Just(What::File),
        4 => Just(What::Directory),
        1 => plain_path().prop_map(What::Symlink),
        1 => plain_path().prop_map(|path| What::Symlink(format!("/{path}"))),
        2 => plain_path().prop_map(What::HardLink),
    ];
    (parents(), names(), what, 0..0o1000_u32).prop_map(|(mut path, name, what, mode)| {
        path.push(name);
        (path.join("/"), what, mode)
    })
}

fn layers() -> impl Strategy<Value = Vec<Vec<Member>>> {
    prop::collection::vec(prop::collection::vec(member(), 0..8), 1..5)
}

fn toc(members: &[Member]) -> Toc {
    let mut builder = TocBuilder::default();
    for ((path, what, mode), offset) in members.iter().zip(1..) {
        let kind = match what {
            What::File => EntryKind::File { offset, size: 1 },
            What::Directory => EntryKind::Directory,
            What::Symlink(target) => EntryKind::Symlink {
                target: target.as_bytes(),
            },
            What::HardLink(target) => EntryKind::HardLink {
                target: target.as_bytes(),
            },
        };
        let entry = Entry {
            path: path.as_bytes(),
            kind,
            mode: *mode,
            uid: 0,
            gid: 0,
            mtime: Mtime::default(),
            xattrs: &[],
        };
        builder.push(&entry).unwrap();
    }
    builder.finish(1 << 20).unwrap()
}

// The model.

type Path = Vec<String>;

#[derive(Debug, Clone, PartialEq)]
enum Thing {
    /// Layer, and position of the member that brought the bytes.
    File(usize, usize),
    Directory,
    Symlink(String),
}

/// A node of the model: names share it by its number.
#[derive(Debug, Clone, PartialEq)]
struct Item {
    thing: Thing,
    mode: u32,
    node: usize,
}

#[derive(Default)]
struct Model {
    items: BTreeMap<Path, Item>,
    /// The layer that set a path last.
    set_by: BTreeMap<Path, usize>,
    nodes: usize,
}

fn clean(path: &str) -> Path {
    let mut cleaned = Path::new();
    for name in path.split('/') {
        match name {
            "" | "." => {}
            ".." => {
                cleaned.pop();
            }
            name => cleaned.push(name.to_owned()),
        }
    }
    cleaned
}

impl Model {
    fn build(layers: &[Vec<Member>]) -> Option<Self> {
        let mut model = Self::default();
        for (number, members) in layers.iter().enumerate() {
            model.whiteouts(members);
            for (position, member) in members.iter().enumerate() {
                model.entry(number, position, member)?;
            }
        }
        Some(model)
    }

    fn is_directory(&self, path: &[String]) -> bool {
        path.is_empty() || (self.items.get(path)).is_some_and(|item| item.thing == Thing::Directory)
    }

    fn remove(&mut self, path: &[String]) {
        self.items.retain(|there, _| !there.starts_with(path));
    }

    fn whiteouts(&mut self, members: &[Member]) {
        for (path, ..) in members {
            let mut path = clean(path);
            let Some(name) = path.pop() else { continue };
            // What is below a whiteout is no whiteout: the generator has none as a parent.
            if name == ".wh..wh..opq" {
                self.items
                    .retain(|there, _| !(there.len() > path.len() && there.starts_with(&path)));
            } else if let Some(name) = name.strip_prefix(".wh.") {
                path.push(name.to_owned());
                self.remove(&path);
            }
        }
    }

    /// Nothing if the layer is refused, or has a hard link that is not plainly within the layer.
    fn entry(&mut self, layer: usize, position: usize, member: &Member) -> Option<()> {
        let (path, what, mode) = member;
        let path = clean(path);
        let Some((name, parents)) = path.split_last() else {
            if *what == What::Directory {
                let root = Item {
                    thing: Thing::Directory,
                    mode: *mode,
                    node: 0,
                };
                self.items.insert(Path::new(), root);
            }
            return Some(());
        };
        if name.starts_with(".wh.") {
            return Some(());
        }
        let mut path = self.make_parents(layer, parents)?;
        path.push(name.clone());
        self.nodes += 1;
        let mut item = Item {
            thing: Thing::Directory,
            mode: *mode,
            node: self.nodes,
        };
        match what {
            What::Directory => {
                if !self.is_directory(&path) {
                    self.remove(&path);
                }
            }
            What::File => {
                self.remove(&path);
                item.thing = Thing::File(layer, position);
            }
            What::Symlink(target) => {
                self.remove(&path);
                item.thing = Thing::Symlink(target.clone());
                item.mode = 0o777;
            }
            What::HardLink(target) => {
                let target: Path = target.split('/').map(str::to_owned).collect();
                // Only the plain case: no dots, no symlinks, a file or symlink that this layer had
                // before.
                let dots = target.iter().any(|name| name == "..");
                let real = (1..target.len()).all(|length| self.is_directory(&target[..length]));
                let own = self.set_by.get(&target) == Some(&layer);
                let found = self.items.get(&target).cloned();
                let found = found.filter(|item| item.thing != Thing::Directory);
                let (false, true, true, Some(mut found)) = (dots, real, own, found) else {
                    return None;
                };
                if !matches!(found.thing, Thing::Symlink(_)) {
                    found.mode = *mode;
                }
                for other in self.items.values_mut() {
                    if other.node == found.node {
                        other.mode = found.mode;
                    }
                }
                self.remove(&path);
                item = found;
            }
        }
        self.set_by.insert(path.clone(), layer);
        self.items.insert(path, item);
        Some(())
    }

    /// The real path of an entry's directory, made where it is missing.
    fn make_parents(&mut self, layer: usize, parents: &[String]) -> Option<Path> {
        let mut pending: Path = parents.iter().rev().cloned().collect();
        let mut real = Path::new();
        let mut links = 0;
        while let Some(name) = pending.pop() {
            match name.as_str() {
                "" | "." => continue,
                ".." => {
                    real.pop();
                    continue;
                }
                _ => real.push(name),
            }
            let own = self.set_by.get(&real) == Some(&layer);
            match self.items.get(&real).map(|item| item.thing.clone()) {
                Some(Thing::Directory) => {}
                Some(Thing::Symlink(target)) if own => {
                    links += 1;
                    if links > 255 {
                        return None;
                    }
                    real.pop();
                    if target.starts_with('/') {
                        real.clear();
                    }
                    pending.extend(target.rsplit('/').map(str::to_owned));
                }
                Some(_) if own => return None,
                _ => {
                    self.remove(&real.clone());
                    self.nodes += 1;
                    let item = Item {
                        thing: Thing::Directory,
                        mode: 0o755,
                        node: self.nodes,
                    };
                    self.set_by.insert(real.clone(), layer);
                    self.items.insert(real.clone(), item);
                }
            }
        }
        Some(real)
    }

    fn listing(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for (path, item) in &self.items {
            let path = path.join("/");
            let count = (self.items.values())
                .filter(|other| other.node == item.node)
                .count();
            lines.push(match &item.thing {
                Thing::Directory => format!("{path} directory {:o}", item.mode),
                Thing::Symlink(target) => format!("{path} -> {target} x{count}"),
                Thing::File(layer, position) => {
                    format!("{path} file {layer}:{position} {:o} x{count}", item.mode)
                }
            });
        }
        if !self.items.contains_key(&Path::new()) {
            lines.push(" directory 755".to_owned());
        }
        lines.sort();
        lines
    }
}

// The tree in the model's words.

fn listing(tree: &Tree) -> Vec<String> {
    let mut lines = Vec::new();
    let mut pending = vec![(String::new(), Ino::ROOT)];
    while let Some((path, ino)) = pending.pop() {
        lines.push(describe(tree, ino, &path));
        let node = tree.node(ino).unwrap();
        for dirent in tree.children(node) {
            let name = String::from_utf8(tree.name(dirent).to_vec()).unwrap();
            let slash = if path.is_empty() { "" } else { "/" };
            pending.push((format!("{path}{slash}{name}"), dirent.ino()));
        }
    }
    lines.sort();
    lines
}

fn describe(tree: &Tree, ino: Ino, path: &str) -> String {
    let node = tree.node(ino).unwrap();
    let (mode, links) = (node.permissions(), node.nlink());
    match tree.content(node) {
        Content::Directory => format!("{path} directory {mode:o}"),
        Content::Symlink(target) => {
            let target = String::from_utf8(target.to_vec()).unwrap();
            format!("{path} -> {target} x{links}")
        }
        Content::File { layer, offset, .. } => {
            format!("{path} file {layer}:{} {mode:o} x{links}", offset - 1)
        }
        other => format!("{path} {other:?} {mode:o} x{links}"),
    }
}

fn full(layers: &[Vec<Member>]) -> Option<Tree> {
    let tocs: Vec<Toc> = layers.iter().map(|members| toc(members)).collect();
    let tocs: Vec<&Toc> = tocs.iter().collect();
    Tree::build(&tocs).ok().map(|(tree, _)| tree)
}

/// All names of a subtree with what is certain of each: everything but the number of links.
fn subtree(tree: &Tree, ino: Ino, first_layer: usize) -> Vec<String> {
    let mut lines = Vec::new();
    let mut pending = vec![(String::new(), ino)];
    while let Some((path, ino)) = pending.pop() {
        lines.push(certain(tree, ino, first_layer, &path));
        for dirent in tree.children(tree.node(ino).unwrap()) {
            let name = String::from_utf8(tree.name(dirent).to_vec()).unwrap();
            pending.push((format!("{path}/{name}"), dirent.ino()));
        }
    }
    lines.sort();
    lines
}

fn certain(tree: &Tree, ino: Ino, first_layer: usize, path: &str) -> String {
    let node = tree.node(ino).unwrap();
    let content = match tree.content(node) {
        Content::File {
            layer,
            offset,
            size,
        } => {
            let layer = layer + first_layer;
            format!("file {layer}:{offset} {size}")
        }
        other => format!("{other:?}"),
    };
    format!(
        "{path} {:?} {:o} {content}",
        node.kind(),
        node.permissions()
    )
}

/// Checks every question about `path`; says how many were decided.
fn compare(partial: &PartialTree, full: &Tree, first: usize, path: &str, follow: bool) -> usize {
    let expected = full.resolve(path.as_bytes(), follow);
    let found = match partial.resolve(path.as_bytes(), follow) {
        Answer::NeedsLowerLayer => return 0,
        Answer::Absent(err) => {
            assert_eq!(expected, Err(err), "{path}");
            return 1;
        }
        Answer::Found(found) => found,
    };
    let expected = expected.unwrap_or_else(|err| panic!("{path}: {err}"));
    let kind = |tree: &Tree, ino| tree.node(ino).map(imgfs_formats::tree::Node::kind);
    assert_eq!(kind(partial.tree(), found), kind(full, expected), "{path}");
    let mut decided = 1;
    if let Answer::Found(_) = partial.attributes(found) {
        decided += 1;
        let left = certain(partial.tree(), found, first, path);
        assert_eq!(left, certain(full, expected, 0, path));
    }
    if let Answer::Found(children) = partial.listing(found) {
        decided += 1;
        let left: Vec<&[u8]> = (children.iter())
            .map(|dirent| partial.tree().name(dirent))
            .collect();
        let right: Vec<&[u8]> = (full.children(full.node(expected).unwrap()).iter())
            .map(|dirent| full.name(dirent))
            .collect();
        assert_eq!(left, right, "{path}");
    }
    if partial.knows_subtree(found) {
        decided += 1;
        assert_eq!(
            subtree(partial.tree(), found, first),
            subtree(full, expected, 0)
        );
    }
    decided
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn the_union_is_what_unpacking_makes(layers in layers()) {
        if let Some(model) = Model::build(&layers) {
            let tree = full(&layers).expect("the model accepts these layers");
            prop_assert_eq!(listing(&tree), model.listing());
        }
    }

    #[test]
    fn what_a_partial_tree_decides_is_so(
        layers in layers(),
        paths in prop::collection::vec((plain_path(), any::<bool>()), 1..12),
    ) {
        let Some(full) = full(&layers) else { return Ok(()) };
        let tocs: Vec<Toc> = layers.iter().map(|members| toc(members)).collect();
        for first in 0..=layers.len() {
            let opened: Vec<&Toc> = tocs[first..].iter().collect();
            let (partial, _) = PartialTree::build(&opened).expect("the full tree was built");
            for (path, follow) in &paths {
                compare(&partial, &full, first, path, *follow);
            }
            compare(&partial, &full, first, "", false);
        }
        let complete = PartialTree::complete(full.clone());
        for (path, follow) in &paths {
            prop_assert!(compare(&complete, &full, 0, path, *follow) > 0);
        }
    }
}

/// A directory of a lower layer once made a difference to what a layer's own hard links mean.
#[test]
fn own_links_do_not_depend_on_lower_layers() {
    let lower = toc(&[("a/a".to_owned(), What::File, 0o644)]);
    let upper = toc(&[
        ("b".to_owned(), What::Symlink("c".to_owned()), 0o777),
        ("a".to_owned(), What::HardLink("a/../b".to_owned()), 0o644),
        ("a/a".to_owned(), What::File, 0o644),
    ]);
    let full = Tree::build(&[&lower, &upper]).map(|_| ());
    let partial = PartialTree::build(&[&upper]).map(|_| ());
    assert!(full.is_err() && partial.is_err());
}

/// The questions a user asks first are answered by the layer that has the answer.
#[test]
fn partial_trees_decide_what_they_can() {
    let file = |path: &str| (path.to_owned(), What::File, 0o644);
    let directory = |path: &str| (path.to_owned(), What::Directory, 0o700);
    let top = vec![
        file("a/f"),
        directory("d"),
        file("d/.wh.x"),
        directory("o"),
        file("o/.wh..wh..opq"),
        file("o/f"),
        file(".wh.gone"),
        ("l".to_owned(), What::HardLink("lower".to_owned()), 0o644),
        ("m".to_owned(), What::HardLink("a/f".to_owned()), 0o644),
        ("s".to_owned(), What::Symlink("o/f".to_owned()), 0o644),
        ("t".to_owned(), What::Symlink("lower".to_owned()), 0o644),
        file("p/.wh.x"),
    ];
    let toc = toc(&top);
    let (tree, _) = PartialTree::build(&[&toc]).unwrap();
    let word = |path: &str| match tree.resolve(path.as_bytes(), true) {
        Answer::Absent(_) => "absent",
        Answer::NeedsLowerLayer => "open",
        Answer::Found(ino) => match (tree.attributes(ino), tree.listing(ino)) {
            (Answer::Found(node), _) if node.kind() == Kind::File => "file",
            (Answer::Found(_), Answer::Found(_)) => "directory and listing",
            (Answer::Found(_), _) => "directory",
            _ => "name",
        },
    };
    for (path, expected) in [
        ("", "name"),
        ("a", "name"),
        ("a/f", "file"),
        ("a/g", "open"),
        ("a/f/g", "absent"),
        ("b", "open"),
        ("d", "directory"),
        ("d/x", "absent"),
        ("d/y", "open"),
        ("o", "directory and listing"),
        ("o/f", "file"),
        ("o/g", "absent"),
        ("gone", "absent"),
        ("gone/x", "absent"),
        ("l", "open"),
        ("m", "file"),
        ("s", "file"),
        ("t", "open"),
        ("p", "open"),
        ("p/x", "open"),
    ] {
        assert_eq!(word(path), expected, "{path}");
    }
    let o = tree.tree().resolve(b"o", false).unwrap();
    assert!(tree.knows_subtree(o) && !tree.knows_subtree(Ino::ROOT));
}
