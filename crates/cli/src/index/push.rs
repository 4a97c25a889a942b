//! `imgfs index push`.

use std::path::PathBuf;

use anyhow::Context;
use clap::Args;

use super::super::globals::{Globals, ImageOptions};
use super::super::keys::read_signing_key;
use super::super::output;
use super::build::build_one;
use imgfs_core::work::{PublishedImage, publish};
use imgfs_formats::oci::Reference;

/// Publish the indexes of an image's layers.
#[derive(Args)]
#[command(after_help = "\
Without --to the indexes go into the image's own repository, where every mount of the image finds \
them. With --to they go into a repository of indexes, each under its layer's digest, and are found \
with --index-repo for every image that has the layer. What is not built yet is built first. \
Mirrors are not written to.

A signature binds an index to its layer: mounts with the public key as --index-key take it for \
pinned. Signatures of several keys stand side by side. Keys are made with
  openssl genpkey -algorithm ed25519 -out key.pem && chmod 600 key.pem
  openssl pkey -in key.pem -pubout -out pub.pem

Examples:
  imgfs index push --sign key.pem registry.example/team/tool:1
  imgfs index push --all-platforms --to registry.example/team/indexes golang:latest")]
pub(crate) struct PushArgs {
    /// The image
    image: String,
    #[command(flatten)]
    options: ImageOptions,
    /// Into this repository of indexes
    #[arg(long, value_name = "REPO")]
    to: Option<Reference>,
    /// Sign with this Ed25519 key (PEM, PKCS#8)
    #[arg(long, value_name = "KEY")]
    sign: Option<PathBuf>,
    /// The images for all platforms
    #[arg(long, conflicts_with = "platform")]
    all_platforms: bool,
    /// Print what was published as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn push(globals: &Globals, args: &PushArgs) -> anyhow::Result<()> {
    let key = args.sign.as_deref().map(read_signing_key).transpose()?;
    let published = super::block_on(async {
        let store = globals.store()?;
        let request = super::request(&args.options, &args.image)?;
        let mut published = Vec::new();
        for image in super::images(globals, &store, &request, args.all_platforms).await? {
            build_one(globals, &store, &image).await?;
            let to = args.to.as_ref();
            let done = publish(&store, &image, to, key.as_ref(), &request.options)
                .await
                .with_context(|| format!("cannot publish the indexes of {}", image.reference))?;
            if !globals.quiet {
                say(&done);
            }
            published.push(done);
        }
        tokio::task::block_in_place(|| store.enforce_limit())?;
        Ok(published)
    })?;
    if args.json {
        return output::json(&published);
    }
    Ok(())
}

fn say(published: &PublishedImage) {
    let sent: u64 = published.layers.iter().map(|layer| layer.sent).sum();
    let all: u64 = published.layers.iter().map(|layer| layer.index_size).sum();
    output::message(&format!(
        "published {} of indexes ({} sent):",
        output::size(all),
        output::size(sent)
    ));
    for artifact in &published.artifacts {
        output::message(&format!("  {artifact}"));
    }
}
