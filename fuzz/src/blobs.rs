//! Compressed layers: the forward pass, and the spans it finds.

use std::io::Write;

use crate::layer::{
    Codec, LayerIndex, Piece, ScanError, ScannedSpan, Scanner, Span, SpanDecoder, SpanDigest,
    SpanTable,
};
use crate::{lengths, pieces, take};

/// Most decoded bytes: a few spans. What is larger only costs time.
const MAX_DECODED: usize = 4 << 20;

/// The first byte says whether a blob follows, or deflate data that gets a gzip header and the
/// right trailer.
pub fn layer(data: &[u8]) {
    let Some((mode, data)) = data.split_first() else {
        return;
    };
    let (blob, content) = match mode % 2 {
        0 => (data.to_vec(), None),
        _ => gzip(data),
    };
    check(&blob, content.as_deref());
    let Ok(index) = LayerIndex::of_blob(&blob) else {
        return;
    };
    let encoded = index.encode().expect("an index can be written");
    let again = LayerIndex::read(encoded.as_slice(), &index.blob, true);
    assert_eq!(again.expect("and read"), index);
    crate::tars::build(&[&index.toc]);
}

/// How to write a blob: a first byte for the codec and its level, then for each step what to write.
///
/// ```text
/// kind u8 | length u16 (in units of 16 bytes, times 8 for kinds 0 and 1) | seed u8
/// kinds  0 zeros   1 a pattern   2 noise   3 flush   4 end of member or frame   5 what cannot be decoded to
///        anything: a skippable frame, an empty member
/// ```
pub fn spans(mut data: &[u8]) {
    let [codec] = take(&mut data);
    let level = u32::from(codec >> 1) % 10;
    let (mut blob, mut content) = (Vec::new(), Vec::new());
    let mut writer = Writer::new(codec & 1 == 1, level);
    while !data.is_empty() && content.len() < MAX_DECODED {
        let [kind, low, high, seed] = take(&mut data);
        let length = usize::from(u16::from_le_bytes([low, high])) * 16;
        let before = content.len();
        match kind % 6 {
            0 => content.resize((before + length * 8).min(MAX_DECODED), 0),
            1 => content.extend(
                (0..(length * 8).min(MAX_DECODED - before)).map(|i| (i * i >> (seed % 16)) as u8),
            ),
            2 => content.extend(
                lengths(&[seed], 256)
                    .take(length.min(MAX_DECODED - before))
                    .map(|i| i as u8),
            ),
            3 => writer.flush(),
            4 => writer.end(&mut blob),
            _ => writer.nothing(&mut blob),
        }
        writer.write(&content[before..]);
    }
    writer.end(&mut blob);
    check(&blob, Some(&content));
}

enum Writer {
    Gzip(flate2::write::GzEncoder<Vec<u8>>, u32),
    Zstd(zstd::stream::write::Encoder<'static, Vec<u8>>, i32),
}

const VEC: &str = "a Vec takes all";

impl Writer {
    fn new(zstd: bool, level: u32) -> Self {
        if zstd {
            let level = level as i32 - 2;
            Self::Zstd(
                zstd::stream::write::Encoder::new(Vec::new(), level).expect(VEC),
                level,
            )
        } else {
            let compression = flate2::Compression::new(level);
            Self::Gzip(
                flate2::write::GzEncoder::new(Vec::new(), compression),
                level,
            )
        }
    }

    fn write(&mut self, bytes: &[u8]) {
        match self {
            Self::Gzip(writer, _) => writer.write_all(bytes),
            Self::Zstd(writer, _) => writer.write_all(bytes),
        }
        .expect(VEC);
    }

    fn flush(&mut self) {
        match self {
            Self::Gzip(writer, _) => writer.flush(),
            Self::Zstd(writer, _) => writer.flush(),
        }
        .expect(VEC);
    }

    fn end(&mut self, blob: &mut Vec<u8>) {
        let next = match self {
            Self::Gzip(_, level) => Self::new(false, *level),
            Self::Zstd(_, level) => Self::new(true, (*level + 2) as u32),
        };
        let bytes = match std::mem::replace(self, next) {
            Self::Gzip(writer, _) => writer.finish(),
            Self::Zstd(writer, _) => writer.finish(),
        };
        blob.extend(bytes.expect(VEC));
    }

