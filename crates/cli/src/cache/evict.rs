//! `imgfs cache evict`.

use clap::Args;

use super::super::globals::{Globals, RegistryOptions};
use super::super::output;
use imgfs_core::image::{cached_layers, find_cached};

/// Drop layer bytes from the cache; mounts in use keep theirs.
#[derive(Args)]
#[command(after_help = "\
Indexes and manifests stay, so images still mount at once and fetch what is read. Of an IMAGE all \
layers are meant, also those that other images have, too.

Examples:
  imgfs cache evict golang:latest                  drop what is here of one image's layers
  imgfs cache evict --data                         drop all layer bytes
  imgfs --cache-limit 5GiB cache evict             drop what was not used for longest, down to 5 GiB")]
pub(crate) struct EvictArgs {
    /// Drop what is here of the layers of these images, for all platforms
    #[arg(value_name = "IMAGE", conflicts_with = "data")]
    images: Vec<String>,
    /// Drop all layer bytes, not only what exceeds the limit
    #[arg(long)]
    data: bool,
    #[command(flatten)]
    registry: RegistryOptions,
}

pub(super) fn evict(globals: &Globals, args: &EvictArgs) -> anyhow::Result<()> {
    let store = globals.store()?;
    let evicted = if args.data {
        store.evict_all()?
    } else if args.images.is_empty() {
        store.enforce_limit()?
    } else {
        let mut images = Vec::new();
        for image in &args.images {
            images.extend(find_cached(
                &store,
                &super::meanings(image, &args.registry)?,
            )?);
        }
        let layers: Vec<_> = cached_layers(&images).into_keys().collect();
        store.evict_layers(&layers)?
    };
    if !globals.quiet {
        output::message(&format!(
            "freed {}, from {} layers; {} in use keep theirs",
            output::size(evicted.bytes),
            evicted.layers,
            evicted.in_use
        ));
    }
    Ok(())
}
