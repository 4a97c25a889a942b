//! One process with 200 mounts: what they share, that none harms another, and that nothing stays
//! behind.
//!
//! It is a program of its own with one test, as it counts the threads, open files and memory of its
//! process. The mounts are served by the process that reads them; if they hang, a watchdog ends it.
#![allow(unreachable_pub, reason = "a test program exports nothing")]
#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on has found what it looks for"
)]

#[path = "../support/mod.rs"]
mod support;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};

use imgfs_core::image::{Pull, Request};
use imgfs_core::indexes::{FindOptions, IndexPolicy};
use imgfs_core::serve::{Host, MountOptions, MountRequest, Mounted, RuntimeDir};
use imgfs_core::source::{Options, host_platform};
use imgfs_core::store::{Cache, ReadPolicy, Trust};
use support::image::{Layer, gzip_layer, image, plain_layer, tar, zstd_layer};
use support::programs::skip;
use support::registry::Registry;
use tokio::runtime::Runtime;

const IMAGES: usize = 20;
const MOUNTS: usize = 200;
/// The first of them stay while the others come and go.
const STAYING: usize = 100;
/// The image whose config belongs to another base layer.
const LIAR: usize = 7;
/// Nothing here takes that long.
const LIMIT: Duration = Duration::from_secs(240);

/// Bytes that hardly compress, from a seed.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// The files of a layer: `count` small ones and a large one.
fn files(name: &str, seed: u64, count: u64, large: usize) -> BTreeMap<String, Vec<u8>> {
    let mut files: BTreeMap<_, _> = (0..count)
        .map(|i| {
            (
                format!("{name}/f{i}"),
                noise(seed + i, 100 + usize::try_from(i % 900).unwrap()),
            )
        })
        .collect();
    files.insert(format!("{name}/large"), noise(seed + count, large));
    files
}

fn tar_of(files: &BTreeMap<String, Vec<u8>>) -> bytes::Bytes {
    let files: Vec<_> = (files.iter())
        .map(|(path, content)| (path.as_str(), content.as_slice()))
        .collect();
    tar(&files)
}

/// What an image holds, and the blobs that it shares with others.
struct Known {
    reference: String,
    files: BTreeMap<String, Vec<u8>>,
}

struct World {
    registry: Registry,
    images: Vec<Known>,
    base: Layer,
    dir: tempfile::TempDir,
    host: Host,
}

impl World {
    fn new() -> Self {
        let registry = Registry::start();
        let base = files("base", 1, 400, 3_000_000);
        let base_layer = gzip_layer(tar_of(&base));
        let groups: Vec<_> = (0..4)
            .map(|i| files(&format!("group{i}"), 10_000 * (i + 1), 100, 500_000))
            .collect();
        let group_layers: Vec<_> = (groups.iter())
            .map(|files| zstd_layer(tar_of(files)))
            .collect();
        let images = (0..IMAGES).map(|i| {
            let own = files("own", 1_000_000 * (i as u64 + 1), 20, 100_000);
            let mut base_layer = base_layer.clone();
            if i == LIAR {
                // The config's DiffId is made from it, the blob stays.
                base_layer.tar = tar(&[("another", b"layer")]);
            }
            let layers = vec![
                base_layer,
                group_layers[i % groups.len()].clone(),
                plain_layer(tar_of(&own)),
            ];
            let name = format!("team/image{i}");
            registry.put_image(
                &name,
                "latest",
                &image(&host_platform().to_string(), layers),
            );
            let parts = [&base, &groups[i % groups.len()], &own];
            Known {
                reference: registry.reference(&name),
                files: parts
                    .into_iter()
                    .flatten()
                    .map(|(path, content)| (path.clone(), content.clone()))
                    .collect(),
            }
        });
        let images = images.collect();
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(&dir.path().join("cache"), 1 << 30).unwrap();
        let host = Host::new(Arc::new(cache), RuntimeDir::new(dir.path().join("run")));
        Self {
            registry,
            images,
            base: base_layer,
            dir,
            host,
        }
    }

    fn mountpoint(&self, number: usize) -> PathBuf {
        let dir = self.dir.path().join(format!("m{number}"));
        std::fs::create_dir_all(&dir).unwrap();
        dir
    }

    /// Mounts an image at a place of its own.
    async fn mount(&self, options: &Options, image: usize, number: usize) -> Mounted {
        let request = MountRequest {
            image: Request {
                reference: self.images[image].reference.parse().unwrap(),
                others: Vec::new(),
                platform: host_platform(),
                indexes: IndexPolicy {
                    require: Trust::Pinned,
                    soci_v1: false,
                    published: FindOptions {
                        options: options.clone(),
                        ..FindOptions::default()
                    },
                    offline: false,
                },
                pull: Pull::default(),
                options: options.clone(),
            },
            dir: self.mountpoint(number),
            options: MountOptions {
                allow_other: false,
                default_permissions: false,
                dev: false,
                suid: false,
                exec: true,
                source: String::new(),
                threads: 2,
            },
            reads: ReadPolicy::default(),
            prove: false,
            fetch_executables: 64 << 20,
        };
        self.host.mount(request).await.unwrap()
    }

