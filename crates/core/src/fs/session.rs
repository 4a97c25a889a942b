//! The mount itself: options, threads, read-ahead, the end.
//!
//! fuser mounts directly where that is permitted and through `fusermount3` otherwise. Unmounting is done here:
//! fuser 0.18 takes the error poll of a connection that has ended for a sign of life and unmounts the
//! mountpoint a second time, which would hit whatever has been mounted there since.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use fuser::{BackgroundSession, Config, INodeNo, MountOption, Notifier, Session, SessionACL};
use rustix::mount::UnmountFlags;
use tokio::runtime::Handle;

use super::ImageFs;
use super::fuse::Fuse;
use imgfs_formats::tree::Ino;

/// Read-ahead of the mount in KiB: makes read requests 1 MiB, where the kernel begins with 128 KiB.
const READ_AHEAD_KIB: &str = "1024";

/// How to mount. It is always read-only and without access times.
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent switches, as in mount(8)"
)]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountOptions {
    /// Let other users in, not only who mounted it.
    pub allow_other: bool,
    /// Let the kernel check modes and owners. Without it who may enter may read everything.
    pub default_permissions: bool,
    /// Let devices work.
    pub dev: bool,
    /// Honour setuid and setgid.
    pub suid: bool,
    /// Let programs run.
    pub exec: bool,
    /// What stands in the first column of the mount table.
    pub source: String,
    /// Threads that take requests; at least one.
    pub threads: usize,
}

/// Why a mount or unmount failed.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// There is no way to the kernel.
    #[error("cannot open /dev/fuse{}", device_hint(.source))]
    Device {
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The mount call, `fusermount3` or the handshake.
    #[error("cannot mount on {}", .mountpoint.display())]
    Mount {
        /// Where.
        mountpoint: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The unmount call or `fusermount3`.
    #[error("cannot unmount {}", .mountpoint.display())]
    Unmount {
        /// Where.
        mountpoint: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The threads that serve it ended with an error.
    #[error("serving {} ended", .mountpoint.display())]
    Serve {
        /// Where.
        mountpoint: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// A mounted image. Dropping it unmounts, lazily.
pub struct Mounted {
    session: Option<BackgroundSession>,
    unmounter: Unmounter,
}

/// Unmounts from any thread.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unmounter {
    mountpoint: PathBuf,
}

/// Makes the kernel forget what it keeps.
pub struct Forgetter(Notifier);

impl Forgetter {
    /// Drops the pages and the attributes of an inode, those that programs have mapped, too. Waits for reads of it that
    /// are under way, so not for a thread that answers them.
    pub fn forget(&self, ino: Ino) -> io::Result<()> {
        // The whole file: a length of 0 is all of it (fuse_reverse_inval_inode).
        self.0.inval_inode(INodeNo(ino.get()), 0, 0)
    }
}

/// Whether this process may use FUSE at all, asked before anything is fetched.
pub fn check_device() -> Result<(), MountError> {
    let device = std::fs::File::options()
        .read(true)
        .write(true)
        .open("/dev/fuse");
    device
        .map(drop)
        .map_err(|source| MountError::Device { source })
}

/// Mounts `image` and serves it on threads of its own; `runtime` runs the reads that have to wait.
pub fn serve(
    image: Arc<ImageFs>,
    mountpoint: &Path,
    options: &MountOptions,
    runtime: Handle,
) -> Result<Mounted, MountError> {
    let failed = |source| MountError::Mount {
        mountpoint: mountpoint.to_owned(),
        source,
    };
    // Unmounting must name the same place whatever becomes of the working directory.
    let place = mountpoint.canonicalize().map_err(failed)?;
    let session = Session::new(Fuse::new(image, runtime), &place, &config(options));
    let session = session.and_then(Session::spawn).map_err(failed)?;
    raise_read_ahead(&place);
    Ok(Mounted {
        session: Some(session),
        unmounter: Unmounter { mountpoint: place },
    })
}

impl Mounted {
    /// What unmounts it from elsewhere, so that [`Mounted::wait`] returns.
    pub fn unmounter(&self) -> Unmounter {
        self.unmounter.clone()
    }

    /// What makes the kernel forget; `None` once it has ended.
    pub fn forgetter(&self) -> Option<Forgetter> {
        let session = self.session.as_ref()?;
        Some(Forgetter(session.notifier()))
    }

    /// Blocks until it is unmounted, by whoever, and the last user has left.
    pub fn wait(mut self) -> Result<(), MountError> {
        let Some(mut session) = self.session.take() else {
            return Ok(());
        };
        let guard = std::mem::replace(&mut session.guard, std::thread::spawn(|| Ok(())));
        // Dropping it would unmount once more: see above. What is lost is one closed connection.
        std::mem::forget(session);
        let ended = guard
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("a thread panicked")));
        ended.map_err(|source| MountError::Serve {
            mountpoint: self.unmounter.mountpoint.clone(),
            source,
        })
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let Some(session) = self.session.take() else {
            return;
        };
        if session.guard.is_finished() {
            std::mem::forget(session);
            return;
        }
        std::mem::forget(session);
        if let Err(err) = self.unmounter.unmount(true) {
            tracing::warn!(cause = %err, "the mount stays behind");
        }
    }
}

impl Unmounter {
    /// For a mount of any process; `mountpoint` is absolute, its links resolved.
    pub fn new(mountpoint: PathBuf) -> Self {
        Self { mountpoint }
    }

    /// Where it is mounted.
    pub fn mountpoint(&self) -> &Path {
        &self.mountpoint
    }

    /// Unmounts. A mount in use is refused (`EBUSY`), or, if `lazy`, taken out of sight and ended with its
    /// last user.
    pub fn unmount(&self, lazy: bool) -> Result<(), MountError> {
        let flags = if lazy {
            UnmountFlags::DETACH
        } else {
            UnmountFlags::empty()
        };
        let done = match rustix::mount::unmount(&self.mountpoint, flags) {
            // Ordinary users have to ask the helper that mounted for them.
            Err(rustix::io::Errno::PERM) => fusermount(&self.mountpoint, lazy),
            done => done.map_err(io::Error::from),
        };
        done.map_err(|source| MountError::Unmount {
            mountpoint: self.mountpoint.clone(),
            source,
        })
    }
}

fn fusermount(mountpoint: &Path, lazy: bool) -> io::Result<()> {
    let mut command = Command::new("fusermount3");
    command.arg("-u");
    if lazy {
        command.arg("-z");
    }
    let output = command.arg("--").arg(mountpoint).output()?;
    if output.status.success() {
        return Ok(());
    }
    let message = String::from_utf8_lossy(&output.stderr);
    let message = message.trim();
    let message = message.strip_prefix("fusermount3: ").unwrap_or(message);
    Err(io::Error::other(format!("fusermount3: {message}")))
}

fn config(options: &MountOptions) -> Config {
    let mut mount_options = vec![
        MountOption::RO,
        MountOption::NoAtime,
        either(options.dev, MountOption::Dev, MountOption::NoDev),
        either(options.suid, MountOption::Suid, MountOption::NoSuid),
        either(options.exec, MountOption::Exec, MountOption::NoExec),
        MountOption::FSName(option_text(&options.source)),
        // `Subtype` reaches only fusermount3; this way the type is `fuse.imgfs` for root too.
        MountOption::CUSTOM("subtype=imgfs".to_owned()),
    ];
    if options.default_permissions {
        mount_options.push(MountOption::DefaultPermissions);
    }
    let mut config = Config::default();
    config.mount_options = mount_options;
    config.acl = either(options.allow_other, SessionACL::All, SessionACL::Owner);
    config.n_threads = Some(options.threads.max(1));
    config.clone_fd = true;
    config
}

fn either<T>(on: bool, yes: T, no: T) -> T {
    if on { yes } else { no }
}

/// What to do when /dev/fuse cannot be opened.
fn device_hint(err: &io::Error) -> &'static str {
    match err.kind() {
        io::ErrorKind::NotFound => {
            " (is the kernel module loaded? in a container, was it given --device /dev/fuse?)"
        }
        io::ErrorKind::PermissionDenied => {
            " (mounting as an ordinary user needs a /dev/fuse that everybody may open)"
        }
        _ => "",
    }
}

