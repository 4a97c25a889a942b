//! `imgfs ps` and `imgfs status`.

use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::Args;

use super::format::{Field, Format, Listing};
use super::globals::runtime_dir;
use super::output;
use super::time::{age, moment};
use imgfs_core::serve::{MountStatus, running_mounts};
use imgfs_core::store::ProofStep;

/// List what is mounted.
#[derive(Args)]
#[command(after_help = "Examples:\n  imgfs ps\n  imgfs ps --format '{{.Mountpoint}}'")]
pub(super) struct PsArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// table, json or a Go template with the fields PID, Image, Manifest, Since and Mountpoint
    #[arg(
        long,
        value_name = "FORMAT",
        conflicts_with = "json",
        default_value = "table"
    )]
    format: Format,
}

const FIELDS: &[Field] = &[
    Field::number("PID", "PID"),
    Field::text("Image", "IMAGE"),
    Field::text("Manifest", "MANIFEST"),
    Field::text("Since", "SINCE"),
    Field::text("Mountpoint", "MOUNTPOINT"),
];

/// Show what a mount has fetched, what it has cached and how far each layer is proven.
#[derive(Args)]
#[command(after_help = "Example:\n  imgfs status /mnt/go")]
pub(super) struct StatusArgs {
    /// The mountpoint
    dir: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn ps(args: &PsArgs) -> anyhow::Result<()> {
    let mounts = running_mounts(&runtime_dir())?;
    let records = mounts.into_iter().map(|mount| mount.record);
    if args.json {
        return output::json(&records.collect::<Vec<_>>());
    }
    let mut listing = Listing::new(FIELDS);
    for record in records {
        listing.push([
            record.pid.to_string(),
            record.reference,
            record.manifest,
            age(record.since),
            output::printable(record.mountpoint.as_os_str().as_encoded_bytes()),
        ]);
    }
    listing.print(&args.format, &["PID", "Image", "Since", "Mountpoint"])
}

pub(super) fn status(args: &StatusArgs) -> anyhow::Result<()> {
    let dir = args
        .dir
        .canonicalize()
        .with_context(|| format!("cannot look at {}", args.dir.display()))?;
    let Some(mount) = running_mounts(&runtime_dir())?
        .into_iter()
        .find(|mount| mount.record.mountpoint == dir)
    else {
        bail!(
            "no image is mounted on {}: `imgfs ps` lists the mounts",
            args.dir.display()
        );
    };
    let status = MountStatus::ask(&mount)?;
    if args.json {
        return output::json(&status);
    }
    output::line(&format!("image       {}", status.record.reference))?;
    output::line(&format!("manifest    {}", status.record.manifest))?;
    output::line(&format!("platform    {}", status.platform))?;
    if let Some(checked) = status.checked {
        output::line(&format!("checked     {}", moment(checked)))?;
    }
    output::line(&format!(
        "mounted on  {}",
        status.record.mountpoint.display()
    ))?;
    output::line(&format!(
        "process     {}, since {}",
        status.record.pid,
        age(status.record.since)
    ))?;
    output::line(&format!("source      {}", status.source))?;
    output::line(&format!(
        "fetched     {} in {} requests\n",
        output::size(status.bytes_fetched),
        status.requests
    ))?;
    let rows: Vec<_> = (status.layers.iter())
        .map(|layer| {
            vec![
                layer.digest.short(),
                output::size(layer.size),
                output::size(layer.uncompressed),
                percent(layer.cached, layer.uncompressed),
                output::size(layer.fetched),
                layer.index.to_string(),
                layer.trust.name().to_owned(),
                layer.diff_id.name().to_owned(),
            ]
        })
        .collect();
    let heading = [
        "LAYER",
        "SIZE",
        "UNPACKED",
        "CACHED",
        "ON DEMAND",
        "INDEX",
        "TRUST",
        "DIFF_ID",
    ];
    output::table(&heading, &rows, &[1, 2, 3, 4])?;
    for layer in &status.layers {
        match (layer.proof, layer.proof_bytes) {
            (Some(ProofStep::Fetching), Some(here)) => output::line(&format!(
                "{}: being proven, {} of the layer are here",
                layer.digest,
                percent(here, layer.size)
            ))?,
            (Some(ProofStep::Waiting), _) => {
                output::line(&format!("{}: being proven (waiting)", layer.digest))?;
            }
            (Some(ProofStep::Checking), _) => {
                output::line(&format!("{}: being proven (checking)", layer.digest))?;
            }
            _ => {}
        }
        if let Some(problem) = &layer.problem {
            // What the search for indexes says names the layer itself.
            if problem.starts_with("layer ") {
                output::line(problem)?;
            } else {
                output::line(&format!("{}: {problem}", layer.digest))?;
            }
        }
    }
    Ok(())
}

fn percent(part: u64, whole: u64) -> String {
    if part >= whole {
        return "100 %".to_owned();
    }
    format!("{} %", part * 100 / whole.max(1))
}
