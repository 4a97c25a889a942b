//! The artifact that layer indexes are published in: an OCI image manifest that is no image.
//!
//! ```text
//! artifactType  application/vnd.imgfs.index.v1
//! config        the empty one
//! subject       the image's manifest; none in a repository of indexes
//! layers        for each different layer of the image, in order:
//!                 application/vnd.imgfs.layer-index.v1     the index
//!                   vnd.imgfs.layer                        digest of the image's layer
//!                   vnd.imgfs.index                        digest of the index, by what it says
//!                   vnd.imgfs.signature.<key id>           signatures over both, Base64
//!                 application/vnd.imgfs.midstates.v1       hints, if the layer is larger than one segment
//!                   vnd.imgfs.layer                        digest of the image's layer
//! ```
//!
//! The JSON has one form: the same properties in the same order, annotations sorted, no times. So
//! everybody makes the same artifact of the same indexes.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::manifest::null_is_default;
use super::signature::is_key_id;
use super::{Descriptor, Digest, MAX_MANIFEST_SIZE, MediaType, PublicKey, SigningKey};

/// Type of the artifact.
pub const INDEX_ARTIFACT: &str = "application/vnd.imgfs.index.v1";
/// Type of a layer's index in it.
pub const LAYER_INDEX: &str = "application/vnd.imgfs.layer-index.v1";
/// Type of a layer's midstates in it.
pub const MIDSTATES: &str = "application/vnd.imgfs.midstates.v1";
/// What the config's descriptor points to (image-spec manifest.md, "Guidance for an Empty
/// Descriptor").
pub const EMPTY_CONFIG: &[u8] = b"{}";

const EMPTY: &str = "application/vnd.oci.empty.v1+json";
const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const LAYER: &str = "vnd.imgfs.layer";
const INDEX: &str = "vnd.imgfs.index";
const SIGNATURE: &str = "vnd.imgfs.signature.";

/// Most blobs of one artifact: an index and midstates for each layer of the largest images.
const MAX_BLOBS: usize = 2048;
/// Most signatures kept for one index, and their longest text: Base64 of 64 bytes.
const MAX_SIGNATURES: usize = 16;
const MAX_SIGNATURE: usize = 88;

/// The indexes of an image, or of one layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Artifact {
    /// The image's manifest.
    pub subject: Option<Descriptor>,
    /// In the order of the image's layers.
    pub indexes: Vec<PublishedIndex>,
}

/// One layer's part of an artifact.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublishedIndex {
    /// The layer.
    pub layer: Digest,
    /// What its index says, whatever compressed the file: see `LayerIndex::digest`.
    pub digest: Digest,
    /// The file with the index: digest and size.
    pub index: Descriptor,
    /// The file with the midstates.
    pub midstates: Option<Descriptor>,
    /// Base64, by key id.
    pub signatures: BTreeMap<String, String>,
}

/// Why a manifest is no artifact of indexes.
#[derive(Debug, thiserror::Error)]
pub enum ArtifactError {
    /// Not JSON, or a required property is missing or of the wrong type.
    #[error("it is not a valid manifest: {0}")]
    Json(#[from] serde_json::Error),
    /// Too large.
    #[error("it has {size} bytes, more than the limit of {limit}")]
    TooLarge {
        /// Size in bytes.
        size: u64,
        /// Limit in bytes.
        limit: u64,
    },
    /// Something else.
    #[error("it is of the type {found:?}, not {INDEX_ARTIFACT:?}")]
    OtherType {
        /// What it says it is.
        found: String,
    },
    /// More blobs than any image needs.
    #[error("it lists {0} blobs, more than the limit of {MAX_BLOBS}")]
    TooMany(usize),
    /// An index of which it does not say what it is of.
    #[error("blob {blob}: the annotation {annotation:?} is missing or no digest")]
    Annotation {
        /// The blob.
        blob: Digest,
        /// The annotation.
        annotation: &'static str,
    },
}

/// The manifest as JSON, in the order in which it is written.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Json {
    schema_version: u32,
    #[serde(default, deserialize_with = "null_is_default")]
    media_type: String,
    #[serde(default, deserialize_with = "null_is_default")]
    artifact_type: String,
    config: Descriptor,
    #[serde(default, deserialize_with = "null_is_default")]
    layers: Vec<Descriptor>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    subject: Option<Descriptor>,
}

