//! The contract: what a table of contents says against what is in the blob.

use std::collections::BTreeMap;
use std::sync::Arc;

use imgfs_core::indexes::{FoundToc, TocImage, in_format};
use imgfs_core::source::{BlobSource, Options, open, read_verified};
use imgfs_core::store::{DEFAULT_LIMIT, LayerReader, Progress, Slot, Store};
use imgfs_formats::layer::{Entry, EntryKind, Mtime, Toc};
use imgfs_formats::oci::{Descriptor, Document, MAX_MANIFEST_SIZE, Reference};

/// What an index may say otherwise than the tar does, for reasons of the format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Times {
    /// Nothing.
    Exact,
    /// eStargz rounds times to seconds.
    Rounded,
}

/// An image whose layers are looked at.
pub struct Image {
    pub source: Arc<dyn BlobSource>,
    pub layers: Vec<Descriptor>,
    pub tables: TocImage,
}

/// Options of short waits.
pub fn options() -> Options {
    let mut options = Options::default();
    options.retry.attempts = 3;
    options.retry.base = std::time::Duration::from_millis(1);
    options.retry.cap = std::time::Duration::from_millis(2);
    options
}

/// Resolves an image of one platform.
pub async fn image(reference: &str) -> Image {
    let reference: Reference = reference.parse().unwrap();
    let options = options();
    let source = open(&reference, &options).unwrap();
    let mut descriptor = source.resolve(None).await.unwrap().descriptor;
    loop {
        let stream = source.open_manifest(&descriptor).await.unwrap();
        let body = read_verified(stream, &descriptor, MAX_MANIFEST_SIZE).await;
        match Document::parse(&body.unwrap(), None).unwrap() {
            Document::Index(index) => descriptor = index.manifests[0].clone(),
            Document::Manifest(manifest) => {
                return Image {
                    source,
                    layers: manifest.layers,
                    tables: TocImage::beside(&reference, &options),
                };
            }
        }
    }
}

impl Image {
    pub async fn find(&self, layer: usize) -> Option<Result<FoundToc, String>> {
        in_format(self.source.as_ref(), &self.layers[layer], &self.tables).await
    }

    /// The layer by its table of contents against the layer by a pass of our own. The index that
    /// was found.
    pub async fn check(&self, layer: usize, times: Times) -> FoundToc {
        let blob = &self.layers[layer];
        let found = self.find(layer).await.unwrap().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let store = Arc::new(Store::open(dir.path(), DEFAULT_LIMIT).unwrap());
        let progress = Progress::default();
        let own = store.open_layer(&self.source, blob, &progress);
        let own = own.await.unwrap();
        let slot = Slot::found(blob.digest, &found.identity);
        let other = store.open_found(&self.source, blob, slot, found.index.clone());
        let other = other.await.unwrap();

        let own_entries = entries(&own.index.toc, times);
        let other_entries = entries(&other.index.toc, Times::Exact);
        let names = |entries: &BTreeMap<String, (Seen, Content)>| -> Vec<String> {
            entries.keys().cloned().collect()
        };
        assert_eq!(names(&other_entries), names(&own_entries));
        let mut random = 0x2545_F491_4F6C_DD1D_u64;
        for (name, (seen, content)) in &own_entries {
            let (other_seen, other_content) = &other_entries[name];
            assert_eq!(other_seen, seen, "{name}");
            if seen.size == 0 {
                continue;
            }
            for _ in 0..4 {
                random = random
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                let start = (random >> 20) % seen.size;
                let length = (1 + (random >> 9) % 70_000).min(seen.size - start);
                let expected = read(&own.reader, content, start, length).await;
                let found = read(&other.reader, other_content, start, length).await;
                assert!(found == expected, "{name}: {length} bytes at {start}");
            }
        }
        found
    }
}

/// What is to be equal of an entry.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    kind: String,
    mode: u32,
    owner: (u32, u32),
    mtime: Mtime,
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    size: u64,
}

/// The stored runs of a file: (in the file, in the layer, length).
type Content = Vec<(u64, u64, u64)>;

/// The entries that a mount shows, by cleaned name.
fn entries(toc: &Toc, times: Times) -> BTreeMap<String, (Seen, Content)> {
    let hidden = [
        ".prefetch.landmark",
        ".no.prefetch.landmark",
        "stargz.index.json",
    ];
    toc.iter()
        .map(|entry| (clean(entry.path), see(&entry, times)))
        .filter(|(name, _)| !hidden.contains(&name.as_str()))
        .collect()
}

fn see(entry: &Entry<'_>, times: Times) -> (Seen, Content) {
    let (kind, size, content) = match entry.kind {
        EntryKind::File { offset, size } => ("file".to_owned(), size, vec![(0, offset, size)]),
        EntryKind::SparseFile { extents, size } => {
            let runs = extents
                .iter()
                .map(|it| (it.file_offset, it.layer_offset, it.length));
            ("file".to_owned(), size, runs.collect())
        }
        EntryKind::HardLink { target } => (format!("link to {}", clean(target)), 0, Vec::new()),
        other => (format!("{other:?}"), 0, Vec::new()),
    };
    let mut mtime = entry.mtime;
    if times == Times::Rounded {
        mtime.seconds += i64::from(mtime.nanoseconds >= 500_000_000);
        mtime.nanoseconds = 0;
    }
    let seen = Seen {
        kind,
        mode: entry.mode,
        owner: (entry.uid, entry.gid),
        mtime,
        xattrs: entry.xattrs.iter().cloned().collect(),
        size,
    };
    (seen, content)
}

fn clean(name: &[u8]) -> String {
    let text = String::from_utf8_lossy(name);
    let text = text.trim_start_matches("./").trim_matches('/');
    if text == "." {
        String::new()
    } else {
        text.to_owned()
    }
}

async fn read(reader: &Arc<LayerReader>, content: &Content, start: u64, length: u64) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(length).unwrap()];
    for (in_file, in_layer, size) in content {
        let (from, to) = (start.max(*in_file), (start + length).min(in_file + size));
        if from < to {
            let place =
                usize::try_from(from - start).unwrap()..usize::try_from(to - start).unwrap();
            let buf = &mut bytes[place];
            reader
                .read_at(in_layer + from - in_file, buf)
                .await
                .unwrap();
        }
    }
    bytes
}
