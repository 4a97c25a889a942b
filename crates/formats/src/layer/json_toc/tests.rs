//! Tables written by hand: what they come to, and what is refused for which reason.

use serde_json::{Value, json};

use super::listing::NOBODY;
use super::*;
use crate::layer::{Chunk, SPAN_SIZE, Span, SpanDigest};

/// Where the files of the tables here end.
const PAYLOAD_END: u64 = 2_000_000;

fn digest(byte: u8) -> String {
    format!("sha256:{}", format!("{byte:02x}").repeat(32))
}

fn layer() -> Layer {
    Layer {
        blob: Digest::sha256(b"a layer"),
        blob_size: PAYLOAD_END + 1000,
        codec: Codec::Gzip,
        payload_end: PAYLOAD_END,
        has_landmarks: true,
    }
}

fn read(entries: &Value) -> Result<TableOfContents, ContentsError> {
    let document = json!({"version": 1, "entries": entries, "unknown": {"a": [1]}});
    read_contents(document.to_string().as_bytes(), &layer())
}

/// A regular file in one chunk, as eStargz has it.
fn file(name: &str, size: u64, offset: u64) -> Value {
    json!({"name": name, "type": "reg", "size": size, "offset": offset, "chunkDigest": digest(1)})
}

fn chunk(name: &str, at: u64, size: u64, offset: u64) -> Value {
    json!({"name": name, "type": "chunk", "chunkOffset": at, "chunkSize": size, "offset": offset, "chunkDigest": digest(2)})
}

/// An object with other fields changed or added.
fn with(mut object: Value, fields: Value) -> Value {
    let Value::Object(fields) = fields else {
        unreachable!("fields are an object");
    };
    object.as_object_mut().unwrap().extend(fields);
    object
}

/// A file's stored runs: (in the file, in the layer, length).
type Runs = Vec<(u64, u64, u64)>;

/// Each file's name and bytes.
fn places(table: &TableOfContents) -> Vec<(String, Runs)> {
    let place = |entry: Entry<'_>| match entry.kind {
        EntryKind::File { offset, size } => Some((lossy(entry.path), vec![(0, offset, size)])),
        EntryKind::SparseFile { extents, .. } => {
            let runs = extents
                .iter()
                .map(|it| (it.file_offset, it.layer_offset, it.length));
            Some((lossy(entry.path), runs.collect()))
        }
        _ => None,
    };
    table.index.toc.iter().filter_map(place).collect()
}

/// All chunks, in order.
fn chunks(table: &TableOfContents) -> Vec<Chunk> {
    let of = |span: &Span| match &span.digest {
        SpanDigest::Chunks(chunks) => chunks.to_vec(),
        _ => Vec::new(),
    };
    table.index.spans.iter().flat_map(of).collect()
}

/// Each span: (in the blob, in the layer, chunks).
fn spans(table: &TableOfContents) -> Vec<(Range<u64>, Range<u64>, usize)> {
    let chunks = |digest: &SpanDigest| match digest {
        SpanDigest::Chunks(chunks) => chunks.len(),
        _ => 0,
    };
    let spans = table.index.spans.iter();
    spans
        .map(|it| {
            (
                it.compressed.clone(),
                it.uncompressed.clone(),
                chunks(&it.digest),
            )
        })
        .collect()
}

#[test]
fn every_kind_of_entry_is_read() {
    let table = read(&json!([
        {"name": "./", "type": "dir", "mode": 0o40755},
        {"name": "c", "type": "char", "devMajor": 5, "modtime": "2023-11-14T22:13:20Z"},
        {"name": "b", "type": "block", "devMajor": 259, "devMinor": 70000},
        {"name": "p", "type": "fifo", "uid": 4_000_000_000_u32, "gid": 1_u64 << 40},
        {"name": "s", "type": "symlink", "linkName": "../x"},
        {"name": "h", "type": "hardlink", "linkName": "./a//e"},
        {"name": "a/e", "type": "reg", "mode": 0o104_755, "modtime": "1969-12-31T23:59:59.5Z",
         "userName": "u", "xattrs": {"user.b": "AP8Q", "user.a": "", "user.c": null}},
    ]))
    .unwrap();
    let seen: Vec<_> = table.index.toc.iter().collect();
    assert_eq!(seen[0].mode, 0o755);
    assert_eq!(seen[1].kind, EntryKind::CharDevice { major: 5, minor: 0 });
    assert_eq!(seen[1].mtime.seconds, 1_700_000_000);
    assert_eq!(
        seen[2].kind,
        EntryKind::BlockDevice {
            major: 259,
            minor: 70000
        }
    );
    assert_eq!((seen[3].uid, seen[3].gid), (4_000_000_000, NOBODY));
    assert_eq!(seen[4].kind, EntryKind::Symlink { target: b"../x" });
    assert_eq!(seen[5].kind, EntryKind::HardLink { target: b"./a//e" });
    assert_eq!(seen[6].mode, 0o4755);
    assert_eq!(
        (seen[6].mtime.seconds, seen[6].mtime.nanoseconds),
        (-1, 500_000_000)
    );
    let xattrs: HashSet<_> = seen[6].xattrs.iter().cloned().collect();
    let pair = |name: &str, value: &[u8]| (name.as_bytes().to_vec(), value.to_vec());
    let expected = [
        pair("user.b", b"\0\xff\x10"),
        pair("user.a", b""),
        pair("user.c", b""),
    ];
    assert_eq!(xattrs, HashSet::from(expected));
    assert!(table.index.spans.is_empty());
    assert!(read(&json!([])).unwrap().index.toc.is_empty());
    assert!(read(&Value::Null).unwrap().index.toc.is_empty());
}

