//! `ls`, `tree`, `find`, `cat`, `head`, `grep`, `du`: how much of an image they fetch, what they
//! print for scripts and for terminals.

use serde_json::{Value, json};

use super::*;
use crate::listing::{dir, file, hard_link, opaque, symlink};
use crate::process::{Outcome, run};
use crate::support::image::{OCI_CONFIG, descriptor, gzip_layer};
use crate::support::registry::{Fault, On};
use crate::world::IMGFS;

/// A small top layer over a big one.
fn small_over_big() -> Image {
    host_image(vec![
        gzip(&[
            file("big", noise(11, 3_000_000)),
            dir("shared"),
            file("shared/low", "low\n"),
            dir("new"),
            dir("new/below"),
        ]),
        gzip(&[
            dir("new"),
            opaque("new"),
            file("new/top", "text\n"),
            dir("new/in"),
            file("new/in/side", "one\ntwo\nthree\n"),
            hard_link("new/in/again", "new/in/side"),
            symlink("new/link", "in/side"),
            file("shared/top", "text\n"),
        ]),
    ])
}

/// Bytes of manifest and config.
fn documents(image: &Image) -> u64 {
    (image.manifest.len() + image.blobs[0].len()) as u64
}

#[test]
fn answers_from_a_small_top_layer_cost_that_layer() {
    for (line, expected) in [
        (
            "ls -R IMG /new",
            "/new:\nin\nlink\ntop\n\n/new/in:\nagain\nside\n",
        ),
        (
            "ls IMG /new /new/in/side",
            "/new/in/side\n\n/new:\nin\nlink\ntop\n",
        ),
        (
            "tree IMG /new",
            "/new\n\u{251c}\u{2500}\u{2500} in\n\u{2502}   \u{251c}\u{2500}\u{2500} again\n\u{2502}   \u{2514}\u{2500}\u{2500} side\n\u{251c}\u{2500}\u{2500} link -> in/side\n\u{2514}\u{2500}\u{2500} top\n\n2 directories, 4 files\n",
        ),
        (
            "find IMG /new -type f -perm 644 -newermt 2001-01-01",
            "/new/in/again\n/new/in/side\n/new/top\n",
        ),
        ("du IMG /new", "14\t/new/in\n26\t/new\n"),
        (
            "cat IMG /new/top /shared/top /new/link",
            "text\ntext\none\ntwo\nthree\n",
        ),
        ("head -n 2 IMG /new/in/side", "one\ntwo\n"),
        ("head -c 2 IMG /new/in/side", "on"),
        (
            "grep -r t IMG /new",
            "/new/in/again:two\n/new/in/again:three\n/new/in/side:two\n/new/in/side:three\n/new/top:text\n",
        ),
        ("grep t IMG /shared/top", "text\n"),
    ] {
        let world = World::new();
        let image = small_over_big();
        let reference = world.put(&image);
        let words: Vec<&str> = line
            .split(' ')
            .map(|word| if word == "IMG" { &reference } else { word })
            .collect();
        assert_eq!(world.imgfs(&words).ok(), expected, "{line}");
        let top = image.layers[1].blob.len() as u64;
        assert_eq!(world.registry.bytes(), documents(&image) + top, "{line}");
        let manifests = world.registry.log();
        let manifests = manifests.iter().filter(|line| line.contains("/manifests/"));
        assert_eq!(manifests.count(), 1, "{line} resolves the image once");
    }
}

#[test]
fn answers_that_lower_layers_could_change_open_them() {
    for (line, expected) in [
        ("ls IMG /shared", "low\ntop\n"),
        ("find IMG /shared", "/shared\n/shared/low\n/shared/top\n"),
        ("du -s IMG /shared", "9\t/shared\n"),
        ("grep -rl o IMG /shared", "/shared/low\n"),
        ("find IMG -maxdepth 1 -empty", ""),
        ("cat IMG /shared/top /shared/low", "text\nlow\n"),
        (
            "tree -L 1 IMG",
            "/\n\u{251c}\u{2500}\u{2500} big\n\u{251c}\u{2500}\u{2500} new\n\u{2514}\u{2500}\u{2500} shared\n\n3 directories, 1 file\n",
        ),
    ] {
        let world = World::new();
        let reference = world.put(&small_over_big());
        let words: Vec<&str> = line
            .split(' ')
            .map(|word| if word == "IMG" { &reference } else { word })
            .collect();
        assert_eq!(world.imgfs(&words).ok(), expected, "{line}");
    }
}

