//! Lists of images for several platforms, while they are put together and as they are pushed.
//!
//! ```text
//! members are all Docker's schema 2     a Docker manifest list
//! otherwise                             an OCI index, which may list manifests of either kind
//! ```
//!
//! The encoding depends on the members and their order alone: the same list has the same digest
//! everywhere.

use serde::Serialize;

use super::{Descriptor, MAX_MANIFEST_SIZE, Platform, Reference};

const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";

/// A list that is put together. The order is that in which its members came.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ManifestList {
    /// The images.
    pub members: Vec<ListMember>,
}

/// One image of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListMember {
    /// As it was named; says in which repository the manifest is.
    pub reference: Reference,
    /// The manifest, with the platform that the list is to say.
    pub manifest: Descriptor,
}

/// Which kind of list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListFormat {
    /// An OCI image index.
    Oci,
    /// A Docker manifest list.
    Docker,
}

/// What of a member's platform is to be another.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PlatformChange {
    /// Operating system.
    pub os: Option<String>,
    /// CPU architecture.
    pub architecture: Option<String>,
    /// CPU variant.
    pub variant: Option<String>,
    /// Version of the operating system.
    pub os_version: Option<String>,
    /// Features of the operating system that are required beside those known.
    pub os_features: Vec<String>,
}

/// Why a list cannot be as it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ListError {
    /// Nobody runs that.
    #[error("{found:?} is no {kind} as lists name them{}", instead.as_ref().map_or_else(String::new, |instead| format!(": write {instead}")))]
    Unknown {
        /// `operating system` or `architecture`.
        kind: &'static str,
        /// What was asked for.
        found: String,
        /// The right spelling, if that is known.
        instead: Option<String>,
    },
    /// Nobody would choose that member.
    #[error(
        "the entry for {reference} must have an operating system and an architecture to be pushed: say them with \
         `imgfs manifest annotate --os OS --arch ARCH LIST {reference}`"
    )]
    NoPlatform {
        /// The member.
        reference: String,
    },
    /// Nothing in it.
    #[error("the list is empty")]
    Empty,
    /// Registries would refuse it.
    #[error("the list has {size} bytes, more than the limit of {limit} for manifests")]
    TooLarge {
        /// Size in bytes.
        size: u64,
        /// Limit in bytes.
        limit: u64,
    },
}

impl ListFormat {
    /// The list's media type.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Oci => OCI_INDEX,
            Self::Docker => DOCKER_LIST,
        }
    }
}

impl ManifestList {
    /// Adds a member, in the place of the one of the same name if there is one. The same image
    /// again changes nothing: what was said of it stays.
    pub fn add(&mut self, member: ListMember) {
        match (self.members.iter_mut()).find(|known| known.reference == member.reference) {
            Some(known) if known.manifest.digest == member.manifest.digest => {}
            Some(known) => *known = member,
            None => self.members.push(member),
        }
    }

    /// The member of this name; `name` may also be the digest of its manifest, alone or after its
    /// repository.
    pub fn find_mut(&mut self, name: &str) -> Option<&mut ListMember> {
        let digest = name.parse().ok();
        let reference: Option<Reference> = name.parse().ok();
        let position = self.members.iter().position(|member| {
            digest == Some(member.manifest.digest) || reference.as_ref() == Some(&member.reference)
        });
        let position = position.or_else(|| {
            let reference = reference?;
            self.members.iter().position(|member| {
                reference.digest() == Some(&member.manifest.digest)
                    && reference.repository() == member.reference.repository()
            })
        })?;
        self.members.get_mut(position)
    }

    /// What the list is unless somebody wants it otherwise.
    pub fn usual_format(&self) -> ListFormat {
        if !self.members.is_empty() && self.members.iter().all(ListMember::is_dockers) {
            ListFormat::Docker
        } else {
            ListFormat::Oci
        }
    }

    /// Whether it has manifests of both kinds.
    pub fn is_mixed(&self) -> bool {
        let dockers = (self.members.iter()).filter(|member| member.is_dockers());
        !matches!(dockers.count(), 0) && self.usual_format() == ListFormat::Oci
    }

    /// The list as it is shown, whatever is still missing.
    ///
    /// # Panics
    /// Never: strings and numbers can be encoded.
    pub fn encode(&self, format: ListFormat) -> Vec<u8> {
        let mut entries: Vec<Entry> = Vec::new();
        for member in &self.members {
            let entry = Entry::new(&member.manifest);
            // Two names for the same are still one.
            if !entries.contains(&entry) {
                entries.push(entry);
            }
        }
        let list = Encoded {
            schema_version: 2,
            media_type: format.media_type(),
            manifests: entries,
        };
        let mut text = Vec::new();
        let indent = serde_json::ser::PrettyFormatter::with_indent(b"   ");
        let mut serializer = serde_json::Serializer::with_formatter(&mut text, indent);
        list.serialize(&mut serializer)
            .expect("strings and numbers into memory");
        text
    }

