//! References: what the user types to name an image.
//!
//! ```text
//! golang                          docker.io/library/golang:latest
//! ghcr.io/owner/name:tag          a registry, by tag
//! host:5000/name@sha256:...       a registry, by digest (a tag beside it is only a label)
//! docker://name                   the same, as skopeo and podman write it
//! oci:DIR[:tag][@digest]          an OCI image layout on disk
//! docker-archive:FILE[:name]      what `docker save` writes; `name` may be `@N`, the N-th image
//! ```
//!
//! The grammar of registry names is the one of the Go module distribution/reference, with its
//! normalisation. A transport prefix always wins: `oci:x` is a directory, the repository `oci` has
//! to be written `docker://oci:x`. Nothing here looks at the disk, so paths stay as they were
//! typed.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use super::{Digest, DigestError};

/// The registry of names without a host.
pub const DEFAULT_REGISTRY: &str = "docker.io";
const DEFAULT_TAG: &str = "latest";
/// Longest repository path, in bytes: what distribution/reference and many registries' databases
/// accept.
const MAX_REPOSITORY: usize = 255;
/// Longest tag, in bytes (distribution spec).
const MAX_TAG: usize = 128;

/// A normalised name of an image. `Display` prints it in full, always the same way for the same
/// image.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Reference {
    location: Location,
}

/// Where a [`Reference`] points.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Location {
    /// A repository of a registry. At least one of tag and digest is set; with both, the digest
    /// decides.
    Registry {
        /// Host name or address, with `:port` if given.
        host: String,
        /// Path below the host, e.g. `library/golang`.
        repository: String,
        /// Tag.
        tag: Option<String>,
        /// Digest.
        digest: Option<Digest>,
    },
    /// An OCI image layout.
    OciLayout {
        /// The directory that has the file `oci-layout`.
        dir: PathBuf,
        /// Which image; not needed if there is only one.
        tag: Option<String>,
        /// Which manifest or index.
        digest: Option<Digest>,
    },
    /// An archive as `docker save` writes it.
    DockerArchive {
        /// The tar file.
        file: PathBuf,
        /// Which image: its name, or `@N` for the N-th; not needed if there is only one.
        image: Option<String>,
    },
}

/// Why a text names no image, and what to write instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// Nothing at all.
    #[error("the image name is empty: write a name such as golang or ghcr.io/owner/name:tag")]
    Empty,
    /// The repository has upper case letters.
    #[error("{text:?}: repository names are lower case: write {instead:?}")]
    UpperCase {
        /// What was typed.
        text: String,
        /// The same in lower case.
        instead: String,
    },
    /// 64 hex digits.
    #[error("{0:?} is a bare image id: write the repository in front, as in name@sha256:{0}")]
    BareId(String),
    /// A URL.
    #[error("{text:?} is a URL: write it without the scheme, as in {instead:?}")]
    Url {
        /// What was typed.
        text: String,
        /// The same without scheme.
        instead: String,
    },
    /// A transport of other tools.
    #[error("{text:?}: the transport {transport} is not supported: {instead}")]
    Transport {
        /// What was typed.
        text: String,
        /// The part before the colon.
        transport: &'static str,
        /// What to do.
        instead: &'static str,
    },
    /// The part after the last colon is no tag.
    #[error(
        "{text:?}: {tag:?} is no tag: up to 128 letters, digits, '_', '.' and '-', the first a letter, digit or '_'; leave the colon out for \"latest\""
    )]
    Tag {
        /// What was typed.
        text: String,
        /// The offending part.
        tag: String,
    },
    /// Behind the image is a path in it.
    #[error(
        "{text:?} is an image with a path: write them as two words, as in `imgfs ls {image} {path}`"
    )]
    WithPath {
        /// What was typed.
        text: String,
        /// The part before the last colon.
        image: String,
        /// The part behind it.
        path: String,
    },
    /// The part before the first slash looks like a host but is none.
    #[error("{text:?}: {host:?} is no host name: write host, host:port or [IPv6]:port")]
    Host {
        /// What was typed.
        text: String,
        /// The offending part.
        host: String,
    },
    /// The path is against the grammar.
    #[error(
        "{text:?}: {part:?} is no repository name: lower-case letters and digits, separated by '.', '_', '__' or '-', and '/' between parts"
    )]
    Repository {
        /// What was typed.
        text: String,
        /// The offending part.
        part: String,
    },
    /// The path is too long.
    #[error("{text:?}: the repository name has {length} characters, more than the limit of 255")]
    TooLong {
        /// What was typed.
        text: String,
        /// Length in bytes.
        length: usize,
    },
    /// The part after `@` is no digest.
    #[error("{text:?}: {cause}: write name@sha256: and 64 hex digits")]
    Digest {
        /// What was typed.
        text: String,
        /// Why not.
        cause: DigestError,
    },
    /// A transport without a path.
    #[error("{text:?}: the path is missing: write {usage}")]
    Path {
        /// What was typed.
        text: String,
        /// The form.
        usage: &'static str,
    },
}

