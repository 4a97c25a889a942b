//! `imgfs manifest`: manifests and multi-platform lists.

mod annotate;
mod create;
mod inspect;
mod platforms;
mod push;
mod rm;

use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::Subcommand;

use super::globals::Globals;
use imgfs_core::source::SourceError;
use imgfs_core::work::Lists;
use imgfs_formats::oci::{ManifestList, Reference};

/// Where lists are, for the help of each command.
const LISTS_HELP: &str = "\
Until they are removed or pushed with --purge, lists are kept in $XDG_DATA_HOME/imgfs/lists
(~/.local/share/imgfs/lists), apart from the cache.";

/// Work with manifests and multi-platform lists.
#[derive(Subcommand)]
#[command(after_help = "\
Examples:
  imgfs manifest inspect golang
  imgfs manifest create host/team/tool:1 host/team/tool:1-amd64 host/team/tool:1-arm64
  imgfs manifest push host/team/tool:1")]
pub(super) enum ManifestCommand {
    Inspect(Box<inspect::InspectArgs>),
    Create(create::CreateArgs),
    Annotate(annotate::AnnotateArgs),
    Push(push::PushArgs),
    Rm(rm::RmArgs),
}

pub(super) fn run(globals: &Globals, command: &ManifestCommand) -> anyhow::Result<()> {
    match command {
        ManifestCommand::Inspect(args) => inspect::inspect(globals, args),
        ManifestCommand::Create(args) => create::create(globals, args),
        ManifestCommand::Annotate(args) => annotate::annotate(args),
        ManifestCommand::Push(args) => push::push(globals, args),
        ManifestCommand::Rm(args) => rm::rm(args),
    }
}

/// The lists of this user. They are work in progress, not a cache.
fn lists() -> anyhow::Result<Lists> {
    let set = |name| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    let data = set("XDG_DATA_HOME").or_else(|| set("HOME").map(|home| home.join(".local/share")));
    let data = data.context("no place to keep lists: set HOME or XDG_DATA_HOME")?;
    Ok(Lists::new(data.join("imgfs/lists")))
}

/// The name of a list: a place in a registry, by tag. A short name is Docker Hub's, as it is to be
/// written to.
fn list_name(text: &str) -> anyhow::Result<Reference> {
    let name: Reference = text.parse()?;
    if name.repository().is_none() {
        return Err(SourceError::NoRegistry {
            reference: name.to_string(),
        }
        .into());
    }
    if name.digest().is_some() {
        bail!("{name}: a list is named by a tag, its digest comes of what is in it");
    }
    Ok(name)
}

fn existing(list: Option<ManifestList>, name: &Reference) -> anyhow::Result<ManifestList> {
    list.with_context(|| {
        format!("{name} not found: put it together with `imgfs manifest create {name} MANIFEST...`")
    })
}