impl Artifact {
    /// The manifest's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let json = Json {
            schema_version: 2,
            media_type: OCI_MANIFEST.to_owned(),
            artifact_type: INDEX_ARTIFACT.to_owned(),
            config: described(
                EMPTY,
                Digest::sha256(EMPTY_CONFIG),
                EMPTY_CONFIG.len() as u64,
            ),
            layers: self.indexes.iter().flat_map(blobs).collect(),
            subject: self.subject.as_ref().map(|subject| {
                let media_type = match subject.media_type.as_str() {
                    "" => OCI_MANIFEST,
                    known => known,
                };
                described(media_type, subject.digest, subject.size)
            }),
        };
        // Strings, numbers and maps with string keys: nothing that JSON does not have.
        serde_json::to_vec(&json).unwrap_or_default()
    }

    /// How the manifest is listed among the referrers of its subject.
    pub fn descriptor(manifest: &[u8]) -> Descriptor {
        let digest = Digest::sha256(manifest);
        Descriptor {
            artifact_type: INDEX_ARTIFACT.to_owned(),
            ..described(OCI_MANIFEST, digest, manifest.len() as u64)
        }
    }

    /// Reads a manifest. Blobs of other types are ignored.
    pub fn parse(body: &[u8]) -> Result<Self, ArtifactError> {
        let size = body.len() as u64;
        if size > MAX_MANIFEST_SIZE {
            return Err(ArtifactError::TooLarge {
                size,
                limit: MAX_MANIFEST_SIZE,
            });
        }
        let json: Json = serde_json::from_slice(body)?;
        // Writers that do not know the property put the type into the config.
        let found = if json.artifact_type.is_empty() {
            json.config.media_type
        } else {
            json.artifact_type
        };
        if found != INDEX_ARTIFACT {
            return Err(ArtifactError::OtherType { found });
        }
        if json.layers.len() > MAX_BLOBS {
            return Err(ArtifactError::TooMany(json.layers.len()));
        }
        let mut indexes: Vec<PublishedIndex> = Vec::new();
        let mut midstates: BTreeMap<Digest, Descriptor> = BTreeMap::new();
        for blob in json.layers {
            match blob.media_type.as_str() {
                LAYER_INDEX => indexes.push(published(blob)?),
                MIDSTATES => {
                    midstates.insert(annotated(&blob, LAYER)?, blob);
                }
                _ => {}
            }
        }
        for index in &mut indexes {
            index.midstates = midstates.remove(&index.layer);
        }
        Ok(Self {
            subject: json.subject,
            indexes,
        })
    }

    /// What it has for a layer.
    pub fn index_of(&self, layer: &Digest) -> Option<&PublishedIndex> {
        self.indexes.iter().find(|index| index.layer == *layer)
    }

    /// Takes over the signatures that another artifact has for the same indexes.
    pub fn adopt_signatures(&mut self, other: &Self) {
        for index in &mut self.indexes {
            let same = (other.indexes.iter())
                .filter(|known| known.layer == index.layer && known.digest == index.digest);
            for (key, signature) in same.flat_map(|known| &known.signatures) {
                let is_known = index.signatures.contains_key(key);
                if !is_known && index.signatures.len() < MAX_SIGNATURES {
                    index.signatures.insert(key.clone(), signature.clone());
                }
            }
        }
    }

    /// Signs all of it.
    pub fn sign(&mut self, key: &SigningKey) {
        let id = key.public().id();
        for index in &mut self.indexes {
            let signature = key.sign(&index.layer, &index.digest);
            index.signatures.insert(id.clone(), signature);
        }
    }
}

impl PublishedIndex {
    /// Whether `key` has signed that `digest` is the index of the layer. `None`: it has signed
    /// nothing here.
    pub fn is_signed(&self, key: &PublicKey, digest: &Digest) -> Option<bool> {
        let signature = self.signatures.get(&key.id())?;
        Some(key.verify(&self.layer, digest, signature))
    }
}

