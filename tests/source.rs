//! Sources of blobs: one contract for all, and what a registry's faults must come to.
#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on has found what it looks for"
)]

mod support;

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use imgfs::oci::{Descriptor, Platform, Reference};
use imgfs::source::{
    BlobSource, ByteStream, CredentialFiles, Options, RetryPolicy, SourceError, Timeouts,
    read_verified, resolve_image,
};
use support::image::{
    Image, gzip_layer, image, plain_layer, tar, write_layout, write_new_archive, write_old_archive,
};
use support::registry::{Fault, On, Registry};

/// Short waits: nothing here should take long, and what stalls is to be found out soon.
fn options() -> Options {
    Options {
        timeouts: Timeouts {
            connect: Duration::from_secs(5),
            first_byte: Duration::from_secs(5),
            stall: Duration::from_secs(5),
            give_up: Duration::from_secs(20),
        },
        retry: RetryPolicy {
            attempts: 4,
            base: Duration::from_millis(1),
            cap: Duration::from_millis(2),
        },
        ..Options::default()
    }
}

/// For tests of what never comes.
fn impatient() -> Options {
    let mut options = options();
    options.timeouts.first_byte = Duration::from_millis(300);
    options.timeouts.stall = Duration::from_millis(300);
    options
}

fn open(reference: &str, options: &Options) -> Arc<dyn BlobSource> {
    let reference: Reference = reference.parse().unwrap();
    imgfs::source::open(&reference, options).unwrap()
}

fn linux() -> Platform {
    Platform::host("linux", "x86_64", "")
}

/// A range as positions in memory.
fn positions(range: &Range<u64>) -> Range<usize> {
    range.start.try_into().unwrap()..range.end.try_into().unwrap()
}

async fn collect(mut stream: ByteStream) -> Result<Bytes, SourceError> {
    let mut all = Vec::new();
    while let Some(piece) = stream.next().await {
        all.extend_from_slice(&piece?);
    }
    Ok(all.into())
}

async fn read(
    source: &dyn BlobSource,
    blob: &Descriptor,
    range: Range<u64>,
) -> Result<Bytes, SourceError> {
    collect(source.open(blob, range).await?).await
}

fn small_image() -> Image {
    let noise: Vec<u8> = (0..100_000_u32)
        .map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()[2])
        .collect();
    image(
        "linux/amd64",
        vec![
            gzip_layer(tar(&[("base", b"x"), ("noise", &noise)])),
            plain_layer(tar(&[("top", b"y")])),
        ],
    )
}

// ---- the contract

/// What every source must do with a good image.
async fn contract(name: &str, source: &dyn BlobSource, expected: &Image) {
    let found = resolve_image(source, &linux(), None)
        .await
        .unwrap_or_else(|err| panic!("{name}: {err}"));
    assert_eq!(found.manifest.layers.len(), expected.layers.len(), "{name}");
    assert!(found.warnings.is_empty(), "{name}: {:?}", found.warnings);
    for (layer, diff_id) in expected.layers.iter().zip(&found.config.rootfs.diff_ids) {
        assert_eq!(diff_id.0, imgfs::oci::Digest::sha256(&layer.tar), "{name}");
    }
    for (descriptor, layer) in found.manifest.layers.iter().zip(&expected.layers) {
        // A docker archive keeps its layers uncompressed.
        let all = if descriptor.size == layer.blob.len() as u64 {
            &layer.blob
        } else {
            &layer.tar
        };
        let size = descriptor.size;
        let stream = source.open(descriptor, 0..size).await.unwrap();
        let verified = read_verified(stream, descriptor, 1 << 20).await.unwrap();
        assert_eq!(verified, all, "{name}");
        for range in [0..0, 0..1, 7..1000, size - 1..size, size..size, 1..size] {
            let got = read(source, descriptor, range.clone()).await.unwrap();
            let wanted = positions(&range);
            assert_eq!(got, all.slice(wanted), "{name} {range:?}");
        }
        assert!(
            read(source, descriptor, 0..size + 1).await.is_err(),
            "{name}"
        );
    }
    // Asked again with what is known, the answer is the same.
    let root = found.chain.first().unwrap().descriptor.clone();
    let again = source.resolve(Some(&root)).await.unwrap();
    assert_eq!(again.descriptor.digest, root.digest, "{name}");
    assert!(again.body.is_none(), "{name}: nothing is transferred again");
    let absent = support::image::descriptor("", b"not there");
    assert!(read(source, &absent, 0..1).await.is_err(), "{name}");
    let manifest = collect(
        source
            .open_manifest(&absent)
            .await
            .unwrap_or_else(|err| Box::pin(futures_util::stream::once(async { Err(err) }))),
    )
    .await;
    assert!(manifest.is_err(), "{name}");
    assert!(source.traffic().requests > 0, "{name}");
    assert!(source.traffic().bytes > 0, "{name}");
    assert!(source.parallel_ranges() >= 1, "{name}");
    assert!(!source.describe().is_empty(), "{name}");
}

