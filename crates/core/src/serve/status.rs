//! What a mount tells about itself: the serving process answers each connection to its socket with
//! it.

use std::collections::HashMap;
use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::AsyncWriteExt;

use super::record::{MountRecord, RunningMount};
use super::runtime_dir::RuntimeDir;
use crate::error::{Result, Within};
use crate::image::{LayerOrigin, Opened};
use crate::source::BlobSource;
use crate::store::{LayerReader, Proof, ProofStep, Store, Trust};
use imgfs_formats::oci::{Descriptor, DiffId, Digest};
use imgfs_formats::trust::IndexKind;

/// How long a daemon may take to answer before it counts as stuck.
const ANSWER_TIME: Duration = Duration::from_secs(5);

/// The whole status. Sizes in bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountStatus {
    /// The mount, and the process that serves it.
    #[serde(flatten)]
    pub record: MountRecord,
    /// The image's platform.
    pub platform: String,
    /// When the registry last said what the image's tag means, in Unix seconds; nothing for a
    /// digest.
    #[serde(default)]
    pub checked: Option<u64>,
    /// Where missing bytes come from.
    pub source: String,
    /// Requests sent since the mount command, first contact included.
    pub requests: u64,
    /// Bytes received since the mount command, first contact included.
    pub bytes_fetched: u64,
    /// The layers, base first.
    pub layers: Vec<LayerStatus>,
}

/// One layer's part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerStatus {
    /// Digest of the blob.
    pub digest: Digest,
    /// Its declared media type.
    pub media_type: String,
    /// Size of the blob.
    pub size: u64,
    /// Size of the uncompressed tar.
    pub uncompressed: u64,
    /// How much of that is in the cache.
    pub cached: u64,
    /// Size of the index file; 0 if it could not be kept.
    pub index_bytes: u64,
    /// How the index came to be.
    pub index: IndexKind,
    /// How far the index is bound to the layer: `proven` (the blob's digest was right when the
    /// index was made here), `pinned` (the manifest or a signature names it) or `claimed` (nothing
    /// does).
    pub trust: Trust,
    /// What is known of the config's DiffId.
    pub diff_id: DiffIdCheck,
    /// Compressed bytes fetched on demand.
    pub fetched: u64,
    /// Ranges asked for on demand.
    pub fetches: u64,
    /// How far the proof is that the mount asked for; nothing where it did not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proof: Option<ProofStep>,
    /// Bytes of the blob that are here for the proof, while it fetches.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proof_bytes: Option<u64>,
    /// Why it fell back or is not served, if so.
    pub problem: Option<String>,
}

/// Whether a layer's uncompressed tar is what the image's config says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DiffIdCheck {
    /// It is.
    Ok,
    /// Not all of its bytes were here yet, or nobody has looked.
    Pending,
    /// It is not.
    Mismatch,
}

impl DiffIdCheck {
    /// As it is printed.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Pending => "pending",
            Self::Mismatch => "mismatch",
        }
    }
}

/// What a serving process keeps to answer.
pub(super) struct Live {
    record: MountRecord,
    platform: String,
    checked: Option<u64>,
    store: Arc<Store>,
    source: Arc<dyn BlobSource>,
    layers: Vec<(Descriptor, Arc<LayerReader>, DiffId)>,
    origins: HashMap<Digest, LayerOrigin>,
}

impl Live {
    /// Of what was mounted just now.
    pub(super) fn new(record: MountRecord, store: Arc<Store>, opened: &Opened) -> Self {
        let blobs = opened.image.resolved.manifest.layers.iter().cloned();
        let layers = blobs
            .zip(opened.expected_diff_ids())
            .map(|(blob, (reader, diff_id))| (blob, reader, diff_id));
        Self {
            record,
            platform: opened.image.resolved.platform().to_string(),
            checked: opened.image.freshness.checked(),
            store,
            source: Arc::clone(&opened.image.source),
            layers: layers.collect(),
            origins: opened.origins.clone(),
        }
    }

    /// What is mounted where.
    pub(super) fn record(&self) -> &MountRecord {
        &self.record
    }

