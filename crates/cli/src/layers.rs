//! `imgfs layers`: what an image's layers are, as far as that costs no download.

use clap::Args;
use serde::Serialize;

use super::format::{Field, Format, Listing};
use super::globals::{Globals, ImageOptions, runtime};
use super::history::command_text;
use super::{output, time};
use imgfs_core::image::{Image, KnownLayer, known_layers};
use imgfs_core::store::IndexKind;

/// List the layers of an image, the base (0) first.
#[derive(Args)]
#[command(after_help = "\
SIZE is a layer's size as it is distributed. INDEX is what its files can be reached by without \
fetching all of it: cache (an index that was made here), eStargz or another format whose index \
comes with the layer, or none (it is fetched once, which makes one). UNPACKED, the size of its \
files, and ENTRIES are known where an index is in the cache. Nothing but the manifest and the \
config is fetched.

Examples:
  imgfs layers golang
  imgfs layers --json golang | jq -r '.[].diff_id'")]
pub(super) struct LayersArgs {
    /// The image
    image: String,
    #[command(flatten)]
    options: ImageOptions,
    /// Print all of digests and commands
    #[arg(long)]
    no_trunc: bool,
    #[arg(
        help = "table, json or a Go template with the fields Layer, Digest, DiffID, Size, Unpacked, Entries, Index, Trust and Command",
        long,
        value_name = "FORMAT",
        default_value = "table",
        conflicts_with = "json"
    )]
    format: Format,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

const FIELDS: &[Field] = &[
    Field::number("Layer", "LAYER"),
    Field::text("Digest", "DIGEST"),
    Field::text("DiffID", "DIFF ID"),
    Field::number("Size", "SIZE"),
    Field::number("Unpacked", "UNPACKED"),
    Field::number("Entries", "ENTRIES"),
    Field::text("Index", "INDEX"),
    Field::text("Trust", "TRUST"),
    Field::text("Command", "COMMAND"),
];

/// One layer. Sizes in bytes.
#[derive(Serialize)]
pub(super) struct LayerInfo {
    /// The base is 0.
    pub(super) layer: usize,
    pub(super) digest: String,
    pub(super) diff_id: String,
    media_type: String,
    pub(super) size: u64,
    unpacked: Option<u64>,
    entries: Option<usize>,
    /// Whether an index that was made here is in the cache.
    indexed: bool,
    pub(super) index: Option<String>,
    trust: Option<&'static str>,
    created: Option<String>,
    created_by: Option<String>,
}

pub(super) fn layers(globals: &Globals, args: &LayersArgs) -> anyhow::Result<()> {
    let store = globals.store()?;
    let request = args.options.request(&args.image)?;
    let image = runtime()?.block_on(Image::resolve(&store, &request))?;
    time::say_freshness(&image.freshness, globals.quiet);
    let infos = infos(&known_layers(&store, &image)?);
    if args.json {
        return output::json(&infos);
    }
    print(&infos, args)
}

/// What there is to say of layers.
pub(super) fn infos(layers: &[KnownLayer]) -> Vec<LayerInfo> {
    let numbered = layers.iter().enumerate();
    let infos = numbered.map(|(position, layer)| LayerInfo {
        layer: position,
        digest: layer.blob.digest.to_string(),
        diff_id: layer.diff_id.to_string(),
        media_type: layer.blob.media_type.clone(),
        size: layer.blob.size,
        unpacked: layer.content.map(|content| content.files),
        entries: layer.content.map(|content| content.entries),
        indexed: (layer.index.as_ref()).is_some_and(|index| index.source == IndexKind::Cache),
        index: layer.index.as_ref().map(|index| index.source.to_string()),
        trust: layer.index.as_ref().map(|index| index.trust.name()),
        created: layer.step.as_ref().and_then(|step| step.created.clone()),
        created_by: layer.step.as_ref().map(|step| step.created_by.clone()),
    });
    infos.collect()
}

fn print(infos: &[LayerInfo], args: &LayersArgs) -> anyhow::Result<()> {
    let digest = |digest: &str| {
        if args.no_trunc {
            return digest.to_owned();
        }
        let hex = digest.split_once(':').map_or(digest, |(_, hex)| hex);
        hex.chars().take(12).collect::<String>()
    };
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let command = |text: &str| command_text(text, args.no_trunc);
    let mut listing = Listing::new(FIELDS);
    for info in infos {
        listing.push([
            info.layer.to_string(),
            digest(&info.digest),
            digest(&info.diff_id),
            output::size(info.size),
            or_dash(info.unpacked.map(output::size)),
            or_dash(info.entries.map(|entries| entries.to_string())),
            info.index.clone().unwrap_or_else(|| "none".to_owned()),
            or_dash(info.trust.map(str::to_owned)),
            or_dash(info.created_by.as_deref().map(command)),
        ]);
    }
    let columns = [
        "Layer", "Digest", "Size", "Unpacked", "Entries", "Index", "Trust", "Command",
    ];
    listing.print(&args.format, &columns)
}