#[tokio::test]
async fn a_registry_keeps_the_contract() {
    let registry = Registry::start();
    let image = small_image();
    registry.put_image("a/b", "t", &image);
    let source = open(&registry.reference("a/b:t"), &options());
    contract("registry", source.as_ref(), &image).await;
}

#[tokio::test]
async fn a_registry_without_ranges_keeps_the_contract() {
    let registry = Registry::start();
    let image = small_image();
    registry.put_image("a/b", "t", &image);
    registry.fault_always(On::Blob, Fault::IgnoreRange);
    let source = open(&registry.reference("a/b:t"), &options());
    contract("registry without ranges", source.as_ref(), &image).await;
    assert_eq!(source.parallel_ranges(), 1);
}

#[tokio::test]
async fn an_oci_layout_keeps_the_contract() {
    let dir = tempfile::tempdir().unwrap();
    let image = small_image();
    write_layout(dir.path(), &[("t", &image)]);
    let source = open(&format!("oci:{}:t", dir.path().display()), &options());
    contract("oci layout", source.as_ref(), &image).await;
}

#[tokio::test]
async fn docker_archives_keep_the_contract() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("image.tar");
    let image = small_image();
    let other = support::image::image(
        "linux/amd64",
        vec![image.layers[1].clone(), image.layers[0].clone()],
    );
    let images = [("busybox:1", &image), ("busybox:2", &other)];
    for (form, write) in [
        ("old", write_old_archive as fn(&Path, &[(&str, &Image)])),
        ("new", write_new_archive),
    ] {
        write(&file, &images);
        for (tag, image) in images {
            let reference = format!("docker-archive:{}:{tag}", file.display());
            let source = open(&reference, &options());
            contract(&format!("{form} archive"), source.as_ref(), image).await;
        }
        let second = format!("docker-archive:{}:@1", file.display());
        let source = open(&second, &options());
        contract(
            &format!("{form} archive by position"),
            source.as_ref(),
            &other,
        )
        .await;
        let check = |reference: &str, expected: &str| {
            let reference: Reference = reference.parse().unwrap();
            let err = imgfs::source::open(&reference, &options())
                .err()
                .unwrap()
                .to_string();
            assert!(err.contains(expected), "{form}: {err}");
        };
        check(
            &format!("docker-archive:{}", file.display()),
            "several images",
        );
        check(&format!("docker-archive:{}:x", file.display()), "busybox:1");
        // Cut off anywhere, it is an error and no panic.
        let all = std::fs::read(&file).unwrap();
        for length in [0, 1, 511, 512, 700, 5000, all.len() / 2] {
            std::fs::write(&file, &all[..length]).unwrap();
            check(
                &format!("docker-archive:{}:@0", file.display()),
                "image.tar",
            );
        }
        std::fs::write(&file, &image.layers[0].blob).unwrap();
        check(&format!("docker-archive:{}", file.display()), "`gunzip`");
    }
}

