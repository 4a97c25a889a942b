//! `imgfs diff`: what differs between two images, between layers of one, or between its platforms.

mod layers;
mod list;
mod text;

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, bail};
use clap::Args;

use super::globals::{Globals, ImageOptions, runtime};
use super::{output, progress, time};
use imgfs_core::image::{Image, LayerProgress, Request};
use imgfs_core::store::Store;
use imgfs_core::work::{Compared, Comparison, Cost, Differences, Unopened};
use imgfs_formats::oci::Location;
use imgfs_formats::tree::{Aspects, ChangeKind};
use list::Lines;

/// With `--exit-code`: something differs, and it could not be found out. As `diff` has them.
const DIFFERENT: u8 = 1;
const TROUBLE: u8 = 2;

/// Show what differs between two images, layers or platforms.
#[derive(Args)]
#[command(
    override_usage = "\
imgfs diff [OPTIONS] A B [PATH]
       imgfs diff [OPTIONS] --layer <LAYERS> IMAGE [PATH]
       imgfs diff [OPTIONS] --platforms <OLD,NEW> IMAGE [PATH]",
    after_help = "\
Each path that differs is a line: A added, D removed, M changed, T of another type (-v: what of \
it changed). The layers' indexes tell: no content is fetched but for -u. Paths of which only the \
time differs are left out (--times: listed).

X: not told by the layers that differ. They set the path, which adds it, changes it or leaves it \
as it was; or they remove it, if it was there. Of a directory that goes for all in it that is not \
listed. Layers that both images have at the bottom would tell, but are opened only if their \
indexes are in the cache or beside the image: with --all, and for -u, they are fetched.

Exit codes: 0 done; with --exit-code 0 nothing differs, 1 something does or may (X), 2 failed.

Examples:
  imgfs diff golang:1.25 golang:1.26
  imgfs diff --stat golang:1.25 golang:1.26 /usr/local/go
  imgfs diff -u debian:12 debian:13 /etc/os-release
  imgfs diff --layer 3 golang                  what layer 3 did to those below; the base is layer 0
  imgfs diff --layer 2..5 golang               from the image up to layer 2 to that up to layer 5
  imgfs diff --platforms linux/amd64,linux/arm64 golang"
)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag")]
pub(super) struct DiffArgs {
    /// The image to compare, the old one if there are two
    #[arg(value_name = "A")]
    image: String,
    /// The new image, if neither --layer nor --platforms is given, and a path to look at, with all
    /// below it
    #[arg(value_name = "B, PATH", num_args = 0..=2)]
    rest: Vec<String>,
    #[command(flatten)]
    options: ImageOptions,
    /// What layers of one image did: N (the base is 0), N..M (from the image up to layer N to that
    /// up to layer M; without N from nothing, without M to all of it), or the beginning of a
    /// layer's digest
    #[arg(long, value_name = "LAYERS", conflicts_with = "platforms")]
    layer: Option<String>,
    /// The platforms of the old and of the new image
    #[arg(long, value_name = "OLD,NEW", conflicts_with = "platform")]
    platforms: Option<String>,
    /// Print how the sizes changed, and a sum
    #[arg(long, group = "form")]
    stat: bool,
    /// Print letters and paths as `git diff --name-status` does: A, D, M, T, a tab, the path
    #[arg(long, group = "form")]
    name_status: bool,
    /// Print JSON
    #[arg(long, group = "form")]
    json: bool,
    /// Print the lines of text that changed, with 3 lines around, as `diff -u` does: of a file, or
    /// of all below PATH
    #[arg(long, short, group = "form")]
    unified: bool,
    /// Open all layers that can tell something, whatever is to be fetched for that: no X is left
    #[arg(long)]
    all: bool,
    /// End letters and paths with a zero byte each, as `git diff --name-status -z` does
    #[arg(short = 'z', conflicts_with_all = ["stat", "json", "unified"])]
    zero: bool,
    /// List paths, too, of which only the modification time differs
    #[arg(long)]
    times: bool,
    /// Exit with 1 if something differs
    #[arg(long)]
    exit_code: bool,
}