#[test]
fn files_are_numbered_in_the_order_of_the_blob() {
    // Listed in another order than they are stored; a landmark between them.
    let table = read(&json!([
        file("second", 700, 2000),
        file(".prefetch.landmark", 1, 1500),
        file("first", 10, 100),
        file("empty", 0, 77),
    ]))
    .unwrap();
    let expected = [("second", 512, 700), ("first", 0, 10), ("empty", 0, 0)];
    let expected = expected.map(|(name, at, size)| (name.to_owned(), vec![(0, at, size)]));
    assert_eq!(places(&table), expected);
    assert_eq!(table.prefetch, Some(0..1500));
    // A member ends where the next one begins, whoever's that is; the last one where the files end.
    let chunks = chunks(&table);
    assert_eq!(chunks[0].compressed, 100..1500);
    assert_eq!(chunks[1].compressed, 2000..PAYLOAD_END);
    let without = read(&json!([
        file("a", 1, 9),
        file(".no.prefetch.landmark", 1, 5)
    ]))
    .unwrap();
    assert_eq!((without.index.toc.len(), without.prefetch), (1, None));
    // Only the root has landmarks.
    let below = read(&json!([file("d/.prefetch.landmark", 1, 5)])).unwrap();
    assert_eq!((below.index.toc.len(), below.prefetch), (1, None));
}

#[test]
fn chunks_and_payloads_that_share_a_member_find_their_places() {
    let table = read(&json!([
        with(file("a", 1000, 10), json!({"chunkSize": 600})),
        chunk("a", 600, 0, 500),
        with(file("b", 20, 500), json!({"innerOffset": 1024})),
        with(file("c", 30, 500), json!({"innerOffset": 2048})),
    ]))
    .unwrap();
    let chunks = chunks(&table);
    let seen: Vec<_> = chunks
        .iter()
        .map(|it| (it.compressed.clone(), it.inner, it.uncompressed.clone()))
        .collect();
    let last = 500..PAYLOAD_END;
    let expected = [
        (10..500, 0, 0..600),
        (last.clone(), 0, 600..1000),
        (last.clone(), 1024, 1024..1044),
        (last, 2048, 1536..1566),
    ];
    assert_eq!(seen, expected);
}

#[test]
fn holes_and_ends_are_read_as_containers_storage_writes_them() {
    let table = read(&json!([
        with(file("a", 1000, 10), json!({"chunkSize": 100, "endOffset": 400})),
        with(chunk("a", 100, 500, 60), json!({"chunkType": "zeros"})),
        chunk("a", 600, 200, 70),
        with(chunk("a", 800, 200, 200), json!({"chunkType": "zeros"})),
        {"name": "b", "type": "reg", "size": 5, "offset": 450, "endOffset": 480, "digest": digest(3)},
        with(file("z", 7, 0), json!({"chunkType": "zeros", "chunkSize": 7})),
    ]))
    .unwrap();
    let expected = [
        ("a".to_owned(), vec![(0, 0, 100), (600, 100, 200)]),
        ("b".to_owned(), vec![(0, 512, 5)]),
        ("z".to_owned(), vec![]),
    ];
    assert_eq!(places(&table), expected);
    assert_eq!(spans(&table), [(10..480, 0..517, 3)]);
}

