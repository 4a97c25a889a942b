//! One suite for every way in which a layer can be opened: same image, same tree, same bytes at
//! random ranges.

use std::collections::BTreeMap;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use imgfs_formats::oci::Digest;

use super::*;
use crate::process::wait_for;
use crate::support::estargz::{self, Footer, Form};
use crate::support::image::{OCI_MANIFEST, OCI_TAR_GZIP, OCI_TAR_ZSTD, descriptor, write_layout};
use crate::support::ztoc::{Ztoc, soci_index, soci_v2};

/// Random ranges read of each mount.
const RANGES: usize = 200;

/// What a program can see of one name.
#[derive(Debug, PartialEq, Eq)]
struct Facts {
    mode: u32,
    owner: (u32, u32),
    size: u64,
    mtime: (i64, i64),
    links: u64,
    rdev: u64,
    /// The first of the names that are links to the same file.
    same_as: Option<String>,
    target: Option<Vec<u8>>,
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    content: Option<blake3::Hash>,
}

/// All names below a directory, and what there is to see of them.
fn facts(root: &Path) -> BTreeMap<String, Facts> {
    let (mut found, mut first, mut pending) = (BTreeMap::new(), BTreeMap::new(), Vec::new());
    pending.push(root.to_owned());
    while let Some(path) = pending.pop() {
        let metadata = path.symlink_metadata().unwrap();
        let kind = metadata.file_type();
        let name = format!("{}", path.strip_prefix(root).unwrap().display());
        if kind.is_dir() {
            let mut names: Vec<_> = std::fs::read_dir(&path)
                .unwrap()
                .map(|entry| entry.unwrap().path())
                .collect();
            // Taken from the end, so that the first of several names is the same in every mount.
            names.sort_by(|one, other| other.cmp(one));
            pending.extend(names);
        }
        let known = first.entry(metadata.ino()).or_insert_with(|| name.clone());
        let same_as = (*known != name).then(|| known.clone());
        found.insert(
            name,
            Facts {
                mode: metadata.mode(),
                owner: (metadata.uid(), metadata.gid()),
                size: metadata.size(),
                mtime: (metadata.mtime(), metadata.mtime_nsec()),
                links: metadata.nlink(),
                rdev: metadata.rdev(),
                same_as,
                target: kind.is_symlink().then(|| {
                    let target = std::fs::read_link(&path).unwrap();
                    target.into_os_string().into_encoded_bytes()
                }),
                xattrs: xattrs(&path),
                content: (kind.is_file()).then(|| blake3::hash(&std::fs::read(&path).unwrap())),
            },
        );
    }
    found
}

fn xattrs(path: &Path) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut names = vec![0; 1 << 16];
    let length = rustix::fs::llistxattr(path, &mut names).unwrap_or(0);
    (names[..length].split(|byte| *byte == 0))
        .filter(|name| !name.is_empty())
        .map(|name| {
            let mut value = vec![0; 1 << 16];
            let length = rustix::fs::lgetxattr(path, name, &mut value).unwrap();
            (name.to_vec(), value[..length].to_vec())
        })
        .collect()
}

