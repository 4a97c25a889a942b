//! What every test here starts with: a registry, a cache and a place to mount, all of its own.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc;

use rustix::mount::UnmountFlags;
use rustix::process::{Pid, Signal};

use super::process::{LIMIT, Outcome, run, wait_for};
use super::support::image::Image;
use super::support::programs::skip;
use super::support::registry::Registry;

pub const IMGFS: &str = env!("CARGO_BIN_EXE_imgfs");

/// How [`World::namespace`] begins.
const PRELUDE: &str = r#"
chmod 755 "$W"
mkdir -p "$W/ns" "$W/user" /run/imgfs
mount -t tmpfs -o mode=755 tmpfs /run/imgfs
mount -t tmpfs -o mode=755 tmpfs "$W/ns"
mknod -m 666 "$W/ns/fuse" c 10 229
mount --bind "$W/ns/fuse" /dev/fuse
mount -t tmpfs -o mode=755 tmpfs /usr/local/bin
touch /usr/local/bin/imgfs
mount --bind "$IMGFS" /usr/local/bin/imgfs
PATH="/usr/local/bin:$PATH"
chown 65534:65534 "$W/user"
if [ -e "$W/fuse.conf" ]; then mount --bind "$W/fuse.conf" /etc/fuse.conf; fi
as_user() {
    setpriv --reuid=65534 --regid=65534 --clear-groups env HOME="$W/user" XDG_RUNTIME_DIR="$W/user" \
        IMGFS_CACHE_DIR="$W/user/cache" "$@"
}
"#;

/// A registry, a cache, a directory. What is still mounted at the end is unmounted.
pub struct World {
    pub registry: Registry,
    dir: tempfile::TempDir,
    mounts: std::sync::atomic::AtomicUsize,
}

/// A mount, unmounted at its end. If the test takes too long its daemon is killed, so that nothing
/// hangs.
pub struct Mount {
    pub dir: PathBuf,
    pub pid: u32,
    _watchdog: mpsc::Sender<()>,
}

impl World {
    /// For tests that need no mount.
    pub fn new() -> Self {
        Self {
            registry: Registry::start(),
            dir: tempfile::tempdir().unwrap(),
            mounts: std::sync::atomic::AtomicUsize::new(0),
        }
    }

    /// For tests that mount, as whoever they run as; `None`, with a message, where that cannot be.
    pub fn mounting() -> Option<Self> {
        let device = std::fs::File::options()
            .read(true)
            .write(true)
            .open("/dev/fuse");
        if let Err(err) = device {
            skip(&test_name(), &format!("/dev/fuse: {err}"));
            return None;
        }
        if !is_root() && !super::has(&["fusermount3"]) {
            return None;
        }
        Some(Self::new())
    }

    /// For tests that mount and need root besides.
    pub fn as_root() -> Option<Self> {
        if !is_root() {
            skip(&test_name(), "needs root");
            return None;
        }
        Self::mounting()
    }

    /// A path in the world's directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The cache.
    pub fn cache(&self) -> PathBuf {
        self.path("cache/v1")
    }

    /// Puts an image into the registry as `r:t`; its reference.
    pub fn put(&self, image: &Image) -> String {
        self.registry.put_image("r", "t", image);
        self.registry.reference("r:t")
    }