#[test]
fn neighbours_are_grouped_by_both_their_sizes() {
    // By what they cost on the wire.
    let entries: Vec<Value> = (0..10)
        .map(|i| file(&format!("f{i}"), 1000, 100 + i * 100_000))
        .chain([file("end", 1, 1_100_000)])
        .collect();
    let table = read(&json!(entries)).unwrap();
    let seen: Vec<_> = spans(&table).iter().map(|it| it.2).collect();
    assert_eq!(seen, [3, 3, 3, 1, 1]);
    // And by what they are.
    let entries: Vec<Value> = (0..10)
        .map(|i| file(&format!("f{i}"), 300_000, 100 + i * 10))
        .chain([file("end", 1, 300)])
        .collect();
    let table = read(&json!(entries)).unwrap();
    let spans = spans(&table);
    assert_eq!(
        spans.iter().map(|it| it.2).collect::<Vec<_>>(),
        [3, 3, 3, 1, 1]
    );
    assert!(spans.iter().all(|it| it.1.end - it.1.start <= SPAN_SIZE));
    // What is larger stands alone.
    let table = read(&json!([
        file("a", 9, 1),
        file("b", 5 << 20, 100),
        file("c", 9, 200)
    ]))
    .unwrap();
    assert_eq!(table.index.spans.len(), 3);
}

fn refused(entries: &Value, expected: &str) {
    let err = read(entries).unwrap_err().to_string();
    assert!(err.contains(expected), "{entries}: {err}");
}

/// The file that everything is wrong with.
fn f(size: u64, offset: u64) -> Value {
    file("f", size, offset)
}

#[test]
fn entries_that_make_no_sense_are_refused_and_named() {
    let check = |entries: Value, expected: &str| refused(&entries, expected);
    check(
        json!([{"name": "f", "type": "sock"}]),
        "\"f\" is of the unknown type \"sock\"",
    );
    check(json!([{"name": "f"}]), "missing field `type`");
    check(json!([with(f(3, 9), json!({"size": -1}))]), "invalid JSON");
    check(
        json!([with(f(3, 9), json!({"modtime": "yesterday"}))]),
        "wrong modtime",
    );
    check(
        json!([with(f(3, 9), json!({"xattrs": {"a": "?"}}))]),
        "wrong xattr: \"a\"",
    );
    check(
        json!([with(f(3, 9), json!({"xattrs": {"a": 1}}))]),
        "wrong xattr",
    );
    check(
        json!([{"name": "f", "type": "char", "devMajor": -1}]),
        "wrong devMajor: \"-1\"",
    );
    check(
        json!([{"name": "f\u{fffd}", "type": "dir"}]),
        "bytes of it were lost",
    );
    check(
        json!([{"name": "f", "type": "symlink", "linkName": "\u{fffd}"}]),
        "bytes of it were lost",
    );
    check(json!([{"name": "f\0", "type": "dir"}]), "NUL");
    check(json!([f(3, 9), f(3, 19)]), "\"f\" is listed twice");
    check(
        json!([{"name": "f/", "type": "dir"}, {"name": "./x/..//f", "type": "fifo"}]),
        "listed twice",
    );
    check(
        json!([{"name": "f", "type": "hardlink", "linkName": "g"}]),
        "hard link to \"g\"",
    );
    check(
        json!([with(f(3, 9), json!({"chunkDigest": ""}))]),
        "\"f\" has a chunk without a digest",
    );
    check(
        json!([with(f(3, 9), json!({"chunkDigest": "md5:00"}))]),
        "wrong digest",
    );
    check(
        json!([with(
            f(3, 9),
            json!({"chunkDigest": format!("sha512:{}", "0".repeat(128))})
        )]),
        "wrong digest",
    );
    let with_digest = json!({"chunkDigest": "", "digest": digest(3), "chunkSize": 2});
    check(
        json!([with(f(3, 9), with_digest), chunk("f", 2, 1, 19)]),
        "\"f\" has a chunk without a digest",
    );
    check(
        json!([with(f(3, 9), json!({"chunkType": "ones"}))]),
        "unknown type \"ones\"",
    );
}

