//! `imgfs whence`: which layer brought a path, and what the others did to it.

use std::collections::HashMap;

use clap::Args;
use serde::Serialize;

use super::digests::digests_of;
use super::globals::{Globals, ImageOptions, runtime};
use super::history::command_text;
use super::look::{kind_name, peek};
use super::{output, progress, time};
use imgfs_core::image::Peek;
use imgfs_formats::layer::Extent;
use imgfs_formats::oci::{BuildStep, Descriptor};
use imgfs_formats::tree::{Answer, Content, Deed, DeedKind, PartialTree, Removal, provenance};

/// Show which layer brought a path, by which command, and what it replaced.
#[derive(Args)]
#[command(after_help = "\
The last word comes first: each line is a layer that has the path or takes it away. Layers are \
opened from the top down to the one that the present version is from, and those below it whose \
index is in the cache; --all opens all of them. A symbolic link is told of itself; those on the \
way to it are followed.

Examples:
  imgfs whence golang /usr/local/go/VERSION
  imgfs whence --all --json debian /etc/passwd | jq '.layers[0].created_by'")]
pub(super) struct WhenceArgs {
    /// The image
    image: String,
    /// A path in it
    path: std::ffi::OsString,
    #[command(flatten)]
    options: ImageOptions,
    /// Open all layers, for all that was ever done to the path
    #[arg(long, short)]
    all: bool,
    /// Print all of commands
    #[arg(long)]
    no_trunc: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// The whole answer.
#[derive(Serialize)]
struct Whence {
    reference: String,
    path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    path_base64: Option<String>,
    /// Whether all layers were looked at.
    complete: bool,
    /// Number of layers, from the base on, that were not looked at.
    not_looked_at: usize,
    /// The topmost first.
    layers: Vec<LayerDeed>,
}

/// What one layer did. Sizes in bytes; `mtime` in whole seconds since 1970, rounded down, and
/// nanoseconds beyond that.
#[derive(Serialize)]
struct LayerDeed {
    /// The base is 0.
    layer: usize,
    digest: String,
    /// `added`, `set`, `changed`, `stored anew`, `repeated`, `hard link` or `removed`.
    what: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    changed: Vec<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target_base64: Option<String>,
    /// How it was removed: `whiteout`, `opaque` or `replaced`.
    #[serde(skip_serializing_if = "Option::is_none")]
    how: Option<&'static str>,
    /// The path that this was done to: itself, or a directory above it.
    #[serde(skip_serializing_if = "Option::is_none")]
    at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    at_base64: Option<String>,
    /// The bytes of the target, or of that path.
    #[serde(skip)]
    other: Vec<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kind: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mode: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mtime: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mtime_nanoseconds: Option<u32>,
    created: Option<String>,
    created_by: Option<String>,
}

pub(super) fn whence(globals: &Globals, args: &WhenceArgs) -> anyhow::Result<()> {
    let path = std::os::unix::ffi::OsStrExt::as_bytes(args.path.as_os_str());
    let peek = runtime()?.block_on(open(globals, args, path))?;
    let real_path = peek.tree().real_path(path);
    let below = peek.layers().next().map_or(0, |(position, _)| position);
    let tocs: Vec<_> = peek.layers().map(|(_, layer)| &layer.index.toc).collect();
    let deeds = {
        let mut digests = HashMap::new();
        let mut same_content = |old: Content<'_>, new: Content<'_>| {
            let (old_layer, old_runs) = old.stored_runs()?;
            let (new_layer, new_runs) = new.stored_runs()?;
            let mut digest = |layer: usize, start: u64| {
                let known = digests.entry(layer).or_insert_with(|| {
                    let open = peek.layers().nth(layer);
                    open.map(|(_, open)| digests_of(peek.store(), open.reader.slot()))
                        .unwrap_or_default()
                });
                known.get(&start).copied()
            };
            let start = |runs: &[Extent]| runs.first().map(|run| run.layer_offset);
            let old = digest(old_layer, start(&old_runs)?)?;
            let new = digest(new_layer, start(&new_runs)?)?;
            // The digests are of the stored bytes alone, so holes in other places are another
            // matter.
            let places = |runs: &[Extent]| -> Vec<_> {
                (runs.iter())
                    .map(|run| (run.file_offset, run.length))
                    .collect()
            };
            (places(&old_runs) == places(&new_runs)).then_some(old == new)
        };
        provenance(&tocs, below == 0, &real_path, &mut same_content)?
    };
    let shown = output::printable_name(&real_path);
    if deeds.is_empty() {
        anyhow::bail!("{shown}: no layer of {} has it", peek.image.reference);
    }
    let blobs = &peek.image.resolved.manifest.layers;
    let steps = peek.image.resolved.config.steps_of_layers();
    let layers = (deeds.iter().rev())
        .filter_map(|deed| {
            let position = below + deed.layer;
            let step = steps.get(position).and_then(Option::as_ref);
            Some(layer_deed(deed, position, blobs.get(position)?, step))
        })
        .collect();
    let whence = Whence {
        reference: peek.image.reference.to_string(),
        path: output::json_text(&real_path),
        path_base64: output::json_base64(&real_path),
        complete: below == 0,
        not_looked_at: below,
        layers,
    };
    if args.json {
        return output::json(&whence);
    }
    print(&whence, &real_path, args)?;
    if below > 0 && !globals.quiet {
        let layers = match below {
            1 => "the base layer was".to_owned(),
            count => format!("the lowest {count} layers were"),
        };
        output::message(&format!(
            "{layers} not looked at, so what there was before is not known: --all opens all layers"
        ));
    }
    Ok(())
}

/// Opens the layers that the answer takes.
async fn open(globals: &Globals, args: &WhenceArgs, path: &[u8]) -> anyhow::Result<Peek> {
    let mut peek = peek(globals, &args.options, &args.image).await?;
    let mut shown = Vec::new();
    let announce = |download| shown.push(progress::show(&[download], globals.quiet));
    let is_known = |tree: &PartialTree| match tree.resolve(path, false) {
        Answer::Found(ino) => matches!(tree.attributes(ino), Answer::Found(_)),
        Answer::Absent(_) => true,
        Answer::NeedsLowerLayer => false,
    };
    if args.all {
        peek.open_all(announce).await?;
    } else {
        peek.open_until(is_known, announce).await?;
    }
    Ok(peek)
}

fn layer_deed(
    deed: &Deed,
    position: usize,
    blob: &Descriptor,
    step: Option<&BuildStep>,
) -> LayerDeed {
    let (mut changed, mut target, mut how, mut at) = (Vec::new(), None, None, None);
    let what = match &deed.kind {
        DeedKind::Added => "added",
        DeedKind::Set => "set",
        DeedKind::Changed(aspects) => {
            changed = aspects.names().collect();
            "changed"
        }
        DeedKind::StoredAnew(aspects) => {
            changed = aspects.names().collect();
            "stored anew"
        }
        DeedKind::Repeated => "repeated",
        DeedKind::HardLink { target: name } => {
            target = Some(name);
            "hard link"
        }
        DeedKind::Removed(removal) => {
            let (name, path) = match removal {
                Removal::Whiteout(path) => ("whiteout", path),
                Removal::Opaque(path) => ("opaque", path),
                Removal::Replaced(path) => ("replaced", path),
            };
            (how, at) = (Some(name), Some(path));
            "removed"
        }
    };
    LayerDeed {
        layer: position,
        digest: blob.digest.to_string(),
        what,
        changed,
        target: target.map(|path| output::json_text(path)),
        target_base64: target.and_then(|path| output::json_base64(path)),
        how,
        at: at.map(|path| output::json_text(path)),
        at_base64: at.and_then(|path| output::json_base64(path)),
        other: target.or(at).cloned().unwrap_or_default(),
        kind: deed.after.map(|after| kind_name(after.kind)),
        mode: deed.after.map(|after| format!("{:04o}", after.permissions)),
        size: deed.after.map(|after| after.size),
        mtime: deed.after.map(|after| after.mtime.seconds),
        mtime_nanoseconds: deed.after.map(|after| after.mtime.nanoseconds),
        created: step.and_then(|step| step.created.clone()),
        created_by: step.map(|step| step.created_by.clone()),
    }
}

fn print(whence: &Whence, path: &[u8], args: &WhenceArgs) -> anyhow::Result<()> {
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let rows: Vec<_> = (whence.layers.iter())
        .map(|deed| {
            let hex = deed.digest.split_once(':').map_or("", |(_, hex)| hex);
            let command = deed.created_by.as_deref();
            vec![
                deed.layer.to_string(),
                hex.chars().take(12).collect(),
                what_text(deed, path),
                or_dash(deed.size.map(output::size)),
                or_dash(deed.mtime.map(time::utc)),
                or_dash(command.map(|command| command_text(command, args.no_trunc))),
            ]
        })
        .collect();
    let heading = [
        "LAYER",
        "DIGEST",
        "WHAT",
        "SIZE",
        "MODIFIED (UTC)",
        "COMMAND",
    ];
    output::line(&output::printable_name(path))?;
    output::table(&heading, &rows, &[0, 3])
}

fn what_text(deed: &LayerDeed, path: &[u8]) -> String {
    let other = output::printable_name(&deed.other);
    match (deed.what, deed.how) {
        ("set", _) => "added or replaced".to_owned(),
        ("changed", _) => format!("changed: {}", deed.changed.join(", ")),
        ("stored anew", _) if !deed.changed.is_empty() => {
            format!("stored anew, changed: {}", deed.changed.join(", "))
        }
        ("repeated", _) => "the same again".to_owned(),
        ("hard link", _) => format!("hard link to {other}"),
        (_, Some("whiteout")) if deed.other == path => "removed".to_owned(),
        (_, Some("whiteout")) => format!("removed with {other}"),
        (_, Some("opaque")) => format!("removed: {other} begins anew"),
        (_, Some(_)) => format!("removed: {other} is no directory any more"),
        (what, None) => what.to_owned(),
    }
}