pub(super) fn diff(globals: &Globals, args: &DiffArgs) -> anyhow::Result<ExitCode> {
    let done = runtime()?.block_on(run(globals, args));
    match done {
        Err(err) if args.exit_code && !output::is_broken_pipe(&err) => {
            output::error(&err);
            Ok(ExitCode::from(TROUBLE))
        }
        Err(err) => Err(err),
        Ok(true) if args.exit_code => Ok(ExitCode::from(DIFFERENT)),
        Ok(_) => Ok(ExitCode::SUCCESS),
    }
}

/// Compares and prints; whether something differs.
async fn run(globals: &Globals, args: &DiffArgs) -> anyhow::Result<bool> {
    let what = What::of(args)?;
    let store = globals.store()?;
    // What this command adds cannot be evicted while it runs, so the next one does.
    if let Err(err) = tokio::task::block_in_place(|| store.enforce_limit()) {
        tracing::warn!("cannot keep the cache within its limit: {err}");
    }
    let (old, new) = Box::pin(compared(globals, args, &what, &store)).await?;
    let comparison = Comparison::new(Arc::clone(&store), old, new);
    let mut shown = None;
    // When the next ones are announced, those before are done.
    let announce = |downloads: &[LayerProgress]| {
        shown = Some(progress::show(downloads, globals.quiet));
    };
    let all = args.all || args.unified;
    let found = comparison.run(what.path.as_bytes(), all, announce);
    let mut found = Box::pin(found).await?;
    drop(shown);
    let left_out = if args.times {
        0
    } else {
        leave_out_times(&mut found)
    };
    (found.found.changes).sort_by(|one, other| one.path.cmp(&other.path));
    if !globals.quiet {
        say(&found.cost);
        say_unopened(&found, what.path);
        if left_out > 0 {
            output::message(&format!(
                "{} of which only the modification time differs: not listed (--times lists them)",
                count(left_out, "path", "paths")
            ));
        }
    }
    let is_different = !found.found.changes.is_empty();
    if args.unified {
        text::print(&found, globals.quiet).await?;
    } else if args.json {
        list::json(&found)?;
    } else if args.stat {
        list::stat(&found)?;
    } else {
        let details = globals.verbose > 0;
        let form = match (args.zero, args.name_status) {
            (true, _) => Lines::Zero,
            (false, true) => Lines::Tab,
            (false, false) => Lines::Plain { details },
        };
        list::names(&found, form)?;
    }
    Ok(is_different)
}

/// What is to be compared.
struct What<'a> {
    old: &'a str,
    new: &'a str,
    path: &'a str,
    platforms: Option<(&'a str, &'a str)>,
}

impl<'a> What<'a> {
    fn of(args: &'a DiffArgs) -> anyhow::Result<Self> {
        let old = args.image.as_str();
        let platforms = match &args.platforms {
            Some(both) => Some(both.split_once(',').with_context(|| {
                format!("--platforms {both}: name two, such as linux/amd64,linux/arm64")
            })?),
            None => None,
        };
        let is_one_image = args.layer.is_some() || platforms.is_some();
        // No image's name begins with a slash.
        let (new, path) = match args.rest.as_slice() {
            [] if is_one_image => (old, "/"),
            [path] if args.layer.is_some() || is_one_image && path.starts_with('/') => {
                (old, path.as_str())
            }
            [path] if path.starts_with('/') => {
                bail!("{path} is a path: name the image to compare {old} with before it")
            }
            [new] => (new.as_str(), "/"),
            [new, path] if args.layer.is_none() => (new.as_str(), path.as_str()),
            [] => bail!("name two images, or choose --layer or --platforms of one"),
            _ => bail!("--layer compares layers of one image: name it, and at most a path"),
        };
        Ok(Self {
            old,
            new,
            path,
            platforms,
        })
    }
}

