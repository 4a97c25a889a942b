//! Configuration files as text: read whole, bounded, with errors that name file and line.

use std::fmt;
use std::marker::PhantomData;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::{DeserializeOwned, Deserializer, MapAccess, Visitor};

use super::error::RouteError;
use crate::source::small_file::{MAX_FILE, Unreadable, read_small_file};

/// A file's content.
#[derive(Debug)]
pub(super) struct TextFile {
    /// Where it is.
    pub path: PathBuf,
    text: String,
}

impl TextFile {
    /// Reads a file; `None` if there is none.
    pub(super) fn read(path: &Path) -> Result<Option<Self>, RouteError> {
        let file = path.to_owned();
        let bytes = read_small_file(path).map_err(|err| match err {
            Unreadable::Io(cause) => RouteError::Read { file, cause },
            Unreadable::TooLarge => RouteError::TooLarge {
                file,
                limit: MAX_FILE,
            },
        })?;
        bytes.map(|bytes| Self::from_bytes(path, bytes)).transpose()
    }

    /// Takes bytes for a file's.
    pub(super) fn from_bytes(path: &Path, bytes: Vec<u8>) -> Result<Self, RouteError> {
        match String::from_utf8(bytes) {
            Ok(text) => Ok(Self {
                path: path.to_owned(),
                text,
            }),
            Err(err) => {
                let valid = err.as_bytes().get(..err.utf8_error().valid_up_to());
                Err(RouteError::Syntax {
                    file: path.to_owned(),
                    line: line_of(valid.unwrap_or_default()),
                    problem: "a byte that is not UTF-8".to_owned(),
                })
            }
        }
    }

    /// Whether there is nothing in it.
    pub(super) fn is_empty(&self) -> bool {
        self.text.trim().is_empty()
    }

    /// The content.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// Understands it as TOML.
    pub(super) fn parse_toml<T: DeserializeOwned>(&self) -> Result<T, RouteError> {
        toml::from_str(&self.text).map_err(|err| {
            let span = err.span().unwrap_or_default();
            self.error_at(span, without_values(err.message()))
        })
    }

    /// The error for what stands at a place in the text.
    pub(super) fn error_at(&self, span: Range<usize>, problem: impl Into<String>) -> RouteError {
        RouteError::Syntax {
            file: self.path.clone(),
            line: self.line_at(span.start),
            problem: problem.into(),
        }
    }

    /// The line, from one, of a place in the text.
    fn line_at(&self, offset: usize) -> usize {
        line_of(
            self.text
                .as_bytes()
                .get(..offset)
                .unwrap_or(self.text.as_bytes()),
        )
    }
}

fn line_of(before: &[u8]) -> usize {
    before.split(|byte| *byte == b'\n').count()
}

/// A parser's words without the offending value: headers may be secrets.
fn without_values(message: &str) -> String {
    let message = message.replace('\n', ", ");
    let quotes = ["invalid ", "unknown variant "];
    match message.rsplit_once(", expected ") {
        Some((_, expected)) if quotes.iter().any(|start| message.starts_with(start)) => {
            format!("expected {expected}")
        }
        _ => message,
    }
}

/// A table's entries in the order of the text.
#[derive(Debug)]
pub(super) struct InOrder<K, V>(pub Vec<(K, V)>);

impl<K, V> Default for InOrder<K, V> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, K: Deserialize<'de>, V: Deserialize<'de>> Deserialize<'de> for InOrder<K, V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries<K, V>(PhantomData<(K, V)>);

        impl<'de, K: Deserialize<'de>, V: Deserialize<'de>> Visitor<'de> for Entries<K, V> {
            type Value = InOrder<K, V>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a table")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(InOrder(entries))
            }
        }

        deserializer.deserialize_map(Entries(PhantomData))
    }
}

/// A string, or a list of strings.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged, expecting = "expected a string or a list of strings")]
pub(super) enum OneOrMany {
    /// A string.
    One(String),
    /// A list.
    Many(Vec<String>),
}

impl OneOrMany {
    /// As a list.
    pub(super) fn as_slice(&self) -> &[String] {
        match self {
            Self::One(one) => std::slice::from_ref(one),
            Self::Many(many) => many,
        }
    }
}

/// A path in a configuration file: relative ones are relative to the file's directory.
pub(super) fn path_beside(file: &Path, path: &str) -> PathBuf {
    match file.parent() {
        Some(dir) => dir.join(path),
        None => PathBuf::from(path),
    }
}