    fn nothing(&mut self, blob: &mut Vec<u8>) {
        self.end(blob);
        if let Self::Zstd(..) = self {
            blob.extend(b"\x5a\x2a\x4d\x18\x05\0\0\0abcde");
        } else {
            self.end(blob);
        }
    }
}

/// The pass gives the same however the blob is cut; each span by itself decodes to the same bytes;
/// and these are `expected`, if that is known.
fn check(blob: &[u8], expected: Option<&[u8]>) {
    let whole = scan([blob].into_iter());
    let small = blob.len() < 1 << 16;
    for most in if small {
        &[1, 300, 40_000][..]
    } else {
        &[40_000]
    } {
        let cut = scan(pieces(blob, lengths(blob, *most)).into_iter());
        match (&whole, &cut) {
            (Ok(whole), Ok(cut)) => {
                assert!(*whole == *cut, "pieces up to {most} give something else")
            }
            (Err(_), Err(_)) => {}
            _ => panic!(
                "whole: {:?}; in pieces up to {most}: {:?}",
                whole.as_ref().err(),
                cut.as_ref().err()
            ),
        }
    }
    let scanned = match whole {
        Ok(scanned) => scanned,
        Err(err) => {
            assert!(
                expected.is_none() || err == ScanError::Stopped,
                "a valid blob is refused: {err}"
            );
            return;
        }
    };
    if let Some(expected) = expected {
        assert!(scanned.decoded == expected, "decoded to something else");
    }
    if let Codec::Gzip = scanned.codec {
        let mut plain = Vec::new();
        let mut decoder = flate2::read::MultiGzDecoder::new(blob);
        // Zeros behind the last member are none of its business.
        if std::io::Read::read_to_end(&mut decoder, &mut plain).is_ok() {
            assert!(plain == scanned.decoded, "flate2 decodes to something else");
        }
    }
    let table =
        SpanTable::new(scanned.spans.clone(), blob.len() as u64).expect("the spans fit together");
    let mut in_order = SpanDecoder::default();
    for (id, span) in table.iter().enumerate() {
        let part =
            |span: &Span| &blob[span.compressed.start as usize..span.compressed.end as usize];
        let bytes = in_order
            .decode(span, part(span))
            .expect("a span decodes behind the one before it");
        let place = span.uncompressed.start as usize..span.uncompressed.end as usize;
        assert!(
            bytes == scanned.decoded[place],
            "span {id} decodes to something else"
        );
        let mut alone = SpanDecoder::default();
        for link in table.chain(id).take_while(|link| *link <= id) {
            let span = table.get(link).expect("it is in the table");
            alone
                .decode(span, part(span))
                .expect("a span decodes by itself");
        }
    }
}

#[derive(PartialEq)]
struct Scanned {
    codec: Codec,
    spans: Vec<Span>,
    decoded: Vec<u8>,
}

fn scan<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Result<Scanned, ScanError> {
    let (mut decoded, mut cuts) = (Vec::new(), vec![0]);
    let mut sink = |piece: Piece| match piece {
        Piece::Bytes(bytes) => {
            decoded.extend_from_slice(&bytes);
            (decoded.len() <= MAX_DECODED).then_some(bytes)
        }
        Piece::Cut => {
            cuts.push(decoded.len());
            Some(Vec::new())
        }
    };
    let mut scanner = Scanner::new();
    for piece in pieces {
        scanner.push(piece, &mut sink)?;
    }
    let (codec, spans) = scanner.finish(&mut sink)?;
    assert_eq!(spans.len() + 1, cuts.len());
    let spans = (spans.into_iter().zip(cuts.windows(2)))
        .map(|(span, cut)| with_digest(span, &decoded[cut[0]..cut[1]]));
    Ok(Scanned {
        codec,
        spans: spans.collect(),
        decoded,
    })
}

fn with_digest(span: ScannedSpan, decoded: &[u8]) -> Span {
    assert_eq!(
        span.uncompressed.end - span.uncompressed.start,
        decoded.len() as u64
    );
    Span {
        compressed: span.compressed,
        uncompressed: span.uncompressed,
        checkpoint: span.checkpoint,
        digest: SpanDigest::Own {
            compressed: span.digest,
            decoded: *blake3::hash(decoded).as_bytes(),
        },
    }
}

/// A gzip member of the deflate data at the start of `data`, what is behind that as further bytes,
/// and what it decodes to if it is valid.
fn gzip(data: &[u8]) -> (Vec<u8>, Option<Vec<u8>>) {
    let mut raw = flate2::Decompress::new(false);
    let mut output = vec![0; MAX_DECODED];
    let ended = raw.decompress(data, &mut output, flate2::FlushDecompress::Finish);
    output.truncate(raw.total_out() as usize);
    let (deflate, rest) = data.split_at(raw.total_in() as usize);
    let mut blob = b"\x1f\x8b\x08\0\0\0\0\0\0\xff".to_vec();
    blob.extend_from_slice(deflate);
    let is_valid = matches!(ended, Ok(flate2::Status::StreamEnd));
    if is_valid {
        let mut crc = flate2::Crc::new();
        crc.update(&output);
        blob.extend(crc.sum().to_le_bytes());
        blob.extend((output.len() as u32).to_le_bytes());
    }
    blob.extend_from_slice(rest);
    (blob, (is_valid && rest.is_empty()).then_some(output))
}
