//! What the converters that are at hand do not write: several payloads in one member, old footers,
//! external tables.

use imgfs_formats::layer::EntryKind;
use serde_json::json;

use super::compare::{Image, Times, image};
use super::support::estargz::{Footer, Form, Written, write};
use super::support::image::{self as images, Layer, OCI_MANIFEST, OCI_TAR_GZIP, descriptor};
use super::support::registry::Registry;

pub const TOC_DIGEST: &str = "containerd.io/snapshot/stargz/toc.digest";
const LAYER_DIGEST: &str = "containerd.io/snapshot/stargz/layer.digest";

/// Bytes that compress little, and differ from file to file.
pub fn noise(seed: u32, size: usize) -> Vec<u8> {
    let numbers =
        (0..u32::try_from(size).unwrap()).map(|n| (n ^ seed << 20).wrapping_mul(2_654_435_761));
    numbers.map(|n| n.to_le_bytes()[2]).collect()
}

pub fn files() -> Vec<(String, Vec<u8>)> {
    let mut files = vec![("dir/".to_owned(), Vec::new())];
    for number in 0..30_u32 {
        let size = usize::try_from(number * number * 40).unwrap();
        files.push((format!("dir/file-{number}"), noise(number, size)));
    }
    files.push((".prefetch.landmark".to_owned(), vec![15]));
    files.push(("large".to_owned(), noise(99, 700_000)));
    files
}

/// A layer of these files.
pub fn written(files: &[(String, Vec<u8>)], form: Form) -> Written {
    let files: Vec<_> = files
        .iter()
        .map(|(name, it)| (name.as_str(), it.as_slice()))
        .collect();
    write(&files, form, |_| {})
}

/// Puts an image of this layer into the registry, annotated with this digest of the table.
pub fn put(registry: &Registry, tag: &str, layer: &Written, toc_digest: &str) -> String {
    let (blob, tar) = (layer.blob.clone(), layer.tar.clone());
    let layers = vec![Layer {
        media_type: OCI_TAR_GZIP,
        blob,
        tar,
    }];
    let image = images::image("linux/amd64", layers);
    let mut manifest: serde_json::Value = serde_json::from_slice(&image.manifest).unwrap();
    manifest["layers"][0]["annotations"] = json!({ TOC_DIGEST: toc_digest });
    for blob in &image.blobs {
        registry.put_blob(blob.clone());
    }
    registry.put_manifest("r", tag, OCI_MANIFEST, manifest.to_string());
    registry.reference(&format!("r:{tag}"))
}

pub fn digest(bytes: &[u8]) -> String {
    imgfs_formats::oci::Digest::sha256(bytes).to_string()
}

async fn open(registry: &Registry, tag: &str, layer: &Written) -> Image {
    image(&put(registry, tag, layer, &digest(&layer.json))).await
}

#[tokio::test(flavor = "multi_thread")]
async fn members_of_several_payloads_and_old_footers_are_the_same_image() {
    let registry = Registry::start();
    let forms = [
        Form::default(),
        Form {
            chunk: 10_000,
            ..Form::default()
        },
        Form {
            member: 50_000,
            ..Form::default()
        },
        Form {
            chunk: 3000,
            member: 50_000,
            footer: Footer::Old,
        },
        Form {
            chunk: 3000,
            member: usize::MAX,
            footer: Footer::Old,
        },
    ];
    for form in forms {
        let layer = written(&files(), form);
        let image = open(&registry, "t", &layer).await;
        let found = image.check(0, Times::Exact).await;
        // 30 files, one directory and the large one; no landmark.
        assert_eq!(found.index.toc.len(), 32, "{form:?}");
        let landmark = found.prefetch.clone();
        assert_eq!(landmark.is_some(), form.member < usize::MAX, "{form:?}");
        let files = found.index.toc.iter();
        assert!(
            files
                .filter(|it| matches!(it.kind, EntryKind::File { .. }))
                .count()
                == 31
        );
    }
}

/// The first request is for a part of the blob's end; what of the table is not in it takes one
/// more.
#[tokio::test(flavor = "multi_thread")]
async fn a_long_table_takes_two_requests() {
    let registry = Registry::start();
    let files: Vec<_> = (0..3000_u32)
        .map(|number| {
            (
                format!("{:x}/{number}", number.wrapping_mul(2_654_435_761)),
                number.to_le_bytes().to_vec(),
            )
        })
        .collect();
    let layer = written(&files, Form::default());
    assert!(layer.table.len() > 100_000);
    let image = open(&registry, "t", &layer).await;
    registry.forget_requests();
    let found = image.find(0).await.unwrap().unwrap();
    assert_eq!(found.index.toc.len(), 3000);
    let size = layer.blob.len();
    let table = size - 51 - layer.table.len();
    let ranges: Vec<_> = registry
        .requests()
        .into_iter()
        .map(|it| it.range.unwrap())
        .collect();
    let at = size - (64 << 10);
    assert_eq!(
        ranges,
        [
            format!("bytes={at}-{}", size - 1),
            format!("bytes={table}-{}", at - 1)
        ]
    );
    image.check(0, Times::Exact).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_in_another_image_is_found() {
    let registry = Registry::start();
    let form = Form {
        footer: Footer::External,
        ..Form::default()
    };
    let layer = written(&files(), form);
    let image_of = |registry: &Registry| put(registry, "t", &layer, &digest(&layer.json));
    let reference = image_of(&registry);

    let err = image(&reference).await.find(0).await.unwrap().unwrap_err();
    assert!(err.contains("r:t-esgztoc"), "{err}");
    assert!(err.contains("has no image"), "{err}");

    let config = registry.put_blob("{}");
    let put_tables = |table: &bytes::Bytes, of: &str| {
        let mut table = descriptor(OCI_TAR_GZIP, &registry_blob(&registry, table));
        table
            .annotations
            .insert(LAYER_DIGEST.to_owned(), of.to_owned());
        let manifest = json!({
            "schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": [table],
        });
        registry.put_manifest("r", "t-esgztoc", OCI_MANIFEST, manifest.to_string());
    };
    put_tables(&layer.table, &digest(b"another layer"));
    let err = image(&reference).await.find(0).await.unwrap().unwrap_err();
    assert!(err.contains("has none of it"), "{err}");

    let other = written(&[("other".to_owned(), vec![1])], form);
    put_tables(&other.table, &digest(&layer.blob));
    let err = image(&reference).await.find(0).await.unwrap().unwrap_err();
    assert!(err.contains("its digest is"), "{err}");

    put_tables(&layer.table, &digest(&layer.blob));
    let image = image(&reference).await;
    registry.forget_requests();
    image.check(0, Times::Exact).await;
    // One that is asked again asks for nothing but the layer's end and the table.
    registry.forget_requests();
    image.find(0).await.unwrap().unwrap();
    assert_eq!(registry.requests().len(), 2);
}

fn registry_blob(registry: &Registry, bytes: &bytes::Bytes) -> bytes::Bytes {
    registry.put_blob(bytes.clone());
    bytes.clone()
}
