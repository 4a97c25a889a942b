//! From tags and indexes to images.

use super::*;

#[tokio::test]
async fn a_known_digest_costs_one_head_request() {
    let registry = Registry::start();
    let image = small_image();
    registry.put_image("r", "latest", &image);
    let source = open(&registry.reference("r"), &options());
    let first = source.resolve(None).await.unwrap();
    assert!(first.body.is_some());
    let again = source.resolve(Some(&first.descriptor)).await.unwrap();
    assert!(again.body.is_none());
    assert_eq!(
        registry.log(),
        [
            "GET /v2/r/manifests/latest 200",
            "HEAD /v2/r/manifests/latest 200"
        ]
    );
    registry.forget_requests();
    let other = support::image::image("linux/amd64", vec![]);
    registry.put_image("r", "latest", &other);
    let changed = source.resolve(Some(&first.descriptor)).await.unwrap();
    assert_ne!(changed.descriptor.digest, first.descriptor.digest);
    assert!(changed.body.is_some());
    assert_eq!(
        registry.log(),
        [
            "HEAD /v2/r/manifests/latest 200",
            "GET /v2/r/manifests/latest 200"
        ]
    );
    registry.forget_requests();
    let pinned = format!("r@{}", first.descriptor.digest);
    let pinned = open(&registry.reference(&pinned), &options());
    pinned.resolve(Some(&first.descriptor)).await.unwrap();
    assert!(registry.log().is_empty(), "a known digest needs no request");
}

/// An index of `entries`: (platform or empty, media type, document).
fn index(entries: &[(&str, &Descriptor)]) -> Vec<u8> {
    let entries: Vec<Descriptor> = entries
        .iter()
        .map(|(platform, descriptor)| {
            let mut descriptor = (*descriptor).clone();
            descriptor.platform =
                (!platform.is_empty()).then(|| Platform::parse(platform, &linux()).unwrap());
            descriptor
        })
        .collect();
    serde_json::json!({"schemaVersion": 2, "manifests": entries})
        .to_string()
        .into_bytes()
}

#[tokio::test]
async fn indexes_lead_to_the_image_of_the_platform() {
    let registry = Registry::start();
    let put = |tag: &str, platform: &str| {
        let image = image(platform, vec![plain_layer(tar(&[(tag, b"")]))]);
        registry.put_image("r", tag, &image)
    };
    let amd = put("amd", "linux/amd64");
    let arm = put("arm", "linux/arm64");
    let put_index =
        |tag: &str, body: Vec<u8>| registry.put_manifest("r", tag, support::image::OCI_INDEX, body);
    put_index(
        "flat",
        index(&[("linux/arm64", &arm), ("linux/amd64", &amd)]),
    );
    let inner = put_index("inner", index(&[("", &arm), ("linux/amd64", &amd)]));
    let middle = put_index("middle", index(&[("", &inner)]));
    let outer = put_index("outer", index(&[("", &middle), ("", &middle)]));
    let deep = put_index("deep", index(&[("", &outer)]));
    put_index("deeper", index(&[("", &deep)]));
    put_index("empty", index(&[]));
    let foreign = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip";
    let body = String::from_utf8(small_image().manifest.to_vec()).unwrap();
    registry.put_manifest(
        "r",
        "foreign",
        support::image::OCI_MANIFEST,
        body.replace(support::image::OCI_TAR_GZIP, foreign),
    );
    registry.put_manifest(
        "r",
        "old",
        "application/vnd.docker.distribution.manifest.v1+prettyjws",
        r#"{"schemaVersion":1,"fsLayers":[]}"#,
    );
    registry.put_manifest(
        "r",
        "chart",
        support::image::OCI_MANIFEST,
        body.replace(
            support::image::OCI_CONFIG,
            "application/vnd.oci.empty.v1+json",
        ),
    );
    put_index("unsaid", index(&[("", &arm), ("", &amd)]));
    let check = async |tag: &str, platform: &str, expected: &str| {
        let source = open(&registry.reference(&format!("r:{tag}")), &options());
        let platform = Platform::parse(platform, &linux()).unwrap();
        let got = match resolve_image(source.as_ref(), &platform, None).await {
            Ok(image) => format!("{} {}", image.platform(), image.chain.len()),
            Err(err) => err.to_string(),
        };
        assert!(got.contains(expected), "{tag} for {platform}: {got}");
    };
    check("flat", "linux/amd64", "linux/amd64 2").await;
    check("flat", "linux/arm64", "linux/arm64 2").await;
    check("flat", "linux/s390x", "it offers linux/amd64, linux/arm64").await;
    check("outer", "linux/amd64", "linux/amd64 4").await;
    check("outer", "linux/arm64", "linux/arm64 4").await;
    check("deep", "linux/amd64", "linux/amd64 5").await;
    check("deeper", "linux/amd64", "nested more than 4 deep").await;
    check("empty", "linux/amd64", "lists no image").await;
    check("unsaid", "linux/amd64", "linux/amd64 2").await;
    check(
        "unsaid",
        "linux/s390x",
        "it offers linux/amd64, linux/arm64",
    )
    .await;
    check("amd", "linux/arm64", "linux/amd64 1").await;
    check("foreign", "linux/amd64", "is a foreign layer").await;
    check("old", "linux/amd64", "schema 1").await;
    check("chart", "linux/amd64", "no container image").await;
    check("none", "linux/amd64", "has no image r:none (NOT_FOUND").await;
}
