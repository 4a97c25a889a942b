//! Keys and messages in, lines and effects out.

use ratatui::crossterm::event::{KeyCode, KeyModifiers};

use super::*;
use imgfs_formats::layer::{Entry as TarEntry, EntryKind, Mtime, Toc, TocBuilder};
use imgfs_formats::oci::Digest;
use imgfs_formats::tree::{Aspects, Tree};

/// A layer of names with sizes: those that end in a slash are directories.
type Names<'a> = &'a [(&'a str, u64)];

/// Offsets in a layer are those of a tar of files below 512 bytes.
fn toc(names: Names<'_>) -> Toc {
    let mut builder = TocBuilder::default();
    let mut offset = 512;
    for (name, size) in names {
        let kind = if name.ends_with('/') {
            EntryKind::Directory
        } else {
            EntryKind::File {
                offset,
                size: *size,
            }
        };
        offset += 1024;
        let entry = TarEntry {
            path: name.as_bytes(),
            kind,
            mode: if name.ends_with('/') { 0o755 } else { 0o644 },
            uid: 0,
            gid: 0,
            mtime: Mtime::default(),
            xattrs: &[],
        };
        builder.push(&entry).unwrap();
    }
    builder.finish(offset).unwrap()
}

/// What became of the tree of the lowest `below` layers by those above.
pub(in super::super) fn listing(layers: &[Names<'_>], below: usize) -> Arc<Listing> {
    let tocs: Vec<Toc> = layers.iter().map(|names| toc(names)).collect();
    let tocs: Vec<&Toc> = tocs.iter().collect();
    let fs = |tocs: &[&Toc]| {
        let (tree, _) = Tree::build(tocs).unwrap();
        Arc::new(ImageFs::new(Arc::new(tree), Vec::new()))
    };
    let (old, new) = (fs(&tocs[..below]), fs(&tocs));
    // Files of 7 bytes are all the same here.
    Arc::new(Listing::new(&old, &new, &mut |(_, _, size), _| size == 7))
}

pub(in super::super) const BASE: Names<'_> = &[
    ("etc/", 0),
    ("etc/passwd", 100),
    ("etc/motd", 7),
    ("usr/", 0),
    ("usr/bin/", 0),
    ("usr/bin/Tool", 300),
    ("usr/bin/tar", 50),
];
pub(in super::super) const TOP: Names<'_> = &[
    ("etc/passwd", 101),
    ("etc/motd", 7),
    ("srv/", 0),
    ("srv/data", 9),
    ("usr/bin/.wh.tar", 0),
];

pub(in super::super) fn info() -> ImageInfo {
    let layer = |number: u8, size: u64, command: Option<&str>| {
        let digest = Digest::sha256(&[number]);
        (digest, size, command.map(str::to_owned))
    };
    ImageInfo {
        reference: "host/name:tag".to_owned(),
        digest: "0123456789ab".to_owned(),
        platform: "linux/amd64".to_owned(),
        layers: vec![
            layer(0, 30_000_000, Some("/bin/sh -c #(nop) ADD file:1 in /")),
            layer(1, 2_000, None),
        ],
    }
}

pub(in super::super) fn summary() -> Summary {
    let layer = |entries, added, wasted| LayerSum {
        entries,
        added,
        wasted,
    };
    Summary {
        layers: vec![layer(7, 457, 157), layer(5, 117, 0)],
        nodes: 9,
    }
}

/// A model with both layers open, and the image listed.
pub(in super::super) fn open(size: (u16, u16)) -> Model {
    let mut model = Model::new("name".to_owned(), size);
    tell(&mut model, Message::Resolved(info()));
    tell(&mut model, Message::Downloads(Vec::new()));
    let effects = tell(&mut model, Message::Opened(summary()));
    assert!(matches!(effects[..], [Effect::List(Listed::Image)]));
    let listing = listing(&[BASE, TOP], 1);
    tell(&mut model, Message::Listing(Listed::Image, Ok(listing)));
    model
}

pub(in super::super) fn tell(model: &mut Model, message: Message) -> Vec<Effect> {
    model.update(Event::Message(message))
}

/// Presses keys: single letters, or the names of others.
pub(in super::super) fn press(model: &mut Model, keys: &[&str]) -> Vec<Effect> {
    let mut effects = Vec::new();
    for key in keys {
        let (code, modifiers) = match *key {
            "Tab" => (KeyCode::Tab, KeyModifiers::NONE),
            "Enter" => (KeyCode::Enter, KeyModifiers::NONE),
            "Esc" => (KeyCode::Esc, KeyModifiers::NONE),
            "PgDn" => (KeyCode::PageDown, KeyModifiers::NONE),
            "^C" => (KeyCode::Char('c'), KeyModifiers::CONTROL),
            letters => {
                for letter in letters.chars() {
                    let key = KeyEvent::new(KeyCode::Char(letter), KeyModifiers::NONE);
                    effects.extend(model.update(Event::Key(key)));
                }
                continue;
            }
        };
        effects.extend(model.update(Event::Key(KeyEvent::new(code, modifiers))));
    }
    effects
}

/// The paths of the lines.
fn rows(model: &Model) -> Vec<String> {
    let listing = model.files.listing().unwrap();
    let paths = model.files.rows.iter().map(|row| listing.path(*row));
    paths.map(|path| String::from_utf8(path).unwrap()).collect()
}

/// The path that the cursor is on.
fn here(model: &Model) -> String {
    let (listing, position) = model.selected().unwrap();
    String::from_utf8(listing.path(position)).unwrap()
}

#[test]
fn marks_say_what_became_of_paths() {
    let listing = listing(&[BASE, TOP], 1);
    let check = |path: &str, mark: Mark, size: u64| {
        let position = listing.find(path.as_bytes()).unwrap();
        let entry = listing.entry(position).unwrap();
        assert_eq!((entry.mark, entry.size), (mark, size), "{path}");
        assert_eq!(listing.path(position), path.as_bytes());
    };
    check("/", Mark::Below, 100 + 1 + 7 + 9 + 300);
    check("/etc", Mark::Below, 108);
    check("/etc/passwd", Mark::Changed(Aspects::CONTENT), 101);
    check("/etc/motd", Mark::Rewritten, 7);
    check("/srv", Mark::Added, 9);
    check("/srv/data", Mark::Added, 9);
    check("/usr/bin", Mark::Below, 300);
    check("/usr/bin/Tool", Mark::Same, 300);
    check("/usr/bin/tar", Mark::Removed, 50);
    assert_eq!(listing.find(b"/usr/bin/absent"), None);
}

#[test]
fn a_directory_that_becomes_a_file_keeps_what_was_in_it() {
    let listing = listing(&[&[("a/", 0), ("a/b", 5)], &[("a", 3)]], 1);
    let entry = |path: &[u8]| listing.entry(listing.find(path).unwrap()).unwrap();
    assert!(matches!(entry(b"/a").mark, Mark::Changed(aspects) if aspects.contains(Aspects::KIND)));
    assert_eq!(entry(b"/a/b").mark, Mark::Removed);
    assert_eq!(entry(b"/a").size, 3, "what is gone does not count");
}

#[test]
fn directories_fold_and_unfold() {
    let mut model = open((100, 30));
    assert_eq!(rows(&model), ["/etc", "/srv", "/usr"]);
    press(&mut model, &["l"]);
    assert_eq!(
        rows(&model),
        ["/etc", "/etc/motd", "/etc/passwd", "/srv", "/usr"]
    );
    press(&mut model, &["jj"]);
    assert_eq!(here(&model), "/etc/passwd");
    press(&mut model, &["h"]);
    assert_eq!(here(&model), "/etc", "left goes up first");
    press(&mut model, &["h"]);
    assert_eq!(rows(&model), ["/etc", "/srv", "/usr"]);
    press(&mut model, &["e"]);
    assert_eq!(rows(&model).len(), 9);
    press(&mut model, &["G"]);
    assert_eq!(here(&model), "/usr/bin/tar");
    press(&mut model, &["E"]);
    assert_eq!(here(&model), "/usr", "what is left of the place");
    press(&mut model, &["u"]);
    press(&mut model, &["e"]);
    assert!(!rows(&model).contains(&"/usr/bin/Tool".to_owned()));
}

#[test]
fn a_filter_leaves_paths_that_contain_it() {
    let mut model = open((100, 30));
    press(&mut model, &["f", "bin/t"]);
    let all = ["/usr", "/usr/bin", "/usr/bin/Tool", "/usr/bin/tar"];
    assert_eq!(rows(&model), all);
    press(&mut model, &["Esc", "f", "bin/T"]);
    assert_eq!(rows(&model), ["/usr", "/usr/bin", "/usr/bin/Tool"]);
    press(&mut model, &["Enter", "G", "h", "h"]);
    assert_eq!(rows(&model), ["/usr", "/usr/bin"], "what it leaves folds");
    press(&mut model, &["Esc"]);
    assert_eq!(rows(&model), ["/etc", "/srv", "/usr"]);
    press(&mut model, &["f", "nothing"]);
    assert_eq!(rows(&model), [""; 0]);
    assert!(press(&mut model, &["Enter", "p", "c", "h", "l", "n"]).is_empty());
    press(&mut model, &["Esc", "Esc"]);
    assert_eq!(here(&model), "/etc");
}

#[test]
fn a_search_looks_into_what_is_folded() {
    let mut model = open((100, 30));
    press(&mut model, &["/", "T", "Enter"]);
    assert_eq!(here(&model), "/usr/bin/Tool");
    assert!(rows(&model).contains(&"/usr/bin".to_owned()));
    press(&mut model, &["/", "t", "Enter"]);
    assert_eq!(here(&model), "/usr/bin/tar");
    press(&mut model, &["n"]);
    assert_eq!(here(&model), "/etc", "round the end");
    press(&mut model, &["N", "N"]);
    assert_eq!(here(&model), "/usr/bin/Tool", "and back");
    press(&mut model, &["/", "etc/p", "Enter"]);
    assert_eq!(here(&model), "/etc/passwd", "a path");
    press(&mut model, &["/", "absent", "Enter"]);
    assert_eq!(here(&model), "/etc/passwd");
    assert!(matches!(&model.status, Status::Warning(text) if text.contains("absent")));
}

#[test]
fn walking_through_layers_makes_one_listing_at_a_time() {
    let mut model = open((100, 30));
    press(&mut model, &["e", "G", "Tab"]);
    let effects = press(&mut model, &["jjk"]);
    assert!(
        matches!(effects[..], [Effect::List(Listed::Layer(0))]),
        "{}",
        effects.len()
    );
    press(&mut model, &["j"]);
    let base = listing(&[BASE], 0);
    let effects = tell(&mut model, Message::Listing(Listed::Layer(0), Ok(base)));
    assert!(
        matches!(effects[..], [Effect::List(Listed::Layer(1))]),
        "then the one that is wanted now"
    );
    let top = listing(&[BASE, TOP], 1);
    let effects = tell(&mut model, Message::Listing(Listed::Layer(1), Ok(top)));
    assert!(effects.is_empty());
    assert_eq!(model.files.listed(), Some(Listed::Layer(1)));
    assert_eq!(
        here(&model),
        "/usr/bin/tar",
        "the cursor stays where it was"
    );
    assert!(
        !rows(&model).contains(&"/usr/bin/Tool".to_owned()),
        "of a layer only what it did"
    );
    press(&mut model, &["u"]);
    assert!(rows(&model).contains(&"/usr/bin/Tool".to_owned()));
}

#[test]
fn a_preview_asks_for_what_comes_into_sight() {
    let mut model = open((100, 30));
    let effects = press(&mut model, &["l", "j", "Enter"]);
    let [
        Effect::Read {
            preview, offset: 0, ..
        },
    ] = effects[..]
    else {
        panic!("{} effects", effects.len());
    };
    assert!(
        press(&mut model, &["jG", "PgDn"]).is_empty(),
        "it is on its way"
    );
    let lines = b"0123456\n".repeat(PIECE / 8);
    let Overlay::Preview(shown) = &mut model.overlay else {
        panic!("no preview");
    };
    shown.size = 1 << 30;
    let read = |preview, piece| Message::Read { preview, piece };
    assert!(tell(&mut model, read(preview + 1, Ok(lines.clone()))).is_empty());
    assert!(
        tell(&mut model, read(preview, Ok(lines.clone()))).is_empty(),
        "enough for now"
    );
    assert!(press(&mut model, &["jjj", "PgDn"]).is_empty());
    let effects = press(&mut model, &["G"]);
    assert!(matches!(effects[..], [Effect::Read { offset, .. }] if offset == PIECE as u64));
    tell(&mut model, read(preview, Err("no answer".to_owned())));
    assert!(matches!(&model.status, Status::Error { text, again: true } if text == "no answer"));
    assert!(press(&mut model, &["k"]).is_empty(), "not by itself");
    assert!(matches!(
        press(&mut model, &["G", "r"])[..],
        [Effect::Read { .. }]
    ));
    press(&mut model, &["Esc"]);
    assert!(
        tell(&mut model, read(preview, Ok(lines))).is_empty(),
        "too late"
    );
    press(&mut model, &["k", "p"]);
    assert!(matches!(&model.status, Status::Note(text) if text.contains("directory")));
}

#[test]
fn copies_go_one_at_a_time() {
    let mut model = open((100, 30));
    let effects = press(&mut model, &["c", "-q", "Enter"]);
    let [
        Effect::Copy {
            ref name, ref dest, ..
        },
    ] = effects[..]
    else {
        panic!("{} effects", effects.len());
    };
    assert_eq!((name.as_slice(), dest.as_str()), (&b"etc"[..], "etc-q"));
    press(&mut model, &["c"]);
    assert!(matches!(model.overlay, Overlay::None), "one is under way");
    tell(&mut model, Message::Copied(Err("disk full".to_owned())));
    assert_eq!(model.status, Status::failed("disk full".to_owned()));
    assert!(press(&mut model, &["c", "Esc"]).is_empty());
}

#[test]
fn quitting_works_everywhere() {
    for keys in [
        &["q"][..],
        &["^C"],
        &["f", "q", "^C"],
        &["c", "^C"],
        &["?", "q"],
        &["l", "j", "p", "q"],
        &["Tab", "q"],
    ] {
        let mut model = open((100, 30));
        let effects = press(&mut model, keys);
        assert!(matches!(effects.last(), Some(Effect::Quit)), "{keys:?}");
        let mut model = Model::new("name".to_owned(), (100, 30));
        assert!(matches!(press(&mut model, &["q"])[..], [Effect::Quit]));
    }
}

#[test]
fn what_failed_is_tried_again() {
    let mut model = Model::new("name".to_owned(), (100, 30));
    tell(&mut model, Message::Resolved(info()));
    tell(&mut model, Message::OpenFailed("no route".to_owned()));
    assert!(matches!(&model.status, Status::Error { text, again: true } if text == "no route"));
    assert!(matches!(press(&mut model, &["r"])[..], [Effect::Open]));
    assert!(press(&mut model, &["r"]).is_empty(), "it is at it");
}

#[test]
fn the_cursor_stays_in_sight() {
    let check = |top, cursor, count, shown, expected| {
        let found = files::window(top, cursor, count, shown);
        assert_eq!(found, expected, "{cursor} of {count} on {shown}");
    };
    check(0, 4, 10, 5, 0);
    check(0, 5, 10, 5, 1);
    check(6, 3, 10, 5, 3);
    check(8, 9, 10, 5, 5);
    check(3, 1, 2, 5, 0);
    check(0, 0, 0, 5, 0);
    check(0, 3, 10, 0, 3);
}
