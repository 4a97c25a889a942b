//! What several users of one layer may do to each other.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;

use super::Store;
use super::error::StoreError;
use super::slot::Slot;
use crate::source::{BlobSource, ByteStream, Resolved, SourceError, Traffic};
use crate::store::disk::Locked;
use crate::store::ingest::Progress;
use crate::store::read::LayerReader;
use crate::store::upkeep::DEFAULT_LIMIT;
use imgfs_formats::layer::LayerIndex;
use imgfs_formats::oci::{Descriptor, DiffId, Digest};

/// A source with one blob.
struct Memory {
    blob: Bytes,
    /// Every byte is another one.
    corrupt: AtomicBool,
}

#[async_trait::async_trait]
impl BlobSource for Memory {
    async fn resolve(&self, _: Option<&Descriptor>) -> Result<Resolved, SourceError> {
        unreachable!("layers are opened by descriptor")
    }

    async fn open_manifest(&self, _: &Descriptor) -> Result<ByteStream, SourceError> {
        unreachable!("there is no manifest")
    }

    async fn open(&self, _: &Descriptor, range: Range<u64>) -> Result<ByteStream, SourceError> {
        let range = usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap();
        let mut bytes = self.blob.slice(range);
        if self.corrupt.load(Ordering::Relaxed) {
            bytes = bytes.iter().map(|byte| !byte).collect();
        }
        Ok(ByteStream::of(bytes))
    }

    async fn tags(&self) -> Result<Vec<String>, SourceError> {
        unreachable!("layers have no tags")
    }

    fn traffic(&self) -> Traffic {
        Traffic::default()
    }

    fn describe(&self) -> String {
        "memory".to_owned()
    }

    fn parallel_ranges(&self) -> usize {
        4
    }
}

/// A tar with one file of this content: (blob, where the content is in it).
fn tar(content: &[u8]) -> (Bytes, Range<usize>) {
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    builder.append_data(&mut header, "file", content).unwrap();
    (
        builder.into_inner().unwrap().into(),
        512..512 + content.len(),
    )
}

fn memory(blob: &Bytes) -> (Arc<Memory>, Descriptor) {
    let source = Arc::new(Memory {
        blob: blob.clone(),
        corrupt: AtomicBool::new(false),
    });
    let size = blob.len() as u64;
    (source, Descriptor::of_document(Digest::sha256(blob), size))
}

/// What another process does: nothing is shared but the directory.
async fn open(
    dir: &Path,
    source: &Arc<Memory>,
    blob: &Descriptor,
) -> Result<Arc<LayerReader>, StoreError> {
    let store = Arc::new(Store::open(dir, DEFAULT_LIMIT).unwrap());
    let source: Arc<dyn BlobSource> = Arc::clone(source) as _;
    let opened = store.open_layer(&source, blob, &Progress::default()).await;
    opened.map(|layer| layer.reader)
}

async fn read(reader: &Arc<LayerReader>) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(reader.size()).unwrap()];
    reader.read_at(0, &mut bytes).await.unwrap();
    bytes
}

/// The index of a layer in use was lost (damaged, of another version, never written as the disk was
/// full), and another process made it anew: once that cut the data off under the first one, and put
/// bytes in their place whose digest nobody had checked yet.
#[tokio::test(flavor = "multi_thread")]
async fn a_second_first_contact_changes_nothing_for_who_has_the_layer_open() {
    let dir = tempfile::tempdir().unwrap();
    let (blob, _) = tar(&vec![7; 3_000_000]);
    let (source, descriptor) = memory(&blob);
    let first = open(dir.path(), &source, &descriptor).await.unwrap();
    assert_eq!(read(&first).await, blob);
    let index = first.store().index_path(&Slot::own(descriptor.digest));

    std::fs::remove_file(&index).unwrap();
    source.corrupt.store(true, Ordering::Relaxed);
    let refused = open(dir.path(), &source, &descriptor).await;
    assert!(matches!(refused, Err(StoreError::Corrupt { .. })));
    assert_eq!(read(&first).await, blob);

    source.corrupt.store(false, Ordering::Relaxed);
    let second = open(dir.path(), &source, &descriptor).await.unwrap();
    source.corrupt.store(true, Ordering::Relaxed);
    assert_eq!(read(&first).await, blob);
    assert_eq!(read(&second).await, blob);
    let third = open(dir.path(), &source, &descriptor).await.unwrap();
    assert_eq!(read(&third).await, blob);
}