// ---- faults of a registry

/// One blob of 1000 bytes, read as `range` with these faults: the result and the requests it took.
async fn with_faults(
    options: &Options,
    range: Range<u64>,
    faults: &[Fault],
) -> (Result<Bytes, SourceError>, usize) {
    let registry = Registry::start();
    let blob = registry.put_blob(content());
    for fault in faults {
        registry.fault(On::Blob, fault.clone());
    }
    let source = open(&registry.reference("r"), options);
    let got = read(source.as_ref(), &blob, range).await;
    (got, registry.requests().len())
}

fn content() -> Vec<u8> {
    (0..1000_u32).map(|n| n.to_le_bytes()[0]).collect()
}

async fn check_recovery(options: &Options, faults: &[Fault], requests: usize) {
    for range in [0..1000, 100..600] {
        let (got, sent) = with_faults(options, range.clone(), faults).await;
        let got = got.unwrap_or_else(|err| panic!("{faults:?}: {err}"));
        let wanted = positions(&range);
        assert_eq!(got, content()[wanted], "{faults:?} {range:?}");
        assert_eq!(sent, requests, "{faults:?} {range:?}");
    }
}

#[tokio::test]
async fn passing_failures_are_retried_and_bodies_resumed() {
    let options = options();
    check_recovery(&options, &[], 1).await;
    for status in [408, 429, 500, 502, 503, 504] {
        check_recovery(&options, &[Fault::Status(status)], 2).await;
    }
    check_recovery(&options, &[Fault::RetryAfter(429, "0")], 2).await;
    let past = "Sun, 06 Nov 1994 08:49:37 GMT";
    check_recovery(&options, &[Fault::RetryAfter(503, past)], 2).await;
    check_recovery(&options, &[Fault::Truncate(300)], 2).await;
    check_recovery(&options, &[Fault::Truncate(0)], 2).await;
    let many: Vec<Fault> = std::iter::repeat_n(Fault::Truncate(40), 10).collect();
    check_recovery(&options, &many, 11).await;
    check_recovery(
        &options,
        &[Fault::Status(503), Fault::Truncate(10), Fault::Status(500)],
        4,
    )
    .await;
    check_recovery(&options, &[Fault::Truncate(10), Fault::IgnoreRange], 2).await;
}

#[tokio::test]
async fn stalls_and_silence_are_found_out() {
    let options = impatient();
    check_recovery(&options, &[Fault::Stall(300)], 2).await;
    check_recovery(&options, &[Fault::Silence], 2).await;
}

#[tokio::test]
async fn short_ranges_are_continued() {
    let short = [Fault::ShortRange(200), Fault::ShortRange(1)];
    let (got, sent) = with_faults(&options(), 100..600, &short).await;
    assert_eq!(got.unwrap(), content()[100..600]);
    assert_eq!(sent, 3);
}

#[tokio::test]
async fn what_will_not_pass_is_reported_with_the_next_step() {
    let check = async |fault: Fault, requests: usize, expected: &str| {
        let faults: Vec<Fault> = std::iter::repeat_n(fault, 11).collect();
        let (got, sent) = with_faults(&options(), 100..600, &faults).await;
        let err = got.unwrap_err().to_string();
        assert!(err.contains(expected), "{faults:?}: {err}");
        assert!(
            err.contains("127.0.0.1:") || err.contains("sha256:"),
            "{err}"
        );
        assert_eq!(sent, requests, "{err}");
    };
    check(Fault::Status(404), 1, "has no blob r@sha256:").await;
    check(
        Fault::Status(403),
        1,
        "log in with `podman login 127.0.0.1:",
    )
    .await;
    check(Fault::Status(501), 1, "unexpected status 501").await;
    check(
        Fault::Status(500),
        4,
        "INTERNAL_SERVER_ERROR: as the test asked",
    )
    .await;
    check(Fault::Status(416), 1, "should have 1000 bytes").await;
    check(Fault::Drop, 4, "the transfer broke off").await;
    check(Fault::RetryAfter(429, "3600"), 1, "unexpected status 429").await;
    check(Fault::WrongRange, 1, "asked for bytes 100-600, got 101-").await;
    check(Fault::WrongTotal, 1, "should have 1000 bytes but 1001 came").await;
    check(
        Fault::Header("content-encoding", "gzip"),
        1,
        "Content-Encoding",
    )
    .await;
    check(
        Fault::Redirect("ftp://x/".into()),
        1,
        "without a usable Location",
    )
    .await;
    check(
        Fault::Redirect("/v2/r/blobs/x".into()),
        11,
        "too many redirects",
    )
    .await;
}