impl Reference {
    /// Where it points.
    pub fn location(&self) -> &Location {
        &self.location
    }

    /// The digest in it, which pins what it means for ever.
    pub fn digest(&self) -> Option<&Digest> {
        match &self.location {
            Location::Registry { digest, .. } | Location::OciLayout { digest, .. } => {
                digest.as_ref()
            }
            Location::DockerArchive { .. } => None,
        }
    }

    /// Registry and repository; `None` for local images.
    pub fn repository(&self) -> Option<(&str, &str)> {
        match &self.location {
            Location::Registry {
                host, repository, ..
            } => Some((host, repository)),
            Location::OciLayout { .. } | Location::DockerArchive { .. } => None,
        }
    }

    /// The form people use: without the default registry, with an abbreviated digest. Not a key:
    /// two images may share it.
    pub fn short(&self) -> String {
        let Location::Registry {
            host,
            repository,
            tag,
            digest,
        } = &self.location
        else {
            return self.to_string();
        };
        let mut text = if host == DEFAULT_REGISTRY {
            match repository.strip_prefix("library/") {
                Some(name) if !name.contains('/') => name.to_owned(),
                _ => repository.clone(),
            }
        } else {
            format!("{host}/{repository}")
        };
        if let Some(tag) = tag {
            text = format!("{text}:{tag}");
        }
        if let Some(digest) = digest {
            text = format!("{text}@{}:{}", digest.algorithm().name(), digest.short());
        }
        text
    }
}

/// A name without a registry host, in parts: clients have different ideas which registry is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShortName {
    /// As typed, without what follows: `golang`, `owner/name`.
    pub name: String,
    /// Tag and digest with their separators: `:1.22`, `@sha256:...`; or empty.
    pub suffix: String,
}

impl ShortName {
    /// The short name that `text` is, if it is a valid one. `docker://name` is none: there, as for
    /// skopeo, a missing host always means [`DEFAULT_REGISTRY`].
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        if text.starts_with("docker://") {
            return None;
        }
        let reference: Reference = text.parse().ok()?;
        let Location::Registry { .. } = reference.location else {
            return None;
        };
        let before_digest = text.split('@').next().unwrap_or(text);
        let (_, path) = split_host(before_digest);
        if path.len() < before_digest.len() {
            return None;
        }
        let (name, _) = path.split_once(':').unwrap_or((path, ""));
        let (name, suffix) = text.split_at_checked(name.len())?;
        Some(Self {
            name: name.to_owned(),
            suffix: suffix.to_owned(),
        })
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (tag, digest) = match &self.location {
            Location::Registry {
                host,
                repository,
                tag,
                digest,
            } => {
                write!(f, "{host}/{repository}")?;
                (tag, digest)
            }
            Location::OciLayout { dir, tag, digest } => {
                write!(f, "oci:{}", dir.display())?;
                (tag, digest)
            }
            Location::DockerArchive { file, image } => {
                write!(f, "docker-archive:{}", file.display())?;
                (image, &None)
            }
        };
        if let Some(tag) = tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        let text = text.trim();
        if text.is_empty() {
            return Err(ReferenceError::Empty);
        }
        let location = if let Some(path) = text.strip_prefix("oci:") {
            parse_oci_layout(text, path)?
        } else if let Some(path) = text.strip_prefix("docker-archive:") {
            parse_docker_archive(text, path)?
        } else {
            refuse_foreign_transports(text)?;
            parse_registry(text, text.strip_prefix("docker://").unwrap_or(text))?
        };
        Ok(Self { location })
    }
}

