//! Errors of fetching, in words that name the host and the next step.

use std::path::PathBuf;
use std::time::Duration;
use std::{fmt, io};

use imgfs_formats::oci::{Digest, ManifestError, PlatformError};

use super::credentials::CredentialsError;
use super::route::error::RouteError;
use crate::hint::{Hint, behind};

/// Why bytes could not be had.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The bytes do not have the digest they were asked for by.
    #[error("content does not match its digest: expected {expected}, got {found}")]
    Digest {
        /// What was asked for.
        expected: Box<Digest>,
        /// What the bytes hash to.
        found: Box<Digest>,
    },
    /// The descriptor's size and the number of bytes differ.
    #[error("blob {digest} should have {expected} bytes but {found} came")]
    Size {
        /// The blob.
        digest: Digest,
        /// Size in the descriptor.
        expected: u64,
        /// Bytes received.
        found: u64,
    },
    /// Something is needed that only a source could give, and no source may be asked.
    #[error("{reference}: {what} is not in the cache: {}", Hint::AskRegistry { offline: true })]
    Offline {
        /// The reference.
        reference: String,
        /// What is missing.
        what: String,
    },
    /// A document larger than its limit.
    #[error("{digest} has {size} bytes, more than the limit of {limit}")]
    TooLarge {
        /// The document.
        digest: Digest,
        /// Size in bytes.
        size: u64,
        /// Limit in bytes.
        limit: u64,
    },
    /// A manifest larger than its limit, before its digest is known.
    #[error("{host}: {what} has more than the limit of {limit} bytes")]
    AnswerTooLarge {
        /// The host that answered.
        host: String,
        /// What was asked for.
        what: String,
        /// Limit in bytes.
        limit: u64,
    },
    /// No connection.
    #[error("cannot connect to {host}: {cause}{}", behind(hint.as_ref()))]
    Connect {
        /// Host and port.
        host: String,
        /// The system's words.
        cause: String,
        /// What to do, if there is anything.
        hint: Option<Hint>,
        /// Whether it may pass by itself.
        transient: bool,
    },
    /// The server took too long.
    #[error("{host}: {what}: {waited_for} did not come within {limit:?}")]
    Timeout {
        /// Host and port.
        host: String,
        /// What was asked for.
        what: String,
        /// What was waited for.
        waited_for: &'static str,
        /// How long.
        limit: Duration,
    },
    /// The connection broke, or the body ended early.
    #[error("{host}: {what}: the transfer broke off: {cause}")]
    Broken {
        /// Host and port.
        host: String,
        /// What was asked for.
        what: String,
        /// The system's words.
        cause: String,
    },
    /// 401 or 403.
    #[error("{host} refuses access to {repository}{server}: {hint}")]
    Denied {
        /// Host and port.
        host: String,
        /// Repository.
        repository: String,
        /// The server's words.
        server: ServerMessage,
        /// What to do.
        hint: String,
    },
    /// 401 or 403, where only the credential was asked about.
    #[error(
        "{host} does not accept this user name and password{server}: check both, and whether it wants an access token in place of the password"
    )]
    WrongLogin {
        /// Host and port.
        host: String,
        /// The server's words.
        server: ServerMessage,
    },
    /// 404.
    #[error("{host} has no {what}{server}: {hint}")]
    NotFound {
        /// Host and port.
        host: String,
        /// What was asked for.
        what: String,
        /// The server's words.
        server: ServerMessage,
        /// What to do.
        hint: Hint,
    },
    /// Another status.
    #[error("{host}: {what}: unexpected status {status}{server}{}", status_hint(*status, server))]
    Status {
        /// Host and port.
        host: String,
        /// What was asked for.
        what: String,
        /// HTTP status.
        status: u16,
        /// The server's words.
        server: ServerMessage,
        /// How long the server asks to wait.
        retry_after: Option<Duration>,
    },
    /// An answer against the protocol.
    #[error("{host}: {what}: {problem}")]
    Protocol {
        /// Host and port.
        host: String,
        /// What was asked for.
        what: String,
        /// What is wrong.
        problem: String,
    },
    /// The HTTP client could not be set up.
    #[error("cannot set up TLS: {cause}: check the system's certificates (ca-certificates)")]
    Client {
        /// The library's words.
        cause: String,
    },
    /// A file of credentials is not usable.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    /// Configuration files do not say, or forbid, where to ask.
    #[error(transparent)]
    Route(#[from] RouteError),
    /// A file or directory could not be read.
    #[error("cannot read {}: {cause}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The system's words.
        cause: io::Error,
    },
    /// A local image that is not what it should be.
    #[error("{}: {problem}", path.display())]
    Local {
        /// The directory or archive.
        path: PathBuf,
        /// What is wrong and what to do.
        problem: String,
    },
    /// A manifest, index or config that cannot be used.
    #[error("{digest}: {cause}")]
    Document {
        /// The document.
        digest: Digest,
        /// Why not.
        cause: ManifestError,
    },
    /// No image for the platform.
    #[error(transparent)]
    Platform(#[from] PlatformError),
    /// A layer that the registry does not have.
    #[error(
        "layer {digest} is a foreign layer ({media_type}), kept outside the registry: such images cannot be mounted"
    )]
    ForeignLayer {
        /// The layer.
        digest: Digest,
        /// Its media type.
        media_type: String,
    },
    /// A host that the registry redirected to does not accept the URL: it expired on the way, or
    /// clocks differ.
    #[error(
        "{host}: {what}: the storage refuses the URL that the registry redirected to, with status {status}{server}: it \
         may have expired at once, check the clocks"
    )]
    StorageRefused {
        /// The storage.
        host: String,
        /// What was asked for.
        what: String,
        /// HTTP status.
        status: u16,
        /// The server's words.
        server: ServerMessage,
    },
    /// A host that failed so often that it is left alone for a while.
    #[error(
        "{host} has not answered for {} s and is asked again soon: {cause}", silent_for.as_secs()
    )]
    Resting {
        /// Host and port.
        host: String,
        /// How long it has failed.
        silent_for: Duration,
        /// When it is asked again.
        retry_in: Duration,
        /// Its last failure.
        cause: String,
    },
    /// None of the hosts is to be asked for this.
    #[error(
        "{hosts}: no host may be asked what a tag means: give one of them tags in its configuration"
    )]
    NoHost {
        /// The hosts.
        hosts: String,
    },
    /// Something that only a registry can be written to.
    #[error("{reference} is in no registry: name a repository to write to")]
    NoRegistry {
        /// The reference.
        reference: String,
    },
    /// Configuration files say that the registry itself is not asked, so it is not written to
    /// either.
    #[error(
        "configuration files lead {host} elsewhere, and mirrors are not written to: name the registry where it is to go \
         ({})",
        Hint::ShowConfiguration
    )]
    LedElsewhere {
        /// Its host.
        host: String,
    },
    /// A registry that cannot be searched.
    #[error(
        "{host} has no search API: where a repository's name is known, {}",
        Hint::ListTags { host: host.clone() }
    )]
    NoSearch {
        /// Its host.
        host: String,
    },
    /// A structure of indexes beyond its limits.
    #[error("{digest}: {problem}")]
    Nesting {
        /// The index.
        digest: Digest,
        /// Which limit.
        problem: String,
    },
    /// An artifact that is no container image.
    #[error("{digest} is no container image: its config has the type {media_type:?}")]
    NotAnImage {
        /// The manifest.
        digest: Digest,
        /// The config's media type.
        media_type: String,
    },
}

