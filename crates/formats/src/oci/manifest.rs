//! Manifests, indexes and configs: what a digest of JSON bytes means.
//!
//! [`Document::parse`] decides from the body what kind of document it is and refuses a body that
//! mixes kinds or contradicts its declared media type (the confusion attack of CVE-2021-41190).
//! Unknown properties are ignored and optional ones may be `null`, as the spec asks of readers.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};

use super::{DiffId, Digest, MediaType, Platform};

/// Largest manifest or index accepted, in bytes: the distribution spec's lower bound for
/// registries, and close to what containerd accepts. Protects memory.
pub const MAX_MANIFEST_SIZE: u64 = 4 << 20;
/// Largest image config accepted, in bytes.
pub const MAX_CONFIG_SIZE: u64 = 8 << 20;

/// A pointer to a blob or manifest: type, digest and size in bytes (image-spec descriptor.md).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// Declared media type, verbatim; see [`Descriptor::kind`].
    #[serde(default, deserialize_with = "null_is_default")]
    pub media_type: String,
    /// Digest of the bytes.
    pub digest: Digest,
    /// Number of bytes.
    pub size: u64,
    /// Other places where the bytes may be had.
    #[serde(
        default,
        deserialize_with = "null_is_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub urls: Vec<String>,
    /// Free-form annotations.
    #[serde(
        default,
        deserialize_with = "null_is_default",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub annotations: BTreeMap<String, String>,
    /// Type of an artifact that is no image; empty for images.
    #[serde(
        default,
        deserialize_with = "null_is_default",
        skip_serializing_if = "String::is_empty"
    )]
    pub artifact_type: String,
    /// Platform, in an index's entries.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
}

impl Descriptor {
    /// A descriptor of a manifest or index of which only digest and size are known.
    pub fn of_document(digest: Digest, size: u64) -> Self {
        Self {
            media_type: String::new(),
            digest,
            size,
            urls: Vec::new(),
            annotations: BTreeMap::new(),
            artifact_type: String::new(),
            platform: None,
        }
    }

    /// The size of what is known by its digest alone.
    pub const UNKNOWN_SIZE: u64 = u64::MAX;

    /// A descriptor of a manifest or index that is named by its digest alone.
    pub fn of_digest(digest: Digest) -> Self {
        Self::of_document(digest, Self::UNKNOWN_SIZE)
    }

    /// What it points to.
    pub fn kind(&self) -> MediaType {
        MediaType::parse(&self.media_type)
    }
}

/// An image manifest: one config and the layers, lowest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// The image config.
    pub config: Descriptor,
    /// Layers, base first.
    pub layers: Vec<Descriptor>,
    /// Free-form annotations.
    #[serde(
        default,
        deserialize_with = "null_is_default",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub annotations: BTreeMap<String, String>,
}

/// An image index or manifest list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ImageIndex {
    /// The listed manifests (or further indexes).
    #[serde(default, deserialize_with = "null_is_default")]
    pub manifests: Vec<Descriptor>,
    /// Free-form annotations.
    #[serde(
        default,
        deserialize_with = "null_is_default",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub annotations: BTreeMap<String, String>,
}

/// The parts of an image config that this program uses (image-spec config.md).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageConfig {
    /// CPU architecture, as Go names it.
    #[serde(default, deserialize_with = "null_is_default")]
    pub architecture: String,
    /// Operating system, as Go names it.
    #[serde(default, deserialize_with = "null_is_default")]
    pub os: String,
    /// CPU variant, e.g. `v7`.
    #[serde(
        default,
        deserialize_with = "null_is_default",
        skip_serializing_if = "String::is_empty"
    )]
    pub variant: String,
    /// Windows build.
    #[serde(
        rename = "os.version",
        default,
        deserialize_with = "null_is_default",
        skip_serializing_if = "String::is_empty"
    )]
    pub os_version: String,
    /// When the image was made, RFC 3339, verbatim.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// Layer content identities.
    pub rootfs: RootFs,
    /// How a container would be started (entrypoint, environment, labels), verbatim.
    #[serde(default)]
    pub config: serde_json::Value,
    /// How the image was built, verbatim.
    #[serde(default)]
    pub history: serde_json::Value,
}

