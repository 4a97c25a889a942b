//! Files and trees out of an image, into directories of this machine: modes, times and links, for
//! root also owners, devices and extended attributes. A file that is there already is replaced when
//! the new one is whole.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{AtFlags, CWD, FileType, Mode, Timespec, Timestamps};
use tempfile::NamedTempFile;

use super::export::files_of;
use crate::error::{Expected, Result, Within, fail};
use crate::prefetch::FilesInOrder;
use crate::view::ImageFs;
use imgfs_formats::tree::{Content, Ino, Kind, Node};

/// A part of an image on its way into a directory of this machine.
pub struct Unpacking {
    fs: Arc<ImageFs>,
    files: FilesInOrder,
    /// Bytes so far.
    written: Arc<AtomicU64>,
    buffer: Vec<u8>,
    /// Where files with several names went first.
    links: HashMap<Ino, PathBuf>,
    as_root: bool,
    /// Device nodes, which need root.
    skipped: usize,
}

impl Unpacking {
    /// Begins a copy of a node and what is below it.
    pub fn new(fs: Arc<ImageFs>, ino: Ino) -> Result<Self> {
        Ok(Self {
            files: fs.in_order(&files_of(fs.tree(), ino))?,
            fs,
            written: Arc::new(AtomicU64::new(0)),
            buffer: Vec::new(),
            links: HashMap::new(),
            as_root: rustix::process::geteuid().is_root(),
            skipped: 0,
        })
    }

    /// Bytes of all of it.
    pub fn bytes(&self) -> u64 {
        self.files.bytes()
    }

    /// Bytes of contents that are written so far.
    pub fn written(&self) -> &Arc<AtomicU64> {
        &self.written
    }

    /// Device nodes that were left out, as making them needs root.
    pub fn skipped(&self) -> usize {
        self.skipped
    }

    /// Copies a node and what is below it. Must run on the runtime. Directories get their
    /// attributes last, as filling them changes their time and may need permission.
    pub async fn node(&mut self, ino: Ino, dest: &Path) -> Result<()> {
        let fs = Arc::clone(&self.fs);
        let tree = fs.tree();
        let mut pending = vec![(ino, dest.to_owned())];
        let mut directories = Vec::new();
        while let Some((ino, dest)) = pending.pop() {
            let node = tree.node(ino).expected("no node")?;
            if !node.is_directory() {
                self.leaf(ino, node, &dest)
                    .await
                    .within(|| format!("cannot write {}", dest.display()))?;
                continue;
            }
            match std::fs::create_dir(&dest) {
                Err(err)
                    if err.kind() == std::io::ErrorKind::AlreadyExists && is_real_dir(&dest) => {}
                done => done.within(|| format!("cannot create {}", dest.display()))?,
            }
            // As the files are read: by name.
            for child in tree.children(node).iter().rev() {
                pending.push((child.ino(), dest.join(OsStr::from_bytes(tree.name(child)))));
            }
            directories.push((ino, dest));
        }
        for (ino, dest) in directories.iter().rev() {
            let node = tree.node(*ino).expected("no node")?;
            self.attributes(node, dest, dest)
                .within(|| format!("cannot set attributes of {}", dest.display()))?;
        }
        Ok(())
    }

