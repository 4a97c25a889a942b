//! `imgfs manifest inspect`.

use anyhow::Context;
use bytes::Bytes;
use clap::Args;

use super::{list_name, lists};
use crate::cli::globals::{Globals, ImageOptions, runtime};
use crate::cli::{output, time};
use crate::mount::Image;
use crate::oci::{Document, ManifestList, MediaType, Reference};

/// Print the manifest or list that a name points to, as the registry has it. Of a list that is kept here, see
/// `imgfs manifest create`, that is printed.
#[derive(Args)]
#[command(
    after_help = "Examples:\n  imgfs manifest inspect golang\n  imgfs manifest inspect -t golang"
)]
pub(in crate::cli) struct InspectArgs {
    /// The image, or a list that is kept here
    image: String,
    /// An image of that list
    #[arg(value_name = "MANIFEST")]
    member: Option<String>,
    #[command(flatten)]
    options: ImageOptions,
    /// A table of the platforms instead of the raw document
    #[arg(long = "table", short = 't')]
    table: bool,
}

pub(super) fn inspect(globals: &Globals, args: &InspectArgs) -> anyhow::Result<()> {
    let body = document(globals, args)?;
    if !args.table {
        let newline: &[u8] = if body.ends_with(b"\n") { b"" } else { b"\n" };
        return output::bytes(&[&body, newline].concat());
    }
    let index = match Document::parse(&body, None)? {
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

/// What is to be shown: of a list that is kept here, or of the registry.
fn document(globals: &Globals, args: &InspectArgs) -> anyhow::Result<Bytes> {
    let kept = kept(&args.image)?;
    let image = match (&args.member, kept) {
        (None, Some((name, list))) => {
            if !globals.quiet {
                output::message(&format!("{name} as it is kept here, to be pushed"));
            }
            return Ok(list.encode(list.usual_format()).into());
        }
        (None, None) => args.image.clone(),
        (Some(member), kept) => {
            let name = list_name(&args.image)?;
            let mut list = super::existing(kept.map(|(_, list)| list), &name)?;
            let found = list.find_mut(member);
            let found = found
                .with_context(|| format!("manifest for image {member} does not exist in {name}"))?;
            let (host, repository) = found
                .reference
                .repository()
                .context("internal: a list of local images")?;
            format!("{host}/{repository}@{}", found.manifest.digest)
        }
    };
    let store = globals.store()?;
    let request = args.options.request(&image)?;
    let (root, freshness) = runtime()?.block_on(Image::root(&store, &request))?;
    time::say_freshness(&freshness, globals.quiet);
    Ok(root.body)
}

/// The list that is kept here under this name, if it can be the name of one.
fn kept(text: &str) -> anyhow::Result<Option<(Reference, ManifestList)>> {
    let Ok(name) = list_name(text) else {
        return Ok(None);
    };
    // Without a home there are no lists.
    let Ok(lists) = lists() else {
        return Ok(None);
    };
    Ok(lists.get(&name)?.map(|list| (name, list)))
}