fn refuse_foreign_transports(text: &str) -> Result<(), ReferenceError> {
    for scheme in ["https://", "http://"] {
        if let Some(rest) = text.strip_prefix(scheme) {
            return Err(ReferenceError::Url {
                text: text.to_owned(),
                instead: rest.to_owned(),
            });
        }
    }
    let transports = [
        (
            "containers-storage:",
            "name the image in its registry, or copy it with `skopeo copy` to oci:DIR",
        ),
        (
            "docker-daemon:",
            "save the image with `docker save -o FILE` and use docker-archive:FILE",
        ),
        (
            "oci-archive:",
            "unpack the archive with `tar -xf` and use oci:DIR",
        ),
        ("dir:/", "copy it with `skopeo copy` to oci:DIR"),
    ];
    for (transport, instead) in transports {
        if text.starts_with(transport) {
            return Err(ReferenceError::Transport {
                text: text.to_owned(),
                transport: transport.trim_end_matches(['/', ':']),
                instead,
            });
        }
    }
    Ok(())
}

fn parse_oci_layout(text: &str, path: &str) -> Result<Location, ReferenceError> {
    // A path may have an `@` too: only what looks like a digest is one.
    let (path, digest) = match path.rsplit_once('@') {
        Some((before, after)) if after.contains(':') && !after.contains('/') => {
            (before, Some(parse_digest(text, after)?))
        }
        _ => (path, None),
    };
    let (dir, tag) = match path.split_once(':') {
        Some((_, "")) => {
            return Err(ReferenceError::Tag {
                text: text.to_owned(),
                tag: String::new(),
            });
        }
        // Tags of a layout are free text: annotations, not the grammar of registries.
        Some((dir, tag)) => (dir, Some(tag.to_owned())),
        None => (path, None),
    };
    if dir.is_empty() {
        return Err(ReferenceError::Path {
            text: text.to_owned(),
            usage: "oci:DIR or oci:DIR:tag",
        });
    }
    Ok(Location::OciLayout {
        dir: PathBuf::from(dir),
        tag,
        digest,
    })
}

fn parse_docker_archive(text: &str, path: &str) -> Result<Location, ReferenceError> {
    let (file, image) = match path.split_once(':') {
        Some((_, "")) => {
            return Err(ReferenceError::Tag {
                text: text.to_owned(),
                tag: String::new(),
            });
        }
        Some((file, image)) => (file, Some(image)),
        None => (path, None),
    };
    if file.is_empty() {
        return Err(ReferenceError::Path {
            text: text.to_owned(),
            usage: "docker-archive:FILE or docker-archive:FILE:name",
        });
    }
    let image = match image {
        Some(position) if position.starts_with('@') => Some(position.to_owned()),
        // Normalised here, so that comparing names with those of the archive is comparing strings.
        Some(name) => Some(
            Reference {
                location: parse_registry(text, name)?,
            }
            .to_string(),
        ),
        None => None,
    };
    Ok(Location::DockerArchive {
        file: PathBuf::from(file),
        image,
    })
}