/// The `rootfs` object of a config.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootFs {
    /// Content digests of the layers, base first: as many as the manifest has layers.
    #[serde(default, deserialize_with = "null_is_default")]
    pub diff_ids: Vec<DiffId>,
}

/// A manifest or an index: what a reference can point to.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(
    clippy::large_enum_variant,
    reason = "there are a few, and they are moved once"
)]
pub enum Document {
    /// A single image.
    Manifest(Manifest),
    /// A list of images, one for each platform.
    Index(ImageIndex),
}

/// Why a manifest, index or config is refused.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// Docker schema 1.
    #[error(
        "it is a Docker schema 1 manifest, which is not supported: push the image again with a current tool"
    )]
    Schema1,
    /// Not JSON, or a required property is missing or of the wrong type.
    #[error("it is not a valid {what}: {cause}")]
    Json {
        /// Kind of document.
        what: &'static str,
        /// The parser's words.
        cause: serde_json::Error,
    },
    /// Neither manifest nor index.
    #[error("it is neither an image manifest nor an image index (media type {0:?})")]
    Unknown(String),
    /// A body that could be read as two kinds of document, or contradicts its declared type.
    #[error("it is ambiguous: {0}")]
    Ambiguous(String),
    /// Larger than the limit.
    #[error("it has {size} bytes, more than the limit of {limit}")]
    TooLarge {
        /// Size in bytes.
        size: u64,
        /// Limit in bytes.
        limit: u64,
    },
    /// The config and the manifest disagree about the layers.
    #[error("the manifest has {layers} layers but the config lists {diff_ids} diff_ids")]
    LayerCount {
        /// Layers of the manifest.
        layers: usize,
        /// `diff_ids` of the config.
        diff_ids: usize,
    },
}

/// The properties that tell the kinds apart.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Probe {
    #[serde(default, deserialize_with = "null_is_default")]
    media_type: String,
    #[serde(default)]
    schema_version: Option<u64>,
    #[serde(default)]
    manifests: Option<serde::de::IgnoredAny>,
    #[serde(default)]
    config: Option<serde::de::IgnoredAny>,
    #[serde(default)]
    layers: Option<serde::de::IgnoredAny>,
    #[serde(default)]
    fs_layers: Option<serde::de::IgnoredAny>,
}

impl Document {
    /// Reads a manifest or index. `declared` is the `Content-Type` or the descriptor's media type,
    /// if known.
    pub fn parse(body: &[u8], declared: Option<&str>) -> Result<Self, ManifestError> {
        let size = body.len() as u64;
        if size > MAX_MANIFEST_SIZE {
            return Err(ManifestError::TooLarge {
                size,
                limit: MAX_MANIFEST_SIZE,
            });
        }
        let json = |what| move |cause| ManifestError::Json { what, cause };
        let probe: Probe = serde_json::from_slice(body).map_err(json("manifest"))?;
        if probe.fs_layers.is_some() || probe.schema_version == Some(1) {
            return Err(ManifestError::Schema1);
        }
        let kind = Self::declared_kind(&probe.media_type, declared)?;
        let is_index = match kind {
            Some(MediaType::Schema1) => return Err(ManifestError::Schema1),
            Some(MediaType::ImageIndex) => true,
            Some(MediaType::Manifest) => false,
            _ => probe.manifests.is_some(),
        };
        if is_index && (probe.config.is_some() || probe.layers.is_some()) {
            return Err(ManifestError::Ambiguous(
                "an index with \"config\" or \"layers\"".into(),
            ));
        }
        if !is_index && probe.manifests.is_some() {
            return Err(ManifestError::Ambiguous(
                "a manifest with \"manifests\"".into(),
            ));
        }
        if is_index {
            return serde_json::from_slice(body)
                .map(Self::Index)
                .map_err(json("image index"));
        }
        if probe.config.is_none() && probe.layers.is_none() {
            let named = if probe.media_type.is_empty() {
                declared.unwrap_or_default()
            } else {
                &probe.media_type
            };
            return Err(ManifestError::Unknown(named.to_owned()));
        }
        serde_json::from_slice(body)
            .map(Self::Manifest)
            .map_err(json("image manifest"))
    }

