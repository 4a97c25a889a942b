//! SOCI indexes, written after the published schema: zTOCs as `FlatBuffers`, and the manifests that
//! lead to them.
//!
//! The members come from another tar reader than imgfs's; the checkpoints from imgfs's own pass
//! over the blob, with whole windows of what the blob decodes to. Everything can be changed before
//! it is encoded.

#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    reason = "the fields of the formats are signed, and what is made here is small"
)]

use std::collections::BTreeMap;
use std::io::Read;

use bytes::Bytes;
use imgfs_formats::layer::{Checkpoint, LayerIndex};
use imgfs_formats::oci::{Descriptor, Digest};
use serde_json::json;

use super::image::{Image, OCI_INDEX, OCI_MANIFEST, OCI_TAR, descriptor};

pub const SOCI_V1: &str = "application/vnd.amazon.soci.index.v1+json";
pub const SOCI_V2: &str = "application/vnd.amazon.soci.index.v2+json";
pub const SOCI_PREFETCH: &str = "application/vnd.amazon.soci.prefetch.v1+json";
/// SOCI's own default: bytes of the layer between two checkpoints.
pub const SOCI_SPAN: u64 = 4 << 20;
const WINDOW: usize = 32768;

/// A zTOC before it is encoded.
#[derive(Debug, Clone)]
pub struct Ztoc {
    pub version: String,
    pub compressed_size: i64,
    pub uncompressed_size: i64,
    pub members: Vec<Member>,
    /// Left out where it has the default value: 1, gzip.
    pub algorithm: u8,
    pub max_span_id: i32,
    pub digests: Vec<String>,
    pub checkpoints: Checkpoints,
}

/// One member of the tar.
#[derive(Debug, Clone)]
pub struct Member {
    pub name: Vec<u8>,
    pub kind: String,
    pub offset: i64,
    pub size: i64,
    pub link: Vec<u8>,
    pub mode: i64,
    pub uid: u32,
    pub gid: u32,
    pub time: String,
    pub major: i64,
    pub minor: i64,
    pub pax: BTreeMap<Vec<u8>, Vec<u8>>,
}

#[derive(Debug, Clone)]
pub enum Checkpoints {
    Gzip {
        points: Vec<Point>,
        /// As writers of version 1 leave it out.
        without_first: bool,
    },
    Tar {
        span_size: i64,
        size: i64,
        /// As early writers have it: 20 bytes instead of a `FlatBuffer`.
        packed: bool,
    },
    Raw(Vec<u8>),
}

#[derive(Debug, Clone)]
pub struct Point {
    pub compressed: i64,
    pub uncompressed: i64,
    pub bits: u8,
    pub window: Vec<u8>,
}

/// What `blob` decodes to.
pub fn decode(blob: &[u8]) -> Vec<u8> {
    let mut tar = Vec::new();
    if blob.starts_with(&[0x1f, 0x8b]) {
        let mut decoder = flate2::read::MultiGzDecoder::new(blob);
        decoder.read_to_end(&mut tar).unwrap();
    } else {
        tar.extend_from_slice(blob);
    }
    tar
}

