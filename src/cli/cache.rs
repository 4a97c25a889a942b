//! `imgfs cache`.

use clap::{Args, Subcommand};

use super::globals::Globals;
use super::output;

/// Manage the cache.
#[derive(Subcommand)]
pub(super) enum CacheCommand {
    Evict(EvictArgs),
}

/// Drop layer bytes from the cache; mounts in use keep theirs.
#[derive(Args)]
#[command(after_help = "\
Indexes and manifests stay, so images still mount at once and fetch what is read.

Examples:
  imgfs cache evict --data                         drop all layer bytes
  imgfs --cache-limit 5GiB cache evict             bring the cache below 5 GiB, least recently used first")]
pub(super) struct EvictArgs {
    /// Drop all layer bytes, not only what exceeds the limit
    #[arg(long)]
    data: bool,
}

pub(super) fn run(globals: &Globals, command: &CacheCommand) -> anyhow::Result<()> {
    let CacheCommand::Evict(args) = command;
    let store = globals.store()?;
    let evicted = if args.data {
        store.evict_all()?
    } else {
        store.enforce_limit()?
    };
    if !globals.quiet {
        output::message(&format!(
            "freed {}, from {} layers; {} in use keep theirs",
            output::size(evicted.bytes),
            evicted.layers,
            evicted.in_use
        ));
    }
    Ok(())
}
