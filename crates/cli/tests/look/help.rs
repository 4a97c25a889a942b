//! Help, manual pages, exit codes, and what the program says when nobody wants to hear anything.

use super::*;
use crate::listing::{dir, file, noise};
use crate::process::{Outcome, run};
use crate::world::IMGFS;

/// A world with an image that is here already.
fn world() -> (World, String) {
    let world = World::new();
    let layer = gzip(&[
        dir("etc"),
        file("etc/release", "one\n"),
        file("n", noise(1, 9000)),
    ]);
    let reference = world.put(&host_image(vec![layer]));
    world.imgfs(&["pull", "-q", &reference]).ok();
    (world, reference)
}

/// The names of all commands, as their pages are called, from the directory with the pages.
fn pages(world: &World) -> Vec<String> {
    let dir = world.path("man");
    let mut command = world.command(IMGFS);
    run(command.args(["man", "--dir"]).arg(&dir)).ok();
    let entries = std::fs::read_dir(dir).unwrap();
    let mut names: Vec<_> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn every_command_has_a_page_with_all_sections() {
    let world = World::new();
    let names = pages(&world);
    for name in [
        "imgfs.1",
        "imgfs-mount.1",
        "imgfs-cache-verify.1",
        "imgfs-man.1",
    ] {
        assert!(names.contains(&name.to_owned()), "{names:?}");
    }
    for name in &names {
        let page = std::fs::read_to_string(world.path("man").join(name)).unwrap();
        for section in [
            "NAME",
            "SYNOPSIS",
            "DESCRIPTION",
            "EXAMPLES",
            "\"EXIT STATUS\"",
            "ENVIRONMENT",
            "FILES",
            "\"SEE ALSO\"",
        ] {
            let count = page
                .lines()
                .filter(|line| *line == format!(".SH {section}"))
                .count();
            assert_eq!(count, 1, "{name}: {section}");
        }
    }
    let shown = world.imgfs(&["man", "cache", "verify"]).ok();
    let written = world.path("man/imgfs-cache-verify.1");
    assert_eq!(shown, std::fs::read_to_string(written).unwrap());
    world
        .imgfs(&["man", "frobnicate"])
        .fails(1, &["no command \"frobnicate\"", "imgfs --help"]);
}

#[test]
fn man_and_mandoc_have_nothing_to_complain_of() {
    if !has(&["man", "mandoc"]) {
        return;
    }
    let world = World::new();
    for name in pages(&world) {
        let path = world.path("man").join(&name);
        let mut man = world.command("man");
        man.env("LC_ALL", "C.UTF-8")
            .env("MANWIDTH", "80")
            .env("MANROFFSEQ", "");
        let shown = run(man
            .args(["--warnings", "-E", "UTF-8", "-l", "-Tutf8", "-Z"])
            .arg(&path));
        assert_eq!(shown.stderr, "", "{name}");
        shown.ok();
        // Style and the like are matters of taste; warnings are about what is shown wrong.
        let mut mandoc = world.command("mandoc");
        let linted = run(mandoc.args(["-T", "lint", "-W", "warning"]).arg(&path));
        let said = String::from_utf8(linted.stdout).unwrap();
        let faults: Vec<&str> = (said.lines())
            // No date: a page is made of the program at hand, whenever that is.
            .filter(|line| !line.contains("date"))
            .collect();
        assert!(faults.is_empty(), "{name}: {faults:#?}");
    }
}

#[test]
fn every_command_helps() {
    let world = World::new();
    for name in pages(&world) {
        let name = name.strip_suffix(".1").unwrap();
        let words: Vec<&str> = name.split('-').skip(1).collect();
        let help = world.imgfs(&[&words[..], &["--help"]].concat()).ok();
        assert!(help.contains("Example"), "{name}: {help}");
        let wide = help.lines().find(|line| line.chars().count() > 100);
        assert_eq!(wide, None, "{name}");
        assert!(!help.contains('\u{1b}'), "{name}: not a terminal");
    }
}

/// `docs/commands.md` and the pages say the same.
#[test]
fn exit_codes_are_documented() {
    let docs = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/commands.md");
    let docs = std::fs::read_to_string(docs).unwrap();
    let world = World::new();
    let page = world.imgfs(&["man"]).ok();
    let codes = page.split_once(".SH \"EXIT STATUS\"").unwrap().1;
    let codes = codes.split_once(".SH").unwrap().0.replace('\\', "");
    let rows: Vec<_> = (docs.lines())
        .filter_map(|line| {
            line.strip_prefix("| ")?
                .strip_suffix(" |")?
                .split_once(" | ")
        })
        .filter(|(code, _)| code.parse::<u8>().is_ok())
        .collect();
    assert_eq!(rows.len(), 3);
    for (code, meaning) in rows {
        assert!(
            codes.contains(&format!("fB{code}fR\n{meaning}")),
            "{code}: {codes}"
        );
    }
}

#[test]
fn exit_codes_are_what_they_are_said_to_be() {
    let (world, reference) = world();
    world.imgfs(&["ls", &reference]).ok();
    world
        .imgfs(&["ls", &reference, "/absent"])
        .fails(1, &["/absent"]);
    world.imgfs(&["ls"]).fails(2, &["Usage:", "<IMAGE>"]);
    world
        .imgfs(&["ls", "--frobnicate"])
        .fails(2, &["--frobnicate"]);
    world.imgfs(&["cache"]).fails(2, &["Usage:", "verify"]);
}

#[test]
fn wrong_commands_are_told_what_to_type() {
    let world = World::new();
    world
        .imgfs(&["golang"])
        .fails(2, &["imgfs ls golang", "imgfs --help"]);
    world.imgfs(&["unmont", "--help"]).fails(2, &["unmount"]);
    world.imgfs(&["mout"]).fails(2, &["mount"]);
    world.imgfs(&["cache", "veryfy"]).fails(2, &["verify"]);
    world.imgfs::<&str>(&[]).fails(2, &["Usage: imgfs"]);
}

/// Commands that only read, with what they need.
fn reads(reference: &str) -> Vec<Vec<&str>> {
    let mut reads = vec![
        vec!["ls", reference],
        vec!["ls", "-l", "--json", reference],
        vec!["cat", reference, "/etc/release"],
        vec!["stat", reference, "/etc"],
        vec!["inspect", reference],
        vec!["manifest", "inspect", reference],
        vec!["layers", reference],
        vec!["tags", reference],
        vec!["whence", reference, "/etc/release"],
        vec!["diff", reference, reference],
        vec!["index", "show", reference],
        vec!["registry", "explain", reference],
        vec!["pull", reference],
        vec!["ps"],
        vec!["cache", "df"],
        vec!["cache", "df", "-v"],
        vec!["cache", "verify"],
        vec!["cache", "evict"],
        vec!["completions", "bash"],
        vec!["man", "ls"],
    ];
    for optional in [
        vec!["tree", reference],
        vec!["find", reference],
        vec!["du", reference],
        vec!["head", reference, "/etc/release"],
        vec!["images"],
        vec!["history", reference],
    ] {
        let is_there = run(std::process::Command::new(IMGFS).args([optional[0], "--help"]));
        if is_there.code == Some(0) {
            reads.push(optional);
        }
    }
    reads
}

#[test]
fn quiet_commands_say_nothing_but_data() {
    let (world, reference) = world();
    for read in reads(&reference) {
        let outcome = world.imgfs(&[&read[..], &["--quiet"]].concat());
        is_plain(&outcome);
        assert_eq!(outcome.stderr, "", "{}", outcome.line);
        outcome.ok();
    }
}

#[test]
fn what_is_no_terminal_gets_no_escape_codes() {
    let (world, reference) = world();
    for read in reads(&reference) {
        let outcome = world.imgfs(&read);
        is_plain(&outcome);
        outcome.ok();
    }
    is_plain(&world.imgfs(&["ls", "--frobnicate"]));
    is_plain(&world.imgfs(&["-vv", "ls", &reference]));
}

#[track_caller]
fn is_plain(outcome: &Outcome) {
    let has_escape = |bytes: &[u8]| bytes.contains(&0x1b);
    assert!(!has_escape(&outcome.stdout), "{}", outcome.line);
    assert!(!has_escape(outcome.stderr.as_bytes()), "{}", outcome.line);
}

/// On a terminal, too, colours are only for those who want them.
#[test]
fn no_color_is_respected_on_a_terminal() {
    if !has(&["script"]) {
        return;
    }
    let (world, reference) = world();
    let on_terminal = |line: &str| {
        let mut script = world.command("script");
        script.env("NO_COLOR", "1").env("TERM", "xterm-256color");
        String::from_utf8_lossy(&run(script.args(["-qec", line, "/dev/null"])).stdout).into_owned()
    };
    for line in [
        format!("{IMGFS} ls --frobnicate"),
        format!("{IMGFS} ls --help"),
        format!("{IMGFS} -v ls {reference}"),
    ] {
        let said = on_terminal(&line);
        assert!(!said.is_empty(), "{line}");
        assert!(!said.contains('\u{1b}'), "{line}: {said:?}");
    }
}
