//! Images made in memory, and written where the sources look for them.

use std::collections::BTreeMap;
use std::path::Path;

use bytes::Bytes;
use imgfs_formats::oci::{Descriptor, Digest};
use serde_json::json;

pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub const OCI_TAR: &str = "application/vnd.oci.image.layer.v1.tar";
pub const OCI_TAR_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
pub const OCI_TAR_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";

/// A layer: as distributed, and its uncompressed tar.
#[derive(Debug, Clone)]
pub struct Layer {
    pub media_type: &'static str,
    pub blob: Bytes,
    pub tar: Bytes,
}

/// An image: manifest, and the blobs it names (config first).
#[derive(Debug, Clone)]
pub struct Image {
    pub media_type: String,
    pub manifest: Bytes,
    pub blobs: Vec<Bytes>,
    pub layers: Vec<Layer>,
}

/// A descriptor of these bytes.
pub fn descriptor(media_type: &str, bytes: &[u8]) -> Descriptor {
    Descriptor {
        media_type: media_type.to_owned(),
        digest: Digest::sha256(bytes),
        size: bytes.len() as u64,
        urls: Vec::new(),
        annotations: BTreeMap::new(),
        artifact_type: String::new(),
        platform: None,
    }
}

/// A plain tar with these files.
pub fn tar(files: &[(&str, &[u8])]) -> Bytes {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        header.set_cksum();
        builder.append_data(&mut header, path, *content).unwrap();
    }
    builder.into_inner().unwrap().into()
}

/// A layer that is distributed as plain tar.
pub fn plain_layer(tar: Bytes) -> Layer {
    Layer {
        media_type: OCI_TAR,
        blob: tar.clone(),
        tar,
    }
}

/// A layer compressed with gzip.
pub fn gzip_layer(tar: Bytes) -> Layer {
    use std::io::Write;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(&tar).unwrap();
    Layer {
        media_type: OCI_TAR_GZIP,
        blob: encoder.finish().unwrap().into(),
        tar,
    }
}

/// A layer compressed with zstd.
pub fn zstd_layer(tar: Bytes) -> Layer {
    Layer {
        media_type: OCI_TAR_ZSTD,
        blob: zstd::encode_all(&tar[..], 3).unwrap().into(),
        tar,
    }
}

/// A list of images, each for its platform (`os/architecture`).
pub fn image_index(images: &[(&str, &Image)]) -> Bytes {
    let entries: Vec<_> = images
        .iter()
        .map(|(platform, image)| {
            let (os, architecture) = platform.split_once('/').unwrap();
            let mut entry = json!(descriptor(&image.media_type, &image.manifest));
            entry["platform"] = json!({"os": os, "architecture": architecture});
            entry
        })
        .collect();
    let index = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries});
    index.to_string().into()
}

/// An image of these layers for `os/architecture`.
pub fn image(platform: &str, layers: Vec<Layer>) -> Image {
    let (os, architecture) = platform.split_once('/').unwrap();
    let diff_ids: Vec<String> = layers
        .iter()
        .map(|layer| Digest::sha256(&layer.tar).to_string())
        .collect();
    let config = json!({
        "os": os, "architecture": architecture,
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
        "config": {"Env": ["A=b"]},
    });
    let config = Bytes::from(config.to_string());
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": descriptor(OCI_CONFIG, &config),
        "layers": layers.iter().map(|layer| descriptor(layer.media_type, &layer.blob)).collect::<Vec<_>>(),
    });
    let blobs = std::iter::once(config)
        .chain(layers.iter().map(|layer| layer.blob.clone()))
        .collect();
    Image {
        media_type: OCI_MANIFEST.to_owned(),
        manifest: manifest.to_string().into(),
        blobs,
        layers,
    }
}

