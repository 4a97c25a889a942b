//! Transfers that stall or crawl, and hosts that do not answer: raced, resumed, left alone for a
//! while.

use super::faults::content;
use super::*;

/// What stalls is raced soon, and found dead only much later.
fn racing() -> Options {
    let mut options = options();
    options.timeouts.race = Duration::from_millis(100);
    options
}

/// Reads `range` of a blob of 1000 bytes with these faults: the ranges that were asked for.
async fn ranges_with(faults: &[Fault], range: Range<u64>) -> Vec<String> {
    let registry = Registry::start();
    let blob = registry.put_blob(content());
    for fault in faults {
        registry.fault(On::Blob, fault.clone());
    }
    let source = open(&registry.reference("r"), &racing());
    let got = read(source.as_ref(), &blob, range.clone()).await.unwrap();
    assert_eq!(got, content()[positions(&range)], "{faults:?}");
    assert!(registry.connections() > 1, "a second connection");
    let requests = registry.requests();
    let ranges = requests.iter().map(|seen| seen.range.clone());
    ranges.map(Option::unwrap_or_default).collect()
}

#[tokio::test]
async fn a_stalled_body_is_resumed_on_a_second_connection_from_the_byte_reached() {
    let ranges = ranges_with(&[Fault::Stall(300)], 100..600).await;
    assert_eq!(ranges, ["bytes=100-599", "bytes=400-599"]);
}

#[tokio::test]
async fn an_answer_that_does_not_come_is_asked_for_twice() {
    let ranges = ranges_with(&[Fault::Silence], 100..600).await;
    assert_eq!(ranges, ["bytes=100-599", "bytes=100-599"]);
}

#[tokio::test]
async fn the_second_connection_may_stall_too() {
    let stalls = [Fault::Stall(100), Fault::Stall(50), Fault::Stall(0)];
    let mut options = racing();
    options.timeouts.stall = Duration::from_millis(600);
    let registry = Registry::start();
    let blob = registry.put_blob(content());
    for fault in stalls {
        registry.fault(On::Blob, fault);
    }
    let source = open(&registry.reference("r"), &options);
    let got = read(source.as_ref(), &blob, 0..1000).await.unwrap();
    assert_eq!(got, content());
    let sent = registry.requests().len();
    assert!((3..=5).contains(&sent), "{sent} requests");
}

#[tokio::test]
async fn a_connection_that_crawls_loses_to_a_second_one() {
    let registry = Registry::start();
    let noise: Vec<u8> = (0..4_u32 << 20)
        .map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes()[0])
        .collect();
    let blob = registry.put_blob(noise.clone());
    let source = open(&registry.reference("r"), &options());
    // What is usual here.
    for _ in 0..3 {
        read(source.as_ref(), &blob, 0..1 << 20).await.unwrap();
    }
    registry.forget_requests();
    registry.fault(On::Blob, Fault::Drip(1024));
    let got = read(source.as_ref(), &blob, 0..blob.size).await.unwrap();
    assert!(got == noise);
    let requests = registry.requests();
    assert_eq!(requests.len(), 2, "{:?}", registry.log());
    let second = requests[1].range.clone().unwrap();
    assert!(second.ends_with(&format!("-{}", blob.size - 1)), "{second}");
    assert!(
        second != format!("bytes=0-{}", blob.size - 1),
        "from the byte reached on"
    );
    // What the loser had sent that was not read yet: sockets' buffers at most.
    assert!(
        registry.bytes() < blob.size + (1 << 20),
        "{}",
        registry.bytes()
    );
}

#[tokio::test]
async fn a_network_that_is_slow_for_all_is_not_asked_twice() {
    let registry = Registry::start();
    let blob = registry.put_blob(vec![7; 1 << 20]);
    registry.fault_always(On::Blob, Fault::Drip(2048));
    let source = open(&registry.reference("r"), &options());
    for _ in 0..5 {
        read(source.as_ref(), &blob, 0..blob.size).await.unwrap();
    }
    assert_eq!(registry.requests().len(), 5);
    assert_eq!(registry.bytes(), 5 * blob.size);
}

#[tokio::test]
async fn few_transfers_are_raced_at_a_time() {
    let registry = Registry::start();
    let blob = registry.put_blob(content());
    registry.fault_always(On::Blob, Fault::Stall(0));
    let mut options = racing();
    options.timeouts.stall = Duration::from_millis(700);
    options.retry.attempts = 1;
    let source = open(&registry.reference("r"), &options);
    let reads = (0..8).map(|_| read(source.as_ref(), &blob, 0..1000));
    for result in futures_util::future::join_all(reads).await {
        assert!(matches!(result, Err(SourceError::Timeout { .. })));
    }
    // Eight, two more at a time, and what was begun when the first of them had stalled for good.
    let sent = registry.requests().len();
    assert!((9..=16).contains(&sent), "{sent} requests");
}

#[tokio::test]
async fn a_host_that_is_down_is_probed_and_not_hammered() {
    let registry = Registry::start();
    let blob = registry.put_blob(content());
    registry.fault_always(On::Blob, Fault::Status(503));
    let mut options = options();
    options.retry.attempts = 1000;
    let source = open(&registry.reference("r"), &options);
    let reads = (0..200).map(|n| {
        let (source, blob) = (Arc::clone(&source), blob.clone());
        tokio::spawn(async move { read(source.as_ref(), &blob, n..n + 100).await })
    });
    let reads: Vec<_> = reads.collect();
    tokio::time::sleep(Duration::from_millis(800)).await;
    // Each of the eight that may be under way at a time may have failed before the host counts as
    // dead, and a probe or two.
    let sent = registry.requests().len();
    assert!((5..=16).contains(&sent), "{sent} requests in 0.8 s");
    registry.clear_faults();
    for (n, read) in reads.into_iter().enumerate() {
        assert_eq!(read.await.unwrap().unwrap(), content()[n..n + 100]);
    }
    let sent = registry.requests().len() - sent;
    assert!(
        sent <= 204,
        "{sent} requests for 200 reads after it was back"
    );
}

#[tokio::test]
async fn a_server_that_asks_for_a_pause_is_left_alone_by_all() {
    let registry = Registry::start();
    let blob = registry.put_blob(content());
    registry.fault(On::Blob, Fault::RetryAfter(429, "1"));
    let source = open(&registry.reference("r"), &options());
    let first = read(source.as_ref(), &blob, 0..1000);
    let second = async {
        while registry.requests().is_empty() {
            tokio::task::yield_now().await;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        let before = std::time::Instant::now();
        let got = read(source.as_ref(), &blob, 0..500).await;
        (got, before.elapsed())
    };
    let (first, (second, waited)) = tokio::join!(first, second);
    assert_eq!(first.unwrap(), content());
    assert_eq!(second.unwrap(), content()[..500]);
    assert!(waited >= Duration::from_millis(700), "{waited:?}");
    assert_eq!(registry.requests().len(), 3);
}