#[test]
fn head_and_grep_fetch_what_they_read() {
    let world = World::new();
    let lines: String = (0..400_000).map(|n| format!("{n:032}\n")).collect();
    let compressible = lines.len();
    let image = host_image(vec![gzip(&[
        file("noise", noise(7, 24 << 20)),
        dir("small"),
        file("small/one", "needle\n"),
        file("lines", lines),
        file("more", noise(8, 8 << 20)),
    ])]);
    assert!(compressible > 12 << 20);
    let reference = world.put(&image);
    world.imgfs(&["ls", &reference]).ok();
    let fetched = |arguments: &[&str]| {
        world.evict();
        world.registry.forget_requests();
        let out = world.imgfs(arguments).ok();
        let bytes = world.registry.bytes();
        (out, bytes)
    };
    let whole = image.layers[0].blob.len() as u64;
    let few = 4 << 20;
    assert!(whole > 8 * few);
    for arguments in [
        ["head", "-c", "100", &reference, "/noise"],
        ["head", "-n", "1", &reference, "/noise"],
        ["grep", "-r", "needle", &reference, "/small"],
        ["grep", "-q", "0002", &reference, "/lines"],
        ["grep", "-l", "0003", &reference, "/lines"],
    ] {
        let (_, bytes) = fetched(&arguments);
        assert!(bytes > 0 && bytes < few, "{arguments:?} fetched {bytes}");
    }
}

#[test]
fn a_download_that_was_announced_is_said_to_be_done() {
    let world = World::new();
    let image = host_image(vec![gzip(&[file("slow", noise(5, 600_000))])]);
    let reference = world.put(&image);
    // Slow enough for the line that it begins, which nothing quick gets.
    world.registry.fault_always(On::Blob, Fault::Drip(400));
    let outcome = world.imgfs(&["ls", &reference]);
    let digest = imgfs_formats::oci::Digest::sha256(&image.layers[0].blob).short();
    let lines: Vec<&str> = outcome.stderr.lines().collect();
    let begins =
        |line: &str, word: &str| line.starts_with(&format!("{word} layer {digest}, 600 kB"));
    assert!(
        lines.len() == 2 && begins(lines[0], "fetching") && begins(lines[1], "fetched"),
        "{lines:?}"
    );
    world.evict();
    assert_eq!(world.imgfs(&["ls", &reference]).stderr, "");
}

#[test]
fn json_has_every_name_exactly() {
    let world = World::new();
    let reference = world.put(&host_image(vec![gzip(&[
        dir("d"),
        file("d/line\nbreak", "needle\n"),
        file("d/back\\slash", "needle \u{1b}[31m\n"),
        file("d/latin", b"needle \xff\n").named(b"d/\xe9"),
        file("d/zero", b"needle\0\n"),
        symlink("d/z", "\u{6f22}").named(b"d/z\xff"),
    ])]));
    let names = |rows: &Value| -> Vec<Value> {
        let rows = rows.as_array().unwrap().iter();
        rows.map(|row| json!([row["name"], row["name_base64"]]))
            .collect()
    };
    let expected = json!([
        ["back\\slash", null],
        ["line\nbreak", null],
        ["zero", null],
        ["z\u{fffd}", "ev8="],
        ["\u{fffd}", "6Q=="],
    ]);
    for (command, skipped) in [(&["ls", "-R"][..], 0), (&["tree"], 1), (&["find"], 1)] {
        let arguments = [command, &["--json", &reference, "/d"]].concat();
        let out = world.imgfs(&arguments).ok();
        let rows = schema::check(command[0], &out);
        assert_eq!(json!(names(&rows)[skipped..]), expected, "{command:?}");
        assert!(!out.contains('\u{1b}'), "{out}");
    }
    let last = world
        .imgfs(&["stat", "--json", &reference, "/d/line\nbreak"])
        .ok();
    let last = schema::check("stat", &last);
    assert_eq!(last["path"], "/d/line\nbreak");
    let rows = world.imgfs(&["grep", "-rn", "--json", "needle", &reference, "/d"]);
    let rows = schema::check("grep", &rows.ok());
    assert_eq!(
        rows,
        json!([
            {"path": "/d/back\\slash", "line": 1, "text": "needle \u{1b}[31m"},
            {"path": "/d/line\nbreak", "line": 1, "text": "needle"},
            {"path": "/d/zero", "binary": true},
            {"path": "/d/\u{fffd}", "path_base64": "L2Qv6Q==", "line": 1, "text": "needle \u{fffd}",
             "text_base64": "bmVlZGxlIP8="},
        ])
    );
    let rows = world.imgfs(&["grep", "-rc", "--json", "slash", &reference, "/d"]);
    assert_eq!(
        schema::check("grep", &rows.ok_with(1))
            .as_array()
            .unwrap()
            .len(),
        4
    );
    let sums = world.imgfs(&["du", "--json", &reference, "/d"]).ok();
    assert_eq!(
        schema::check("du", &sums),
        json!([{"path": "/d", "size": 40}])
    );
    let nothing = world.imgfs(&["find", "--json", &reference, "/d", "-name", "none"]);
    assert_eq!(schema::check("find", &nothing.ok()), json!([]));
}

