//! Media types of the OCI image spec and their Docker equivalents, mapped onto one closed set.

/// What a descriptor points to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum MediaType {
    /// An OCI image index or a Docker manifest list.
    ImageIndex,
    /// An OCI image manifest or a Docker schema 2 manifest.
    Manifest,
    /// An image configuration.
    ImageConfig,
    /// A layer tar. The compression is what the type says: registries and writers are known to lie,
    /// so the first bytes decide (see `layer::Codec`).
    Layer(Compression),
    /// A layer that must not be distributed (Windows base layers): its bytes are usually elsewhere.
    ForeignLayer(Compression),
    /// Docker's schema 1, refused.
    Schema1,
    /// Anything else: never an error by itself.
    Other(String),
}

/// Compression as a media type states it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Compression {
    /// Plain tar.
    None,
    /// gzip, one or several members.
    Gzip,
    /// zstd, one or several frames.
    Zstd,
}

/// The types a manifest request accepts, in order of preference. Without an `Accept` header some
/// registries answer with schema 1.
pub const ACCEPT_MANIFESTS: &str = "application/vnd.oci.image.index.v1+json, \
     application/vnd.docker.distribution.manifest.list.v2+json, \
     application/vnd.oci.image.manifest.v1+json, \
     application/vnd.docker.distribution.manifest.v2+json, */*";

impl MediaType {
    /// Reads a `Content-Type` or `mediaType` value; parameters after `;` are ignored.
    pub fn parse(text: &str) -> Self {
        let essence = text.split(';').next().unwrap_or(text).trim();
        match essence {
            "application/vnd.oci.image.index.v1+json"
            | "application/vnd.docker.distribution.manifest.list.v2+json" => Self::ImageIndex,
            "application/vnd.oci.image.manifest.v1+json"
            | "application/vnd.docker.distribution.manifest.v2+json" => Self::Manifest,
            "application/vnd.oci.image.config.v1+json"
            | "application/vnd.docker.container.image.v1+json" => Self::ImageConfig,
            "application/vnd.docker.distribution.manifest.v1+json"
            | "application/vnd.docker.distribution.manifest.v1+prettyjws" => Self::Schema1,
            "application/vnd.oci.image.layer.v1.tar"
            | "application/vnd.docker.image.rootfs.diff.tar" => Self::Layer(Compression::None),
            "application/vnd.oci.image.layer.v1.tar+gzip"
            | "application/vnd.docker.image.rootfs.diff.tar.gzip" => Self::Layer(Compression::Gzip),
            "application/vnd.oci.image.layer.v1.tar+zstd"
            | "application/vnd.docker.image.rootfs.diff.tar.zstd" => Self::Layer(Compression::Zstd),
            "application/vnd.oci.image.layer.nondistributable.v1.tar"
            | "application/vnd.docker.image.rootfs.foreign.diff.tar" => {
                Self::ForeignLayer(Compression::None)
            }
            "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
            | "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip" => {
                Self::ForeignLayer(Compression::Gzip)
            }
            "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd" => {
                Self::ForeignLayer(Compression::Zstd)
            }
            other => Self::Other(other.to_owned()),
        }
    }
}
