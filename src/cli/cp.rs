//! `imgfs cp`: files and trees out of an image.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{Seek, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail};
use clap::Args;
use rustix::fs::{AtFlags, CWD, FileType, Mode, Timespec, Timestamps};

use super::globals::{Globals, ImageOptions, runtime};
use super::look::{find, peek, read_file};
use super::output;
use crate::fs::ImageFs;
use crate::tree::{Content, Ino, Node, PartialTree};

/// Copy a file or a directory out of an image.
#[derive(Args)]
#[command(after_help = "\
Modes, times and links are kept; owners, devices and extended attributes too for root.

Examples:
  imgfs cp golang /usr/local/go/VERSION .
  imgfs cp alpine /etc ./alpine-etc")]
pub(super) struct CpArgs {
    /// The image
    image: String,
    /// A file or directory in it
    path: String,
    /// Where to: a directory that exists, or a new name
    dest: PathBuf,
    #[command(flatten)]
    options: ImageOptions,
}

pub(super) fn cp(globals: &Globals, args: &CpArgs) -> anyhow::Result<()> {
    runtime()?.block_on(async {
        let mut peek = peek(globals, &args.options, &args.image).await?;
        let enough = |tree: &PartialTree, ino: Ino| tree.knows_subtree(ino);
        let ino = find(&mut peek, &args.path, false, globals.quiet, enough).await?;
        let (fs, _) = peek.into_fs().context("internal: no layers")?;
        let mut dest = args.dest.clone();
        if dest.is_dir() {
            let path = fs.tree().path(ino).unwrap_or_default();
            let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
            dest.push(OsStr::from_bytes(name));
        }
        let mut copy = Copy::new(fs);
        copy.node(ino, &dest).await?;
        if copy.skipped > 0 {
            output::message(&format!(
                "{} device nodes were not copied: that needs root",
                copy.skipped
            ));
        }
        Ok(())
    })
}

/// A copy of parts of one image.
pub(super) struct Copy {
    fs: Arc<ImageFs>,
    /// Where files with several names went first.
    links: HashMap<Ino, PathBuf>,
    as_root: bool,
    /// Device nodes, which need root.
    pub(super) skipped: usize,
}

impl Copy {
    pub(super) fn new(fs: Arc<ImageFs>) -> Self {
        Self {
            fs,
            links: HashMap::new(),
            as_root: rustix::process::geteuid().is_root(),
            skipped: 0,
        }
    }

    /// Copies a node and what is below it. Directories get their attributes last, as filling them changes their
    /// time and may need permission.
    pub(super) async fn node(&mut self, ino: Ino, dest: &Path) -> anyhow::Result<()> {
        let fs = Arc::clone(&self.fs);
        let tree = fs.tree();
        let mut pending = vec![(ino, dest.to_owned())];
        let mut directories = Vec::new();
        while let Some((ino, dest)) = pending.pop() {
            let node = tree.node(ino).context("internal: no node")?;
            if !node.is_directory() {
                self.leaf(ino, node, &dest)
                    .await
                    .with_context(|| format!("cannot write {}", dest.display()))?;
                continue;
            }
            match std::fs::create_dir(&dest) {
                Err(err)
                    if err.kind() == std::io::ErrorKind::AlreadyExists && is_real_dir(&dest) => {}
                done => done.with_context(|| format!("cannot create {}", dest.display()))?,
            }
            for child in tree.children(node) {
                pending.push((child.ino(), dest.join(OsStr::from_bytes(tree.name(child)))));
            }
            directories.push((ino, dest));
        }
        for (ino, dest) in directories.iter().rev() {
            let node = tree.node(*ino).context("internal: no node")?;
            self.attributes(node, dest)
                .with_context(|| format!("cannot set attributes of {}", dest.display()))?;
        }
        Ok(())
    }

    async fn leaf(&mut self, ino: Ino, node: &Node, dest: &Path) -> anyhow::Result<()> {
        if node.nlink() > 1 {
            if let Some(first) = self.links.get(&ino) {
                return Ok(std::fs::hard_link(first, dest)?);
            }
            self.links.insert(ino, dest.to_owned());
        }
        let fs = Arc::clone(&self.fs);
        match fs.tree().content(node) {
            Content::Directory => bail!("internal: a directory is no leaf"),
            Content::File { .. } => {
                let mut file = File::create_new(dest)?;
                read_file(&fs, ino, 0..u64::MAX, |bytes| Ok(file.write_all(bytes)?)).await?;
            }
            Content::SparseFile { size, .. } => {
                let mut file = File::create_new(dest)?;
                file.set_len(size)?;
                // Holes stay holes: reading them could take for ever.
                let mut position = 0;
                while let Ok(start) = fs.seek(ino, position, libc::SEEK_DATA) {
                    position = fs.seek(ino, start, libc::SEEK_HOLE)?;
                    let (start, end) = (u64::try_from(start)?, u64::try_from(position)?);
                    file.seek(std::io::SeekFrom::Start(start))?;
                    read_file(&fs, ino, start..end, |bytes| Ok(file.write_all(bytes)?)).await?;
                }
            }
            Content::Symlink(target) => {
                std::os::unix::fs::symlink(OsStr::from_bytes(target), dest)?;
            }
            Content::Device { major, minor } => {
                if !self.as_root {
                    self.skipped += 1;
                    return Ok(());
                }
                let is_block = node.kind() == crate::tree::Kind::BlockDevice;
                let kind = if is_block {
                    FileType::BlockDevice
                } else {
                    FileType::CharacterDevice
                };
                let device = rustix::fs::makedev(major, minor);
                rustix::fs::mknodat(CWD, dest, kind, Mode::from_raw_mode(0o600), device)?;
            }
            Content::Fifo => {
                rustix::fs::mknodat(CWD, dest, FileType::Fifo, Mode::from_raw_mode(0o600), 0)?;
            }
            Content::Missing => bail!("it is a hard link whose target is in no layer"),
        }
        self.attributes(node, dest)
    }

    fn attributes(&self, node: &Node, dest: &Path) -> anyhow::Result<()> {
        let is_link = node.kind() == crate::tree::Kind::Symlink;
        if self.as_root {
            std::os::unix::fs::lchown(dest, Some(node.uid()), Some(node.gid()))?;
        }
        if !is_link {
            // Without root, setuid bits would be of whoever copies.
            let mask = if self.as_root { 0o7777 } else { 0o777 };
            let mode = Mode::from_raw_mode(u32::from(node.permissions()) & mask);
            rustix::fs::chmod(dest, mode)?;
        }
        if self.as_root {
            for (name, value) in self.fs.tree().xattrs(node) {
                let set = rustix::fs::lsetxattr(
                    dest,
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
            dest,
            &times,
            AtFlags::SYMLINK_NOFOLLOW,
        )?)
    }
}

fn is_real_dir(path: &Path) -> bool {
    path.symlink_metadata()
        .is_ok_and(|metadata| metadata.is_dir())
}
