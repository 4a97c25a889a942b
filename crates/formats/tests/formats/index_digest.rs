//! The index of a layer is a function of the layer's bytes alone: not of the pieces they came in,
//! nor of threads, the zstd library or the machine's word order.
//!
//! The layers here are written bit by bit, so no compressor's version can change them. Their
//! digests stand in the test: a machine or a build that gets others makes indexes that nobody can
//! compare with anybody's.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
#![allow(clippy::cast_possible_truncation, reason = "the layers are small")]

use imgfs_formats::layer::{ContentPass, LayerIndex, Piece, Scanner};
use imgfs_formats::oci::Digest;

const BLOCK: usize = 16384;
const BLOCKS: usize = 192;

/// A tar header of the POSIX form.
fn header(name: &str, size: usize, kind: u8, link: &str) -> Vec<u8> {
    let mut header = vec![0; 512];
    let mut put = |at: usize, text: &str| {
        header[at..at + text.len()].copy_from_slice(text.as_bytes());
    };
    put(0, name);
    put(100, "0004755");
    put(108, "0001750");
    put(116, "0000144");
    put(124, &format!("{size:011o}"));
    put(136, "14361447045");
    put(148, "        ");
    put(157, link);
    put(257, "ustar");
    put(263, "00");
    header[156] = kind;
    let sum: u64 = header.iter().map(|byte| u64::from(*byte)).sum();
    header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    header
}

/// The layer: a directory, a link, and a file of 3 MiB whose every block repeats what is far behind
/// it.
fn tar() -> Vec<u8> {
    let mut tar = header("bin/", 0, b'5', "");
    tar.extend(header("bin/link", 0, b'2', "../file"));
    tar.extend(header("file", BLOCK * BLOCKS, b'0', ""));
    for block in 0..BLOCKS {
        tar.extend(literals(block));
        for distance in distances(block) {
            for _ in 0..258 {
                tar.push(tar[tar.len() - distance]);
            }
        }
    }
    tar.resize(tar.len() + 1024, 0);
    tar
}

/// What a block of the file begins with.
fn literals(block: usize) -> Vec<u8> {
    (0..130)
        .map(|n| (block * 37 + n * n * 11 + n / 3) as u8)
        .collect()
}

/// How far back the 63 repetitions of a block reach.
fn distances(block: usize) -> Vec<usize> {
    // The first blocks have less than 32 KiB before them.
    let furthest = if block < 3 { 1 } else { 24577 };
    (0..63)
        .map(|n| furthest + (block * 131 + n * 517) % 100)
        .collect()
}

/// Bits as deflate wants them: the first one lowest.
#[derive(Default)]
struct Bits {
    bytes: Vec<u8>,
    count: usize,
}

impl Bits {
    fn put(&mut self, bits: usize, count: usize) {
        for i in 0..count {
            if self.count.is_multiple_of(8) {
                self.bytes.push(0);
            }
            *self.bytes.last_mut().unwrap() |= ((bits >> i & 1) << (self.count % 8)) as u8;
            self.count += 1;
        }
    }

    /// A Huffman code, whose first bit is its highest.
    fn code(&mut self, code: usize, count: usize) {
        for i in (0..count).rev() {
            self.put(code >> i & 1, 1);
        }
    }

    /// A byte in the fixed code (RFC 1951, 3.2.6).
    fn literal(&mut self, byte: u8) {
        let byte = usize::from(byte);
        if byte < 144 {
            self.code(0x30 + byte, 8);
        } else {
            self.code(0x190 + byte - 144, 9);
        }
    }

    /// A repetition of 258 bytes.
    fn repeat(&mut self, distance: usize) {
        self.code(0xc0 + 285 - 280, 8);
        // Distance codes with the extra bits that this test needs.
        let (symbol, first, extra) = match distance {
            1..=4 => (distance - 1, distance, 0),
            5..=6 => (4, 5, 1),
            7..=8 => (5, 7, 1),
            9..=12 => (6, 9, 2),
            13..=16 => (7, 13, 2),
            17..=24 => (8, 17, 3),
            25..=32 => (9, 25, 3),
            33..=48 => (10, 33, 4),
            49..=64 => (11, 49, 4),
            65..=96 => (12, 65, 5),
            97..=128 => (13, 97, 5),
            _ => (29, 24577, 13),
        };
        self.code(symbol, 5);
        self.put(distance - first, extra);
    }

