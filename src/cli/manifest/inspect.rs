//! `imgfs manifest inspect`.

use clap::Args;

use crate::cli::globals::{Globals, ImageOptions, runtime};
use crate::cli::{output, time};
use crate::mount::Image;
use crate::oci::{Document, MediaType};

/// Print the manifest or list that a name points to, as the registry has it.
#[derive(Args)]
#[command(
    after_help = "Examples:\n  imgfs manifest inspect golang\n  imgfs manifest inspect -t golang"
)]
pub(in crate::cli) struct InspectArgs {
    /// The image
    image: String,
    #[command(flatten)]
    options: ImageOptions,
    /// A table of the platforms instead of the raw document
    #[arg(long = "table", short = 't')]
    table: bool,
}

pub(super) fn inspect(globals: &Globals, args: &InspectArgs) -> anyhow::Result<()> {
    let store = globals.store()?;
    let request = args.options.request(&args.image)?;
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