/// A blob's descriptor, with nothing in it that is not needed.
fn described(media_type: &str, digest: Digest, size: u64) -> Descriptor {
    Descriptor {
        media_type: media_type.to_owned(),
        ..Descriptor::of_document(digest, size)
    }
}

/// The blobs of one layer as the artifact lists them.
fn blobs(index: &PublishedIndex) -> Vec<Descriptor> {
    let mut described_index = described(LAYER_INDEX, index.index.digest, index.index.size);
    let annotations = &mut described_index.annotations;
    annotations.insert(LAYER.to_owned(), index.layer.to_string());
    annotations.insert(INDEX.to_owned(), index.digest.to_string());
    let signatures = index.signatures.iter();
    annotations.extend(signatures.map(|(key, value)| (format!("{SIGNATURE}{key}"), value.clone())));
    let midstates = index.midstates.as_ref().map(|midstates| {
        let mut blob = described(MIDSTATES, midstates.digest, midstates.size);
        blob.annotations
            .insert(LAYER.to_owned(), index.layer.to_string());
        blob
    });
    std::iter::once(described_index).chain(midstates).collect()
}

fn published(blob: Descriptor) -> Result<PublishedIndex, ArtifactError> {
    let signatures = blob.annotations.iter().filter_map(|(name, value)| {
        let key = name.strip_prefix(SIGNATURE).filter(|key| is_key_id(key))?;
        (value.len() <= MAX_SIGNATURE).then(|| (key.to_owned(), value.clone()))
    });
    Ok(PublishedIndex {
        layer: annotated(&blob, LAYER)?,
        digest: annotated(&blob, INDEX)?,
        signatures: signatures.take(MAX_SIGNATURES).collect(),
        midstates: None,
        index: blob,
    })
}

fn annotated(blob: &Descriptor, annotation: &'static str) -> Result<Digest, ArtifactError> {
    let value = blob.annotations.get(annotation);
    value
        .and_then(|value| value.parse().ok())
        .ok_or(ArtifactError::Annotation {
            blob: blob.digest,
            annotation,
        })
}

/// What a manifest says it is, for its descriptor: by its bytes alone, so that everybody says the
/// same.
pub(super) fn media_type_of(manifest: &[u8]) -> String {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Named {
        #[serde(default, deserialize_with = "null_is_default")]
        media_type: String,
    }
    let named: Option<Named> = serde_json::from_slice(manifest).ok();
    named
        .map(|named| named.media_type)
        .filter(|name| MediaType::parse(name) == MediaType::Manifest)
        .unwrap_or_else(|| OCI_MANIFEST.to_owned())
}

