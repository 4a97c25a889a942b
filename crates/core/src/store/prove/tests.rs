//! Layers that are read by an index that says the truth, or not quite.

use std::io::Write;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use futures_util::{StreamExt, stream};

use super::proof::Proof;
use crate::source::{BlobSource, ByteStream, Provenance, Resolved, SourceError, Traffic};
use crate::store::disk::{BLOB, Finding, disk_usage};
use crate::store::ingest::Progress;
use crate::store::read::LayerReader;
use crate::store::upkeep::DEFAULT_LIMIT;
use crate::store::{Slot, Store, StoreError};
use imgfs_formats::layer::{
    Checkpoint, Chunk, Entry, EntryKind, LayerIndex, Span, SpanDigest, SpanTable, Toc, TocBuilder,
};
use imgfs_formats::oci::{Descriptor, DiffId, Digest, MidstateDigester, Midstates};
use imgfs_formats::trust::Trust;

/// A source with one blob that counts what it gives.
struct Counting {
    blob: Bytes,
    given: AtomicU64,
    opened: AtomicU64,
    /// Nobody answers.
    down: AtomicBool,
    /// It stops in the middle when so many bytes were given.
    stops_at: AtomicU64,
    /// This byte is another one.
    wrong: AtomicU64,
    /// Whether that passes when somebody rejects it.
    repents: bool,
}

const NEVER: u64 = u64::MAX;

fn source(blob: &Bytes) -> Counting {
    Counting {
        blob: blob.clone(),
        given: AtomicU64::new(0),
        opened: AtomicU64::new(0),
        down: AtomicBool::new(false),
        stops_at: AtomicU64::new(NEVER),
        wrong: AtomicU64::new(NEVER),
        repents: false,
    }
}

impl Counting {
    fn given(&self) -> u64 {
        self.given.load(Ordering::Relaxed)
    }

    fn descriptor(&self) -> Descriptor {
        let digest = Digest::sha256(&self.blob);
        Descriptor::of_document(digest, self.blob.len() as u64)
    }
}

fn at(position: u64) -> usize {
    usize::try_from(position).unwrap()
}

#[async_trait::async_trait]
impl BlobSource for Arc<Counting> {
    async fn resolve(&self, _: Option<&Descriptor>) -> Result<Resolved, SourceError> {
        unreachable!("layers are opened by descriptor")
    }

    async fn open_manifest(&self, _: &Descriptor) -> Result<ByteStream, SourceError> {
        unreachable!("there is no manifest")
    }

    async fn open(&self, _: &Descriptor, range: Range<u64>) -> Result<ByteStream, SourceError> {
        self.opened.fetch_add(1, Ordering::Relaxed);
        let fails = || SourceError::Timeout {
            host: "memory".to_owned(),
            what: "a range".to_owned(),
            waited_for: "bytes",
            limit: std::time::Duration::ZERO,
        };
        if self.down.load(Ordering::Relaxed) {
            return Err(fails());
        }
        let mut bytes = self.blob.slice(at(range.start)..at(range.end)).to_vec();
        let wrong = self.wrong.load(Ordering::Relaxed);
        if range.contains(&wrong) {
            bytes[at(wrong - range.start)] ^= 1;
        }
        let pieces: Vec<Bytes> = bytes.chunks(50_000).map(Bytes::copy_from_slice).collect();
        let source = Arc::clone(self);
        let pieces = stream::iter(pieces).then(move |piece| {
            let source = Arc::clone(&source);
            async move {
                if source.given() >= source.stops_at.load(Ordering::Relaxed) {
                    std::future::pending::<()>().await;
                }
                let length = piece.len() as u64;
                source.given.fetch_add(length, Ordering::Relaxed);
                Ok(piece)
            }
        });
        Ok(ByteStream::new(pieces))
    }

