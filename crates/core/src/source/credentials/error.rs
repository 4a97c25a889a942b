//! Errors of files of credentials and of the programs they name. None quotes a program's output or
//! a value of a file, as either may be a secret.

use std::io;
use std::path::PathBuf;

use crate::hint::Hint;

/// Why credentials cannot be read or kept.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// The file is there but cannot be read.
    #[error("cannot read the credentials in {}: {cause}", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// The system's words.
        cause: io::Error,
    },
    /// The file is larger than any such file.
    #[error("{} has more than {limit} bytes, which is no file of credentials: correct or remove it", file.display())]
    TooLarge {
        /// The file.
        file: PathBuf,
        /// Limit in bytes.
        limit: u64,
    },
    /// It is no JSON of the expected form. The parser's words may quote a secret, so only the place
    /// is told.
    #[error("the credentials in {} are not valid JSON (line {line}, column {column}): correct the file or log in again", file.display())]
    Json {
        /// The file.
        file: PathBuf,
        /// Line, from one.
        line: usize,
        /// Column, from one.
        column: usize,
    },
    /// A part of it is not what it should be.
    #[error("{:?} in {} is not a JSON object: correct the file", key, file.display())]
    Form {
        /// The file.
        file: PathBuf,
        /// Which part.
        key: String,
    },
    /// An entry's `auth` is not base64 of `user:password`.
    #[error("the entry {key:?} in {} is not base64 of user:password: log in again", file.display())]
    Entry {
        /// The file.
        file: PathBuf,
        /// The registry or namespace.
        key: String,
    },
    /// A credential helper did not do what it should.
    #[error("the credential helper {helper}, which {} names, {problem}", file.display())]
    Helper {
        /// The program's name.
        helper: String,
        /// The file that names it.
        file: PathBuf,
        /// What happened and what to do.
        problem: String,
    },
    /// The file cannot be written.
    #[error("cannot write the credentials to {}: {cause}", file.display())]
    Write {
        /// The file.
        file: PathBuf,
        /// The system's words.
        cause: io::Error,
    },
    /// A login for a part of a registry, in a file that can have none.
    #[error("{} keeps one login for each registry, none for {key}: {}", file.display(), Hint::CredentialsFile { host: host.clone() })]
    Namespace {
        /// The file.
        file: PathBuf,
        /// Host and namespace.
        key: String,
        /// The host alone.
        host: String,
    },
    /// No file to write to.
    #[error("no place for credentials: {}", Hint::CredentialsPlace)]
    NoPlace,
}