    /// The list as it is pushed.
    pub fn encode_complete(&self, format: ListFormat) -> Result<Vec<u8>, ListError> {
        if self.members.is_empty() {
            return Err(ListError::Empty);
        }
        for member in &self.members {
            let platform = member.manifest.platform.as_ref();
            if platform.is_none_or(|one| one.os.is_empty() || one.architecture.is_empty()) {
                return Err(ListError::NoPlatform {
                    reference: member.reference.to_string(),
                });
            }
        }
        let encoded = self.encode(format);
        let size = encoded.len() as u64;
        if size > MAX_MANIFEST_SIZE {
            return Err(ListError::TooLarge {
                size,
                limit: MAX_MANIFEST_SIZE,
            });
        }
        Ok(encoded)
    }
}

impl ListMember {
    /// Says another platform of it than its config does.
    pub fn annotate(&mut self, change: &PlatformChange) -> Result<(), ListError> {
        let mut platform = self.manifest.platform.clone().unwrap_or_default();
        if let Some(os) = &change.os {
            platform.os.clone_from(os);
        }
        if let Some(architecture) = &change.architecture {
            platform.architecture.clone_from(architecture);
        }
        if let Some(variant) = &change.variant {
            platform.variant.clone_from(variant);
        }
        if let Some(version) = &change.os_version {
            platform.os_version.clone_from(version);
        }
        for feature in &change.os_features {
            if !platform.os_features.contains(feature) {
                platform.os_features.push(feature.clone());
            }
        }
        check_names(&platform, change)?;
        self.manifest.platform = Some(platform);
        Ok(())
    }

    fn is_dockers(&self) -> bool {
        self.manifest.media_type == DOCKER_MANIFEST
    }
}

/// Whether what was changed are names that engines know; what an image's config says is left alone.
fn check_names(platform: &Platform, change: &PlatformChange) -> Result<(), ListError> {
    let usual = platform.normalised();
    let check = |changed: bool, kind, found: &String, usual: &String, known: bool| {
        if !changed || known && found == usual {
            return Ok(());
        }
        Err(ListError::Unknown {
            kind,
            found: found.clone(),
            instead: known.then(|| usual.clone()),
        })
    };
    check(
        change.os.is_some(),
        "operating system",
        &platform.os,
        &usual.os,
        usual.has_known_os(),
    )?;
    check(
        change.architecture.is_some(),
        "architecture",
        &platform.architecture,
        &usual.architecture,
        usual.has_known_architecture(),
    )
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Encoded<'a> {
    schema_version: u32,
    media_type: &'a str,
    manifests: Vec<Entry<'a>>,
}

/// Properties in the order in which Docker's tools write them.
#[derive(Serialize, PartialEq)]
#[serde(rename_all = "camelCase")]
struct Entry<'a> {
    media_type: &'a str,
    size: u64,
    digest: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    platform: Option<EntryPlatform<'a>>,
}

#[derive(Serialize, PartialEq)]
struct EntryPlatform<'a> {
    architecture: &'a str,
    os: &'a str,
    #[serde(rename = "os.version", skip_serializing_if = "str::is_empty")]
    os_version: &'a str,
    #[serde(rename = "os.features", skip_serializing_if = "<[String]>::is_empty")]
    os_features: &'a [String],
    #[serde(skip_serializing_if = "str::is_empty")]
    variant: &'a str,
}

