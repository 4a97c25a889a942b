//! `imgfs index build`.

use std::sync::Arc;

use anyhow::Context;
use clap::Args;

use super::super::globals::{Globals, ImageOptions};
use super::super::{output, progress};
use imgfs_core::image::Image;
use imgfs_core::store::{Slot, Store};
use imgfs_core::work::{build as build_indexes, builds};

/// Make the indexes of an image's layers, and what else is published with them.
#[derive(Args)]
#[command(after_help = "\
Each layer is fetched once, and the fetched bytes stay in the cache. What is here already is not \
fetched again, unless its midstates are missing: a mount or pull makes the index without them.

Examples:
  imgfs index build golang:latest
  imgfs index build --all-platforms registry.example/team/tool:1")]
pub(crate) struct BuildArgs {
    /// The image
    image: String,
    #[command(flatten)]
    options: ImageOptions,
    /// The images for all platforms
    #[arg(long, conflicts_with = "platform")]
    all_platforms: bool,
}

pub(super) fn build(globals: &Globals, args: &BuildArgs) -> anyhow::Result<()> {
    super::block_on(async {
        let store = globals.store()?;
        let request = super::request(&args.options, &args.image)?;
        for image in super::images(globals, &store, &request, args.all_platforms).await? {
            build_one(globals, &store, &image).await?;
        }
        tokio::task::block_in_place(|| store.enforce_limit())?;
        Ok(())
    })
}

/// Builds the indexes of one image.
pub(super) async fn build_one(
    globals: &Globals,
    store: &Arc<Store>,
    image: &Image,
) -> anyhow::Result<()> {
    let layers = builds(image);
    let shown = progress::show(&layers, globals.quiet);
    build_indexes(store, image, &layers)
        .await
        .with_context(|| format!("cannot build the indexes of {}", image.reference))?;
    drop(shown);
    if !globals.quiet {
        let (name, platform) = (&image.reference, image.resolved.platform());
        let (count, size): (usize, u64) = (
            layers.len(),
            layers
                .iter()
                .map(|layer| store.index_size(&Slot::own(layer.blob.digest)))
                .sum(),
        );
        let layers = if count == 1 { "layer" } else { "layers" };
        output::message(&format!(
            "indexed {name} for {platform}: {count} {layers}, {} of indexes",
            output::size(size)
        ));
    }
    Ok(())
}