trait OkWith {
    /// Its stdout; it must have ended with this code.
    fn ok_with(self, code: i32) -> String;
}

impl OkWith for Outcome {
    #[track_caller]
    fn ok_with(self, code: i32) -> String {
        self.fails(code, &[]);
        String::from_utf8(self.stdout).unwrap()
    }
}

#[test]
fn du_tells_what_each_layer_brings() {
    let world = World::new();
    let mut image = host_image(vec![
        gzip(&[
            dir("usr"),
            file("usr/kept", noise(1, 1000)),
            file("usr/replaced", noise(2, 5000)),
        ]),
        gzip_layer(tar_of(&[file("else", "x")])),
        gzip(&[
            file("usr/replaced", noise(3, 300)),
            hard_link("usr/again", "usr/replaced"),
        ]),
    ]);
    let mut config: Value = serde_json::from_slice(&image.blobs[0]).unwrap();
    config["history"] = json!([
        {"created_by": "ADD base   /"},
        {"created_by": "ENV x=y", "empty_layer": true},
        {"created_by": "COPY else"},
        {"created_by": "RUN make\n  install"},
    ]);
    let config = config.to_string();
    let mut manifest: Value = serde_json::from_slice(&image.manifest).unwrap();
    manifest["config"] = json!(descriptor(OCI_CONFIG, config.as_bytes()));
    image.blobs[0] = config.into();
    image.manifest = manifest.to_string().into();
    let reference = world.put(&image);
    let text = world.imgfs(&["du", "--by-layer", &reference, "/usr"]).ok();
    let rows: Vec<Vec<&str>> = text
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    let short = |position: usize| -> String {
        let digest = imgfs_formats::oci::Digest::sha256(&image.layers[position].blob);
        digest.short()
    };
    assert_eq!(rows[0], ["#", "LAYER", "SIZE", "FILES", "COMMAND"]);
    assert_eq!(rows[1], ["0", &short(0), "1000", "1", "ADD", "base", "/"]);
    assert_eq!(rows[2], ["1", &short(1), "0", "0", "COPY", "else"]);
    assert_eq!(
        rows[3],
        ["2", &short(2), "300", "1", "RUN", "make", "install"]
    );
    let rows = world
        .imgfs(&["du", "--by-layer", "--json", &reference, "/usr"])
        .ok();
    let rows = schema::check("du", &rows);
    assert_eq!(rows[2]["created_by"], "RUN make\n  install");
    assert_eq!(rows[0]["size"], 1000);
}

/// What imgfs prints on a terminal.
fn on_terminal(world: &World, environment: &[(&str, &str)], arguments: &[&str]) -> String {
    let words: Vec<_> = arguments.iter().map(|word| format!("'{word}'")).collect();
    let mut script = world.command("script");
    script.env("TERM", "xterm").env_remove("NO_COLOR");
    script.envs(environment.iter().copied());
    script.args([
        "-qec",
        &format!("{IMGFS} {} 2>/dev/null", words.join(" ")),
        "/dev/null",
    ]);
    run(&mut script).ok().replace("\r\n", "\n")
}

