//! `imgfs inspect`.

use clap::Args;
use serde::Serialize;

use super::globals::{Globals, ImageOptions, runtime};
use super::{output, time};
use crate::mount::Image;

/// Show what an image is made of: digests, platform, layers, config.
#[derive(Args)]
#[command(
    after_help = "Examples:\n  imgfs inspect golang\n  imgfs inspect --json golang | jq .config.Env"
)]
pub(super) struct InspectArgs {
    /// The image
    image: String,
    #[command(flatten)]
    options: ImageOptions,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// The whole of an image. Sizes in bytes.
#[derive(Serialize)]
struct Inspection<'a> {
    reference: String,
    /// What the reference points to: a list or a manifest.
    digest: String,
    /// The manifest for the platform.
    manifest: String,
    /// Docker's image ID: the config's digest.
    id: String,
    platform: String,
    created: Option<&'a str>,
    layers: Vec<LayerInspection>,
    config: &'a serde_json::Value,
}

#[derive(Serialize)]
struct LayerInspection {
    digest: String,
    diff_id: String,
    media_type: String,
    size: u64,
    indexed: bool,
}

pub(super) fn inspect(globals: &Globals, args: &InspectArgs) -> anyhow::Result<()> {
    let store = globals.store()?;
    let request = args.options.request(&args.image)?;
    let image = runtime()?.block_on(Image::resolve(&store, &request))?;
    time::say_freshness(&image.freshness, globals.quiet);
    let resolved = &image.resolved;
    let digest = |position: Option<&crate::source::VerifiedDocument>| {
        position
            .map(|document| document.descriptor.digest.to_string())
            .unwrap_or_default()
    };
    let layers = (resolved
        .manifest
        .layers
        .iter()
        .zip(&resolved.config.rootfs.diff_ids))
    .map(|(blob, diff_id)| LayerInspection {
        digest: blob.digest.to_string(),
        diff_id: diff_id.to_string(),
        media_type: blob.media_type.clone(),
        size: blob.size,
        indexed: store.has_index(&blob.digest),
    })
    .collect();
    let inspection = Inspection {
        reference: image.reference.to_string(),
        digest: digest(resolved.chain.first()),
        manifest: digest(resolved.chain.last()),
        id: resolved.manifest.config.digest.to_string(),
        platform: resolved.platform().to_string(),
        created: resolved.config.created.as_deref(),
        layers,
        config: &resolved.config.config,
    };
    if args.json {
        return output::json(&inspection);
    }
    output::line(&format!("image     {}", inspection.reference))?;
    output::line(&format!("digest    {}", inspection.digest))?;
    output::line(&format!("manifest  {}", inspection.manifest))?;
    output::line(&format!("id        {}", inspection.id))?;
    output::line(&format!("platform  {}", inspection.platform))?;
    output::line(&format!(
        "created   {}",
        inspection.created.unwrap_or("unknown")
    ))?;
    let total = inspection.layers.iter().map(|layer| layer.size).sum();
    output::line(&format!(
        "size      {} in {} layers\n",
        output::size(total),
        inspection.layers.len()
    ))?;
    let rows: Vec<_> = (inspection.layers.iter())
        .map(|layer| {
            let indexed = if layer.indexed { "yes" } else { "no" };
            vec![
                layer.digest.clone(),
                output::size(layer.size),
                indexed.to_owned(),
            ]
        })
        .collect();
    output::table(&["LAYER", "SIZE", "INDEXED"], &rows, &[1])
}
