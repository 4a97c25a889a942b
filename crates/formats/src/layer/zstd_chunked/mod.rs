//! zstd:chunked: a zstd layer whose files are frames of their own, with a table of contents in a
//! skippable frame.
//!
//! ```text
//! frame: tar header | frame: content (or a chunk of it) | frame: padding, next header | ..
//! skippable frame: table of contents, itself zstd | skippable frame: tar-split (containers/storage, newer) |
//! skippable frame: footer
//!
//! skippable frame   50 2a 4d 18 | length u32 | bytes                       positions point behind these 8 bytes
//! footer            offset u64 | compressed length u64 | length u64 | type u64 (1)
//!                   [| tar-split: offset u64 | compressed length u64 | length u64 ] | "GNUlInUx" or "GnUlInUx"
//! ```
//!
//! All numbers are little-endian. Two writers, whose annotations differ in a word and whose tables
//! in some fields:
//!
//! | writer | annotations | with `containerd.io/snapshot/stargz/toc.digest` |
//! |---|---|---|
//! | containers/storage, newer | `io.github.containers.zstd-chunked.*` | no |
//! | containers/storage, older (skopeo 1.9) | `io.containers.zstd-chunked.*` | no |
//! | stargz-snapshotter | `io.containers.zstd-chunked.*` | yes, of the table's JSON |

use std::collections::BTreeMap;
use std::ops::Range;

use super::estargz;
use super::json_toc::{ContentsError, Layer, MAX_CONTENTS, TableOfContents, read_contents};
use super::scan::Codec;
use crate::oci::Digest;

/// Annotations of containers/storage: the digest of the compressed table, and where that is.
const CONTAINERS: Keys = Keys {
    checksum: "io.github.containers.zstd-chunked.manifest-checksum",
    position: "io.github.containers.zstd-chunked.manifest-position",
};
/// Those of stargz-snapshotter, and of older versions of containers/storage.
const STARGZ: Keys = Keys {
    checksum: "io.containers.zstd-chunked.manifest-checksum",
    position: "io.containers.zstd-chunked.manifest-position",
};
/// The only type of table there is.
const TYPE: u64 = 1;
/// How many of the blob's last bytes [`read_footer`] needs: the longest footer in its frame.
pub const FOOTER_SIZE: u64 = 8 + 64;

const SKIPPABLE: [u8; 4] = [0x50, 0x2a, 0x4d, 0x18];
const MAGICS: [&[u8]; 2] = [b"GNUlInUx", b"GnUlInUx"];

struct Keys {
    checksum: &'static str,
    position: &'static str,
}

/// What a layer's annotations say about its table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Annotations {
    /// Digest of the compressed table.
    pub checksum: Digest,
    /// Where it is; else the footer says so.
    pub position: Option<Position>,
    /// Digest of the table's JSON, of which stargz-snapshotter writes one, too. Such a layer has
    /// landmarks.
    pub toc_digest: Option<Digest>,
}

/// Where a table of contents is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position {
    /// Its bytes in the blob, compressed.
    pub compressed: Range<u64>,
    /// Its size in bytes when decompressed.
    pub size: u64,
}

/// Reads the annotations. `None`: the layer does not say that it is zstd:chunked.
pub fn read_annotations(
    annotations: &BTreeMap<String, String>,
) -> Result<Option<Annotations>, ContentsError> {
    let mut found: Option<Annotations> = None;
    let mut has_position_alone = false;
    let toc_digest = estargz::toc_digest(annotations)?;
    for keys in [CONTAINERS, STARGZ] {
        let Some(checksum) = annotations.get(keys.checksum) else {
            has_position_alone |= annotations.contains_key(keys.position);
            continue;
        };
        if toc_digest.is_some() && keys.checksum == CONTAINERS.checksum {
            // containers/storage refuses such a layer, as two tables could tell two stories.
            return Err(ContentsError::Ambiguous(
                "the layer has a table of eStargz and one of zstd:chunked",
            ));
        }
        let wrong = |key, value: &String, what| ContentsError::Annotation {
            key,
            value: value.clone(),
            what,
        };
        let position = match annotations.get(keys.position) {
            None => None,
            Some(text) => {
                Some(parse_position(text).ok_or_else(|| wrong(keys.position, text, "position"))?)
            }
        };
        let this = Annotations {
            checksum: (checksum.parse()).map_err(|_| wrong(keys.checksum, checksum, "digest"))?,
            position,
            toc_digest,
        };
        if found.as_ref().is_some_and(|other| *other != this) {
            return Err(ContentsError::Ambiguous("the layer has two tables"));
        }
        found = Some(this);
    }
    if found.is_none() && has_position_alone {
        return Err(ContentsError::NotVerifiable(
            "the manifest has a position and no checksum of it",
        ));
    }
    Ok(found)
}

