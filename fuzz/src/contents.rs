//! Tables of contents of other writers, with the digest in the manifest that they need.

use std::collections::BTreeMap;

use crate::layer::estargz::{self, Footer};
use crate::layer::zstd_chunked::{self, Annotations, Position};
use crate::layer::{ContentsError, EntryKind, LayerIndex, SpanDecoder, TableOfContents};
use crate::oci::Digest;
use crate::take;
use crate::tars::build;

/// Writer u8 (eStargz, stargz' zstd:chunked, that of containers/storage), where the files end u32,
/// then JSON.
pub fn contents(mut data: &[u8]) {
    let [writer] = take(&mut data);
    let end = u64::from(u32::from_le_bytes(take(&mut data)));
    let (blob, blob_size) = (Digest::sha256(b"a layer"), end + 100);
    let table = if writer % 3 == 0 {
        estargz::read_toc(data, blob, blob_size, end)
    } else {
        let annotations = Annotations {
            checksum: blob,
            position: None,
            toc_digest: (writer % 3 == 1).then_some(blob),
        };
        let position = Position {
            compressed: end + 8..end + 50,
            size: data.len() as u64,
        };
        zstd_chunked::read_toc(data, blob, blob_size, &annotations, &position)
    };
    if let Ok(table) = table {
        check(&table, end);
    }
}

/// Everything that is said about the layer must hold together, whatever the table says.
fn check(table: &TableOfContents, end: u64) {
    let index = &table.index;
    assert!(index.spans.iter().all(|span| span.compressed.end <= end));
    assert!(table.prefetch.as_ref().is_none_or(|it| it.start == 0));
    let mut places = Vec::new();
    for entry in index.toc.iter() {
        match entry.kind {
            EntryKind::File { offset, size } if size > 0 => places.push((offset, size)),
            EntryKind::SparseFile { extents, .. } => {
                places.extend(extents.iter().map(|it| (it.layer_offset, it.length)));
            }
            _ => {}
        }
    }
    // No byte of the layer belongs to two files.
    places.sort_unstable();
    for pair in places.windows(2) {
        assert!(pair[0].0 + pair[0].1 <= pair[1].0, "{pair:?}");
    }
    build(&[&index.toc]);
    let encoded = index.encode().expect("what was read can be written");
    let again = LayerIndex::read(encoded.as_slice(), &index.blob, true).expect("and read");
    assert_eq!(again, *index);
    if let Some(span) = index.spans.get(0) {
        let length = span.compressed.end - span.compressed.start;
        if length < 1 << 16 && span.size() < 1 << 20 {
            // Never right, as the digests are those of other bytes, and never a panic.
            let wrong = SpanDecoder::default().decode(span, &vec![0x1f; length as usize]);
            assert!(wrong.is_err());
        }
    }
}

/// How u8: the end of a blob; a table's gzip member; a compressed table; the value of an
/// annotation. Then these bytes.
pub fn footers(mut data: &[u8]) {
    let [how, extra] = take(&mut data);
    let digest = Digest::sha256(data);
    match how % 4 {
        0 => {
            let size = data.len() as u64 + (u64::from(extra) << 8);
            if let Ok(Footer::Here(range)) = estargz::read_footer(data, size) {
                assert!(range.start < range.end && range.end < size);
            }
            if let Ok(position) = zstd_chunked::read_footer(data)
                && position.check(size).is_ok()
            {
                assert!(position.compressed.end <= size);
            }
        }
        1 => {
            let opened = estargz::open_member(data, &digest);
            assert!(!matches!(opened, Ok(json) if Digest::sha256(&json) != digest));
        }
        2 => {
            let annotations = Annotations {
                checksum: digest,
                position: None,
                toc_digest: None,
            };
            let position = Position {
                compressed: 0..data.len() as u64,
                size: u64::from(extra) * 16,
            };
            if let Ok(json) = zstd_chunked::open_frame(data, &annotations, &position) {
                assert_eq!(json.len() as u64, position.size);
            }
        }
        _ => {
            let value = String::from_utf8_lossy(data).into_owned();
            let keys = ["manifest-checksum", "manifest-position"];
            let with = |prefix: &str| {
                let pair = |(i, key): (usize, &&str)| {
                    let value = if i == usize::from(extra & 1) {
                        value.clone()
                    } else {
                        [digest.to_string(), "5:6:7:1".to_owned()][i].clone()
                    };
                    (format!("{prefix}.zstd-chunked.{key}"), value)
                };
                keys.iter().enumerate().map(pair).collect::<Vec<_>>()
            };
            let mut map: BTreeMap<String, String> = with("io.containers").into_iter().collect();
            if extra & 2 > 0 {
                map.extend(with("io.github.containers"));
            }
            match zstd_chunked::read_annotations(&map) {
                Ok(found) => assert!(found.is_some()),
                Err(err) => assert!(matches!(err, ContentsError::Annotation { .. })),
            }
        }
    }
}
