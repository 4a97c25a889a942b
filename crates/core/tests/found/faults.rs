//! Tables that are wrong, and tables that only came wrong.

use serde_json::{Value, json};

use super::compare::{Times, image};
use super::support::estargz::{Form, write};
use super::support::registry::{Fault, On, Registry};
use super::written::{digest, files, noise, put, written};

/// The first byte of the answer is in the middle of a member here, so that the digest alone can
/// tell.
#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_come_wrong_once_are_asked_for_again() {
    let registry = Registry::start();
    let files: Vec<_> = (0..3000_u32)
        .map(|number| (format!("{number}"), number.to_le_bytes().to_vec()))
        .collect();
    let layer = written(&files, Form::default());
    assert!(layer.table.len() > 64 << 10);
    let image = image(&put(&registry, "t", &layer, &digest(&layer.json))).await;
    registry.forget_requests();
    registry.fault(On::Blob, Fault::Corrupt);
    image.find(0).await.unwrap().unwrap();
    assert_eq!(
        registry.requests().len(),
        4,
        "two requests, and both once more"
    );
    image.check(0, Times::Exact).await;

    // Always wrong: said, and no end of asking.
    registry.forget_requests();
    registry.fault_always(On::Blob, Fault::Corrupt);
    let err = image.find(0).await.unwrap().unwrap_err();
    assert!(err.contains("treated as plain"), "{err}");
    assert!(registry.requests().len() < 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_cannot_be_trusted_is_not_used() {
    let registry = Registry::start();
    let layer = written(&files(), Form::default());
    let check = async |toc_digest: &str, expected: &str| {
        let image = image(&put(&registry, "t", &layer, toc_digest)).await;
        let err = image.find(0).await.unwrap().unwrap_err();
        assert!(err.contains(expected), "{err}");
        assert!(err.contains(&image.layers[0].digest.short()), "{err}");
        assert!(err.contains("treated as plain"), "{err}");
    };
    check(&digest(b"another"), "its digest is").await;
    check("sha256:short", "toc.digest has the value \"sha256:short\"").await;

    // Annotated, but plain.
    let tar = super::support::image::tar(&[("a", &noise(1, 100_000))]);
    let plain = super::support::image::gzip_layer(tar.clone());
    let layer = super::support::estargz::Written {
        blob: plain.blob,
        tar,
        json: "".into(),
        table: "".into(),
    };
    let image = image(&put(&registry, "p", &layer, &digest(b""))).await;
    let err = image.find(0).await.unwrap().unwrap_err();
    assert!(err.contains("does not end in a footer"), "{err}");
}

/// The manifest vouches for a table that says nonsense: no bytes of the layer are asked for by it.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_lies_is_refused() {
    let registry = Registry::start();
    let check = async |expected: &str, change: fn(&mut Value)| {
        let (a, b) = (noise(1, 5000), noise(2, 5000));
        let layer = write(&[("a", &a), ("b", &b)], Form::default(), change);
        let image = image(&put(&registry, "t", &layer, &digest(&layer.json))).await;
        registry.forget_requests();
        let err = image.find(0).await.unwrap().unwrap_err();
        assert!(err.contains(expected), "{err}");
        assert_eq!(registry.requests().len(), 1, "the bytes are right: {err}");
    };
    check("version 2", |table| table["version"] = json!(2)).await;
    check("listed twice", |table| {
        table["entries"][1]["name"] = json!("a");
    })
    .await;
    check("content beyond", |table| {
        table["entries"][1]["offset"] = json!(1_u64 << 40);
    })
    .await;
    check("its content where another file's is", |table| {
        table["entries"][1]["offset"] = table["entries"][0]["offset"].clone();
    })
    .await;
    check("without a digest", |table| {
        for key in ["digest", "chunkDigest"] {
            table["entries"][1][key] = json!("");
        }
    })
    .await;
}

/// What the table says of content is found out when it is read: another file's bytes are no answer.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_with_another_files_digest_cannot_be_read() {
    use imgfs_core::store::{DEFAULT_LIMIT, Slot, Store};
    use imgfs_formats::layer::EntryKind;
    let registry = Registry::start();
    let (a, b) = (noise(1, 5000), noise(2, 5000));
    let layer = write(&[("a", &a), ("b", &b)], Form::default(), |table| {
        let other = table["entries"][0].clone();
        for key in ["digest", "chunkDigest"] {
            table["entries"][1][key] = other[key].clone();
        }
    });
    let image = image(&put(&registry, "t", &layer, &digest(&layer.json))).await;
    let found = image.find(0).await.unwrap().unwrap();
    let entry = found.index.toc.iter().nth(1).unwrap();
    let EntryKind::File { offset, .. } = entry.kind else {
        panic!("it is a file");
    };
    let dir = tempfile::tempdir().unwrap();
    let store = std::sync::Arc::new(Store::open(dir.path(), DEFAULT_LIMIT).unwrap());
    let slot = Slot::found(image.layers[0].digest, &found.identity);
    let layer = store.open_found(&image.source, &image.layers[0], slot, found.index);
    let layer = layer.await.unwrap();
    let mut bytes = vec![0; 5000];
    assert!(layer.reader.read_at(offset, &mut bytes).await.is_err());
    assert!(bytes != b && bytes != a);
}