#[tokio::test(flavor = "multi_thread")]
async fn eviction_takes_what_a_killed_first_contact_left() {
    let dir = tempfile::tempdir().unwrap();
    let (blob, _) = tar(b"x");
    let (source, descriptor) = memory(&blob);
    let reader = open(dir.path(), &source, &descriptor).await.unwrap();
    let store = Store::open(dir.path(), 0).unwrap();
    let left = store
        .layer_dir(&Slot::own(descriptor.digest))
        .join("data.new");
    std::fs::write(&left, vec![1; 100_000]).unwrap();
    assert_eq!(store.enforce_limit().unwrap().in_use, 1);
    assert!(left.exists());
    drop(reader);
    assert!(store.enforce_limit().unwrap().bytes >= 100_000);
    assert!(!left.exists());
}

/// A program that waits for a lock must be able to stop: a thread that waited in `flock` once kept
/// Ctrl-C from ending `imgfs mount` until the other process was done.
#[tokio::test(flavor = "multi_thread")]
async fn waiting_for_another_process_can_be_given_up() {
    let dir = tempfile::tempdir().unwrap();
    let (blob, _) = tar(b"x");
    let (source, descriptor) = memory(&blob);
    let store = Store::open(dir.path(), 0).unwrap();
    let layer_dir = store.layer_dir(&Slot::own(descriptor.digest));
    std::fs::create_dir_all(&layer_dir).unwrap();
    for lock in ["build", "lock"] {
        let held = Locked::try_take(&layer_dir.join(lock)).unwrap();
        assert!(held.is_some());
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let (source, descriptor, path) = (
            Arc::clone(&source),
            descriptor.clone(),
            dir.path().to_owned(),
        );
        let waiting = runtime.spawn(async move { open(&path, &source, &descriptor).await });
        let limit = std::time::Duration::from_millis(100);
        assert!(tokio::time::timeout(limit, waiting).await.is_err());
        // Waits for threads that block.
        tokio::task::spawn_blocking(move || drop(runtime))
            .await
            .unwrap();
        drop(held);
    }
    assert!(open(dir.path(), &source, &descriptor).await.is_ok());
}

/// A zTOC that ends before the tar's padding once left a wrong DiffId for the layer, which
/// quarantined it in every image from then on, by whatever index it was opened.
#[tokio::test(flavor = "multi_thread")]
async fn a_found_index_says_nothing_about_the_diff_id() {
    let dir = tempfile::tempdir().unwrap();
    let (blob, _) = tar(b"content");
    let (source, descriptor) = memory(&blob);
    let index = LayerIndex::of_blob(&blob).unwrap();
    let store = Arc::new(Store::open(dir.path(), DEFAULT_LIMIT).unwrap());
    let slot = Slot::found(descriptor.digest, &Digest::sha256(b"its zTOC"));
    let source: Arc<dyn BlobSource> = source;
    let opened = store.open_found(&source, &descriptor, slot, index);
    let reader = opened.await.unwrap().reader;
    assert_eq!(read(&reader).await, blob);
    let other = DiffId(Digest::sha256(b"another tar"));
    assert_eq!(reader.compute_diff_id(&other, || true).unwrap(), None);
    assert_eq!(reader.quarantine_reason(), None);
    assert_eq!(store.known_diff_id(&descriptor.digest).unwrap(), None);
}