impl<'a> Entry<'a> {
    fn new(manifest: &'a Descriptor) -> Self {
        Self {
            media_type: &manifest.media_type,
            size: manifest.size,
            digest: manifest.digest.to_string(),
            platform: manifest.platform.as_ref().map(|platform| EntryPlatform {
                architecture: &platform.architecture,
                os: &platform.os,
                os_version: &platform.os_version,
                os_features: &platform.os_features,
                variant: &platform.variant,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::{Digest, Document};

    const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

    fn member(name: &str, media_type: &str, architecture: &str) -> ListMember {
        ListMember {
            reference: name.parse().unwrap(),
            manifest: Descriptor {
                media_type: media_type.to_owned(),
                platform: Some(Platform {
                    os: "linux".to_owned(),
                    architecture: architecture.to_owned(),
                    ..Platform::default()
                }),
                ..Descriptor::of_document(Digest::sha256(architecture.as_bytes()), 7)
            },
        }
    }

    fn list(members: Vec<ListMember>) -> ManifestList {
        ManifestList { members }
    }

    #[test]
    fn the_same_image_again_changes_nothing() {
        let mut list = ManifestList::default();
        let amd64 = member("r.example/a:1", OCI_MANIFEST, "amd64");
        list.add(amd64.clone());
        let mut annotated = list.clone();
        annotated.members[0].manifest.platform = Some(Platform::default());
        let expected = annotated.clone();
        annotated.add(amd64);
        assert_eq!(annotated, expected);
        let other = member("r.example/a:1", OCI_MANIFEST, "arm64");
        annotated.add(other.clone());
        assert_eq!(annotated.members, [other]);
    }

    #[test]
    fn the_kind_follows_the_members() {
        let check = |kinds: &[&str], expected: (ListFormat, bool)| {
            let members = kinds.iter().map(|kind| member("r.example/a:1", kind, kind));
            let list = list(members.collect());
            assert_eq!(
                (list.usual_format(), list.is_mixed()),
                expected,
                "{kinds:?}"
            );
        };
        check(
            &[DOCKER_MANIFEST, DOCKER_MANIFEST],
            (ListFormat::Docker, false),
        );
        check(&[OCI_MANIFEST, OCI_MANIFEST], (ListFormat::Oci, false));
        check(&[OCI_MANIFEST, DOCKER_MANIFEST], (ListFormat::Oci, true));
        check(&[], (ListFormat::Oci, false));
    }

    #[test]
    fn the_encoding_is_the_same_for_the_same_members() {
        let mut list = list(vec![
            member("r.example/a:1", DOCKER_MANIFEST, "amd64"),
            member("r.example/b:1", DOCKER_MANIFEST, "arm64"),
            // Another name of the first.
            member("r.example/c:1", DOCKER_MANIFEST, "amd64"),
        ]);
        let arm = list.find_mut("r.example/b:1").unwrap();
        let change = PlatformChange {
            variant: Some("v8".to_owned()),
            os_version: Some("1".to_owned()),
            os_features: vec!["x".to_owned()],
            ..PlatformChange::default()
        };
        arm.annotate(&change).unwrap();
        let encoded = list.encode_complete(ListFormat::Docker).unwrap();
        let expected = format!(
            r#"{{
   "schemaVersion": 2,
   "mediaType": "application/vnd.docker.distribution.manifest.list.v2+json",
   "manifests": [
      {{
         "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
         "size": 7,
         "digest": "{}",
         "platform": {{
            "architecture": "amd64",
            "os": "linux"
         }}
      }},
      {{
         "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
         "size": 7,
         "digest": "{}",
         "platform": {{
            "architecture": "arm64",
            "os": "linux",
            "os.version": "1",
            "os.features": [
               "x"
            ],
            "variant": "v8"
         }}
      }}
   ]
}}"#,
            Digest::sha256(b"amd64"),
            Digest::sha256(b"arm64"),
        );
        assert_eq!(String::from_utf8(encoded.clone()).unwrap(), expected);
        let Ok(Document::Index(index)) = Document::parse(&encoded, Some(DOCKER_LIST)) else {
            panic!("no list");
        };
        assert_eq!(
            index.manifests[1].platform,
            list.members[1].manifest.platform
        );
    }

    #[test]
    fn members_are_found_by_name_and_digest() {
        let digest = Digest::sha256(b"arm64");
        let check = |name: &str, expected: Option<&str>| {
            let mut list = list(vec![
                member("docker.io/library/a:1", OCI_MANIFEST, "amd64"),
                member("r.example/b:1", OCI_MANIFEST, "arm64"),
            ]);
            let found = list.find_mut(name).map(|one| one.reference.to_string());
            assert_eq!(found.as_deref(), expected, "{name}");
        };
        check("a:1", Some("docker.io/library/a:1"));
        check("a:2", None);
        check("r.example/b:1", Some("r.example/b:1"));
        check(&format!("r.example/b@{digest}"), Some("r.example/b:1"));
        check(&digest.to_string(), Some("r.example/b:1"));
        check(&format!("r.example/a@{digest}"), None);
        check("???", None);
    }

    #[test]
    fn only_platforms_that_exist_can_be_said() {
        let check = |os: Option<&str>, architecture: Option<&str>, expected: Result<&str, &str>| {
            let mut member = member("r.example/a:1", OCI_MANIFEST, "amd64");
            let change = PlatformChange {
                os: os.map(str::to_owned),
                architecture: architecture.map(str::to_owned),
                ..PlatformChange::default()
            };
            match (member.annotate(&change), expected) {
                (Ok(()), Ok(expected)) => {
                    assert_eq!(member.manifest.platform.unwrap().to_string(), expected);
                }
                (Err(found), Err(expected)) => {
                    assert!(found.to_string().contains(expected), "{found}");
                    // What was refused has changed nothing.
                    let platform = member.manifest.platform.unwrap();
                    assert_eq!(platform.to_string(), "linux/amd64");
                }
                (found, _) => panic!("{os:?} {architecture:?}: {found:?}"),
            }
        };
        check(None, Some("riscv64"), Ok("linux/riscv64"));
        check(Some("windows"), None, Ok("windows/amd64"));
        check(Some("wasip1"), Some("wasm"), Ok("wasip1/wasm"));
        check(None, Some("aarch64"), Err("write arm64"));
        check(Some("Linux"), None, Err("write linux"));
        check(None, Some("toaster"), Err("\"toaster\" is no architecture"));
        check(Some(""), None, Err("is no operating system"));
    }

    #[test]
    fn what_nobody_could_choose_is_not_pushed() {
        let mut one = member("r.example/a:1", OCI_MANIFEST, "amd64");
        one.manifest.platform = Some(Platform::default());
        let err = list(vec![one])
            .encode_complete(ListFormat::Oci)
            .unwrap_err();
        assert!(err.to_string().contains("r.example/a:1"), "{err}");
        let err = list(Vec::new()).encode_complete(ListFormat::Oci);
        assert_eq!(err, Err(ListError::Empty));
    }
}
