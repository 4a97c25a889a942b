//! `imgfs search`.

use std::io::IsTerminal;
use std::str::FromStr;

use anyhow::{Context, bail};
use clap::Args;
use serde::Serialize;

use super::format::{Field, Format, Listing};
use super::globals::{Globals, RegistryOptions, runtime};
use super::output;
use super::password::UserOptions;
use imgfs_core::source::route::search_registries;
use imgfs_core::source::{FoundRepository, MAX_SEARCH_RESULTS, search as search_registry};
use imgfs_formats::oci::{DEFAULT_REGISTRY, Reference};

/// Characters of a description that are shown where nothing says how wide a line is, as Docker does
/// it.
const DESCRIPTION_WIDTH: usize = 45;
/// Fewest characters of a description that are shown, however narrow the terminal.
const MIN_DESCRIPTION_WIDTH: usize = 20;

const FIELDS: &[Field] = &[
    Field::text("Index", "INDEX"),
    Field::text("Name", "NAME"),
    Field::text("Description", "DESCRIPTION"),
    Field::number("StarCount", "STARS"),
    Field::text("IsOfficial", "OFFICIAL"),
    Field::text("IsAutomated", "AUTOMATED"),
];
const COLUMNS: &[&str] = &["Name", "Description", "StarCount", "IsOfficial"];

/// Search a registry for images.
#[derive(Args)]
#[command(after_help = "\
Without a registry in front of TERM the search goes to those that files name for short names \
(unqualified-search-registries), else to Docker Hub. Other registries can be searched if they \
speak Docker Hub's API or Quay's; most do not.

A filter is is-official=true|false, is-automated=true|false or stars=N (at least so many). Of \
several all must hold. They choose among the results that --limit leaves, as docker's do.

With --format the fields are .Name, .Description, .StarCount, .IsOfficial, .IsAutomated and \
.Index (the registry).

Examples:
  imgfs search golang
  imgfs search --limit 5 --filter stars=10 quay.io/etcd
  imgfs search --json nginx | jq -r '.[].name'")]
