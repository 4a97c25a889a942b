//! The words of the OCI specifications as types: references, digests, media types, manifests,
//! platforms.
//!
//! Pure values: bytes and strings in, values out. Nothing here does I/O, knows a registry or a tar.

mod artifact;
mod digest;
mod history;
mod list;
mod manifest;
mod media_type;
mod midstates;
mod platform;
mod reference;
mod signature;

pub use artifact::{
    Artifact, ArtifactError, EMPTY_CONFIG, INDEX_ARTIFACT, LAYER_INDEX, MIDSTATES, PublishedIndex,
};
pub use digest::{Algorithm, DiffId, Digest, DigestError, Digester};
pub use history::BuildStep;
pub use list::{ListError, ListFormat, ListMember, ManifestList, PlatformChange};
pub use manifest::{
    Descriptor, Document, ImageConfig, ImageIndex, MAX_CONFIG_SIZE, MAX_MANIFEST_SIZE, Manifest,
    ManifestError, RootFs,
};
pub use media_type::{ACCEPT_MANIFESTS, Compression, MediaType};
pub use midstates::{MIDSTATE_INTERVAL, MidstateDigester, MidstateError, Midstates};
pub use platform::{Fit, Platform, PlatformError, PlatformMatcher, may_be_image};
pub use reference::{DEFAULT_REGISTRY, Location, Reference, ReferenceError, ShortName};
pub use signature::{KeyError, MAX_KEY_FILE, PublicKey, SigningKey};
