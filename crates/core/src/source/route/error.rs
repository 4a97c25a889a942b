//! Errors of finding the hosts to ask.

use std::io;
use std::path::PathBuf;

use crate::hint::Hint;
use imgfs_formats::oci::ReferenceError;

/// Why there is no list of hosts, or no image that a short name stands for.
#[derive(Debug, thiserror::Error)]
pub enum RouteError {
    /// A configuration file is there but cannot be read.
    #[error("cannot read the configuration in {}: {cause}", file.display())]
    Read {
        /// The file or directory.
        file: PathBuf,
        /// The system's words.
        cause: io::Error,
    },
    /// A file larger than any configuration.
    #[error("{} has more than {limit} bytes, too many for a configuration file: shorten it", file.display())]
    TooLarge {
        /// The file.
        file: PathBuf,
        /// Limit in bytes.
        limit: u64,
    },
    /// A configuration file that cannot be understood.
    #[error("{}, line {line}: {problem}: correct the file", file.display())]
    Syntax {
        /// The file.
        file: PathBuf,
        /// Line, from one.
        line: usize,
        /// What is wrong.
        problem: String,
    },
    /// Configured not to be fetched.
    #[error(
        "{reference} is blocked by {}, registry {prefix:?}: take \"blocked\" out there, or {}",
        file.display(),
        Hint::OwnConfiguration
    )]
    Blocked {
        /// Host and repository.
        reference: String,
        /// The file that says so.
        file: PathBuf,
        /// Its entry.
        prefix: String,
    },
    /// A rule that makes no valid name of this one.
    #[error("{}: registry {prefix:?} makes {result:?} of {reference}: {problem}: correct the location there", file.display())]
    Rewrite {
        /// Host and repository.
        reference: String,
        /// The file.
        file: PathBuf,
        /// The entry.
        prefix: String,
        /// What comes out.
        result: String,
        /// Why that is no name.
        problem: String,
    },
    /// Hosts are configured, but none to fetch from.
    #[error("{} has no host for {reference} that may be asked for images: give one the capability \"pull\"", file.display())]
    NoHosts {
        /// Host and repository.
        reference: String,
        /// The file.
        file: PathBuf,
    },
    /// A short name that could mean several images where guessing is forbidden.
    #[error("{name:?} may mean {}: write the one that is meant in full (short-name-mode is \"enforcing\" in {})", names.join(" or "), file.display())]
    Ambiguous {
        /// What was typed.
        name: String,
        /// The full names.
        names: Vec<String>,
        /// The file that forbids guessing.
        file: PathBuf,
    },
    /// An alias or search registry that does not give a valid name.
    #[error("{} makes {result:?} of {name:?}: {problem}: correct it there, or write the image's full name", file.display())]
    ShortName {
        /// What was typed.
        name: String,
        /// What comes out.
        result: String,
        /// The file.
        file: PathBuf,
        /// Why that is no name.
        problem: String,
    },
    /// The typed text is no reference.
    #[error(transparent)]
    Reference(#[from] ReferenceError),
}