/// Mounts an image twice, each time with an empty cache: once streamed, once opened by an index of
/// the kind `index` in all layers but `plain_layers`. Everything that can be seen must be the same,
/// and again with the network gone.
#[track_caller]
fn same_image(reference: &str, index: &str, options: &[&str], plain_layers: usize) {
    let (Some(world), Some(other)) = (World::mounting(), World::mounting()) else {
        return;
    };
    let expected = world.mount(reference, &["--require=proven"]);
    let mount = other.mount(reference, options);
    let status = other.status(&mount);
    let layers = status["layers"].as_array().unwrap();
    let opened = (layers.iter())
        .filter(|layer| layer["index"] == index && layer["trust"] != "proven")
        .count();
    assert_eq!(opened, layers.len() - plain_layers, "{status:#}");
    random_ranges_are_equal(&expected.dir, &mount.dir);
    let facts_expected = facts(&expected.dir);
    let found = facts(&mount.dir);
    for (name, facts) in &facts_expected {
        assert_eq!(found.get(name), Some(facts), "{name}");
    }
    assert_eq!(found.len(), facts_expected.len(), "other names");
    mount.end(&other);
    let again = other.mount(reference, &[options, &["--offline"]].concat());
    assert_eq!(facts(&again.dir), facts_expected);
    let status = other.status(&again);
    assert_eq!(status["bytes_fetched"], 0, "{status:#}");
    // What was found turns out to be right.
    again.end(&other);
    let proving = other.mount(reference, &[options, &["--prove"]].concat());
    wait_for("the proof", || {
        let status = other.status(&proving);
        let layers = status["layers"].as_array().unwrap().clone();
        for layer in &layers {
            let problem = layer["problem"].as_str().unwrap_or_default();
            assert!(
                !problem.contains("quarantine") && !problem.contains("instead"),
                "{status:#}"
            );
        }
        layers.iter().all(|layer| layer["trust"] == "proven")
    });
    assert_eq!(facts(&proving.dir), facts_expected);
    proving.end(&other);
    let proven = other.mount(reference, &["--require=proven", "--offline"]);
    assert_eq!(
        facts(&proven.dir),
        facts_expected,
        "by the layers' own indexes"
    );
}

#[test]
fn by_published_indexes() {
    let world = World::new();
    let reference = world.put(&sample());
    world.imgfs(&["index", "push", &reference]).ok();
    same_image(&reference, "published", &["--require=claimed"], 0);
}

#[test]
fn by_published_indexes_of_seekable_zstd() {
    let seekable = |members: &[Member]| {
        use std::io::Write;
        let tar = tar_of(members);
        let mut blob = Vec::new();
        let policy = zeekstd::FrameSizePolicy::Uncompressed(300_000);
        let options = zeekstd::EncodeOptions::new().frame_size_policy(policy);
        let mut encoder = options.into_encoder(&mut blob).unwrap();
        encoder.write_all(&tar).unwrap();
        encoder.finish().unwrap();
        Layer {
            media_type: OCI_TAR_ZSTD,
            blob: blob.into(),
            tar,
        }
    };
    let world = World::new();
    let reference = world.put(&sample_with(seekable));
    world.imgfs(&["index", "push", &reference]).ok();
    same_image(&reference, "published", &["--require=claimed"], 0);
}

#[test]
fn by_soci_indexes() {
    let world = World::new();
    let image = sample_with(gzip);
    let ztocs = |image: &Image| -> Vec<_> {
        let encode = |layer: &Layer| Some(Ztoc::of_blob(&layer.blob, 1 << 20).encode());
        image.layers.iter().map(encode).collect()
    };
    let soci = soci_v2(&image, &ztocs(&image), &[]);
    for blob in &soci.blobs {
        world.registry.put_blob(blob.clone());
    }
    (world.registry).put_manifest("r", "index", OCI_MANIFEST, soci.index.clone());
    let reference = world.put(&soci.image);
    same_image(&reference, "SOCI", &[], 0);

    // Of version 1, beside the image: only if it is asked for.
    let world = World::new();
    let manifest = descriptor(OCI_MANIFEST, &image.manifest);
    let (index, blobs) = soci_index(
        "application/vnd.amazon.soci.index.v1+json",
        &image.layer_descriptors(),
        &ztocs(&image),
        &[],
        Some(&manifest),
    );
    for blob in blobs {
        world.registry.put_blob(blob);
    }
    world.registry.have_referrers(10);
    (world.registry).put_manifest("r", "index", OCI_MANIFEST, index);
    let reference = world.put(&image);
    same_image(&reference, "SOCI", &["--require=claimed", "--soci-v1"], 0);
}

