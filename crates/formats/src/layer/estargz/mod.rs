//! eStargz: a gzip layer whose files are members of their own, with a table of contents at its end.
//!
//! ```text
//! member: tar header of a | member: content of a, tar header of b | member: content of b .. |
//! member: tar of stargz.index.json | footer
//!
//! footer, an empty gzip member with the table's position in its extra field:
//!   51 bytes  1f 8b 08 04 00000000 00 ff | 1a 00 'S' 'G' 16 00 | 16 hex digits "STARGZ"     | 01 00 00 ff ff | 8 zeros
//!   47 bytes  1f 8b 08 04 00000000 00 ff | 16 00               | 16 hex digits "STARGZ"     | ..   (stargz, older)
//!   46 bytes  1f 8b 08 04 00000000 00 ff | 15 00 'S' 'G' 11 00 | "STARGZEXTERNALTOC"        | ..   (the table is elsewhere)
//! ```
//!
//! A table that is elsewhere is a layer of the image `<tag>-esgztoc` in the same repository: the
//! same tar, compressed.

use std::collections::BTreeMap;

use super::inflate::{Inflate, Stop, Wrapper};
pub use super::json_toc::FORMAT_FILES;
use super::json_toc::{
    ContentsError, Layer, MAX_CONTENTS, TOC_NAME, TableOfContents, read_contents,
};
use super::scan::Codec;
use super::tar::TarScanner;
use super::toc::EntryKind;
use crate::oci::Digest;

/// On a layer: the digest of its table's JSON.
pub const TOC_DIGEST: &str = "containerd.io/snapshot/stargz/toc.digest";
/// On a table that is elsewhere: the digest of the layer that it is of.
pub const LAYER_DIGEST: &str = "containerd.io/snapshot/stargz/layer.digest";
/// Bytes of the longest footer.
pub const FOOTER_SIZE: u64 = 51;

/// Most bytes that the tar has beside the JSON: headers, padding and end.
const TAR_OVERHEAD: u64 = 64 << 10;
/// gzip's fixed start with an extra field, without name and comment.
const GZIP_START: [u8; 4] = [0x1f, 0x8b, 8, 4];
/// The footers with the table's position: their size, and how their extra field begins (its length,
/// little-endian; then in the newer one the subfield's name and length).
const TOC_FOOTERS: [(usize, &[u8]); 2] = [(51, b"\x1a\0SG\x16\0"), (47, b"\x16\0")];
/// The same of the one without.
const EXTERNAL_FOOTER: (usize, &[u8]) = (46, b"\x15\0SG\x11\0");
/// Bytes behind the extra field: a stored block of nothing, checksum and size.
const EMPTY_MEMBER: usize = 13;

/// What the end of a blob says about its table of contents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Footer {
    /// The table's member is these bytes of the blob.
    Here(std::ops::Range<u64>),
    /// It is elsewhere, and the files end here.
    Elsewhere(u64),
}

/// The digest of the table's JSON, as the layer's annotations have it.
pub fn toc_digest(annotations: &BTreeMap<String, String>) -> Result<Option<Digest>, ContentsError> {
    let Some(value) = annotations.get(TOC_DIGEST) else {
        return Ok(None);
    };
    let digest = value.parse().map_err(|_| ContentsError::Annotation {
        key: TOC_DIGEST,
        value: value.clone(),
        what: "digest",
    })?;
    Ok(Some(digest))
}

