//! Why something could not be done, for programs that use this library: what kind of failure it is,
//! in words for people, with what they can do about it as a value.
//!
//! The modules' own errors say precisely what happened and stay the sources of an [`EngineError`];
//! this one sorts them.

use std::error::Error;
use std::fmt;

use imgfs_formats::layer::soci::{PrefetchError, ZtocError};
use imgfs_formats::layer::{IndexError, LayerError};
use imgfs_formats::oci::{
    ArtifactError, DigestError, KeyError, ListError, ManifestError, PlatformError, ReferenceError,
};
use imgfs_formats::tree::{PathError, TreeError};

use crate::hint::Hint;
use crate::prefetch::WalkError;
use crate::serve::MountError;
use crate::source::{CredentialsError, RouteError, SourceError};
use crate::store::StoreError;
use crate::view::FsError;

/// What the functions of this library return.
pub type Result<T, E = EngineError> = std::result::Result<T, E>;

/// What kind of failure it is: what a program that got it would do about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// What was asked for is not there.
    NotFound,
    /// A server wants credentials, or does not accept them.
    Unauthenticated,
    /// It is forbidden, or the process lacks a right.
    Denied,
    /// It may succeed later: a network, a server or a disk does not do its part now.
    Unavailable,
    /// Bytes are not what a digest or an index says.
    Corrupt,
    /// It is right, but this library cannot do it.
    Unsupported,
    /// What was asked for makes no sense.
    Invalid,
    /// Something is in use, or there already.
    Busy,
    /// A fault of this program.
    Internal,
}

/// A failure: its kind, its words, what a person can do about it.
pub struct EngineError {
    kind: ErrorKind,
    text: Text,
    hint: Option<Hint>,
}

enum Text {
    /// Words of ours, and what they are about.
    Words(String, Option<Box<dyn Error + Send + Sync>>),
    /// The words of another error, which is told in its place.
    Other(Box<dyn Error + Send + Sync>),
}

impl EngineError {
    /// A failure with these words.
    pub fn new(kind: ErrorKind, words: impl Into<String>) -> Self {
        Self {
            kind,
            text: Text::Words(words.into(), None),
            hint: None,
        }
    }

    /// A failure with these words and what to do about it, which is said behind them.
    pub fn with_hint(kind: ErrorKind, words: impl fmt::Display, hint: Hint) -> Self {
        let told = Self::new(kind, format!("{words}: {hint}"));
        Self {
            hint: Some(hint),
            ..told
        }
    }

    /// A fault of this program.
    pub fn internal(words: impl fmt::Display) -> Self {
        Self::new(ErrorKind::Internal, format!("internal: {words}"))
    }

    /// Another error, told as it is.
    pub fn of(kind: ErrorKind, other: impl Error + Send + Sync + 'static) -> Self {
        Self {
            kind,
            text: Text::Other(Box::new(other)),
            hint: None,
        }
    }

    /// The same failure as a part of something larger, which these words tell.
    #[must_use]
    pub fn within(self, words: impl Into<String>) -> Self {
        Self {
            kind: self.kind,
            hint: self.hint.clone(),
            text: Text::Words(words.into(), Some(Box::new(self))),
        }
    }

    /// What kind of failure it is.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// What a person can do about it, where that is more than words. It is part of the text
    /// already.
    pub fn hint(&self) -> Option<&Hint> {
        self.hint.as_ref()
    }

    /// The error that it tells, or one below, that has this type.
    pub fn find<E: Error + 'static>(&self) -> Option<&E> {
        let mut next: Option<&(dyn Error + 'static)> = match &self.text {
            Text::Words(_, cause) => cause.as_ref().map(|cause| &**cause as _),
            Text::Other(other) => Some(&**other),
        };
        while let Some(error) = next {
            if let Some(engine) = error.downcast_ref::<Self>() {
                return engine.find();
            }
            if let Some(found) = error.downcast_ref() {
                return Some(found);
            }
            next = error.source();
        }
        None
    }
}

impl fmt::Display for EngineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.text {
            Text::Words(words, _) => f.write_str(words)?,
            Text::Other(other) => write!(f, "{other}")?,
        }
        if !f.alternate() {
            return Ok(());
        }
        let mut cause = self.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

impl fmt::Debug for EngineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {self:#}", self.kind)
    }
}

impl Error for EngineError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match &self.text {
            Text::Words(_, cause) => cause
                .as_ref()
                .map(|cause| &**cause as &(dyn Error + 'static)),
            Text::Other(other) => other.source(),
        }
    }
}

/// Gives up with an [`EngineError`] of this kind and these words.
macro_rules! fail {
    ($kind:ident, $($words:tt)+) => {
        return Err($crate::error::EngineError::new(
            $crate::error::ErrorKind::$kind,
            format!($($words)+),
        ))
    };
}
pub(crate) use fail;