#[tokio::test]
async fn nobody_listening_and_unknown_hosts_are_told_apart() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    let source = open(&format!("{address}/r"), &options());
    let err = source.resolve(None).await.unwrap_err().to_string();
    assert!(err.contains("nothing listens there"), "{err}");
    assert!(err.contains(&address.to_string()), "{err}");
}

#[tokio::test]
async fn corrupt_documents_are_refused() {
    let registry = Registry::start();
    let image = small_image();
    let manifest = registry.put_image("r", "latest", &image);
    registry.fault_always(On::Manifest, Fault::Corrupt);
    let source = open(&registry.reference("r"), &options());
    let err = resolve_image(source.as_ref(), &linux(), None)
        .await
        .unwrap_err();
    assert!(matches!(err, SourceError::Digest { .. }), "{err}");
    let pinned = open(
        &registry.reference(&format!("r@{}", manifest.digest)),
        &options(),
    );
    let err = pinned.resolve(None).await.unwrap_err();
    assert!(matches!(err, SourceError::Digest { .. }), "{err}");
    registry.clear_faults();
    registry.fault_always(On::Blob, Fault::Corrupt);
    let err = resolve_image(source.as_ref(), &linux(), None)
        .await
        .unwrap_err();
    assert!(matches!(err, SourceError::Digest { .. }), "{err}");
}

// ---- resolving

#[tokio::test]
async fn a_known_digest_costs_one_head_request() {
    let registry = Registry::start();
    let image = small_image();
    registry.put_image("r", "latest", &image);
    let source = open(&registry.reference("r"), &options());
    let first = source.resolve(None).await.unwrap();
    assert!(first.body.is_some());
    let again = source.resolve(Some(&first.descriptor)).await.unwrap();
    assert!(again.body.is_none());
    assert_eq!(
        registry.log(),
        [
            "GET /v2/r/manifests/latest 200",
            "HEAD /v2/r/manifests/latest 200"
        ]
    );
    registry.forget_requests();
    let other = support::image::image("linux/amd64", vec![]);
    registry.put_image("r", "latest", &other);
    let changed = source.resolve(Some(&first.descriptor)).await.unwrap();
    assert_ne!(changed.descriptor.digest, first.descriptor.digest);
    assert!(changed.body.is_some());
    assert_eq!(
        registry.log(),
        [
            "HEAD /v2/r/manifests/latest 200",
            "GET /v2/r/manifests/latest 200"
        ]
    );
    registry.forget_requests();
    let pinned = format!("r@{}", first.descriptor.digest);
    let pinned = open(&registry.reference(&pinned), &options());
    pinned.resolve(Some(&first.descriptor)).await.unwrap();
    assert!(registry.log().is_empty(), "a known digest needs no request");
}

/// An index of `entries`: (platform or empty, media type, document).
fn index(entries: &[(&str, &Descriptor)]) -> Vec<u8> {
    let entries: Vec<Descriptor> = entries
        .iter()
        .map(|(platform, descriptor)| {
            let mut descriptor = (*descriptor).clone();
            descriptor.platform =
                (!platform.is_empty()).then(|| Platform::parse(platform, &linux()).unwrap());
            descriptor
        })
        .collect();
    serde_json::json!({"schemaVersion": 2, "manifests": entries})
        .to_string()
        .into_bytes()
}