/// `offset:compressed length:length:type`.
fn parse_position(text: &str) -> Option<Position> {
    let mut numbers = text.split(':').map(|number| {
        let is_decimal = number.bytes().all(|byte| byte.is_ascii_digit());
        number.parse::<u64>().ok().filter(|_| is_decimal)
    });
    let mut next = || numbers.next().flatten();
    let (offset, length, size, kind) = (next()?, next()?, next()?, next()?);
    let position = position(offset, length, size, kind)?;
    numbers.next().is_none().then_some(position)
}

fn position(offset: u64, length: u64, size: u64, kind: u64) -> Option<Position> {
    (kind == TYPE).then_some(Position {
        compressed: offset..offset.checked_add(length)?,
        size,
    })
}

/// Reads the footer at the end of `tail`, which are the blob's last bytes, at least [`FOOTER_SIZE`]
/// if it has so many.
pub fn read_footer(tail: &[u8]) -> Result<Position, ContentsError> {
    // Four numbers and the magic, or seven.
    for size in [64, 40] {
        if let Some(position) = footer(tail, size) {
            return Ok(position);
        }
    }
    Err(ContentsError::Footer)
}

fn footer(tail: &[u8], size: usize) -> Option<Position> {
    let frame = tail.get(tail.len().checked_sub(size + 8)?..)?;
    let body = frame.strip_prefix(&SKIPPABLE)?;
    let body = body.strip_prefix(&u32::try_from(size).ok()?.to_le_bytes())?;
    let (words, magic) = body.split_at_checked(size - 8)?;
    if !MAGICS.contains(&magic) {
        return None;
    }
    let (words, _) = words.as_chunks::<8>();
    let [offset, length, size, kind, ..] = words else {
        return None;
    };
    let number = |word: &[u8; 8]| u64::from_le_bytes(*word);
    position(number(offset), number(length), number(size), number(kind))
}

impl Position {
    /// That it lies in the blob and is not too large to be fetched and decompressed.
    pub fn check(&self, blob_size: u64) -> Result<(), ContentsError> {
        let Range { start, end } = self.compressed;
        if start >= end || end > blob_size {
            return Err(ContentsError::Position {
                start,
                end,
                blob_size,
            });
        }
        let size = self.size.max(end - start);
        if size > MAX_CONTENTS {
            return Err(ContentsError::TooLarge {
                size,
                limit: MAX_CONTENTS,
            });
        }
        Ok(())
    }
}

/// Checks the compressed table and decompresses it. A decompressor sees only bytes that the
/// manifest vouches for.
pub fn open_frame(
    compressed: &[u8],
    annotations: &Annotations,
    position: &Position,
) -> Result<Vec<u8>, ContentsError> {
    check(&annotations.checksum, compressed)?;
    let damaged = |_| ContentsError::Compressed("invalid zstd data");
    if position.size > MAX_CONTENTS {
        return Err(ContentsError::TooLarge {
            size: position.size,
            limit: MAX_CONTENTS,
        });
    }
    let capacity = usize::try_from(position.size)
        .map_err(|_| ContentsError::Compressed("it is too large for this machine"))?;
    let json = zstd::bulk::decompress(compressed, capacity).map_err(damaged)?;
    if json.len() != capacity {
        return Err(ContentsError::Compressed(
            "it is shorter than its position says",
        ));
    }
    if let Some(expected) = &annotations.toc_digest {
        check(expected, &json)?;
    }
    Ok(json)
}

fn check(expected: &Digest, bytes: &[u8]) -> Result<(), ContentsError> {
    let found = Digest::of(expected.algorithm(), bytes);
    if found != *expected {
        return Err(ContentsError::Digest {
            expected: *expected,
            found,
        });
    }
    Ok(())
}

