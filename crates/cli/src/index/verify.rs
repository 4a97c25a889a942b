//! `imgfs index verify`.

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, bail};
use clap::Args;
use serde::Serialize;

use super::super::globals::{Globals, ImageOptions};
use super::super::{output, progress};
use super::{place, short};
use imgfs_core::image::{Image, LayerProgress};
use imgfs_core::indexes::FoundIndex;
use imgfs_core::source::read_blob;
use imgfs_core::store::Store;
use imgfs_core::work::builds;
use imgfs_formats::layer::LayerIndex;
use imgfs_formats::oci::{Descriptor, Midstates};

/// Fetch an image's layers, make their indexes anew, and compare them with what is published.
#[derive(Args)]
#[command(after_help = "\
Nothing is taken from the cache, and nothing is kept.

Exit status: 1 also if something differs, or nothing is published.

Examples:
  imgfs index verify registry.example/team/tool:1
  imgfs index verify --json --index-repo registry.example/team/indexes golang:latest")]
pub(crate) struct VerifyArgs {
    /// The image
    image: String,
    #[command(flatten)]
    options: ImageOptions,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Verified {
    layer: String,
    /// `same`, `different` or `unpublished`.
    outcome: &'static str,
    /// What the layer's bytes come to; `null` where nothing is published to be compared with.
    index: Option<String>,
    /// What is published.
    published: Option<String>,
    origin: Option<String>,
    differences: Vec<String>,
}

pub(super) fn verify(globals: &Globals, args: &VerifyArgs) -> anyhow::Result<ExitCode> {
    let verified = super::block_on(verify_all(globals, args))?;
    if args.json {
        output::json(&verified)?;
    } else {
        let cells: Vec<Vec<String>> = verified.iter().map(cells).collect();
        output::table(
            &["LAYER", "OUTCOME", "INDEX DIGEST", "PUBLISHED", "FROM"],
            &cells,
            &[],
        )?;
    }
    for one in &verified {
        for difference in &one.differences {
            output::message(&format!("layer {}: {difference}", short(&one.layer)));
        }
    }
    if verified.iter().all(|one| one.outcome == "unpublished") {
        bail!("no index is published for {}", args.image);
    }
    let differs = verified.iter().any(|one| one.outcome == "different");
    Ok(ExitCode::from(u8::from(differs)))
}

async fn verify_all(globals: &Globals, args: &VerifyArgs) -> anyhow::Result<Vec<Verified>> {
    let store = globals.store()?;
    let request = super::request(&args.options, &args.image)?;
    let images = super::images(globals, &store, &request, false).await?;
    let image = images.first().context("internal: no image")?;
    let published = super::look_for(image, &request)?;
    let mut found = Vec::new();
    for layer in builds(image) {
        let one = published.find(&layer.blob).await;
        for problem in &one.problems {
            tracing::warn!("{problem}");
        }
        found.push((layer, one.index));
    }
    let fetched: Vec<LayerProgress> = (found.iter())
        .filter(|(_, index)| index.is_some())
        .map(|(layer, _)| layer.clone())
        .collect();
    let shown = progress::show(&fetched, globals.quiet);
    let comparing =
        (found.iter()).map(|(layer, index)| compare(&store, image, layer, index.as_ref()));
    let verified = futures_util::future::try_join_all(comparing).await?;
    drop(shown);
    Ok(verified)
}

async fn compare(
    store: &Arc<Store>,
    image: &Image,
    layer: &LayerProgress,
    published: Option<&FoundIndex>,
) -> anyhow::Result<Verified> {
    let blob = &layer.blob;
    let Some(published) = published else {
        return Ok(Verified {
            layer: blob.digest.to_string(),
            outcome: "unpublished",
            index: None,
            published: None,
            origin: None,
            differences: Vec::new(),
        });
    };
    let (index, midstates) = store
        .recompute_index(&image.source, blob, &layer.progress)
        .await?;
    let mut differences = Vec::new();
    match LayerIndex::read(&published.file[..], &blob.digest, true) {
        Ok(claimed) => differences.extend(index.difference(&claimed)),
        Err(err) => differences.push(format!("the published index cannot be read: {err}")),
    }
    if let Some(midstates) = midstates {
        differences.extend(differing_midstates(published, blob, &midstates).await);
    }
    Ok(Verified {
        layer: blob.digest.to_string(),
        outcome: if differences.is_empty() {
            "same"
        } else {
            "different"
        },
        index: Some(index.digest().to_string()),
        published: Some(published.digest.to_string()),
        origin: Some(published.origin.clone()),
        differences,
    })
}

/// What is wrong with the published midstates, if there are any.
async fn differing_midstates(
    published: &FoundIndex,
    blob: &Descriptor,
    found: &Midstates,
) -> Option<String> {
    let (file, source) = published.midstates.as_ref()?;
    let claimed = match read_blob(&**source, file, file.size).await {
        Ok(bytes) => Midstates::decode(&bytes, blob.size),
        Err(err) => return Some(format!("its midstates cannot be fetched: {err}")),
    };
    match claimed {
        Ok(claimed) => found
            .first_difference(&claimed)
            .map(|number| format!("midstate {number} is another")),
        Err(err) => Some(err.to_string()),
    }
}

fn cells(one: &Verified) -> Vec<String> {
    let digest = |digest: &Option<String>| digest.as_deref().map_or("-".to_owned(), short);
    vec![
        short(&one.layer),
        one.outcome.to_owned(),
        digest(&one.index),
        digest(&one.published),
        place(one.origin.as_deref().unwrap_or("-")),
    ]
}
