//! `imgfs images`: what images the cache knows, and what of them is here.

mod filter;
mod prune;
mod rm;

use clap::Args;
use serde::Serialize;

use super::format::{Field, Format, Listing};
use super::globals::Globals;
use super::{output, time};
use crate::globals::runtime_dir;
use filter::{Filter, Filters, pattern};
use imgfs_core::serve::running_mounts;
use imgfs_core::source::host_platform;
use imgfs_core::store::Store;
use imgfs_core::work::{Images, MountedImage, Name, Sizes, Users};

pub(super) use prune::{PruneArgs, prune};
pub(super) use rm::{RmArgs, rm};

/// Characters of an ID that are shown, as in Docker.
const SHORT_ID: usize = 12;
/// What stands where there is nothing, as in Docker.
const NONE: &str = "<none>";

/// List the images in the cache.
#[expect(clippy::struct_excessive_bools, reason = "they are flags")]
#[derive(Args)]
#[command(after_help = "\
SIZE is that of the unpacked layers; with a * that of the packed ones, where a layer was not \
opened yet. CACHED is disk space: of the layers' bytes as far as they are here, and of their \
indexes. With --size: how much of that other images share, and how much is freed when the image \
is removed.

Filters: dangling=true, before=IMAGE, since=IMAGE, until=24h or a date, label=KEY[=VALUE], \
reference=PATTERN Fields:  .Repository .Tag .Digest .ID .Manifest .Platform .CreatedSince \
.CreatedAt .LastUsed .Size .Cached .SharedSize
         .UniqueSize .Labels

Examples:
  imgfs images
  imgfs images --digests --no-trunc golang
  imgfs images --filter dangling=true -q
  imgfs images --format '{{.Repository}}:{{.Tag}} {{.Size}}'
  imgfs images --size --filter 'reference=ghcr.io/*/tool:1.*'")]
pub(super) struct ImagesArgs {
    /// Only this repository, or this tag of it; or those of a pattern: 'ghcr.io/*/tool'
    #[arg(value_name = "REPOSITORY[:TAG]")]
    name: Option<String>,
    /// There are no intermediate images to show: for those who are used to it
    #[arg(short, long)]
    all: bool,
    /// Show digests: of what the tag points to
    #[arg(long)]
    digests: bool,
    /// Do not shorten IDs
    #[arg(long)]
    no_trunc: bool,
    /// Show how much disk space is shared with other images, and how much is not
    #[arg(long)]
    size: bool,
    /// Only images of which this is so; several must all be so
    #[arg(long, short, value_name = "KEY=VALUE")]
    filter: Vec<Filter>,
    /// table, json (one object a line) or a Go template
    #[arg(
        long,
        value_name = "FORMAT",
        conflicts_with = "json",
        default_value = "table"
    )]
    format: Format,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// One image. Sizes in bytes, times in Unix seconds.
#[derive(Serialize)]
struct ImageInfo {
    id: String,
    manifest: String,
    tags: Vec<TagInfo>,
    references: Vec<String>,
    platform: Option<String>,
    created: Option<String>,
    labels: serde_json::Map<String, serde_json::Value>,
    layers: Vec<String>,
    packed: u64,
    unpacked: Option<u64>,
    cached: u64,
    shared: u64,
    unique: u64,
    first_seen: Option<u64>,
    last_used: Option<u64>,
}

#[derive(Serialize)]
struct TagInfo {
    reference: String,
    digest: String,
    checked: u64,
}

const FIELDS: &[Field] = &[
    Field::text("Repository", "REPOSITORY"),
    Field::text("Tag", "TAG"),
    Field::text("Digest", "DIGEST"),
    Field::text("ID", "IMAGE ID"),
    Field::text("Manifest", "MANIFEST"),
    Field::text("Platform", "PLATFORM"),
    Field::text("CreatedSince", "CREATED"),
    Field::text("CreatedAt", "CREATED AT"),
    Field::text("LastUsed", "LAST USED"),
    Field::number("Size", "SIZE"),
    Field::number("Cached", "CACHED"),
    Field::number("SharedSize", "SHARED SIZE"),
    Field::number("UniqueSize", "UNIQUE SIZE"),
    Field::text("Labels", "LABELS"),
];

