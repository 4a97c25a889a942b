//! Indexes that were not made here: kept so that the next mount needs no network for them, and
//! refused for good when they turn out to be wrong.
//!
//! ```text
//! indexes/ALG/HEX-IDENTITY           the index
//! indexes/ALG/HEX-IDENTITY.json      how it was found: [`Finding`]
//! indexes/ALG/HEX-IDENTITY.midstates  hints to check the blob by
//! indexes/ALG/HEX-IDENTITY.refused   why it is not used any more; then there is no index
//! ```

use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::files::{LayerFiles, publish, read_if_there, remove_if_there};
use crate::source::BlobSource;
use crate::store::prove::Keeping;
use crate::store::read::LayerReader;
use crate::store::{Cache, OpenLayer, Slot, Store, StoreError};
use imgfs_formats::layer::{LayerIndex, SpanDigest, SpanError};
use imgfs_formats::oci::{Descriptor, Digest, Midstates};
use imgfs_formats::trust::{IndexKind, Trust};

/// What the name of the file with an index's midstates ends in.
const MIDSTATES: &str = "midstates";

/// How an index came here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// What it is.
    pub origin: IndexKind,
    /// How far it is bound to the layer.
    pub trust: Trust,
    /// For people: where exactly it was.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub place: String,
    /// Id of the key whose signature binds it, if one does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}

impl Cache {
    /// The indexes of a layer that were found before, and how. A record that cannot be read counts
    /// as none.
    pub fn found_indexes(&self, layer: &Digest) -> Result<Vec<(Slot, Finding)>, StoreError> {
        let dir = self.root.join("indexes").join(layer.algorithm().name());
        let entries = match std::fs::read_dir(&dir) {
            Ok(entries) => entries,
            Err(err) if err.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(err) => return Err(StoreError::io("list", &dir)(err)),
        };
        let mut found = Vec::new();
        for entry in entries {
            let entry = entry.map_err(StoreError::io("list", &dir))?;
            let name = entry.file_name();
            let slot = (name.to_str())
                .and_then(|name| name.strip_suffix(".json"))
                .and_then(|name| Slot::parse(layer.algorithm().name(), name));
            let Some(slot) = slot.filter(|slot| slot.layer() == layer) else {
                continue;
            };
            let json = read_if_there(&entry.path())?.unwrap_or_default();
            if let Ok(finding) = serde_json::from_slice(&json) {
                found.push((slot, finding));
            }
        }
        found.sort_by(|(one, _), (other, _)| one.cmp(other));
        Ok(found)
    }

    /// Keeps an index that was found. If nothing can be written that is said once, and it is only
    /// found again.
    pub fn keep_found(
        &self,
        slot: &Slot,
        index: &LayerIndex,
        finding: &Finding,
    ) -> Result<(), StoreError> {
        let encoded = index.encode().map_err(|cause| StoreError::Index {
            layer: *slot.layer(),
            cause,
        })?;
        self.keep_found_file(slot, &encoded, finding);
        Ok(())
    }

    /// The same for an index of our own format, as it came.
    pub fn keep_found_file(&self, slot: &Slot, file: &[u8], finding: &Finding) {
        let new = serde_json::to_vec(finding).unwrap_or_default();
        let record = self.beside_index(slot, "json");
        let write = || -> Result<(), StoreError> {
            if self.refusal(slot)?.is_some() {
                return Ok(());
            }
            let before = read_if_there(&record)?.unwrap_or_default();
            let before: Option<Finding> = serde_json::from_slice(&before).ok();
            // Somebody who asked for less must not make it worth less to those who ask for more.
            let finding = before.filter(|before| before.trust < finding.trust);
            let json = finding.map(|before| serde_json::to_vec(&before).unwrap_or_default());
            // An index without the record is one that nobody looks at, and a check takes it for
            // damaged.
            publish(&record, json.as_ref().unwrap_or(&new))?;
            publish(&self.index_path(slot), file)
        };
        if let Err(err) = write() {
            self.caching_failed(&err);
        }
        // It may have been refused meanwhile.
        if let Ok(Some(why)) = self.refusal(slot) {
            self.refuse(slot, &why);
        }
    }

