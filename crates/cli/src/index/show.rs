//! `imgfs index show`.

use anyhow::Context;
use clap::Args;
use serde::Serialize;

use super::super::globals::{Globals, ImageOptions};
use super::super::output;
use super::{place, short};
use imgfs_core::indexes::Published;
use imgfs_core::store::{Slot, Store, Trust};
use imgfs_core::work::builds;
use imgfs_formats::layer::{EntryKind, LayerIndex};
use imgfs_formats::oci::Descriptor;

/// Show the indexes of an image's layers: those that are here, and those that are published.
#[derive(Args)]
#[command(after_help = "\
TRUST is proven (made here from all of the layer), pinned (bound to the layer by the signature of \
--index-key) or claimed (nobody vouches for it).

Examples:
  imgfs index show golang:latest
  imgfs index show --json golang:latest | jq '.[].index'")]
pub(crate) struct ShowArgs {
    /// The image
    image: String,
    #[command(flatten)]
    options: ImageOptions,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// One layer. Sizes in bytes.
#[derive(Serialize)]
struct Row {
    layer: String,
    size: u64,
    #[serde(flatten)]
    index: Option<IndexRow>,
}

#[derive(Serialize)]
struct IndexRow {
    index: String,
    index_size: u64,
    entries: usize,
    files: usize,
    spans: usize,
    trust: &'static str,
    origin: String,
}

pub(super) fn show(globals: &Globals, args: &ShowArgs) -> anyhow::Result<()> {
    let rows = super::block_on(rows(globals, args))?;
    if args.json {
        return output::json(&rows);
    }
    let cells: Vec<Vec<String>> = rows.iter().map(cells).collect();
    output::table(
        &[
            "LAYER",
            "SIZE",
            "INDEX",
            "%",
            "ENTRIES",
            "FILES",
            "SPANS",
            "INDEX DIGEST",
            "TRUST",
            "FROM",
        ],
        &cells,
        &[1, 2, 3, 4, 5, 6],
    )
}

async fn rows(globals: &Globals, args: &ShowArgs) -> anyhow::Result<Vec<Row>> {
    let store = globals.store()?;
    let request = args.options.request(&args.image)?;
    let images = super::images(globals, &store, &request, false).await?;
    let image = images.first().context("internal: no image")?;
    let published = super::look_for(image, &request)?;
    let mut rows = Vec::new();
    for layer in builds(image) {
        let blob = layer.blob;
        let index = match kept(&store, &blob)? {
            Some(kept) => Some(kept),
            None => find(&published, &blob).await?,
        };
        rows.push(Row {
            layer: blob.digest.to_string(),
            size: blob.size,
            index,
        });
    }
    Ok(rows)
}

/// What the cache has.
fn kept(store: &Store, blob: &Descriptor) -> anyhow::Result<Option<IndexRow>> {
    let own = Slot::own(blob.digest);
    if let Some(index) = store.load_index(&own, true)? {
        let size = store.index_size(&own);
        let origin = "made here".to_owned();
        return Ok(Some(row(&index, size, Trust::Proven, origin)));
    }
    for (slot, finding) in store.found_indexes(&blob.digest)? {
        if let Some(index) = store.load_index(&slot, true)? {
            let size = store.index_size(&slot);
            let place = if finding.place.is_empty() {
                finding.origin.to_string()
            } else {
                finding.place
            };
            return Ok(Some(row(&index, size, finding.trust, place)));
        }
    }
    Ok(None)
}

/// What somebody published.
async fn find(published: &Published, blob: &Descriptor) -> anyhow::Result<Option<IndexRow>> {
    let found = published.find(blob).await;
    for problem in &found.problems {
        tracing::warn!("{problem}");
    }
    let Some(found) = found.index else {
        return Ok(None);
    };
    let index = LayerIndex::read(&found.file[..], &blob.digest, true)
        .with_context(|| format!("the index at {}", found.origin))?;
    let trust = found.vouched.trust();
    let size = found.file.len() as u64;
    Ok(Some(row(&index, size, trust, found.origin)))
}

fn row(index: &LayerIndex, size: u64, trust: Trust, origin: String) -> IndexRow {
    let is_file = |kind: &EntryKind<'_>| {
        matches!(kind, EntryKind::File { .. } | EntryKind::SparseFile { .. })
    };
    IndexRow {
        index: index.digest().to_string(),
        index_size: size,
        entries: index.toc.len(),
        files: (index.toc.iter())
            .filter(|entry| is_file(&entry.kind))
            .count(),
        spans: index.spans.len(),
        trust: trust.name(),
        origin,
    }
}

fn cells(row: &Row) -> Vec<String> {
    let mut cells = vec![short(&row.layer), output::size(row.size)];
    let Some(index) = &row.index else {
        cells.extend(["-"; 6].map(str::to_owned));
        cells.extend(["none", "-"].map(str::to_owned));
        return cells;
    };
    cells.extend([
        output::size(index.index_size),
        percentage(index.index_size, row.size),
        index.entries.to_string(),
        index.files.to_string(),
        index.spans.to_string(),
        short(&index.index),
        index.trust.to_owned(),
        place(&index.origin),
    ]);
    cells
}

/// With two digits behind the point.
fn percentage(part: u64, whole: u64) -> String {
    let hundredths = u128::from(part) * 10_000 / u128::from(whole.max(1));
    format!("{}.{:02}", hundredths / 100, hundredths % 100)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentages() {
        let check = |part, whole, expected: &str| assert_eq!(percentage(part, whole), expected);
        check(1, 3, "33.33");
        check(7, 1000, "0.70");
        check(0, 0, "0.00");
        check(u64::MAX, u64::MAX, "100.00");
    }
}
