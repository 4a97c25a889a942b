//! One contract for all layer formats: whatever the compression, the forward pass gives the same
//! entries, the index survives its file form, every span decodes to the right bytes, and pieces of
//! any size change nothing.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
#![allow(clippy::cast_possible_truncation, reason = "test layers are small")]
#![allow(clippy::print_stdout, reason = "a test that cannot run says so")]

use std::io::Write;
use std::process::{Command, Stdio};

use imgfs_formats::layer::{
    Codec, ContentPass, EntryKind, LayerIndex, MAX_SPAN_COMPRESSED, Piece, ScanError, Scanner,
    SpanDecoder,
};
use imgfs_formats::oci::Digest;

/// Bytes that compress about as well as binaries do, from a fixed seed.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed | 1;
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

/// A tar of about `size` bytes with files of very different sizes.
fn sample_tar(size: usize) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o644);
    let (mut i, mut total) = (0_u64, 0);
    while total < size {
        let length = [0, 1, 511, 512, 513, 70_000, 1 << 20, 2_500_000][i as usize % 8];
        header.set_size(length as u64);
        header.set_mtime(1_000_000 + i);
        builder
            .append_data(&mut header, format!("dir/file-{i}"), &noise(i, length)[..])
            .unwrap();
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

fn members(size: usize, data: &[u8]) -> Vec<u8> {
    data.chunks(size).flat_map(|chunk| gzip(6, chunk)).collect()
}

fn zstd_frames(size: usize, data: &[u8]) -> Vec<u8> {
    let mut out = vec![0x5a, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3];
    for chunk in data.chunks(size) {
        out.extend(zstd::encode_all(chunk, 3).unwrap());
    }
    out
}

/// Runs a real program over `data`.
fn filter(program: &[&str], data: &[u8]) -> Option<Vec<u8>> {
    let child = Command::new(program[0])
        .args(&program[1..])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn();
    let Ok(mut child) = child else {
        let text = format!("SKIPPED {}: not installed", program[0]);
        assert!(std::env::var_os("IMGFS_TEST_REQUIRE").is_none(), "{text}");
        println!("{text}");
        return None;
    };
    let mut stdin = child.stdin.take().unwrap();
    let data = data.to_vec();
    let writer = std::thread::spawn(move || stdin.write_all(&data));
    let mut out = Vec::new();
    std::io::copy(child.stdout.as_mut().unwrap(), &mut out).unwrap();
    writer.join().unwrap().unwrap();
    assert!(child.wait().unwrap().success());
    Some(out)
}

fn formats(tar: &[u8]) -> Vec<(&'static str, Codec, Vec<u8>)> {
    let mut formats = vec![
        ("tar", Codec::Tar, tar.to_vec()),
        ("gzip", Codec::Gzip, gzip(6, tar)),
        ("gzip, stored blocks", Codec::Gzip, gzip(0, tar)),
        ("gzip, small members", Codec::Gzip, members(40_000, tar)),
        ("gzip, large members", Codec::Gzip, members(3_000_000, tar)),
        (
            "gzip, zeros behind",
            Codec::Gzip,
            [gzip(1, tar), vec![0; 700]].concat(),
        ),
        ("zstd", Codec::Zstd, zstd::encode_all(tar, 3).unwrap()),
        ("zstd, small frames", Codec::Zstd, zstd_frames(50_000, tar)),
        (
            "zstd, large frames",
            Codec::Zstd,
            zstd_frames(3_000_000, tar),
        ),
    ];
    let programs: [(&'static str, Codec, &[&str]); 5] = [
        ("gzip program", Codec::Gzip, &["gzip", "-9"]),
        ("pigz", Codec::Gzip, &["pigz"]),
        ("pigz, independent", Codec::Gzip, &["pigz", "-i", "-1"]),
        ("bgzip", Codec::Gzip, &["bgzip"]),
        (
            "zstd program",
            Codec::Zstd,
            &["zstd", "-T2", "--check", "-q"],
        ),
    ];
    for (name, codec, program) in programs {
        if let Some(blob) = filter(program, tar) {
            formats.push((name, codec, blob));
        }
    }
    formats
}

/// The pass in pieces whose sizes come from `sizes`, round and round.
fn index_in_pieces(blob: &[u8], sizes: &[usize]) -> LayerIndex {
    let mut content = ContentPass::new();
    let mut scanner = Scanner::new();
    let mut sink = |piece: Piece| match piece {
        Piece::Bytes(bytes) => {
            content.bytes(&bytes).unwrap();
            Some(bytes)
        }
        Piece::Cut => {
            content.cut();
            Some(Vec::new())
        }
    };
    let (mut rest, mut sizes) = (blob, sizes.iter().cycle());
    while !rest.is_empty() {
        let (now, later) = rest.split_at((*sizes.next().unwrap()).min(rest.len()));
        scanner.push(now, &mut sink).unwrap();
        rest = later;
    }
    let scanned = scanner.finish(&mut sink).unwrap();
    LayerIndex::join(
        Digest::sha256(blob),
        blob.len() as u64,
        scanned,
        content.finish().unwrap(),
    )
    .unwrap()
}

fn slice(bytes: &[u8], range: &std::ops::Range<u64>) -> Vec<u8> {
    bytes[range.start as usize..range.end as usize].to_vec()
}

#[test]
fn every_format_gives_the_same_entries_and_bytes() {
    let tar = sample_tar(12_000_000);
    let plain = LayerIndex::of_blob(&tar).unwrap();
    assert!(plain.toc.len() > 20);
    for (name, codec, blob) in formats(&tar) {
        let index = LayerIndex::of_blob(&blob).unwrap();
        assert_eq!(index.codec, codec, "{name}");
        assert_eq!(index.toc, plain.toc, "{name}");
        assert_eq!(index.file_digests, plain.file_digests, "{name}");
        assert_eq!(index.spans.layer_size(), tar.len() as u64, "{name}");
        assert!(
            index.spans.len() >= 3,
            "{name}: {} spans",
            index.spans.len()
        );
        let file = index.encode().unwrap();
        assert_eq!(
            LayerIndex::read(&file[..], &index.blob, true).unwrap(),
            index,
            "{name}"
        );
        let mut decoder = SpanDecoder::default();
        for span in index.spans.iter() {
            let decoded = decoder
                .decode(span, &slice(&blob, &span.compressed))
                .unwrap();
            assert!(
                decoded == slice(&tar, &span.uncompressed),
                "{name}: span at {}",
                span.uncompressed.start
            );
        }
    }
}

#[test]
fn spans_decode_in_any_order_but_within_a_zstd_frame() {
    let tar = sample_tar(9_000_000);
    for (name, _, blob) in formats(&tar) {
        let index = LayerIndex::of_blob(&blob).unwrap();
        let mut id = index.spans.len();
        while id > 0 {
            let chain = index.spans.chain(id - 1);
            id = chain.start;
            let mut decoder = SpanDecoder::default();
            for span in chain.map(|id| index.spans.get(id).unwrap()) {
                let decoded = decoder
                    .decode(span, &slice(&blob, &span.compressed))
                    .unwrap();
                assert!(decoded == slice(&tar, &span.uncompressed), "{name}");
            }
        }
    }
}

#[test]
fn pieces_of_any_size_give_the_same_index() {
    let tar = sample_tar(6_000_000);
    for (name, _, blob) in formats(&tar) {
        let whole = LayerIndex::of_blob(&blob).unwrap();
        for sizes in [
            &[1, 3, 7, 100_000][..],
            &[4096],
            &[65_536, 1],
            &[999, 1 << 20],
        ] {
            assert!(
                index_in_pieces(&blob, sizes) == whole,
                "{name}: pieces of {sizes:?}"
            );
        }
    }
}

#[test]
fn a_flipped_bit_in_a_span_is_noticed_before_it_is_decoded() {
    let tar = sample_tar(3_000_000);
    for (name, _, blob) in formats(&tar) {
        let index = LayerIndex::of_blob(&blob).unwrap();
        let span = index.spans.get(0).unwrap();
        let mut compressed = slice(&blob, &span.compressed);
        let middle = compressed.len() / 2;
        compressed[middle] ^= 4;
        let err = SpanDecoder::default()
            .decode(span, &compressed)
            .unwrap_err();
        assert_eq!(err, imgfs_formats::layer::SpanError::Digest, "{name}");
    }
}

#[test]
fn truncated_and_garbled_blobs_are_errors_and_never_panics() {
    let tar = sample_tar(200_000);
    for (name, _, blob) in formats(&tar) {
        for cut in [blob.len() - 1, blob.len() - 9, blob.len() / 2, 20] {
            let result = LayerIndex::of_blob(&blob[..cut]);
            if name.contains("zeros behind") && cut > blob.len() - 700 {
                assert!(result.is_ok());
            } else if name == "bgzip" && cut > blob.len() - 28 {
                assert!(result.is_err(), "inside bgzip's empty last member");
            } else if name != "tar" || cut < blob.len() - 1024 {
                assert!(result.is_err(), "{name} cut to {cut} of {}", blob.len());
            }
        }
        for i in 0..200 {
            let mut bad = blob.clone();
            let position = (i * 7919 + 13) % bad.len();
            bad[position] ^= 1 << (i % 8);
            if let Ok(index) = LayerIndex::of_blob(&bad) {
                index.encode().unwrap();
            }
        }
    }
}

#[test]
fn damaged_index_files_are_refused() {
    let blob = gzip(6, &sample_tar(1_000_000));
    let index = LayerIndex::of_blob(&blob).unwrap();
    let file = index.encode().unwrap();
    for position in (0..file.len()).step_by(97).chain(0..300) {
        let mut bad = file.clone();
        bad[position] ^= 1;
        assert!(
            LayerIndex::read(&bad[..], &index.blob, true).is_err(),
            "byte {position}"
        );
    }
    for length in (0..file.len()).step_by(101) {
        assert!(
            LayerIndex::read(&file[..length], &index.blob, true).is_err(),
            "cut to {length}"
        );
    }
    let err = LayerIndex::read(&file[..], &Digest::sha256(b"other"), false).unwrap_err();
    assert!(err.to_string().contains("index of another blob"), "{err}");
    assert!(
        LayerIndex::read(&file[..], &index.blob, false)
            .unwrap()
            .file_digests
            .is_empty()
    );
}

#[test]
fn the_index_of_a_real_program_is_small() {
    let program = std::fs::read("/proc/self/exe").unwrap();
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(program.len() as u64);
    builder
        .append_data(&mut header, "program", &program[..])
        .unwrap();
    let blob = gzip(6, &builder.into_inner().unwrap());
    let file = LayerIndex::of_blob(&blob).unwrap().encode().unwrap();
    assert!(
        file.len() * 1000 < blob.len() * 15,
        "{} of {}",
        file.len(),
        blob.len()
    );
}

/// PAX records, each with its own length in front.
fn pax(records: &[(&str, &str)]) -> Vec<u8> {
    let mut body = Vec::new();
    for (key, value) in records {
        let rest = key.len() + value.len() + 3;
        let mut length = rest + 1;
        while length != rest + length.to_string().len() {
            length += 1;
        }
        body.extend_from_slice(format!("{length} {key}={value}\n").as_bytes());
    }
    body
}

#[test]
fn tar_details_that_container_tools_agree_on() {
    let mut builder = tar::Builder::new(Vec::new());
    let mut append = |name: &str, kind: u8, body: &[u8], size: u64, link: &str| {
        let mut header = tar::Header::new_ustar();
        header.as_old_mut().linkflag = [kind];
        header.set_path(name).unwrap();
        if !link.is_empty() {
            header.set_link_name(link).unwrap();
        }
        header.set_size(size);
        header.set_mode(0o100_644);
        header.set_mtime(0);
        header.set_uid(0);
        header.set_gid(0);
        header.set_cksum();
        builder.append(&header, body).unwrap();
    };
    let global = pax(&[("mtime", "77")]);
    append("g", b'g', &global, global.len() as u64, "");
    let records = pax(&[
        ("mtime", "-5.5"),
        ("SCHILY.xattr.user.a", "x=y\nz"),
        ("LIBARCHIVE.xattr.user%2eb", "aGk"),
        ("uid", "5000000000"),
    ]);
    append("x", b'x', &records, records.len() as u64, "");
    append("f", b'0', b"abc", 3, "");
    append("h", b'1', b"", 3, "f");
    append("d/", 0, b"", 0, "");
    append("v", b'V', b"label", 5, "");
    append("c", b'7', b"xy", 2, "");
    let index = LayerIndex::of_blob(&builder.into_inner().unwrap()).unwrap();
    let entries: Vec<_> = index.toc.iter().collect();
    let names: Vec<_> = entries
        .iter()
        .map(|entry| String::from_utf8_lossy(entry.path))
        .collect();
    assert_eq!(names, ["f", "h", "d/", "c"]);
    assert_eq!(
        (entries[0].mtime.seconds, entries[0].mtime.nanoseconds),
        (-6, 500_000_000)
    );
    assert_eq!(entries[0].mode, 0o644, "only the low twelve bits");
    assert_eq!(entries[0].uid, 65534);
    let xattrs = [
        (b"user.a".to_vec(), b"x=y\nz".to_vec()),
        (b"user.b".to_vec(), b"hi".to_vec()),
    ];
    assert_eq!(entries[0].xattrs, xattrs);
    assert_eq!(entries[1].kind, EntryKind::HardLink { target: b"f" });
    assert_eq!(entries[1].mtime.seconds, 0, "the global header is ignored");
    assert_eq!(entries[2].kind, EntryKind::Directory);
    assert!(matches!(entries[3].kind, EntryKind::File { size: 2, .. }));
    assert_eq!(index.file_digests.len(), 2);
}

#[test]
fn gnu_tar_and_bsdtar_write_what_we_read() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("root");
    std::fs::create_dir(&root).unwrap();
    let sparse = std::fs::File::create(root.join("sparse")).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&sparse, b"middle", 1 << 20).unwrap();
    sparse.set_len(3 << 20).unwrap();
    std::fs::write(root.join(format!("{}-long", "n".repeat(120))), "long name").unwrap();
    let root = root.to_str().unwrap();
    let programs: [&[&str]; 6] = [
        &["tar", "-C", root, "-c", "--format=gnu", "-S", "."],
        &["tar", "-C", root, "-c", "--format=oldgnu", "."],
        &[
            "tar",
            "-C",
            root,
            "-c",
            "--format=posix",
            "-S",
            "--sparse-version=0.0",
            ".",
        ],
        &[
            "tar",
            "-C",
            root,
            "-c",
            "--format=posix",
            "-S",
            "--sparse-version=0.1",
            ".",
        ],
        &[
            "tar",
            "-C",
            root,
            "-c",
            "--format=posix",
            "-S",
            "--sparse-version=1.0",
            ".",
        ],
        &["bsdtar", "-C", root, "-c", "--format=pax", "."],
    ];
    for program in programs {
        let Some(tar) = filter(program, b"") else {
            continue;
        };
        let index = LayerIndex::of_blob(&tar).unwrap();
        let mut seen = 0;
        for entry in index.toc.iter() {
            let name = String::from_utf8_lossy(entry.path).into_owned();
            match entry.kind {
                EntryKind::File { offset, size } if name.ends_with("-long") => {
                    assert_eq!(
                        &tar[offset as usize..(offset + size) as usize],
                        b"long name"
                    );
                    seen += 1;
                }
                EntryKind::File { offset, size } if name.ends_with("sparse") => {
                    assert_eq!(size, 3 << 20);
                    assert_eq!(&tar[offset as usize + (1 << 20)..][..6], b"middle");
                    seen += 1;
                }
                EntryKind::SparseFile { extents, size } => {
                    assert!(name.ends_with("/sparse"), "{name}");
                    assert_eq!(size, 3 << 20);
                    let covers = |e: &&imgfs_formats::layer::Extent| {
                        (e.file_offset..e.file_offset + e.length).contains(&(1 << 20))
                    };
                    let extent = extents.iter().find(covers).unwrap();
                    let at = extent.layer_offset + ((1 << 20) - extent.file_offset);
                    assert_eq!(&tar[at as usize..][..6], b"middle", "{program:?}");
                    seen += 1;
                }
                _ => {}
            }
        }
        assert_eq!(seen, 2, "{program:?}");
    }
}

