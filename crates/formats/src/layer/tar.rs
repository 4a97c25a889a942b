//! The tar reader of the forward pass: uncompressed layer bytes in, entries and file digests out.
//!
//! Headers are parsed by the tar-core crate, with its limits; what it does not do as container
//! tools do is done here: modification times with fractions and before 1970, `LIBARCHIVE.xattr`,
//! link members without a body, `'\0'` members that are directories. Where tars are ambiguous, Go's
//! archive/tar is the model, as docker, containerd, podman and umoci are built on it.

use base64::Engine;
use tar_core::parse::{Limits, ParseEvent, ParsedEntry, Parser};
use tar_core::{EntryType, PaxExtensions};

use super::span::Hash;
use super::toc::{Entry, EntryKind, Extent, Mtime, Toc, TocBuilder, TocError, Xattrs};

const BLOCK: u64 = 512;
/// Most metadata in front of one entry (PAX records, long names, sparse maps), in bytes: Go's
/// limit.
const MAX_HEADERS: u32 = 1 << 20;
/// Most runs of one sparse file; each costs at most 24 bytes of index.
const MAX_SPARSE_RUNS: usize = 100_000;
/// Most bytes a header group may need before it is complete: metadata and a sparse map.
const MAX_PENDING: usize = 4 << 20;
/// Most extended attributes of one entry: protects time, as each is looked for among those before
/// it. More than fit in a kernel's list (64 KiB) with names of usual length.
const MAX_XATTRS: usize = 4096;
/// Owner shown for ids that do not fit in 32 bits: the kernel's overflow id.
const NOBODY: u32 = 65534;
/// Most warnings kept for one layer.
const MAX_WARNINGS: usize = 20;

/// Why a tar is refused.
#[derive(Debug, thiserror::Error)]
pub enum TarError {
    /// The headers near a position make no sense or exceed a limit.
    #[error("invalid tar at byte {position} of the layer: {cause}")]
    Invalid {
        /// Position in the uncompressed layer.
        position: u64,
        /// The parser's words.
        cause: String,
    },
    /// An entry exceeds a limit of the index.
    #[error("tar entry {path:?}: {cause}")]
    Entry {
        /// Name of the entry, lossily.
        path: String,
        /// Which limit.
        cause: TocError,
    },
    /// The table as a whole is refused.
    #[error(transparent)]
    Toc(#[from] TocError),
    /// The layer ends inside an entry.
    #[error("the layer's tar ends early, inside {0:?}")]
    Truncated(String),
}

/// Reads a tar in pieces of any size.
pub struct TarScanner {
    parser: Parser,
    builder: TocBuilder,
    file_digests: Vec<Hash>,
    warnings: Vec<String>,
    /// Header bytes that are not complete yet.
    pending: Vec<u8>,
    /// How many bytes `pending` must have before it is worth parsing again.
    wanted: usize,
    /// Position behind the last byte taken over from the input, `pending` included.
    position: u64,
    body: Option<Body>,
    path: Vec<u8>,
}

/// The content of an entry that is passing by.
struct Body {
    left: u64,
    padding: u64,
    hasher: Option<blake3::Hasher>,
}

impl TarScanner {
    /// A reader at the start of a layer.
    pub fn new() -> Self {
        let limits = Limits {
            max_metadata_size: MAX_HEADERS,
            max_path_len: None,
            max_pending_entries: 16,
            max_sparse_entries: MAX_SPARSE_RUNS,
        };
        let mut parser = Parser::new(limits);
        parser.set_allow_empty_path(true);
        parser.set_ignore_pax_errors(true);
        Self {
            parser,
            builder: TocBuilder::default(),
            file_digests: Vec::new(),
            warnings: Vec::new(),
            pending: Vec::new(),
            wanted: 0,
            position: 0,
            body: None,
            path: Vec::new(),
        }
    }