/// Finds out what the two sides are.
async fn compared(
    globals: &Globals,
    args: &DiffArgs,
    what: &What<'_>,
    store: &Arc<Store>,
) -> anyhow::Result<(Compared, Compared)> {
    let (mut old, mut new) = (args.options.clone(), args.options.clone());
    if let Some((first, second)) = what.platforms {
        old.platform = Some(first.to_owned());
        new.platform = Some(second.to_owned());
    }
    if args.layer.is_some() {
        let image = Image::resolve(store, &old.request(what.old)?).await?;
        time::say_freshness(&image.freshness, globals.quiet);
        let layers = &image.resolved.manifest.layers;
        let chosen = layers::parse(args.layer.as_deref().unwrap_or_default(), layers)?;
        let [from, to] = chosen.map(|layers| Compared {
            image: image.clone(),
            layers,
        });
        return Ok((from, to));
    }
    let (old, new) = requests(&old, &new, what)?;
    let (old, new) = tokio::try_join!(Image::resolve(store, &old), Image::resolve(store, &new))?;
    let whole = |image: Image| {
        let layers = image.resolved.manifest.layers.len();
        Compared { image, layers }
    };
    time::say_freshness(&old.freshness, globals.quiet);
    if new.reference != old.reference {
        time::say_freshness(&new.freshness, globals.quiet);
    }
    Ok((whole(old), whole(new)))
}

/// What is asked for. A password is read once, for the registry of the first image that is in one.
fn requests(
    old: &ImageOptions,
    new: &ImageOptions,
    what: &What<'_>,
) -> anyhow::Result<(Request, Request)> {
    let plain = old.request_without_password(what.old)?;
    if matches!(plain.reference.location(), Location::Registry { .. }) {
        let first = old.request(what.old)?;
        let mut second = new.request_without_password(what.new)?;
        second.options.credentials = first.options.credentials.clone();
        Ok((first, second))
    } else {
        Ok((plain, new.request(what.new)?))
    }
}

/// Leaves out what differs in its time alone; how many that are.
fn leave_out_times(found: &mut Differences) -> usize {
    let before = found.found.changes.len();
    found.found.changes.retain(|change| match change.kind {
        ChangeKind::Changed { aspects, .. } => !aspects.without(Aspects::MTIME).is_empty(),
        ChangeKind::Added(_) | ChangeKind::Removed(_) | ChangeKind::Unknown { .. } => true,
    });
    before - found.found.changes.len()
}

/// Says what it took beside the indexes.
fn say(cost: &Cost) {
    for layer in &cost.streamed {
        output::message(&format!(
            "layer {}: its index has no digests of files, so all of it was fetched, {}",
            layer.digest.short(),
            output::size(layer.size)
        ));
    }
    if cost.fetched > 0 {
        output::message(&format!(
            "{} had to be read, as not all indexes have digests of files: {} fetched",
            count(cost.files_read, "file", "files"),
            output::size(cost.fetched)
        ));
    }
}

/// Says what is not known, and what it would take.
fn say_unopened(found: &Differences, path: &str) {
    let Some(Unopened { layers, size }) = found.unopened else {
        return;
    };
    let changes = found.found.changes.iter();
    let unknown = changes.filter(|change| matches!(change.kind, ChangeKind::Unknown { .. }));
    let open = match unknown.count() {
        0 => format!("not known whether {path} exists"),
        number => format!("{} (X) not known to differ", count(number, "path", "paths")),
    };
    let (which, size) = (layers.saturating_sub(1), output::size(size));
    let unopened = match layers {
        1 => "layer 0, which both have, was not opened; --all opens it".to_owned(),
        _ => format!("layers 0 to {which}, which both have, were not opened; --all opens them"),
    };
    output::message(&format!("{open}: {unopened} ({size} to fetch)"));
}

fn count(number: usize, one: &str, several: &str) -> String {
    match number {
        1 => format!("1 {one}"),
        _ => format!("{number} {several}"),
    }
}