    fn block(&mut self, is_last: bool, content: impl FnOnce(&mut Self)) {
        self.put(usize::from(is_last), 1);
        self.put(1, 2);
        content(self);
        self.code(0, 7);
    }
}

/// The layer as one gzip member of blocks that end within bytes and need what is before them.
fn gzip() -> Vec<u8> {
    let tar = tar();
    let mut bits = Bits::default();
    bits.block(false, |bits| {
        for byte in &tar[..1536] {
            bits.literal(*byte);
        }
    });
    for block in 0..BLOCKS {
        bits.block(false, |bits| {
            for byte in literals(block) {
                bits.literal(byte);
            }
            for distance in distances(block) {
                bits.repeat(distance);
            }
        });
    }
    bits.block(true, |bits| {
        for _ in 0..1024 {
            bits.literal(0);
        }
    });
    let mut out = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
    out.extend(bits.bytes);
    let mut crc = flate2::Crc::new();
    crc.update(&tar);
    out.extend(crc.sum().to_le_bytes());
    out.extend((tar.len() as u32).to_le_bytes());
    out
}

/// The layer as two zstd frames of blocks that are not compressed (RFC 8878, 3.1.1).
fn zstd() -> Vec<u8> {
    let tar = tar();
    let mut out = Vec::new();
    for frame in tar.chunks(2_000_000) {
        // No content size, no checksum, a window of 1 MiB.
        out.extend([0x28, 0xb5, 0x2f, 0xfd, 0, 0x50]);
        let blocks = frame.len().div_ceil(128 << 10);
        for (number, block) in (1..).zip(frame.chunks(128 << 10)) {
            let head = usize::from(number == blocks) | block.len() << 3;
            out.extend(&head.to_le_bytes()[..3]);
            out.extend(block);
        }
    }
    out
}

/// The forward pass over pieces of these sizes, in turn.
fn index_in_pieces(blob: &[u8], sizes: &[usize]) -> LayerIndex {
    let mut content = ContentPass::new();
    let mut sink = |piece: Piece| match piece {
        Piece::Cut => {
            content.cut();
            Some(Vec::new())
        }
        Piece::Bytes(bytes) => {
            content.bytes(&bytes).unwrap();
            Some(bytes)
        }
    };
    let mut scanner = Scanner::new();
    let (mut rest, mut turn) = (blob, 0);
    while !rest.is_empty() {
        let (now, later) = rest.split_at(sizes[turn % sizes.len()].min(rest.len()));
        scanner.push(now, &mut sink).unwrap();
        rest = later;
        turn += 1;
    }
    let scanned = scanner.finish(&mut sink).unwrap();
    let size = blob.len() as u64;
    LayerIndex::join(
        Digest::sha256(blob),
        size,
        scanned,
        content.finish().unwrap(),
    )
    .unwrap()
}

/// The same index file as another version of zstd might write it.
fn compressed_otherwise(file: &[u8]) -> Vec<u8> {
    // Five times stored length, raw length and hash, then the hash of all that is before.
    const TABLE: usize = 96;
    const HEADER: usize = TABLE + 5 * 48;
    let mut header = file[..HEADER].to_vec();
    let (mut rest, mut body) = (&file[HEADER + 32..], Vec::new());
    for number in 0..5 {
        let at = TABLE + number * 48;
        let stored = u64::from_le_bytes(header[at..at + 8].try_into().unwrap());
        let (section, after) = rest.split_at(stored as usize);
        rest = after;
        let section = if number == 4 {
            section.to_vec()
        } else {
            ::zstd::encode_all(&::zstd::decode_all(section).unwrap()[..], 19).unwrap()
        };
        header[at..at + 8].copy_from_slice(&(section.len() as u64).to_le_bytes());
        body.extend(section);
    }
    let check = blake3::hash(&header);
    [&header[..], check.as_bytes(), &body].concat()
}