/// What tools that convert images make of one: by way of layouts, which both read.
fn converted(world: &World, image: &Image, format: &str) -> Option<String> {
    let skopeo = support::programs::find(&world::test_name(), &["skopeo"])?;
    let (from, to) = (world.path("from"), world.path("to"));
    write_layout(&from, &[("t", image)]);
    let mut command = world.command(&skopeo[0]);
    crate::process::run(command.args([
        "copy",
        "--dest-compress-format",
        format,
        &format!("oci:{}:t", from.display()),
        &format!("oci:{}:t", to.display()),
    ]))
    .ok();
    Some(format!("oci:{}:t", to.display()))
}

#[test]
fn by_zstd_chunked_tables_of_contents() {
    let world = World::new();
    // Names that are not UTF-8 and PAX times are for the tests of the formats.
    if let Some(reference) = converted(&world, &sample_with(gzip), "zstd:chunked") {
        same_image(&reference, "zstd:chunked", &[], 0);
    }
}

#[test]
fn by_estargz_tables_of_contents() {
    let world = World::new();
    let (small, large) = (noise(3, 40_000), noise(4, 6_000_000));
    let files: Vec<(&str, &[u8])> = vec![
        (".no.prefetch.landmark", &[15]),
        ("bin/", b""),
        ("bin/small", &small),
        ("bin/empty", b""),
        ("large", &large),
        ("etc/", b""),
        ("etc/.wh.gone", b""),
        ("etc/name", b"a few bytes"),
    ];
    let forms = [
        Form::default(),
        Form {
            chunk: 1 << 20,
            member: 3 << 20,
            ..Form::default()
        },
        Form {
            footer: Footer::Old,
            ..Form::default()
        },
    ];
    for form in forms {
        let written = estargz::write(&files, form, |_| {});
        let layer = Layer {
            media_type: OCI_TAR_GZIP,
            blob: written.blob,
            tar: written.tar,
        };
        let base = gzip(&[dir("etc"), file("etc/gone", "g"), file("etc/kept", "k")]);
        let mut image = host_image(vec![base, layer]);
        let mut manifest: serde_json::Value = serde_json::from_slice(&image.manifest).unwrap();
        manifest["layers"][1]["annotations"] = serde_json::json!({
            "containerd.io/snapshot/stargz/toc.digest": Digest::sha256(&written.json).to_string(),
        });
        image.manifest = manifest.to_string().into();
        let reference = world.put(&image);
        same_image(&reference, "eStargz", &[], 1);
    }
}

/// Ranges of files, before anything else was read.
fn random_ranges_are_equal(expected: &Path, found: &Path) {
    let mut files = Vec::new();
    let mut pending = vec![expected.to_owned()];
    while let Some(path) = pending.pop() {
        let metadata = path.symlink_metadata().unwrap();
        if metadata.is_dir() {
            let entries = std::fs::read_dir(&path).unwrap();
            pending.extend(entries.map(|entry| entry.unwrap().path()));
        } else if metadata.is_file() && metadata.len() > 0 {
            files.push((path, metadata.len()));
        }
    }
    files.sort();
    let mut random = 7_u64;
    let mut below = |limit: u64| {
        // SplitMix64.
        random = random.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = random;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % limit
    };
    for _ in 0..RANGES {
        let number = below(files.len() as u64);
        let (path, size) = &files[usize::try_from(number).unwrap()];
        let (offset, length) = (below(*size), 1 + below(100_000));
        let read = |path: &Path| {
            let mut buf = vec![0; usize::try_from(length).unwrap()];
            let file = std::fs::File::open(path).unwrap();
            let mut filled = 0;
            while filled < buf.len() {
                match file
                    .read_at(&mut buf[filled..], offset + filled as u64)
                    .unwrap()
                {
                    0 => break,
                    count => filled += count,
                }
            }
            buf.truncate(filled);
            buf
        };
        let name = path.strip_prefix(expected).unwrap();
        assert!(
            read(path) == read(&found.join(name)),
            "{} from {offset}",
            name.display()
        );
    }
}
