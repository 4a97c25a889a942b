//! `imgfs cache`: how much of the disk it takes, making room, checking it.

mod df;
mod evict;
mod verify;

use std::process::ExitCode;

use anyhow::Context;
use clap::Subcommand;

use super::globals::{Globals, RegistryOptions};
use imgfs_core::source::route::candidates;
use imgfs_formats::oci::Reference;

/// Look after the cache: what it takes of the disk, making room, checking it.
#[derive(Subcommand)]
#[command(after_help = "\
Every command keeps what it fetched, so that nothing is fetched twice. --cache-limit (or \
IMGFS_CACHE_LIMIT) says how much of the disk layers may take; whoever adds to the cache drops what \
was not used for longest when it is full. What is mounted stays. Indexes, manifests and configs \
are small and do not count.

Examples:
  imgfs cache df                                   how much of the disk it takes
  imgfs --cache-limit 5GiB cache evict             bring the layers below 5 GiB
  imgfs cache verify                               check every byte, and repair")]
pub(super) enum CacheCommand {
    Df(df::DfArgs),
    Evict(evict::EvictArgs),
    Verify(verify::VerifyArgs),
}

pub(super) fn run(globals: &Globals, command: &CacheCommand) -> anyhow::Result<ExitCode> {
    match command {
        CacheCommand::Df(args) => df::df(globals, args)?,
        CacheCommand::Evict(args) => evict::evict(globals, args)?,
        CacheCommand::Verify(args) => return verify::verify(globals, args),
    }
    Ok(ExitCode::SUCCESS)
}

/// What an image's name may mean.
fn meanings(image: &str, registry: &RegistryOptions) -> anyhow::Result<Vec<Reference>> {
    let candidates = candidates(image, &registry.options()?.configuration);
    let candidates = candidates.with_context(|| format!("bad image {image:?}"))?;
    Ok(candidates.references)
}