#[tokio::test]
async fn indexes_lead_to_the_image_of_the_platform() {
    let registry = Registry::start();
    let put = |tag: &str, platform: &str| {
        let image = image(platform, vec![plain_layer(tar(&[(tag, b"")]))]);
        registry.put_image("r", tag, &image)
    };
    let amd = put("amd", "linux/amd64");
    let arm = put("arm", "linux/arm64");
    let put_index =
        |tag: &str, body: Vec<u8>| registry.put_manifest("r", tag, support::image::OCI_INDEX, body);
    put_index(
        "flat",
        index(&[("linux/arm64", &arm), ("linux/amd64", &amd)]),
    );
    let inner = put_index("inner", index(&[("", &arm), ("linux/amd64", &amd)]));
    let middle = put_index("middle", index(&[("", &inner)]));
    let outer = put_index("outer", index(&[("", &middle), ("", &middle)]));
    let deep = put_index("deep", index(&[("", &outer)]));
    put_index("deeper", index(&[("", &deep)]));
    put_index("empty", index(&[]));
    put_index("unsaid", index(&[("", &arm), ("", &amd)]));
    let check = async |tag: &str, platform: &str, expected: &str| {
        let source = open(&registry.reference(&format!("r:{tag}")), &options());
        let platform = Platform::parse(platform, &linux()).unwrap();
        let got = match resolve_image(source.as_ref(), &platform, None).await {
            Ok(image) => format!("{} {}", image.platform(), image.chain.len()),
            Err(err) => err.to_string(),
        };
        assert!(got.contains(expected), "{tag} for {platform}: {got}");
    };
    check("flat", "linux/amd64", "linux/amd64 2").await;
    check("flat", "linux/arm64", "linux/arm64 2").await;
    check("flat", "linux/s390x", "it offers linux/amd64, linux/arm64").await;
    check("outer", "linux/amd64", "linux/amd64 4").await;
    check("outer", "linux/arm64", "linux/arm64 4").await;
    check("deep", "linux/amd64", "linux/amd64 5").await;
    check("deeper", "linux/amd64", "nested more than 4 deep").await;
    check("empty", "linux/amd64", "lists no image").await;
    check("unsaid", "linux/amd64", "linux/amd64 2").await;
    check(
        "unsaid",
        "linux/s390x",
        "it offers linux/amd64, linux/arm64",
    )
    .await;
    check("amd", "linux/arm64", "linux/amd64 1").await;
    check("none", "linux/amd64", "has no image r:none (NOT_FOUND").await;
}

// ---- authentication

fn credentials(dir: &tempfile::TempDir, host: &str, password: &str) -> Options {
    use base64::Engine;
    let auth = base64::engine::general_purpose::STANDARD.encode(format!("user:{password}"));
    let file = dir.path().join("auth.json");
    let body = serde_json::json!({"auths": {host: {"auth": auth}}});
    std::fs::write(&file, body.to_string()).unwrap();
    Options {
        credentials: CredentialFiles::new(vec![PathBuf::from("/absent"), file]),
        ..options()
    }
}

#[tokio::test]
async fn tokens_are_fetched_once_and_renewed_when_refused() {
    let dir = tempfile::tempdir().unwrap();
    let registry = Registry::start();
    registry.put_image("r", "latest", &small_image());
    registry.require_token(Some(("user", "hunter2")));
    let options = credentials(&dir, &registry.host(), "hunter2");
    let source = open(&registry.reference("r"), &options);
    source.resolve(None).await.unwrap();
    source.resolve(None).await.unwrap();
    assert_eq!(
        registry.log(),
        [
            "GET /v2/r/manifests/latest 401",
            "GET /token 200",
            "GET /v2/r/manifests/latest 200",
            "GET /v2/r/manifests/latest 200"
        ]
    );
    let queries: Vec<String> = registry
        .requests()
        .into_iter()
        .map(|seen| seen.query)
        .collect();
    assert_eq!(queries[1], "service=test&scope=repository%3Ar%3Apull");
    registry.revoke_tokens();
    registry.forget_requests();
    let descriptor = source.resolve(None).await.unwrap().descriptor;
    // Several askers with the refused token, and one renewal.
    registry.revoke_tokens();
    registry.forget_requests();
    let many = (0..6).map(|_| read_whole_manifest(source.as_ref(), &descriptor));
    futures_util::future::join_all(many).await;
    let renewals = registry
        .log()
        .iter()
        .filter(|line| line.contains("/token"))
        .count();
    assert_eq!(renewals, 1, "{:?}", registry.log());
}

