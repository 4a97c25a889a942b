//! What SOCI indexes come to, good ones and others.

use std::collections::BTreeMap;
use std::sync::Mutex;

use serde_json::{Value, json};

use super::*;
use crate::error::Result;
use crate::source::{ByteStream, Resolved, SourceError, Traffic};
use crate::store::DEFAULT_LIMIT;

const LAYER: &[u8] = include_bytes!("../../tests/data/soci/layer.tar.gz");
const ZTOC: &[u8] = include_bytes!("../../tests/data/soci/layer.ztoc");
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// A source with blobs and manifests in memory, which notes what it is asked for.
#[derive(Default)]
struct Memory {
    content: HashMap<Digest, Bytes>,
    asked: Mutex<Vec<Digest>>,
}

impl Memory {
    fn put(&mut self, bytes: impl Into<Bytes>) -> Digest {
        let bytes = bytes.into();
        let digest = Digest::sha256(&bytes);
        self.content.insert(digest, bytes);
        digest
    }

    fn get(&self, digest: &Digest) -> Result<ByteStream, SourceError> {
        self.asked.lock().unwrap().push(*digest);
        match self.content.get(digest) {
            Some(bytes) => Ok(ByteStream::of(bytes.clone())),
            None => Err(SourceError::Offline {
                reference: "memory".to_owned(),
                what: "that".to_owned(),
            }),
        }
    }

    fn asked(&self) -> usize {
        self.asked.lock().unwrap().len()
    }
}

#[async_trait::async_trait]
impl BlobSource for Memory {
    async fn resolve(&self, _: Option<&Descriptor>) -> Result<Resolved, SourceError> {
        unreachable!("the image is resolved")
    }

    async fn open_manifest(&self, descriptor: &Descriptor) -> Result<ByteStream, SourceError> {
        self.get(&descriptor.digest)
    }

    async fn open(&self, blob: &Descriptor, _: Range<u64>) -> Result<ByteStream, SourceError> {
        self.get(&blob.digest)
    }

    async fn tags(&self) -> Result<Vec<String>, SourceError> {
        unreachable!("nobody asks for tags")
    }

    fn traffic(&self) -> Traffic {
        Traffic::default()
    }

    fn describe(&self) -> String {
        "memory".to_owned()
    }

    fn parallel_ranges(&self) -> usize {
        1
    }
}

/// An image of one layer, its SOCI index as JSON, and a cache.
struct World {
    source: Memory,
    store: Store,
    index: Value,
    layer: Descriptor,
    _dir: tempfile::TempDir,
}

fn listed(media_type: &str, bytes: &[u8], layer: &Digest) -> Value {
    json!({
        "mediaType": media_type, "digest": Digest::sha256(bytes), "size": bytes.len(),
        "annotations": {LAYER_DIGEST: layer.to_string()},
    })
}

impl World {
    fn new(version: &str) -> Self {
        let mut source = Memory::default();
        source.put(ZTOC);
        let layer = Descriptor::of_document(Digest::sha256(LAYER), LAYER.len() as u64);
        let index = json!({
            "schemaVersion": 2, "mediaType": MANIFEST,
            "config": {"mediaType": version, "digest": Digest::sha256(b"{}"), "size": 2},
            "layers": [listed("application/octet-stream", ZTOC, &layer.digest)],
        });
        let dir = tempfile::tempdir().unwrap();
        Self {
            source,
            store: Store::open(dir.path(), DEFAULT_LIMIT).unwrap(),
            index,
            layer,
            _dir: dir,
        }
    }

    /// The image's manifest, naming the index as it is now.
    fn manifest(&mut self) -> Manifest {
        let digest = self.source.put(self.index.to_string());
        Manifest {
            config: self.layer.clone(),
            layers: vec![self.layer.clone()],
            annotations: BTreeMap::from([(INDEX_DIGEST.to_owned(), digest.to_string())]),
        }
    }

    async fn search(&mut self) -> Result<Option<FoundZtocs>> {
        let manifest = self.manifest();
        match pinned(&self.store, &self.source, &manifest).await? {
            Some(index) => index.find(&self.source, &self.layer).await,
            None => Ok(None),
        }
    }

    async fn failure(&mut self) -> String {
        match self.search().await {
            Ok(found) => format!("{:?}", found.map(|found| found.problem)),
            Err(err) => format!("{err:#}"),
        }
    }
}

#[tokio::test]
async fn the_manifest_leads_to_the_ztoc() {
    let mut world = World::new(SOCI_V2);
    let found = world.search().await.unwrap().unwrap();
    let manifest = world.manifest();
    let index = pinned(&world.store, &world.source, &manifest).await;
    let index = index.unwrap().unwrap();
    assert_eq!(index.ztoc(&world.layer.digest), Some(Digest::sha256(ZTOC)));
    assert_eq!(index.trust, Trust::Pinned);
    assert_eq!(found.index.blob, world.layer.digest);
    assert_eq!(found.index.toc.len(), 6);
    assert!(found.prefetch.is_empty() && found.problem.is_none());
    assert_eq!(world.source.asked(), 2, "the index, the zTOC");
    // The index is in the cache now.
    world.search().await.unwrap().unwrap();
    assert_eq!(world.source.asked(), 3);
}

#[tokio::test]
async fn without_a_ztoc_there_is_nothing_to_say() {
    let mut world = World::new(SOCI_V2);
    let manifest = Manifest {
        annotations: BTreeMap::new(),
        ..world.manifest()
    };
    let none = pinned(&world.store, &world.source, &manifest).await;
    assert!(none.unwrap().is_none());
    assert_eq!(world.source.asked(), 0);
    world.index["layers"] = json!([listed("x", ZTOC, &Digest::sha256(b"another layer"))]);
    assert_eq!(world.failure().await, "None");
    world.index["layers"] = json!([]);
    assert_eq!(world.failure().await, "None");
}

