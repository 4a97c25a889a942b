//! `imgfs inspect`.

use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;

use clap::Args;
use serde::Serialize;
use serde_json::{Value, json};

use super::format::Format;
use super::globals::{Globals, ImageOptions, runtime};
use super::layers::{LayerInfo, infos};
use super::{output, time};
use imgfs_core::image::{Image, known_layers};
use imgfs_core::source::VerifiedDocument;
use imgfs_core::store::Store;
use imgfs_formats::oci::{Digest, Document, Reference};

/// Show what an image is made of: digests, platforms, layers, config.
#[derive(Args)]
#[command(after_help = "\
A layer has two digests: of the blob as it is distributed (DIGEST) and of its uncompressed \
content (DIFF ID). INDEX is what its files can be reached by without fetching all of it, as in \
imgfs layers.

Examples:
  imgfs inspect golang
  imgfs inspect -f '{{json .Config.Env}}' golang
  imgfs inspect --json golang | jq '.layers[].diff_id'")]
pub(super) struct InspectArgs {
    /// The image
    image: String,
    #[command(flatten)]
    options: ImageOptions,
    #[arg(
        long,
        short,
        value_name = "FORMAT",
        conflicts_with = "json",
        help = "json or a Go template with Docker's fields: Id, RepoTags, RepoDigests, Created, Architecture, Os, Variant, Size (as \
                distributed), Config, RootFS; and Reference, Digest, Manifest, Platforms, Layers"
    )]
    format: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// The whole of an image. Sizes in bytes.
#[derive(Serialize)]
struct Inspection<'a> {
    reference: String,
    /// What the reference points to: a list or a manifest.
    digest: String,
    /// The manifest for the platform.
    manifest: String,
    /// Docker's image ID: the config's digest.
    id: String,
    platform: String,
    /// Those that the list offers; none if the reference points to a manifest.
    platforms: Vec<PlatformInfo>,
    created: Option<&'a str>,
    /// All layers together, as they are distributed.
    size: u64,
    layers: Vec<LayerInfo>,
    config: &'a serde_json::Value,
}

/// An image of a list.
#[derive(Serialize)]
struct PlatformInfo {
    platform: String,
    /// Of its manifest.
    digest: String,
}

pub(super) fn inspect(globals: &Globals, args: &InspectArgs) -> anyhow::Result<()> {
    let store = globals.store()?;
    let request = args.options.request(&args.image)?;
    let image = runtime()?.block_on(Image::resolve(&store, &request))?;
    time::say_freshness(&image.freshness, globals.quiet);
    let resolved = &image.resolved;
    let digest = |position: Option<&VerifiedDocument>| {
        position
            .map(|document| document.descriptor.digest.to_string())
            .unwrap_or_default()
    };
    let blobs = resolved.manifest.layers.iter();
    let inspection = Inspection {
        reference: image.reference.to_string(),
        digest: digest(resolved.chain.first()),
        manifest: digest(resolved.chain.last()),
        id: resolved.manifest.config.digest.to_string(),
        platform: resolved.platform().to_string(),
        platforms: platforms(resolved.chain.first())?,
        created: resolved.config.created.as_deref(),
        size: blobs.map(|blob| blob.size).fold(0, u64::saturating_add),
        layers: infos(&known_layers(&store, &image)?),
        config: &resolved.config.config,
    };
    if args.json {
        return output::json(&inspection);
    }
    let Some(format) = &args.format else {
        return print(&inspection);
    };
    let fields = docker_fields(&inspection, &image, &names(&store, &image)?);
    match Format::from_str(format)? {
        Format::Json | Format::Table => output::line(&fields.to_string()),
        Format::Rows(template) | Format::Columns(template) => output::line(&template.run(&fields)?),
    }
}

/// What an image is called.
struct Names {
    tags: Vec<String>,
    /// With a digest.
    pinned: Vec<String>,
}

/// The names that the cache knows the image by, and the one it was asked for by. Reads the disk.
fn names(store: &Store, image: &Image) -> anyhow::Result<Names> {
    let resolved = &image.resolved;
    let digest = |document: &VerifiedDocument| document.descriptor.digest;
    let manifest = resolved.chain.last().map(digest);
    let known = store.images()?.into_iter();
    let known = known.filter(|known| Some(known.digest) == manifest);
    // A tag that others moved on meanwhile is none of this image any more, so each has the digest
    // it stands for.
    let mut named: BTreeMap<String, Digest> = known
        .flat_map(|known| known.tags)
        .map(|tag| (tag.reference, tag.descriptor.digest))
        .collect();
    if let Some(root) = resolved.chain.first().map(digest) {
        named.insert(image.reference.to_string(), root);
    }
    let (mut tags, mut pinned) = (Vec::new(), BTreeSet::new());
    for (name, digest) in named {
        let reference: Reference = name.parse()?;
        if reference.digest().is_none() {
            tags.push(name);
        }
        if let Some((host, repository)) = reference.repository() {
            pinned.insert(format!("{host}/{repository}@{digest}"));
        }
    }
    Ok(Names {
        tags,
        pinned: pinned.into_iter().collect(),
    })
}