    /// Reads the mounts that stay, every fourth from `reader` on, for as long as others come and
    /// go. Says what is wrong: of the liar's mounts the layer that it lied about must not be read,
    /// and all else must.
    fn read_those_that_stay(&self, reader: usize, comers: &AtomicBool) -> Vec<String> {
        let (mut wrong, mut round) = (Vec::new(), 0);
        while comers.load(Ordering::Relaxed) || round < 2 {
            for number in (reader..STAYING).step_by(4) {
                let (image, dir) = (number % IMAGES, self.dir.path().join(format!("m{number}")));
                let found = self.check(image, &dir, number + round);
                let (refused, other): (Vec<_>, Vec<_>) = (found.into_iter())
                    .partition(|text| text.starts_with("base/") && text.contains("os error 5"));
                if refused.is_empty() == (image == LIAR) {
                    wrong.push(format!("{number}, image {image}: {refused:?}"));
                }
                wrong.extend(other);
            }
            round += 1;
        }
        wrong
    }

    /// Reads some files of a mount, others for each `seed`, and all names. Says what is not as it
    /// should be.
    fn check(&self, image: usize, dir: &Path, seed: usize) -> Vec<String> {
        let mut wrong = Vec::new();
        let known = &self.images[image].files;
        let step = 1 + known.len() / 30;
        for (path, expected) in known.iter().skip(seed % step).step_by(step) {
            match std::fs::read(dir.join(path)) {
                Ok(found) if found == *expected => {}
                Ok(_) => wrong.push(format!("{path}: other bytes")),
                Err(err) => wrong.push(format!("{path}: {err}")),
            }
        }
        let names = |dir: PathBuf| std::fs::read_dir(dir).map(std::iter::Iterator::count);
        for name in ["base", "own"] {
            let expected = known.keys().filter(|path| path.starts_with(name)).count();
            let found = names(dir.join(name));
            if !found.as_ref().is_ok_and(|found| *found == expected) {
                wrong.push(format!("{name}: {found:?} names"));
            }
        }
        wrong
    }
}

/// What this process uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Usage {
    threads: usize,
    /// Open files but for sockets: connections may wait for their next request.
    files: usize,
    /// Of the kernel's FUSE device among them.
    devices: usize,
    /// Allocated memory, in bytes: not what the allocator keeps of it afterwards, which lies in
    /// pieces.
    memory: usize,
}

fn usage() -> Usage {
    let count = |what: &str| std::fs::read_dir(what).unwrap().count();
    let targets: Vec<_> = std::fs::read_dir("/proc/self/fd")
        .unwrap()
        .filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok())
        .map(|target| target.to_string_lossy().into_owned())
        .collect();
    let files = targets
        .iter()
        .filter(|target| !target.starts_with("socket:"));
    Usage {
        threads: count("/proc/self/task"),
        files: files.count(),
        devices: targets
            .iter()
            .filter(|target| *target == "/dev/fuse")
            .count(),
        memory: allocated(),
    }
}

/// Bytes that are allocated now, in all arenas of glibc.
#[expect(unsafe_code, reason = "mallinfo2 has no safe face")]
fn allocated() -> usize {
    // SAFETY: it takes no pointers and may be called at any time.
    let info = unsafe { libc::mallinfo2() };
    info.uordblks + info.hblkhd
}

/// Ends the process where a mount that it serves itself does not answer.
fn watch() -> std::sync::mpsc::Sender<()> {
    let (sender, ended) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        if ended.recv_timeout(LIMIT) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
            std::process::abort();
        }
    });
    sender
}

fn can_mount(test: &str) -> bool {
    let device = std::fs::File::options()
        .read(true)
        .write(true)
        .open("/dev/fuse");
    if let Err(err) = device {
        skip(test, &format!("/dev/fuse: {err}"));
        return false;
    }
    if !rustix::process::getuid().is_root() {
        return support::programs::find(test, &["fusermount3"]).is_some();
    }
    true
}

#[test]
fn two_hundred_mounts_of_twenty_images() {
    if !can_mount("two_hundred_mounts_of_twenty_images") {
        return;
    }
    let _watchdog = watch();
    // A mount's end is waited for by a thread of its own: with as many mounts as there are threads
    // for blocking work nothing was decoded any more.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(16)
        .thread_keep_alive(Duration::from_millis(50))
        .enable_all()
        .build()
        .unwrap();
    let world = Arc::new(World::new());
    let options = Options {
        plain_http: true,
        ..Options::default()
    };
    // What is made once stays: threads, connections, what the allocator keeps in pieces. The second
    // time shows what mounts leave behind.
    let (first, _) = round(&runtime, &world, &options);
    let (second, full) = round(&runtime, &world, &options);
    let told = || {
        format!("after one round {first:?}, 200 mounts {full:?}, after the second round {second:?}")
    };
    assert_eq!((first.devices, second.devices), (0, 0), "{}", told());
    assert!(second.threads <= first.threads, "{}", told());
    assert!(second.files <= first.files, "{}", told());
    assert!(second.memory < first.memory + (2 << 20), "{}", told());
    // Twenty different trees, readers of 25 different layers; for each mount two buffers of 16 MiB
    // that are never filled.
    let buffers = MOUNTS * 2 * (17 << 20);
    assert!(
        full.memory < second.memory + buffers + (40 << 20),
        "{}",
        told()
    );
}