impl Descriptor {
    /// The descriptor of an image's manifest as an artifact's subject.
    pub fn of_manifest(body: &[u8]) -> Self {
        described(
            &media_type_of(body),
            Digest::sha256(body),
            body.len() as u64,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(text: &str) -> Digest {
        Digest::sha256(text.as_bytes())
    }

    fn sample() -> Artifact {
        let index = |name: &str, midstates: bool| PublishedIndex {
            layer: digest(&format!("layer {name}")),
            digest: digest(&format!("index {name}")),
            index: described(LAYER_INDEX, digest(&format!("file {name}")), 10),
            midstates: midstates.then(|| described(MIDSTATES, digest("states"), 32)),
            signatures: BTreeMap::new(),
        };
        Artifact {
            subject: Some(Descriptor::of_manifest(b"{}")),
            indexes: vec![index("one", false), index("two", true)],
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let mut artifact = sample();
        artifact.indexes[0]
            .signatures
            .insert("0123456789abcdef".to_owned(), "AAAA".to_owned());
        let encoded = artifact.encode();
        let parsed = Artifact::parse(&encoded).unwrap();
        assert_eq!(parsed.encode(), encoded);
        assert_eq!(parsed.subject, artifact.subject);
        for (found, expected) in parsed.indexes.iter().zip(&artifact.indexes) {
            assert_eq!(found.layer, expected.layer);
            assert_eq!(found.digest, expected.digest);
            assert_eq!(found.index.digest, expected.index.digest);
            assert_eq!(found.signatures, expected.signatures);
            let midstates = |index: &PublishedIndex| index.midstates.as_ref().map(|one| one.digest);
            assert_eq!(midstates(found), midstates(expected));
        }
    }

    #[test]
    fn the_json_has_one_form() {
        let artifact = Artifact {
            subject: Some(Descriptor::of_manifest(b"{}")),
            indexes: sample().indexes.into_iter().skip(1).collect(),
        };
        let text = String::from_utf8(artifact.encode()).unwrap();
        let hex = |text: &str| digest(text).to_string();
        let expected = format!(
            concat!(
                r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","#,
                r#""artifactType":"application/vnd.imgfs.index.v1","#,
                r#""config":{{"mediaType":"application/vnd.oci.empty.v1+json","#,
                r#""digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","#,
                r#""size":2}},"layers":["#,
                r#"{{"mediaType":"application/vnd.imgfs.layer-index.v1","digest":"{}","size":10,"#,
                r#""annotations":{{"vnd.imgfs.index":"{}","vnd.imgfs.layer":"{}"}}}},"#,
                r#"{{"mediaType":"application/vnd.imgfs.midstates.v1","digest":"{}","size":32,"#,
                r#""annotations":{{"vnd.imgfs.layer":"{}"}}}}],"#,
                r#""subject":{{"mediaType":"application/vnd.oci.image.manifest.v1+json","#,
                r#""digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","#,
                r#""size":2}}}}"#
            ),
            hex("file two"),
            hex("index two"),
            hex("layer two"),
            hex("states"),
            hex("layer two"),
        );
        assert_eq!(text, expected);
    }

    #[test]
    fn what_it_is_not_is_refused() {
        let good = String::from_utf8(sample().encode()).unwrap();
        let check = |body: String, expected: &str| {
            let err = Artifact::parse(body.as_bytes()).unwrap_err().to_string();
            assert!(err.contains(expected), "{body}: {err}");
        };
        check("<html>".to_owned(), "not a valid manifest");
        check(
            good.replace(INDEX_ARTIFACT, "text/x"),
            "of the type \"text/x\"",
        );
        check(good.replace(LAYER, "other"), "vnd.imgfs.layer");
        check(good.replace(INDEX, "other"), "vnd.imgfs.index");
        check(good.replace("\"size\":10", "\"size\":-1"), "not a valid");
        check(" ".repeat(5 << 20), "more than the limit");
        let mut many = sample();
        many.indexes = vec![many.indexes[0].clone(); MAX_BLOBS + 1];
        check(
            String::from_utf8(many.encode()).unwrap(),
            "lists 2049 blobs",
        );
    }

    #[test]
    fn signatures_of_the_same_index_are_kept() {
        let mut known = sample();
        let key = "0123456789abcdef".to_owned();
        for index in &mut known.indexes {
            index.signatures.insert(key.clone(), "AAAA".to_owned());
        }
        known.indexes[1].digest = digest("another index");
        let mut artifact = sample();
        artifact.adopt_signatures(&known);
        assert_eq!(artifact.indexes[0].signatures, known.indexes[0].signatures);
        assert!(artifact.indexes[1].signatures.is_empty());
        // What is no key id is no signature.
        let odd = sample().encode();
        let odd = String::from_utf8(odd).unwrap();
        let odd = odd.replacen(
            r#""vnd.imgfs.index""#,
            r#""vnd.imgfs.signature.../x":"AAAA","vnd.imgfs.index""#,
            1,
        );
        let parsed = Artifact::parse(odd.as_bytes()).unwrap();
        assert!(parsed.indexes[0].signatures.is_empty());
    }

    #[test]
    fn a_subject_is_described_by_its_bytes() {
        let check = |body: &str, expected: &str| {
            assert_eq!(
                Descriptor::of_manifest(body.as_bytes()).media_type,
                expected
            );
        };
        let docker = "application/vnd.docker.distribution.manifest.v2+json";
        check(&format!(r#"{{"mediaType":"{docker}"}}"#), docker);
        check(r#"{"mediaType":"text/plain"}"#, OCI_MANIFEST);
        check(r#"{"mediaType":null}"#, OCI_MANIFEST);
        check("[]", OCI_MANIFEST);
    }
}