    async fn leaf(&mut self, ino: Ino, node: &Node, dest: &Path) -> Result<()> {
        if is_real_dir(dest) {
            fail!(Busy, "it is a directory here, but none in the image");
        }
        if node.nlink() > 1 {
            if let Some(first) = self.links.get(&ino) {
                let link = beside(dest, |path| std::fs::hard_link(first, path))?;
                return put(link, dest);
            }
            self.links.insert(ino, dest.to_owned());
        }
        let fs = Arc::clone(&self.fs);
        match fs.tree().content(node) {
            Content::Directory => fail!(Internal, "internal: a directory is no leaf"),
            Content::File { size, .. } | Content::SparseFile { size, .. } => {
                let new = beside(dest, |path| File::create_new(path))?;
                if matches!(fs.tree().content(node), Content::SparseFile { .. }) {
                    new.as_file().set_len(size)?;
                }
                // Holes stay holes: they could be larger than any disk.
                while let Some(offset) = self.files.read(ino, &mut self.buffer).await? {
                    new.as_file().write_all_at(&self.buffer, offset)?;
                    (self.written).fetch_add(self.buffer.len() as u64, Ordering::Relaxed);
                }
                self.finish(node, new, dest)
            }
            Content::Symlink(target) => {
                let target = OsStr::from_bytes(target);
                let new = beside(dest, |path| std::os::unix::fs::symlink(target, path))?;
                self.finish(node, new, dest)
            }
            Content::Device { major, minor } => {
                if !self.as_root {
                    self.skipped += 1;
                    return Ok(());
                }
                let is_block = node.kind() == Kind::BlockDevice;
                let kind = if is_block {
                    FileType::BlockDevice
                } else {
                    FileType::CharacterDevice
                };
                let device = rustix::fs::makedev(major, minor);
                self.finish(node, special(dest, kind, device)?, dest)
            }
            Content::Fifo => self.finish(node, special(dest, FileType::Fifo, 0)?, dest),
            Content::Missing => fail!(NotFound, "it is a hard link whose target is in no layer"),
        }
    }

    /// What was made beside `dest` gets its attributes, and then its place.
    fn finish<T>(&self, node: &Node, new: NamedTempFile<T>, dest: &Path) -> Result<()> {
        self.attributes(node, new.path(), dest)?;
        put(new, dest)
    }

    /// Gives the attributes of a node to what is at `at`, and will be at `dest`.
    fn attributes(&self, node: &Node, at: &Path, dest: &Path) -> Result<()> {
        let is_link = node.kind() == Kind::Symlink;
        if self.as_root {
            std::os::unix::fs::lchown(at, Some(node.uid()), Some(node.gid()))?;
        }
        if !is_link {
            // Without root, setuid bits would be of whoever copies.
            let mask = if self.as_root { 0o7777 } else { 0o777 };
            let mode = Mode::from_raw_mode(u32::from(node.permissions()) & mask);
            rustix::fs::chmod(at, mode)?;
        }
        if self.as_root {
            for (name, value) in self.fs.tree().xattrs(node) {
                let set = rustix::fs::lsetxattr(
                    at,
                    OsStr::from_bytes(name),
                    value,
                    rustix::fs::XattrFlags::empty(),
                );
                if let Err(err) = set {
                    tracing::warn!(
                        "{}: cannot set {}: {err}",
                        dest.display(),
                        name.escape_ascii()
                    );
                }
            }
        }
        let time = Timespec {
            tv_sec: node.mtime().seconds,
            tv_nsec: node.mtime().nanoseconds.into(),
        };
        let times = Timestamps {
            last_access: time,
            last_modification: time,
        };
        Ok(rustix::fs::utimensat(
            CWD,
            at,
            &times,
            AtFlags::SYMLINK_NOFOLLOW,
        )?)
    }
}

/// Makes something beside `dest`, which is as it was until [`put`]: what was begun and failed
/// leaves nothing.
fn beside<T>(
    dest: &Path,
    make: impl FnMut(&Path) -> std::io::Result<T>,
) -> std::io::Result<NamedTempFile<T>> {
    let dir = match dest.parent() {
        Some(dir) if dir.as_os_str().is_empty() => Path::new("."),
        Some(dir) => dir,
        None => Path::new("/"),
    };
    tempfile::Builder::new()
        .prefix(".imgfs-cp-")
        .make_in(dir, make)
}

/// The same for a device or a FIFO.
fn special(dest: &Path, kind: FileType, device: u64) -> std::io::Result<NamedTempFile<()>> {
    beside(dest, |path| {
        let mode = Mode::from_raw_mode(0o600);
        Ok(rustix::fs::mknodat(CWD, path, kind, mode, device)?)
    })
}

/// Puts it in its place, whatever but a directory is there.
fn put<T>(new: NamedTempFile<T>, dest: &Path) -> Result<()> {
    // Its own text tells of the temporary name, which nobody knows.
    new.persist(dest).map_err(|err| err.error)?;
    Ok(())
}

fn is_real_dir(path: &Path) -> bool {
    path.symlink_metadata()
        .is_ok_and(|metadata| metadata.is_dir())
}