/// Writes an OCI layout with these images under these tags (none for an empty one).
pub fn write_layout(dir: &Path, images: &[(&str, &Image)]) {
    let blobs = dir.join("blobs/sha256");
    std::fs::create_dir_all(&blobs).unwrap();
    let put = |bytes: &[u8]| {
        std::fs::write(blobs.join(Digest::sha256(bytes).hex()), bytes).unwrap();
    };
    let mut entries = Vec::new();
    for (tag, image) in images {
        put(&image.manifest);
        image.blobs.iter().for_each(|blob| put(blob));
        let mut entry = descriptor(&image.media_type, &image.manifest);
        if !tag.is_empty() {
            let key = "org.opencontainers.image.ref.name".to_owned();
            entry.annotations.insert(key, (*tag).to_owned());
        }
        entries.push(entry);
    }
    let index = json!({"schemaVersion": 2, "manifests": entries});
    std::fs::write(dir.join("index.json"), index.to_string()).unwrap();
    std::fs::write(dir.join("oci-layout"), "{\"imageLayoutVersion\":\"1.0.0\"}").unwrap();
}

/// Writes an archive as old versions of `docker save` do: one directory for each layer, a layer
/// that occurs again as a symlink.
pub fn write_old_archive(path: &Path, images: &[(&str, &Image)]) {
    let mut builder = tar::Builder::new(std::fs::File::create(path).unwrap());
    let mut listed = Vec::new();
    let mut stored: BTreeMap<Digest, String> = BTreeMap::new();
    for (number, (tag, image)) in images.iter().enumerate() {
        let config = image.blobs.first().unwrap();
        let config_name = format!("{}.json", Digest::sha256(config).hex());
        append(&mut builder, &config_name, config);
        let mut layers = Vec::new();
        for (position, layer) in image.layers.iter().enumerate() {
            let name = format!("{number}-{position}/layer.tar");
            let digest = Digest::sha256(&layer.tar);
            if let Some(first) = stored.get(&digest) {
                let mut header = tar::Header::new_gnu();
                header.set_entry_type(tar::EntryType::Symlink);
                header.set_size(0);
                builder
                    .append_link(&mut header, &name, format!("../{first}"))
                    .unwrap();
            } else {
                append(&mut builder, &name, &layer.tar);
                stored.insert(digest, name.clone());
            }
            layers.push(name);
        }
        listed.push(json!({"Config": config_name, "RepoTags": [tag], "Layers": layers}));
    }
    append(
        &mut builder,
        "manifest.json",
        json!(listed).to_string().as_bytes(),
    );
    builder.finish().unwrap();
}

/// Writes an archive as newer versions of `docker save` do: an OCI layout with a `manifest.json`
/// beside it.
pub fn write_new_archive(path: &Path, images: &[(&str, &Image)]) {
    let mut builder = tar::Builder::new(std::fs::File::create(path).unwrap());
    let blob_name = |bytes: &[u8]| format!("blobs/sha256/{}", Digest::sha256(bytes).hex());
    let mut entries = Vec::new();
    let mut listed = Vec::new();
    for (tag, image) in images {
        append(&mut builder, &blob_name(&image.manifest), &image.manifest);
        for blob in &image.blobs {
            append(&mut builder, &blob_name(blob), blob);
        }
        let mut entry = descriptor(&image.media_type, &image.manifest);
        let name = format!("docker.io/library/{tag}");
        entry
            .annotations
            .insert("io.containerd.image.name".to_owned(), name);
        entries.push(entry);
        let mut names = image.blobs.iter().map(|blob| blob_name(blob));
        let config = names.next().unwrap();
        let layers: Vec<String> = names.collect();
        listed.push(json!({"Config": config, "RepoTags": [tag], "Layers": layers}));
    }
    append(
        &mut builder,
        "manifest.json",
        json!(listed).to_string().as_bytes(),
    );
    let index = json!({"schemaVersion": 2, "manifests": entries});
    append(&mut builder, "index.json", index.to_string().as_bytes());
    append(
        &mut builder,
        "oci-layout",
        b"{\"imageLayoutVersion\":\"1.0.0\"}",
    );
    builder.finish().unwrap();
}

fn append(builder: &mut tar::Builder<std::fs::File>, name: &str, content: &[u8]) {
    let mut header = tar::Header::new_gnu();
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    header.set_cksum();
    builder.append_data(&mut header, name, content).unwrap();
}