/// Name, blob and index digest. Whoever changes the index's layout or the rules for spans raises
/// its version and puts the new digests here.
fn layers() -> [(&'static str, Vec<u8>, &'static str); 3] {
    [
        (
            "tar",
            tar(),
            "sha256:9bcf2dae2c3d8ae5c130b096f3a18b8dc87ff995f673c70ddeeb1e34c6842dd0",
        ),
        (
            "gzip",
            gzip(),
            "sha256:9e7ab2caa9399de0c219358b510fe63f30e81f8d26b322ba0afb7db6c1eb2940",
        ),
        (
            "zstd",
            zstd(),
            "sha256:1fb7d43e82a7fc5c0a545f111c559b00aac96ceaa7a3a1bb09b8bcc5778205ff",
        ),
    ]
}

#[test]
fn index_digests_are_known() {
    for (name, blob, expected) in layers() {
        let index = LayerIndex::of_blob(&blob).unwrap();
        assert!(
            index.spans.len() >= 3,
            "{name}: {} spans",
            index.spans.len()
        );
        assert_eq!(index.toc.len(), 3, "{name}");
        assert_eq!(index.digest().to_string(), expected, "{name}");
    }
}

#[test]
fn the_blobs_are_what_they_should_be() {
    let tar = tar();
    let mut unpacked = Vec::new();
    std::io::Read::read_to_end(
        &mut flate2::read::GzDecoder::new(&gzip()[..]),
        &mut unpacked,
    )
    .unwrap();
    assert_eq!(unpacked, tar);
    assert_eq!(::zstd::decode_all(&zstd()[..]).unwrap(), tar);
}

#[test]
fn an_index_file_has_the_digest_of_what_it_says() {
    for (name, blob, _) in layers() {
        let index = LayerIndex::of_blob(&blob).unwrap();
        let file = index.encode().unwrap();
        assert_eq!(
            LayerIndex::digest_of_file(&file).unwrap(),
            index.digest(),
            "{name}"
        );
        let read = LayerIndex::read(&file[..], &index.blob, true).unwrap();
        assert_eq!(read.digest(), index.digest(), "{name}");
        let other = compressed_otherwise(&file);
        assert_ne!(other, file, "{name}");
        assert_eq!(LayerIndex::digest_of_file(&other).unwrap(), index.digest());
        let read = LayerIndex::read(&other[..], &index.blob, true).unwrap();
        assert_eq!(read, index, "{name}");
        let mut other = index.clone();
        other.file_digests[0][0] ^= 1;
        assert_ne!(other.digest(), index.digest(), "{name}");
        for cut in [0, 7, 100, 200] {
            assert!(LayerIndex::digest_of_file(&file[..cut]).is_err(), "{name}");
        }
        for position in [0, 8, 12, 20, 90, 100, 150] {
            let mut damaged = file.clone();
            damaged[position] ^= 1;
            assert!(
                LayerIndex::digest_of_file(&damaged).is_err(),
                "{name}: {position}"
            );
        }
    }
}

#[test]
fn neither_pieces_nor_threads_change_an_index() {
    for (name, blob, expected) in layers() {
        let file = LayerIndex::of_blob(&blob).unwrap().encode().unwrap();
        let sizes: [&[usize]; 6] = [
            &[usize::MAX],
            &[1 << 20],
            &[65536, 1],
            &[4097],
            &[777, 3, 100_000],
            &[31],
        ];
        std::thread::scope(|scope| {
            for sizes in sizes {
                let (blob, file) = (&blob, &file);
                scope.spawn(move || {
                    let index = index_in_pieces(blob, sizes);
                    assert_eq!(index.digest().to_string(), expected, "{name} in {sizes:?}");
                    assert!(index.encode().unwrap() == *file, "{name} in {sizes:?}");
                });
            }
        });
    }
}
