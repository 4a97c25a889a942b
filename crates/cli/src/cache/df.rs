//! `imgfs cache df`.

use std::collections::{BTreeMap, BTreeSet};

use clap::Args;
use serde::Serialize;

use super::super::globals::{Globals, runtime};
use super::super::output;
use crate::globals::runtime_dir;
use imgfs_core::image::{CachedImage, cached_images, cached_layers};
use imgfs_core::serve::{MountRecord, running_mounts};
use imgfs_core::store::{CacheFile, Holding, Slot, Store};
use imgfs_formats::oci::Digest;

/// Show how much of the disk the cache takes.
#[derive(Args)]
#[command(after_help = "\
ACTIVE is what mounts and running commands use. RECLAIMABLE is what the others take: `imgfs cache \
evict --data` drops layer data, which costs no more than fetching it again. With -v, each layer \
too: how large it is unpacked, how much of that is here, and what is mounted with it.

Examples:
  imgfs cache df
  imgfs cache df -v
  imgfs cache df --json | jq '.types[] | select(.type == \"layers\").size'")]
pub(crate) struct DfArgs {
    /// Print JSON; with -v, of each layer too
    #[arg(long)]
    json: bool,
}

/// All of it. Sizes in bytes.
#[derive(Serialize)]
struct Report {
    cache: String,
    /// Disk space for layer data.
    limit: u64,
    types: Vec<Type>,
    #[serde(skip_serializing_if = "Option::is_none")]
    layers: Option<Vec<Layer>>,
}

/// One kind of files.
#[derive(Serialize)]
struct Type {
    #[serde(rename = "type")]
    kind: &'static str,
    total: usize,
    active: usize,
    size: u64,
    reclaimable: u64,
}

/// One layer, by one index.
#[derive(Serialize)]
struct Layer {
    digest: String,
    own_index: bool,
    size: u64,
    unpacked: Option<u64>,
    present: Option<u64>,
    in_use: bool,
    mounts: Vec<String>,
    images: Vec<String>,
}

/// The kinds, as `--json` and people have them.
const KINDS: [(&str, &str); 4] = [
    ("layers", "Layer data"),
    ("indexes", "Indexes"),
    ("documents", "Manifests and configs"),
    ("others", "Other"),
];

pub(super) fn df(globals: &Globals, args: &DfArgs) -> anyhow::Result<()> {
    let store = globals.store()?;
    let images = cached_images(&store)?;
    let mounts = running_mounts(&runtime_dir())?.into_iter();
    let mut mounts: Vec<MountRecord> = mounts.map(|mount| mount.record).collect();
    mounts.retain(|mount| mount.uses(&store));
    let files = store.files()?;
    let in_use = slots_in_use(&store, &files)?;
    let mut report = Report {
        cache: globals.dir()?.display().to_string(),
        limit: store.limit(),
        types: types(&files, &in_use, &images, &mounts),
        layers: None,
    };
    if globals.verbose > 0 {
        let layers = layers(&store, &files, &in_use, &images, &mounts);
        report.layers = Some(runtime()?.block_on(layers)?);
    }
    if args.json {
        return output::json(&report);
    }
    print(&report)
}

fn slots_in_use(store: &Store, files: &[CacheFile]) -> anyhow::Result<BTreeSet<Slot>> {
    let slots: BTreeSet<&Slot> = (files.iter())
        .filter_map(|file| match &file.holding {
            Holding::Data(slot) | Holding::Unfinished(slot) => Some(slot),
            _ => None,
        })
        .collect();
    let mut in_use = BTreeSet::new();
    for slot in slots {
        if store.is_in_use(slot)? {
            in_use.insert(slot.clone());
        }
    }
    Ok(in_use)
}

fn types(
    files: &[CacheFile],
    in_use: &BTreeSet<Slot>,
    images: &[CachedImage],
    mounts: &[MountRecord],
) -> Vec<Type> {
    let used_layers: BTreeSet<Digest> = in_use.iter().map(|slot| *slot.layer()).collect();
    let used_documents: BTreeSet<Digest> = (images.iter())
        .filter(|image| !mounts_of(image, mounts).is_empty())
        .flat_map(CachedImage::documents)
        .map(|document| document.digest)
        .collect();
    // Each thing once, however many files it has: its size, and whether it is in use.
    let mut things: [BTreeMap<String, (u64, bool)>; 4] = Default::default();
    let [layers, indexes, documents, others] = &mut things;
    for file in files {
        let (kind, name, is_used) = match &file.holding {
            Holding::Data(slot) => (&mut *layers, slot.to_string(), in_use.contains(slot)),
            Holding::Unfinished(slot) => (&mut *others, slot.to_string(), in_use.contains(slot)),
            Holding::Index(layer) => (
                &mut *indexes,
                layer.to_string(),
                used_layers.contains(layer),
            ),
            Holding::Document(digest) => (
                &mut *documents,
                digest.to_string(),
                used_documents.contains(digest),
            ),
            Holding::Record => (&mut *others, "names".to_owned(), true),
            Holding::Other => (&mut *others, String::new(), false),
        };
        let thing = kind.entry(name).or_insert((0, is_used));
        thing.0 += file.on_disk;
    }
    // A layer of which nothing is here has empty files all the same.
    layers.retain(|_, (size, _)| *size > 0);
    let types = KINDS.iter().zip(&things);
    types
        .map(|((kind, _), things)| {
            let active = things.values().filter(|(_, is_used)| *is_used);
            let size = |is_counted: fn(bool) -> bool| {
                let counted = things.values().filter(|(_, is_used)| is_counted(*is_used));
                counted.map(|(size, _)| size).sum()
            };
            Type {
                kind,
                total: things.len(),
                active: active.count(),
                size: size(|_| true),
                reclaimable: size(|is_used| !is_used),
            }
        })
        .collect()
}

