//! `imgfs manifest`: manifests and multi-platform lists.

mod inspect;

use clap::Subcommand;

use super::globals::Globals;

/// Work with manifests and multi-platform lists.
#[derive(Subcommand)]
pub(super) enum ManifestCommand {
    Inspect(inspect::InspectArgs),
}

pub(super) fn run(globals: &Globals, command: &ManifestCommand) -> anyhow::Result<()> {
    match command {
        ManifestCommand::Inspect(args) => inspect::inspect(globals, args),
    }
}
