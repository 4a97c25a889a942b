//! What came of checking the cache.

use serde::Serialize;

use crate::error::{EngineError, Result};
use crate::store::StoreError;

/// What was checked and what came of it. Sizes in bytes.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Verified {
    /// What names point to.
    pub names: Tally,
    /// The records of images.
    pub images: Tally,
    /// Manifests, lists of them and configs.
    pub documents: Tally,
    /// Indexes of layers.
    pub indexes: Tally,
    /// Layers with data; the bytes are uncompressed.
    pub layers: Tally,
    /// What was found damaged.
    pub damage: Vec<Damage>,
    /// What it took to repair that.
    pub bytes_fetched: u64,
    /// What has no digest to be checked against yet: pulls that were broken off, proofs under way;
    /// and indexes that a later version wrote.
    pub bytes_unchecked: u64,
    /// Whether everything is right now, and here.
    pub all_right: bool,
}

/// A number of things and their size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Tally {
    /// How many.
    pub count: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// One damaged thing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Damage {
    /// What it is.
    pub kind: Kind,
    /// Its digest; of an index and of data that of the layer; of an image that of its manifest; of
    /// a name the reference, or its file.
    pub name: String,
    /// Damaged bytes, uncompressed of data.
    pub bytes: u64,
    /// Damaged spans, of data.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spans: Option<usize>,
    /// What became of it.
    pub outcome: Outcome,
    /// Bytes that came from its source.
    pub bytes_fetched: u64,
    /// For people: what was wrong, or why it could not be repaired.
    pub reason: String,
    /// Whether a process has the layer open.
    pub in_use: bool,
}

/// What can be damaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// What a reference points to.
    Name,
    /// That an image was resolved, and what as.
    Image,
    /// A manifest, a list of them, a config.
    Document,
    /// A layer's index.
    Index,
    /// A layer's bytes.
    Data,
    /// Which DiffId a layer was found to have.
    #[serde(rename = "diff_id")]
    DiffId,
}

/// What became of something damaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// It is here again, and right.
    Repaired,
    /// It is gone: the next reader fetches it.
    Dropped,
    /// It stays as it is: only somebody else can tell what is right.
    Kept,
}

impl Damage {
    /// It was to be dropped; `dropped` says whether it was: what somebody else has put right
    /// meanwhile is not.
    pub(super) fn dropped(&mut self, dropped: Result<bool, StoreError>) {
        match dropped {
            Ok(true) => self.outcome = Outcome::Dropped,
            Ok(false) => self.outcome = Outcome::Repaired,
            Err(err) => self.kept(&err.into()),
        }
    }

    /// Nothing could be done.
    pub(super) fn kept(&mut self, why: &EngineError) {
        self.outcome = Outcome::Kept;
        self.reason = format!("{}; {why:#}", self.reason);
    }
}