impl SourceError {
    /// Whether trying again may help.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Connect { transient, .. } => *transient,
            Self::Timeout { .. }
            | Self::Broken { .. }
            | Self::StorageRefused { .. }
            | Self::Resting { .. } => true,
            Self::Status { status, .. } => {
                matches!(status, 408 | 429) || (*status >= 500 && *status != 501)
            }
            Self::Digest { .. }
            | Self::Size { .. }
            | Self::TooLarge { .. }
            | Self::AnswerTooLarge { .. }
            | Self::Denied { .. }
            | Self::WrongLogin { .. }
            | Self::NotFound { .. }
            | Self::Protocol { .. }
            | Self::Client { .. }
            | Self::Credentials(_)
            | Self::Route(_)
            | Self::File { .. }
            | Self::Local { .. }
            | Self::Document { .. }
            | Self::Platform(_)
            | Self::ForeignLayer { .. }
            | Self::NoHost { .. }
            | Self::NoRegistry { .. }
            | Self::LedElsewhere { .. }
            | Self::NoSearch { .. }
            | Self::Nesting { .. }
            | Self::NotAnImage { .. }
            | Self::Offline { .. } => false,
        }
    }

    /// The same, as a failure that may pass by itself.
    pub(super) fn passing(self) -> Self {
        match self {
            Self::Connect { host, cause, .. } => Self::Connect {
                host,
                cause,
                hint: None,
                transient: true,
            },
            other => other,
        }
    }

    /// How long the server asked to wait.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Status { retry_after, .. } => *retry_after,
            Self::Resting { retry_in, .. } => Some(*retry_in),
            _ => None,
        }
    }
}

/// What to do about a status.
fn status_hint(status: u16, server: &ServerMessage) -> String {
    let hint = match status {
        // So says nginx, where other servers end the TLS connection.
        400 if server.0.contains("SSL certificate") => Some(Hint::ClientCertificate),
        429 => Some(Hint::Words(
            "the registry limits requests, wait, or log in for a higher limit",
        )),
        500..=599 => Some(Hint::Words("the registry has a problem, try again later")),
        _ => None,
    };
    behind(hint.as_ref())
}

/// A server's words in an error's body: code and message, printable and of bounded length.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServerMessage(pub(super) String);

impl fmt::Display for ServerMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return Ok(());
        }
        write!(f, " ({})", self.0)
    }
}