/// Says what was attempted when something failed.
pub(crate) trait Within<T> {
    /// Tells the failure as a part of what `words` say.
    fn within(self, words: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: Into<EngineError>> Within<T> for std::result::Result<T, E> {
    fn within(self, words: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|err| err.into().within(words()))
    }
}

/// Something that is always there, or this program is at fault.
pub(crate) trait Expected<T> {
    /// What is there; `what` says what is missing.
    fn expected(self, what: &str) -> Result<T>;
}

impl<T> Expected<T> for Option<T> {
    fn expected(self, what: &str) -> Result<T> {
        self.ok_or_else(|| EngineError::internal(what))
    }
}

impl<T> Expected<T> for std::result::Result<T, tokio::task::JoinError> {
    fn expected(self, what: &str) -> Result<T> {
        self.map_err(|_| EngineError::internal(what))
    }
}

impl From<SourceError> for EngineError {
    fn from(err: SourceError) -> Self {
        Self::of(source_kind(&err), err)
    }
}

impl From<StoreError> for EngineError {
    fn from(err: StoreError) -> Self {
        Self::of(store_kind(&err), err)
    }
}

impl From<std::io::Error> for EngineError {
    fn from(err: std::io::Error) -> Self {
        Self::of(io_kind(&err), err)
    }
}

impl From<rustix::io::Errno> for EngineError {
    fn from(err: rustix::io::Errno) -> Self {
        std::io::Error::from(err).into()
    }
}

impl From<MountError> for EngineError {
    fn from(err: MountError) -> Self {
        Self::of(io_kind(err.cause()), err)
    }
}

impl From<FsError> for EngineError {
    fn from(err: FsError) -> Self {
        let kind = match &err {
            FsError::Read { source, .. } => store_kind(source),
            FsError::NoSuchInode(_) | FsError::BrokenLink { .. } | FsError::NoSuchXattr => {
                ErrorKind::NotFound
            }
            FsError::NotExecutable => ErrorKind::Denied,
            FsError::NoXattrs => ErrorKind::Unsupported,
            FsError::NoSuchLayer { .. } => ErrorKind::Internal,
            FsError::NotADirectory(_)
            | FsError::IsADirectory(_)
            | FsError::WrongKind { .. }
            | FsError::NothingToSeek(_)
            | FsError::InvalidWhence(_) => ErrorKind::Invalid,
        };
        Self::of(kind, err)
    }
}

impl From<WalkError> for EngineError {
    fn from(err: WalkError) -> Self {
        let kind = match &err {
            WalkError::BrokenLink { .. } => ErrorKind::NotFound,
            WalkError::Read { source, .. } => store_kind(source),
        };
        Self::of(kind, err)
    }
}

impl From<CredentialsError> for EngineError {
    fn from(err: CredentialsError) -> Self {
        Self::of(ErrorKind::Unauthenticated, err)
    }
}

/// Those that are always of one kind.
macro_rules! always {
    ($($kind:ident: $($error:ty),+;)+) => {
        $($(impl From<$error> for EngineError {
            fn from(err: $error) -> Self {
                Self::of(ErrorKind::$kind, err)
            }
        })+)+
    };
}

always! {
    NotFound: PathError, PlatformError;
    Invalid: ReferenceError, RouteError, ArtifactError, DigestError, KeyError, ListError, ManifestError, serde_json::Error;
    Corrupt: IndexError, LayerError, PrefetchError, ZtocError;
    Unsupported: TreeError;
}

fn source_kind(err: &SourceError) -> ErrorKind {
    match err {
        SourceError::NotFound { .. } | SourceError::Offline { .. } | SourceError::Platform(_) => {
            ErrorKind::NotFound
        }
        SourceError::Denied { .. }
        | SourceError::WrongLogin { .. }
        | SourceError::Credentials(_) => ErrorKind::Unauthenticated,
        SourceError::Status { status, .. } => match status {
            401 | 403 => ErrorKind::Denied,
            _ => ErrorKind::Unavailable,
        },
        SourceError::Connect { .. }
        | SourceError::Timeout { .. }
        | SourceError::Broken { .. }
        | SourceError::StorageRefused { .. }
        | SourceError::Resting { .. }
        | SourceError::Client { .. }
        | SourceError::Protocol { .. } => ErrorKind::Unavailable,
        SourceError::Digest { .. } | SourceError::Size { .. } => ErrorKind::Corrupt,
        SourceError::TooLarge { .. }
        | SourceError::AnswerTooLarge { .. }
        | SourceError::ForeignLayer { .. }
        | SourceError::NoSearch { .. }
        | SourceError::Nesting { .. }
        | SourceError::NotAnImage { .. } => ErrorKind::Unsupported,
        SourceError::File { cause, .. } => io_kind(cause),
        SourceError::Route(_)
        | SourceError::Local { .. }
        | SourceError::Document { .. }
        | SourceError::NoHost { .. }
        | SourceError::NoRegistry { .. }
        | SourceError::LedElsewhere { .. } => ErrorKind::Invalid,
    }
}

fn store_kind(err: &StoreError) -> ErrorKind {
    match err {
        StoreError::Io { cause, .. } => io_kind(cause),
        StoreError::Fetch { cause, .. } | StoreError::Source(cause) => source_kind(cause),
        StoreError::Corrupt { .. }
        | StoreError::Layer { .. }
        | StoreError::Index { .. }
        | StoreError::Span { .. }
        | StoreError::Quarantined { .. } => ErrorKind::Corrupt,
        StoreError::Deadline { .. } => ErrorKind::Unavailable,
        StoreError::OutOfRange { .. } | StoreError::Worker(_) => ErrorKind::Internal,
        StoreError::Shared(inner) => store_kind(inner),
    }
}

fn io_kind(err: &std::io::Error) -> ErrorKind {
    use std::io::ErrorKind as Io;
    match err.kind() {
        Io::NotFound => ErrorKind::NotFound,
        Io::PermissionDenied | Io::ReadOnlyFilesystem => ErrorKind::Denied,
        Io::ResourceBusy | Io::AlreadyExists => ErrorKind::Busy,
        Io::InvalidInput | Io::InvalidData => ErrorKind::Invalid,
        Io::Unsupported => ErrorKind::Unsupported,
        _ => ErrorKind::Unavailable,
    }
}
