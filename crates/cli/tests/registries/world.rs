//! What every test here starts with: a network, mounts and processes of its own, a registry with an
//! image, and an authority for certificates.
//!
//! ```text
//! unshare (mounts, network, processes)
//!   sh -> cat         the first process of the namespace; when the test ends, its stdin does, and so do all others
//!   nsenter -> nginx, docker-registry, imgfs, skopeo, ...
//! ```
//!
//! Ports and addresses are the same in all tests and disturb nobody, neither other tests nor the
//! machine.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read};
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::authority::Authority;
use super::image::{Image, gzip_layer, image, plain_layer, tar, write_layout};
use super::process::{Outcome, run, wait_for};
use super::programs;

const IMGFS: &str = env!("CARGO_BIN_EXE_imgfs");

/// Who is who. The addresses are those set aside for documentation: of no loopback, and nobody's.
pub const HOSTS: &[(&str, &str)] = &[
    ("registry.test", "192.0.2.10"),
    ("mirror.test", "192.0.2.11"),
    ("second.test", "192.0.2.12"),
    ("blobs.test", "192.0.2.13"),
    ("tokens.test", "192.0.2.14"),
    ("proxy.test", "192.0.2.15"),
];
/// The image in the registry.
pub const REFERENCE: &str = "registry.test/team/app:t";
/// What its `etc/release` says.
pub const RELEASE: &str = "of the registry\n";
/// Size of its `noise`, in bytes: some spans of its layer.
const NOISE_SIZE: usize = 48 << 20;
/// The programs that every test here needs.
const PROGRAMS: &[&str] = &[
    "unshare",
    "nsenter",
    "ip",
    "openssl",
    "nginx",
    "docker-registry",
    "skopeo",
];
/// How the namespaces begin. `/etc/containers` is hidden lest the machine's configuration counts.
const PRELUDE: &str = r#"
ip link set lo up
while read -r address name; do ip addr add "$address/32" dev lo; done < "$W/hosts"
mount --bind "$W/hosts" /etc/hosts
mkdir -p /run/imgfs /etc/containers
mount -t tmpfs -o mode=755 tmpfs /run/imgfs
mount -t tmpfs -o mode=755 tmpfs /etc/containers
echo ready
exec cat
"#;

/// Namespaces with a registry on `127.0.0.1:5000` that everybody may read and write.
pub struct World {
    pub authority: Authority,
    pub image: &'static Image,
    dir: tempfile::TempDir,
    holder: Child,
    servers: Mutex<Vec<Child>>,
    caches: AtomicUsize,
}

/// A mount in the namespaces. Its process ends with them at the latest.
pub struct Mount<'a> {
    world: &'a World,
    dir: PathBuf,
}

/// A client of registries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Client {
    Imgfs,
    Skopeo,
}

pub const BOTH: [Client; 2] = [Client::Imgfs, Client::Skopeo];

impl World {
    /// `None`, with a message, where a test cannot run that needs `programs` besides the usual
    /// ones.
    pub fn new(others: &[&str]) -> Option<Self> {
        let test = std::thread::current().name().unwrap_or("a test").to_owned();
        if !rustix::process::geteuid().is_root() {
            programs::skip(&test, "needs root");
            return None;
        }
        programs::find(&test, &[PROGRAMS, others].concat())?;
        let dir = tempfile::tempdir().unwrap();
        let hosts = HOSTS
            .iter()
            .map(|(name, address)| format!("{address} {name}\n"));
        std::fs::write(dir.path().join("hosts"), hosts.collect::<String>()).unwrap();
        let world = Self {
            authority: Authority::new(&dir.path().join("authority")),
            image: the_image(),
            holder: hold(dir.path()),
            dir,
            servers: Mutex::default(),
            caches: AtomicUsize::new(0),
        };
        world.registry("127.0.0.1:5000", "", "");
        let layout = world.path("layout");
        write_layout(&layout, &[("t", world.image)]);
        let push = [
            "--insecure-policy",
            "copy",
            "-q",
            "--preserve-digests",
            "--dest-tls-verify=false",
            &format!("oci:{}:t", layout.display()),
            "docker://127.0.0.1:5000/team/app:t",
        ];
        run(world.command("skopeo").args(push)).ok();
        Some(world)
    }

    /// The same for tests that mount.
    pub fn mounting(others: &[&str]) -> Option<Self> {
        let device = std::fs::File::options()
            .read(true)
            .write(true)
            .open("/dev/fuse");
        if let Err(err) = device {
            let test = std::thread::current().name().unwrap_or("a test").to_owned();
            programs::skip(&test, &format!("/dev/fuse: {err}"));
            return None;
        }
        Self::new(others)
    }

