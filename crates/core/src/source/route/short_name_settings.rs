//! What configuration files may say about names without a registry host, each with the file that
//! says it.

use std::path::{Path, PathBuf};

use serde::Deserialize;

/// What a short name stands for.
#[derive(Debug, Clone)]
pub(super) struct Alias {
    pub target: String,
    pub file: PathBuf,
}

/// Where short names are searched.
#[derive(Debug, Clone)]
pub(super) struct Search {
    pub registries: Vec<String>,
    pub file: PathBuf,
}

impl Alias {
    pub(super) fn new(target: String, file: &Path) -> Self {
        Self {
            target,
            file: file.to_owned(),
        }
    }
}

impl Search {
    pub(super) fn new(registries: Vec<String>, file: &Path) -> Self {
        Self {
            registries,
            file: file.to_owned(),
        }
    }
}

/// What to do about names that may mean several images.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum ShortNameMode {
    /// Refuse.
    Enforcing,
    /// Try one after the other; others ask first if there is a terminal.
    Permissive,
    /// Try one after the other.
    Disabled,
}