impl Ztoc {
    /// Of a gzip or plain tar layer, with a checkpoint at the first place that is more than `span`
    /// bytes behind the last one.
    pub fn of_blob(blob: &[u8], span: u64) -> Self {
        let tar = decode(blob);
        let is_gzip = blob.starts_with(&[0x1f, 0x8b]);
        let mut ztoc = Self {
            version: "0.9".to_owned(),
            compressed_size: blob.len() as i64,
            uncompressed_size: tar.len() as i64,
            members: members(&tar),
            algorithm: if is_gzip { 1 } else { 2 },
            max_span_id: 0,
            digests: Vec::new(),
            checkpoints: Checkpoints::Raw(Vec::new()),
        };
        let ranges: Vec<(u64, u64)> = if is_gzip {
            let points = points(blob, &tar, span);
            let ends = points.iter().skip(1).map(|point| point.compressed as u64);
            let ends = ends.chain([blob.len() as u64]);
            let starts = points
                .iter()
                .map(|point| point.compressed as u64 - u64::from(point.bits > 0));
            let ranges = starts.zip(ends).collect();
            ztoc.checkpoints = Checkpoints::Gzip {
                points,
                without_first: false,
            };
            ranges
        } else {
            ztoc.checkpoints = Checkpoints::Tar {
                span_size: span as i64,
                size: blob.len() as i64,
                packed: false,
            };
            let size = blob.len() as u64;
            (0..size.div_ceil(span))
                .map(|i| (i * span, size.min((i + 1) * span)))
                .collect()
        };
        ztoc.max_span_id = ranges.len() as i32 - 1;
        ztoc.digests = (ranges.iter())
            .map(|(start, end)| Digest::sha256(&blob[*start as usize..*end as usize]).to_string())
            .collect();
        ztoc
    }

    /// Its bytes.
    pub fn encode(&self) -> Bytes {
        let checkpoints = match &self.checkpoints {
            Checkpoints::Raw(bytes) => bytes.clone(),
            Checkpoints::Gzip {
                points,
                without_first,
            } => {
                let mut bytes = (points.len() as u32).to_le_bytes().to_vec();
                bytes.extend(SOCI_SPAN.to_le_bytes());
                for point in points.iter().skip(usize::from(*without_first)) {
                    bytes.extend(point.compressed.to_le_bytes());
                    bytes.extend(point.uncompressed.to_le_bytes());
                    bytes.push(point.bits);
                    bytes.extend(&point.window);
                }
                bytes
            }
            Checkpoints::Tar {
                span_size,
                size,
                packed: true,
            } => {
                let mut bytes = 2_i32.to_le_bytes().to_vec();
                bytes.extend(span_size.to_le_bytes());
                bytes.extend(size.to_le_bytes());
                bytes
            }
            Checkpoints::Tar {
                span_size, size, ..
            } => flatbuffer(Value::Table(vec![
                Value::I32(2),
                Value::I64(*span_size),
                Value::I64(*size),
            ])),
        };
        let members = self.members.iter().map(Member::value).collect();
        let digests = (self.digests.iter())
            .map(|digest| Value::Bytes(digest.clone().into_bytes()))
            .collect();
        let info = Value::Table(vec![
            match self.algorithm {
                1 => Value::None,
                other => Value::U8(other),
            },
            Value::I32(self.max_span_id),
            Value::Offsets(digests),
            Value::Bytes(checkpoints),
        ]);
        let ztoc = Value::Table(vec![
            Value::Bytes(self.version.clone().into_bytes()),
            Value::Bytes(b"imgfs tests".to_vec()),
            Value::I64(self.compressed_size),
            Value::I64(self.uncompressed_size),
            Value::Table(vec![Value::Offsets(members)]),
            info,
        ]);
        flatbuffer(ztoc).into()
    }
}

impl Member {
    fn value(&self) -> Value {
        let pax = self.pax.iter().map(|(key, value)| {
            Value::Table(vec![Value::Bytes(key.clone()), Value::Bytes(value.clone())])
        });
        Value::Table(vec![
            Value::Bytes(self.name.clone()),
            Value::Bytes(self.kind.clone().into_bytes()),
            Value::I64(self.offset),
            Value::I64(self.size),
            Value::Bytes(self.link.clone()),
            Value::I64(self.mode),
            Value::U32(self.uid),
            Value::U32(self.gid),
            Value::Bytes(b"user".to_vec()),
            Value::Bytes(Vec::new()),
            Value::Bytes(self.time.clone().into_bytes()),
            Value::I64(self.major),
            Value::I64(self.minor),
            Value::Offsets(pax.collect()),
        ])
    }
}