#[tokio::test]
async fn every_defect_has_its_words() {
    let check = async |expected: &str, change: &dyn Fn(&mut World)| {
        let mut world = World::new(SOCI_V2);
        change(&mut world);
        let found = world.failure().await;
        assert!(found.contains(expected), "{expected:?}: {found}");
    };
    check("None", &|_| {}).await;
    check(
        "of the type \"application/vnd.amazon.soci.index.v1+json\"",
        &|world| {
            world.index["config"]["mediaType"] = json!(SOCI_V1);
        },
    )
    .await;
    check("not a valid manifest", &|world| world.index = json!([])).await;
    check("the SOCI index of layer", &|world| {
        world.source.content.clear();
    })
    .await;
    check("more than", &|world| {
        world.index["layers"][0]["size"] = json!(200_u64 << 20);
    })
    .await;
    check("version \"x.9\"", &|world| {
        let bad: Vec<u8> = ZTOC.to_vec();
        let at = bad.windows(3).position(|three| three == b"0.9").unwrap();
        let mut bad = bad;
        bad[at] = b'x';
        world.index["layers"] = json!([listed("x", &bad, &world.layer.digest)]);
        world.source.put(bad);
    })
    .await;
    check("is of a layer of 329 bytes, and this one has 5", &|world| {
        world.layer.size = 5;
    })
    .await;

    let mut world = World::new(SOCI_V2);
    let mut manifest = world.manifest();
    manifest
        .annotations
        .insert(INDEX_DIGEST.to_owned(), "sha256:5".to_owned());
    let err = pinned(&world.store, &world.source, &manifest)
        .await
        .unwrap_err();
    assert!(format!("{err:#}").contains("is \"sha256:5\""), "{err:#}");
    let digest = world.source.put("other bytes");
    world
        .source
        .content
        .insert(digest, Bytes::from_static(b"changed bytes"));
    manifest
        .annotations
        .insert(INDEX_DIGEST.to_owned(), digest.to_string());
    let err = pinned(&world.store, &world.source, &manifest)
        .await
        .unwrap_err();
    assert!(format!("{err:#}").contains("SOCI index"), "{err:#}");
    assert!(world.store.document(&digest).unwrap().is_none());
    let huge = vec![b' '; 5 << 20];
    let digest = world.source.put(huge);
    manifest
        .annotations
        .insert(INDEX_DIGEST.to_owned(), digest.to_string());
    let err = pinned(&world.store, &world.source, &manifest)
        .await
        .unwrap_err();
    assert!(format!("{err:#}").contains("more than"), "{err:#}");
}

#[tokio::test]
async fn a_prefetch_list_becomes_ranges_and_a_bad_one_a_message() {
    let check = async |list: &str, expected: (usize, Option<&str>)| {
        let mut world = World::new(SOCI_V2);
        let digest = world.layer.digest;
        let layers = world.index["layers"].as_array_mut().unwrap();
        layers.push(listed(PREFETCH, list.as_bytes(), &digest));
        world.source.put(list.to_owned());
        let found = world.search().await.unwrap().unwrap();
        assert_eq!(found.prefetch.len(), expected.0, "{list}");
        let problem = found.problem.unwrap_or_default();
        assert!(problem.contains(expected.1.unwrap_or("")), "{problem}");
        assert_eq!(problem.is_empty(), expected.1.is_none(), "{problem}");
    };
    let list = |end: u32| {
        format!(r#"{{"version":"1.0","prefetch_spans":[{{"start_span":0,"end_span":{end}}}]}}"#)
    };
    check(&list(0), (1, None)).await;
    check(&list(1), (0, Some("spans 0 to 1 of 1"))).await;
    check("{}", (0, Some("prefetch list is not used"))).await;
}

#[tokio::test]
async fn version_1_is_claimed_by_referrers_of_this_image() {
    let mut world = World::new(SOCI_V1);
    let image = Digest::sha256(b"the image");
    let put = |world: &mut World, artifact_type: &str, subject: &Digest| {
        world.index["subject"] = json!({"mediaType": MANIFEST, "digest": subject, "size": 9});
        let text = world.index.to_string();
        let digest = world.source.put(text.clone());
        let mut descriptor = Descriptor::of_document(digest, text.len() as u64);
        descriptor.artifact_type = artifact_type.to_owned();
        descriptor
    };
    let good = put(&mut world, SOCI_V1, &image);
    let foreign = put(&mut world, SOCI_V1, &Digest::sha256(b"another image"));
    let other = put(&mut world, "application/spdx+json", &image);
    let untyped = Descriptor {
        artifact_type: String::new(),
        ..good.clone()
    };
    let check = async |referrers: &[Descriptor]| {
        let found = claimed(&world.store, &world.source, &image, referrers).await;
        match found {
            Ok(Some(index)) => {
                let found = index.find(&world.source, &world.layer).await.unwrap();
                assert!(found.is_some());
                index.trust.name().to_owned()
            }
            Ok(None) => "nothing".to_owned(),
            Err(err) => format!("{err:#}"),
        }
    };
    assert_eq!(check(&[]).await, "nothing");
    assert_eq!(check(std::slice::from_ref(&other)).await, "nothing");
    assert_eq!(check(&[other, foreign.clone(), good]).await, "claimed");
    assert_eq!(check(&[untyped]).await, "claimed");
    let problem = check(&[foreign]).await;
    assert!(problem.contains("is of another image than"), "{problem}");
}