    /// Starts another docker-registry on the same storage; `http` is more of that part of its
    /// configuration, `more` are other parts.
    pub fn registry(&self, address: &str, http: &str, more: &str) {
        let config = self.path(&format!("{address}.yml"));
        let storage = self.path("storage");
        std::fs::write(
            &config,
            format!(
                "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\n\
                 http: {{addr: '{address}', {http}}}\n{more}",
                storage.display()
            ),
        )
        .unwrap();
        let mut registry = self.command("docker-registry");
        self.keep_serving(registry.arg("serve").arg(&config), address);
    }

    /// A path in the world's directory, the same inside and outside.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A path as the namespaces see it.
    pub fn inner(&self, path: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{path}", self.first_process()))
    }

    /// Writes a file that the namespaces see at `path`.
    pub fn write(&self, path: &str, content: impl AsRef<[u8]>) {
        let path = self.inner(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }

    /// Makes everybody in the namespaces trust the authority for this host.
    pub fn trust(&self, host: &str) {
        let authority = std::fs::read(self.authority.path("ca.crt")).unwrap();
        let path = format!("/etc/containers/certs.d/{host}/ca.crt");
        self.write(&path, authority);
    }

    /// Mounts an image, with this environment. Its layers are known and none of their bytes in the
    /// cache: reads ask the registry.
    pub fn mount(&self, reference: &str, environment: &[(&str, &str)]) -> Mount<'_> {
        let number = self.caches.fetch_add(1, Ordering::Relaxed);
        let dir = self.path(&format!("mnt{number}"));
        std::fs::create_dir(&dir).unwrap();
        let imgfs = |arguments: &[&str]| {
            let mut imgfs = self.command(IMGFS);
            imgfs
                .args(arguments)
                .envs(environment.iter().copied())
                .env("IMGFS_CACHE_DIR", self.path(&format!("cache{number}")));
            run(&mut imgfs)
        };
        let mountpoint = dir.to_str().unwrap();
        imgfs(&["mount", reference, mountpoint]).ok();
        imgfs(&["unmount", mountpoint]).ok();
        wait_for("the end of the first mount", || {
            let evicted = imgfs(&["cache", "evict", "--data"]);
            evicted.stderr.contains("; 0 in use")
        });
        imgfs(&["mount", reference, mountpoint]).ok();
        Mount { world: self, dir }
    }

    /// A program in the namespaces that sees only this world: no credentials, no proxy, no
    /// configuration.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let pid = self.holder.id();
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--mount=/proc/{pid}/ns/mnt"))
            .arg(format!("--net=/proc/{pid}/ns/net"))
            // unshare itself is outside, its children are inside.
            .arg(format!("--pid=/proc/{pid}/ns/pid_for_children"))
            // Entering a mount namespace leads to its root, which is not ours in a chroot.
            .arg(format!("--root=/proc/{pid}/root"))
            .arg(program)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.dir.path())
            .env("XDG_RUNTIME_DIR", self.dir.path())
            .env("IMGFS_CACHE_DIR", self.path("cache"));
        command
    }

    /// imgfs with a cache of its own, so that nothing is answered from what another had.
    pub fn imgfs(&self) -> Command {
        let number = self.caches.fetch_add(1, Ordering::Relaxed);
        let mut command = self.command(IMGFS);
        command.env("IMGFS_CACHE_DIR", self.path(&format!("cache{number}")));
        command
    }

    /// Starts a server that ends with the world.
    pub fn keep_serving(&self, command: &mut Command, address: &str) {
        let server = self.serve(command, address);
        self.servers.lock().unwrap().push(server);
    }

    /// Starts a server and waits until it listens on `address`.
    pub fn serve(&self, command: &mut Command, address: &str) -> Child {
        let line = format!("{command:?}");
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.path("servers.log"));
        let log = log.unwrap();
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        let mut child = command.spawn().unwrap();
        wait_for(&format!("{line} to listen on {address}"), || {
            let ended = child.try_wait().unwrap();
            assert!(
                ended.is_none(),
                "{line}: {ended:?}\n{}",
                self.servers_said()
            );
            self.within(|| TcpStream::connect(address).is_ok())
        });
        child
    }

    /// The output of all servers.
    pub fn servers_said(&self) -> String {
        std::fs::read_to_string(self.path("servers.log")).unwrap_or_default()
    }

    /// Does something in the world's network, on a thread of its own.
    pub fn within<T: Send>(&self, job: impl FnOnce() -> T + Send) -> T {
        let network = format!("/proc/{}/ns/net", self.holder.id());
        let network = std::fs::File::open(network).unwrap();
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network))
                    .unwrap();
                job()
            });
            thread.join().unwrap()
        })
    }

    fn first_process(&self) -> String {
        let pid = self.holder.id();
        let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
        children.unwrap().trim().to_owned()
    }
}