/// Reads the footer at the end of `tail`, which are the blob's last bytes, at least [`FOOTER_SIZE`]
/// if it has so many.
pub fn read_footer(tail: &[u8], blob_size: u64) -> Result<Footer, ContentsError> {
    for (size, extra) in TOC_FOOTERS {
        let Some(digits) = footer(tail, size, extra, b"STARGZ") else {
            continue;
        };
        let is_hex = digits.len() == 16 && digits.iter().all(u8::is_ascii_hexdigit);
        let text = std::str::from_utf8(digits).ok().filter(|_| is_hex);
        let start = text.and_then(|text| u64::from_str_radix(text, 16).ok());
        let start = start.ok_or(ContentsError::Footer)?;
        let end = blob_size.saturating_sub(size as u64);
        if start >= end {
            return Err(ContentsError::Position {
                start,
                end,
                blob_size,
            });
        }
        return Ok(Footer::Here(start..end));
    }
    let (size, extra) = EXTERNAL_FOOTER;
    match footer(tail, size, extra, b"STARGZEXTERNALTOC") {
        Some([]) => Ok(Footer::Elsewhere(blob_size.saturating_sub(size as u64))),
        _ => Err(ContentsError::Footer),
    }
}

/// What stands before `marker` in the extra field of a footer of `size` bytes.
fn footer<'a>(tail: &'a [u8], size: usize, extra: &[u8], marker: &[u8]) -> Option<&'a [u8]> {
    let footer = tail.get(tail.len().checked_sub(size)?..)?;
    // Four bytes of time, one of level and one of system are not looked at.
    let field = footer.strip_prefix(&GZIP_START)?.get(6..)?;
    let field = field.strip_prefix(extra)?;
    field
        .get(..field.len().checked_sub(EMPTY_MEMBER)?)?
        .strip_suffix(marker)
}

/// Takes the JSON out of the table's member (or of a blob that is one) and compares it with the
/// manifest's digest.
pub fn open_member(member: &[u8], expected: &Digest) -> Result<Vec<u8>, ContentsError> {
    let tar = inflate(member)?;
    let mut scanner = TarScanner::new();
    let damaged = |_| ContentsError::Compressed("it is no tar");
    scanner.push(&tar).map_err(damaged)?;
    let (toc, ..) = scanner.finish(tar.len() as u64).map_err(damaged)?;
    let place = toc.iter().find_map(|entry| match entry.kind {
        EntryKind::File { offset, size } if entry.path == TOC_NAME => Some((offset, size)),
        _ => None,
    });
    let json = place.and_then(|(offset, size)| {
        let start = usize::try_from(offset).ok()?;
        tar.get(start..start.checked_add(usize::try_from(size).ok()?)?)
    });
    let json = json.ok_or(ContentsError::Compressed("stargz.index.json is not in it"))?;
    let found = Digest::of(expected.algorithm(), json);
    if found != *expected {
        return Err(ContentsError::Digest {
            expected: *expected,
            found,
        });
    }
    Ok(json.to_vec())
}

/// The layer's index, by the JSON that [`open_member`] gave. `payload_end` is where the files end
/// in the blob.
pub fn read_toc(
    json: &[u8],
    blob: Digest,
    blob_size: u64,
    payload_end: u64,
) -> Result<TableOfContents, ContentsError> {
    let layer = Layer {
        blob,
        blob_size,
        codec: Codec::Gzip,
        payload_end,
        has_landmarks: true,
    };
    read_contents(json, &layer)
}