pub(super) fn images(globals: &Globals, args: &ImagesArgs) -> anyhow::Result<()> {
    let store = globals.store()?;
    let images = Images::load(&store)?;
    let filters = Filters::new(&args.filter, &images)?;
    // What is no pattern may be a name all the same: directories have any.
    let pattern = args.name.as_deref().and_then(|name| pattern(name).ok());
    let mut shown: Vec<(usize, Vec<Name>)> = Vec::new();
    for i in images.newest_first() {
        let mut names = images.names(i);
        if let Some(wanted) = &args.name {
            let matches =
                |form: &str| (pattern.as_ref()).is_some_and(|pattern| pattern.is_match(form));
            names.retain(|name| name.is_below(wanted, matches));
        }
        names.retain(|name| filters.take_name(name));
        if !names.is_empty() && filters.take(&images, i) {
            shown.push((i, names));
        }
    }
    if args.json {
        let infos: Vec<_> = (shown.iter()).map(|(i, _)| info(&images, *i)).collect();
        return output::json(&infos);
    }
    if globals.quiet && args.format == Format::Table {
        let mut text = String::new();
        for (i, names) in &shown {
            for _ in names {
                text += &id_text(&images, *i, args.no_trunc);
                text.push('\n');
            }
        }
        return output::bytes(text.as_bytes());
    }
    let host = host_platform().normalised();
    let (mut listing, mut is_foreign, mut is_packed) = (Listing::new(FIELDS), false, false);
    for (i, names) in &shown {
        let sizes = images.sizes(*i);
        is_packed |= sizes.unpacked.is_none();
        is_foreign |= images
            .platform(*i)
            .is_some_and(|platform| platform.normalised() != host);
        for name in names {
            listing.push(row(&images, *i, name, &sizes, args.no_trunc));
        }
    }
    let mut columns = vec!["Repository", "Tag"];
    columns.extend(args.digests.then_some("Digest"));
    columns.push("ID");
    columns.extend(is_foreign.then_some("Platform"));
    columns.extend(["CreatedSince", "Size", "Cached"]);
    if args.size {
        columns.extend(["SharedSize", "UniqueSize"]);
    }
    listing.print(&args.format, &columns)?;
    if is_packed && args.format == Format::Table && output::is_terminal() {
        output::message("* packed: not all of its layers were opened yet");
    }
    Ok(())
}

fn row(
    images: &Images,
    i: usize,
    name: &Name,
    sizes: &Sizes,
    no_trunc: bool,
) -> Vec<serde_json::Value> {
    let known = images.get(i);
    let created = images.created(i).map(jiff::Timestamp::as_second);
    let used = known.record.as_ref().map(|record| record.last_used);
    let used = used.map(|used| i64::try_from(used).unwrap_or(i64::MAX));
    let size = match sizes.unpacked {
        Some(unpacked) => output::size(unpacked),
        None => format!("{}*", output::size(sizes.packed)),
    };
    let or_none = |text: Option<String>| text.unwrap_or_else(|| NONE.to_owned());
    let platform = images
        .platform(i)
        .map(|platform| platform.normalised().to_string());
    vec![
        or_none(name.repository.clone()).into(),
        or_none(name.tag.clone()).into(),
        or_none(name.digest.map(|digest| digest.to_string())).into(),
        id_text(images, i, no_trunc).into(),
        known.digest.to_string().into(),
        or_none(platform).into(),
        created.map_or_else(|| "N/A".to_owned(), time::ago).into(),
        created.map_or_else(|| "N/A".to_owned(), at).into(),
        used.map_or_else(|| "N/A".to_owned(), time::ago).into(),
        size.into(),
        output::size(sizes.disk).into(),
        output::size(sizes.shared).into(),
        output::size(sizes.unique()).into(),
        serde_json::Value::Object(images.labels(i)),
    ]
}

/// As Go prints a time.
fn at(seconds: i64) -> String {
    format!("{} +0000 UTC", time::utc(seconds))
}

fn id_text(images: &Images, i: usize, no_trunc: bool) -> String {
    let id = images.get(i).id();
    if no_trunc {
        return id.to_string();
    }
    id.hex().chars().take(SHORT_ID).collect()
}

fn info(images: &Images, i: usize) -> ImageInfo {
    let known = images.get(i);
    let sizes = images.sizes(i);
    let record = known.record.as_ref();
    let tags = known.tags.iter().map(|tag| TagInfo {
        reference: tag.reference.clone(),
        digest: tag.descriptor.digest.to_string(),
        checked: tag.checked,
    });
    ImageInfo {
        id: known.id().to_string(),
        manifest: known.digest.to_string(),
        tags: tags.collect(),
        references: record.map_or_else(Vec::new, |record| record.references.clone()),
        platform: images
            .platform(i)
            .map(|platform| platform.normalised().to_string()),
        created: known
            .config
            .as_ref()
            .and_then(|config| config.created.clone()),
        labels: images.labels(i),
        layers: (known.manifest.layers.iter())
            .map(|blob| blob.digest.to_string())
            .collect(),
        packed: sizes.packed,
        unpacked: sizes.unpacked,
        cached: sizes.disk,
        shared: sizes.shared,
        unique: sizes.unique(),
        first_seen: record.map(|record| record.first_seen),
        last_used: record.map(|record| record.last_used),
    }
}

/// The users that keep images of this cache from being removed.
fn users(store: &Store) -> anyhow::Result<Users> {
    let mounts = running_mounts(&runtime_dir())?.into_iter();
    let mounts = mounts
        .map(|mount| mount.record)
        .filter(|record| record.uses(store));
    let mounts = mounts.map(|record| MountedImage {
        manifest: record.manifest,
        mountpoint: record.mountpoint,
    });
    Ok(Users::load(store, mounts.collect())?)
}