#[test]
fn chunks_that_are_not_the_file_are_refused() {
    let check = |entries: Value, expected: &str| refused(&entries, expected);
    check(
        json!([chunk("f", 0, 3, 9)]),
        "chunk of \"f\" does not follow",
    );
    check(
        json!([f(3, 9), chunk("g", 3, 3, 19)]),
        "chunk of \"g\" does not follow",
    );
    check(
        json!([{"name": "f", "type": "dir"}, chunk("f", 0, 3, 9)]),
        "does not follow",
    );
    let first = |size| with(f(10, 9), json!({"chunkSize": size}));
    let not_all = "the chunks of \"f\" do not make up its 10 bytes";
    check(json!([first(4)]), not_all);
    check(json!([first(11)]), not_all);
    check(json!([first(4), chunk("f", 5, 5, 19)]), not_all);
    check(json!([first(4), chunk("f", 3, 7, 19)]), not_all);
    check(json!([first(4), chunk("f", 4, 7, 19)]), not_all);
    check(json!([first(4), chunk("f", 4, 5, 19)]), not_all);
    check(
        json!([first(4), chunk("f", 4, 0, 19), chunk("f", 10, 0, 29)]),
        not_all,
    );
    check(
        json!([first(4), chunk("f", u64::MAX, u64::MAX, 19)]),
        not_all,
    );
    check(json!([with(f(10, 9), json!({"chunkOffset": 1}))]), not_all);
    check(
        json!([first(4), chunk("f", 4, 6, 8)]),
        "\"f\" is not in order",
    );
}

#[test]
fn content_that_is_not_where_it_should_be_is_refused() {
    let check = |entries: Value, expected: &str| refused(&entries, expected);
    let first = |size| with(f(10, 9), json!({"chunkSize": size}));
    check(json!([f(3, PAYLOAD_END)]), "\"f\" has content beyond");
    check(json!([f(3, u64::MAX)]), "\"f\" has content beyond");
    check(
        json!([with(f(3, 9), json!({"endOffset": PAYLOAD_END + 1}))]),
        "\"f\" has content beyond",
    );
    check(
        json!([with(f(3, 9), json!({"endOffset": 9}))]),
        "\"f\" has its content where",
    );
    check(
        json!([with(f(3, 9), json!({"endOffset": 3}))]),
        "\"f\" has its content where",
    );
    check(
        json!([with(f(3, 9), json!({"endOffset": 30})), file("g", 3, 20)]),
        "\"f\" has its content where",
    );
    check(json!([f(3, 9), file("g", 3, 9)]), "has its content where");
    let inner = |at: u64| with(file("g", 3, 9), json!({"innerOffset": at}));
    check(json!([f(3, 9), inner(2)]), "\"g\" has its content where");
    check(
        json!([f(3, 9), inner(u64::MAX)]),
        "\"g\" is in a gzip member",
    );
    check(
        json!([
            with(first(4), json!({"offset": 5})),
            chunk("f", 4, 6, 20),
            file("g", 1, 9)
        ]),
        "is not in order",
    );
    check(
        json!([f(65 << 20, 9)]),
        "\"f\" is in a gzip member or zstd frame of at least 68157440 bytes",
    );
    check(json!([f(u64::MAX, 9)]), "\"f\" is in a gzip member");
}

#[test]
fn a_layer_of_too_many_bytes_is_refused() {
    let most = super::super::span::MAX_SPAN_SIZE;
    let size = super::super::span::MAX_LAYER_SIZE + 1;
    let chunks = (1..=size / most).map(|i| chunk("f", i * most, most.min(size - i * most), 9 + i));
    let first = with(file("f", size, 9), json!({"chunkSize": most}));
    let entries: Vec<Value> = std::iter::once(first).chain(chunks).collect();
    let err = read(&json!(entries)).unwrap_err();
    assert!(matches!(err, ContentsError::TooMuch { .. }), "{err}");
}

#[test]
fn a_document_of_another_form_is_refused() {
    let check = |text: &str, expected: &str| {
        let err = read_contents(text.as_bytes(), &layer()).unwrap_err();
        assert!(err.to_string().contains(expected), "{text}: {err}");
    };
    check("", "invalid JSON");
    check("[]", "invalid JSON");
    check("{}", "missing field `entries`");
    check(r#"{"entries":[]}"#, "missing field `version`");
    check(r#"{"version":1}"#, "missing field `entries`");
    check(r#"{"version":2,"entries":[]}"#, "version 2, known is 1");
    check(
        r#"{"version":1,"version":1,"entries":[]}"#,
        "duplicate field",
    );
    check(
        r#"{"version":1,"entries":[],"entries":[]}"#,
        "duplicate field",
    );
    check(
        r#"{"version":1,"entries":[{"name":"a","name":"b","type":"dir"}]}"#,
        "duplicate field",
    );
    check(r#"{"version":1,"entries":{}}"#, "invalid JSON");
    check(r#"{"version":1,"entries":[]} x"#, "trailing");
    check(
        r#"{"version":1,"entries":[{"type":"dir","name":"a"}"#,
        "EOF",
    );
}