/// Decompresses gzip members, as far as the limit.
fn inflate(mut input: &[u8]) -> Result<Vec<u8>, ContentsError> {
    let limit = MAX_CONTENTS + TAR_OVERHEAD;
    let damaged = ContentsError::Compressed("invalid gzip data");
    let mut inflate = Inflate::new(Wrapper::Gzip);
    let mut output = Vec::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        let Ok(step) = inflate.run(input, &mut buffer, Stop::WhenFull) else {
            return Err(damaged);
        };
        input = input.get(step.consumed..).unwrap_or_default();
        output.extend_from_slice(buffer.get(..step.produced).unwrap_or_default());
        if output.len() as u64 > limit {
            return Err(ContentsError::TooLarge {
                size: output.len() as u64,
                limit: MAX_CONTENTS,
            });
        }
        if step.ended {
            if input.is_empty() {
                return Ok(output);
            }
            inflate.reset(Wrapper::Gzip);
        } else if step.consumed == 0 && step.produced == 0 {
            return Err(damaged);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A footer as Go's gzip writer makes it.
    fn written(extra: &[u8]) -> Vec<u8> {
        let length = u16::try_from(extra.len()).unwrap().to_le_bytes();
        let start = [0x1f, 0x8b, 8, 4, 0, 0, 0, 0, 0, 0xff];
        let end = [1, 0, 0, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0];
        [&start[..], &length, extra, &end].concat()
    }

    #[test]
    fn footers_of_all_three_forms_are_read() {
        let check = |footer: Vec<u8>, size: usize, expected: Option<Footer>| {
            assert_eq!(footer.len(), size);
            // In a small blob, in the tail of a large one, and cut short.
            let blob = [vec![7; 5000], footer.clone()].concat();
            let total = blob.len() as u64;
            assert_eq!(read_footer(&blob, total).ok(), expected);
            assert_eq!(read_footer(&blob[4000..], total).ok(), expected);
            assert_eq!(read_footer(&blob[..blob.len() - 1], total).ok(), None);
            for start in 1..footer.len() {
                assert_eq!(read_footer(&footer[start..], total).ok(), None);
            }
        };
        let here = |end| Some(Footer::Here(0x2ad..end));
        check(written(b"SG\x16\x0000000000000002adSTARGZ"), 51, here(5000));
        check(written(b"00000000000002adSTARGZ"), 47, here(5000));
        check(written(b"00000000000002ADSTARGZ"), 47, here(5000));
        let elsewhere = Some(Footer::Elsewhere(5000));
        check(written(b"SG\x11\0STARGZEXTERNALTOC"), 46, elsewhere);
        // The position lies behind the footer, or is no number.
        check(written(b"SG\x16\x00000000000000ffffSTARGZ"), 51, None);
        check(written(b"SG\x16\x0000000000000013bbSTARGZ"), 51, None);
        check(written(b"SG\x16\x00ffffffffffffffffSTARGZ"), 51, None);
        check(written(b"SG\x16\x00+0000000000002adSTARGZ"), 51, None);
        check(written(b"SG\x16\x0000000000000002adSTARGX"), 51, None);
        check(written(b"SX\x16\x0000000000000002adSTARGZ"), 51, None);
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        use std::io::Write;
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn member(name: &str, json: &[u8]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(json.len() as u64);
        builder.append_data(&mut header, name, json).unwrap();
        gzip(&builder.into_inner().unwrap())
    }

    #[test]
    fn a_table_is_compared_with_its_digest_before_it_is_read() {
        let json = br#"{"version":1,"entries":[]}"#;
        let digest = Digest::sha256(json);
        let right = member("stargz.index.json", json);
        assert_eq!(open_member(&right, &digest).unwrap(), json);
        let check = |member: &[u8], digest: &Digest, expected: &str| {
            let err = open_member(member, digest).unwrap_err();
            assert!(err.to_string().contains(expected), "{err}");
            assert!(err.may_be_wrong_bytes());
        };
        check(&right, &Digest::sha256(b""), "its digest is sha256:");
        check(
            &member("other.json", json),
            &digest,
            "stargz.index.json is not in it",
        );
        check(
            &gzip(b"not a tar at all, but long enough to be read as one: no"),
            &digest,
            "tar",
        );
        check(&right[..right.len() - 9], &digest, "gzip");
        check(b"plain", &digest, "gzip");
        check(b"", &digest, "gzip");
    }

    /// 64 MiB and more out of 70 KiB.
    #[test]
    fn a_bomb_is_not_decompressed() {
        let bomb = gzip(&vec![0; usize::try_from(MAX_CONTENTS).unwrap() + (1 << 20)]);
        assert!(bomb.len() < 1 << 20);
        let err = open_member(&bomb, &Digest::sha256(b"")).unwrap_err();
        assert!(matches!(err, ContentsError::TooLarge { .. }), "{err}");
    }
}
