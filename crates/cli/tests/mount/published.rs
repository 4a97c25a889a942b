//! Published indexes, as a mount looks for them: what is used, what is refused and why, and what is
//! asked for.

use std::collections::BTreeMap;

use imgfs_core::indexes::{FindOptions, Published, PublishedAnswer, Vouched};
use imgfs_core::source::{Options, RetryPolicy};
use imgfs_formats::layer::LayerIndex;
use imgfs_formats::oci::{
    Artifact, Descriptor, Digest, EMPTY_CONFIG, LAYER_INDEX, PublicKey, PublishedIndex, Reference,
    SigningKey,
};

use super::support::image::{OCI_MANIFEST, descriptor};
use super::*;

/// Keys made with `openssl genpkey -algorithm ed25519`, for these tests alone.
const KEY: &str = "-----BEGIN PRIVATE KEY-----\n\
MC4CAQAwBQYDK2VwBCIEIBQ2huwVSmy/LnySAaZEnKuqFBLz3gXnwUgeN1YUbrEe\n\
-----END PRIVATE KEY-----\n";
const PUBLIC: &str = "-----BEGIN PUBLIC KEY-----\n\
MCowBQYDK2VwAyEA+rh6lxrYF+3Ei7JWX3ktYyye7v5EPkI1p+YOjZhiwM0=\n\
-----END PUBLIC KEY-----\n";
const OTHER_PUBLIC: &str = "-----BEGIN PUBLIC KEY-----\n\
MCowBQYDK2VwAyEA/GAj/XPk9gLO1XZ7TJ7j2zWWjgXImHlULDsU1rlyZPc=\n\
-----END PUBLIC KEY-----\n";

fn key() -> SigningKey {
    SigningKey::from_pem(KEY.as_bytes()).unwrap()
}

fn public(pem: &str) -> PublicKey {
    PublicKey::from_pem(pem.as_bytes()).unwrap()
}

fn options() -> Options {
    Options {
        retry: RetryPolicy {
            attempts: 2,
            ..RetryPolicy::default()
        },
        ..Options::default()
    }
}

/// An image of two layers in a registry, and an artifact with their indexes that can be spoilt
/// before it is there.
struct Case {
    world: World,
    subject: Descriptor,
    layers: Vec<Descriptor>,
    artifact: Artifact,
}

impl Case {
    fn new() -> Self {
        let world = World::new();
        let image = host_image(vec![
            gzip(&[file("a", noise(1, 300_000))]),
            zstd(&[file("b", noise(2, 200_000)), dir("c")]),
        ]);
        let subject = world.registry.put_image("r", "t", &image);
        world.registry.put_blob(EMPTY_CONFIG);
        let mut case = Self {
            artifact: Artifact {
                subject: Some(Descriptor::of_manifest(&image.manifest)),
                indexes: Vec::new(),
            },
            layers: (image.layers.iter())
                .map(|layer| descriptor(layer.media_type, &layer.blob))
                .collect(),
            subject,
            world,
        };
        for layer in &image.layers {
            let index = LayerIndex::of_blob(&layer.blob).unwrap();
            let file = index.encode().unwrap();
            case.add(index.blob, index.digest(), &file);
        }
        case
    }

    /// Lists `file` as the index of a layer.
    fn add(&mut self, layer: Digest, digest: Digest, file: &[u8]) {
        let blob = self.world.registry.put_blob(file.to_vec());
        self.artifact.indexes.push(PublishedIndex {
            layer,
            digest,
            index: Descriptor {
                media_type: LAYER_INDEX.to_owned(),
                ..blob
            },
            midstates: None,
            signatures: BTreeMap::new(),
        });
    }

    /// Another file in the place of the first layer's index.
    fn replace(&mut self, change: impl FnOnce(&mut Vec<u8>)) {
        let known = self.artifact.indexes[0].clone();
        let mut file = self
            .world
            .registry
            .blob(&known.index.digest)
            .unwrap()
            .to_vec();
        change(&mut file);
        self.artifact.indexes.remove(0);
        self.add(known.layer, known.digest, &file);
    }

    /// Puts the artifact where the referrers API finds it.
    fn beside(&self) {
        self.world.registry.have_referrers(10);
        let body = self.artifact.encode();
        self.world
            .registry
            .put_manifest("r", "artifact", OCI_MANIFEST, body);
        self.world.registry.forget_requests();
    }

    fn published(&self, options: FindOptions) -> Published {
        let reference: Reference = self.world.registry.reference("r:t").parse().unwrap();
        let source = imgfs_core::source::open(&reference, &self::options()).unwrap();
        Published::start(source, self.subject.digest, options)
    }

    async fn find(&self, layer: usize, options: FindOptions) -> PublishedAnswer {
        self.published(options).find(&self.layers[layer]).await
    }

    /// The first layer's index is not used, and this is said.
    async fn refused(&self, words: &[&str]) {
        let said = self.said_instead(words).await;
        let layer = format!("layer {}: ", self.layers[0].digest.short());
        assert!(said.contains(&layer), "{said}");
    }

