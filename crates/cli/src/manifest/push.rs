//! `imgfs manifest push`.

use clap::{Args, ValueEnum};

use super::{LISTS_HELP, list_name, lists};
use crate::globals::{Globals, RegistryOptions, runtime};
use crate::password::UserOptions;
use crate::{output, progress};
use imgfs_core::work::{ListPush, PushedList};
use imgfs_formats::oci::{ListFormat, ManifestList, Reference};

/// Push a list, and what it lists, to the registry.
#[derive(Args)]
#[command(after_help = format!("\
Within a registry no layer moves: images that are in the list's repository are left alone, blobs \
of other repositories are mounted. What is in other registries is passed on from there, and \
checked on the way. The digest of the list is printed. Mirrors are not written to.

{LISTS_HELP}

Example:
  imgfs manifest push --purge host/team/tool:1"))]
pub(crate) struct PushArgs {
    /// The list
    #[arg(value_name = "LIST")]
    list: String,
    /// Where to, if not to where its name says
    #[arg(value_name = "DESTINATION")]
    destination: Option<String>,
    /// Remove the list that is kept here once it is pushed
    #[arg(long, short)]
    purge: bool,
    /// The kind of list [default: docker if all of its images are in Docker's format, else oci]
    #[arg(long)]
    format: Option<Format>,
    /// Print what was pushed as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    user: UserOptions,
    #[command(flatten)]
    registry: RegistryOptions,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Format {
    /// OCI image index
    Oci,
    /// Docker manifest list
    #[value(alias = "v2s2")]
    Docker,
}

pub(super) fn push(globals: &Globals, args: &PushArgs) -> anyhow::Result<()> {
    let name = list_name(&args.list)?;
    let target = match &args.destination {
        Some(text) => list_name(text)?,
        None => name.clone(),
    };
    let lists = lists()?;
    let list = super::existing(lists.get(&name)?, &name)?;
    let format = format(globals, args, &name, &list);
    let options = args.registry.options_as(&args.user, &target)?;
    let pushed = runtime()?.block_on(async {
        let push = ListPush::prepare(&list, &target, format, &options).await?;
        let _shown = progress::show_copies(&push.copies(), globals.quiet);
        push.run().await
    })?;
    if !globals.quiet {
        say(&pushed, &target);
    }
    if args.purge && !lists.remove_unchanged(&name, &list)? && !globals.quiet {
        output::message(&format!(
            "{name} was changed while it was pushed: it stays, push it again"
        ));
    }
    if args.json {
        return output::json(&pushed);
    }
    output::line(&pushed.digest)
}

fn format(globals: &Globals, args: &PushArgs, name: &Reference, list: &ManifestList) -> ListFormat {
    match args.format {
        Some(Format::Oci) => ListFormat::Oci,
        Some(Format::Docker) => ListFormat::Docker,
        None => {
            if list.is_mixed() && !globals.quiet {
                output::message(&format!(
                    "{name} has images in Docker's format and in OCI's: it becomes an OCI index, which may have both"
                ));
            }
            list.usual_format()
        }
    }
}

fn say(pushed: &PushedList, target: &Reference) {
    let place = target
        .repository()
        .map(|(host, repository)| format!("{host}/{repository}"))
        .unwrap_or_default();
    for member in &pushed.members {
        let blobs = &member.blobs;
        let how = if member.was_there {
            "was there".to_owned()
        } else {
            let counted = [
                (blobs.were_there, "there".to_owned()),
                (blobs.mounted, "mounted".to_owned()),
                (
                    blobs.copied,
                    format!("copied, {}", output::size(blobs.copied_bytes)),
                ),
            ];
            let parts = counted.iter().filter(|(count, _)| *count > 0);
            let parts: Vec<String> = parts.map(|(count, how)| format!("{count} {how}")).collect();
            format!("blobs: {}", parts.join(", "))
        };
        output::message(&format!(
            "Pushed ref {place}@{} for {}: {how}",
            member.digest, member.platform
        ));
    }
}
