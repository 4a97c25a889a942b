//! `imgfs manifest annotate`.

use anyhow::Context;
use clap::Args;

use super::{LISTS_HELP, list_name, lists};
use imgfs_formats::oci::PlatformChange;

/// Say another platform of an image in a list than its config does.
#[derive(Args)]
#[command(after_help = format!("\
{LISTS_HELP}

Example:
  imgfs manifest annotate --arch arm --variant v7 host/team/tool:1 host/team/tool:1-arm"))]
pub(crate) struct AnnotateArgs {
    /// The list
    #[arg(value_name = "LIST")]
    list: String,
    /// The image, as it was named when it came into the list, or the digest of its manifest
    #[arg(value_name = "MANIFEST")]
    manifest: String,
    /// Operating system
    #[arg(long)]
    os: Option<String>,
    /// CPU architecture
    #[arg(long)]
    arch: Option<String>,
    /// CPU variant, e.g. v7
    #[arg(long)]
    variant: Option<String>,
    /// Version of the operating system
    #[arg(long, value_name = "VERSION")]
    os_version: Option<String>,
    /// Features of the operating system that are needed, beside those it has
    #[arg(long, value_name = "FEATURE", value_delimiter = ',')]
    os_features: Vec<String>,
}

pub(super) fn annotate(args: &AnnotateArgs) -> anyhow::Result<()> {
    let name = list_name(&args.list)?;
    let change = PlatformChange {
        os: args.os.clone(),
        architecture: args.arch.clone(),
        variant: args.variant.clone(),
        os_version: args.os_version.clone(),
        os_features: args.os_features.clone(),
    };
    lists()?.change(&name, |known| {
        let mut list = super::existing(known, &name)?;
        let names: Vec<String> = (list.members.iter())
            .map(|member| member.reference.to_string())
            .collect();
        let member = list.find_mut(&args.manifest).with_context(|| {
            format!(
                "manifest for image {} does not exist in {name}, which has {}",
                args.manifest,
                names.join(", ")
            )
        })?;
        member
            .annotate(&change)
            .with_context(|| member.reference.to_string())?;
        Ok(list)
    })
}