    /// The status now.
    pub(super) fn status(&self) -> MountStatus {
        let traffic = self.source.traffic();
        MountStatus {
            record: self.record.clone(),
            platform: self.platform.clone(),
            checked: self.checked,
            source: self.source.describe(),
            requests: traffic.requests,
            bytes_fetched: traffic.bytes,
            layers: self
                .layers
                .iter()
                .map(|(blob, reader, diff_id)| self.layer(blob, reader, diff_id))
                .collect(),
        }
    }

    fn layer(&self, blob: &Descriptor, reader: &LayerReader, expected: &DiffId) -> LayerStatus {
        let counters = reader.counters();
        let diff_id = match self.store.known_diff_id(&blob.digest) {
            Ok(Some(found)) if found == *expected => DiffIdCheck::Ok,
            Ok(Some(_)) => DiffIdCheck::Mismatch,
            _ => DiffIdCheck::Pending,
        };
        let origin = self.origins.get(&blob.digest);
        let shortcoming = self
            .source
            .shortcoming()
            .filter(|_| counters.cached < counters.size);
        LayerStatus {
            digest: blob.digest,
            media_type: blob.media_type.clone(),
            size: blob.size,
            uncompressed: counters.size,
            cached: counters.cached,
            index_bytes: self.store.index_size(reader.slot()),
            index: origin.map_or(IndexKind::Cache, |origin| origin.index),
            trust: match reader.proof() {
                Proof::Proven => Trust::Proven,
                _ => origin.map_or(Trust::Claimed, |origin| origin.trust),
            },
            diff_id,
            fetched: counters.fetched,
            fetches: counters.fetches,
            proof: reader.proof().step(),
            proof_bytes: match reader.proof() {
                Proof::Fetching { here, .. } => Some(here),
                _ => None,
            },
            problem: reader
                .quarantine_reason()
                .map(str::to_owned)
                .or_else(|| match reader.proof() {
                    Proof::Stopped { why } => Some(format!("it cannot be proven: {why}")),
                    _ => None,
                })
                .or_else(|| origin.and_then(|origin| origin.problem.clone()))
                .or(shortcoming),
        }
    }

    /// Makes the mount known: the socket, then the record. Must run on the runtime.
    pub(super) fn listen(&self, dir: &RuntimeDir) -> Result<tokio::net::UnixListener> {
        dir.open()?;
        let path = dir.socket(&self.record.id);
        let listener = tokio::net::UnixListener::bind(&path)
            .within(|| format!("cannot listen on {}", path.display()))?;
        self.record.publish(dir)?;
        Ok(listener)
    }

    /// Answers connections until the task is dropped.
    pub(super) async fn answer(self: Arc<Self>, listener: tokio::net::UnixListener) {
        loop {
            let Ok((mut connection, _)) = listener.accept().await else {
                // Out of file descriptors, most likely: it may get better.
                tokio::time::sleep(Duration::from_secs(1)).await;
                continue;
            };
            let live = Arc::clone(&self);
            tokio::spawn(async move {
                let status = tokio::task::spawn_blocking(move || live.status()).await;
                let json = status
                    .ok()
                    .and_then(|status| serde_json::to_vec(&status).ok());
                // The asker may be gone: a liveness probe does not read.
                let _gone = connection.write_all(&json.unwrap_or_default()).await;
            });
        }
    }
}

impl MountStatus {
    /// Asks the process that serves a mount.
    pub fn ask(mount: &RunningMount) -> Result<Self> {
        let answer = || -> std::io::Result<Vec<u8>> {
            let mut connection = std::os::unix::net::UnixStream::connect(mount.socket())?;
            connection.set_read_timeout(Some(ANSWER_TIME))?;
            let mut json = Vec::new();
            connection.read_to_end(&mut json)?;
            Ok(json)
        };
        let json = answer().within(|| format!("process {} does not answer", mount.record.pid))?;
        serde_json::from_slice(&json)
            .within(|| "the mount is served by another version of imgfs".to_owned())
    }
}
