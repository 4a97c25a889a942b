//! A writer of eStargz for what real converters do not make here: several payloads in one member,
//! landmarks anywhere, old footers, tables that are elsewhere, tables that lie.

use std::io::Write;

use bytes::Bytes;
use imgfs_formats::oci::Digest;
use serde_json::{Value, json};

/// How a layer is written.
#[derive(Debug, Clone, Copy)]
pub struct Form {
    /// Largest chunk, in bytes.
    pub chunk: usize,
    /// A member is not ended before it holds so many bytes. 0: each chunk has its own.
    pub member: usize,
    pub footer: Footer,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Footer {
    /// 51 bytes.
    Usual,
    /// 47 bytes.
    Old,
    /// 46 bytes: the table is elsewhere.
    External,
}

impl Default for Form {
    fn default() -> Self {
        Self {
            chunk: 4 << 20,
            member: 0,
            footer: Footer::Usual,
        }
    }
}

/// A layer and its table of contents.
#[derive(Debug, Clone)]
pub struct Written {
    pub blob: Bytes,
    pub tar: Bytes,
    pub json: Bytes,
    /// The table as a blob of its own.
    pub table: Bytes,
}

/// Writes these files (directories where the name ends in a slash). `change` may alter the table
/// before it is written.
pub fn write(files: &[(&str, &[u8])], form: Form, change: impl FnOnce(&mut Value)) -> Written {
    let mut writer = Writer::default();
    let mut entries = Vec::new();
    for (name, content) in files {
        let is_directory = name.ends_with('/');
        let mut header = tar::Header::new_ustar();
        header.set_path(name).unwrap();
        header.set_mode(0o755);
        header.set_mtime(1_700_000_000);
        header.set_size(content.len() as u64);
        if is_directory {
            header.set_entry_type(tar::EntryType::Directory);
        }
        header.set_cksum();
        writer.put(header.as_bytes());
        let mut first = json!({
            "name": name, "type": if is_directory { "dir" } else { "reg" }, "mode": 0o755,
            "modtime": "2023-11-14T22:13:20Z", "size": content.len(),
        });
        if content.is_empty() {
            entries.push(first);
            continue;
        }
        first["digest"] = json!(Digest::sha256(content).to_string());
        for (number, chunk) in content.chunks(form.chunk).enumerate() {
            if writer.member.len() >= form.member {
                writer.end_member();
            }
            let mut entry = match number {
                0 => first.clone(),
                _ => json!({"name": name, "type": "chunk", "chunkOffset": number * form.chunk}),
            };
            if content.len() > form.chunk {
                entry["chunkSize"] = json!(chunk.len());
            }
            entry["offset"] = json!(writer.blob.len());
            if !writer.member.is_empty() {
                entry["innerOffset"] = json!(writer.member.len());
            }
            entry["chunkDigest"] = json!(Digest::sha256(chunk).to_string());
            entries.push(entry);
            writer.put(chunk);
        }
        writer.put(&vec![
            0;
            content.len().next_multiple_of(512) - content.len()
        ]);
    }
    let mut table = json!({"version": 1, "entries": entries});
    change(&mut table);
    let json = table.to_string().into_bytes();
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(json.len() as u64);
    header.set_mode(0o444);
    tar.append_data(&mut header, "stargz.index.json", &json[..])
        .unwrap();
    let tar = tar.into_inner().unwrap();

    writer.end_member();
    let position = writer.blob.len();
    if form.footer == Footer::External {
        // The layer's tar has its end all the same.
        writer.put(&[0; 1024]);
    } else {
        writer.put(&tar);
    }
    writer.end_member();
    let hex = format!("{position:016x}STARGZ").into_bytes();
    let extra = match form.footer {
        Footer::Usual => [b"SG\x16\0", &hex[..]].concat(),
        Footer::Old => hex,
        Footer::External => b"SG\x11\0STARGZEXTERNALTOC".to_vec(),
    };
    let length = u16::try_from(extra.len()).unwrap().to_le_bytes();
    let start = [0x1f, 0x8b, 8, 4, 0, 0, 0, 0, 0, 0xff];
    let end = [1, 0, 0, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0];
    let footer = [&start[..], &length, &extra, &end].concat();
    writer.blob.extend(footer);
    Written {
        blob: writer.blob.into(),
        tar: writer.tar.into(),
        json: json.into(),
        table: gzip(&tar).into(),
    }
}

#[derive(Default)]
struct Writer {
    blob: Vec<u8>,
    tar: Vec<u8>,
    /// What is not compressed yet.
    member: Vec<u8>,
}

impl Writer {
    fn put(&mut self, bytes: &[u8]) {
        self.tar.extend_from_slice(bytes);
        self.member.extend_from_slice(bytes);
    }

    fn end_member(&mut self) {
        if !self.member.is_empty() {
            self.blob.extend(gzip(&self.member));
            self.member.clear();
        }
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}
