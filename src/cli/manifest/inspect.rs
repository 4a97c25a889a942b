//! `imgfs manifest inspect`.

use std::sync::Arc;

use clap::Args;
use serde::Serialize;

use crate::cli::globals::{Globals, ImageOptions, runtime};
use crate::cli::{output, time};
use crate::mount::{Freshness, Image, Request};
use crate::oci::{Document, MediaType};
use crate::store::Store;

/// Print the manifest or list that a name points to, as the registry has it.
#[derive(Args)]
#[command(after_help = "\
Examples:
  imgfs manifest inspect golang
  imgfs manifest inspect -v golang
  imgfs manifest inspect --json golang | jq -r '.[].digest'")]
pub(in crate::cli) struct InspectArgs {
    /// The image
    image: String,
    #[command(flatten)]
    options: ImageOptions,
    /// A table of what the list says of its entries instead of the raw document
    #[arg(long = "table", short = 't')]
    table: bool,
    /// A table of the platforms with what their manifests say, which are fetched, too
    #[arg(long, short, action = clap::ArgAction::Count)]
    verbose: u8,
    /// The same as JSON
    #[arg(long, conflicts_with = "table")]
    json: bool,
}

/// A manifest. Sizes in bytes.
#[derive(Serialize)]
struct ManifestInfo {
    platform: Option<String>,
    digest: String,
    media_type: String,
    size: u64,
    /// Digest of the config: the image's ID.
    config: String,
    /// Number of layers.
    layers: usize,
    /// Size of all layers as they are distributed.
    layer_bytes: u64,
}

pub(super) fn inspect(globals: &Globals, args: &InspectArgs) -> anyhow::Result<()> {
    let store = globals.store()?;
    let request = args.options.request(&args.image)?;
    if args.json || args.verbose > 0 {
        let (infos, freshness) = runtime()?.block_on(manifests(&store, &request))?;
        time::say_freshness(&freshness, globals.quiet);
        return if args.json {
            output::json(&infos)
        } else {
            print(&infos)
        };
    }
    let (root, freshness) = runtime()?.block_on(Image::root(&store, &request))?;
    time::say_freshness(&freshness, globals.quiet);
    if !args.table {
        let newline: &[u8] = if root.body.ends_with(b"\n") {
            b""
        } else {
            b"\n"
        };
        return output::bytes(&[&root.body, newline].concat());
    }
    let index = match Document::parse(&root.body, None)? {
        Document::Index(index) => index,
        Document::Manifest(_) => {
            return output::line("a single manifest, no list of platforms");
        }
    };
    let rows: Vec<_> = (index.manifests.iter())
        .map(|entry| {
            let platform = entry
                .platform
                .as_ref()
                .map_or_else(|| "-".to_owned(), ToString::to_string);
            let kind = if entry.kind() == MediaType::ImageIndex {
                "list"
            } else {
                "manifest"
            };
            vec![
                platform,
                kind.to_owned(),
                entry.digest.to_string(),
                output::size(entry.size),
            ]
        })
        .collect();
    output::table(&["PLATFORM", "KIND", "DIGEST", "SIZE"], &rows, &[3])
}

/// All manifests that the name leads to.
async fn manifests(
    store: &Arc<Store>,
    request: &Request,
) -> anyhow::Result<(Vec<ManifestInfo>, Freshness)> {
    let (listed, freshness) = Image::manifests(store, request).await?;
    let mut infos: Vec<_> = listed
        .into_iter()
        .map(|(entry, manifest)| ManifestInfo {
            platform: entry.platform.as_ref().map(ToString::to_string),
            digest: entry.digest.to_string(),
            media_type: entry.media_type,
            size: entry.size,
            config: manifest.config.digest.to_string(),
            layers: manifest.layers.len(),
            layer_bytes: (manifest.layers.iter())
                .fold(0, |sum, layer| sum.saturating_add(layer.size)),
        })
        .collect();
    if let [info] = &mut infos[..]
        && info.platform.is_none()
    {
        // Where no list says it the config does.
        let image = Image::resolve(store, request).await?;
        info.platform = Some(image.resolved.platform().to_string());
    }
    Ok((infos, freshness))
}

fn print(infos: &[ManifestInfo]) -> anyhow::Result<()> {
    let rows: Vec<_> = infos
        .iter()
        .map(|info| {
            vec![
                info.platform.clone().unwrap_or_else(|| "-".to_owned()),
                info.digest.clone(),
                info.config.clone(),
                info.layers.to_string(),
                output::size(info.layer_bytes),
            ]
        })
        .collect();
    let heading = ["PLATFORM", "DIGEST", "CONFIG", "LAYERS", "SIZE"];
    output::table(&heading, &rows, &[3, 4])
}
