//! Translation between FUSE and [`ImageFs`]: arguments in, one call, the reply out.
//!
//! Nothing ever changes, so the kernel may keep all it hears: entries, attributes, links and data,
//! and names that do not exist. Opens are answered `ENOSYS` once, after which the kernel opens
//! files and directories by itself. There is nothing to forget, and no state for a handle.
//!
//! A read is answered on the thread that received it if the store has the bytes; else the reply
//! moves into a task on the runtime, so that no FUSE thread waits for the network.

use std::cell::RefCell;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{
    AccessFlags, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation,
    INodeNo, InitFlags, IoctlFlags, KernelConfig, LockOwner, OpenFlags, ReplyAttr, ReplyData,
    ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyIoctl, ReplyLseek, ReplyOpen,
    ReplyStatfs, ReplyXattr, Request,
};
use tokio::runtime::Handle;
use tracing::Instrument;
use tracing::span::EnteredSpan;

use crate::buffers::with_buffer;

use crate::view::{Attributes, BLOCK_SIZE, FsError, ImageFs};
use imgfs_formats::layer::Mtime;
use imgfs_formats::tree::{Ino, Kind};

/// How long the kernel may keep what it heard. The kernel cuts what it cannot count; ten years it
/// can.
const TTL: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);
/// Inode numbers are never used again.
const GENERATION: Generation = Generation(0);
/// Longest name, for `statfs`.
const NAME_MAX: u32 = 255;
/// Largest read: the kernel takes the number of pages from the largest write or read-ahead, and
/// allows 1 MiB (`fs.fuse.max_pages_limit`).
const MAX_REQUEST: u32 = 1 << 20;
/// Reads that the kernel may start ahead of any program; 16 by default, which a slow network fills
/// at once.
const MAX_BACKGROUND: u16 = 64;

/// What to ask the kernel for; each is left out where it is not offered. Not `READDIRPLUS_AUTO`: it
/// gives attributes with a directory's first piece only, and a program that then looks at every
/// entry (find, ls -l, tar) pays a request for each (1,000,000 files: 30 s instead of 10).
const WANTED: [InitFlags; 7] = [
    InitFlags::FUSE_PARALLEL_DIROPS,
    InitFlags::FUSE_DO_READDIRPLUS,
    InitFlags::FUSE_CACHE_SYMLINKS,
    InitFlags::FUSE_EXPLICIT_INVAL_DATA,
    InitFlags::FUSE_NO_OPEN_SUPPORT,
    InitFlags::FUSE_NO_OPENDIR_SUPPORT,
    InitFlags::FUSE_EXPORT_SUPPORT,
];

thread_local! {
    /// The span of the mount that this thread serves.
    static ENTERED: RefCell<Option<EnteredSpan>> = const { RefCell::new(None) };
}

/// An [`ImageFs`] behind FUSE.
pub(crate) struct Fuse {
    image: Arc<ImageFs>,
    runtime: Handle,
    /// The mount that its messages are about.
    span: tracing::Span,
    no_open: bool,
    no_opendir: bool,
}

impl Fuse {
    /// `runtime` runs the reads that have to wait. Messages belong to the current tracing span.
    pub(crate) fn new(image: Arc<ImageFs>, runtime: Handle) -> Self {
        Self {
            image,
            runtime,
            span: tracing::Span::current(),
            no_open: false,
            no_opendir: false,
        }
    }

    /// What this thread logs from now on is about this mount, whose only it is.
    fn enter_span(&self) {
        ENTERED.with_borrow_mut(|entered| {
            if entered.is_none() {
                *entered = Some(self.span.clone().entered());
            }
        });
    }
}

