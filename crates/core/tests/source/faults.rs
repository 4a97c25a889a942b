//! What a registry's faults must come to: the right bytes, or an error that says the next step.

use super::*;

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

pub fn content() -> Vec<u8> {
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
async fn connections_are_used_again() {
    let registry = Registry::start();
    let blob = registry.put_blob(vec![7; 3 << 20]);
    let source = open(&registry.reference("r"), &options());
    for offset in (0..3 << 20).step_by(100_000) {
        let end = blob.size.min(offset + 100_000);
        read(source.as_ref(), &blob, offset..end).await.unwrap();
    }
    assert_eq!(source.traffic().bytes, blob.size);
    assert_eq!(source.traffic().requests, registry.requests().len() as u64);
    assert_eq!(registry.connections(), 1);
}

#[tokio::test]
async fn reads_of_one_host_are_limited() {
    let registry = Registry::start();
    let blob = registry.put_blob(content());
    let options = options();
    let sources = [
        open(&registry.reference("a"), &options),
        open(&registry.reference("b"), &options),
    ];
    let mut held = Vec::new();
    for n in 0..8 {
        held.push(sources[n % 2].open(&blob, 0..1000).await.unwrap());
    }
    let mut ninth = sources[0].open(&blob, 0..1000);
    let waits = tokio::select! {
        biased;
        _ = &mut ninth => false,
        () = std::future::ready(()) => true,
    };
    assert!(waits);
    assert_eq!(registry.requests().len(), 8);
    held.pop();
    assert_eq!(collect(ninth.await.unwrap()).await.unwrap(), content());
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
        let faults: Vec<Fault> = std::iter::repeat_n(fault, 22).collect();
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
    check(Fault::Status(403), 1, "log in to 127.0.0.1:").await;
    check(Fault::Status(501), 1, "unexpected status 501").await;
    check(
        Fault::Status(500),
        4,
        "INTERNAL_SERVER_ERROR: as the test asked",
    )
    .await;
    // An answer that makes no sense is asked for once more.
    check(Fault::Status(416), 2, "should have 1000 bytes").await;
    check(Fault::Drop, 4, "the transfer broke off").await;
    check(Fault::RetryAfter(429, "3600"), 1, "wait, or log in").await;
    check(Fault::WrongRange, 2, "asked for bytes 100-600, got 101-").await;
    check(Fault::WrongTotal, 2, "should have 1000 bytes but 1001 came").await;
    check(
        Fault::Header("content-encoding", "gzip"),
        2,
        "Content-Encoding",
    )
    .await;
    check(
        Fault::Redirect("ftp://x/".into()),
        2,
        "without a usable Location",
    )
    .await;
    check(
        Fault::Redirect("/v2/r/blobs/x".into()),
        22,
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
