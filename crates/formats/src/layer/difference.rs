//! What two indexes of the same blob say differently, in words.

use std::fmt::Debug;

use super::index::LayerIndex;
use super::toc::Entry;

impl LayerIndex {
    /// The first difference between what was `claimed` and this index, which was made from the
    /// blob; `None` if they say the same. Both need their file digests.
    pub fn difference(&self, claimed: &Self) -> Option<String> {
        whole(self, claimed)
            .or_else(|| entries(self, claimed))
            .or_else(|| spans(self, claimed))
            .or_else(|| file_digests(self, claimed))
            .or_else(|| {
                let differs = self.digest() != claimed.digest();
                differs.then(|| "they are written down differently".to_owned())
            })
    }
}

/// `what is 1, not 2 as claimed`.
fn unequal<T: PartialEq + Debug>(what: &str, found: &T, claimed: &T) -> Option<String> {
    (found != claimed).then(|| format!("{what} is {found:?}, not {claimed:?} as claimed"))
}

fn whole(found: &LayerIndex, claimed: &LayerIndex) -> Option<String> {
    let digests = (found.blob.to_string(), claimed.blob.to_string());
    unequal("the blob", &digests.0, &digests.1)
        .or_else(|| unequal("the blob's size", &found.blob_size, &claimed.blob_size))
        .or_else(|| unequal("the compression", &found.codec, &claimed.codec))
        .or_else(|| {
            let sizes = (found.spans.layer_size(), claimed.spans.layer_size());
            unequal("the unpacked size", &sizes.0, &sizes.1)
        })
}

fn entries(found: &LayerIndex, claimed: &LayerIndex) -> Option<String> {
    let pairs = found.toc.iter().zip(claimed.toc.iter());
    for (number, (found, claimed)) in (1_u64..).zip(pairs) {
        if found != claimed {
            return Some(entry(number, &found, &claimed));
        }
    }
    unequal(
        "the number of entries",
        &found.toc.len(),
        &claimed.toc.len(),
    )
}

fn entry(number: u64, found: &Entry<'_>, claimed: &Entry<'_>) -> String {
    let path = found.path.escape_ascii();
    let of = |what: &str| format!("{what} of \"{path}\"");
    let text = |entry: &Entry<'_>| entry.path.escape_ascii().to_string();
    unequal(&format!("entry {number}"), &text(found), &text(claimed))
        .or_else(|| unequal(&of("kind or place"), &found.kind, &claimed.kind))
        .or_else(|| {
            let modes = (format!("{:o}", found.mode), format!("{:o}", claimed.mode));
            unequal(&of("the mode"), &modes.0, &modes.1)
        })
        .or_else(|| unequal(&of("the owner"), &found.uid, &claimed.uid))
        .or_else(|| unequal(&of("the group"), &found.gid, &claimed.gid))
        .or_else(|| unequal(&of("the time"), &found.mtime, &claimed.mtime))
        .unwrap_or_else(|| format!("the extended attributes of \"{path}\" differ"))
}

fn spans(found: &LayerIndex, claimed: &LayerIndex) -> Option<String> {
    for (number, (found, claimed)) in (0_u64..).zip(found.spans.iter().zip(claimed.spans.iter())) {
        let of = |what: &str| format!("{what} of span {number}");
        let difference = unequal(&of("the place"), &found.compressed, &claimed.compressed)
            .or_else(|| {
                unequal(
                    &of("the unpacked place"),
                    &found.uncompressed,
                    &claimed.uncompressed,
                )
            })
            .or_else(|| {
                let differs = found.digest != claimed.digest;
                differs.then(|| format!("{} is another", of("the digest")))
            })
            .or_else(|| (found != claimed).then(|| format!("{} is another", of("the checkpoint"))));
        if difference.is_some() {
            return difference;
        }
    }
    unequal(
        "the number of spans",
        &found.spans.len(),
        &claimed.spans.len(),
    )
}

fn file_digests(found: &LayerIndex, claimed: &LayerIndex) -> Option<String> {
    let pairs = found.file_digests.iter().zip(&claimed.file_digests);
    let same = pairs
        .take_while(|(found, claimed)| found == claimed)
        .count();
    if found.file_digests == claimed.file_digests {
        return None;
    }
    Some(format!("the digest of file {} is another", same + 1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layer::{Span, SpanDigest, SpanTable};

    fn tar(name: &str, content: &[u8]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        header.set_cksum();
        builder.append_data(&mut header, name, content).unwrap();
        builder.into_inner().unwrap()
    }

    #[test]
    fn the_first_difference_is_named() {
        let index = LayerIndex::of_blob(&tar("a", b"one")).unwrap();
        assert_eq!(index.difference(&index), None);
        let check = |claimed: LayerIndex, expected: &str| {
            let found = index.difference(&claimed).unwrap();
            assert!(found.contains(expected), "{found}");
        };
        let other = LayerIndex::of_blob(&tar("b", b"one")).unwrap();
        check(other.clone(), "the blob is");
        // The same blob, with something else said about it.
        let with = |change: &dyn Fn(&mut LayerIndex)| {
            let mut claimed = index.clone();
            change(&mut claimed);
            claimed
        };
        check(
            with(&|claimed| claimed.blob_size += 1),
            "size is 2048, not 2049 as claimed",
        );
        check(
            with(&|claimed| claimed.toc = other.toc.clone()),
            "entry 1 is \"a\", not \"b\"",
        );
        check(
            with(&|claimed| claimed.toc = LayerIndex::of_blob(&tar("a", b"longer")).unwrap().toc),
            "kind or place of \"a\"",
        );
        check(
            with(&|claimed| claimed.file_digests[0][0] ^= 1),
            "digest of file 1",
        );
        let with_span = |change: &dyn Fn(&mut Span)| {
            with(&|claimed| {
                let mut spans: Vec<Span> = claimed.spans.iter().cloned().collect();
                change(&mut spans[0]);
                claimed.spans = SpanTable::new(spans, claimed.blob_size).unwrap();
            })
        };
        check(
            with_span(&|span| span.digest = SpanDigest::Compressed([0; 32])),
            "the digest of span 0",
        );
    }
}