/// The members as another tar reader finds them.
fn members(tar: &[u8]) -> Vec<Member> {
    let mut archive = tar::Archive::new(tar);
    let mut members = Vec::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let mut pax = BTreeMap::new();
        if let Some(records) = entry.pax_extensions().unwrap() {
            for record in records {
                let record = record.unwrap();
                pax.insert(record.key_bytes().to_vec(), record.value_bytes().to_vec());
            }
        }
        let header = entry.header();
        let time = match pax.get(&b"mtime"[..]) {
            Some(time) => String::from_utf8(time.clone()).unwrap(),
            None => header.mtime().unwrap().to_string(),
        };
        let kind = match header.entry_type() {
            tar::EntryType::Directory => "dir",
            tar::EntryType::Symlink => "symlink",
            tar::EntryType::Link => "hardlink",
            tar::EntryType::Char => "char",
            tar::EntryType::Block => "block",
            tar::EntryType::Fifo => "fifo",
            _ => "reg",
        };
        let is_device = matches!(kind, "char" | "block");
        let number = |number: Option<u32>| i64::from(number.filter(|_| is_device).unwrap_or(0));
        members.push(Member {
            kind: kind.to_owned(),
            offset: entry.raw_file_position() as i64,
            size: header.entry_size().unwrap() as i64,
            link: entry.link_name_bytes().unwrap_or_default().into_owned(),
            mode: i64::from(header.mode().unwrap()),
            // Empty is zero.
            uid: header.uid().unwrap_or(0) as u32,
            gid: header.gid().unwrap_or(0) as u32,
            time: rfc3339(&time),
            major: number(header.device_major().unwrap_or_default()),
            minor: number(header.device_minor().unwrap_or_default()),
            name: entry.path_bytes().into_owned(),
            pax,
        });
        if kind == "reg" {
            members.last_mut().unwrap().size = entry.size() as i64;
        }
    }
    members
}

/// PAX's `seconds.fraction` as Go writes times.
fn rfc3339(pax: &str) -> String {
    let (negative, digits) = match pax.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, pax),
    };
    let (seconds, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let nanoseconds: i64 = format!("{fraction:0<9}")[..9].parse().unwrap();
    let all = i128::from(seconds.parse::<i64>().unwrap()) * 1_000_000_000 + i128::from(nanoseconds);
    let all = if negative { -all } else { all };
    let (seconds, nanoseconds) = (all.div_euclid(1_000_000_000), all.rem_euclid(1_000_000_000));
    let (mut day, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    // Slowly but surely: year by year, month by month.
    let is_leap = |year: i128| year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let mut year = 1970;
    while day < 0 {
        year -= 1;
        day += 365 + i128::from(is_leap(year));
    }
    while day >= 365 + i128::from(is_leap(year)) {
        day -= 365 + i128::from(is_leap(year));
        year += 1;
    }
    let february = 28 + i128::from(is_leap(year));
    let mut month = 1;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30] {
        if day < length {
            break;
        }
        day -= length;
        month += 1;
    }
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    let mut text = format!(
        "{year:04}-{month:02}-{:02}T{hour:02}:{minute:02}:{second:02}",
        day + 1
    );
    if nanoseconds > 0 {
        let fraction = format!("{nanoseconds:09}");
        text = format!("{text}.{}", fraction.trim_end_matches('0'));
    }
    text + "Z"
}

/// Where the pass over the blob cuts, at least `span` bytes apart.
fn points(blob: &[u8], tar: &[u8], span: u64) -> Vec<Point> {
    let index = LayerIndex::of_blob(blob).unwrap();
    let mut points: Vec<Point> = Vec::new();
    for found in index.spans.iter() {
        let (start, out) = (found.compressed.start, found.uncompressed.start);
        if points
            .last()
            .is_some_and(|last| out <= last.uncompressed as u64 + span)
        {
            continue;
        }
        let (compressed, bits) = match &found.checkpoint {
            // A member start is what follows its header.
            Checkpoint::MemberStart => (start + header_length(&blob[start as usize..]), 0),
            Checkpoint::Deflate { bits, .. } => (start + u64::from(*bits > 0), *bits),
            other => panic!("gzip has no {other:?}"),
        };
        let before = &tar[(out as usize).saturating_sub(WINDOW)..out as usize];
        let mut window = vec![0; WINDOW - before.len()];
        window.extend_from_slice(before);
        points.push(Point {
            compressed: compressed as i64,
            uncompressed: out as i64,
            bits,
            window,
        });
    }
    points
}