#[test]
fn terminals_get_colours_and_no_control_characters() {
    if !has(&["script"]) {
        return;
    }
    let world = World::new();
    let reference = world.put(&host_image(vec![gzip(&[
        dir("d"),
        symlink("l", "d"),
        file("evil\u{1b}[2J\\", "needle\t\u{1b}[2J in it\n"),
    ])]));
    let shown = on_terminal(&world, &[], &["ls", &reference]);
    assert_eq!(
        shown,
        "\u{1b}[01;34md\u{1b}[0m\nevil\\u{1b}[2J\\\\\n\u{1b}[01;36ml\u{1b}[0m\n"
    );
    let plain = [("NO_COLOR", "1")];
    let shown = on_terminal(&world, &plain, &["ls", &reference]);
    assert_eq!(shown, "d\nevil\\u{1b}[2J\\\\\nl\n");
    let shown = on_terminal(&world, &plain, &["find", &reference, "-name", "evil*"]);
    assert_eq!(shown, "/evil\\u{1b}[2J\\\\\n");
    let shown = on_terminal(&world, &plain, &["grep", "-r", "needle", &reference]);
    assert_eq!(shown, "/evil\\u{1b}[2J\\\\:needle\t\\u{1b}[2J in it\n");
    let shown = on_terminal(&world, &[], &["grep", "-r", "needle", &reference]);
    assert!(
        shown.contains("\u{1b}[01;31mneedle\u{1b}[0m\t\\u{1b}[2J in it\n"),
        "{shown:?}"
    );
    let shown = on_terminal(&world, &[], &["tree", &reference]);
    assert!(shown.contains("\u{1b}[01;34md\u{1b}[0m\n"), "{shown:?}");
    let piped = world.imgfs(&["ls", &reference]).ok();
    assert_eq!(
        piped, "d\nevil\u{1b}[2J\\\nl\n",
        "piped, names are what they are"
    );
}

#[test]
fn failures_of_some_paths_do_not_hide_the_others() {
    let world = World::new();
    let reference = world.put(&small_over_big());
    let check = |arguments: &[&str], code: i32, out: &str, words: &[&str]| {
        let outcome = world.imgfs(arguments);
        outcome.fails(code, words);
        assert_eq!(
            String::from_utf8(outcome.stdout).unwrap(),
            out,
            "{arguments:?}"
        );
    };
    check(
        &["cat", &reference, "/absent", "/new/top", "/new"],
        1,
        "text\n",
        &["/absent: no such file or directory", "/new is a directory"],
    );
    check(
        &["head", "-q", "-n1", &reference, "/new", "/new/top"],
        1,
        "text\n",
        &["/new is a directory"],
    );
    check(
        &["ls", &reference, "/absent", "/new/top"],
        1,
        "/new/top\n",
        &["/absent"],
    );
    check(
        &["grep", "e", &reference, "/new", "/new/top"],
        2,
        "/new/top:text\n",
        &["/new is a directory"],
    );
    check(
        &["grep", "(", &reference, "/new/top"],
        2,
        "",
        &["bad pattern", "-F"],
    );
    check(&["grep", "e", &reference], 2, "", &["PATHS"]);
    check(
        &["find", &reference, "-mtime"],
        2,
        "",
        &["-mtime needs a word"],
    );
    check(
        &["du", &reference, "/absent", "/new/top"],
        1,
        "5\t/new/top\n",
        &["/absent"],
    );
    check(&["tree", "-L", "0", &reference], 2, "", &["0"]);
}

#[test]
fn help_has_an_example_for_each() {
    let world = World::new();
    for command in ["ls", "tree", "find", "cat", "head", "grep", "stat", "du"] {
        let help = world.imgfs(&[command, "--help"]).ok();
        let example = format!("\n  imgfs {command} ");
        assert!(
            help.contains("Example") && help.contains(&example),
            "{help}"
        );
    }
}