    /// No index is found for the first layer; what is said, all of this with it.
    async fn said_instead(&self, words: &[&str]) -> String {
        let published = self.published(FindOptions::default());
        let found = published.find(&self.layers[0]).await;
        assert!(found.index.is_none(), "{words:?}");
        let said = found.problems.join("\n");
        for word in words {
            assert!(said.contains(word), "{word}: {said}");
        }
        said
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn all_layers_indexes_cost_one_lookup_and_a_request_each() {
    let case = Case::new();
    case.beside();
    let published = case.published(FindOptions::default());
    let (first, second) = tokio::join!(
        published.find(&case.layers[0]),
        published.find(&case.layers[1])
    );
    for (found, layer) in [first, second].iter().zip(&case.layers) {
        assert_eq!(found.problems, [""; 0]);
        let index = found.index.as_ref().unwrap();
        assert_eq!(index.index.blob, layer.digest);
        assert_eq!(index.vouched, Vouched::Nobody);
        assert!(index.origin.contains("/r@sha256:"), "{}", index.origin);
    }
    // The tag that stands in for the API is asked for beside it, unless the API is quicker than
    // that.
    let tag = case.subject.digest.tag();
    let mut paths: Vec<String> = (case.world.registry.requests().iter())
        .map(|seen| seen.path.rsplit_once('/').unwrap())
        .filter(|(_, last)| *last != tag)
        .map(|(path, _)| path.to_owned())
        .collect();
    paths.sort();
    let expected = [
        "/v2/r/blobs",
        "/v2/r/blobs",
        "/v2/r/manifests",
        "/v2/r/referrers",
    ];
    assert_eq!(paths, expected);
    let asked: Vec<String> = (case.world.registry.requests().iter())
        .map(|seen| seen.path.clone())
        .collect();
    for layer in &case.layers {
        let path = format!("/v2/r/blobs/{}", layer.digest);
        assert!(!asked.contains(&path), "a layer was fetched");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_published_under_the_tag_is_found_too() {
    let case = Case::new();
    let body = case.artifact.encode();
    let registry = &case.world.registry;
    registry.put_manifest("r", "artifact", OCI_MANIFEST, body.clone());
    let list = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": support::image::OCI_INDEX,
        "manifests": [Artifact::descriptor(&body)],
    });
    let tag = case.subject.digest.tag();
    registry.put_manifest("r", &tag, support::image::OCI_INDEX, list.to_string());
    let found = case.find(0, FindOptions::default()).await;
    assert!(found.index.is_some(), "{:?}", found.problems);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_published_is_no_problem() {
    let case = Case::new();
    let repository = case.world.registry.reference("indexes").parse().unwrap();
    let options = FindOptions {
        repository: Some(repository),
        options: self::options(),
        ..FindOptions::default()
    };
    let found = case.find(0, options).await;
    assert!(found.index.is_none());
    assert_eq!(found.problems, [""; 0]);
    // Something else under the tag is as good as nothing.
    let tag = case.subject.digest.tag();
    case.world
        .registry
        .put_manifest("r", &tag, "text/html", "<html>");
    let found = case.find(0, FindOptions::default()).await;
    assert!(found.index.is_none());
    assert_eq!(found.problems, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repository_of_indexes_serves_any_image_with_the_layer() {
    let mut case = Case::new();
    case.artifact.subject = None;
    case.artifact.indexes.truncate(1);
    let registry = &case.world.registry;
    let tag = case.layers[0].digest.tag();
    registry.put_manifest("indexes", &tag, OCI_MANIFEST, case.artifact.encode());
    let options = FindOptions {
        repository: Some(registry.reference("indexes:whatever").parse().unwrap()),
        options: self::options(),
        ..FindOptions::default()
    };
    let found = case.find(0, options.clone()).await;
    let index = found.index.unwrap();
    assert!(
        index.origin.ends_with(&format!("/indexes:{tag}")),
        "{}",
        index.origin
    );
    assert!(case.find(1, options.clone()).await.index.is_none());
    // It is what the user wants: what is beside the image is not waited for, or its silence would
    // be a problem.
    registry.fault_always(On::Referrers, Fault::Silence);
    let found = case.find(0, options).await;
    assert!(found.index.is_some());
    assert_eq!(found.problems, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signature_pins() {
    let mut case = Case::new();
    case.artifact.sign(&key());
    case.beside();
    let with = |pem: &str| FindOptions {
        key: Some(public(pem)),
        ..FindOptions::default()
    };
    let found = case.find(0, with(PUBLIC)).await;
    assert_eq!(found.problems, [""; 0]);
    assert_eq!(
        found.index.unwrap().vouched,
        Vouched::Signed(key().public().id())
    );
    // Another key has not signed it.
    let found = case.find(0, with(OTHER_PUBLIC)).await;
    assert!(
        found.problems[0].contains("is not signed with the key"),
        "{:?}",
        found.problems
    );
    assert_eq!(found.index.unwrap().vouched, Vouched::Nobody);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_signature_does_not_pin() {
    let mut case = Case::new();
    case.artifact.sign(&key());
    // The signature of the other layer's index.
    let other = case.artifact.indexes[1].signatures.clone();
    case.artifact.indexes[0].signatures = other;
    case.beside();
    let options = FindOptions {
        key: Some(public(PUBLIC)),
        ..FindOptions::default()
    };
    let found = case.find(0, options).await;
    assert!(
        found.problems[0].contains("wrong signature"),
        "{:?}",
        found.problems
    );
    assert_eq!(found.index.unwrap().vouched, Vouched::Nobody);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_signed_one_of_several_is_taken() {
    let mut case = Case::new();
    case.beside();
    case.artifact.sign(&key());
    let body = case.artifact.encode();
    case.world
        .registry
        .put_manifest("r", "signed", OCI_MANIFEST, body);
    let options = FindOptions {
        key: Some(public(PUBLIC)),
        ..FindOptions::default()
    };
    let found = case.find(0, options).await;
    assert_eq!(found.problems, [""; 0]);
    assert_eq!(
        found.index.unwrap().vouched,
        Vouched::Signed(key().public().id())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_of_another_layer_is_refused() {
    let mut case = Case::new();
    let (first, second) = (
        case.artifact.indexes[0].layer,
        case.artifact.indexes[1].layer,
    );
    case.artifact.indexes[0].layer = second;
    case.artifact.indexes[1].layer = first;
    case.beside();
    case.refused(&["index of another blob", "all of the layer is fetched"])
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_index_is_refused() {
    let mut case = Case::new();
    // The first section begins behind 320 bytes of header.
    case.replace(|file| file.truncate(400));
    case.beside();
    case.refused(&["ends early"]).await;

    let mut case = Case::new();
    case.replace(|file| file[8] += 1);
    case.beside();
    case.refused(&["not an index file of version"]).await;

    let mut case = Case::new();
    // The first section begins behind the header and its check.
    case.replace(|file| file[330] ^= 1);
    case.beside();
    case.refused(&["damaged index file"]).await;

    let mut case = Case::new();
    case.artifact.indexes[0].digest = Digest::sha256(b"another index");
    case.beside();
    case.refused(&["should have the index digest"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_too_large_is_not_fetched() {
    let mut case = Case::new();
    case.artifact.indexes[0].index.size = 2 << 30;
    case.beside();
    case.refused(&["2147483648 bytes, more than the limit"])
        .await;
    let requests = case.world.registry.requests();
    assert!(requests.iter().all(|seen| !seen.path.contains("/blobs/")));
}

#[tokio::test(flavor = "multi_thread")]
async fn other_manifests_are_refused() {
    // One that is listed as what it is not.
    let case = Case::new();
    let registry = &case.world.registry;
    let other = String::from_utf8(case.artifact.encode()).unwrap();
    let other = other.replace("vnd.imgfs.index.v1", "vnd.other.v1");
    let listed = registry.put_manifest("r", "other", OCI_MANIFEST, other);
    let entry = Descriptor {
        artifact_type: imgfs_formats::oci::INDEX_ARTIFACT.to_owned(),
        ..listed
    };
    let list = serde_json::json!({
        "schemaVersion": 2, "mediaType": support::image::OCI_INDEX, "manifests": [entry],
    });
    let tag = case.subject.digest.tag();
    registry.put_manifest("r", &tag, support::image::OCI_INDEX, list.to_string());
    case.said_instead(&["of the type \"application/vnd.other.v1\""])
        .await;

    // One of another image, listed for this one.
    let mut case = Case::new();
    case.artifact.subject = Some(Descriptor::of_manifest(b"{}"));
    let body = case.artifact.encode();
    let registry = &case.world.registry;
    registry.put_manifest("r", "other", OCI_MANIFEST, body.clone());
    let list = serde_json::json!({
        "schemaVersion": 2, "mediaType": support::image::OCI_INDEX,
        "manifests": [Artifact::descriptor(&body)],
    });
    registry.put_manifest("r", &tag, support::image::OCI_INDEX, list.to_string());
    case.said_instead(&["do not say that they belong to this image"])
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_fails_is_a_problem_and_no_error() {
    let case = Case::new();
    case.beside();
    case.world
        .registry
        .fault_always(On::Referrers, Fault::Status(503));
    case.said_instead(&["whether an index is published is not known"])
        .await;
    // Once for all layers.
    let published = case.published(FindOptions::default());
    assert_eq!(published.find(&case.layers[0]).await.problems.len(), 1);
    assert_eq!(published.find(&case.layers[1]).await.problems, [""; 0]);

    let case = Case::new();
    case.beside();
    case.world
        .registry
        .fault_always(On::Blob, Fault::Status(500));
    case.refused(&["is not used"]).await;

    // Another registry is not there at all.
    let case = Case::new();
    case.beside();
    let options = FindOptions {
        repository: Some("127.0.0.1:1/indexes".parse().unwrap()),
        options: self::options(),
        ..FindOptions::default()
    };
    let found = case.find(0, options).await;
    assert!(found.index.is_some());
    assert!(
        found.problems[0].contains("127.0.0.1:1"),
        "{:?}",
        found.problems
    );
}