/// Length of a gzip member's header (RFC 1952).
fn header_length(member: &[u8]) -> u64 {
    let flags = member[3];
    let mut length = 10;
    if flags & 4 != 0 {
        length += 2 + usize::from(u16::from_le_bytes([member[length], member[length + 1]]));
    }
    for flag in [8, 16] {
        if flags & flag != 0 {
            length += member[length..].iter().position(|byte| *byte == 0).unwrap() + 1;
        }
    }
    (length + if flags & 2 != 0 { 2 } else { 0 }) as u64
}

/// A field of a `FlatBuffer`'s table.
enum Value {
    None,
    U8(u8),
    U32(u32),
    I32(i32),
    I64(i64),
    /// A string or a vector of bytes.
    Bytes(Vec<u8>),
    Table(Vec<Value>),
    Offsets(Vec<Value>),
}

/// A buffer with this root table, written front to back: field list, table, then what its fields
/// point to.
fn flatbuffer(root: Value) -> Vec<u8> {
    let mut out = vec![0; 4];
    let mut pending = vec![(0, root)];
    while let Some((at, value)) = pending.pop() {
        let mut start = 0;
        match value {
            Value::Bytes(bytes) => {
                align(&mut out, 4);
                start = out.len();
                out.extend((bytes.len() as u32).to_le_bytes());
                out.extend(bytes);
                out.push(0);
            }
            Value::Offsets(values) => {
                align(&mut out, 4);
                start = out.len();
                out.extend((values.len() as u32).to_le_bytes());
                let first = out.len();
                out.resize(first + 4 * values.len(), 0);
                let places = (first..).step_by(4).zip(values);
                pending.extend(places.collect::<Vec<_>>().into_iter().rev());
            }
            Value::Table(fields) => start = table(&mut out, fields, &mut pending),
            _ => {}
        }
        let offset = (start - at) as u32;
        out[at..at + 4].copy_from_slice(&offset.to_le_bytes());
    }
    out
}

fn table(out: &mut Vec<u8>, fields: Vec<Value>, pending: &mut Vec<(usize, Value)>) -> usize {
    let mut body = vec![0; 4];
    let (mut places, mut targets) = (Vec::new(), Vec::new());
    for field in fields {
        let bytes = match &field {
            Value::None => {
                places.push(0_u16);
                continue;
            }
            Value::U8(number) => vec![*number],
            Value::U32(number) => number.to_le_bytes().to_vec(),
            Value::I32(number) => number.to_le_bytes().to_vec(),
            Value::I64(number) => number.to_le_bytes().to_vec(),
            _ => vec![0; 4],
        };
        align(&mut body, bytes.len());
        places.push(body.len() as u16);
        if matches!(field, Value::Bytes(_) | Value::Table(_) | Value::Offsets(_)) {
            targets.push((body.len(), field));
        }
        body.extend(bytes);
    }
    align(out, 2);
    let list = out.len();
    out.extend((4 + 2 * places.len() as u16).to_le_bytes());
    out.extend((body.len() as u16).to_le_bytes());
    out.extend(places.into_iter().flat_map(u16::to_le_bytes));
    align(out, 8);
    let start = out.len();
    body[..4].copy_from_slice(&((start - list) as i32).to_le_bytes());
    out.extend(body);
    let targets = targets.into_iter().rev();
    pending.extend(targets.map(|(place, value)| (start + place, value)));
    start
}