    fn reject(&self, _: &Descriptor, _: u64, _: &Provenance) -> bool {
        if self.repents {
            self.wrong.store(NEVER, Ordering::Relaxed);
        }
        self.repents
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

/// Bytes that do not compress.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut random = seed;
    let next = || {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (random >> 56).to_le_bytes()[0]
    };
    std::iter::repeat_with(next).take(length).collect()
}

const FILES: u64 = 12;

/// The tar of some files, cut before and after each one's content.
fn tar() -> Vec<Vec<u8>> {
    let mut pieces = Vec::new();
    for number in 0..FILES {
        let content = noise(number, 500_000 + at(number) * 1_001);
        let mut builder = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        let name = format!("dir/file {number}");
        builder
            .append_data(&mut header, name, &content[..])
            .unwrap();
        let bytes = builder.get_ref().clone();
        let (start, padding) = (bytes[..512].to_vec(), bytes[512 + content.len()..].to_vec());
        pieces.extend([start, content, padding]);
    }
    pieces.push(vec![0; 1024]);
    pieces
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// A layer and what somebody says about it.
struct Claim {
    tar: Vec<u8>,
    blob: Bytes,
    index: LayerIndex,
}

/// The own index, as somebody else has made it.
fn ours() -> Claim {
    let tar = tar().concat();
    let blob = gzip(&tar);
    Claim {
        index: LayerIndex::of_blob(&blob).unwrap(),
        tar,
        blob: blob.into(),
    }
}

/// As a SOCI index has it.
fn soci() -> Claim {
    let mut claim = ours();
    claim.as_soci();
    claim
}

/// As eStargz has it: a member for each file, between them others of which the table of contents
/// says nothing.
fn chunks() -> Claim {
    let tar = tar();
    let (mut blob, mut spans, mut toc) = (Vec::new(), Vec::new(), TocBuilder::default());
    let mut position = 0;
    for (number, piece) in tar.iter().enumerate() {
        let start = blob.len() as u64;
        blob.extend(gzip(piece));
        if number % 3 != 1 {
            continue;
        }
        let compressed = start..blob.len() as u64;
        let uncompressed = position..position + piece.len() as u64;
        position = uncompressed.end;
        let name = format!("dir/file {}", number / 3);
        let kind = EntryKind::File {
            offset: uncompressed.start,
            size: piece.len() as u64,
        };
        toc.push(&entry(name.as_bytes(), kind)).unwrap();
        let chunk = Chunk {
            compressed: compressed.clone(),
            inner: 0,
            uncompressed: uncompressed.clone(),
            digest: Digest::sha256(piece).hash().try_into().unwrap(),
        };
        spans.push(Span {
            compressed,
            uncompressed,
            checkpoint: Checkpoint::MemberStart,
            digest: SpanDigest::Chunks(Box::new([chunk])),
        });
    }
    let blob_size = blob.len() as u64;
    let index = LayerIndex {
        toc: toc.finish(position).unwrap(),
        spans: SpanTable::new(spans, blob_size).unwrap(),
        file_digests: Vec::new(),
        ..LayerIndex::of_blob(&blob).unwrap()
    };
    Claim {
        tar: tar.concat(),
        blob: blob.into(),
        index,
    }
}

fn entry<'a>(path: &'a [u8], kind: EntryKind<'a>) -> Entry<'a> {
    Entry {
        path,
        kind,
        mode: 0o644,
        uid: 0,
        gid: 0,
        mtime: imgfs_formats::layer::Mtime::default(),
        xattrs: &[],
    }
}

impl Claim {
    /// Makes an index of our own one as SOCI has it.
    fn as_soci(&mut self) {
        let blob = self.blob.clone();
        self.change_spans(|span| {
            let compressed = &blob[at(span.compressed.start)..at(span.compressed.end)];
            let digest = Digest::sha256(compressed);
            span.digest = SpanDigest::Compressed(digest.hash().try_into().unwrap());
        });
        self.index.file_digests.clear();
    }

    fn change_spans(&mut self, change: impl FnMut(&mut Span)) {
        let mut spans: Vec<Span> = self.index.spans.iter().cloned().collect();
        spans.iter_mut().for_each(change);
        self.index.spans = SpanTable::new(spans, self.index.blob_size).unwrap();
    }

    fn change_toc(&mut self, mut change: impl FnMut(&mut Vec<Entry<'_>>)) {
        let toc: Toc = self.index.toc.clone();
        let mut entries: Vec<Entry<'_>> = toc.iter().collect();
        change(&mut entries);
        let mut builder = TocBuilder::default();
        for entry in &entries {
            builder.push(entry).unwrap();
        }
        let size = self.index.spans.layer_size();
        self.index.toc = builder.finish(size).unwrap();
    }

    fn diff_id(&self) -> DiffId {
        DiffId(Digest::sha256(&self.tar))
    }

    fn slot(&self) -> Slot {
        Slot::found(Digest::sha256(&self.blob), &Digest::sha256(b"found"))
    }

    /// What its index says the content of a file is: where, and the bytes.
    fn file(&self, number: usize) -> (u64, Vec<u8>) {
        let entry = self.index.toc.iter().nth(number).unwrap();
        let EntryKind::File { offset, .. } = entry.kind else {
            panic!("there are only files");
        };
        (offset, tar()[number * 3 + 1].clone())
    }

    /// Opens the layer as another process would, by this index.
    async fn open(&self, dir: &Path, source: &Arc<Counting>) -> Arc<LayerReader> {
        let store = Arc::new(Store::open(dir, DEFAULT_LIMIT).unwrap().proving());
        self.open_in(&store, source).await
    }

    async fn open_in(&self, store: &Arc<Store>, source: &Arc<Counting>) -> Arc<LayerReader> {
        let finding = Finding {
            origin: imgfs_formats::trust::IndexKind::Published,
            trust: Trust::Claimed,
            key: None,
            place: String::new(),
        };
        let (slot, index) = (self.slot(), self.index.clone());
        store.keep_found(&slot, &index, &finding).unwrap();
        let source: Arc<dyn BlobSource> = Arc::new(Arc::clone(source));
        let blob = Descriptor::of_document(Digest::sha256(&self.blob), self.blob.len() as u64);
        let opened = store.open_found(&source, &blob, slot, index).await.unwrap();
        opened.reader
    }

    async fn check_file(&self, reader: &Arc<LayerReader>, number: usize) {
        let (offset, expected) = self.file(number);
        let mut bytes = vec![0; expected.len()];
        reader.read_at(offset, &mut bytes).await.unwrap();
        assert!(bytes == expected, "file {number}");
    }
}

/// Reads a layer by its own index, with nobody to ask.
async fn own_bytes(dir: &Path, source: &Arc<Counting>) -> Vec<u8> {
    source.down.store(true, Ordering::Relaxed);
    let store = Arc::new(Store::open(dir, DEFAULT_LIMIT).unwrap());
    let from: Arc<dyn BlobSource> = Arc::new(Arc::clone(source));
    let (blob, progress) = (source.descriptor(), Progress::default());
    let opened = store.open_layer(&from, &blob, &progress);
    let reader = opened.await.unwrap().reader;
    let mut bytes = vec![0; at(reader.size())];
    reader.read_at(0, &mut bytes).await.unwrap();
    bytes
}

#[tokio::test(flavor = "multi_thread")]
async fn a_right_index_is_proven_and_no_byte_is_fetched_twice() {
    for claim in [ours(), soci(), chunks()] {
        let dir = tempfile::tempdir().unwrap();
        let source = Arc::new(source(&claim.blob));
        let reader = claim.open(dir.path(), &source).await;
        assert_eq!(reader.proof(), Proof::Waiting);
        for number in [7, 2, 3, 11] {
            claim.check_file(&reader, number).await;
        }
        let before = source.given();
        assert!(before > 0 && before < claim.blob.len() as u64);
        let proof = reader.prove(Some(claim.diff_id())).await;
        assert_eq!(proof, Proof::Proven);
        assert_eq!(reader.proof(), Proof::Proven);
        assert_eq!(source.given(), claim.blob.len() as u64);
        for number in 0..at(FILES) {
            claim.check_file(&reader, number).await;
        }
        assert_eq!(source.given(), claim.blob.len() as u64);
        assert_eq!(reader.quarantine_reason(), None);
        let found = reader.store().layer_dir(reader.slot());
        assert!(!found.join(BLOB).exists());
        // From now on the layer has an index of its own, and needs nobody.
        assert!(own_bytes(dir.path(), &source).await == claim.tar);
        let known = reader.store().known_diff_id(reader.digest()).unwrap();
        assert_eq!(known, Some(claim.diff_id()));
        assert!(disk_usage(&found) > 0);
        assert_eq!(reader.store().enforce_limit().unwrap().layers, 0, "in use");
        let store = Arc::clone(reader.store());
        drop(reader);
        assert_eq!(store.enforce_limit().unwrap().layers, 1);
        assert_eq!(disk_usage(&found), 0, "nobody needs it any more");
    }
}

/// Changes what is claimed and looks what is said about it.
async fn contradicted(claim: Claim, expected: &str) {
    let dir = tempfile::tempdir().unwrap();
    let source = Arc::new(source(&claim.blob));
    let reader = claim.open(dir.path(), &source).await;
    let mut bytes = [0; 10];
    reader.read_at(0, &mut bytes).await.unwrap();
    let Proof::Contradicted { what } = reader.prove(None).await else {
        panic!("{expected}: {:?}", reader.proof());
    };
    assert!(what.contains(expected), "{what}");
    let refused = reader.read_at(0, &mut bytes).await;
    assert!(
        matches!(&refused, Err(StoreError::Quarantined { reason, .. }) if *reason == what),
        "{refused:?}"
    );
    assert!(reader.try_read_at(0, &mut bytes).is_err());
    let (store, slot) = (Arc::clone(reader.store()), reader.slot().clone());
    assert_eq!(store.refusal(&slot).unwrap(), Some(what));
    assert!(store.found_indexes(slot.layer()).unwrap().is_empty());
    assert!(store.load_index(&slot, false).unwrap().is_none());
    let found = store.layer_dir(&slot);
    assert!(disk_usage(&found) > 0);
    drop(reader);
    // Nothing of it stays, once fetches that were under way have ended.
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while disk_usage(&found) > 0 {
        assert!(std::time::Instant::now() < deadline, "it stays");
        store.enforce_limit().unwrap();
        tokio::time::sleep(super::prover::PAUSE).await;
    }
    // The blob itself is right, so that the layer is not lost.
    assert!(own_bytes(dir.path(), &source).await == claim.tar);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lie_about_a_name_is_found() {
    for mut claim in [ours(), soci(), chunks()] {
        claim.change_toc(|entries| entries[3].mode = 0o4644);
        contradicted(claim, "the mode of \"dir/file 3\"").await;
    }
    for mut claim in [soci(), chunks()] {
        claim.change_toc(|entries| entries.push(entry(b"dir/more", EntryKind::Fifo)));
        contradicted(claim, "\"dir/more\" is not in the layer").await;
    }
    let mut claim = ours();
    claim.change_toc(|entries| entries.push(entry(b"dir/more", EntryKind::Fifo)));
    contradicted(claim, "the number of entries is 12, not 13").await;
}

/// The worst one: everything that is checked on the way is right, and yet another file's bytes are
/// read.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_with_the_bytes_of_another_is_found() {
    let swap = |entries: &mut Vec<Entry<'_>>| {
        let EntryKind::File { offset, .. } = entries[9].kind else {
            panic!("a file");
        };
        let EntryKind::File { size, .. } = entries[4].kind else {
            panic!("a file");
        };
        entries[4].kind = EntryKind::File { offset, size };
    };
    let mut claim = ours();
    claim.change_toc(swap);
    contradicted(claim, "kind or place of \"dir/file 4\"").await;
    let mut claim = soci();
    claim.change_toc(swap);
    contradicted(claim, "\"dir/file 4\" is at").await;
    let mut claim = chunks();
    claim.change_toc(swap);
    contradicted(claim, "\"dir/file 4\" has other bytes").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_span_that_no_bytes_match_is_found() {
    let mut claim = ours();
    let mut number = 0;
    claim.change_spans(|span| {
        number += 1;
        if let SpanDigest::Own { compressed, .. } = &mut span.digest
            && number == 3
        {
            compressed[0] ^= 1;
        }
    });
    contradicted(claim, "the digest of span 2").await;
    let mut claim = soci();
    let mut number = 0;
    claim.change_spans(|span| {
        number += 1;
        if let SpanDigest::Compressed(digest) = &mut span.digest
            && number == 3
        {
            digest[0] ^= 1;
        }
    });
    contradicted(claim, "span 2: compressed bytes do not match").await;
    let mut claim = chunks();
    let mut number = 0;
    claim.change_spans(|span| {
        number += 1;
        if let SpanDigest::Chunks(chunks) = &mut span.digest
            && number == 6
        {
            chunks[0].digest[0] ^= 1;
        }
    });
    contradicted(claim, "\"dir/file 5\": span 5: decoded bytes").await;
}

/// A window that is not the layer's: the compressed bytes are right, and decode to something else.
#[tokio::test(flavor = "multi_thread")]
async fn a_soci_index_with_a_wrong_window_is_found() {
    // Bytes that refer to what came before them.
    let tar = {
        let mut builder = tar::Builder::new(Vec::new());
        let content = noise(5, 20_000).repeat(200);
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        let name = "dir/file 0";
        builder
            .append_data(&mut header, name, &content[..])
            .unwrap();
        builder.into_inner().unwrap()
    };
    let blob: Bytes = gzip(&tar).into();
    let mut claim = Claim {
        index: LayerIndex::of_blob(&blob).unwrap(),
        blob: blob.clone(),
        tar,
    };
    claim.index.file_digests.clear();
    let windows: Vec<Box<[u8]>> = (claim.index.spans.iter())
        .filter_map(|span| match &span.checkpoint {
            Checkpoint::Deflate { window, .. } => Some(window.clone()),
            _ => None,
        })
        .collect();
    assert!(windows.len() > 2 && windows[0] != windows[1]);
    let mut number = 0;
    claim.change_spans(|span| {
        let compressed = &blob[at(span.compressed.start)..at(span.compressed.end)];
        let digest = Digest::sha256(compressed);
        span.digest = SpanDigest::Compressed(digest.hash().try_into().unwrap());
        number += 1;
        if let Checkpoint::Deflate { window, .. } = &mut span.checkpoint
            && number == 2
        {
            window.clone_from(&windows[1]);
        }
    });
    contradicted(claim, "the layer has another byte at").await;
}

fn midstates(blob: &[u8]) -> Midstates {
    let mut digester = MidstateDigester::new();
    digester.update(blob);
    digester.finish().1
}

#[tokio::test(flavor = "multi_thread")]
async fn midstates_are_hints() {
    let claim = ours();
    let right = midstates(&claim.blob);
    assert!(right.segments() > 1);
    let mut bytes = right.encode();
    bytes[0] ^= 1;
    let wrong = Midstates::decode(&bytes, claim.blob.len() as u64).unwrap();
    for hints in [right, wrong] {
        let dir = tempfile::tempdir().unwrap();
        let source = Arc::new(source(&claim.blob));
        let reader = claim.open(dir.path(), &source).await;
        reader.store().keep_found_midstates(reader.slot(), &hints);
        assert_eq!(reader.prove(None).await, Proof::Proven);
        assert_eq!(source.given(), claim.blob.len() as u64);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_bytes_are_fetched_anew_from_who_has_the_right_ones() {
    // Without hints nobody knows which bytes are wrong.
    for (hints, expected) in [(false, 200..201), (true, 110..150)] {
        let claim = chunks();
        let dir = tempfile::tempdir().unwrap();
        let mut from = source(&claim.blob);
        from.repents = true;
        // In the tar's header of a file: in no span.
        let header = claim.index.spans.get(at(FILES) - 1).unwrap();
        from.wrong = AtomicU64::new(header.compressed.start - 20);
        let from = Arc::new(from);
        let reader = claim.open(dir.path(), &from).await;
        if hints {
            let hints = midstates(&claim.blob);
            reader.store().keep_found_midstates(reader.slot(), &hints);
        }
        assert_eq!(reader.prove(None).await, Proof::Proven);
        let size = claim.blob.len() as u64;
        let percent = from.given() * 100 / size;
        assert!(expected.contains(&percent), "{hints}: {percent} %");
        assert!(own_bytes(dir.path(), &from).await == claim.tar);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_that_stays_wrong_is_a_contradiction() {
    let claim = chunks();
    let dir = tempfile::tempdir().unwrap();
    let header = claim.index.spans.get(4).unwrap();
    let mut from = source(&claim.blob);
    from.wrong = AtomicU64::new(header.compressed.start - 20);
    let from = Arc::new(from);
    let reader = claim.open(dir.path(), &from).await;
    let Proof::Contradicted { what } = reader.prove(None).await else {
        panic!("{:?}", reader.proof());
    };
    assert!(what.contains("which is another blob"), "{what}");
    assert!(!reader.store().has_index(reader.digest()));
    assert!(reader.quarantine_reason().is_some());
}

#[test]
fn nothing_is_lost_when_it_is_broken_off() {
    for claim in [soci(), chunks()] {
        let dir = tempfile::tempdir().unwrap();
        let from = Arc::new(source(&claim.blob));
        let size = claim.blob.len() as u64;
        for stop in [size / 3, size / 2, NEVER] {
            from.stops_at.store(stop, Ordering::Relaxed);
            // Ends all that is under way, as the end of a process does.
            let runtime = tokio::runtime::Runtime::new().unwrap();
            runtime.block_on(async {
                let reader = claim.open(dir.path(), &from).await;
                let proof = reader.prove(None);
                if stop == NEVER {
                    assert_eq!(proof.await, Proof::Proven);
                    return;
                }
                // What was given last has to be written, too.
                let kept = reader.keeping().get().unwrap().try_take().unwrap().unwrap();
                let stopped = async {
                    while from.given() < stop || kept.here() < from.given() {
                        tokio::time::sleep(super::prover::PAUSE).await;
                    }
                };
                tokio::select! {
                    proof = proof => panic!("{proof:?}"),
                    () = stopped => {}
                }
            });
        }
        assert_eq!(from.given(), size);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_is_down_is_waited_for() {
    let claim = ours();
    let dir = tempfile::tempdir().unwrap();
    let from = Arc::new(source(&claim.blob));
    let reader = claim.open(dir.path(), &from).await;
    from.down.store(true, Ordering::Relaxed);
    let proving = Arc::clone(&reader);
    let proof = tokio::spawn(async move { proving.prove(None).await });
    while from.opened.load(Ordering::Relaxed) < 2 {
        tokio::time::sleep(super::prover::PAUSE).await;
    }
    from.down.store(false, Ordering::Relaxed);
    assert_eq!(proof.await.unwrap(), Proof::Proven);
    assert_eq!(from.given(), claim.blob.len() as u64);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_processes_one_proves_and_both_know() {
    let claim = soci();
    let dir = tempfile::tempdir().unwrap();
    let from = Arc::new(source(&claim.blob));
    let (one, other) = (
        claim.open(dir.path(), &from).await,
        claim.open(dir.path(), &from).await,
    );
    let (one, other) = tokio::join!(one.prove(None), other.prove(None));
    assert_eq!((one, other), (Proof::Proven, Proof::Proven));
    assert_eq!(from.given(), claim.blob.len() as u64);
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_in_any_order_during_the_proof() {
    for claim in [ours(), soci(), chunks()] {
        let claim = Arc::new(claim);
        let dir = tempfile::tempdir().unwrap();
        let from = Arc::new(source(&claim.blob));
        let reader = claim.open(dir.path(), &from).await;
        let proving = Arc::clone(&reader);
        let proof = tokio::spawn(async move { proving.prove(None).await });
        let mut readers = tokio::task::JoinSet::new();
        for number in [11, 0, 5, 10, 6, 3, 7, 5, 0] {
            let (claim, reader) = (Arc::clone(&claim), Arc::clone(&reader));
            readers.spawn(async move { claim.check_file(&reader, number).await });
        }
        while let Some(read) = readers.join_next().await {
            read.unwrap();
        }
        assert_eq!(proof.await.unwrap(), Proof::Proven);
        assert_eq!(from.given(), claim.blob.len() as u64);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_being_asked_nothing_is_kept() {
    let claim = ours();
    let dir = tempfile::tempdir().unwrap();
    let from = Arc::new(source(&claim.blob));
    let store = Arc::new(Store::open(dir.path(), DEFAULT_LIMIT).unwrap());
    let source: Arc<dyn BlobSource> = Arc::new(Arc::clone(&from));
    let (slot, index) = (claim.slot(), claim.index.clone());
    let blob = from.descriptor();
    let opened = store.open_found(&source, &blob, slot, index);
    let reader = opened.await.unwrap().reader;
    claim.check_file(&reader, 1).await;
    assert_eq!(reader.prove(None).await, Proof::NotAsked);
    assert!(!store.layer_dir(reader.slot()).join(BLOB).exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn eviction_takes_what_is_kept_of_the_blob() {
    let claim = ours();
    let dir = tempfile::tempdir().unwrap();
    let from = Arc::new(source(&claim.blob));
    let reader = claim.open(dir.path(), &from).await;
    claim.check_file(&reader, 1).await;
    let blob = reader.store().layer_dir(reader.slot()).join(BLOB);
    let used = reader.store().data_usage().unwrap();
    assert!(blob.exists());
    let (length, store) = (blob.metadata().unwrap().len(), Arc::clone(reader.store()));
    assert!(used > length, "data and blob: {used}, {length}");
    assert_eq!(store.evict_all().unwrap().in_use, 1);
    assert!(blob.exists());
    // What its last fetch had to say may still be on its way.
    let last = Arc::downgrade(&reader);
    drop(reader);
    let gone = async {
        while last.strong_count() > 0 {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(10), gone)
        .await
        .unwrap();
    store.evict_all().unwrap();
    assert!(!blob.exists());
    let reader = claim.open(dir.path(), &from).await;
    assert_eq!(reader.prove(None).await, Proof::Proven);
}

/// Proves what is claimed by an index that says the truth.
async fn proven(claim: &Claim) {
    let dir = tempfile::tempdir().unwrap();
    let from = Arc::new(source(&claim.blob));
    let reader = claim.open(dir.path(), &from).await;
    assert_eq!(reader.prove(Some(claim.diff_id())).await, Proof::Proven);
    assert_eq!(reader.quarantine_reason(), None);
    assert!(own_bytes(dir.path(), &from).await == claim.tar);
}

/// A layer of 10240 bytes whose zTOC says 6144, as `soci create` made it: the rest is the tar's
/// padding. It was contradicted, and so every such layer quarantined.
#[tokio::test(flavor = "multi_thread")]
async fn a_ztoc_that_ends_before_the_padding_is_proven() {
    let blob = include_bytes!("../../../tests/data/soci/layer.tar.gz");
    let ztoc = include_bytes!("../../../tests/data/soci/layer.ztoc");
    let mut tar = Vec::new();
    std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(&blob[..]), &mut tar).unwrap();
    let size = blob.len() as u64;
    let index =
        imgfs_formats::layer::soci::index_of_ztoc(ztoc, Digest::sha256(blob), size).unwrap();
    assert_eq!((index.spans.layer_size(), tar.len()), (6144, 10240));
    let blob = Bytes::from_static(blob);
    proven(&Claim { tar, blob, index }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_soci_index_that_leaves_out_more_than_zeros_is_found() {
    let tar = [tar().concat(), noise(99, 3 << 20)].concat();
    let blob: Bytes = gzip(&tar).into();
    let index = LayerIndex::of_blob(&blob).unwrap();
    let mut claim = Claim { tar, blob, index };
    claim.as_soci();
    let mut spans: Vec<Span> = claim.index.spans.iter().cloned().collect();
    spans.pop().unwrap();
    claim.index.spans = SpanTable::new(spans, claim.index.blob_size).unwrap();
    claim.change_toc(|_| {});
    contradicted(claim, "as claimed").await;
}

/// A table of contents without files has no span, of which one can say that all of them are our own
/// format's. It was compared with our own index as a value, and so contradicted.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_of_contents_without_files_is_proven() {
    let (mut builder, mut toc) = (tar::Builder::new(Vec::new()), TocBuilder::default());
    for name in ["etc", "etc/conf.d"] {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Directory);
        header.set_size(0);
        header.set_mode(0o644);
        let path = format!("{name}/");
        builder.append_data(&mut header, path, &[][..]).unwrap();
        let found = entry(name.as_bytes(), EntryKind::Directory);
        toc.push(&found).unwrap();
    }
    let tar = builder.into_inner().unwrap();
    let blob: Bytes = gzip(&tar).into();
    let index = LayerIndex {
        toc: toc.finish(0).unwrap(),
        spans: SpanTable::new(Vec::new(), blob.len() as u64).unwrap(),
        file_digests: Vec::new(),
        ..LayerIndex::of_blob(&blob).unwrap()
    };
    let mut claim = Claim { tar, blob, index };
    proven(&claim).await;
    claim.change_toc(|entries| entries[1].mode = 0o755);
    let dir = tempfile::tempdir().unwrap();
    let from = Arc::new(source(&claim.blob));
    let reader = claim.open(dir.path(), &from).await;
    let proof = reader.prove(None).await;
    assert!(
        matches!(&proof, Proof::Contradicted { what } if what.contains("the mode of \"etc/conf.d\"")),
        "{proof:?}"
    );
}

/// A mount does not read the digests of files, so an index with damaged ones is used; its proof
/// stopped each time, when all of the layer was fetched.
#[tokio::test(flavor = "multi_thread")]
async fn damaged_file_digests_are_a_contradiction() {
    let claim = ours();
    let dir = tempfile::tempdir().unwrap();
    let from = Arc::new(source(&claim.blob));
    let reader = claim.open(dir.path(), &from).await;
    let mut file = claim.index.encode().unwrap();
    *file.last_mut().unwrap() ^= 1;
    std::fs::write(reader.store().index_path(reader.slot()), file).unwrap();
    let proof = reader.prove(None).await;
    assert!(
        matches!(&proof, Proof::Contradicted { what } if what.contains("damaged index file")),
        "{proof:?}"
    );
    assert!(reader.quarantine_reason().is_some());
    assert!(reader.store().refusal(reader.slot()).unwrap().is_some());
    assert!(own_bytes(dir.path(), &from).await == claim.tar);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_whose_blob_cannot_be_kept_is_read_without_a_proof() {
    let claim = ours();
    let dir = tempfile::tempdir().unwrap();
    let from = Arc::new(source(&claim.blob));
    let store = Store::open(dir.path(), DEFAULT_LIMIT).unwrap();
    let blob = store.layer_dir(&claim.slot()).join(BLOB);
    std::fs::create_dir_all(blob).unwrap();
    let reader = claim.open(dir.path(), &from).await;
    claim.check_file(&reader, 3).await;
    let Proof::Stopped { why } = reader.prove(None).await else {
        panic!("{:?}", reader.proof());
    };
    assert!(why.contains("cannot open"), "{why}");
    assert!(from.given() < claim.blob.len() as u64);
}

/// Before its turn comes, and while it is fetched.
#[tokio::test(flavor = "multi_thread")]
async fn after_a_quarantine_nothing_more_is_fetched() {
    for stop in [0, 2_000_000] {
        let claim = ours();
        let dir = tempfile::tempdir().unwrap();
        let from = Arc::new(source(&claim.blob));
        // It comes to a halt there, so that nothing else ends the proof.
        from.stops_at.store(stop, Ordering::Relaxed);
        let reader = claim.open(dir.path(), &from).await;
        if stop == 0 {
            reader.quarantine("another layer".to_owned());
        }
        let proving = Arc::clone(&reader);
        let proof = tokio::spawn(async move { proving.prove(None).await });
        while from.given() < stop {
            tokio::time::sleep(super::prover::PAUSE).await;
        }
        reader.quarantine("another layer".to_owned());
        let proof = tokio::time::timeout(std::time::Duration::from_secs(10), proof);
        let what = "another layer".to_owned();
        let proof = proof.await.expect("it goes on").unwrap();
        assert_eq!(proof, Proof::Contradicted { what });
        assert_eq!(reader.proof(), proof);
        assert_eq!(from.given(), stop.next_multiple_of(50_000));
        assert_eq!(from.opened.load(Ordering::Relaxed) > 0, stop > 0);
        assert!(!reader.store().layer_dir(reader.slot()).join(BLOB).exists());
    }
}

/// One wrong byte made 128 MiB be fetched anew, and that for each span that was wrong.
#[tokio::test(flavor = "multi_thread")]
async fn of_a_wrong_span_no_more_is_fetched_anew_than_the_span() {
    let claim = ours();
    let dir = tempfile::tempdir().unwrap();
    let mut from = source(&claim.blob);
    from.repents = true;
    let wrong = claim.index.spans.get(2).unwrap().compressed.clone();
    from.wrong = AtomicU64::new(wrong.start + 1000);
    let from = Arc::new(from);
    let reader = claim.open(dir.path(), &from).await;
    // What lies behind it is here, and right.
    for number in (3..at(FILES)).rev() {
        claim.check_file(&reader, number).await;
    }
    assert_eq!(reader.prove(None).await, Proof::Proven);
    let again = from.given() - claim.blob.len() as u64;
    assert!(again > 0, "nothing was wrong");
    assert!(again <= 2 * (wrong.end - wrong.start), "{again} bytes");
    assert!(own_bytes(dir.path(), &from).await == claim.tar);
}

/// What was kept of the blob stayed on a disk that is full.
#[tokio::test(flavor = "multi_thread")]
async fn when_the_disk_is_full_nothing_of_the_blob_stays() {
    let claim = ours();
    let dir = tempfile::tempdir().unwrap();
    let from = Arc::new(source(&claim.blob));
    let reader = claim.open(dir.path(), &from).await;
    claim.check_file(&reader, 5).await;
    let blob = reader.store().layer_dir(reader.slot()).join(BLOB);
    assert!(blob.exists());
    // From now on nothing can be written.
    let kept = reader.keeping().get().unwrap().try_take().unwrap().unwrap();
    kept.release();
    let Proof::Stopped { why } = reader.prove(None).await else {
        panic!("{:?}", reader.proof());
    };
    assert!(
        why.contains("disk full") && why.contains("is removed"),
        "{why}"
    );
    assert!(!blob.exists());
    claim.check_file(&reader, 9).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_room_for_it_no_proof_is_begun() {
    let claim = ours();
    let size = claim.blob.len() as u64 + 2 * claim.tar.len() as u64;
    for (limit, expected) in [(size - 10_000, false), (size + 1_000_000, true)] {
        let dir = tempfile::tempdir().unwrap();
        let from = Arc::new(source(&claim.blob));
        let store = Arc::new(Store::open(dir.path(), limit).unwrap().proving());
        let reader = claim.open_in(&store, &from).await;
        match (reader.prove(None).await, expected) {
            (Proof::Proven, true) => {}
            (Proof::Stopped { why }, false) => {
                assert!(why.contains("limit leaves"), "{why}");
                assert_eq!(from.opened.load(Ordering::Relaxed), 0);
                assert!(!store.layer_dir(reader.slot()).join(BLOB).exists());
            }
            (proof, _) => panic!("{limit}: {proof:?}"),
        }
    }
}

/// The layers behind one that nobody gives were never proven.
#[tokio::test(flavor = "multi_thread")]
async fn a_layer_that_waits_does_not_keep_others_waiting() {
    let (stuck, claim) = (ours(), chunks());
    let dir = tempfile::tempdir().unwrap();
    let (down, up) = (Arc::new(source(&stuck.blob)), Arc::new(source(&claim.blob)));
    let store = Arc::new(Store::open(dir.path(), DEFAULT_LIMIT).unwrap().proving());
    let waits = stuck.open_in(&store, &down).await;
    let reader = claim.open_in(&store, &up).await;
    down.down.store(true, Ordering::Relaxed);
    let proving = Arc::clone(&waits);
    let proof = tokio::spawn(async move { proving.prove(None).await });
    while down.opened.load(Ordering::Relaxed) == 0 {
        tokio::time::sleep(super::prover::PAUSE).await;
    }
    let limit = std::time::Duration::from_secs(60);
    let other = tokio::time::timeout(limit, reader.prove(None)).await;
    assert_eq!(other, Ok(Proof::Proven));
    assert!(!waits.proof().is_settled());
    down.down.store(false, Ordering::Relaxed);
    assert_eq!(proof.await.unwrap(), Proof::Proven);
}

/// One at a time: the second one fetches nothing as long as the first one is at it.
#[tokio::test(flavor = "multi_thread")]
async fn one_layer_is_proven_at_a_time() {
    let (first, second) = (ours(), chunks());
    let dir = tempfile::tempdir().unwrap();
    let sources = [&first, &second].map(|claim| Arc::new(source(&claim.blob)));
    sources[0].stops_at.store(1_000_000, Ordering::Relaxed);
    let store = Arc::new(Store::open(dir.path(), DEFAULT_LIMIT).unwrap().proving());
    let one = first.open_in(&store, &sources[0]).await;
    let other = second.open_in(&store, &sources[1]).await;
    let proving = Arc::clone(&one);
    let proof = tokio::spawn(async move { proving.prove(None).await });
    while sources[0].given() < 1_000_000 {
        tokio::time::sleep(super::prover::PAUSE).await;
    }
    let waiting = tokio::time::timeout(10 * super::prover::PAUSE, other.prove(None)).await;
    assert!(waiting.is_err(), "{waiting:?}");
    assert_eq!(other.proof(), Proof::Waiting);
    assert_eq!(sources[1].opened.load(Ordering::Relaxed), 0);
    // It gives up its turn with its proof.
    proof.abort();
    assert_eq!(other.prove(None).await, Proof::Proven);
}
