//! One contract, every source.

use super::*;

/// What every source must do with a good image.
pub async fn contract(name: &str, source: &dyn BlobSource, expected: &Image) {
    let found = resolve_image(source, &linux(), None)
        .await
        .unwrap_or_else(|err| panic!("{name}: {err}"));
    assert_eq!(found.manifest.layers.len(), expected.layers.len(), "{name}");
    assert!(found.warnings.is_empty(), "{name}: {:?}", found.warnings);
    for (layer, diff_id) in expected.layers.iter().zip(&found.config.rootfs.diff_ids) {
        assert_eq!(
            diff_id.0,
            imgfs_formats::oci::Digest::sha256(&layer.tar),
            "{name}"
        );
    }
    for (descriptor, layer) in found.manifest.layers.iter().zip(&expected.layers) {
        // A docker archive keeps its layers uncompressed.
        let all = if descriptor.size == layer.blob.len() as u64 {
            &layer.blob
        } else {
            &layer.tar
        };
        let size = descriptor.size;
        let stream = source.open(descriptor, 0..size).await.unwrap();
        let verified = read_verified(stream, descriptor, 1 << 20).await.unwrap();
        assert_eq!(verified, all, "{name}");
        for range in [0..0, 0..1, 7..1000, size - 1..size, size..size, 1..size] {
            let got = read(source, descriptor, range.clone()).await.unwrap();
            let wanted = positions(&range);
            assert_eq!(got, all.slice(wanted), "{name} {range:?}");
        }
        assert!(
            read(source, descriptor, 0..size + 1).await.is_err(),
            "{name}"
        );
    }
    // Asked again with what is known, the answer is the same.
    let root = found.chain.first().unwrap().descriptor.clone();
    let again = source.resolve(Some(&root)).await.unwrap();
    assert_eq!(again.descriptor.digest, root.digest, "{name}");
    assert!(again.body.is_none(), "{name}: nothing is transferred again");
    let absent = support::image::descriptor("", b"not there");
    assert!(read(source, &absent, 0..1).await.is_err(), "{name}");
    let manifest = collect(
        source
            .open_manifest(&absent)
            .await
            .unwrap_or_else(|err| ByteStream::new(futures_util::stream::once(async { Err(err) }))),
    )
    .await;
    assert!(manifest.is_err(), "{name}");
    assert!(source.traffic().requests > 0, "{name}");
    assert!(source.traffic().bytes > 0, "{name}");
    assert!(source.parallel_ranges() >= 1, "{name}");
    assert!(!source.describe().is_empty(), "{name}");
}

#[tokio::test]
async fn a_registry_keeps_the_contract() {
    let registry = Registry::start();
    let image = small_image();
    registry.put_image("a/b", "t", &image);
    let source = open(&registry.reference("a/b:t"), &options());
    contract("registry", source.as_ref(), &image).await;
}

#[tokio::test]
async fn a_registry_without_ranges_keeps_the_contract() {
    let registry = Registry::start();
    let image = small_image();
    registry.put_image("a/b", "t", &image);
    registry.fault_always(On::Blob, Fault::IgnoreRange);
    let source = open(&registry.reference("a/b:t"), &options());
    contract("registry without ranges", source.as_ref(), &image).await;
    assert_eq!(source.parallel_ranges(), 1);
}

#[tokio::test]
async fn an_oci_layout_keeps_the_contract() {
    let dir = tempfile::tempdir().unwrap();
    let image = small_image();
    write_layout(dir.path(), &[("t", &image)]);
    let source = open(&format!("oci:{}:t", dir.path().display()), &options());
    contract("oci layout", source.as_ref(), &image).await;
}

#[tokio::test]
async fn docker_archives_keep_the_contract() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("image.tar");
    let image = small_image();
    let other = support::image::image(
        "linux/amd64",
        vec![image.layers[1].clone(), image.layers[0].clone()],
    );
    let images = [("busybox:1", &image), ("busybox:2", &other)];
    for (form, write) in [
        ("old", write_old_archive as fn(&Path, &[(&str, &Image)])),
        ("new", write_new_archive),
    ] {
        write(&file, &images);
        for (tag, image) in images {
            let reference = format!("docker-archive:{}:{tag}", file.display());
            let source = open(&reference, &options());
            contract(&format!("{form} archive"), source.as_ref(), image).await;
        }
        let second = format!("docker-archive:{}:@1", file.display());
        let source = open(&second, &options());
        contract(
            &format!("{form} archive by position"),
            source.as_ref(),
            &other,
        )
        .await;
        let check = |reference: &str, expected: &str| {
            let reference: Reference = reference.parse().unwrap();
            let err = imgfs_core::source::open(&reference, &options())
                .err()
                .unwrap()
                .to_string();
            assert!(err.contains(expected), "{form}: {err}");
        };
        check(
            &format!("docker-archive:{}", file.display()),
            "several images",
        );
        check(&format!("docker-archive:{}:x", file.display()), "busybox:1");
        // Cut off anywhere, it is an error and no panic.
        let all = std::fs::read(&file).unwrap();
        for length in [0, 1, 511, 512, 700, 5000, all.len() / 2] {
            std::fs::write(&file, &all[..length]).unwrap();
            check(
                &format!("docker-archive:{}:@0", file.display()),
                "image.tar",
            );
        }
        std::fs::write(&file, &image.layers[0].blob).unwrap();
        check(&format!("docker-archive:{}", file.display()), "`gunzip`");
    }
}