fn align(out: &mut Vec<u8>, to: usize) {
    out.resize(out.len().next_multiple_of(to), 0);
}

/// An image with a SOCI index: what a registry has to hold of it.
pub struct SociImage {
    /// The image; with version 2 its manifest names the index.
    pub image: Image,
    /// The SOCI index's manifest.
    pub index: Bytes,
    /// Its config and the zTOCs.
    pub blobs: Vec<Bytes>,
    /// Lists both, as `soci convert` does it.
    pub list: Bytes,
}

/// An image with a SOCI index of version 2. `ztocs`: for each layer its zTOC, if it has one; `more`
/// are further blobs of the SOCI index.
pub fn soci_v2(image: &Image, ztocs: &[Option<Bytes>], more: &[(Descriptor, Bytes)]) -> SociImage {
    let (index, blobs) = soci_index(SOCI_V2, &image.layer_descriptors(), ztocs, more, None);
    let mut manifest: serde_json::Value = serde_json::from_slice(&image.manifest).unwrap();
    manifest["annotations"] =
        json!({"com.amazon.soci.index-digest": Digest::sha256(&index).to_string()});
    let image = Image {
        manifest: manifest.to_string().into(),
        ..image.clone()
    };
    let platform = json!({"os": "linux", "architecture": "amd64"});
    let mut listed_image = json!(descriptor(OCI_MANIFEST, &image.manifest));
    listed_image["platform"] = platform.clone();
    let mut listed_index = json!(descriptor(OCI_MANIFEST, &index));
    listed_index["artifactType"] = json!(SOCI_V2);
    listed_index["platform"] = platform;
    listed_index["annotations"] = json!({
        "com.amazon.soci.image-manifest-digest": Digest::sha256(&image.manifest).to_string()
    });
    let list = json!({
        "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [listed_image, listed_index]
    });
    SociImage {
        image,
        index,
        blobs,
        list: list.to_string().into(),
    }
}

/// The manifest of a SOCI index for these layers, and its blobs. Version 1 has a `subject`.
pub fn soci_index(
    version: &str,
    layers: &[Descriptor],
    ztocs: &[Option<Bytes>],
    more: &[(Descriptor, Bytes)],
    subject: Option<&Descriptor>,
) -> (Bytes, Vec<Bytes>) {
    let config = Bytes::from_static(b"{}");
    let mut listed = Vec::new();
    let mut blobs = vec![config.clone()];
    for (layer, ztoc) in layers.iter().zip(ztocs) {
        let Some(ztoc) = ztoc else {
            continue;
        };
        let mut entry = descriptor("application/octet-stream", ztoc);
        entry.annotations = BTreeMap::from([
            (
                "com.amazon.soci.image-layer-digest".to_owned(),
                layer.digest.to_string(),
            ),
            (
                "com.amazon.soci.image-layer-mediaType".to_owned(),
                layer.media_type.clone(),
            ),
        ]);
        listed.push(entry);
        blobs.push(ztoc.clone());
    }
    for (entry, blob) in more {
        listed.push(entry.clone());
        blobs.push(blob.clone());
    }
    let mut manifest = json!({
        "schemaVersion": 2, "mediaType": OCI_MANIFEST,
        "config": descriptor(version, &config),
        "layers": listed,
        "annotations": {"com.amazon.soci.build-tool-identifier": "imgfs tests"},
    });
    if let Some(subject) = subject {
        manifest["subject"] = json!(subject);
    }
    (manifest.to_string().into(), blobs)
}

impl Image {
    /// Its layers as the manifest lists them.
    pub fn layer_descriptors(&self) -> Vec<Descriptor> {
        let layers = self.layers.iter();
        layers
            .map(|layer| descriptor(layer.media_type, &layer.blob))
            .collect()
    }
}

/// Whether zTOCs can be made of layers of this type.
pub fn is_indexable(media_type: &str) -> bool {
    media_type == OCI_TAR || media_type.ends_with("gzip")
}
