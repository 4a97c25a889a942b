//! `imgfs prune`: what has no name any more, or all that nobody uses.

use std::io::{BufRead, Write};

use anyhow::Context;
use clap::Args;

use super::filter::{Filter, Filters};
use super::rm::Gone;
use super::users;
use crate::globals::Globals;
use crate::output;
use imgfs_core::work::Images;

/// Remove images that have no tag, and whatever no image refers to.
#[derive(Args)]
#[command(after_help = "\
Besides images it removes layers, indexes and documents that nothing refers to, and what was \
left unfinished by a process that was killed. What is mounted, or used otherwise, stays.

Filters: until=24h or a date (made before that), label=KEY[=VALUE], label!=KEY[=VALUE], \
reference=PATTERN

Examples:
  imgfs prune
  imgfs prune -af --filter until=720h
  imgfs prune -af --filter label!=keep")]
pub(crate) struct PruneArgs {
    /// Images with tags, too: all that are not in use
    #[arg(short, long)]
    all: bool,
    /// Do not ask
    #[arg(short, long)]
    force: bool,
    /// Only images of which this is so; several must all be so
    #[arg(long, value_name = "KEY=VALUE")]
    filter: Vec<Filter>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn prune(globals: &Globals, args: &PruneArgs) -> anyhow::Result<()> {
    let store = globals.store()?;
    if !args.force && !is_wanted(args)? {
        return Ok(());
    }
    let removal = store.removal()?;
    let images = Images::load(&store)?;
    let filters = Filters::new(&args.filter, &images)?;
    let users = users(&store)?;
    let mut going: Vec<usize> = (images.all())
        .filter(|i| args.all || images.get(*i).tags.is_empty())
        .filter(|i| filters.take(&images, *i))
        .filter(|i| (images.names(*i).iter()).any(|name| filters.take_name(name)))
        .collect();
    while let Some((used, _)) = users.of(&images, &going) {
        going.retain(|i| *i != used);
    }
    let mut gone = Gone::default();
    for tag in images.tags() {
        let named = images.of_tag(tag);
        let is_bare = named.is_empty() && args.all && args.filter.is_empty();
        if is_bare || !named.is_empty() && named.iter().all(|i| going.contains(i)) {
            gone.untag(&images, tag, &going);
        }
    }
    for i in going {
        gone.forget(&images, i);
    }
    let removed = gone.remove(&store, removal, &images, true)?;
    if args.json {
        return output::json(&removed);
    }
    let mut text = removed.lines("untagged", "deleted");
    if !text.is_empty() {
        text = format!("Deleted Images:\n{text}\n");
    }
    let reclaimed = output::size(removed.reclaimed);
    output::bytes(format!("{text}Total reclaimed space: {reclaimed}\n").as_bytes())?;
    removed.say_what_stays(globals.quiet);
    Ok(())
}

/// Asks, as Docker does: a user who is not there to answer does not want it.
fn is_wanted(args: &PruneArgs) -> anyhow::Result<bool> {
    let what = if args.all {
        "all images that are not in use"
    } else {
        "all images without a tag"
    };
    let mut err = std::io::stderr();
    write!(
        err,
        "WARNING! This will remove {what}, and what no image refers to.\nAre you sure you want to continue? [y/N] "
    )
    .and_then(|()| err.flush())
    .context("cannot ask")?;
    let mut answer = String::new();
    let stdin = std::io::stdin();
    let read = stdin
        .lock()
        .read_line(&mut answer)
        .context("cannot read the answer")?;
    if read == 0 {
        output::message("");
        anyhow::bail!("nothing was removed, as nobody answered: -f does not ask");
    }
    let is_yes = matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes");
    if !is_yes {
        output::message("nothing was removed");
    }
    Ok(is_yes)
}