/// What Docker's templates find in an image, and what it does not tell.
fn docker_fields(inspection: &Inspection<'_>, image: &Image, names: &Names) -> Value {
    let config = &image.resolved.config;
    let layers = inspection.layers.iter();
    let diff_ids: Vec<_> = layers.clone().map(|layer| layer.diff_id.as_str()).collect();
    let layers: Vec<_> = layers
        .map(|layer| {
            json!({
                "Layer": layer.layer, "Digest": layer.digest, "DiffID": layer.diff_id, "Size": layer.size,
                "Index": layer.index,
            })
        })
        .collect();
    let platforms: Vec<_> = (inspection.platforms.iter())
        .map(|entry| json!({"Platform": entry.platform, "Digest": entry.digest}))
        .collect();
    json!({
        "Id": inspection.id,
        "RepoTags": names.tags,
        "RepoDigests": names.pinned,
        "Created": inspection.created.unwrap_or_default(),
        "Architecture": config.architecture,
        "Os": config.os,
        "Variant": config.variant,
        "Size": inspection.size,
        "Config": inspection.config,
        "RootFS": {"Type": "layers", "Layers": diff_ids},
        "Reference": inspection.reference,
        "Digest": inspection.digest,
        "Manifest": inspection.manifest,
        "Platforms": platforms,
        "Layers": layers,
    })
}

fn platforms(root: Option<&VerifiedDocument>) -> anyhow::Result<Vec<PlatformInfo>> {
    let Some(root) = root else {
        return Ok(Vec::new());
    };
    let Document::Index(index) = Document::parse(&root.body, None)? else {
        return Ok(Vec::new());
    };
    let entries = index.manifests.iter().filter_map(|entry| {
        // Builders list attestations for the platform unknown/unknown.
        let platform = entry.platform.as_ref()?;
        (platform.os != "unknown").then(|| PlatformInfo {
            platform: platform.to_string(),
            digest: entry.digest.to_string(),
        })
    });
    Ok(entries.collect())
}

fn print(inspection: &Inspection<'_>) -> anyhow::Result<()> {
    let mut facts = vec![
        ("image", inspection.reference.clone()),
        ("digest", inspection.digest.clone()),
        ("manifest", inspection.manifest.clone()),
        ("id", inspection.id.clone()),
        ("platform", inspection.platform.clone()),
    ];
    let names = inspection.platforms.iter();
    let names: Vec<_> = names.map(|entry| entry.platform.as_str()).collect();
    if !names.is_empty() {
        facts.push(("offered", names.join(", ")));
    }
    facts.push((
        "created",
        inspection.created.unwrap_or("unknown").to_owned(),
    ));
    facts.extend(config_facts(inspection.config));
    let (size, count) = (output::size(inspection.size), inspection.layers.len());
    facts.push(("size", format!("{size} in {count} layers")));
    for (name, value) in facts {
        output::line(&format!(
            "{name:<12}{}",
            output::printable(value.as_bytes())
        ))?;
    }
    output::line("")?;
    let rows: Vec<_> = (inspection.layers.iter())
        .map(|layer| {
            vec![
                layer.layer.to_string(),
                layer.digest.clone(),
                layer.diff_id.clone(),
                output::size(layer.size),
                layer.index.clone().unwrap_or_else(|| "none".to_owned()),
            ]
        })
        .collect();
    let heading = ["LAYER", "DIGEST", "DIFF ID", "SIZE", "INDEX"];
    output::table(&heading, &rows, &[0, 3])
}

/// How a container would be started, as far as the config says it.
fn config_facts(config: &serde_json::Value) -> Vec<(&'static str, String)> {
    let mut facts = Vec::new();
    for (key, name) in [
        ("Entrypoint", "entrypoint"),
        ("Cmd", "command"),
        ("WorkingDir", "directory"),
        ("User", "user"),
        ("StopSignal", "stop signal"),
        ("ExposedPorts", "ports"),
        ("Volumes", "volumes"),
        ("Env", "environment"),
        ("Labels", "labels"),
    ] {
        let text = match config.get(key) {
            Some(Value::String(text)) => text.clone(),
            Some(list @ Value::Array(items)) if !items.is_empty() => list.to_string(),
            // Sets are objects with nothing in them.
            Some(Value::Object(items)) if matches!(key, "ExposedPorts" | "Volumes") => {
                let names: Vec<_> = items.keys().map(String::as_str).collect();
                names.join(", ")
            }
            Some(object @ Value::Object(items)) if !items.is_empty() => object.to_string(),
            _ => continue,
        };
        if !text.is_empty() {
            facts.push((name, text));
        }
    }
    facts
}