/// fuser joins options with commas and escapes nothing.
fn option_text(text: &str) -> String {
    let harmful = |c: char| c == ',' || c == '\\' || c.is_control();
    text.replace(harmful, "_")
}

/// For root; without it sequential reads come in requests of 128 KiB and are slower, no more.
fn raise_read_ahead(mountpoint: &Path) {
    let written = rustix::fs::stat(mountpoint)
        .map_err(io::Error::from)
        .and_then(|stat| {
            let (major, minor) = (
                rustix::fs::major(stat.st_dev),
                rustix::fs::minor(stat.st_dev),
            );
            let path = format!("/sys/class/bdi/{major}:{minor}/read_ahead_kb");
            std::fs::write(path, READ_AHEAD_KIB)
        });
    if let Err(err) = written {
        tracing::debug!(cause = %err, "read-ahead stays at the kernel's default");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_name_cannot_bring_mount_options() {
        let options = MountOptions {
            allow_other: false,
            default_permissions: false,
            dev: false,
            suid: false,
            exec: true,
            source: "imgfs:oci:/a,suid\\,dev\n".to_owned(),
            threads: 0,
        };
        let config = config(&options);
        let source = MountOption::FSName("imgfs:oci:/a_suid__dev_".to_owned());
        assert!(config.mount_options.contains(&source));
        assert!(config.mount_options.contains(&MountOption::NoSuid));
        assert!(config.mount_options.contains(&MountOption::RO));
        assert_eq!((config.acl, config.n_threads), (SessionACL::Owner, Some(1)));
    }
}
