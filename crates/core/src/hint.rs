//! What a person can do about a failure, as a value: this library names no flag, no command and no
//! variable of a program that uses it. Such a program says once, at its start, how it words hints
//! ([`word_hints`]); they stand in the texts of errors, in the reasons that a status gives and in
//! the log alike. Until then they have words that fit any program.

use std::fmt;
use std::path::PathBuf;
use std::sync::OnceLock;

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Hint {
    /// Advice that is the same whatever the program.
    Words(&'static str),
    /// Ask the registry: the cache does not know.
    AskRegistry {
        /// Whether that was forbidden for everything, not only for tags.
        offline: bool,
    },
    /// Bring the image into the cache.
    Pull,
    /// Bring the whole image into the cache, then check it again.
    PullAndCheck,
    /// Look at what images there are.
    ListImages,
    /// Remove what no image needs.
    Prune,
    /// Let the cache have more space.
    RaiseLimit,
    /// Look at the repository's tags.
    ListTags {
        /// The registry.
        host: String,
    },
    /// Check the image's name, or log in.
    CheckName,
    /// Log in.
    LogIn {
        /// The registry.
        host: String,
        /// Whether somebody is logged in already.
        again: bool,
    },
    /// Name another file of credentials, as the usual one cannot hold this one.
    CredentialsFile {
        /// The registry.
        host: String,
    },
    /// Say where credentials are kept.
    CredentialsPlace,
    /// Show the server a client certificate that it accepts.
    ClientCertificate,
    /// The same, if the server wants one at all.
    ClientCertificateMaybe,
    /// Trust the server's authority, or do without.
    TrustAuthority,
    /// Speak http, if the server speaks no TLS.
    PlainHttp,
    /// The same where the server hung up on TLS.
    PlainHttpMaybe,
    /// The settings for reaching a registry that were given beside the configuration files.
    ConnectionSettings,
    /// Look at the configuration files that decide.
    ShowConfiguration,
    /// Write an entry into imgfs's own configuration.
    OwnConfiguration,
    /// Name a repository of indexes in a registry.
    IndexRepository,
    /// Accept an index with less trust.
    AcceptTrust {
        /// How much it has.
        trust: &'static str,
        /// Whether a key could vouch for it that nobody has named.
        or_key: bool,
    },
    /// Make the layer's index.
    BuildIndex,
    /// Unmount what is there.
    Unmount {
        /// The directory.
        dir: PathBuf,
    },
    /// Choose another directory for what runs.
    RuntimeDir,
    /// Remove a list and create it again.
    RecreateList {
        /// Its name.
        name: String,
    },
    /// Choose another place for lists.
    ListsPlace,
    /// Name one of a list's images.
    MembersOfList {
        /// The list.
        reference: String,
    },
}

/// How hints are worded.
pub type Wording = fn(&Hint) -> String;

static WORDING: OnceLock<Wording> = OnceLock::new();

/// From now on hints are worded like this, in all texts of this library. Only the first call
/// counts.
pub fn word_hints(wording: Wording) {
    let _first_counts = WORDING.set(wording);
}

impl fmt::Display for Hint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self, WORDING.get()) {
            (Self::Words(words), _) => f.write_str(words),
            (_, Some(wording)) => f.write_str(&wording(self)),
            (_, None) => f.write_str(&self.plain()),
        }
    }
}

impl Hint {
    /// Words that fit any program.
    pub fn plain(&self) -> String {
        match self {
            Self::Words(words) => words,
            Self::AskRegistry { .. } => "let the registry be asked",
            Self::Pull => "pull it",
            Self::PullAndCheck => "pull the image, then check again",
            Self::ListImages => "list the images to see what is there",
            Self::Prune => "pruning removes it",
            Self::RaiseLimit => "raise the cache's limit",
            Self::ListTags { host } => return format!("list its tags on {host}"),
            Self::CheckName => "check the name, or whether it needs a login",
            Self::LogIn { host, again: false } => return format!("log in to {host}"),
            Self::LogIn { host, again: true } => return format!("log in to {host} again"),
            Self::CredentialsFile { host } => {
                return format!("name another file of credentials, or log in to {host}");
            }
            Self::CredentialsPlace => "name a file of credentials",
            Self::ClientCertificate => {
                "show it a client certificate that it accepts, for example in certs.d"
            }
            Self::ClientCertificateMaybe => {
                "if it wants a client certificate, show it one, for example in certs.d"
            }
            Self::TrustAuthority => {
                "add the CA to the system's certificates, or do without the check if you trust the network"
            }
            Self::PlainHttp => "the server does not speak TLS, use plain http if that is intended",
            Self::PlainHttpMaybe => {
                "the server hung up on TLS, use plain http if it does not speak it"
            }
            Self::ConnectionSettings => "the settings that were given for the connection",
            Self::ShowConfiguration => "the route of the reference names the files",
            Self::OwnConfiguration => "write an entry for it into imgfs's own configuration",
            Self::IndexRepository => "name a repository of one",
            Self::AcceptTrust { trust, .. } => return format!("accept indexes that are {trust}"),
            Self::BuildIndex => "build it",
            Self::Unmount { dir } => return format!("unmount {} first", dir.display()),
            Self::RuntimeDir => "remove it or choose another directory",
            Self::RecreateList { name } => return format!("remove {name} and create the list again"),
            Self::ListsPlace => "choose another place",
            Self::MembersOfList { .. } => "name one of its images by digest",
        }
        .to_owned()
    }
}

/// A hint behind a sentence, with a colon in front; nothing where there is none.
pub(crate) fn behind(hint: Option<&Hint>) -> String {
    hint.map_or_else(String::new, |hint| format!(": {hint}"))
}