impl Filesystem for Fuse {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        let mut add = |flag| config.add_capabilities(flag).is_ok();
        for flag in WANTED {
            let offered = add(flag);
            tracing::trace!(?flag, offered, "capability");
            self.no_open |= offered && flag == InitFlags::FUSE_NO_OPEN_SUPPORT;
            self.no_opendir |= offered && flag == InitFlags::FUSE_NO_OPENDIR_SUPPORT;
        }
        // The setters say what they would take instead.
        if let Err(nearest) = config.set_max_write(MAX_REQUEST) {
            tracing::debug!(nearest, "the largest request is smaller");
        }
        if let Err(nearest) = config.set_max_readahead(MAX_REQUEST)
            && config.set_max_readahead(nearest).is_err()
        {
            tracing::debug!(nearest, "read-ahead stays as it is");
        }
        if config.set_max_background(MAX_BACKGROUND).is_err() {
            tracing::debug!("background requests stay as they are");
        }
        Ok(())
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match self.image.lookup(number(parent), name.as_bytes()) {
            Ok(Some(attributes)) => reply.entry(&TTL, &attr(&attributes), GENERATION),
            Ok(None) => reply.entry(&TTL, &NO_ENTRY, GENERATION),
            Err(err) => reply.error(errno(&self.image, &err)),
        }
    }

    fn forget(&self, _: &Request, _: INodeNo, _: u64) {}

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.image.attributes(number(ino)) {
            Ok(attributes) => reply.attr(&TTL, &attr(&attributes)),
            Err(err) => reply.error(errno(&self.image, &err)),
        }
    }

    fn readlink(&self, _: &Request, ino: INodeNo, reply: ReplyData) {
        match self.image.readlink(number(ino)) {
            Ok(target) => reply.data(target),
            Err(err) => reply.error(errno(&self.image, &err)),
        }
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        if self.no_open {
            reply.error(Errno::ENOSYS);
        } else {
            reply.opened(FileHandle(0), FopenFlags::FOPEN_KEEP_CACHE);
        }
    }

    fn read(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        self.enter_span();
        let (ino, size) = (number(ino), size as usize);
        let missed = with_buffer(|buf| match self.image.try_read(ino, offset, size, buf) {
            Ok(true) => {
                reply.data(buf);
                None
            }
            Ok(false) => Some(reply),
            Err(err) => {
                reply.error(errno(&self.image, &err));
                None
            }
        });
        let Some(reply) = missed else { return };
        let image = Arc::clone(&self.image);
        let reading = async move {
            let mut buf = Vec::new();
            match image.read(ino, offset, size, &mut buf).await {
                Ok(()) => reply.data(&buf),
                Err(err) => reply.error(errno(&image, &err)),
            }
        };
        self.runtime.spawn(reading.instrument(self.span.clone()));
    }

    fn lseek(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        match self.image.seek(number(ino), offset, whence) {
            Ok(position) => reply.offset(position),
            Err(err) => reply.error(errno(&self.image, &err)),
        }
    }

    fn opendir(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        if self.no_opendir {
            reply.error(Errno::ENOSYS);
        } else {
            let keep = FopenFlags::FOPEN_KEEP_CACHE | FopenFlags::FOPEN_CACHE_DIR;
            reply.opened(FileHandle(0), keep);
        }
    }

    fn readdir(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let entries = match self.image.entries(number(ino), offset) {
            Ok(entries) => entries,
            Err(err) => return reply.error(errno(&self.image, &err)),
        };
        for entry in entries {
            let (ino, name) = (INodeNo(entry.ino.get()), OsStr::from_bytes(entry.name));
            if reply.add(ino, entry.next, file_type(entry.kind), name) {
                break;
            }
        }
        reply.ok();
    }

    fn readdirplus(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        let entries = match self.image.entries(number(ino), offset) {
            Ok(entries) => entries,
            Err(err) => return reply.error(errno(&self.image, &err)),
        };
        for entry in entries {
            let attributes = match self.image.attributes(entry.ino) {
                Ok(attributes) => attr(&attributes),
                Err(err) => return reply.error(errno(&self.image, &err)),
            };
            let (ino, name) = (attributes.ino, OsStr::from_bytes(entry.name));
            if reply.add(ino, entry.next, name, &TTL, &attributes, GENERATION) {
                break;
            }
        }
        reply.ok();
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        let size = self.image.size();
        let block_size = size.block_size;
        reply.statfs(
            size.blocks,
            0,
            0,
            size.nodes,
            0,
            block_size,
            NAME_MAX,
            block_size,
        );
    }

    fn getxattr(&self, _: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        match self.image.getxattr(number(ino), name.as_bytes()) {
            Ok(value) => reply_sized(value, size, reply),
            Err(err) => reply.error(errno(&self.image, &err)),
        }
    }

    fn listxattr(&self, _: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        match self.image.listxattr(number(ino)) {
            Ok(names) => reply_sized(&names, size, reply),
            Err(err) => reply.error(errno(&self.image, &err)),
        }
    }

    fn access(&self, _: &Request, ino: INodeNo, mask: AccessFlags, reply: ReplyEmpty) {
        match self
            .image
            .access(number(ino), mask.contains(AccessFlags::X_OK))
        {
            Ok(()) => reply.ok(),
            Err(err) => reply.error(errno(&self.image, &err)),
        }
    }

    // What fuser refuses by itself it logs as a warning, and these are ordinary requests: the
    // kernel asks once for flush and fsync, and every isatty() is an ioctl.

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.error(Errno::ENOSYS);
    }

    fn fsync(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        reply.error(Errno::ENOSYS);
    }

    fn fsyncdir(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        reply.error(Errno::ENOSYS);
    }

    fn ioctl(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        _: IoctlFlags,
        _: u32,
        _: &[u8],
        _: u32,
        reply: ReplyIoctl,
    ) {
        reply.error(Errno::ENOTTY);
    }
}