pub(super) struct SearchArgs {
    /// What to look for, with or without a registry: TERM or HOST/TERM
    #[arg(value_name = "TERM")]
    term: String,
    /// Most results of a registry
    #[arg(long, value_name = "N", default_value_t = 25, value_parser = parse_limit)]
    limit: usize,
    /// Only results for which this holds
    #[arg(long, short, value_name = "FILTER")]
    filter: Vec<Filter>,
    /// Print all of the descriptions
    #[arg(long)]
    no_trunc: bool,
    /// Print by a template, "json" or "table TEMPLATE"
    #[arg(long, value_name = "FORMAT", conflicts_with = "json")]
    format: Option<Format>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    user: UserOptions,
    #[command(flatten)]
    registry: RegistryOptions,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Filter {
    Official(bool),
    Automated(bool),
    Stars(u64),
}

/// A repository of a registry.
#[derive(Serialize)]
struct Row {
    /// The registry.
    index: String,
    /// As it is to be written in other commands.
    name: String,
    description: String,
    stars: u64,
    official: bool,
    automated: bool,
}

pub(super) fn search(globals: &Globals, args: &SearchArgs) -> anyhow::Result<()> {
    let mut options = args.registry.options()?;
    let (hosts, term) = match split_host(&args.term)? {
        Some((host, term)) => (vec![host], term),
        None => (search_registries(&options.configuration)?, args.term.trim()),
    };
    if term.is_empty() {
        bail!(
            "{:?} has nothing to search for: write {}TERM",
            args.term,
            args.term
        );
    }
    if args.user.username.is_some() {
        let [host] = &hosts[..] else {
            bail!("--username is for one registry: write HOST/{term}");
        };
        options = args.registry.options_as(&args.user, &repository(host)?)?;
    }
    // Where others are searched too, a name without a host would mean something else.
    let is_short = hosts == [DEFAULT_REGISTRY];
    let (mut rows, mut failures) = (Vec::new(), Vec::new());
    runtime()?.block_on(async {
        for host in &hosts {
            match search_registry(host, remote_term(host, term), args.limit, &options).await {
                Ok(found) => rows.extend(
                    (found.into_iter())
                        .filter(|one| args.filter.iter().all(|filter| filter.holds(one)))
                        .map(|one| Row::new(host, one, is_short)),
                ),
                Err(err) => failures.push(err),
            }
        }
    });
    // One registry that cannot be searched must not hide what the others have.
    if failures.len() == hosts.len()
        && let Some(first) = failures.pop()
    {
        for failure in failures {
            output::error(&failure.into());
        }
        return Err(first.into());
    }
    for failure in failures.iter().filter(|_| !globals.quiet) {
        output::message(&format!("not searched: {failure}"));
    }
    if args.json {
        return output::json(&rows);
    }
    let format = args.format.clone().unwrap_or_default();
    let width = if args.no_trunc {
        usize::MAX
    } else {
        description_width(&format, &rows)
    };
    let mut listing = Listing::new(FIELDS);
    for row in &rows {
        let mark = |is_so: bool| if is_so { "[OK]" } else { "" };
        listing.push([
            row.index.clone(),
            row.name.clone(),
            shortened(&row.description, width),
            row.stars.to_string(),
            mark(row.official).to_owned(),
            mark(row.automated).to_owned(),
        ]);
    }
    listing.print(&format, COLUMNS)
}

impl Row {
    fn new(host: &str, found: FoundRepository, is_short: bool) -> Self {
        let name = if is_short {
            found.name
        } else {
            format!("{host}/{}", found.name)
        };
        Self {
            index: host.to_owned(),
            name,
            description: found.description,
            stars: found.stars,
            official: found.is_official,
            automated: found.is_automated,
        }
    }
}

impl Filter {
    fn holds(self, found: &FoundRepository) -> bool {
        match self {
            Self::Official(wanted) => found.is_official == wanted,
            Self::Automated(wanted) => found.is_automated == wanted,
            Self::Stars(least) => found.stars >= least,
        }
    }
}

impl FromStr for Filter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            "write is-official=true, is-automated=false or stars=N, with one of these names"
                .to_owned()
        };
        let (name, value) = text.split_once('=').ok_or_else(wrong)?;
        let is_so = || match value {
            "true" | "1" => Ok(true),
            "false" | "0" => Ok(false),
            _ => Err(format!("{value:?} is neither true nor false")),
        };
        match name {
            "is-official" => Ok(Self::Official(is_so()?)),
            "is-automated" => Ok(Self::Automated(is_so()?)),
            "stars" => {
                let stars = value.parse();
                Ok(Self::Stars(
                    stars.map_err(|_| format!("{value:?} is no number of stars"))?,
                ))
            }
            _ => Err(wrong()),
        }
    }
}

fn parse_limit(text: &str) -> Result<usize, String> {
    let limit = text.parse().ok();
    limit
        .filter(|limit| (1..=MAX_SEARCH_RESULTS).contains(limit))
        .ok_or_else(|| format!("{text} is outside the range of [1, {MAX_SEARCH_RESULTS}]"))
}

/// The registry in front of a term, told as in references. What follows need not be a name.
fn split_host(text: &str) -> anyhow::Result<Option<(String, &str)>> {
    let text = text.trim();
    let text = text.strip_prefix("docker://").unwrap_or(text);
    let Some((first, term)) = text.split_once('/') else {
        return Ok(None);
    };
    if first != "localhost" && !first.contains(['.', ':']) {
        return Ok(None);
    }
    let reference = repository(first)?;
    let (host, _) = reference.repository().context("internal: no registry")?;
    Ok(Some((host.to_owned(), term)))
}

/// Some repository of a registry.
fn repository(host: &str) -> anyhow::Result<Reference> {
    Ok(format!("{host}/search").parse()?)
}