async fn read_whole_manifest(source: &dyn BlobSource, descriptor: &Descriptor) {
    collect(source.open_manifest(descriptor).await.unwrap())
        .await
        .unwrap();
}

#[tokio::test]
async fn refusals_say_how_to_log_in() {
    let dir = tempfile::tempdir().unwrap();
    let registry = Registry::start();
    registry.put_image("r", "latest", &small_image());
    let check = async |options: &Options, expected: &str| {
        let source = open(&registry.reference("r"), options);
        let got = match source.resolve(None).await {
            Ok(_) => "good".to_owned(),
            Err(err) => err.to_string(),
        };
        assert!(got.contains(expected), "{got}");
        assert!(!got.contains("hunter") && !got.contains("token-"), "{got}");
    };
    let right = credentials(&dir, &registry.host(), "hunter2");
    let other_dir = tempfile::tempdir().unwrap();
    let wrong = credentials(&other_dir, &registry.host(), "hunter3");
    for basic in [true, false] {
        if basic {
            registry.require_basic("user", "hunter2");
        } else {
            registry.require_token(Some(("user", "hunter2")));
        }
        check(&right, "good").await;
        check(&wrong, "auth.json are not accepted").await;
        check(&options(), "log in with `podman login 127.0.0.1:").await;
    }
    registry.require_token(None);
    check(&options(), "good").await;
    std::fs::write(other_dir.path().join("auth.json"), "{hunter").unwrap();
    check(&wrong, "auth.json are not valid JSON").await;
}

// ---- redirects

#[tokio::test]
async fn redirects_carry_no_credentials_and_are_resolved_again_when_they_expire() {
    let dir = tempfile::tempdir().unwrap();
    let registry = Registry::start();
    let storage = Registry::start();
    registry.redirect_blobs_to(&storage);
    registry.require_basic("user", "hunter2");
    let blob = registry.put_blob(content());
    let options = credentials(&dir, &registry.host(), "hunter2");
    let source = open(&registry.reference("r"), &options);
    let get = async |range| read(source.as_ref(), &blob, range).await.unwrap();
    assert_eq!(get(0..10).await, content()[..10]);
    assert_eq!(get(10..20).await, content()[10..20]);
    assert!(
        storage
            .requests()
            .iter()
            .all(|seen| seen.authorization.is_none())
    );
    let statuses = |registry: &Registry| -> Vec<u16> {
        registry.requests().iter().map(|seen| seen.status).collect()
    };
    assert_eq!(statuses(&registry), [401, 307], "the URL is kept");
    assert_eq!(statuses(&storage), [206, 206]);
    storage.expire_urls();
    assert_eq!(get(20..30).await, content()[20..30]);
    assert_eq!(statuses(&registry), [401, 307, 307]);
    assert_eq!(statuses(&storage), [206, 206, 403, 206]);
    // A storage that goes on refusing is asked once more, not for ever.
    storage.fault_always(On::Blob, Fault::Status(403));
    let err = read(source.as_ref(), &blob, 0..1)
        .await
        .unwrap_err()
        .to_string();
    assert!(err.contains("refuses access"), "{err}");
    assert!(!err.contains("secret"), "{err}");
    assert_eq!(statuses(&storage), [206, 206, 403, 206, 403, 403]);
}

