//! The mount itself: options, threads, read-ahead, the end. `connect` makes the connection to the
//! kernel; fuser answers what comes through it.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use fuser::{Config, INodeNo, Notifier, SessionACL};
use rustix::mount::UnmountFlags;
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use super::connect::connect;
use super::options::MountOptions;
use super::tree::Fuse;
use crate::error::Result;
use crate::memory;
use crate::view::ImageFs;
use imgfs_formats::tree::Ino;

/// Read-ahead of the mount in KiB: makes read requests 1 MiB, where the kernel begins with 128 KiB.
const READ_AHEAD_KIB: &str = "1024";

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

impl MountError {
    /// The system's words.
    pub(crate) fn cause(&self) -> &io::Error {
        match self {
            Self::Device { source }
            | Self::Mount { source, .. }
            | Self::Unmount { source, .. }
            | Self::Serve { source, .. } => source,
        }
    }

    /// The same once more: of the end of a mount many may want to hear.
    pub(crate) fn again(&self) -> Self {
        let source = io::Error::new(self.cause().kind(), self.cause().to_string());
        match self {
            Self::Device { .. } => Self::Device { source },
            Self::Mount { mountpoint, .. } => Self::Mount {
                mountpoint: mountpoint.clone(),
                source,
            },
            Self::Unmount { mountpoint, .. } => Self::Unmount {
                mountpoint: mountpoint.clone(),
                source,
            },
            Self::Serve { mountpoint, .. } => Self::Serve {
                mountpoint: mountpoint.clone(),
                source,
            },
        }
    }
}

/// A session with the kernel that is being served, on threads of its own.
pub(crate) struct Session {
    /// Unmounts it.
    pub(crate) unmounter: Unmounter,
    /// Makes the kernel forget.
    pub(crate) forgetter: Forgetter,
    /// What comes once it is unmounted, by whoever, and the last user has left.
    pub(crate) ended: oneshot::Receiver<Result<(), MountError>>,
}

/// Unmounts from any thread.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unmounter {
    mountpoint: PathBuf,
}

/// Makes the kernel forget what it keeps.
pub(crate) struct Forgetter(Notifier);

impl Forgetter {
    /// Drops the pages and the attributes of an inode, those that programs have mapped, too. Waits
    /// for reads of it that are under way, so not for a thread that answers them.
    pub(crate) fn forget(&self, ino: Ino) -> io::Result<()> {
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
/// Waits for the kernel.
pub(crate) fn serve(
    image: Arc<ImageFs>,
    mountpoint: &Path,
    options: &MountOptions,
    runtime: Handle,
) -> Result<Session, MountError> {
    let failed = |source| MountError::Mount {
        mountpoint: mountpoint.to_owned(),
        source,
    };
    memory::keep_large_buffers_apart();
    // Unmounting must name the same place whatever becomes of the working directory.
    let place = mountpoint.canonicalize().map_err(failed)?;
    let device = connect(&place, options).map_err(failed)?;
    let unmounter = Unmounter::new(place.clone());
    let served = start(Fuse::new(image, runtime), device, options, place.clone());
    let (forgetter, ended) = served.map_err(|err| {
        // It is mounted already, and nobody would ever answer.
        if let Err(err) = unmounter.unmount(true) {
            tracing::warn!("{err}");
        }
        failed(err)
    })?;
    raise_read_ahead(&place);
    Ok(Session {
        unmounter,
        forgetter,
        ended,
    })
}

/// Agrees with the kernel on the protocol, and starts the threads that take requests; the first of
/// them waits for the others, so that none of the runtime's does.
fn start(
    fuse: Fuse,
    device: OwnedFd,
    options: &MountOptions,
    mountpoint: PathBuf,
) -> io::Result<(Forgetter, oneshot::Receiver<Result<(), MountError>>)> {
    let mut config = Config::default();
    config.n_threads = Some(options.threads.max(1));
    config.clone_fd = true;
    let acl = if options.allow_other {
        SessionACL::All
    } else {
        SessionACL::Owner
    };
    let session = fuser::Session::from_fd(fuse, device, acl, config)?;
    let forgetter = Forgetter(session.notifier());
    let (sender, ended) = oneshot::channel();
    let span = tracing::Span::current();
    let thread = std::thread::Builder::new().name("imgfs-mount".to_owned());
    thread.spawn(move || {
        let result = span.in_scope(|| session.run());
        // A mount that nobody waits for ends all the same.
        let _gone = sender.send(result.map_err(|source| MountError::Serve { mountpoint, source }));
    })?;
    Ok((forgetter, ended))
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

    /// Unmounts. A mount in use is refused (`EBUSY`), or, if `lazy`, taken out of sight and ended
    /// with its last user.
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
