//! `imgfs manifest inspect`.

use anyhow::{Context, bail};
use bytes::Bytes;
use clap::Args;

use super::{list_name, lists, platforms};
use crate::globals::{Globals, ImageOptions, runtime};
use crate::{output, time};
use imgfs_core::image::Image;
use imgfs_formats::oci::{Document, ManifestList, MediaType, Reference};

/// Print the manifest or list that a name points to, as the registry has it. Of a list that is kept
/// here, see `imgfs manifest create`, that is printed.
#[derive(Args)]
#[command(after_help = "\
Examples:
  imgfs manifest inspect golang
  imgfs manifest inspect -v golang
  imgfs manifest inspect host/team/tool:1 host/team/tool:1-arm64
  imgfs manifest inspect --json golang | jq -r '.[].digest'")]
pub(crate) struct InspectArgs {
    /// The image, or a list that is kept here
    image: String,
    /// An image of that list
    #[arg(value_name = "MANIFEST")]
    member: Option<String>,
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

pub(super) fn inspect(globals: &Globals, args: &InspectArgs) -> anyhow::Result<()> {
    let shown = shown(args)?;
    if args.json || args.verbose > 0 {
        return match &shown {
            Shown::Kept(name, _) => bail!(
                "{name} is a list that is kept here: what the manifests say is told of lists in a registry; use --table, or \
                 push it first"
            ),
            Shown::Image(image) => platforms::print(globals, &args.options, image, args.json),
        };
    }
    let body = document(globals, args, shown)?;
    if !args.table {
        output::bytes(&body)?;
        // Piped it is the document itself, of which the digest is.
        let is_cut = output::is_terminal() && !body.ends_with(b"\n");
        return if is_cut { output::bytes(b"\n") } else { Ok(()) };
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

/// What is to be shown: a list that is kept here, or what the registry has.
enum Shown {
    Kept(Reference, ManifestList),
    Image(String),
}

fn shown(args: &InspectArgs) -> anyhow::Result<Shown> {
    let kept = kept(&args.image)?;
    Ok(match (&args.member, kept) {
        (None, Some((name, list))) => Shown::Kept(name, list),
        (None, None) => Shown::Image(args.image.clone()),
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
            Shown::Image(format!("{host}/{repository}@{}", found.manifest.digest))
        }
    })
}

fn document(globals: &Globals, args: &InspectArgs, shown: Shown) -> anyhow::Result<Bytes> {
    let image = match shown {
        Shown::Kept(name, list) => {
            if !globals.quiet {
                output::message(&format!("{name} as it is kept here, to be pushed"));
            }
            return Ok(list.encode(list.usual_format()).into());
        }
        Shown::Image(image) => image,
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
