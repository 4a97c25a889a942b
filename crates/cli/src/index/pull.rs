//! `imgfs index pull`.

use anyhow::{Context, bail};
use clap::Args;
use serde::Serialize;

use super::super::globals::{Globals, ImageOptions};
use super::super::output;
use imgfs_core::store::Slot;
use imgfs_core::work::builds;
use imgfs_formats::layer::LayerIndex;

/// Fetch the published indexes of an image's layers into the cache.
#[derive(Args)]
#[command(after_help = "\
Fetches the indexes and nothing of the layers. Fails if none is published.

Examples:
  imgfs index pull registry.example/team/tool:1
  imgfs index pull --index-repo registry.example/team/indexes --index-key pub.pem golang:latest")]
pub(crate) struct PullArgs {
    /// The image
    image: String,
    #[command(flatten)]
    options: ImageOptions,
    /// Print what was found as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct PulledIndex {
    layer: String,
    /// `null`: none is published.
    index: Option<String>,
    index_size: u64,
    trust: Option<&'static str>,
    origin: Option<String>,
}

pub(super) fn pull(globals: &Globals, args: &PullArgs) -> anyhow::Result<()> {
    let pulled = super::block_on(pull_all(globals, args))?;
    if args.json {
        output::json(&pulled)?;
    }
    let found = pulled.iter().filter(|one| one.index.is_some()).count();
    if found == 0 {
        bail!(
            "no index is published for {}: publish them with `imgfs index push`, or name where they are with --index-repo",
            args.image
        );
    }
    if !globals.quiet {
        let size = pulled.iter().map(|one| one.index_size).sum();
        output::message(&format!(
            "fetched the indexes of {found} of {} layers, {}",
            pulled.len(),
            output::size(size)
        ));
    }
    Ok(())
}

async fn pull_all(globals: &Globals, args: &PullArgs) -> anyhow::Result<Vec<PulledIndex>> {
    let store = globals.store()?;
    let request = super::request(&args.options, &args.image)?;
    let images = super::images(globals, &store, &request, false).await?;
    let image = images.first().context("internal: no image")?;
    let published = super::look_for(image, &request)?;
    let layers = builds(image);
    let finding = layers.iter().map(|layer| published.find(&layer.blob));
    let mut pulled = Vec::new();
    for (layer, found) in layers
        .iter()
        .zip(futures_util::future::join_all(finding).await)
    {
        for problem in &found.problems {
            tracing::warn!("{problem}");
        }
        let Some(found) = found.index else {
            pulled.push(PulledIndex {
                layer: layer.blob.digest.to_string(),
                index: None,
                index_size: 0,
                trust: None,
                origin: None,
            });
            continue;
        };
        // A mount reads all but the digests of the files.
        LayerIndex::read(&found.file[..], &layer.blob.digest, true)
            .with_context(|| format!("the index at {}", found.origin))?;
        let finding = found.finding();
        let slot = Slot::found(layer.blob.digest, &found.digest);
        store.keep_found_file(&slot, &found.file, &finding);
        pulled.push(PulledIndex {
            layer: layer.blob.digest.to_string(),
            index: Some(found.digest.to_string()),
            index_size: found.file.len() as u64,
            trust: Some(finding.trust.name()),
            origin: Some(finding.place),
        });
    }
    Ok(pulled)
}
