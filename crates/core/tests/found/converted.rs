//! Images that ctr-remote and skopeo converted.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::compare::{Image, Times, image};
use super::support::docker_registry::DockerRegistry;
use super::support::image::{self as images, gzip_layer, write_layout};
use super::support::programs::{find, skip};

/// No program may take longer.
const LIMIT: Duration = Duration::from_secs(60);

/// Bytes that do not compress much, with runs of zeros in them: chunks and holes.
fn content(size: usize) -> Vec<u8> {
    let mut state = 0x9E37_79B9_u64;
    let mut bytes: Vec<u8> = (0..size)
        .map(|_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            u8::try_from(state >> 59).unwrap() * 8
        })
        .collect();
    bytes[size / 3..size / 2].fill(0);
    bytes
}

/// A layer with an entry of each kind, and with what a table of contents can get wrong.
fn odd_tar() -> Vec<u8> {
    use tar::EntryType as Type;
    let mut builder = tar::Builder::new(Vec::new());
    let mut add = |name: &str, kind: Type, bytes: &[u8], link: &str, pax: &[(&str, &[u8])]| {
        builder.append_pax_extensions(pax.iter().copied()).unwrap();
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(if kind == Type::Directory {
            0o1777
        } else {
            0o4751
        });
        header.set_uid(1000);
        header.set_gid(50);
        header.set_mtime(1_700_000_000);
        header.set_size(bytes.len() as u64);
        if kind == Type::Block || kind == Type::Char {
            header.set_device_major(259).unwrap();
            header.set_device_minor(70_000).unwrap();
        }
        if !link.is_empty() {
            header.set_link_name(link).unwrap();
        }
        header.set_path(name).unwrap();
        header.set_cksum();
        builder.append(&header, bytes).unwrap();
    };
    add("dir/", Type::Directory, b"", "", &[]);
    add("dir/empty", Type::Regular, b"", "", &[]);
    add(
        "dir/small",
        Type::Regular,
        b"a few bytes",
        "",
        &[("mtime", b"1600000000.75")],
    );
    for number in 0..40 {
        let bytes = content(100 + number * 1000);
        add(
            &format!("dir/file-{number}"),
            Type::Regular,
            &bytes,
            "",
            &[],
        );
    }
    add("large", Type::Regular, &content(5_000_000), "", &[]);
    add("zeros", Type::Regular, &vec![0; 300_000], "", &[]);
    add("link", Type::Link, b"", "dir/small", &[]);
    add("symlink", Type::Symlink, b"", "../dir/nowhere", &[]);
    add("char", Type::Char, b"", "", &[]);
    add("block", Type::Block, b"", "", &[]);
    add("pipe", Type::Fifo, b"", "", &[]);
    let xattrs: &[(&str, &[u8])] = &[
        ("SCHILY.xattr.user.binary", b"\0\xff\x10"),
        ("SCHILY.xattr.user.text", b"text"),
        ("uid", b"3000000"),
    ];
    add("xattrs", Type::Regular, b"with attributes", "", xattrs);
    add(
        "old",
        Type::Regular,
        b"before 1970",
        "",
        &[("mtime", b"-3.25")],
    );
    add("na\u{ef}ve", Type::Regular, b"utf-8", "", &[]);
    add(".wh.gone", Type::Regular, b"", "", &[]);
    add("dir/.wh..wh..opq", Type::Regular, b"", "", &[]);
    builder.into_inner().unwrap()
}

/// A registry with an image, and a containerd that converts it.
struct World {
    programs: Vec<PathBuf>,
    registry: DockerRegistry,
    dir: tempfile::TempDir,
    containerd: Option<Child>,
}

impl Drop for World {
    fn drop(&mut self) {
        if let Some(containerd) = &mut self.containerd {
            // It may have ended by itself.
            let _ended = containerd.kill();
            let _reaped = containerd.wait();
        }
    }
}

impl World {
    fn new(test: &str, others: &[&str]) -> Option<Self> {
        let programs = find(test, &[&["docker-registry", "skopeo"], others].concat())?;
        let dir = tempfile::tempdir().unwrap();
        let registry = DockerRegistry::start(&programs[0], dir.path(), "");
        let image = images::image("linux/amd64", vec![gzip_layer(odd_tar().into())]);
        write_layout(&dir.path().join("layout"), &[("t", &image)]);
        let world = Self {
            programs,
            registry,
            dir,
            containerd: None,
        };
        let from = format!("oci:{}:t", world.path("layout"));
        let to = format!("docker://{}", world.reference("plain"));
        world.skopeo(&["--dest-tls-verify=false", &from, &to]);
        Some(world)
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    fn reference(&self, tag: &str) -> String {
        format!("{}/some/name:{tag}", self.registry.address)
    }

    fn skopeo(&self, arguments: &[&str]) {
        let copy = ["--insecure-policy", "copy", "-q"];
        run(&self.programs[1], &[&copy[..], arguments].concat());
    }

    /// A containerd of our own with the image in it.
    fn start_containerd(&mut self) {
        let address = self.path("s");
        let config = format!(
            "version = 2\nroot = {:?}\nstate = {:?}\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n[grpc]\naddress = {address:?}\n",
            self.path("root"),
            self.path("state"),
        );
        std::fs::write(self.path("config.toml"), config).unwrap();
        let containerd = Command::new(&self.programs[2])
            .args(["--config", &self.path("config.toml")])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        self.containerd = Some(containerd.unwrap());
        let deadline = Instant::now() + LIMIT;
        while !self.ctr(&["version"]).0 {
            assert!(Instant::now() < deadline, "containerd does not answer");
            std::thread::sleep(Duration::from_millis(50));
        }
        let (fetched, words) = self.ctr(&[
            "content",
            "fetch",
            "--plain-http",
            "--platform",
            "linux/amd64",
            &self.reference("plain"),
        ]);
        assert!(fetched, "{words}");
    }

    fn ctr(&self, arguments: &[&str]) -> (bool, String) {
        let output = Command::new(&self.programs[3])
            .args(["--address", &self.path("s")])
            .args(arguments)
            .output()
            .unwrap();
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.success(), words)
    }