/// Docker Hub lists its official images without the `library/` that they are in.
fn remote_term<'a>(host: &str, term: &'a str) -> &'a str {
    match term.strip_prefix("library/") {
        Some(name) if host == DEFAULT_REGISTRY => name,
        _ => term,
    }
}

/// How many characters of a description fit into a line of the usual table.
fn description_width(format: &Format, rows: &[Row]) -> usize {
    let is_table = *format == Format::Table && std::io::stdout().is_terminal();
    let size = is_table.then(ratatui::crossterm::terminal::size);
    let Some(Ok((columns, _))) = size else {
        return DESCRIPTION_WIDTH;
    };
    let widest = |cells: &mut dyn Iterator<Item = usize>| cells.max().unwrap_or(0);
    let names = widest(&mut rows.iter().map(|row| output::width(&row.name)));
    let stars = widest(&mut rows.iter().map(|row| row.stars.to_string().len()));
    // The headings NAME, STARS and OFFICIAL, and two spaces after each column but the last.
    let others = names.max(4) + stars.max(5) + 8 + 3 * 2;
    usize::from(columns)
        .saturating_sub(others)
        .max(MIN_DESCRIPTION_WIDTH)
}

/// The beginning of a text, with dots if that is not all.
fn shortened(text: &str, width: usize) -> String {
    if output::width(text) <= width {
        return text.to_owned();
    }
    let mut start = String::new();
    for character in text.chars() {
        start.push(character);
        if output::width(&start) + 3 > width {
            start.pop();
            break;
        }
    }
    start.trim_end().to_owned() + "..."
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registry_may_stand_in_front() {
        let check = |text: &str, expected: Option<(&str, &str)>| {
            let found = split_host(text).unwrap();
            let found = found.as_ref().map(|(host, term)| (host.as_str(), *term));
            assert_eq!(found, expected, "{text}");
        };
        check("golang", None);
        check("library/golang", None);
        check("quay.io/core os", Some(("quay.io", "core os")));
        check("localhost/x", Some(("localhost", "x")));
        check("h:5000/a/b", Some(("h:5000", "a/b")));
        check("index.docker.io/a", Some(("docker.io", "a")));
        check("docker://docker.io/A", Some(("docker.io", "A")));
        check("quay.io/", Some(("quay.io", "")));
        assert!(split_host("a..b/x").is_err());
        assert_eq!(remote_term("docker.io", "library/go"), "go");
        assert_eq!(remote_term("h:1", "library/go"), "library/go");
    }

    #[test]
    fn filters_are_read() {
        let check = |text: &str, expected: Result<Filter, &str>| match (text.parse(), expected) {
            (Ok::<Filter, _>(found), Ok(expected)) => assert_eq!(found, expected, "{text}"),
            (Err(found), Err(expected)) => assert!(found.contains(expected), "{text}: {found}"),
            (found, _) => panic!("{text}: {found:?}"),
        };
        check("is-official=true", Ok(Filter::Official(true)));
        check("is-automated=0", Ok(Filter::Automated(false)));
        check("stars=3", Ok(Filter::Stars(3)));
        check("stars=many", Err("no number"));
        check("is-official=yes", Err("neither true nor false"));
        check("is-official", Err("is-official=true"));
        check("official=true", Err("is-official=true"));
    }

    #[test]
    fn descriptions_are_cut_by_width() {
        let check =
            |text: &str, width, expected: &str| assert_eq!(shortened(text, width), expected);
        check("short", 5, "short");
        check("a longer text", 10, "a longe...");
        check("a longer text", 11, "a longer...");
        check("a longer text", 5, "a...");
        // Each takes two columns.
        check(
            "\u{4e00}\u{4e00}\u{4e00}\u{4e00}",
            8,
            "\u{4e00}\u{4e00}\u{4e00}\u{4e00}",
        );
        check("\u{4e00}\u{4e00}\u{4e00}\u{4e00}", 7, "\u{4e00}\u{4e00}...");
    }
}