fn parse_registry(text: &str, name: &str) -> Result<Location, ReferenceError> {
    if name.is_empty() {
        return Err(ReferenceError::Empty);
    }
    if name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(ReferenceError::BareId(name.to_ascii_lowercase()));
    }
    // Two slashes are of a scheme.
    if let Some((image, path)) = name.rsplit_once(":/")
        && !image.is_empty()
        && !path.starts_with('/')
    {
        return Err(ReferenceError::WithPath {
            text: text.to_owned(),
            image: image.to_owned(),
            path: format!("/{path}"),
        });
    }
    let (name, digest) = match name.split_once('@') {
        Some((name, digest)) => (name, Some(parse_digest(text, digest)?)),
        None => (name, None),
    };
    let (host, rest) = split_host(name);
    let (path, tag) = match rest.rsplit_once(':') {
        Some((path, tag)) => (path, Some(tag)),
        None => (rest, None),
    };
    check_host(text, host)?;
    check_repository(text, path)?;
    let tag = tag.map(|tag| parse_tag(text, tag)).transpose()?;
    let host = match host {
        "index.docker.io" => DEFAULT_REGISTRY,
        other => other,
    };
    let repository = if host == DEFAULT_REGISTRY && !path.contains('/') {
        format!("library/{path}")
    } else {
        path.to_owned()
    };
    if repository.len() > MAX_REPOSITORY {
        return Err(ReferenceError::TooLong {
            text: text.to_owned(),
            length: repository.len(),
        });
    }
    let tag = match (tag, &digest) {
        (None, None) => Some(DEFAULT_TAG.to_owned()),
        (tag, _) => tag.map(str::to_owned),
    };
    Ok(Location::Registry {
        host: host.to_owned(),
        repository,
        tag,
        digest,
    })
}

/// The part before the first slash is a host if it cannot be a repository's first component.
fn split_host(name: &str) -> (&str, &str) {
    match name.split_once('/') {
        Some((first, rest))
            if first == "localhost"
                || first.contains(['.', ':'])
                || first.bytes().any(|byte| byte.is_ascii_uppercase()) =>
        {
            (first, rest)
        }
        _ => (DEFAULT_REGISTRY, name),
    }
}

fn parse_digest(text: &str, digest: &str) -> Result<Digest, ReferenceError> {
    digest.parse().map_err(|cause| ReferenceError::Digest {
        text: text.to_owned(),
        cause,
    })
}

fn parse_tag<'a>(text: &str, tag: &'a str) -> Result<&'a str, ReferenceError> {
    let mut bytes = tag.bytes();
    let first_is_word = bytes
        .next()
        .is_some_and(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    let rest_is_tag =
        bytes.all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'));
    if first_is_word && rest_is_tag && tag.len() <= MAX_TAG {
        Ok(tag)
    } else {
        Err(ReferenceError::Tag {
            text: text.to_owned(),
            tag: tag.to_owned(),
        })
    }
}

fn check_host(text: &str, host: &str) -> Result<(), ReferenceError> {
    let error = || ReferenceError::Host {
        text: text.to_owned(),
        host: host.to_owned(),
    };
    let after_name = if let Some(bracketed) = host.strip_prefix('[') {
        let (address, rest) = bracketed.split_once(']').ok_or_else(error)?;
        if address.is_empty()
            || !address
                .bytes()
                .all(|byte| byte.is_ascii_hexdigit() || byte == b':')
        {
            return Err(error());
        }
        rest
    } else {
        let end = host.find(':').unwrap_or(host.len());
        let (name, rest) = host.split_at(end);
        let label = |label: &str| {
            !label.is_empty()
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        };
        if !name.split('.').all(label) {
            return Err(error());
        }
        rest
    };
    match after_name.strip_prefix(':') {
        Some(port) if port.parse::<u16>().is_ok() && !port.starts_with('+') => Ok(()),
        None if after_name.is_empty() => Ok(()),
        _ => Err(error()),
    }
}

fn check_repository(text: &str, path: &str) -> Result<(), ReferenceError> {
    if path.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Err(ReferenceError::UpperCase {
            text: text.to_owned(),
            instead: path.to_ascii_lowercase(),
        });
    }
    match path.split('/').find(|part| !is_path_component(part)) {
        Some(part) => Err(ReferenceError::Repository {
            text: text.to_owned(),
            part: part.to_owned(),
        }),
        None => Ok(()),
    }
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`
fn is_path_component(part: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let ends_are_words =
        part.bytes().next().is_some_and(word) && part.bytes().last().is_some_and(word);
    ends_are_words
        && part
            .split(|character: char| character.is_ascii_lowercase() || character.is_ascii_digit())
            .all(|separator| {
                matches!(separator, "" | "." | "_" | "__")
                    || separator.bytes().all(|byte| byte == b'-')
            })
}

#[cfg(test)]
mod tests;
