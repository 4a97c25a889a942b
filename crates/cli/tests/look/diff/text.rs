//! `imgfs diff -u` against `diff -u`.

use super::*;
use crate::process::run;

/// A file's name, its text before and after.
type Case = (&'static str, Vec<u8>, Vec<u8>);

fn cases() -> Vec<Case> {
    let numbers = |range: std::ops::Range<u32>| -> Vec<u8> {
        range
            .flat_map(|number| format!("line {number}\n").into_bytes())
            .collect()
    };
    let changed = |from: &str, to: &str| {
        let text = String::from_utf8(numbers(1..60)).unwrap();
        text.replacen(from, to, 1).into_bytes()
    };
    let twice = String::from_utf8(changed("line 5\n", "fifth\n")).unwrap();
    vec![
        (
            "middle",
            numbers(1..60),
            changed("line 30\n", "another\nline\n"),
        ),
        ("first", numbers(1..60), changed("line 1\n", "")),
        (
            "two-hunks",
            numbers(1..60),
            twice.replacen("line 50\n", "fiftieth\n", 1).into_bytes(),
        ),
        ("last", numbers(1..60), numbers(1..61)),
        ("no-end-before", b"a\nb".to_vec(), b"a\nb\n".to_vec()),
        ("no-end-after", b"a\nb\n".to_vec(), b"a\nc".to_vec()),
        ("no-end", b"a\nb".to_vec(), b"z\nb".to_vec()),
        ("from-nothing", Vec::new(), b"a\nb\n".to_vec()),
        ("to-nothing", b"a\nb\n".to_vec(), Vec::new()),
        ("one-line", b"a\n".to_vec(), b"b\n".to_vec()),
        (
            "no-text",
            b"caf\xe9\nx\n".to_vec(),
            b"caf\xc3\xa9\nx\n".to_vec(),
        ),
        ("returns", b"a\r\nb\rc\r".to_vec(), b"a\nb\rd\r".to_vec()),
        (
            "separators",
            b"a\x0c\nb\xe2\x80\xa8c\n".to_vec(),
            b"a\x0c\nb\xe2\x80\xa8d\n".to_vec(),
        ),
    ]
}

#[test]
fn lines_are_those_that_gnu_diff_prints() {
    if !has(&["diff"]) {
        return;
    }
    let world = World::new();
    let members = |which: fn(&Case) -> Vec<u8>| {
        let files = cases();
        let files = files
            .iter()
            .map(|case| file(&format!("d/{}", case.0), which(case)));
        gzip(&std::iter::once(dir("d")).chain(files).collect::<Vec<_>>())
    };
    let [old, new] = put_both(
        &world,
        vec![members(|case| case.1.clone())],
        vec![members(|case| case.2.clone())],
    );
    let mut all: Vec<(String, Vec<u8>)> = Vec::new();
    for (name, before, after) in cases() {
        let (one, other) = (world.path("before"), world.path("after"));
        std::fs::write(&one, before).unwrap();
        std::fs::write(&other, after).unwrap();
        let labels = [format!("--label=a/d/{name}"), format!("--label=b/d/{name}")];
        let expected = run(world
            .command("diff")
            .arg("-a")
            .arg("-u")
            .args(labels)
            .arg(&one)
            .arg(&other));
        assert_eq!(expected.code, Some(1), "{}", expected.stderr);
        let path = format!("/d/{name}");
        let found = world.imgfs(&["diff", "-u", &old, &new, &path]).ok_bytes();
        let (found, expected) = (found.escape_ascii().to_string(), expected.stdout);
        assert_eq!(found, expected.escape_ascii().to_string(), "{name}");
        all.push((path, expected));
    }
    all.sort();
    let all: Vec<u8> = all.into_iter().flat_map(|(_, text)| text).collect();
    let found = world.imgfs(&["diff", "--unified", &old, &new]).ok_bytes();
    assert!(found == all, "{}", String::from_utf8_lossy(&found));
}

#[test]
fn what_is_no_text_is_said_and_links_show_their_targets() {
    let world = World::new();
    let old = gzip(&[
        file("binary", noise(1, 9000)),
        file("gone", "g\n"),
        symlink("link", "here"),
        file("long", vec![b'x'; 5 << 20]),
        file("mode", "m\n"),
        file("type", "was\n"),
    ]);
    let new = gzip(&[
        file("binary", noise(2, 9000)),
        symlink("link", "there"),
        file("long", vec![b'y'; 5 << 20]),
        file("mode", "m\n").mode(0o600),
        fifo("pipe"),
        symlink("type", "is"),
    ]);
    let images = put_both(&world, vec![old], vec![new]);
    let end = "\\ No newline at end of file\n";
    let expected = format!(
        "Binary files a/binary and b/binary differ\n\
         --- a/gone\n+++ /dev/null\n@@ -1 +0,0 @@\n-g\n\
         --- a/link\n+++ b/link\n@@ -1 +1 @@\n-here\n{end}+there\n{end}\
         Files a/long and b/long differ: 5.2 MB, lines are compared up to 4.1 MB\n\
         Files /dev/null and b/pipe differ: fifo\n\
         --- a/type\n+++ /dev/null\n@@ -1 +0,0 @@\n-was\n\
         --- /dev/null\n+++ b/type\n@@ -0,0 +1 @@\n+is\n{end}"
    );
    assert_eq!(diff(&world, &["-u"], &images), expected);
}

#[test]
fn only_the_files_whose_lines_are_shown_are_fetched() {
    let world = World::new();
    let layer = |text: &str| {
        gzip(&[
            file("a", noise(3, 3 << 20)),
            file("b", text),
            file("c", noise(4, 3 << 20)),
            file("d", noise(u64::from(text.as_bytes()[0]), 3 << 20)),
        ])
    };
    let images = put_both(&world, vec![layer("one\n")], vec![layer("two\n")]);
    assert_eq!(diff(&world, &[], &images), "M /b\nM /d\n");
    world.evict();
    world.registry.forget_requests();
    let text = world
        .imgfs(&["diff", "-u", &images[0], &images[1], "/b"])
        .ok();
    assert_eq!(text, "--- a/b\n+++ b/b\n@@ -1 +1 @@\n-one\n+two\n");
    let fetched = world.registry.bytes();
    assert!(
        fetched < 6 << 20,
        "{fetched} bytes for a span or two of each layer"
    );
}
