//! `imgfs manifest create`.

use anyhow::bail;
use clap::Args;

use super::{LISTS_HELP, list_name, lists};
use crate::globals::{Globals, RegistryOptions, runtime};
use crate::output;
use crate::password::UserOptions;
use imgfs_core::source::route::candidates;
use imgfs_core::work::member_of;

/// Put a multi-platform list together from images that are in registries.
#[derive(Args)]
#[command(after_help = format!("\
Each image's platform is what its config says; `imgfs manifest annotate` says another. Of images \
in Docker's format the list becomes a Docker manifest list, else an OCI index.

{LISTS_HELP}

Example:
  imgfs manifest create host/team/tool:1 host/team/tool:1-amd64 host/team/tool:1-arm64
  imgfs manifest push --purge host/team/tool:1"))]
pub(crate) struct CreateArgs {
    /// The list: where it is to be pushed
    #[arg(value_name = "LIST")]
    list: String,
    /// Its images, each of one platform
    #[arg(value_name = "MANIFEST", required = true)]
    manifests: Vec<String>,
    /// Add to the list if there is one already
    #[arg(long, short)]
    amend: bool,
    #[command(flatten)]
    user: UserOptions,
    #[command(flatten)]
    registry: RegistryOptions,
}

pub(super) fn create(globals: &Globals, args: &CreateArgs) -> anyhow::Result<()> {
    let name = list_name(&args.list)?;
    let lists = lists()?;
    let refuse = || {
        bail!(
            "refusing to amend an existing manifest list with no --amend flag: {name} is there (start anew with \
             `imgfs manifest rm {name}`)"
        )
    };
    // Also before anybody is asked for anything.
    if !args.amend && lists.get(&name)?.is_some() {
        return refuse();
    }
    let options = args.registry.options_as(&args.user, &name)?;
    let members = runtime()?.block_on(async {
        let mut members = Vec::new();
        for manifest in &args.manifests {
            let names = candidates(manifest, &options.configuration)?.references;
            members.push(member_of(&names, &options).await?);
        }
        anyhow::Ok(members)
    })?;
    lists.change(&name, |known| {
        if known.is_some() && !args.amend {
            refuse()?;
        }
        let mut list = known.unwrap_or_default();
        for member in members {
            list.add(member);
        }
        anyhow::Ok(list)
    })?;
    if !globals.quiet {
        output::message(&format!("Created manifest list {name}"));
    }
    Ok(())
}