    /// The one kind that the body's own media type and the declared one agree on, if they name any.
    fn declared_kind(
        own: &str,
        declared: Option<&str>,
    ) -> Result<Option<MediaType>, ManifestError> {
        let known = |text: &str| {
            Some(MediaType::parse(text)).filter(|kind| {
                matches!(
                    kind,
                    MediaType::ImageIndex | MediaType::Manifest | MediaType::Schema1
                )
            })
        };
        let (own_kind, declared_kind) = (known(own), declared.and_then(known));
        match (own_kind, declared_kind) {
            (Some(a), Some(b)) if a != b => Err(ManifestError::Ambiguous(format!(
                "its mediaType is {own:?} but it was announced as {:?}",
                declared.unwrap_or_default()
            ))),
            (a, b) => Ok(a.or(b)),
        }
    }
}

impl ImageConfig {
    /// Reads a config and checks it against the manifest's number of layers.
    pub fn parse(body: &[u8], layers: usize) -> Result<Self, ManifestError> {
        let config: Self = serde_json::from_slice(body).map_err(|cause| ManifestError::Json {
            what: "image config",
            cause,
        })?;
        let diff_ids = config.rootfs.diff_ids.len();
        if diff_ids != layers {
            return Err(ManifestError::LayerCount { layers, diff_ids });
        }
        Ok(config)
    }
}

/// Optional properties may be `null`: read that as absent.
pub(super) fn null_is_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn descriptor() -> String {
        format!(
            r#"{{"mediaType":"x","digest":"{DIGEST}","size":0,"urls":null,"annotations":null}}"#
        )
    }

    #[test]
    fn kinds_are_told_apart_and_mixtures_refused() {
        let check = |body: String, declared: Option<&str>, expected: &str| {
            let got = match Document::parse(body.as_bytes(), declared) {
                Ok(Document::Manifest(_)) => "manifest".to_owned(),
                Ok(Document::Index(_)) => "index".to_owned(),
                Err(err) => err.to_string(),
            };
            assert!(got.contains(expected), "{body}: {got}");
        };
        let d = descriptor();
        let manifest = format!(r#"{{"schemaVersion":2,"config":{d},"layers":[{d}],"surprise":1}}"#);
        let index = format!(r#"{{"schemaVersion":2,"manifests":[{d}],"annotations":null}}"#);
        let oci_index = "application/vnd.oci.image.index.v1+json; charset=utf-8";
        check(manifest.clone(), None, "manifest");
        check(index.clone(), Some(oci_index), "index");
        check(
            index,
            Some("application/vnd.oci.image.manifest.v1+json"),
            "ambiguous",
        );
        check(manifest.clone(), Some(oci_index), "ambiguous");
        check(
            manifest.replace("\"layers\"", "\"manifests\":[],\"layers\""),
            None,
            "ambiguous",
        );
        check(
            r#"{"schemaVersion":1,"fsLayers":[]}"#.into(),
            None,
            "schema 1",
        );
        check(
            r#"{"schemaVersion":2,"mediaType":"text/plain"}"#.into(),
            None,
            "text/plain",
        );
        check("[".into(), None, "not a valid manifest");
        check(manifest.replace(DIGEST, "sha256:zz"), None, "hex digits");
        check(" ".repeat(5 << 20), None, "more than the limit");
    }

    #[test]
    fn a_config_must_list_one_diff_id_for_each_layer() {
        let body = format!(
            r#"{{"os":"linux","architecture":"amd64","rootfs":{{"type":"layers","diff_ids":["{DIGEST}"]}}}}"#
        );
        assert!(ImageConfig::parse(body.as_bytes(), 1).is_ok());
        let err = ImageConfig::parse(body.as_bytes(), 2).unwrap_err();
        assert_eq!(
            err.to_string(),
            "the manifest has 2 layers but the config lists 1 diff_ids"
        );
    }
}