// ---- real counterparts

/// A process that ends with the test.
struct Running(std::process::Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ended = self.0.kill();
        let _reaped = self.0.wait();
    }
}

fn run(program: &Path, arguments: &[&str]) {
    let output = std::process::Command::new(program)
        .args(arguments)
        .output()
        .unwrap();
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{program:?} {arguments:?}: {words}"
    );
}

/// Starts Debian's docker-registry; its address.
async fn start_docker_registry(program: &Path, dir: &Path) -> (Running, String) {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap().to_string();
    drop(free);
    let config = dir.join("config.yml");
    let storage = dir.join("storage");
    std::fs::write(
        &config,
        format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: '{address}'}}\n",
            storage.display()
        ),
    )
    .unwrap();
    let child = std::process::Command::new(program)
        .arg("serve")
        .arg(&config)
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let running = Running(child);
    for _ in 0..200 {
        if tokio::net::TcpStream::connect(&address).await.is_ok() {
            return (running, address);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("docker-registry does not listen on {address}");
}

#[tokio::test]
async fn docker_registry_and_skopeo_agree_with_the_contract() {
    let test = "docker_registry_and_skopeo_agree_with_the_contract";
    let Some(programs) = support::programs::find(test, &["docker-registry", "skopeo"]) else {
        return;
    };
    let [docker_registry, skopeo] = programs.as_slice() else {
        unreachable!("two were asked for");
    };
    let dir = tempfile::tempdir().unwrap();
    let image = small_image();
    let layout = dir.path().join("layout");
    write_layout(&layout, &[("t", &image)]);
    let (_running, address) = start_docker_registry(docker_registry, dir.path()).await;
    let from = format!("oci:{}:t", layout.display());
    let to = format!("docker://{address}/some/name:t");
    let policy = ["--insecure-policy", "copy", "-q"];
    run(
        skopeo,
        &[
            &policy[..],
            &["--preserve-digests", "--dest-tls-verify=false", &from, &to],
        ]
        .concat(),
    );
    let source = open(&to, &options());
    contract("docker-registry", source.as_ref(), &image).await;
    let missing = open(&format!("{address}/some/name:absent"), &options());
    let err = missing.resolve(None).await.unwrap_err().to_string();
    assert!(err.contains("MANIFEST_UNKNOWN"), "{err}");
    // skopeo writes archives of the old form.
    let file = dir.path().join("image.tar");
    let archive = format!("docker-archive:{}:busybox:1", file.display());
    run(skopeo, &[&policy[..], &[&from, &archive]].concat());
    for reference in [&archive, &format!("docker-archive:{}", file.display())] {
        let source = open(reference, &options());
        contract("skopeo's archive", source.as_ref(), &image).await;
    }
}

// ---- secrets

/// Collects what is logged.
#[derive(Clone, Default)]
struct Log(Arc<std::sync::Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn logs_contain_no_secret() {
    let dir = tempfile::tempdir().unwrap();
    let registry = Registry::start();
    let storage = Registry::start();
    registry.redirect_blobs_to(&storage);
    registry.require_token(Some(("user", "hunter2")));
    registry.put_image("r", "latest", &small_image());
    let options = credentials(&dir, &registry.host(), "hunter2");
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(move || writer.clone())
        .finish();
    tracing::subscriber::with_default(subscriber, || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let source = open(&registry.reference("r"), &options);
            resolve_image(source.as_ref(), &linux(), None)
                .await
                .unwrap();
        });
    });
    let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert!(text.contains("/token?"), "the dance was logged: {text}");
    assert!(
        text.contains("signature=***"),
        "redirects are logged: {text}"
    );
    // "dXNlcjpodW50ZXIy" is user:hunter2 in base64.
    for secret in ["hunter2", "dXNlcjpodW50ZXIy", "token-1", "secret0"] {
        assert!(!text.contains(secret), "{secret} in {text}");
    }
    assert!(!format!("{options:?}").contains("hunter2"));
}
