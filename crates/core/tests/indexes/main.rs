//! Layers that are read by an index that was not made here: the same entries and the same bytes,
//! and of the network only what is read.
#![allow(unreachable_pub, reason = "a test program exports nothing")]
#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on has found what it looks for"
)]
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    reason = "test layers are small"
)]

#[path = "../support/mod.rs"]
mod support;

mod seekable;
mod soci;

use std::io::Write;
use std::sync::Arc;

use imgfs_core::source::{BlobSource, Options};
use imgfs_core::store::{DEFAULT_LIMIT, LayerReader, Slot, Store};
use imgfs_formats::layer::{Entry, EntryKind, LayerIndex, Mtime, Toc};
use imgfs_formats::oci::{Descriptor, Digest, Reference};
use support::registry::Registry;

/// Bytes that compress about as well as binaries do, from a fixed seed.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut out = Vec::with_capacity(length);
    while out.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        // Half of the time repeat something from up to 30,000 bytes ago, so that windows matter.
        if state & 1 == 0 && out.len() > 30_000 {
            let start = out.len() - 1 - (state >> 8) as usize % 30_000;
            let end = (start + 4 + (state >> 40) as usize % 60).min(out.len());
            out.extend_from_within(start..end);
        } else {
            out.extend_from_slice(&state.to_le_bytes()[..5]);
        }
    }
    out.truncate(length);
    out
}

/// A tar of about `size` bytes with every kind of member that indexes can hold, then files of very
/// different sizes.
#[expect(clippy::too_many_lines, reason = "a listing")]
fn sample_tar(size: usize) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    let header = |kind: tar::EntryType, size: usize, mode: u32| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(size as u64);
        header.set_mode(mode);
        header.set_mtime(1_700_000_000);
        header
    };
    let add =
        |builder: &mut tar::Builder<Vec<u8>>, mut header: tar::Header, path: &str, data: &[u8]| {
            builder.append_data(&mut header, path, data).unwrap();
        };
    let link = |builder: &mut tar::Builder<Vec<u8>>, kind, path: &str, target: &str| {
        let mut header = header(kind, 0, 0o777);
        builder.append_link(&mut header, path, target).unwrap();
    };
    add(
        &mut builder,
        header(tar::EntryType::Directory, 0, 0o755),
        "./",
        b"",
    );
    add(
        &mut builder,
        header(tar::EntryType::Directory, 0, 0o1777),
        "a/",
        b"",
    );
    let mut owned = header(tar::EntryType::Regular, 5, 0o4755);
    owned.set_uid(3_000_000);
    owned.set_gid(100);
    add(&mut builder, owned, "a/setuid", b"hello");
    link(
        &mut builder,
        tar::EntryType::Symlink,
        "a/symlink",
        "../a/setuid",
    );
    link(
        &mut builder,
        tar::EntryType::Symlink,
        "a/long",
        &"t".repeat(300),
    );
    link(&mut builder, tar::EntryType::Link, "a/hard", "a/setuid");
    for (kind, path) in [
        (tar::EntryType::Char, "null"),
        (tar::EntryType::Block, "disk"),
    ] {
        let mut device = header(kind, 0, 0o660);
        device.set_device_major(1).unwrap();
        device.set_device_minor(3).unwrap();
        add(&mut builder, device, path, b"");
    }
    add(
        &mut builder,
        header(tar::EntryType::Fifo, 0, 0o640),
        "pipe",
        b"",
    );
    add(
        &mut builder,
        header(tar::EntryType::Regular, 1, 0o644),
        &"n".repeat(200),
        b"x",
    );
    let pax = |builder: &mut tar::Builder<Vec<u8>>, records: &[(&str, &[u8])]| {
        builder
            .append_pax_extensions(records.iter().copied())
            .unwrap();
    };
    pax(
        &mut builder,
        &[
            ("mtime", b"-5.5"),
            ("SCHILY.xattr.user.one", b"1\0\xff"),
            ("SCHILY.xattr.security.capability", b"\x01\0\0\x02"),
            ("LIBARCHIVE.xattr.user.three", b"ZA"),
        ],
    );
    add(
        &mut builder,
        header(tar::EntryType::Regular, 3, 0o644),
        "xattrs",
        b"abc",
    );
    pax(
        &mut builder,
        &[
            ("mtime", b"4102444800.123456789"),
            ("path", "caf\u{e9}/\u{fc}".as_bytes()),
        ],
    );
    add(
        &mut builder,
        header(tar::EntryType::Regular, 0, 0o644),
        "ascii",
        b"",
    );
    add(
        &mut builder,
        header(tar::EntryType::Regular, 0, 0o644),
        "a/.wh.gone",
        b"",
    );
    add(
        &mut builder,
        header(tar::EntryType::Regular, 0, 0o644),
        "a/.wh..wh..opq",
        b"",
    );
    let (mut i, mut total) = (0_u64, 0);
    while total < size {
        let length = [0, 1, 511, 512, 513, 70_000, 1 << 20, 2_500_000][i as usize % 8];
        let header = header(tar::EntryType::Regular, length, 0o644);
        add(
            &mut builder,
            header,
            &format!("dir/file-{i}"),
            &noise(i, length),
        );
        total += length + 1024;
        i += 1;
    }
    builder.into_inner().unwrap()
}