impl Mount<'_> {
    /// Opens a file.
    pub fn open(&self, name: &str) -> std::fs::File {
        let path = self.world.inner(self.dir.join(name).to_str().unwrap());
        std::fs::File::open(&path).unwrap_or_else(|err| panic!("{}: {err}", path.display()))
    }

    /// Reads the file of some size.
    pub fn reads_noise(&self) {
        let mut bytes = Vec::new();
        self.open("noise").read_to_end(&mut bytes).unwrap();
        assert!(bytes == noise(), "other bytes than those pushed");
    }

    /// Unmounts it.
    pub fn end(self) {
        let mut unmount = self.world.command(IMGFS);
        run(unmount.arg("unmount").arg(&self.dir)).ok();
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // The end of its stdin is the end of the first process, and of all others with it.
        drop(self.holder.stdin.take());
        let _reaped = self.holder.wait();
        for server in self.servers.get_mut().unwrap() {
            let _reaped = server.wait();
        }
    }
}

impl Client {
    /// Reads an image whole (skopeo) or a file of it (imgfs), with these options and this
    /// environment.
    pub fn reads(
        self,
        world: &World,
        reference: &str,
        options: &[&str],
        environment: &[(&str, &str)],
    ) -> Outcome {
        let mut command = match self {
            Self::Imgfs => {
                let mut imgfs = world.imgfs();
                imgfs
                    .arg("cat")
                    .args(options)
                    .args([reference, "/etc/release"]);
                imgfs
            }
            Self::Skopeo => {
                let number = world.caches.fetch_add(1, Ordering::Relaxed);
                let to = world.path(&format!("copy{number}"));
                let mut skopeo = world.command("skopeo");
                skopeo.arg("--insecure-policy");
                // It has a flag where others have the variable.
                if let Some((_, file)) =
                    (environment.iter()).find(|(name, _)| *name == "CONTAINERS_REGISTRIES_CONF")
                {
                    skopeo.args(["--registries-conf", file]);
                }
                skopeo
                    .args(["copy", "-q", "--preserve-digests"])
                    .args(options)
                    .arg(format!("docker://{reference}"))
                    .arg(format!("dir:{}", to.display()));
                skopeo
            }
        };
        command.envs(environment.iter().copied());
        let outcome = run(&mut command);
        if self == Self::Imgfs && outcome.code == Some(0) {
            assert_eq!(String::from_utf8_lossy(&outcome.stdout), RELEASE);
        }
        outcome
    }
}

/// The address of one of [`HOSTS`].
pub fn address_of(name: &str) -> &'static str {
    let mut hosts = HOSTS.iter();
    hosts.find(|host| host.0 == name).unwrap().1
}

/// The image in the registry. Its second layer is one that can be read in parts.
fn the_image() -> &'static Image {
    static IMAGE: OnceLock<Image> = OnceLock::new();
    IMAGE.get_or_init(|| {
        let release = tar(&[("etc/release", RELEASE.as_bytes())]);
        let noise = tar(&[("noise", noise())]);
        let platform = imgfs_core::source::host_platform().to_string();
        image(&platform, vec![gzip_layer(release), plain_layer(noise)])
    })
}

/// The content of its `noise`: bytes that do not compress.
pub fn noise() -> &'static [u8] {
    static NOISE: OnceLock<Vec<u8>> = OnceLock::new();
    NOISE.get_or_init(|| {
        let mut state = 1_u64;
        let words = std::iter::repeat_with(|| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()
        });
        words.take(NOISE_SIZE / 8).flatten().collect()
    })
}

fn hold(dir: &Path) -> Child {
    // unshare makes the mounts private from the root down, which works where the root is a mount
    // point. In a plain chroot it is not, and neither is its mount shared with anybody on a usual
    // machine.
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let root_is_mount = table
        .lines()
        .any(|line| line.split(' ').nth(4) == Some("/"));
    let propagation = if root_is_mount {
        "private"
    } else {
        "unchanged"
    };
    let mut holder = Command::new("unshare")
        .args(["-m", "-n", "--propagation", propagation])
        .args(["--pid", "--fork", "--kill-child", "--mount-proc"])
        .args(["sh", "-euc", PRELUDE])
        .env("W", dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let mut said = BufReader::new(holder.stdout.take().unwrap());
    said.read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n", "no namespaces");
    holder
}
