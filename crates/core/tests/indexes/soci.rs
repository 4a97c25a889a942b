//! SOCI: the zTOC of a layer against the layer's own index.

use imgfs_formats::layer::soci::index_of_ztoc;
use imgfs_formats::layer::{LayerIndex, SpanDecoder};
use imgfs_formats::oci::Digest;

use super::support::ztoc::{Checkpoints, Member, Point, Ztoc, decode};
use super::{Place, check_random_reads, gzip, largest_file, owned, sample_tar};

/// A layer of three files and two links, and its zTOC, written by the official `FlatBuffers`
/// library in the order in which SOCI's own writer does it: children first, back to front. Its one
/// checkpoint is left out, and it stopped to read before the padding at the end of the tar.
const LAYER: &[u8] = include_bytes!("../data/soci/layer.tar.gz");
const LAYER_ZTOC: &[u8] = include_bytes!("../data/soci/layer.ztoc");
/// What that library makes of the checkpoints of a plain tar of 10240 bytes, in spans of 4096.
const TAR_ZINFO: &[u8] = include_bytes!("../data/soci/tar.zinfo");

fn index_of(ztoc: &Ztoc, blob: &[u8]) -> LayerIndex {
    let (digest, size) = (Digest::sha256(blob), blob.len() as u64);
    index_of_ztoc(&ztoc.encode(), digest, size).unwrap()
}

/// Every span of the index, decoded.
fn decoded(index: &LayerIndex, blob: &[u8]) -> Vec<u8> {
    let mut decoder = SpanDecoder::default();
    let spans = index.spans.iter().flat_map(|span| {
        let range = span.compressed.start as usize..span.compressed.end as usize;
        decoder.decode(span, &blob[range]).unwrap()
    });
    spans.collect()
}

#[test]
fn a_ztoc_of_the_official_library_is_read() {
    let own = LayerIndex::of_blob(LAYER).unwrap();
    let (digest, size) = (Digest::sha256(LAYER), LAYER.len() as u64);
    let found = index_of_ztoc(LAYER_ZTOC, digest, size).unwrap();
    assert_eq!(owned(&found.toc), owned(&own.toc));
    assert_eq!(found.toc.len(), 6);
    let tar = decode(LAYER);
    assert_eq!(tar.len(), 10240);
    assert_eq!(decoded(&found, LAYER), tar[..6144]);

    // Bytes behind it, as some writers put there, mean nothing.
    let longer = [LAYER_ZTOC, b"---SOCI-PREFETCH---[]"].concat();
    assert_eq!(index_of_ztoc(&longer, digest, size).unwrap(), found);

    let mut plain = Ztoc::of_blob(&tar, 4096);
    plain.checkpoints = Checkpoints::Raw(TAR_ZINFO.to_vec());
    assert_eq!(decoded(&index_of(&plain, &tar), &tar), tar);
}

