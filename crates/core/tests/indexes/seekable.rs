//! zstd in the seekable format: frames of their own, and a table of them in a skippable frame at
//! the end. The table has no digests, so nothing of it is used; an own index cuts at the frames.

use imgfs_core::store::Progress;
use imgfs_formats::layer::{Codec, LayerIndex};
use std::io::Write;
use zeekstd::{EncodeOptions, FrameSizePolicy};

use super::{Place, check_random_reads, largest_file, owned, sample_tar};

/// Written by another program's library, in frames of so many uncompressed bytes.
fn seekable(tar: &[u8], frame: u32) -> Vec<u8> {
    let mut blob = Vec::new();
    let mut encoder = EncodeOptions::new()
        .frame_size_policy(FrameSizePolicy::Uncompressed(frame))
        .checksum_flag(true)
        .into_encoder(&mut blob)
        .unwrap();
    encoder.write_all(tar).unwrap();
    encoder.finish().unwrap();
    let magic = 0x8F92_EAB1_u32.to_le_bytes();
    assert!(blob.ends_with(&magic), "the seek table is there");
    blob
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_costs_the_frames_of_one_span() {
    let tar = sample_tar(11_000_000);
    // (frame size, most bytes of the layer that must be decoded for a read of 4 KiB): frames
    // smaller than half a MiB are taken together until that; one that is larger than a MiB is cut
    // for the cache, but decoded as a whole.
    for (frame, most) in [
        (16 << 10, (512 << 10) + (16 << 10)),
        (256 << 10, 512 << 10),
        (1 << 20, 1 << 20),
        (1_300_000, 1_300_000),
        (2 << 20, 2 << 20),
        (64 << 20, tar.len() as u64),
    ] {
        let blob = seekable(&tar, frame);
        let index = LayerIndex::of_blob(&blob).unwrap();
        assert_eq!(index.codec, Codec::Zstd);
        let table = blob.len() as u64 - index.spans.iter().last().unwrap().compressed.end;
        assert!(
            table < 1000,
            "{table}: only what has no content is left out"
        );
        let (offset, size) = largest_file(&index.toc);
        let at = offset + size / 2;
        let chain = index.spans.chain(index.spans.covering(at..at + 1).start);
        let (first, last) = (chain.start, chain.end - 1);
        let (first, last) = (index.spans.get(first), index.spans.get(last));
        let (first, last) = (first.unwrap(), last.unwrap());
        let place = Place::with(&blob);
        let decoded = last.uncompressed.end - first.uncompressed.start;
        assert!(decoded <= most, "{frame}: {decoded}");
        let wanted = last.compressed.end - first.compressed.start;
        let reader = place.open(index.clone()).await;
        let mut buf = [0; 4096];
        reader.read_at(at, &mut buf).await.unwrap();
        assert_eq!(buf, tar[at as usize..at as usize + 4096]);
        assert_eq!(place.registry.bytes(), wanted, "frames of {frame}");
        check_random_reads(&reader, &tar, u64::from(frame), 60).await;
        // The end, where the table is.
        let mut buf = [1; 1000];
        let end = tar.len() as u64 - 1000;
        reader.read_at(end, &mut buf).await.unwrap();
        assert_eq!(buf, tar[end as usize..]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn first_contact_costs_the_blob_once() {
    let tar = sample_tar(5_000_000);
    let blob = seekable(&tar, 1 << 20);
    let place = Place::with(&blob);
    let progress = Progress::default();
    let opened = (place.store).open_layer(&place.source, &place.blob, &progress);
    let opened = opened.await.unwrap();
    assert_eq!(place.registry.bytes(), blob.len() as u64);
    check_random_reads(&opened.reader, &tar, 7, 60).await;
    assert_eq!(place.registry.bytes(), blob.len() as u64);
    let plain = LayerIndex::of_blob(&tar).unwrap();
    assert_eq!(owned(&opened.index.toc), owned(&plain.toc));
    assert_eq!(opened.reader.size(), tar.len() as u64);
}