/// Where an image is mounted.
fn mounts_of(image: &CachedImage, mounts: &[MountRecord]) -> Vec<String> {
    let manifest = image.chain.last().map(|last| last.digest.to_string());
    (mounts.iter())
        .filter(|mount| Some(&mount.manifest) == manifest.as_ref())
        .map(|mount| mount.mountpoint.display().to_string())
        .collect()
}

async fn layers(
    store: &Store,
    files: &[CacheFile],
    in_use: &BTreeSet<Slot>,
    images: &[CachedImage],
    mounts: &[MountRecord],
) -> anyhow::Result<Vec<Layer>> {
    let mut sizes: BTreeMap<Slot, u64> =
        (store.slots()?.into_iter()).map(|slot| (slot, 0)).collect();
    for file in files {
        if let Holding::Data(slot) = &file.holding {
            *sizes.entry(slot.clone()).or_default() += file.on_disk;
        }
    }
    let known = cached_layers(images);
    let mut layers = Vec::new();
    for (slot, size) in sizes {
        let usage = store.layer_usage(&slot).await?;
        let of = known.get(slot.layer()).map(|known| &known.images[..]);
        let of = of.unwrap_or_default();
        let sorted = |mut names: Vec<String>| {
            names.sort();
            names.dedup();
            names
        };
        layers.push(Layer {
            digest: slot.layer().to_string(),
            own_index: slot.is_own(),
            size,
            unpacked: usage.map(|usage| usage.unpacked),
            present: usage.map(|usage| usage.present),
            in_use: in_use.contains(&slot),
            mounts: sorted(
                of.iter()
                    .flat_map(|image| mounts_of(image, mounts))
                    .collect(),
            ),
            images: sorted(of.iter().map(|image| image.reference.to_string()).collect()),
        });
    }
    layers.sort_by_key(|layer| std::cmp::Reverse(layer.size));
    Ok(layers)
}

fn print(report: &Report) -> anyhow::Result<()> {
    let rows: Vec<_> = (report.types.iter().zip(KINDS))
        .map(|(row, (_, name))| {
            vec![
                name.to_owned(),
                row.total.to_string(),
                row.active.to_string(),
                output::size(row.size),
                format!(
                    "{} ({} %)",
                    output::size(row.reclaimable),
                    percent(row.reclaimable, row.size)
                ),
            ]
        })
        .collect();
    let heading = ["TYPE", "TOTAL", "ACTIVE", "SIZE", "RECLAIMABLE"];
    output::table(&heading, &rows, &[1, 2, 3])?;
    let data = report.types.first().map_or(0, |layers| layers.size);
    output::line(&format!(
        "\n{}: layer data takes {} of {} (--cache-limit), {} %",
        report.cache,
        output::size(data),
        output::size(report.limit),
        percent(data, report.limit)
    ))?;
    let Some(layers) = &report.layers else {
        return Ok(());
    };
    let rows: Vec<_> = layers.iter().map(row).collect();
    output::line("")?;
    let heading = ["LAYER", "SIZE", "UNPACKED", "PRESENT", "IN USE BY"];
    output::table(&heading, &rows, &[1, 2, 3])
}

fn row(layer: &Layer) -> Vec<String> {
    let hex = layer.digest.split_once(':').map_or("", |(_, hex)| hex);
    let present = (layer.unpacked.zip(layer.present))
        .map(|(unpacked, present)| format!("{} %", percent(present, unpacked)));
    let used_by = match (layer.in_use, layer.mounts.is_empty()) {
        (false, _) => String::new(),
        (true, true) => "another process".to_owned(),
        (true, false) => output::printable(layer.mounts.join(", ").as_bytes()),
    };
    vec![
        hex.chars().take(12).collect(),
        output::size(layer.size),
        layer.unpacked.map(output::size).unwrap_or_default(),
        present.unwrap_or_default(),
        used_by,
    ]
}

/// 0 of nothing.
fn percent(part: u64, whole: u64) -> u64 {
    u64::try_from(u128::from(part) * 100 / u128::from(whole.max(1))).unwrap_or(u64::MAX)
}
