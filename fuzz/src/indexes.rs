//! Index files and tables of contents, as a cache that somebody tampered with could hold them.

use crate::layer::{LayerIndex, SpanDecoder, SpanDigest, Toc};
use crate::oci::Digest;
use crate::take;
use crate::tars::build;

/// Layer size, then what [`Toc::encode`] writes.
pub fn toc(mut data: &[u8]) {
    let layer_size = u64::from_le_bytes(take(&mut data));
    let Ok(toc) = Toc::decode(data, layer_size) else {
        return;
    };
    assert_eq!(toc.iter().count(), toc.len());
    assert_eq!(toc.encode(), data);
    build(&[&toc]);
}

/// The parts of an index file before they are compressed and checksummed:
///
/// ```text
/// codec u8 | blob size u64 | layer size u64
/// toc length u16 | records length u16 | windows length u16 | chunks length u16
/// toc | records | windows | chunks | file digests
/// ```
pub fn index(mut data: &[u8]) {
    let blob = Digest::sha256(b"");
    let file = assemble(&blob, &mut data);
    for with_digests in [false, true] {
        let Ok(index) = LayerIndex::read(file.as_slice(), &blob, with_digests) else {
            continue;
        };
        assert_eq!(
            index.spans.layer_size(),
            index
                .spans
                .iter()
                .map(|span| span.size() as u64)
                .sum::<u64>()
        );
        let end = index.spans.iter().map(|span| span.compressed.end).max();
        assert!(end.unwrap_or(0) <= index.blob_size);
        let mut start = 0;
        for (id, span) in index.spans.iter().enumerate() {
            assert!(
                span.compressed.start >= start,
                "runs are fetched in one go, forwards"
            );
            start = span.compressed.start;
            assert!(index.spans.chain(id).contains(&id));
            assert_eq!(index.spans.covering(span.uncompressed.clone()), id..id + 1);
        }
        if let Some(span) = index.spans.get(0) {
            let length = (span.compressed.end - span.compressed.start).min(1 << 16);
            let mut span = span.clone();
            let compressed = vec![0; length as usize];
            span.digest = SpanDigest::Own {
                compressed: *blake3::hash(&compressed).as_bytes(),
                decoded: [0; 32],
            };
            // Never right, and never a panic.
            let _ = SpanDecoder::default().decode(&span, &compressed);
        }
        build(&[&index.toc]);
        if with_digests {
            let encoded = index.encode().expect("what was read can be written");
            let again = LayerIndex::read(encoded.as_slice(), &blob, true).expect("and read");
            assert_eq!(again, index);
        }
    }
}

/// Layout and lengths are those of the table in `crates/formats/src/layer/index.rs`.
fn assemble(blob: &Digest, data: &mut &[u8]) -> Vec<u8> {
    let [codec] = take(data);
    let sizes: [u8; 16] = take(data);
    let lengths: [[u8; 2]; 4] = [take(data), take(data), take(data), take(data)];
    let mut sections: Vec<&[u8]> = Vec::new();
    for length in lengths {
        let length = usize::from(u16::from_le_bytes(length)).min(data.len());
        let (section, rest) = data.split_at(length);
        sections.push(section);
        *data = rest;
    }
    sections.push(data);
    let mut file = b"imgfsidx\x02\0\0\0".to_vec();
    file.extend([codec % 4, blob.algorithm() as u8, 0, 0]);
    file.extend_from_slice(blob.hash());
    file.resize(80, 0);
    file.extend_from_slice(&sizes);
    let mut body = Vec::new();
    for (i, section) in sections.iter().enumerate() {
        let stored = match i {
            4 => section.to_vec(),
            _ => zstd::bulk::compress(section, 1).expect("memory is enough"),
        };
        file.extend_from_slice(&(stored.len() as u64).to_le_bytes());
        file.extend_from_slice(&(section.len() as u64).to_le_bytes());
        file.extend_from_slice(blake3::hash(section).as_bytes());
        body.extend(stored);
    }
    let check = *blake3::hash(&file).as_bytes();
    file.extend_from_slice(&check);
    file.extend(body);
    file
}

/// A change of the layout must not turn the target into one that tests nothing.
#[test]
fn an_index_put_together_here_is_read() {
    let mut data = vec![0];
    data.resize(17, 0);
    data.extend([32, 0, 0, 0, 0, 0, 0, 0]);
    data.resize(data.len() + 32, 0);
    let blob = Digest::sha256(b"");
    let file = assemble(&blob, &mut data.as_slice());
    LayerIndex::read(file.as_slice(), &blob, true).unwrap();
}