/// The same image, the same tree, the same bytes: for each form of layer and of checkpoints.
#[tokio::test(flavor = "multi_thread")]
async fn a_layer_is_the_same_by_its_ztoc() {
    let tar = sample_tar(11_000_000);
    let named = {
        let mut encoder = flate2::GzBuilder::new()
            .filename("layer.tar")
            .extra([1, 2, 3])
            .comment("with all that a header can have")
            .write(Vec::new(), flate2::Compression::best());
        std::io::Write::write_all(&mut encoder, &tar).unwrap();
        encoder.finish().unwrap()
    };
    let members = |size: usize| -> Vec<u8> {
        let members = tar.chunks(size).flat_map(|chunk| gzip(6, chunk));
        members.collect()
    };
    let blobs = [
        ("gzip", gzip(6, &tar)),
        ("gzip, all of a header", named),
        ("gzip, stored blocks", gzip(0, &tar)),
        ("gzip, small members", members(40_000)),
        ("gzip, large members", members(3_000_000)),
        ("plain", tar.clone()),
    ];
    for (name, blob) in blobs {
        let own = LayerIndex::of_blob(&blob).unwrap();
        for span in [1 << 20, 4 << 20] {
            let ztoc = Ztoc::of_blob(&blob, span);
            let mut variants = vec![ztoc.clone()];
            let mut other = ztoc;
            match &mut other.checkpoints {
                Checkpoints::Gzip { without_first, .. } => *without_first = true,
                Checkpoints::Tar { packed, .. } => *packed = true,
                Checkpoints::Raw(_) => unreachable!(),
            }
            // Those old writers were wrong about longer headers.
            if !name.contains("header") {
                variants.push(other);
            }
            for ztoc in variants {
                let found = index_of(&ztoc, &blob);
                assert_eq!(owned(&found.toc), owned(&own.toc), "{name}");
                assert!(found.spans.len() >= 3, "{name}: {}", found.spans.len());
                let encoded = found.encode().unwrap();
                let again = LayerIndex::read(&encoded[..], &found.blob, true).unwrap();
                assert_eq!(again, found, "{name}");
                assert!(decoded(&found, &blob) == tar, "{name}");
                let place = Place::with(&blob);
                let reader = place.open(found).await;
                check_random_reads(&reader, &tar, span, 40).await;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_costs_one_span_and_nothing_more() {
    let tar = sample_tar(11_000_000);
    let blob = gzip(6, &tar);
    let index = index_of(&Ztoc::of_blob(&blob, 1 << 20), &blob);
    let (offset, size) = largest_file(&index.toc);
    let id = index
        .spans
        .covering(offset + size / 2..offset + size / 2 + 1)
        .start;
    let span = index.spans.get(id).unwrap().clone();
    let place = Place::with(&blob);
    let reader = place.open(index).await;
    let mut buf = [0; 4096];
    let at = span.uncompressed.start + 1000;
    reader.read_at(at, &mut buf).await.unwrap();
    assert_eq!(buf, tar[at as usize..at as usize + 4096]);
    let wanted = span.compressed.end - span.compressed.start;
    assert_eq!(place.registry.requests().len(), 1);
    assert_eq!(place.registry.bytes(), wanted);
    assert!(wanted < blob.len() as u64 / 5);

    // Once more, and nothing is fetched.
    reader.read_at(at, &mut buf).await.unwrap();
    assert_eq!(place.registry.requests().len(), 1);
}

/// Changed bytes in the registry: the span's digest says so, and a decompressor never sees them.
#[tokio::test(flavor = "multi_thread")]
async fn changed_bytes_are_not_served() {
    let tar = sample_tar(3_000_000);
    let blob = gzip(6, &tar);
    let index = index_of(&Ztoc::of_blob(&blob, 1 << 20), &blob);
    let middle = blob.len() / 2;
    let mut changed = blob.clone();
    changed[middle] ^= 1;
    let mut refused = 0;
    for span in index.spans.iter() {
        let place = Place::with(&blob);
        place.registry.replace_blob(&blob, changed.clone());
        let reader = place.open(index.clone()).await;
        let mut buf = [0; 16];
        let at = span.uncompressed.start;
        let read = reader.read_at(at, &mut buf).await;
        // Two spans may share a byte.
        let is_hit = span.compressed.contains(&(middle as u64));
        assert_eq!(read.is_err(), is_hit, "{:?}: {middle}", span.compressed);
        match read {
            Ok(()) => assert_eq!(buf, tar[at as usize..at as usize + 16]),
            Err(_) => refused += 1,
        }
    }
    assert!((1..=2).contains(&refused));
}

/// What becomes of the zTOC of `blob` after `change`.
#[track_caller]
fn check(blob: &[u8], expected: &str, change: impl FnOnce(&mut Ztoc)) {
    let mut ztoc = Ztoc::of_blob(blob, 1 << 20);
    change(&mut ztoc);
    let (digest, size) = (Digest::sha256(blob), blob.len() as u64);
    let found = match index_of_ztoc(&ztoc.encode(), digest, size) {
        Ok(_) => "accepted".to_owned(),
        Err(err) => err.to_string(),
    };
    assert!(
        found.contains(expected),
        "{expected:?} expected, {found:?} found"
    );
}

#[test]
fn what_a_ztoc_may_not_say() {
    let blob = gzip(6, &sample_tar(3_000_000));
    let check_gzip = |expected: &str, change: fn(&mut Ztoc)| check(&blob, expected, change);
    check_gzip("accepted", |_| {});
    check_gzip("version \"1.0\"", |ztoc| ztoc.version = "1.0".into());
    check_gzip("version \"\"", |ztoc| ztoc.version.clear());
    check_gzip("is of a layer of 7 bytes", |ztoc| ztoc.compressed_size = 7);
    check_gzip("is of a layer of -1 bytes", |ztoc| {
        ztoc.compressed_size = -1;
    });
    check_gzip("-5 uncompressed bytes", |ztoc| ztoc.uncompressed_size = -5);
    check_gzip("must be at most 274877906944", |ztoc| {
        ztoc.uncompressed_size = 1 << 50;
    });
    check_gzip("a span is too large", |ztoc| {
        ztoc.uncompressed_size = 1 << 30;
    });
    check_gzip("a file reaches beyond the layer", |ztoc| {
        ztoc.uncompressed_size = 2_000_000;
    });
    check_gzip("compression number 3", |ztoc| ztoc.algorithm = 3);
    check_gzip("3 digests for 4 spans", |ztoc| {
        ztoc.digests.pop();
    });
    check_gzip("4 checkpoints for 3 spans", |ztoc| {
        ztoc.max_span_id -= 1;
        ztoc.digests.pop();
    });
    check_gzip("checkpoints for", |ztoc| {
        ztoc.max_span_id += 1;
        ztoc.digests.push(ztoc.digests[0].clone());
    });
    check_gzip("for 0 spans", |ztoc| ztoc.max_span_id = -1);
    check_gzip("negative number of spans", |ztoc| ztoc.max_span_id = -2);
    check_gzip("digests for 2147483648 spans", |ztoc| {
        ztoc.max_span_id = i32::MAX;
    });
    check_gzip("the digest of span 1 in the zTOC is \"md5:00\"", |ztoc| {
        ztoc.digests[1] = "md5:00".into();
    });
    check_gzip("which is no sha256", |ztoc| {
        ztoc.digests[1] = format!("sha512:{}", "0".repeat(128));
    });
    check_gzip("end early", |ztoc| {
        ztoc.checkpoints = Checkpoints::Raw(vec![1, 0, 0]);
    });
    check_gzip("not whole", |ztoc| {
        ztoc.checkpoints = Checkpoints::Raw(vec![1; 12 + 32785 + 1]);
    });
    check_gzip("checkpoints are damaged: they end early", |ztoc| {
        ztoc.checkpoints = Checkpoints::Raw(Vec::new());
        ztoc.max_span_id = 0;
        ztoc.digests.truncate(1);
    });
}

#[test]
fn what_checkpoints_may_not_say() {
    let blob = gzip(6, &sample_tar(3_000_000));
    let check_points = |expected: &str, change: fn(&mut Vec<Point>)| {
        check(&blob, expected, |ztoc| match &mut ztoc.checkpoints {
            Checkpoints::Gzip { points, .. } => change(points),
            _ => unreachable!(),
        });
    };
    check_points("do not ascend", |points| points[1].uncompressed = 0);
    check_points("do not ascend", |points| {
        points[2].uncompressed = points[1].uncompressed - 1;
    });
    check_points("do not follow each other", |points| {
        points[0].uncompressed = 1;
    });
    check_points("do not follow each other", |points| {
        points[2].compressed = 20;
    });
    check_points("too many compressed bytes", |points| {
        points[1].compressed = i64::MAX;
    });
    check_points("do not ascend", |points| points[1].uncompressed = -1);
    check_points("more than 7 bits", |points| points[1].bits = 8);
    check_points("the first span is no start", |points| points[0].bits = 3);
    check_points("before the blob", |points| {
        points[0].compressed = 0;
        points[0].bits = 1;
    });
}

#[test]
fn what_a_member_may_not_say() {
    let blob = gzip(6, &sample_tar(3_000_000));
    let check_member = |expected: &str, change: fn(&mut Member)| {
        check(&blob, expected, |ztoc| {
            let file = ztoc.members.iter_mut().find(|member| member.size == 513);
            change(file.unwrap());
        });
    };
    check_member("file-4\": it is of the unknown type \"socket\"", |file| {
        file.kind = "socket".into();
    });
    check_member("are not behind those of the entry before", |file| {
        file.offset -= 512;
    });
    check_member("are not behind those of the entry before", |file| {
        file.offset += 1;
    });
    check_member("are not behind those of the entry before", |file| {
        file.offset = 0;
    });
    check_member("begin before the layer", |file| file.offset = -512);
    check_member("are not behind those of the entry before", |file| {
        file.size = 5000;
    });
    check_member("it has -1 bytes", |file| file.size = -1);
    check_member("are not behind those of the entry before", |file| {
        file.size = i64::MAX;
        file.offset = i64::MAX & !511;
    });
    check_member("is no time", |file| file.time.clear());
    check_member("NUL byte", |file| file.name = b"a\0b".to_vec());
    check_member("length of a path", |file| file.name = vec![b'x'; 70_000]);
    check_member("length of a link target", |file| {
        file.kind = "symlink".into();
        file.link = vec![b'x'; 5000];
    });
    check_member("device number -1", |file| {
        file.kind = "char".into();
        file.minor = -1;
    });
    check_member("a file with holes", |file| {
        file.pax.insert(b"GNU.sparse.major".to_vec(), b"1".to_vec());
    });
    check_member("size of an xattr value", |file| {
        file.pax
            .insert(b"SCHILY.xattr.user.a".to_vec(), vec![0; 70_000]);
    });
}

#[test]
fn what_checkpoints_of_a_plain_tar_may_not_say() {
    let tar = sample_tar(3_000_000);
    let check_tar = |expected: &str, change: fn(&mut i64, &mut i64)| {
        check(&tar, expected, |ztoc| match &mut ztoc.checkpoints {
            Checkpoints::Tar {
                span_size, size, ..
            } => change(span_size, size),
            _ => unreachable!(),
        });
    };
    check_tar("accepted", |_, _| {});
    check_tar("span size is not positive", |span_size, _| *span_size = 0);
    check_tar("span size is not positive", |span_size, _| *span_size = -9);
    check_tar("pieces of the span size for", |span_size, _| *span_size = 1);
    check_tar("is of a layer of 1 bytes", |_, size| *size = 1);
    check(&tar, "FlatBuffer", |ztoc| {
        ztoc.checkpoints = Checkpoints::Raw(vec![0; 21]);
    });
}

#[test]
fn no_damage_makes_it_panic() {
    let (digest, size) = (Digest::sha256(LAYER), LAYER.len() as u64);
    for length in 0..LAYER_ZTOC.len() {
        // What is cut off at the end may be a part that nothing points to.
        if let Ok(index) = index_of_ztoc(&LAYER_ZTOC[..length], digest, size) {
            assert!(index.toc.len() == 6 && length + 8 > LAYER_ZTOC.len());
        }
    }
    for position in 0..LAYER_ZTOC.len() {
        for value in [0, 1, 0x7f, 0x80, 0xff] {
            let mut bad = LAYER_ZTOC.to_vec();
            bad[position] = value;
            if let Ok(index) = index_of_ztoc(&bad, digest, size) {
                assert_eq!(index.toc.iter().count(), index.toc.len());
                index.encode().unwrap();
            }
        }
    }
    let large = vec![0; (100 << 20) + 1];
    let err = index_of_ztoc(&large, digest, size).unwrap_err().to_string();
    assert!(err.contains("more than the limit of 104857600"), "{err}");
}