    /// A program that sees only this world: its cache, no credentials, no proxy.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        self.enter(&mut command);
        command
    }

    pub fn enter(&self, command: &mut Command) {
        for proxy in [
            "http_proxy",
            "https_proxy",
            "all_proxy",
            "HTTP_PROXY",
            "HTTPS_PROXY",
            "ALL_PROXY",
        ] {
            command.env_remove(proxy);
        }
        command
            .env("IMGFS_CACHE_DIR", self.path("cache"))
            .env("HOME", self.dir.path())
            .env("XDG_RUNTIME_DIR", self.dir.path())
            .env_remove("IMGFS_LOG")
            .env_remove("IMGFS_CACHE_LIMIT")
            .env_remove("DOCKER_CONFIG")
            .env_remove("REGISTRY_AUTH_FILE")
            .env_remove("XDG_CONFIG_HOME")
            .env_remove("XDG_CACHE_HOME")
            .env_remove("XDG_DATA_HOME")
            .env_remove("IMGFS_CONFIG")
            .env_remove("CONTAINERS_REGISTRIES_CONF");
    }

    /// Runs imgfs.
    pub fn imgfs<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Outcome {
        run(self.command(IMGFS).args(arguments))
    }

    /// A new directory to mount on.
    pub fn mountpoint(&self) -> PathBuf {
        let number = self
            .mounts
            .fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let dir = self.path(&format!("mnt{number}"));
        std::fs::create_dir(&dir).unwrap();
        dir
    }

    /// Mounts an image; what was said on stderr too.
    #[track_caller]
    pub fn mount_saying(&self, reference: &str, options: &[&str]) -> (Mount, String) {
        let dir = self.mountpoint();
        let outcome = run(self
            .command(IMGFS)
            .arg("mount")
            .args(options)
            .arg(reference)
            .arg(&dir));
        let said = outcome.stderr.clone();
        assert_eq!(outcome.ok(), "", "mount has nothing to print");
        (self.adopt(dir), said)
    }

    /// Mounts an image.
    #[track_caller]
    pub fn mount(&self, reference: &str, options: &[&str]) -> Mount {
        self.mount_saying(reference, options).0
    }

    /// Takes care of what was mounted on `dir` otherwise.
    #[track_caller]
    pub fn adopt(&self, dir: PathBuf) -> Mount {
        assert!(is_mounted(&dir), "nothing is mounted on {}", dir.display());
        let pid = self.daemon(&dir).unwrap();
        let (watchdog, ended) = mpsc::channel::<()>();
        std::thread::spawn(move || {
            if ended.recv_timeout(2 * LIMIT) == Err(mpsc::RecvTimeoutError::Timeout) {
                kill(pid, Signal::KILL);
            }
        });
        Mount {
            dir,
            pid,
            _watchdog: watchdog,
        }
    }

    /// The process that serves `dir`, as `imgfs ps` knows it.
    pub fn daemon(&self, dir: &Path) -> Option<u32> {
        let records: serde_json::Value =
            serde_json::from_str(&self.imgfs(&["ps", "--json"]).ok()).unwrap();
        let record = records.as_array().unwrap().iter();
        let pid = record
            .filter(|record| record["mountpoint"].as_str() == dir.to_str())
            .find_map(|record| record["pid"].as_u64());
        pid.map(|pid| pid.try_into().unwrap())
    }

    /// A mount that must fail with code 1, say all of this, and leave nothing mounted.
    #[track_caller]
    pub fn refused(&self, reference: &str, options: &[&str], words: &[&str]) -> String {
        let dir = self.mountpoint();
        let outcome = run(self
            .command(IMGFS)
            .arg("mount")
            .args(options)
            .arg(reference)
            .arg(&dir));
        assert!(!is_mounted(&dir), "{} left a mount", outcome.line);
        outcome.fails(1, words);
        assert!(outcome.stdout.is_empty(), "errors go to stderr");
        outcome.stderr
    }

    /// What a mount's process has said since the mount was ready.
    pub fn log(&self, mount: &Mount) -> String {
        let status = self.status(mount);
        let id = status["id"].as_str().unwrap();
        let path = self.path(&format!("imgfs/{id}.log"));
        let path = if path.exists() {
            path
        } else {
            format!("/run/imgfs/{id}.log").into()
        };
        std::fs::read_to_string(path).unwrap()
    }

    /// The status of a mount.
    pub fn status(&self, mount: &Mount) -> serde_json::Value {
        let outcome = run(self
            .command(IMGFS)
            .args(["status", "--json"])
            .arg(&mount.dir));
        serde_json::from_str(&outcome.ok()).unwrap()
    }

    /// Runs a shell script as root in mount and process namespaces of its own, which end with it:
    /// what it mounts and starts is gone afterwards. There `/dev/fuse` is open to all, `$W` is the
    /// world's directory, `imgfs` is on the PATH, `/etc/fuse.conf` allows `allow_other` if
    /// `$W/fuse.conf` exists, and `as_user` runs a command as nobody, with a cache of nobody's own.
    pub fn namespace<S: AsRef<OsStr>>(&self, script: &str, arguments: &[S]) -> Outcome {
        // unshare makes the namespace's mounts private from the root down, which works where the
        // root is a mount point. In a plain chroot it is not, and neither is its mount shared with
        // anybody on a usual machine.
        let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let root_is_mount = table
            .lines()
            .any(|line| line.split(' ').nth(4) == Some("/"));
        let propagation = if root_is_mount {
            "private"
        } else {
            "unchanged"
        };
        let mut command = self.command("unshare");
        command.args([
            "-m",
            "--propagation",
            propagation,
            "--fork",
            "--pid",
            "--kill-child",
            "--mount-proc",
            "sh",
            "-euc",
        ]);
        command
            .arg(format!("{PRELUDE}{script}"))
            .arg("sh")
            .args(arguments);
        run(command.env("W", self.dir.path()).env("IMGFS", IMGFS))
    }

    /// Drops all layer bytes from the cache.
    pub fn evict(&self) {
        self.imgfs(&["cache", "evict", "--data"]).ok();
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for dir in mounted_below(self.dir.path()) {
            unmount_lazily(&dir);
        }
    }
}