    /// Converts the image as told and opens it.
    async fn convert(&self, tag: &str, options: &[&str]) -> Image {
        let (from, to) = (self.reference("plain"), self.reference(tag));
        let common = ["images", "convert", "--oci", "--platform", "linux/amd64"];
        let (done, words) = self.ctr(&[&common[..], options, &[&from, &to]].concat());
        assert!(done, "{options:?}: {words}");
        let push = [
            "images",
            "push",
            "--plain-http",
            "--platform",
            "linux/amd64",
        ];
        let (done, words) = self.ctr(&[&push[..], &[&to]].concat());
        assert!(done, "{words}");
        image(&to).await
    }
}

fn run(program: &Path, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output().unwrap();
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {words}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_ctr_remote_converts_is_the_same_image() {
    let test = "what_ctr_remote_converts_is_the_same_image";
    if !rustix::process::geteuid().is_root() {
        return skip(test, "containerd needs root");
    }
    let Some(mut world) = World::new(test, &["containerd", "ctr-remote"]) else {
        return;
    };
    world.start_containerd();
    let plain = image(&world.reference("plain")).await;
    assert!(plain.find(0).await.is_none(), "a plain layer has no table");

    let estargz = world.convert("estargz", &["--estargz"]).await;
    let before = estargz.source.traffic();
    let found = estargz.find(0).await.unwrap().unwrap();
    let traffic = estargz.source.traffic();
    assert_eq!(traffic.requests - before.requests, 1, "the end of the blob");
    assert_eq!(traffic.bytes - before.bytes, 64 << 10);
    assert_eq!(found.origin, imgfs_formats::trust::IndexKind::EStargz);
    assert_eq!(found.prefetch, None);
    estargz.check(0, Times::Rounded).await;

    let chunks = ["--estargz", "--estargz-chunk-size", "10000"];
    let chunks = world.convert("chunks", &chunks).await;
    chunks.check(0, Times::Rounded).await;

    // What was read in a run of the image comes first.
    let record = world.path("record.json");
    let digest = plain.source.resolve(None).await.unwrap().descriptor.digest;
    let line = |path| {
        format!("{{\"path\":\"{path}\",\"manifestDigest\":\"{digest}\",\"layerIndex\":0}}\n")
    };
    std::fs::write(&record, line("large") + &line("dir/small")).unwrap();
    let prefetch = ["--estargz", "--estargz-record-in", &record];
    let prefetch = world.convert("prefetch", &prefetch).await;
    let found = prefetch.check(0, Times::Rounded).await;
    let wanted = found.prefetch.unwrap();
    assert_eq!(wanted.start, 0);
    assert!(wanted.end > 2_000_000 && wanted.end < prefetch.layers[0].size - 100_000);

    let zstd = world.convert("zstdchunked", &["--zstdchunked"]).await;
    let before = zstd.source.traffic();
    let found = zstd.find(0).await.unwrap().unwrap();
    let traffic = zstd.source.traffic();
    assert_eq!(traffic.requests - before.requests, 1, "the table itself");
    assert!(traffic.bytes - before.bytes < 20_000);
    assert_eq!(found.origin, imgfs_formats::trust::IndexKind::ZstdChunked);
    zstd.check(0, Times::Rounded).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_skopeo_converts_is_the_same_image() {
    let test = "what_skopeo_converts_is_the_same_image";
    let Some(world) = World::new(test, &[]) else {
        return;
    };
    // By way of a layout: a registry that has the layers in gzip keeps them.
    let (from, layout) = (world.path("layout"), world.path("zstd"));
    let (from, layout) = (format!("oci:{from}:t"), format!("oci:{layout}:t"));
    world.skopeo(&["--dest-compress-format", "zstd:chunked", &from, &layout]);
    let to = world.reference("zstdchunked");
    world.skopeo(&[
        "--dest-tls-verify=false",
        &layout,
        &format!("docker://{to}"),
    ]);
    for reference in [&to, &layout] {
        let image = image(reference).await;
        let before = image.source.traffic();
        let found = image.find(0).await.unwrap().unwrap();
        assert_eq!(image.source.traffic().requests - before.requests, 1);
        assert_eq!(found.origin, imgfs_formats::trust::IndexKind::ZstdChunked);
        assert_eq!(found.prefetch, None);
        let found = image.check(0, Times::Exact).await;
        let holes = found.index.toc.iter().filter(|entry| {
            matches!(
                entry.kind,
                imgfs_formats::layer::EntryKind::SparseFile { .. }
            )
        });
        assert!(holes.count() > 10, "the runs of zeros are holes");
    }
}