    /// Takes the next bytes.
    pub fn push(&mut self, mut input: &[u8]) -> Result<(), TarError> {
        while !input.is_empty() {
            if self.parser.is_done() {
                // What follows the end marker is ignored, as Go does; it still counts for the
                // layer's digest.
                self.position += input.len() as u64;
                return Ok(());
            }
            if let Some(body) = &mut self.body {
                let taken = body.take(input);
                self.position += taken as u64;
                input = input.get(taken..).unwrap_or_default();
                if body.left == 0 && body.padding == 0 {
                    self.end_body();
                }
            } else if self.pending.is_empty() {
                // The usual case: headers parsed in place.
                let taken = self.parse(input)?;
                if taken == 0 {
                    self.pending.extend_from_slice(input);
                    self.position += input.len() as u64;
                    return Ok(());
                }
                self.position += taken as u64;
                input = input.get(taken..).unwrap_or_default();
            } else {
                let count = self
                    .wanted
                    .saturating_sub(self.pending.len())
                    .clamp(1, input.len());
                let (now, later) = input.split_at(count);
                self.pending.extend_from_slice(now);
                self.position += count as u64;
                input = later;
                if self.pending.len() >= self.wanted {
                    let pending = std::mem::take(&mut self.pending);
                    self.position -= pending.len() as u64;
                    let taken = self.parse(&pending)?;
                    self.position += pending.len() as u64;
                    if taken == 0 {
                        self.pending = pending;
                    } else if let Some(rest) = pending.get(taken..).filter(|rest| !rest.is_empty())
                    {
                        // The parser wanted no more than it needed, so at most a body begins in the
                        // rest.
                        self.position -= rest.len() as u64;
                        self.push(rest)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// The layer is complete, with `layer_size` uncompressed bytes.
    pub fn finish(mut self, layer_size: u64) -> Result<(Toc, Vec<Hash>, Vec<String>), TarError> {
        if let Some(body) = &mut self.body {
            // A missing last padding is tolerated, as Go does; missing content is not.
            if body.left > 0 {
                return Err(TarError::Truncated(lossy(&self.path)));
            }
            self.end_body();
        }
        let is_end_block = self.pending.len() == 512 && self.pending.iter().all(|byte| *byte == 0);
        if !self.pending.is_empty() && !is_end_block {
            return Err(TarError::Truncated(lossy(&self.path)));
        }
        Ok((
            self.builder.finish(layer_size)?,
            self.file_digests,
            self.warnings,
        ))
    }

    /// Parses one header group from the start of `input`, which begins at `self.position`. Returns
    /// how many bytes it took, 0 if it needs more (then `wanted` says how many).
    fn parse(&mut self, input: &[u8]) -> Result<usize, TarError> {
        let invalid = |position, cause: &dyn ToString| TarError::Invalid {
            position,
            cause: cause.to_string(),
        };
        let event = self
            .parser
            .parse(input)
            .map_err(|err| invalid(self.position, &err))?;
        match event {
            ParseEvent::NeedData { min_bytes } => {
                if min_bytes > MAX_PENDING {
                    return Err(invalid(
                        self.position,
                        &"more than 4 MiB of headers for one entry",
                    ));
                }
                // At least one more byte, or nothing would change.
                self.wanted = min_bytes.max(input.len() + 1);
                Ok(0)
            }
            ParseEvent::End { consumed } => Ok(consumed.max(1)),
            // Container runtimes ignore global headers.
            ParseEvent::GlobalExtensions { consumed, .. } => Ok(consumed),
            ParseEvent::Entry { consumed, entry } => {
                self.entry(&entry, consumed, None)?;
                Ok(consumed)
            }
            ParseEvent::SparseEntry {
                consumed,
                entry,
                sparse_map,
                real_size,
            } => {
                let mut layer_offset = self.position + consumed as u64;
                let mut stored = 0_u64;
                let mut extents = Vec::with_capacity(sparse_map.len());
                for run in sparse_map.iter().filter(|run| run.length > 0) {
                    extents.push(Extent {
                        file_offset: run.offset,
                        layer_offset,
                        length: run.length,
                    });
                    stored = stored.saturating_add(run.length);
                    layer_offset = (layer_offset.checked_add(run.length))
                        .ok_or_else(|| invalid(self.position, &"sparse map overflows"))?;
                }
                // Else it would show what stands behind it in the tar.
                if stored > entry.size {
                    return Err(invalid(
                        self.position,
                        &"sparse map is longer than the entry",
                    ));
                }
                self.entry(&entry, consumed, Some((&extents, real_size)))?;
                Ok(consumed)
            }
        }
    }

    fn entry(
        &mut self,
        parsed: &ParsedEntry<'_>,
        consumed: usize,
        sparse: Option<(&[Extent], u64)>,
    ) -> Result<(), TarError> {
        self.path.clear();
        self.path.extend_from_slice(&parsed.path);
        let offset = self.position + consumed as u64;
        let invalid = |cause: &str| TarError::Invalid {
            position: self.position,
            cause: cause.to_owned(),
        };
        let pax = Pax::read(parsed.pax).map_err(|cause| invalid(&cause))?;
        let link = parsed.link_target.as_deref().unwrap_or_default();
        if parsed.path.contains(&0) || link.contains(&0) {
            return Err(invalid("a name contains a NUL byte"));
        }
        let (major, minor) = (parsed.dev_major.unwrap_or(0), parsed.dev_minor.unwrap_or(0));
        let old_style_directory =
            parsed.header.as_bytes().get(156) == Some(&0) && parsed.path.ends_with(b"/");
        let mut body = 0;
        let kind = match (parsed.entry_type, &sparse) {
            (EntryType::Regular, None) if old_style_directory => Some(EntryKind::Directory),
            (
                EntryType::Regular | EntryType::Continuous | EntryType::GnuSparse,
                Some((extents, size)),
            ) => {
                body = parsed.size;
                Some(EntryKind::SparseFile {
                    extents,
                    size: *size,
                })
            }
            (EntryType::Regular | EntryType::Continuous | EntryType::GnuSparse, None) => {
                body = parsed.size;
                Some(EntryKind::File {
                    offset,
                    size: parsed.size,
                })
            }
            (EntryType::Link, _) => Some(EntryKind::HardLink { target: link }),
            (EntryType::Symlink, _) => Some(EntryKind::Symlink { target: link }),
            (EntryType::Char, _) => Some(EntryKind::CharDevice { major, minor }),
            (EntryType::Block, _) => Some(EntryKind::BlockDevice { major, minor }),
            (EntryType::Directory, _) => Some(EntryKind::Directory),
            (EntryType::Fifo, _) => Some(EntryKind::Fifo),
            (other, _) => {
                body = parsed.size;
                let text = format!(
                    "skipped {:?}: unknown tar type {other:?}",
                    lossy(&parsed.path)
                );
                self.warn(text);
                None
            }
        };
        let mut hasher = None;
        if let Some(kind) = kind {
            let is_file = matches!(kind, EntryKind::File { .. } | EntryKind::SparseFile { .. });
            if is_file && body == 0 {
                self.file_digests.push(*blake3::hash(b"").as_bytes());
            }
            hasher = (is_file && body > 0).then(blake3::Hasher::new);
            let entry = Entry {
                path: &parsed.path,
                kind,
                mode: parsed.mode & 0o7777,
                uid: self.owner(parsed.uid, &parsed.path),
                gid: self.owner(parsed.gid, &parsed.path),
                mtime: pax.mtime.unwrap_or_else(|| header_time(parsed.mtime)),
                xattrs: &pax.xattrs,
            };
            self.builder.push(&entry).map_err(|cause| TarError::Entry {
                path: lossy(&parsed.path),
                cause,
            })?;
        }
        // What the parser took of a sparse 1.0 map is no part of `size`; header, map and padding
        // are whole blocks, so the padding depends on the body alone.
        let padding = (BLOCK - body % BLOCK) % BLOCK;
        if body > 0 {
            self.body = Some(Body {
                left: body,
                padding,
                hasher,
            });
        }
        Ok(())
    }

    fn end_body(&mut self) {
        if let Some(Body {
            hasher: Some(hasher),
            ..
        }) = self.body.take()
        {
            self.file_digests.push(*hasher.finalize().as_bytes());
        }
    }

    fn owner(&mut self, id: u64, path: &[u8]) -> u32 {
        u32::try_from(id).unwrap_or_else(|_| {
            self.warn(format!(
                "{:?}: owner {id} does not fit in 32 bits, shown as {NOBODY}",
                lossy(path)
            ));
            NOBODY
        })
    }

    fn warn(&mut self, text: String) {
        if self.warnings.len() < MAX_WARNINGS {
            self.warnings.push(text);
        }
    }
}

impl Default for TarScanner {
    fn default() -> Self {
        Self::new()
    }
}

impl Body {
    /// Takes what belongs to this entry from the start of `input`; returns how many bytes.
    fn take(&mut self, input: &[u8]) -> usize {
        let content = usize::try_from(self.left)
            .unwrap_or(usize::MAX)
            .min(input.len());
        let (content, rest) = input.split_at(content);
        if let Some(hasher) = &mut self.hasher {
            hasher.update(content);
        }
        self.left -= content.len() as u64;
        if self.left > 0 {
            return content.len();
        }
        let padding = usize::try_from(self.padding)
            .unwrap_or(usize::MAX)
            .min(rest.len());
        self.padding -= padding as u64;
        content.len() + padding
    }
}

/// What the PAX records say that the parser leaves to us.
#[derive(Default)]
struct Pax {
    mtime: Option<Mtime>,
    xattrs: Xattrs,
}

impl Pax {
    fn read(records: Option<&[u8]>) -> Result<Self, String> {
        let (mut mtime, mut xattrs) = (None, PaxXattrs::default());
        for record in PaxExtensions::new(records.unwrap_or_default()) {
            let record = record.map_err(|err| err.to_string())?;
            let (key, value) = (record.key_bytes(), record.value_bytes());
            if key == b"mtime" {
                mtime = parse_time(value).or(mtime);
            } else {
                xattrs.record(key, value)?;
            }
        }
        Ok(Self {
            mtime,
            xattrs: xattrs.finish(),
        })
    }
}

/// The extended attributes among one entry's PAX records, which other formats have, too.
#[derive(Default)]
pub(super) struct PaxXattrs {
    schily: Xattrs,
    libarchive: Xattrs,
}

impl PaxXattrs {
    /// Takes the next record.
    pub(super) fn record(&mut self, key: &[u8], value: &[u8]) -> Result<(), String> {
        if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
            set(&mut self.schily, name.to_vec(), value.to_vec())?;
        } else if let Some(name) = key.strip_prefix(b"LIBARCHIVE.xattr.") {
            // bsdtar writes unpadded base64.
            let engine = base64::engine::general_purpose::GeneralPurpose::new(
                &base64::alphabet::STANDARD,
                base64::engine::GeneralPurposeConfig::new()
                    .with_decode_padding_mode(base64::engine::DecodePaddingMode::Indifferent),
            );
            if let Ok(value) = engine.decode(value) {
                set(&mut self.libarchive, percent_decode(name), value)?;
            }
        }
        Ok(())
    }

    /// All of them; what both kinds of record name counts as the first kind says.
    pub(super) fn finish(self) -> Xattrs {
        let mut xattrs = self.schily;
        for (name, value) in self.libarchive {
            if !xattrs.iter().any(|(known, _)| *known == name) {
                xattrs.push((name, value));
            }
        }
        xattrs
    }
}

/// The last record of a name counts.
fn set(xattrs: &mut Xattrs, name: Vec<u8>, value: Vec<u8>) -> Result<(), String> {
    if let Some((_, old)) = xattrs.iter_mut().find(|(known, _)| *known == name) {
        *old = value;
    } else if xattrs.len() < MAX_XATTRS {
        xattrs.push((name, value));
    } else {
        return Err(format!(
            "more than {MAX_XATTRS} extended attributes of one entry"
        ));
    }
    Ok(())
}

fn percent_decode(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, after)) = rest.split_first() {
        let escape = after
            .first_chunk::<2>()
            .and_then(|hex| std::str::from_utf8(hex).ok());
        if let Some(byte) = escape
            .filter(|_| *first == b'%')
            .and_then(|hex| u8::from_str_radix(hex, 16).ok())
        {
            out.push(byte);
            rest = after.get(2..).unwrap_or_default();
        } else {
            out.push(*first);
            rest = after;
        }
    }
    out
}

/// PAX time: `[-]seconds[.fraction]`, where -5.5 is five and a half seconds before 1970.
fn parse_time(text: &[u8]) -> Option<Mtime> {
    let text = std::str::from_utf8(text).ok()?;
    let (negative, digits) = text
        .strip_prefix('-')
        .map_or((false, text), |rest| (true, rest));
    let (seconds, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    // `parse` alone would take a second sign.
    let mut all = seconds.bytes().chain(fraction.bytes());
    if all.any(|byte| !byte.is_ascii_digit()) {
        return None;
    }
    let seconds: i64 = seconds.parse().ok()?;
    let nanoseconds: u32 = fraction
        .chars()
        .chain("000000000".chars())
        .take(9)
        .collect::<String>()
        .parse()
        .ok()?;
    Some(match (negative, nanoseconds) {
        (false, _) => Mtime {
            seconds,
            nanoseconds,
        },
        (true, 0) => Mtime {
            seconds: -seconds,
            nanoseconds,
        },
        (true, _) => Mtime {
            seconds: -seconds - 1,
            nanoseconds: 1_000_000_000 - nanoseconds,
        },
    })
}

/// The header's time: octal, or base-256 in two's complement, which the parser hands on as its low
/// 64 bits.
fn header_time(mtime: u64) -> Mtime {
    Mtime {
        seconds: mtime.cast_signed(),
        nanoseconds: 0,
    }
}

fn lossy(path: &[u8]) -> String {
    String::from_utf8_lossy(path).chars().take(200).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_time(text: &str, expected: Option<(i64, u32)>) {
        let found = parse_time(text.as_bytes());
        assert_eq!(
            found.map(|time| (time.seconds, time.nanoseconds)),
            expected,
            "{text}"
        );
    }

    /// A megabyte of short records once took seconds, and an image can have thousands of megabytes
    /// of them.
    #[test]
    fn an_entry_has_a_limited_number_of_xattrs() {
        let records = |count: usize| -> Vec<u8> {
            let record = |i| format!("24 SCHILY.xattr.{i:05}=v\n").into_bytes();
            (0..count).flat_map(record).collect()
        };
        let few = Pax::read(Some(&records(MAX_XATTRS))).unwrap();
        assert_eq!(few.xattrs.len(), MAX_XATTRS);
        assert!(Pax::read(Some(&records(MAX_XATTRS + 1))).is_err());
    }

    /// The second one was negated once more, which overflowed.
    #[test]
    fn a_time_has_one_sign() {
        check_time("-9223372036854775807.5", Some((i64::MIN, 500_000_000)));
        check_time("--9223372036854775808", None);
        check_time("+1", None);
        check_time("-+1", None);
        check_time("1.-5", None);
        check_time("-5.5", Some((-6, 500_000_000)));
        check_time("7.", Some((7, 0)));
        check_time(".5", None);
    }
}
