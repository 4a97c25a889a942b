//! What layers did to a path, as data: layers as in `vectors`, the deeds as lines.

use super::vectors::toc;
use super::{DeedKind, Removal, Tree, provenance};
use crate::layer::Toc;

fn line(layer: usize, kind: &DeedKind) -> String {
    let text = |path: &[u8]| String::from_utf8_lossy(path).into_owned();
    let what = match kind {
        DeedKind::Added => "added".to_owned(),
        DeedKind::Set => "set".to_owned(),
        DeedKind::Changed(aspects) => aspects.names().collect::<Vec<_>>().join(" "),
        DeedKind::StoredAnew(aspects) => {
            let names: Vec<_> = ["anew"].into_iter().chain(aspects.names()).collect();
            names.join(" ")
        }
        DeedKind::Repeated => "again".to_owned(),
        DeedKind::HardLink { target } => format!("=> {}", text(target)),
        DeedKind::Removed(Removal::Whiteout(path)) => format!("whiteout {}", text(path)),
        DeedKind::Removed(Removal::Opaque(path)) => format!("opaque {}", text(path)),
        DeedKind::Removed(Removal::Replaced(path)) => format!("replaced {}", text(path)),
    };
    format!("{layer} {what}")
}

fn lines(
    layers: &[&[&str]],
    complete: bool,
    path: &str,
    same_content: Option<bool>,
) -> Vec<String> {
    let tocs: Vec<Toc> = layers.iter().map(|lines| toc(lines)).collect();
    let tocs: Vec<&Toc> = tocs.iter().collect();
    let deeds = provenance(&tocs, complete, path.as_bytes(), &mut |_, _| same_content).unwrap();
    for deed in &deeds {
        let is_gone = matches!(deed.kind, DeedKind::Removed(_));
        assert_eq!(deed.after.is_none(), is_gone, "{deed:?}");
    }
    deeds
        .iter()
        .map(|deed| line(deed.layer, &deed.kind))
        .collect()
}

/// With all layers; bytes of other entries are other bytes.
#[track_caller]
fn check(layers: &[&[&str]], path: &str, expected: &[&str]) {
    assert_eq!(lines(layers, true, path, Some(false)), expected);
}

/// With others below that are not open.
#[track_caller]
fn check_top(layers: &[&[&str]], path: &str, expected: &[&str]) {
    assert_eq!(lines(layers, false, path, Some(false)), expected);
}

#[test]
fn layers_add_and_change() {
    check(&[&["a"], &["b"], &["a"]], "/a", &["0 added", "2 content"]);
    check(&[&["a"], &["0600 a"]], "a", &["0 added", "1 content mode"]);
    check(
        &[&["a/"], &["a/x"], &["a/"]],
        "/a/",
        &["0 added", "2 again"],
    );
    check(&[&["a/"], &["0700 ./a/"]], "/a", &["0 added", "1 mode"]);
    check(&[&["a/x"], &["a"]], "/a", &["0 added", "1 type mode mtime"]);
    check(&[&["a -> b"], &["a -> c"]], "/a", &["0 added", "1 content"]);
    check(&[&["a"]], "/b", &[]);
    check(&[&["x/../a"], &["/a"]], "a", &["0 added", "1 content"]);
    check(&[&["a"]], "/", &["0 added"]);
}

#[test]
fn bytes_that_are_the_same_are_no_change() {
    let check = |layers: &[&[&str]], same, expected: &[&str]| {
        assert_eq!(lines(layers, true, "/a", same), expected);
    };
    let (repeated, other_mode) = ([&["a"][..], &["a"]], [&["a"][..], &["0600 a"]]);
    check(&repeated, Some(true), &["0 added", "1 again"]);
    check(&repeated, Some(false), &["0 added", "1 content"]);
    check(&repeated, None, &["0 added", "1 anew"]);
    check(&other_mode, Some(true), &["0 added", "1 mode"]);
    check(&other_mode, None, &["0 added", "1 anew mode"]);
}

#[test]
fn layers_take_away() {
    let back = ["0 added", "1 whiteout /a", "2 added"];
    check(&[&["a"], &[".wh.a"], &["a"]], "/a", &back);
    check(
        &[&["a/b/c"], &["a/.wh.b"]],
        "/a/b/c",
        &["0 added", "1 whiteout /a/b"],
    );
    let opaque = ["0 added", "1 opaque /a"];
    check(
        &[&["a/b/c"], &["a/", "a/.wh..wh..opq", "a/x"]],
        "/a/b/c",
        &opaque,
    );
    check(
        &[&["a/b"], &[".wh..wh..opq"]],
        "/a/b",
        &["0 added", "1 opaque /"],
    );
    check(
        &[&["a/b/c"], &["a/b"]],
        "/a/b/c",
        &["0 added", "1 replaced /a/b"],
    );
    // What is not there cannot be taken away.
    check(&[&["b"], &[".wh.a"], &["a"]], "/a", &["2 added"]);
    // In one layer: taken away and added anew.
    check(
        &[&["a/b"], &["a/", "a/.wh..wh..opq", "a/b"]],
        "/a/b",
        &["0 added", "1 content"],
    );
}

#[test]
fn hard_links_name_their_target() {
    check(&[&["a", "b => a"]], "/b", &["0 => a"]);
    check(&[&["a"], &["b => a"]], "/b", &["1 => a"]);
    check(
        &[&["a"], &["b => ./a"], &["b"]],
        "/b",
        &["1 => ./a", "2 content"],
    );
    // What is done by one name is seen by the other.
    check(&[&["a"], &["0600 b => a"]], "/a", &["0 added"]);
}

#[test]
fn entries_go_where_links_of_their_layer_lead() {
    check(&[&["usr/"], &["l -> usr", "l/x"]], "/usr/x", &["1 added"]);
}

#[test]
fn the_top_layers_alone_tell_what_they_know() {
    check_top(&[&["a"]], "/a", &["0 set"]);
    check_top(&[&["b"], &["a"]], "/a", &["1 set"]);
    check_top(&[&[".wh.a"], &["a"]], "/a", &["0 whiteout /a", "1 added"]);
    check_top(&[&["a/"], &["a/x"]], "/a", &["0 set"]);
    check_top(&[&["a/x"]], "/a", &[]);
    check_top(&[&["a/x"], &["0700 a/"]], "/a", &["1 set"]);
    check_top(
        &[&["a/", "a/.wh..wh..opq"], &["a/b"]],
        "/a/b",
        &["0 opaque /a", "1 added"],
    );
    check_top(&[&["b => a"]], "/b", &[]);
}

#[test]
fn real_paths_lead_through_no_link() {
    let toc = toc(&[
        "usr/",
        "usr/bin/",
        "usr/bin/x",
        "bin -> usr/bin",
        "l -> /bin",
    ]);
    let (tree, _) = Tree::build(&[&toc]).unwrap();
    for (path, expected) in [
        ("/bin/x", "/usr/bin/x"),
        ("l/x", "/usr/bin/x"),
        ("/bin", "/bin"),
        ("/bin/absent", "/usr/bin/absent"),
        ("/none/../bin/x", "/usr/bin/x"),
        ("/none/x", "/none/x"),
        ("/usr//bin/./x/", "/usr/bin/x"),
        ("/", "/"),
    ] {
        let found = tree.real_path(path.as_bytes());
        assert_eq!(String::from_utf8_lossy(&found), expected, "{path}");
    }
}
