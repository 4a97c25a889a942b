//! `imgfs man`: manual pages, made of the same definition as `--help`.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::{Args, Command, CommandFactory};
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

use super::{Cli, exit, output};

/// Print the manual page of a command, or write those of all commands.
#[derive(Args)]
#[command(after_help = "\
Examples:
  imgfs man mount | man -l -                       read one
  imgfs man cache verify > imgfs-cache-verify.1
  imgfs man --dir /usr/local/share/man/man1        write them all: imgfs.1, imgfs-mount.1, ...")]
pub(super) struct ManArgs {
    /// The command [default: imgfs itself]
    #[arg(value_name = "COMMAND", conflicts_with = "dir")]
    command: Vec<String>,
    /// Write the pages of all commands into this directory
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// What decides how imgfs behaves, beside its options.
const ENVIRONMENT: [(&str, &str); 9] = [
    (
        "IMGFS_CACHE_DIR",
        "Where fetched layers are kept; --cache-dir goes before it.",
    ),
    (
        "IMGFS_CACHE_LIMIT",
        "Space for layer bytes in the cache; --cache-limit goes before it.",
    ),
    (
        "IMGFS_CONFIG",
        "The user's configuration file, in place of ~/.config/imgfs/config.toml.",
    ),
    (
        "IMGFS_LOG",
        "What is logged, as in imgfs=debug; goes before --quiet and --verbose.",
    ),
    (
        "NO_COLOR",
        "Set to anything: no colours, whatever the terminal can do.",
    ),
    (
        "DOCKER_CONFIG, REGISTRY_AUTH_FILE",
        "Where credentials are, as docker and podman have it.",
    ),
    (
        "CONTAINERS_REGISTRIES_CONF",
        "podman's configuration of registries, in place of the usual file.",
    ),
    (
        "HTTPS_PROXY, HTTP_PROXY, ALL_PROXY, NO_PROXY",
        "Proxies for requests to registries.",
    ),
    (
        "XDG_CACHE_HOME, XDG_CONFIG_HOME, XDG_RUNTIME_DIR",
        "Where users keep such files.",
    ),
];

/// What it reads and writes.
const FILES: [(&str, &str); 5] = [
    (
        "~/.cache/imgfs, /var/cache/imgfs",
        "The cache, of users and of root. It can be removed when nothing is mounted.",
    ),
    (
        "~/.config/imgfs/config.toml, /etc/imgfs/config.toml",
        "Mirrors, aliases and how registries are reached: see imgfs-registry-explain(1).",
    ),
    (
        "~/.docker/config.json, $XDG_RUNTIME_DIR/containers/auth.json",
        "Credentials, as docker and podman keep them.",
    ),
    (
        "/etc/containers/registries.conf, /etc/containerd/certs.d",
        "Mirrors, as podman and containerd have them.",
    ),
    ("/run/imgfs, $XDG_RUNTIME_DIR/imgfs", "What is mounted."),
];

pub(super) fn man(args: &ManArgs) -> anyhow::Result<()> {
    let mut root = Cli::command().disable_help_subcommand(true);
    root.build();
    match &args.dir {
        Some(dir) => write_all(&root, dir),
        None => output::bytes(&page(find(&root, &args.command)?)?),
    }
}

fn find<'a>(root: &'a Command, words: &[String]) -> anyhow::Result<&'a Command> {
    let mut command = root;
    for word in words {
        let Some(below) = command.find_subcommand(word) else {
            bail!(
                "there is no command {:?}: `imgfs --help` lists them",
                words.join(" ")
            );
        };
        command = below;
    }
    Ok(command)
}

