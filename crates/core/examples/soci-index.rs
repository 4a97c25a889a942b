//! Makes a SOCI index of version 2 for every image of an OCI layout, to test and to measure reading
//! it.
//!
//! ```text
//! soci-index LAYOUT OUT      LAYOUT has one image or list of images; OUT must not exist and gets the tag "soci"
//! ```
//!
//! As `soci convert` does it: a zTOC for each gzip or plain layer of 10 MiB and more, spans of 4
//! MiB; the image's manifest names the index, and one list has both. Layers that are there already
//! are hard links where possible. Needs about three times the largest layer in memory.
#![allow(
    clippy::unwrap_used,
    reason = "a tool for tests: what is wrong is shown and ends it"
)]

#[path = "../tests/support"]
#[allow(dead_code, unreachable_pub)]
mod support {
    pub mod image;
    pub mod ztoc;
}

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use imgfs_formats::oci::{
    Descriptor, Digest, ImageConfig, ImageIndex, Manifest, MediaType, Platform,
};
use serde_json::{Value, json};
use support::image::{OCI_INDEX, OCI_MANIFEST, descriptor};
use support::ztoc::{SOCI_SPAN, SOCI_V2, Ztoc, is_indexable, soci_index};

/// SOCI's own default: smaller layers are fetched whole.
const MIN_LAYER: u64 = 10 << 20;

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args_os().skip(1);
    let (Some(from), Some(to), None) = (arguments.next(), arguments.next(), arguments.next())
    else {
        bail!("usage: soci-index LAYOUT OUT");
    };
    let layouts = Layouts {
        from: from.into(),
        to: to.into(),
    };
    ensure!(!layouts.to.exists(), "{} exists", layouts.to.display());
    std::fs::create_dir_all(layouts.to.join("blobs/sha256"))?;
    let index = std::fs::read(layouts.from.join("index.json")).context("no OCI layout")?;
    let index: ImageIndex = serde_json::from_slice(&index)?;
    let [root] = &index.manifests[..] else {
        bail!("the layout must have one image or list of images");
    };
    let images = match root.kind() {
        MediaType::ImageIndex => {
            let list: ImageIndex = serde_json::from_slice(&layouts.read(root)?)?;
            list.manifests
        }
        _ => vec![root.clone()],
    };
    let (mut listed, mut indexes) = (Vec::new(), Vec::new());
    for image in &images {
        let (image, index) = convert(&layouts, image)?;
        listed.push(image);
        indexes.extend(index);
    }
    listed.extend(indexes);
    let list = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": listed});
    let mut root = json!(layouts.write(OCI_INDEX, list.to_string().as_bytes())?);
    root["annotations"] = json!({"org.opencontainers.image.ref.name": "soci"});
    let index = json!({"schemaVersion": 2, "manifests": [root]});
    std::fs::write(layouts.to.join("index.json"), index.to_string())?;
    let marker = json!({"imageLayoutVersion": "1.0.0"});
    std::fs::write(layouts.to.join("oci-layout"), marker.to_string())?;
    Ok(())
}

/// The image with the annotation, and its SOCI index if it has large layers: as the list has them.
fn convert(layouts: &Layouts, image: &Descriptor) -> anyhow::Result<(Value, Option<Value>)> {
    let body = layouts.read(image)?;
    let manifest: Manifest = serde_json::from_slice(&body)?;
    let mut ztocs = Vec::new();
    for layer in &manifest.layers {
        layouts.link(layer)?;
        ztocs.push(ztoc(layouts, layer)?);
    }
    let config: ImageConfig = serde_json::from_slice(&layouts.read(&manifest.config)?)?;
    layouts.link(&manifest.config)?;
    let platform = image.platform.clone().unwrap_or_else(|| Platform {
        os: config.os,
        architecture: config.architecture,
        variant: config.variant,
        ..Platform::default()
    });
    let mut body: Value = serde_json::from_slice(&body)?;
    body["mediaType"] = json!(OCI_MANIFEST);
    let mut index = None;
    if ztocs.iter().any(Option::is_some) {
        let (soci, blobs) = soci_index(SOCI_V2, &manifest.layers, &ztocs, &[], None);
        for blob in &blobs {
            layouts.write("", blob)?;
        }
        let soci = layouts.write(OCI_MANIFEST, &soci)?;
        body["annotations"]["com.amazon.soci.index-digest"] = json!(soci.digest);
        let mut soci = json!(soci);
        soci["artifactType"] = json!(SOCI_V2);
        soci["platform"] = json!(platform);
        index = Some(soci);
    }
    let image = layouts.write(OCI_MANIFEST, body.to_string().as_bytes())?;
    if let Some(index) = &mut index {
        index["annotations"] =
            json!({"com.amazon.soci.image-manifest-digest": image.digest.to_string()});
    }
    let mut image = json!(image);
    image["platform"] = json!(platform);
    Ok((image, index))
}

fn ztoc(layouts: &Layouts, layer: &Descriptor) -> anyhow::Result<Option<Bytes>> {
    if layer.size < MIN_LAYER || !is_indexable(&layer.media_type) {
        return Ok(None);
    }
    let ztoc = Ztoc::of_blob(&layouts.read(layer)?, SOCI_SPAN).encode();
    writeln!(
        std::io::stderr(),
        "layer {} of {} bytes: zTOC of {} bytes",
        layer.digest.short(),
        layer.size,
        ztoc.len()
    )?;
    Ok(Some(ztoc))
}

/// What is read and what is written.
struct Layouts {
    from: PathBuf,
    to: PathBuf,
}

fn blob(layout: &Path, digest: &Digest) -> PathBuf {
    let algorithm = digest.algorithm().name();
    layout.join("blobs").join(algorithm).join(digest.hex())
}

impl Layouts {
    fn read(&self, descriptor: &Descriptor) -> anyhow::Result<Vec<u8>> {
        let path = blob(&self.from, &descriptor.digest);
        std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))
    }

    fn write(&self, media_type: &str, bytes: &[u8]) -> anyhow::Result<Descriptor> {
        let descriptor = descriptor(media_type, bytes);
        std::fs::write(blob(&self.to, &descriptor.digest), bytes)?;
        Ok(descriptor)
    }

    fn link(&self, descriptor: &Descriptor) -> anyhow::Result<()> {
        let (from, to) = (
            blob(&self.from, &descriptor.digest),
            blob(&self.to, &descriptor.digest),
        );
        if !to.exists() && std::fs::hard_link(&from, &to).is_err() {
            std::fs::copy(&from, &to)?;
        }
        Ok(())
    }
}
