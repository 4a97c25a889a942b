//! The layers of the program: who may import whom, and which crates stay behind which edge.
//!
//! The table in `src/lib.rs` is the rule; the source files are read as text.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A line of code, with where it stands.
struct Line {
    file: String,
    number: usize,
    text: String,
}

/// The table of `src/lib.rs`: module to layer.
fn table() -> BTreeMap<String, u32> {
    let text = std::fs::read_to_string(root().join("lib.rs")).unwrap();
    let rows = text.lines().filter_map(|line| {
        let mut cells = line.strip_prefix("//! | ")?.split(" | ");
        let layer = cells.next()?.parse().ok()?;
        let module = cells.next()?.strip_prefix("[`")?.strip_suffix("`]")?;
        Some((module.to_owned(), layer))
    });
    rows.collect()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// All code below `src`, comments left out.
fn code() -> Vec<Line> {
    let (mut lines, mut pending) = (Vec::new(), vec![root()]);
    while let Some(path) = pending.pop() {
        if path.is_dir() {
            pending.extend(
                std::fs::read_dir(&path)
                    .unwrap()
                    .map(|one| one.unwrap().path()),
            );
            continue;
        }
        let file = path.strip_prefix(root()).unwrap().display().to_string();
        let text = std::fs::read_to_string(&path).unwrap();
        for (number, line) in (1..).zip(text.lines()) {
            let code = line.split("//").next().unwrap_or_default();
            lines.push(Line {
                file: file.clone(),
                number,
                text: code.to_owned(),
            });
        }
    }
    lines
}

/// The module of `src/lib.rs` that a file belongs to.
fn module(file: &str) -> &str {
    file.split('/').next().unwrap().trim_end_matches(".rs")
}

/// The names that follow `crate::` in a line; of `crate::{a, b}` all.
fn imports(text: &str) -> Vec<String> {
    let mut names = Vec::new();
    for (position, found) in text.match_indices("crate::") {
        let before = text.get(..position).unwrap_or_default();
        // `pub(in crate::x)` and `$crate::x` count too, `other_crate::x` does not.
        if before.ends_with(|c: char| c.is_alphanumeric() || c == '_') {
            continue;
        }
        let rest = text.get(position + found.len()..).unwrap_or_default();
        let list = rest.strip_prefix('{').unwrap_or(rest);
        let parts = if list.len() < rest.len() {
            list.split(',').collect()
        } else {
            vec![list]
        };
        for part in parts {
            let name = part
                .trim()
                .split(|c: char| !c.is_alphanumeric() && c != '_');
            names.extend(name.into_iter().next().map(str::to_owned));
        }
    }
    names
}

/// Fails, with all places, where `is_wrong` says why a line is wrong.
fn check(is_wrong: impl Fn(&Line) -> Option<String>) {
    let wrong: Vec<String> = code()
        .iter()
        .filter_map(|line| {
            Some(format!(
                "src/{}:{}: {}",
                line.file,
                line.number,
                is_wrong(line)?
            ))
        })
        .collect();
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn the_table_names_every_module() {
    let table = table();
    for entry in std::fs::read_dir(root()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if name != "lib.rs" && name != "main.rs" {
            assert!(
                table.contains_key(module(&name)),
                "src/lib.rs has no row for {name}"
            );
        }
    }
    assert!(table.len() >= 8, "{table:?}");
}

#[test]
fn modules_import_only_from_lower_layers() {
    let table = table();
    let layer = |name: &str| table.get(name).copied();
    check(|line| {
        // lib.rs and main.rs are above everything.
        let from = layer(module(&line.file))?;
        let wrong = imports(&line.text)
            .into_iter()
            .find(|name| name != module(&line.file) && layer(name).is_none_or(|to| to >= from))?;
        Some(format!(
            "{} is in layer {from} and imports {wrong}",
            module(&line.file)
        ))
    });
}

#[test]
fn crates_stay_behind_their_edge() {
    let check_crate = |name: &str, allowed: &[&str]| {
        check(|line| {
            let paths = [format!("{name}::"), format!("use {name};")];
            let named = paths.iter().any(|path| {
                line.text.match_indices(path.as_str()).any(|(position, _)| {
                    let before = line.text.get(..position).unwrap_or_default();
                    !before.ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':')
                })
            });
            let is_allowed = allowed.iter().any(|path| line.file.starts_with(path));
            (named && !is_allowed).then(|| format!("only {allowed:?} may name {name}"))
        });
    };
    check_crate("fuser", &["fs/fuse.rs", "fs/session.rs"]);
    check_crate("reqwest", &["source/"]);
    check_crate("clap", &["cli/"]);
    check_crate("anyhow", &["cli/", "mount/", "main.rs"]);
    check_crate("indicatif", &["cli/"]);
}

#[test]
fn formats_and_union_do_no_io() {
    check(|line| {
        let is_pure = ["layer", "tree", "oci"].contains(&module(&line.file));
        let io = [
            "std::fs",
            "std::net",
            "std::process",
            "std::thread",
            "tokio",
        ];
        let found = io.iter().find(|name| line.text.contains(**name))?;
        is_pure.then(|| format!("{} names {found}", module(&line.file)))
    });
}