fn write_all(root: &Command, dir: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
    let mut pending = vec![root];
    while let Some(command) = pending.pop() {
        pending.extend(
            command
                .get_subcommands()
                .filter(|below| !below.is_hide_set()),
        );
        let path = dir.join(format!("{}.1", name(command)));
        std::fs::write(&path, page(command)?)
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

/// As the page is called: `imgfs-cache-df`.
fn name(command: &Command) -> &str {
    command.get_display_name().unwrap_or(command.get_name())
}

fn page(command: &Command) -> anyhow::Result<Vec<u8>> {
    let man = Man::new(command.clone())
        // Whenever this program was made. Nothing at all would put what follows in its place.
        .date(" ")
        .source(concat!("imgfs ", env!("CARGO_PKG_VERSION")))
        .manual("imgfs manual");
    let help = command.get_after_long_help().or(command.get_after_help());
    let help = help.map(ToString::to_string).unwrap_or_default();
    let help = Sections::of(&help);
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    if !help.text.is_empty() {
        section(&mut page, |roff| {
            roff.control("PP", []);
            paragraphs(roff, &help.text);
        })?;
    }
    options(&mut page, &man)?;
    if command.has_subcommands() {
        man.render_subcommands_section(&mut page)?;
    }
    section(&mut page, |roff| {
        if !help.examples.is_empty() {
            roff.control("SH", ["EXAMPLES"]);
            paragraphs(roff, &help.examples);
        }
        roff.control("SH", ["EXIT STATUS"]);
        for (code, meaning) in exit::CODES {
            item(roff, &code.to_string(), meaning);
        }
        if !help.exit.is_empty() {
            roff.control("PP", []);
            paragraphs(roff, &help.exit);
        }
        roff.control("SH", ["ENVIRONMENT"]);
        for (variable, meaning) in ENVIRONMENT {
            item(roff, variable, meaning);
        }
        roff.control("SH", ["FILES"]);
        for (file, meaning) in FILES {
            item(roff, file, meaning);
        }
        roff.control("SH", ["SEE ALSO"]);
        see_also(roff, command);
    })?;
    Ok(page)
}

/// The options; the empty line between two line breaks that `clap_mangen` puts before possible
/// values is one too many.
fn options(page: &mut Vec<u8>, man: &Man) -> anyhow::Result<()> {
    let mut options = Vec::new();
    man.render_options_section(&mut options)?;
    let options = String::from_utf8(options)?;
    page.extend_from_slice(options.replace(".br\n\n.br\n", ".br\n").as_bytes());
    Ok(())
}

fn section(page: &mut Vec<u8>, write: impl FnOnce(&mut Roff)) -> anyhow::Result<()> {
    let mut roff = Roff::new();
    write(&mut roff);
    roff.to_writer(page)?;
    Ok(())
}

fn item(roff: &mut Roff, what: &str, meaning: &str) {
    roff.control("TP", []);
    roff.text([bold(what)]);
    roff.text([roman(meaning)]);
}

/// The group that a command is of, and imgfs itself.
fn see_also(roff: &mut Roff, command: &Command) {
    let name = name(command);
    let mut others = vec!["imgfs".to_owned()];
    for (position, _) in name.match_indices('-') {
        others.extend(name.get(..position).map(str::to_owned));
    }
    others.retain(|other| other != name);
    others.dedup();
    let pages = others.iter().map(|other| format!("{other}(1)"));
    let pages: Vec<String> = pages
        .chain(["mount(8)".to_owned(), "fuse(4)".to_owned()])
        .collect();
    roff.text([roman(pages.join(", "))]);
}

/// The parts of the text below a command's options.
#[derive(Debug, Default, PartialEq, Eq)]
struct Sections {
    text: Vec<String>,
    examples: Vec<String>,
    exit: Vec<String>,
}

impl Sections {
    /// `Example:`, `Examples:`, `Exit status:` and `Exit codes:` begin parts, which end with an
    /// empty line that no indented one follows.
    fn of(help: &str) -> Self {
        let mut sections = Self::default();
        let mut part = &mut sections.text;
        let mut after_empty = false;
        for line in help.lines() {
            if line == "Example:" || line == "Examples:" {
                part = &mut sections.examples;
                after_empty = false;
                continue;
            }
            let exit = ["Exit status:", "Exit codes:"];
            if let Some(rest) = exit.iter().find_map(|prefix| line.strip_prefix(prefix)) {
                part = &mut sections.exit;
                part.extend((!rest.trim().is_empty()).then(|| rest.trim().to_owned()));
                after_empty = false;
                continue;
            }
            if after_empty && !line.is_empty() && !line.starts_with(' ') {
                part = &mut sections.text;
            }
            after_empty = line.is_empty();
            part.push(line.to_owned());
        }
        for part in [
            &mut sections.text,
            &mut sections.examples,
            &mut sections.exit,
        ] {
            while part.last().is_some_and(String::is_empty) {
                part.pop();
            }
        }
        sections
    }
}

/// Text as paragraphs, indented lines as they are.
fn paragraphs(roff: &mut Roff, lines: &[String]) {
    let mut is_verbatim = false;
    for line in lines {
        let indented = line.starts_with(' ');
        if indented != is_verbatim && !line.is_empty() {
            roff.control(if indented { "nf" } else { "fi" }, []);
            is_verbatim = indented;
        }
        if !line.is_empty() {
            roff.text([roman(line)]);
        } else if is_verbatim {
            roff.control("sp", []);
        } else {
            roff.control("PP", []);
        }
    }
    if is_verbatim {
        roff.control("fi", []);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn help_is_taken_apart() {
        let help =
            "About it.\n\nExamples:\n  one\n  two\n\nExit status: 3 if so,\n4 if not.\n\nMore.";
        let sections = Sections::of(help);
        let text = |lines: &[&str]| -> Vec<String> {
            lines.iter().map(|line| (*line).to_owned()).collect()
        };
        assert_eq!(sections.text, text(&["About it.", "", "More."]));
        assert_eq!(sections.examples, text(&["  one", "  two"]));
        assert_eq!(sections.exit, text(&["3 if so,", "4 if not."]));
    }
}