/// The reply to the lookup of a name that is not there: inode 0 is "no such entry, and you may keep
/// that".
const NO_ENTRY: FileAttr = FileAttr {
    ino: INodeNo(0),
    size: 0,
    blocks: 0,
    atime: UNIX_EPOCH,
    mtime: UNIX_EPOCH,
    ctime: UNIX_EPOCH,
    crtime: UNIX_EPOCH,
    kind: FileType::RegularFile,
    perm: 0,
    nlink: 0,
    uid: 0,
    gid: 0,
    rdev: 0,
    blksize: 0,
    flags: 0,
};

fn number(ino: INodeNo) -> Ino {
    Ino::new(ino.0)
}

/// The errno of a failed operation. What somebody has to know is logged, once for each layer and
/// cause: a program that reads on would repeat it thousands of times.
fn errno(image: &ImageFs, err: &FsError) -> Errno {
    if err.is_failure() && image.is_new_failure(err) {
        let cause = std::error::Error::source(err).map(ToString::to_string);
        tracing::warn!(cause, "{err}");
    }
    Errno::from_i32(err.errno())
}

fn attr(attributes: &Attributes) -> FileAttr {
    let time = system_time(attributes.mtime);
    FileAttr {
        ino: INodeNo(attributes.ino.get()),
        size: attributes.size,
        blocks: attributes.blocks,
        atime: time,
        mtime: time,
        ctime: time,
        crtime: time,
        kind: file_type(attributes.kind),
        perm: attributes.permissions,
        nlink: attributes.nlink,
        uid: attributes.uid,
        gid: attributes.gid,
        rdev: device_number(attributes.device),
        blksize: BLOCK_SIZE,
        flags: 0,
    }
}

fn file_type(kind: Kind) -> FileType {
    match kind {
        Kind::File | Kind::SparseFile | Kind::BrokenLink | Kind::UnresolvedLink => {
            FileType::RegularFile
        }
        Kind::Directory | Kind::Phantom => FileType::Directory,
        Kind::Symlink => FileType::Symlink,
        Kind::CharDevice => FileType::CharDevice,
        Kind::BlockDevice => FileType::BlockDevice,
        Kind::Fifo => FileType::NamedPipe,
    }
}

/// The kernel's 32-bit form: 12 bits of class, 20 of number, the low 8 of these below the class.
fn device_number((major, minor): (u32, u32)) -> u32 {
    (minor & 0xff) | (major << 8) | ((minor & !0xff) << 12)
}

/// A time that [`SystemTime`] cannot hold is shown as 1970.
fn system_time(mtime: Mtime) -> SystemTime {
    let seconds = Duration::from_secs(mtime.seconds.unsigned_abs());
    let whole = if mtime.seconds < 0 {
        UNIX_EPOCH.checked_sub(seconds)
    } else {
        UNIX_EPOCH.checked_add(seconds)
    };
    let nanoseconds = Duration::from_nanos(u64::from(mtime.nanoseconds));
    let time = whole.and_then(|whole| whole.checked_add(nanoseconds));
    time.unwrap_or(UNIX_EPOCH)
}

/// An xattr call with size 0 asks how much there is.
fn reply_sized(value: &[u8], size: u32, reply: ReplyXattr) {
    match u32::try_from(value.len()) {
        Ok(length) if size == 0 => reply.size(length),
        Ok(length) if length <= size => reply.data(value),
        _ => reply.error(Errno::ERANGE),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_before_1970_and_beyond_all_clocks_are_shown() {
        let time = |seconds, nanoseconds| {
            system_time(Mtime {
                seconds,
                nanoseconds,
            })
        };
        assert_eq!(time(2, 5), UNIX_EPOCH + Duration::new(2, 5));
        let before = UNIX_EPOCH - Duration::from_millis(9500);
        assert_eq!(time(-10, 500_000_000), before);
        let first = UNIX_EPOCH.checked_sub(Duration::from_secs(1 << 63));
        assert_eq!(Some(time(i64::MIN, 0)), first);
        assert!(time(i64::MAX, 999_999_999) > UNIX_EPOCH);
    }

    #[test]
    fn device_numbers_are_the_kernels() {
        for (device, expected) in [
            ((1, 3), 0x103),
            ((8, 255), 0x8ff),
            ((8, 256), 0x0010_0800),
            ((259, 70000), 0x1111_0370),
        ] {
            assert_eq!(device_number(device), expected, "{device:?}");
        }
    }
}