/// Mounts 200 images, reads them while others come and go, and unmounts all. What is used
/// afterwards, and what the 200 took.
fn round(runtime: &Runtime, world: &Arc<World>, options: &Options) -> (Usage, Usage) {
    world.registry.forget_requests();
    let mut mounts = runtime.block_on(async {
        let mut mounts = Vec::new();
        for first in (0..MOUNTS).step_by(20) {
            let together =
                (first..first + 20).map(|number| world.mount(options, number % IMAGES, number));
            mounts.extend(futures_util::future::join_all(together).await);
        }
        mounts
    });
    assert_eq!(world.host.mounts().len(), MOUNTS);
    // Of all mounts one has fetched the layer that all of them have.
    let base = imgfs_formats::oci::Digest::sha256(&world.base.blob).hex();
    let requests = world.registry.requests();
    let of_base = requests.iter().filter(|seen| seen.path.contains(&base));
    assert!(
        of_base.count() <= 1,
        "requests for the layer that all images have"
    );

    // The liar is found out, in each of its mounts.
    let liars = || mounts.iter().skip(LIAR).step_by(IMAGES);
    let is_quarantined = |mounted: &Mounted| {
        let problem = mounted.status().layers[0].problem.clone();
        problem.is_some_and(|problem| problem.contains("config says"))
    };
    wait_until("the liar is found out", || liars().all(is_quarantined));
    let full = usage();
    assert!(full.devices >= MOUNTS, "{full:?}");

    let comers = Arc::new(AtomicBool::new(true));
    let readers: Vec<_> = (0..4)
        .map(|reader| {
            let (world, comers) = (Arc::clone(world), Arc::clone(&comers));
            std::thread::spawn(move || world.read_those_that_stay(reader, &comers))
        })
        .collect();
    runtime.block_on(async {
        for again in [true, false] {
            for (number, mounted) in mounts.iter_mut().enumerate().skip(STAYING) {
                mounted.unmount(true).await.unwrap();
                mounted.wait().await.unwrap();
                if again {
                    // Another image in its place.
                    *mounted = world.mount(options, (number + 3) % IMAGES, number).await;
                }
            }
        }
    });
    comers.store(false, Ordering::Relaxed);
    for reader in readers {
        assert_eq!(reader.join().unwrap(), Vec::<String>::new());
    }
    assert_eq!(world.host.mounts().len(), STAYING);

    // A mount that nobody waits for any more, at whatever point of its making, leaves nothing.
    let given_up = runtime.block_on(async {
        let mut patience = 1;
        while !is_mounted_within(patience, world.mount(options, 0, MOUNTS + patience)).await {
            patience += 1;
        }
        patience - 1
    });
    assert!(given_up > 0, "the first poll did all");
    wait_until("what was given up ends", || {
        mounted_below(world.dir.path()) == STAYING && world.host.mounts().len() == STAYING
    });

    runtime.block_on(async {
        for mounted in &mounts[..STAYING] {
            mounted.unmount(false).await.unwrap();
            mounted.wait().await.unwrap();
            assert!(mounted.has_ended());
        }
    });
    drop(mounts);
    assert!(world.host.mounts().is_empty());
    let left = std::fs::read_dir(world.dir.path().join("run")).unwrap();
    assert_eq!(left.count(), 0, "records, sockets and logs");
    // Threads without work end by and by.
    let (mut last, mut now) = (usage(), usage());
    wait_until("nothing more ends", || {
        std::thread::sleep(Duration::from_millis(300));
        (last, now) = (now, usage());
        last.threads == now.threads
    });
    world.registry.forget_requests();
    (usage(), full)
}

/// Whether so many polls make a mount; it is given up after them.
async fn is_mounted_within(polls: usize, mounting: impl Future<Output = Mounted>) -> bool {
    let (mut mounting, mut left) = (std::pin::pin!(mounting), polls);
    std::future::poll_fn(|context| {
        left -= 1;
        match mounting.as_mut().poll(context) {
            Poll::Ready(_) => Poll::Ready(true),
            Poll::Pending if left == 0 => Poll::Ready(false),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

/// How many filesystems are mounted below a directory, by `proc_pid_mountinfo(5)`.
fn mounted_below(dir: &Path) -> usize {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let points = mounts.lines().filter_map(|line| line.split(' ').nth(4));
    points
        .filter(|point| Path::new(point).starts_with(dir))
        .count()
}

/// Waits for something that comes soon.
fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !is_so() {
        assert!(Instant::now() < deadline, "it never came to that: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