fn gzip(level: u32, data: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(level));
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

/// An entry with nothing borrowed, for comparison. The order of attributes means nothing.
#[derive(Debug, PartialEq)]
struct Owned {
    path: String,
    kind: String,
    mode: u32,
    owner: (u32, u32),
    mtime: Mtime,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

fn owned(toc: &Toc) -> Vec<Owned> {
    let own = |entry: Entry<'_>| {
        let mut xattrs = entry.xattrs.to_vec();
        xattrs.sort();
        Owned {
            path: String::from_utf8_lossy(entry.path).into_owned(),
            kind: format!("{:?}", entry.kind),
            mode: entry.mode,
            owner: (entry.uid, entry.gid),
            mtime: entry.mtime,
            xattrs,
        }
    };
    toc.iter().map(own).collect()
}

/// The largest file: where it is in the layer, and its size.
fn largest_file(toc: &Toc) -> (u64, u64) {
    let files = toc.iter().filter_map(|entry| match entry.kind {
        EntryKind::File { offset, size } => Some((offset, size)),
        _ => None,
    });
    files.max_by_key(|(_, size)| *size).unwrap()
}

/// A blob in a registry, and a cache that knows nothing of it.
struct Place {
    registry: Registry,
    source: Arc<dyn BlobSource>,
    store: Arc<Store>,
    blob: Descriptor,
    _dir: tempfile::TempDir,
}

impl Place {
    fn with(blob: &[u8]) -> Self {
        let registry = Registry::start();
        let blob = registry.put_blob(blob.to_vec());
        let path = blob.digest;
        let reference: Reference = registry.reference(&format!("r@{path}")).parse().unwrap();
        let dir = tempfile::tempdir().unwrap();
        Self {
            source: imgfs_core::source::open(&reference, &Options::default()).unwrap(),
            store: Arc::new(Store::open(dir.path(), DEFAULT_LIMIT).unwrap()),
            blob,
            registry,
            _dir: dir,
        }
    }

    /// The layer by an index that was found.
    async fn open(&self, index: LayerIndex) -> Arc<LayerReader> {
        let slot = Slot::found(self.blob.digest, &Digest::sha256(b"an index"));
        let opened = self.store.open_found(&self.source, &self.blob, slot, index);
        opened.await.unwrap().reader
    }
}

/// Reads at places that follow from `seed` and compares with the tar.
async fn check_random_reads(reader: &Arc<LayerReader>, tar: &[u8], seed: u64, count: usize) {
    let mut state = seed | 1;
    let readable = (reader.size() as usize).min(tar.len());
    for _ in 0..count {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let start = (state >> 20) as usize % readable;
        let length = (1 + (state >> 8) as usize % 9000).min(readable - start);
        let mut buf = vec![0; length];
        reader.read_at(start as u64, &mut buf).await.unwrap();
        assert!(
            buf == tar[start..start + length],
            "{length} bytes at {start}"
        );
    }
}
