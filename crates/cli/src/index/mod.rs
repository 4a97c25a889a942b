//! `imgfs index`: the indexes that make layers lazily readable, made here, published, found and
//! checked.

mod build;
mod pull;
mod push;
mod show;
mod verify;

use std::future::Future;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::bail;
use clap::Subcommand;

use super::globals::{Globals, ImageOptions, runtime};
use super::{output, time};
use imgfs_core::image::{Image, Pull, Request};
use imgfs_core::indexes::Published;
use imgfs_core::store::Store;

/// Digits of a hash that people are shown.
const SHORT: usize = 12;

/// Make, publish, find and check layer indexes.
#[derive(Subcommand)]
#[command(after_help = "\
An index makes a layer lazily readable, so that a mount fetches what is read and nothing else. \
imgfs makes it when it first sees a layer, which takes a download of all of it. Once published, \
nobody else has to pay for that: beside the image, or in a repository of indexes for images that \
one cannot push to.

Examples:
  imgfs index build registry.example/team/tool:1 && imgfs index push registry.example/team/tool:1
  imgfs index push golang:latest --to registry.example/team/indexes --sign key.pem
  imgfs index show golang:latest --index-repo registry.example/team/indexes --index-key pub.pem")]
pub(super) enum IndexCommand {
    Build(build::BuildArgs),
    Push(push::PushArgs),
    Pull(pull::PullArgs),
    Show(show::ShowArgs),
    Verify(verify::VerifyArgs),
}

pub(super) fn run(globals: &Globals, command: &IndexCommand) -> anyhow::Result<ExitCode> {
    match command {
        IndexCommand::Build(args) => build::build(globals, args)?,
        IndexCommand::Push(args) => push::push(globals, args)?,
        IndexCommand::Pull(args) => pull::pull(globals, args)?,
        IndexCommand::Show(args) => show::show(globals, args)?,
        IndexCommand::Verify(args) => return verify::verify(globals, args),
    }
    Ok(ExitCode::SUCCESS)
}

/// Begins to look for what was published about an image.
fn look_for(image: &Image, request: &Request) -> anyhow::Result<Published> {
    let Some(manifest) = image.resolved.manifest_digest() else {
        bail!("internal: the image has no manifest");
    };
    Ok(Published::start(
        Arc::clone(&image.source),
        *manifest,
        request.indexes.published.clone(),
    ))
}

/// The request for an image; the registry must answer, unless the user says otherwise.
fn request(options: &ImageOptions, image: &str) -> anyhow::Result<Request> {
    let mut request = options.request(image)?;
    if options.pull.is_none() && !options.offline {
        request.pull = Pull::Always;
    }
    Ok(request)
}

/// The images that a request means.
async fn images(
    globals: &Globals,
    store: &Arc<Store>,
    request: &Request,
    all_platforms: bool,
) -> anyhow::Result<Vec<Image>> {
    let images = if all_platforms {
        Image::resolve_all(store, request).await?
    } else {
        vec![Image::resolve(store, request).await?]
    };
    if let Some(image) = images.first() {
        time::say_freshness(&image.freshness, globals.quiet);
    }
    Ok(images)
}

/// Runs a command that may be interrupted at any time.
fn block_on<T>(command: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    runtime()?.block_on(async {
        tokio::select! {
            done = command => done,
            _ = tokio::signal::ctrl_c() => bail!("interrupted"),
        }
    })
}

/// First digits of a digest.
fn short(digest: &str) -> String {
    let hex = digest.split_once(':').map_or(digest, |(_, hex)| hex);
    hex.chars().take(SHORT).collect()
}

/// A place for a table: hashes cut to their first digits.
fn place(origin: &str) -> String {
    let mut text = String::new();
    let mut hash = 0;
    for c in origin.chars() {
        // Digits of a name are no hash, but cutting more than this of one would be hard to read as
        // well.
        hash = if matches!(c, '0'..='9' | 'a'..='f') {
            hash + 1
        } else {
            0
        };
        if hash <= SHORT {
            text.push(c);
        }
    }
    output::printable(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_cut_in_tables() {
        let hash = "32edec5e7a0e0b4e2190136ddd9a3e22386e53f5682202149ecf8e70a59641fc";
        let check = |origin: &str, expected: &str| assert_eq!(place(origin), expected);
        check(
            &format!("h:5000/a/b@sha256:{hash}"),
            "h:5000/a/b@sha256:32edec5e7a0e",
        );
        check(&format!("h/a:sha256-{hash}"), "h/a:sha256-32edec5e7a0e");
        check("h/a\u{1b}", "h/a\\u{1b}");
        assert_eq!(short(&format!("sha256:{hash}")), "32edec5e7a0e");
    }
}
