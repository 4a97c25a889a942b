//! 10,000 reads over a network where one request in four goes wrong: no wrong byte comes back. Half
//! of them with a registry that redirects to a storage, whose URLs expire all the time, as tokens
//! do.

use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::*;
use crate::support::registry::Registry;

/// Files of the image, each of several spans.
const FILES: usize = 8;
const FILE_SIZE: usize = 5 << 20;
const ROUNDS: usize = 20;
const READERS: usize = 8;
const READS: usize = 10_000;
/// What goes wrong when: the same for the same number and order of requests.
const SEED: u64 = 0;
/// The first round with redirects and tokens.
const REDIRECTED: usize = ROUNDS / 2;
/// Requests after which URLs and tokens are good for nothing.
const LIFE: usize = 5;

/// What may happen to a request. Most of it passes at once; what stalls costs two seconds each.
fn faults() -> Vec<Fault> {
    let often = [
        Fault::Status(500),
        Fault::Status(502),
        Fault::Status(503),
        Fault::RetryAfter(429, "0"),
        Fault::IgnoreRange,
        Fault::ShortRange(70_000),
        Fault::Truncate(0),
        Fault::Truncate(33_333),
        Fault::Truncate(700_000),
        Fault::Corrupt,
        Fault::Drop,
        Fault::Header("x-harmless", "1"),
    ];
    let mut faults: Vec<Fault> = std::iter::repeat_n(often, 5).flatten().collect();
    faults.push(Fault::Stall(100_000));
    faults.push(Fault::Silence);
    faults
}

fn content(number: usize) -> Vec<u8> {
    noise(100 + number as u64, FILE_SIZE)
}

/// A place and a length, the same for the same number.
fn place(number: usize) -> (usize, u64, usize) {
    let hash = blake3::hash(&number.to_le_bytes());
    let bytes: [u8; 24] = hash.as_bytes()[..24].try_into().unwrap();
    let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
    let file = usize::try_from(word(0)).unwrap() % FILES;
    let length = 1 + usize::try_from(word(8)).unwrap() % 200_000;
    let offset = word(16) % (FILE_SIZE - length) as u64;
    (file, offset, length)
}

/// Lets URLs and tokens expire now and then until it is `done`; how often.
fn expire(registry: &Registry, storage: &Registry, done: &AtomicBool) -> usize {
    let mut times = 0;
    while !done.load(Ordering::Relaxed) {
        if storage.requests().len() >= LIFE {
            storage.forget_requests();
            storage.expire_urls();
            registry.revoke_tokens();
            times += 1;
        }
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    times
}

#[test]
fn no_wrong_byte_in_10_000_reads_over_a_bad_network() {
    let Some(world) = World::mounting() else {
        return;
    };
    let truth: Vec<Vec<u8>> = (0..FILES).map(content).collect();
    let layers = truth.iter().enumerate().map(|(number, bytes)| {
        let members = [file(&format!("file{number}"), bytes)];
        match number % 3 {
            0 => gzip(&members),
            1 => zstd(&members),
            _ => plain(&members),
        }
    });
    let reference = world.put(&host_image(layers.collect()));
    world.mount(&reference, &[]).end(&world);
    let (read, failed) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let storage = Registry::start();
    let (mut struck, mut expired) = (0, 0);
    for round in 0..ROUNDS {
        world.evict();
        let redirected = round >= REDIRECTED;
        if round == REDIRECTED {
            world.registry.redirect_blobs_to(&storage);
            world.registry.require_token(None);
        }
        let mount = world.mount(&reference, &[]);
        let blobs = if redirected {
            &storage
        } else {
            &world.registry
        };
        blobs.chaos(SEED + round as u64, 4, &faults());
        let next = AtomicUsize::new(round * READS / ROUNDS);
        let done = AtomicBool::new(!redirected);
        std::thread::scope(|scope| {
            scope.spawn(|| expired += expire(&world.registry, &storage, &done));
            let readers = (0..READERS).map(|_| {
                scope.spawn(|| {
                    loop {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        if number >= (round + 1) * READS / ROUNDS {
                            return;
                        }
                        let (file, offset, length) = place(number);
                        let open = std::fs::File::open(mount.path(&format!("file{file}"))).unwrap();
                        let mut got = vec![0; length];
                        match open.read_exact_at(&mut got, offset) {
                            Ok(()) => {
                                let start = usize::try_from(offset).unwrap();
                                let right = &truth[file][start..start + length];
                                assert!(got == right, "read {number}: file{file} at {offset}");
                                read.fetch_add(1, Ordering::Relaxed);
                            }
                            Err(err) => {
                                assert_eq!(err.raw_os_error(), Some(libc::EIO), "read {number}");
                                failed.fetch_add(1, Ordering::Relaxed);
                            }
                        }
                    }
                })
            });
            let readers: Vec<_> = readers.collect();
            // A failed one must not keep the others from their end.
            let results: Vec<_> = readers
                .into_iter()
                .map(std::thread::ScopedJoinHandle::join)
                .collect();
            done.store(true, Ordering::Relaxed);
            assert!(results.iter().all(Result::is_ok), "a reader failed");
        });
        struck += blobs.clear_faults();
        // What failed is only not there yet: the next read brings it.
        for (number, bytes) in truth.iter().enumerate() {
            assert!(mount.read(&format!("file{number}")) == *bytes);
        }
        mount.end(&world);
    }
    let (read, failed) = (read.into_inner(), failed.into_inner());
    println!(
        "{read} reads were right, {failed} failed, {struck} requests went wrong, URLs and tokens expired {expired} times"
    );
    assert_eq!(read + failed, READS);
    assert!(expired > 20, "URLs and tokens expired {expired} times");
    assert!(struck > 100, "{struck} requests went wrong");
    // Only wrong bytes from the only host, twice for the same place, are an error at once.
    assert!(failed < READS / 100, "{failed} reads failed");
}
