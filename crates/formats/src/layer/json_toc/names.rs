//! Names that a table of contents and its layer have: of versions, of files that belong to the
//! format, and how names are cleaned.

use std::borrow::Cow;

/// Largest table of contents, in bytes of JSON: some 200,000 files. Protects memory and time at the
/// mount; what is larger is indexed by a pass of our own.
pub const MAX_CONTENTS: u64 = 64 << 20;
/// The only version there is, of both formats.
pub(in crate::layer) const VERSION: i64 = 1;
/// The tar member that holds the table itself.
pub(in crate::layer) const TOC_NAME: &[u8] = b"stargz.index.json";

/// At the root of a layer: what stands before it in the blob is wanted first.
pub(in crate::layer) const PREFETCH_LANDMARK: &[u8] = b".prefetch.landmark";
/// The files at the root of a layer that belong to the format and not to the image: the landmark,
/// the one that says that nothing is wanted first, and the table (`estargz.go`: `PrefetchLandmark`,
/// `NoPrefetchLandmark`, `TOCTarName`).
pub const FORMAT_FILES: [&[u8]; 3] = [PREFETCH_LANDMARK, b".no.prefetch.landmark", TOC_NAME];

/// A name without what does not matter to where it leads, as the union reads it: slashes at the
/// ends or doubled, `.`, and `..` up to the root.
pub(in crate::layer) fn cleaned(name: &[u8]) -> Cow<'_, [u8]> {
    let trimmed = name.strip_prefix(b"./").unwrap_or(name);
    let trimmed = trimmed.strip_suffix(b"/").unwrap_or(trimmed);
    let odd = |part: &[u8]| part.is_empty() || part == b"." || part == b"..";
    if !trimmed.split(|byte| *byte == b'/').any(odd) {
        return Cow::Borrowed(trimmed);
    }
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in trimmed.split(|byte| *byte == b'/') {
        if part == b".." {
            parts.pop();
        } else if !odd(part) {
            parts.push(part);
        }
    }
    Cow::Owned(parts.join(&b'/'))
}