    /// This index contradicts the layer: it is dropped and not used again. What was fetched by it
    /// goes when nobody has the layer open any more.
    pub fn refuse(&self, slot: &Slot, why: &str) {
        let removed = [
            self.index_path(slot),
            self.beside_index(slot, "json"),
            self.beside_index(slot, MIDSTATES),
        ];
        for path in removed {
            if let Err(err) = remove_if_there(&path) {
                tracing::warn!("cannot remove {}: {err}", path.display());
            }
        }
        if let Err(err) = publish(&self.beside_index(slot, "refused"), why.as_bytes()) {
            self.caching_failed(&err);
        }
    }

    /// Why this index is not to be used, if it was refused before.
    pub fn refusal(&self, slot: &Slot) -> Result<Option<String>, StoreError> {
        let text = read_if_there(&self.beside_index(slot, "refused"))?;
        Ok(text.map(|text| String::from_utf8_lossy(&text).into_owned()))
    }

    /// Keeps the midstates that were published beside an index: hints, which nobody has to believe.
    pub(in crate::store) fn keep_found_midstates(&self, slot: &Slot, midstates: &Midstates) {
        if let Err(err) = publish(&self.beside_index(slot, MIDSTATES), &midstates.encode()) {
            self.caching_failed(&err);
        }
    }

    /// They, if there are any of use for a blob of `size` bytes.
    pub(in crate::store) fn found_midstates(&self, slot: &Slot, size: u64) -> Option<Midstates> {
        let bytes = read_if_there(&self.beside_index(slot, MIDSTATES)).ok()??;
        Midstates::decode(&bytes, size).ok()
    }

    pub(in crate::store) fn beside_index(&self, slot: &Slot, extension: &str) -> PathBuf {
        self.index_path(slot).with_extension(extension)
    }
}

impl Store {
    /// Opens a layer by an index that was found. Must run on the runtime.
    pub async fn open_found(
        self: &Arc<Self>,
        source: &Arc<dyn BlobSource>,
        blob: &Descriptor,
        slot: Slot,
        index: LayerIndex,
    ) -> Result<OpenLayer, StoreError> {
        let dir = self.layer_dir(&slot);
        let files = Arc::new(LayerFiles::open(&dir).await?);
        if !self.reads.proving || slot.is_own() {
            return Ok(self.opened(index, files, source, blob, slot));
        }
        let keeping = match Keeping::new(Arc::clone(source), blob.clone(), &dir) {
            Ok(keeping) => Arc::new(keeping),
            // Reading needs nothing of it.
            Err(err) => {
                let layer = blob.digest.short();
                tracing::warn!("layer {layer} cannot be proven: {err}");
                let opened = self.opened(index, files, source, blob, slot);
                opened.reader.give_up_proof(err.to_string());
                return Ok(opened);
            }
        };
        let source: Arc<dyn BlobSource> = Arc::clone(&keeping) as _;
        let opened = self.opened(index, files, &source, blob, slot);
        opened.reader.begin_proof(keeping);
        Ok(opened)
    }
}

impl LayerReader {
    /// What to tell those who wait for a span whose bytes are not what the index says; `again` if
    /// others may give the right ones. If not, an index that was found is not used again: either it
    /// is wrong, or the blob is, and only streaming all of the layer tells which.
    pub(in crate::store) fn wrong_span(
        &self,
        span: usize,
        cause: SpanError,
        again: bool,
    ) -> StoreError {
        let layer = *self.digest();
        if !again && !self.slot().is_own() {
            let why = format!("span {span}: {cause}");
            self.store().refuse(self.slot(), &why);
            // Where the compressed bytes have a digest and it was right, the index contradicts
            // itself.
            let is_checked_before = (self.spans().get(span))
                .is_some_and(|span| !matches!(span.digest, SpanDigest::Chunks(_)));
            let is_after_check = matches!(cause, SpanError::Decode | SpanError::DecodedDigest);
            if is_checked_before && is_after_check {
                self.quarantine(format!("its index is wrong: {why}"));
            } else {
                tracing::warn!(
                    "layer {}: its index and its bytes contradict each other ({why}): the index is not used again, the \
                     next mount streams the layer",
                    layer.short()
                );
            }
        }
        StoreError::Span {
            layer,
            span,
            cause,
            again,
        }
    }
}
