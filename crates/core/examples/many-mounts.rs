//! Measures many mounts in one process, for `scripts/bench`: images that are in the cache already,
//! nobody is asked.
//!
//! ```text
//! many-mounts CACHE COUNT IMAGE OTHER      prints one object of JSON
//! ```
//!
//! OTHER is mounted first, so that what a process needs once is there; then IMAGE, and then IMAGE
//! again and again, COUNT mounts in all. Of each mount all names are read, and the first MiB of a
//! file. Memory is `RssAnon` of /proc/PID/status.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a tool for benchmarks: what is wrong is shown and ends it"
)]

use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use imgfs_core::image::{Pull, Request};
use imgfs_core::indexes::{FindOptions, IndexPolicy};
use imgfs_core::prefetch::EXECUTABLE_LIMIT;
use imgfs_core::serve::{Host, MountOptions, MountRequest, Mounted, RuntimeDir};
use imgfs_core::source::{Options, host_platform};
use imgfs_core::store::{Cache, DEFAULT_LIMIT, ReadPolicy, Trust};

/// A file that is read of each mount.
const FILE: &str = "usr/bin/bash";

fn memory() -> i64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"));
    line.unwrap()
        .trim()
        .trim_end_matches(" kB")
        .parse()
        .unwrap()
}

fn count(what: &str) -> usize {
    std::fs::read_dir(what).unwrap().count()
}

/// Reads all names below a directory.
fn walk(dir: &Path) -> usize {
    let mut names = 0;
    for entry in std::fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        names += 1;
        if entry.file_type().unwrap().is_dir() {
            names += walk(&entry.path());
        }
    }
    names
}

struct Many {
    host: Host,
    options: Options,
    dir: tempfile::TempDir,
    mounts: Vec<Mounted>,
}

impl Many {
    /// Mounts an image and uses it; how long the mount took.
    async fn add(&mut self, image: &str) -> Duration {
        let dir = self.dir.path().join(self.mounts.len().to_string());
        std::fs::create_dir(&dir).unwrap();
        let request = MountRequest {
            image: Request {
                reference: image.parse().unwrap(),
                others: Vec::new(),
                platform: host_platform(),
                indexes: IndexPolicy {
                    require: Trust::Pinned,
                    soci_v1: false,
                    published: FindOptions::default(),
                    offline: true,
                },
                pull: Pull::Never,
                options: self.options.clone(),
            },
            dir: dir.clone(),
            options: MountOptions {
                allow_other: false,
                default_permissions: true,
                dev: false,
                suid: false,
                exec: true,
                source: String::new(),
                threads: 2,
            },
            reads: ReadPolicy::default(),
            prove: false,
            fetch_executables: EXECUTABLE_LIMIT,
        };
        let started = Instant::now();
        let mounted = Box::pin(self.host.mount(request)).await.unwrap();
        let took = started.elapsed();
        self.mounts.push(mounted);
        let used = tokio::task::spawn_blocking(move || {
            walk(&dir);
            let mut start = Vec::new();
            let file = std::fs::File::open(dir.join(FILE)).unwrap();
            file.take(1 << 20).read_to_end(&mut start).unwrap();
        });
        used.await.unwrap();
        took
    }
}

#[tokio::main(worker_threads = 2)]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [cache, many, image, other] = &arguments[..] else {
        panic!("usage: many-mounts CACHE COUNT IMAGE OTHER");
    };
    let dir = tempfile::tempdir().unwrap();
    let cache = Cache::open(Path::new(cache), DEFAULT_LIMIT).unwrap();
    let mut mounts = Many {
        host: Host::new(Arc::new(cache), RuntimeDir::new(dir.path().join("run"))),
        options: Options::default(),
        dir,
        mounts: Vec::new(),
    };
    mounts.add(other).await;
    let before = memory();
    let first = mounts.add(image).await;
    let one = memory();
    let many: usize = many.parse().unwrap();
    let mut last = first;
    let mut times = Vec::new();
    for _ in 1..many {
        last = mounts.add(image).await;
        times.push(last);
    }
    let all = memory();
    // One of two hundred may be slow for any reason: the last ones together tell.
    let end = times.len().saturating_sub(10);
    times[end..].sort();
    let last = times[end..].get(5).copied().unwrap_or(last);
    let further = i64::try_from(many - 1).unwrap();
    println!(
        "{{\"first_seconds\": {}, \"last_seconds\": {}, \"other_image_kib\": {}, \"further_mount_kib\": {}, \"threads\": {}, \
         \"descriptors\": {}}}",
        first.as_secs_f64(),
        last.as_secs_f64(),
        one - before,
        (all - one) / further.max(1),
        count("/proc/self/task"),
        count("/proc/self/fd"),
    );
    for mounted in &mounts.mounts {
        mounted.unmount(true).await.unwrap();
        mounted.wait().await.unwrap();
    }
}