impl Mount {
    /// A path in the mount.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// A file's content.
    #[track_caller]
    pub fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).unwrap_or_else(|err| panic!("{name}: {err}"))
    }

    /// A small file's content.
    #[track_caller]
    pub fn text(&self, name: &str) -> String {
        String::from_utf8(self.read(name)).unwrap()
    }

    /// The names in a directory, sorted.
    #[track_caller]
    pub fn names(&self, name: &str) -> Vec<String> {
        let entries = std::fs::read_dir(self.path(name)).unwrap();
        let mut names: Vec<_> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    /// Unmounts it and waits for the end of its process.
    #[track_caller]
    pub fn end(self, world: &World) {
        // What a test on another thread starts has, between fork and exec, every file of this
        // process open: those that a reader of this mount had open at that moment keep it busy for
        // so long.
        wait_for("the unmount", || {
            let outcome = run(world.command(IMGFS).arg("unmount").arg(&self.dir));
            if outcome.stderr.contains("Device or resource busy") {
                return false;
            }
            outcome.ok();
            true
        });
        self.has_ended();
    }

    /// Waits for the end of its process and looks at what is left: nothing.
    #[track_caller]
    pub fn has_ended(&self) {
        wait_for("the end of the daemon", || !is_running(self.pid));
        assert!(
            !is_mounted(&self.dir),
            "{} is still mounted",
            self.dir.display()
        );
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if is_mounted(&self.dir) {
            unmount_lazily(&self.dir);
        }
        let end = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while is_running(self.pid) {
            if std::time::Instant::now() > end {
                kill(self.pid, Signal::KILL);
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }
}

/// The name of the test that runs on this thread.
pub fn test_name() -> String {
    std::thread::current().name().unwrap_or("a test").to_owned()
}

pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Sends a signal to a process that runs imgfs; no other is ever hit.
pub fn kill(pid: u32, signal: Signal) {
    if is_running(pid) {
        let pid = Pid::from_raw(pid.try_into().unwrap()).unwrap();
        // It may just have ended.
        let _gone = rustix::process::kill_process(pid, signal);
    }
}

/// Whether a process of this number runs imgfs.
pub fn is_running(pid: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    status.starts_with("Name:\timgfs\n") && !status.contains("State:\tZ")
}

/// Whether something is mounted right on `dir`.
pub fn is_mounted(dir: &Path) -> bool {
    mounted_below(dir).iter().any(|mounted| mounted == dir)
}

fn mounted_below(dir: &Path) -> Vec<PathBuf> {
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let mountpoints = table.lines().filter_map(|line| line.split(' ').nth(4));
    let below = mountpoints
        .map(PathBuf::from)
        .filter(|path| path.starts_with(dir));
    // The last one mounted is the first to go.
    below.collect::<Vec<_>>().into_iter().rev().collect()
}

fn unmount_lazily(dir: &Path) {
    if rustix::mount::unmount(dir, UnmountFlags::DETACH).is_err() {
        // As an ordinary user; if that fails too there is nothing left to try.
        let _tried = Command::new("fusermount3").arg("-uz").arg(dir).output();
    }
}
