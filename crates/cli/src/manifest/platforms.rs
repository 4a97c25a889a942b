//! What the manifests of a list say: `imgfs manifest inspect -v`.

use std::sync::Arc;

use serde::Serialize;

use crate::globals::{Globals, ImageOptions, runtime};
use crate::{output, time};
use imgfs_core::image::{Freshness, Image, Request};
use imgfs_core::store::Store;

/// A manifest. Sizes in bytes.
#[derive(Serialize)]
struct ManifestInfo {
    platform: Option<String>,
    digest: String,
    media_type: String,
    size: u64,
    /// Digest of the config: the image's ID.
    config: String,
    /// Number of layers.
    layers: usize,
    /// Size of all layers as they are distributed.
    layer_bytes: u64,
}

pub(super) fn print(
    globals: &Globals,
    options: &ImageOptions,
    image: &str,
    json: bool,
) -> anyhow::Result<()> {
    let store = globals.store()?;
    let request = options.request(image)?;
    let (infos, freshness) = runtime()?.block_on(manifests(&store, &request))?;
    time::say_freshness(&freshness, globals.quiet);
    if json {
        return output::json(&infos);
    }
    let rows: Vec<_> = infos
        .iter()
        .map(|info| {
            vec![
                info.platform.clone().unwrap_or_else(|| "-".to_owned()),
                info.digest.clone(),
                info.config.clone(),
                info.layers.to_string(),
                output::size(info.layer_bytes),
            ]
        })
        .collect();
    let heading = ["PLATFORM", "DIGEST", "CONFIG", "LAYERS", "SIZE"];
    output::table(&heading, &rows, &[3, 4])
}

/// All manifests that the name leads to.
async fn manifests(
    store: &Arc<Store>,
    request: &Request,
) -> anyhow::Result<(Vec<ManifestInfo>, Freshness)> {
    let (listed, freshness) = Image::manifests(store, request).await?;
    let mut infos: Vec<_> = listed
        .into_iter()
        .map(|(entry, manifest)| ManifestInfo {
            platform: entry.platform.as_ref().map(ToString::to_string),
            digest: entry.digest.to_string(),
            media_type: entry.media_type,
            size: entry.size,
            config: manifest.config.digest.to_string(),
            layers: manifest.layers.len(),
            layer_bytes: (manifest.layers.iter())
                .fold(0, |sum, layer| sum.saturating_add(layer.size)),
        })
        .collect();
    if let [info] = &mut infos[..]
        && info.platform.is_none()
    {
        // Where no list says it the config does.
        let image = Image::resolve(store, request).await?;
        info.platform = Some(image.resolved.platform().to_string());
    }
    Ok((infos, freshness))
}