/// Blocks and frames that decode to nothing never end a span: its compressed bytes once grew
/// without a bound, in memory while its window was followed, and again at each fetch.
#[test]
fn what_decodes_to_nothing_does_not_grow_without_a_bound() {
    let mut skipped = b"\x50\x2a\x4d\x18\0\0\0\x7f".to_vec();
    skipped.resize(8 + (1 << 20), 0);
    let gzip_start = b"\x1f\x8b\x08\0\0\0\0\0\0\xff".to_vec();
    let empty_blocks = b"\0\0\0\xff\xff".repeat(1 << 18);
    for (start, more) in [(skipped, vec![0; 1 << 20]), (gzip_start, empty_blocks)] {
        let mut scanner = Scanner::new();
        let mut sink = |_| Some(Vec::new());
        scanner.push(&start, &mut sink).unwrap();
        let limit = MAX_SPAN_COMPRESSED as usize / more.len() + 2;
        let error = (0..limit).find_map(|_| scanner.push(&more, &mut sink).err());
        assert_eq!(error, Some(ScanError::SpanTooLarge));
    }
}

#[test]
fn a_sparse_map_longer_than_its_entry_is_refused() {
    let blob = |stored: &str| {
        let mut builder = tar::Builder::new(Vec::new());
        let map = format!("0,{stored}");
        let records = pax(&[("GNU.sparse.size", "9000"), ("GNU.sparse.map", &map)]);
        for (kind, body) in [(b'x', &records[..]), (b'0', b"0123456789")] {
            let mut header = tar::Header::new_ustar();
            header.as_old_mut().linkflag = [kind];
            header.set_path("sparse").unwrap();
            header.set_size(body.len() as u64);
            header.set_mode(0o644);
            header.set_mtime(0);
            header.set_uid(0);
            header.set_gid(0);
            header.set_cksum();
            builder.append(&header, body).unwrap();
        }
        builder.into_inner().unwrap()
    };
    assert!(LayerIndex::of_blob(&blob("10")).is_ok());
    let err = LayerIndex::of_blob(&blob("11")).unwrap_err();
    assert!(err.to_string().contains("longer than the entry"), "{err}");
}
