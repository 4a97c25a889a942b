//! `imgfs history`: how an image was built.

use clap::Args;
use serde::Serialize;

use super::format::{Field, Format, Listing};
use super::globals::{Globals, ImageOptions, runtime};
use super::{output, time};
use imgfs_core::image::{Image, KnownLayer, known_layers};
use imgfs_formats::oci::BuildStep;

/// Characters of a command that a table shows, as Docker does it.
const COMMAND_WIDTH: usize = 45;

/// Show the steps an image was built in, the last one first.
#[derive(Args)]
#[command(after_help = "\
SIZE is what a step's layer takes as it is distributed, compressed. UNPACKED is what its files \
take, where that is known: where the layer's index is in the cache. Only the manifest and the \
config are fetched.

Examples:
  imgfs history golang
  imgfs history --no-trunc --json golang | jq -r '.[].created_by'")]
#[expect(clippy::struct_excessive_bools, reason = "they are independent flags")]
pub(super) struct HistoryArgs {
    /// The image
    image: String,
    #[command(flatten)]
    options: ImageOptions,
    /// Print all of commands and IDs
    #[arg(long)]
    no_trunc: bool,
    /// Print only image IDs
    #[arg(long, short)]
    quiet: bool,
    /// Print sizes and times for people; with --human=false in bytes, and as the config has them
    #[arg(
        long,
        short = 'H',
        value_name = "BOOL",
        action = clap::ArgAction::Set,
        num_args = 0..=1,
        require_equals = true,
        default_value_t = true,
        default_missing_value = "true"
    )]
    human: bool,
    #[arg(
        long,
        value_name = "FORMAT",
        default_value = "table",
        conflicts_with_all = ["json", "quiet"],
        help = "table, json or a Go template with the fields ID, CreatedSince, CreatedAt, CreatedBy, Size, Unpacked and Comment"
    )]
    format: Format,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Docker's fields, and UNPACKED.
const FIELDS: &[Field] = &[
    Field::text("ID", "IMAGE"),
    Field::text("CreatedSince", "CREATED"),
    Field::text("CreatedAt", "CREATED AT"),
    Field::text("CreatedBy", "CREATED BY"),
    Field::number("Size", "SIZE"),
    Field::number("Unpacked", "UNPACKED"),
    Field::text("Comment", "COMMENT"),
];

/// One step. Sizes in bytes.
#[derive(Serialize)]
struct Step {
    /// The image's ID for the last step: those before it belong to no image that is known.
    id: Option<String>,
    created: Option<String>,
    created_by: String,
    author: String,
    comment: String,
    empty_layer: bool,
    /// Position of its layer, the base is 0.
    layer: Option<usize>,
    digest: Option<String>,
    size: Option<u64>,
    unpacked: Option<u64>,
}

pub(super) fn history(globals: &Globals, args: &HistoryArgs) -> anyhow::Result<()> {
    let store = globals.store()?;
    let request = args.options.request(&args.image)?;
    let image = runtime()?.block_on(Image::resolve(&store, &request))?;
    let quiet = globals.quiet || args.quiet;
    time::say_freshness(&image.freshness, quiet);
    let layers = known_layers(&store, &image)?;
    let mut steps = steps(&image, &layers);
    if !quiet
        && steps
            .iter()
            .any(|step| !step.empty_layer && step.layer.is_none())
    {
        output::message(
            "the history does not tell which step made which layer, so their sizes are not known",
        );
    }
    if let Some(last) = steps.last_mut() {
        last.id = Some(image.resolved.manifest.config.digest.to_string());
    }
    steps.reverse();
    if args.json {
        return output::json(&steps);
    }
    if args.quiet {
        return steps
            .iter()
            .try_for_each(|step| output::line(&id_text(step, args)));
    }
    let mut listing = Listing::new(FIELDS);
    for step in &steps {
        listing.push(row(step, args));
    }
    let created = if args.human {
        "CreatedSince"
    } else {
        "CreatedAt"
    };
    let columns = ["ID", created, "CreatedBy", "Size", "Unpacked", "Comment"];
    listing.print(&args.format, &columns)
}

/// The steps, the first one first. An image without a history has a step without a name for each
/// layer.
fn steps(image: &Image, layers: &[KnownLayer]) -> Vec<Step> {
    let config = &image.resolved.config;
    let told = config.steps();
    let is_matched = layers.iter().all(|layer| layer.step.is_some());
    let mut numbered = layers.iter().enumerate();
    if told.is_empty() {
        let nameless = BuildStep::default();
        return numbered.map(|layer| step(&nameless, Some(layer))).collect();
    }
    told.iter()
        .map(|told| {
            let has_layer = is_matched && !told.empty_layer;
            let layer = has_layer.then(|| numbered.next()).flatten();
            step(told, layer)
        })
        .collect()
}

fn step(told: &BuildStep, layer: Option<(usize, &KnownLayer)>) -> Step {
    let nothing = told.empty_layer.then_some(0);
    let content = layer.and_then(|(_, layer)| layer.content);
    Step {
        id: None,
        created: told.created.clone(),
        created_by: told.created_by.clone(),
        author: told.author.clone(),
        comment: told.comment.clone(),
        empty_layer: told.empty_layer,
        layer: layer.map(|(position, _)| position),
        digest: layer.map(|(_, layer)| layer.blob.digest.to_string()),
        size: layer.map(|(_, layer)| layer.blob.size).or(nothing),
        unpacked: content.map(|content| content.files).or(nothing),
    }
}

fn row(step: &Step, args: &HistoryArgs) -> Vec<String> {
    let size = |bytes: Option<u64>| match bytes {
        None => "-".to_owned(),
        Some(bytes) if args.human => output::size(bytes),
        Some(bytes) => bytes.to_string(),
    };
    let created = step.created.as_deref();
    let since = created.and_then(time::seconds_of).map(time::ago);
    let at = created.map(|created| output::printable(created.as_bytes()));
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    vec![
        id_text(step, args),
        or_dash(since),
        or_dash(at),
        command_text(&step.created_by, args.no_trunc),
        size(step.size),
        size(step.unpacked),
        output::printable(step.comment.as_bytes()),
    ]
}

fn id_text(step: &Step, args: &HistoryArgs) -> String {
    let Some(id) = &step.id else {
        return "<missing>".to_owned();
    };
    if args.no_trunc {
        return id.clone();
    }
    let hex = id.split_once(':').map_or(id.as_str(), |(_, hex)| hex);
    hex.chars().take(12).collect()
}

/// A command of a build in one line, shortened for tables unless all of it is wanted.
pub(super) fn command_text(command: &str, whole: bool) -> String {
    let words: Vec<_> = command.split_whitespace().collect();
    let text = output::printable(words.join(" ").as_bytes());
    if whole || text.chars().count() <= COMMAND_WIDTH {
        return text;
    }
    let start: String = text.chars().take(COMMAND_WIDTH - 3).collect();
    start + "..."
}
