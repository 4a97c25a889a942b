//! `imgfs pull`.

use anyhow::{Context, bail};
use clap::Args;

use super::globals::{Globals, ImageOptions, runtime};
use super::{output, progress, time};
use imgfs_core::error::EngineError;
use imgfs_core::image::{Image, Pull, Request};
use imgfs_core::source::SourceError;
use imgfs_core::work::{Pulled, Puller};
use imgfs_formats::oci::Location;

/// Fetch all of an image into the cache, to mount and read it later without its registry.
#[derive(Args)]
#[command(after_help = "\
What is here already is not fetched again. If it is interrupted, the same command goes on from \
there. The registry must say what a tag means now, unless --pull says otherwise.

Examples:
  imgfs pull golang:latest && imgfs mount --pull=never golang:latest /mnt/go
  imgfs pull --platform linux/arm64 alpine:3.20 debian:12
  imgfs pull --all-platforms ghcr.io/owner/name:1.2
  imgfs pull --all-tags --quiet --json registry.example/team/tool")]
pub(super) struct PullArgs {
    /// The images
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
    #[command(flatten)]
    options: ImageOptions,
    /// Every tag there is, not only the one that is named
    #[arg(long)]
    all_tags: bool,
    /// The images for all platforms
    #[arg(long, conflicts_with = "platform")]
    all_platforms: bool,
    /// Print what was pulled as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn pull(globals: &Globals, args: &PullArgs) -> anyhow::Result<()> {
    let runtime = runtime()?;
    let pulled = runtime.block_on(async {
        tokio::select! {
            pulled = pull_all(globals, args) => pulled,
            _ = tokio::signal::ctrl_c() => {
                bail!("interrupted: what has come is kept, the same command goes on from there")
            }
        }
    })?;
    if args.json {
        return output::json(&pulled);
    }
    Ok(())
}

async fn pull_all(globals: &Globals, args: &PullArgs) -> anyhow::Result<Vec<Pulled>> {
    let mut puller = Puller::new(globals.store()?);
    let mut pulled = Vec::new();
    for image in &args.images {
        let mut request = args.options.request(image)?;
        if args.options.pull.is_none() && !args.options.offline {
            request.pull = Pull::Always;
        }
        if !args.all_tags {
            let name = request.reference.to_string();
            let done = pull_one(globals, args, &mut puller, &request).await;
            pulled.extend(done.with_context(|| format!("cannot pull {name}"))?);
            continue;
        }
        for request in all_tags(&request).await? {
            let name = request.reference.to_string();
            match pull_one(globals, args, &mut puller, &request).await {
                Ok(done) => pulled.extend(done),
                // Signatures and charts lie among the tags, and not every image is for every
                // platform.
                Err(err) if is_something_else(&err) => {
                    if !globals.quiet {
                        output::message(&format!("left out {name}: {err}"));
                    }
                }
                Err(err) => return Err(err.context(format!("cannot pull {name}"))),
            }
        }
    }
    tokio::task::block_in_place(|| puller.finish())?;
    Ok(pulled)
}

/// The same request for each tag of the repository.
async fn all_tags(request: &Request) -> anyhow::Result<Vec<Request>> {
    let (reference, tags) = Image::tags(request).await?;
    let prefix = match reference.location() {
        Location::Registry {
            host, repository, ..
        } => format!("{host}/{repository}"),
        Location::OciLayout { dir, .. } => format!("oci:{}", dir.display()),
        Location::DockerArchive { file, .. } => format!("docker-archive:{}", file.display()),
    };
    if tags.is_empty() {
        bail!("{prefix} has no tags");
    }
    tags.iter()
        .map(|tag| {
            Ok(Request {
                reference: format!("{prefix}:{tag}").parse()?,
                others: Vec::new(),
                ..request.clone()
            })
        })
        .collect()
}

async fn pull_one(
    globals: &Globals,
    args: &PullArgs,
    puller: &mut Puller,
    request: &Request,
) -> anyhow::Result<Vec<Pulled>> {
    let images = if args.all_platforms {
        Image::resolve_all(puller.store(), request).await?
    } else {
        vec![Image::resolve(puller.store(), request).await?]
    };
    let mut pulled = Vec::new();
    for (number, image) in images.iter().enumerate() {
        if number == 0 {
            time::say_freshness(&image.freshness, globals.quiet);
        }
        let downloads = puller.downloads(image);
        let shown = progress::show(&downloads, globals.quiet);
        let done = puller.pull(image, &downloads).await?;
        drop(shown);
        if !globals.quiet {
            output::message(&summary(&done));
        }
        pulled.push(done);
    }
    Ok(pulled)
}

fn summary(pulled: &Pulled) -> String {
    let layers = match pulled.layers.len() {
        1 => "1 layer".to_owned(),
        count => format!("{count} layers"),
    };
    format!(
        "pulled {} for {}: {layers}, {} fetched, {} were here",
        pulled.reference,
        pulled.platform,
        output::size(pulled.bytes_fetched),
        output::size(pulled.bytes_cached)
    )
}

/// Whether a tag is of something that is no image, none for the platform, or none that can be
/// mounted.
fn is_something_else(err: &anyhow::Error) -> bool {
    let engine = err.downcast_ref::<EngineError>();
    let source = engine.and_then(EngineError::find::<SourceError>);
    matches!(
        source,
        Some(
            SourceError::NotAnImage { .. }
                | SourceError::Platform(_)
                | SourceError::ForeignLayer { .. }
        )
    )
}