/// The layer's index, by the JSON that [`open_frame`] gave.
pub fn read_toc(
    json: &[u8],
    blob: Digest,
    blob_size: u64,
    annotations: &Annotations,
    position: &Position,
) -> Result<TableOfContents, ContentsError> {
    let layer = Layer {
        blob,
        blob_size,
        codec: Codec::Zstd,
        // The frame's header stands before it.
        payload_end: position.compressed.start.saturating_sub(8),
        has_landmarks: annotations.toc_digest.is_some(),
    };
    read_contents(json, &layer)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        let pairs = pairs.iter();
        pairs
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn annotations_of_all_writers_are_read() {
        let digest = format!("sha256:{}", "ab".repeat(32));
        let other = format!("sha256:{}", "cd".repeat(32));
        let (digest, other) = (digest.as_str(), other.as_str());
        let place = "1113455:3593:17771:1";
        let read = |pairs: &[(&str, &str)]| read_annotations(&map(pairs));
        assert_eq!(read(&[("a", "b")]).unwrap(), None);
        assert_eq!(read(&[(estargz::TOC_DIGEST, digest)]).unwrap(), None);
        for keys in [CONTAINERS, STARGZ] {
            let found = read(&[(keys.checksum, digest), (keys.position, place)]);
            let found = found.unwrap().unwrap();
            assert_eq!(found.checksum.to_string(), digest);
            let expected = Position {
                compressed: 1_113_455..1_117_048,
                size: 17771,
            };
            assert_eq!(found.position, Some(expected));
            assert_eq!(found.toc_digest, None);
            let found = read(&[(keys.checksum, digest)]).unwrap().unwrap();
            assert_eq!(found.position, None);
            for bad in [
                "",
                "1:2:3",
                "1:2:3:2",
                "1:2:3:1:5",
                "-1:2:3:1",
                "+1:2:3:1",
                "a:2:3:1",
                "1::3:1",
                "18446744073709551615:1:3:1",
                "18446744073709551616:1:3:1",
            ] {
                let err = read(&[(keys.checksum, digest), (keys.position, bad)]).unwrap_err();
                assert!(
                    matches!(err, ContentsError::Annotation { .. }),
                    "{bad}: {err}"
                );
            }
            let err = read(&[(keys.checksum, "sha256:x")])
                .unwrap_err()
                .to_string();
            assert!(err.contains(keys.checksum), "{err}");
            let err = read(&[(keys.position, place)]).unwrap_err().to_string();
            assert!(err.contains("cannot be verified"), "{err}");
        }
        let both = [(estargz::TOC_DIGEST, other), (STARGZ.checksum, digest)];
        let found = read(&both).unwrap().unwrap();
        assert_eq!(found.toc_digest.unwrap().to_string(), other);
        let same = [(CONTAINERS.checksum, digest), (STARGZ.checksum, digest)];
        assert!(read(&same).unwrap().is_some());
        for contradiction in [
            [(CONTAINERS.checksum, digest), (STARGZ.checksum, other)],
            [(CONTAINERS.checksum, digest), (estargz::TOC_DIGEST, digest)],
        ] {
            let err = read(&contradiction).unwrap_err();
            assert!(matches!(err, ContentsError::Ambiguous(_)), "{err}");
        }
    }

    fn frame(words: &[u64], magic: &[u8]) -> Vec<u8> {
        let words: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        let length = u32::try_from(words.len() + magic.len()).unwrap();
        [&SKIPPABLE[..], &length.to_le_bytes(), &words, magic].concat()
    }

    #[test]
    fn footers_of_all_writers_are_read() {
        let expected = Position {
            compressed: 597..1010,
            size: 1279,
        };
        for magic in MAGICS {
            for words in [&[597, 413, 1279, 1][..], &[597, 413, 1279, 1, 5, 6, 7]] {
                let footer = frame(words, magic);
                let blob = [&[9; 100][..], &footer].concat();
                assert_eq!(read_footer(&blob).unwrap(), expected);
                assert_eq!(read_footer(&footer).unwrap(), expected);
                assert!(read_footer(&footer[1..]).is_err());
                assert!(read_footer(&blob[..blob.len() - 1]).is_err());
            }
            assert!(read_footer(&frame(&[597, 413, 1279, 2], magic)).is_err());
            assert!(read_footer(&frame(&[u64::MAX, 413, 1279, 1], magic)).is_err());
            assert!(read_footer(&frame(&[597, 413, 1279, 1, 5], magic)).is_err());
        }
        assert!(read_footer(&frame(&[597, 413, 1279, 1], b"GNUlInUX")).is_err());
    }

    #[test]
    fn a_table_is_compared_with_its_digests_before_it_is_read() {
        let json = br#"{"version":1,"entries":[]}"#;
        let compressed = zstd::encode_all(&json[..], 3).unwrap();
        let position = Position {
            compressed: 100..100 + compressed.len() as u64,
            size: json.len() as u64,
        };
        let right = Annotations {
            checksum: Digest::sha256(&compressed),
            position: None,
            toc_digest: Some(Digest::sha256(json)),
        };
        assert_eq!(open_frame(&compressed, &right, &position).unwrap(), json);
        let check = |annotations: &Annotations, position: &Position, expected: &str| {
            let err = open_frame(&compressed, annotations, position).unwrap_err();
            assert!(err.to_string().contains(expected), "{err}");
        };
        let with_checksum = |checksum| Annotations {
            checksum,
            ..right.clone()
        };
        check(
            &with_checksum(Digest::sha256(b"")),
            &position,
            "its digest is",
        );
        let other = Annotations {
            toc_digest: Some(Digest::sha256(b"")),
            ..right.clone()
        };
        check(&other, &position, "its digest is");
        let sized = |size| Position {
            size,
            ..position.clone()
        };
        // It is longer than announced, shorter, and announced as more than fits in memory.
        check(&right, &sized(5), "does not decompress");
        check(&right, &sized(500), "does not decompress");
        check(&right, &sized(u64::MAX), "more than the limit");
        assert!(sized(u64::MAX).check(1000).is_err());
        assert!(position.check(1000).is_ok());
        assert!(position.check(110).is_err());
        let empty = Position {
            compressed: 5..5,
            size: 1,
        };
        assert!(empty.check(1000).is_err());
    }
}
