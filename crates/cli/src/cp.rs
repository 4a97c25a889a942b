//! `imgfs cp`: files and trees out of an image.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, bail};
use clap::Args;
use rustix::fs::{AtFlags, CWD, FileType, Mode, Timespec, Timestamps};
use tempfile::NamedTempFile;

use super::export::{files_of, refuse_terminal, split_last, write_to_stdout};
use super::globals::{Globals, ImageOptions, runtime};
use super::look::peek;
use super::{output, progress};
use imgfs_core::prefetch::FilesInOrder;
use imgfs_core::view::ImageFs;
use imgfs_formats::tree::{Content, Ino, Node, PartialTree, Tree};

/// Copy a file or a directory out of an image.
#[derive(Args)]
#[command(
    override_usage = "imgfs cp [OPTIONS] IMAGE PATH DEST\n       imgfs cp [OPTIONS] IMAGE:/PATH DEST",
    after_help = "\
Modes, times and links are kept; owners, devices and extended attributes too for root. A PATH \
that ends in /. means what is in the directory. Files that are there already are replaced, each \
when the new one is whole. With - as DEST a tar archive of it all goes to stdout. In IMAGE:/PATH \
the last :/ separates.

Examples:
  imgfs cp golang /usr/local/go/VERSION .
  imgfs cp alpine:3.20:/etc ./alpine-etc
  imgfs cp alpine /etc - | tar -t"
)]
pub(super) struct CpArgs {
    /// The image
    image: OsString,
    /// A file or directory in it
    path: Option<OsString>,
    /// Where to: a directory that exists, a new name, or - for a tar archive on stdout
    dest: Option<PathBuf>,
    /// Copy what a symbolic link leads to, not the link
    #[arg(long, short = 'L')]
    follow_link: bool,
    #[command(flatten)]
    options: ImageOptions,
}

pub(super) fn cp(globals: &Globals, args: &CpArgs) -> anyhow::Result<ExitCode> {
    let image = args.image.as_bytes();
    let (image, path, dest) = match (&args.path, &args.dest) {
        (Some(path), Some(dest)) => (name_of_image(image)?, path.as_bytes(), dest.clone()),
        (Some(dest), None) => {
            let (image, path) = split_path(image)?;
            (image, path, PathBuf::from(dest))
        }
        (None, _) => {
            split_path(image)?;
            let image = output::printable_name(image);
            output::message(&format!(
                "imgfs: it is not said where {image} is to be copied to: a directory that exists, a new name, or -"
            ));
            return Ok(ExitCode::from(2));
        }
    };
    let to_stdout = dest.as_os_str() == "-";
    if to_stdout {
        refuse_terminal("redirect the output, or name a directory")?;
    }
    runtime()?.block_on(async {
        let mut peek = peek(globals, &args.options, image).await?;
        let enough = |tree: &PartialTree, ino: Ino| tree.knows_subtree(ino);
        let mut shown = Vec::new();
        let announce = |download| shown.push(progress::show(&[download], globals.quiet));
        let ino = peek.find(path, args.follow_link, enough, announce).await?;
        drop(shown);
        let (fs, _) = peek.into_fs().context("internal: no layers")?;
        let name = name_of(fs.tree(), path, ino);
        if to_stdout {
            let name = name.unwrap_or_else(|| b".".to_vec());
            write_to_stdout(&fs, ino, &name, globals.quiet).await?;
            return Ok(ExitCode::SUCCESS);
        }
        let mut dest = dest;
        if let Some(name) = name.filter(|_| dest.is_dir()) {
            dest.push(OsStr::from_bytes(&name));
        }
        check_place(fs.tree(), ino, &dest)?;
        let mut copy = Copy::new(fs, ino)?;
        let _shown = progress::show_bytes("written", copy.bytes(), &copy.written, globals.quiet);
        copy.node(ino, &dest).await?;
        if copy.skipped > 0 {
            output::message(&format!(
                "{} device nodes were not copied: that needs root",
                copy.skipped
            ));
        }
        Ok(ExitCode::SUCCESS)
    })
}

/// Image and path of `IMAGE:/PATH`: paths begin with a slash, so the last `:/` separates.
pub(super) fn split_path(text: &[u8]) -> anyhow::Result<(&str, &[u8])> {
    let split = text.windows(2).rposition(|pair| pair == b":/");
    let (image, path) = text.split_at(split.unwrap_or(text.len()));
    // What stands before a path of this machine is no image.
    if path.is_empty() || matches!(image, b"" | b"oci" | b"docker-archive") {
        let text = output::printable_name(text);
        bail!("{text} names no path in an image: write IMAGE PATH DEST, or IMAGE:/PATH DEST");
    }
    Ok((
        name_of_image(image)?,
        path.strip_prefix(b":").unwrap_or(path),
    ))
}

fn name_of_image(text: &[u8]) -> anyhow::Result<&str> {
    std::str::from_utf8(text)
        .ok()
        .with_context(|| format!("{} is no name of an image", output::printable_name(text)))
}

/// Whether `dest` can be replaced by a node, or made. What is inside of a copied directory replaces whatever is there, but a
/// device or a pipe that a file is to be copied to was hardly meant to go.
fn check_place(tree: &Tree, ino: Ino, dest: &Path) -> anyhow::Result<()> {
    let Some(node) = tree.node(ino).filter(|node| !node.is_directory()) else {
        return Ok(());
    };
    let shown = dest.display();
    match dest.metadata() {
        Ok(there) if node.is_file() && !there.is_dir() && !there.is_file() => {
            bail!("{shown} is no regular file, so it is not replaced: imgfs cat can write to it")
        }
        Err(_) if dest.as_os_str().as_bytes().ends_with(b"/") => {
            bail!("there is no directory {shown}: make it first, or name a file")
        }
        _ => Ok(()),
    }
}

/// What a copy is called in a directory that exists: as it was asked for. `None` for what is to be merged with the
/// directory: the root, and what is in a directory.
fn name_of(tree: &Tree, path: &[u8], ino: Ino) -> Option<Vec<u8>> {
    let is_content = path == b"." || path.ends_with(b"/.") || path.ends_with(b"/./");
    let is_directory = tree.node(ino).is_some_and(Node::is_directory);
    if ino == Ino::ROOT || is_content && is_directory {
        return None;
    }
    let (_, name) = split_last(path);
    if !matches!(name, b"" | b"." | b"..") {
        return Some(name.to_vec());
    }
    let path = tree.path(ino).unwrap_or_default();
    Some(split_last(&path).1.to_vec())
}

/// A copy of a part of an image.
pub(super) struct Copy {
    fs: Arc<ImageFs>,
    files: FilesInOrder,
    /// Bytes so far.
    pub(super) written: Arc<AtomicU64>,
    buffer: Vec<u8>,
    /// Where files with several names went first.
    links: HashMap<Ino, PathBuf>,
    as_root: bool,
    /// Device nodes, which need root.
    pub(super) skipped: usize,
}

impl Copy {
    /// Begins a copy of a node and what is below it.
    pub(super) fn new(fs: Arc<ImageFs>, ino: Ino) -> anyhow::Result<Self> {
        Ok(Self {
            files: FilesInOrder::new(Arc::clone(&fs), &files_of(fs.tree(), ino))?,
            fs,
            written: Arc::new(AtomicU64::new(0)),
            buffer: Vec::new(),
            links: HashMap::new(),
            as_root: rustix::process::geteuid().is_root(),
            skipped: 0,
        })
    }

    /// Bytes of all of it.
    pub(super) fn bytes(&self) -> u64 {
        self.files.bytes()
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
            // As the files are read: by name.
            for child in tree.children(node).iter().rev() {
                pending.push((child.ino(), dest.join(OsStr::from_bytes(tree.name(child)))));
            }
            directories.push((ino, dest));
        }
        for (ino, dest) in directories.iter().rev() {
            let node = tree.node(*ino).context("internal: no node")?;
            self.attributes(node, dest, dest)
                .with_context(|| format!("cannot set attributes of {}", dest.display()))?;
        }
        Ok(())
    }

    async fn leaf(&mut self, ino: Ino, node: &Node, dest: &Path) -> anyhow::Result<()> {
        if is_real_dir(dest) {
            bail!("it is a directory here, but none in the image");
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
            Content::Directory => bail!("internal: a directory is no leaf"),
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
                let is_block = node.kind() == imgfs_formats::tree::Kind::BlockDevice;
                let kind = if is_block {
                    FileType::BlockDevice
                } else {
                    FileType::CharacterDevice
                };
                let device = rustix::fs::makedev(major, minor);
                self.finish(node, special(dest, kind, device)?, dest)
            }
            Content::Fifo => self.finish(node, special(dest, FileType::Fifo, 0)?, dest),
            Content::Missing => bail!("it is a hard link whose target is in no layer"),
        }
    }

    /// What was made beside `dest` gets its attributes, and then its place.
    fn finish<T>(&self, node: &Node, new: NamedTempFile<T>, dest: &Path) -> anyhow::Result<()> {
        self.attributes(node, new.path(), dest)?;
        put(new, dest)
    }

    /// Gives the attributes of a node to what is at `at`, and will be at `dest`.
    fn attributes(&self, node: &Node, at: &Path, dest: &Path) -> anyhow::Result<()> {
        let is_link = node.kind() == imgfs_formats::tree::Kind::Symlink;
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

/// Makes something beside `dest`, which is as it was until [`put`]: what was begun and failed leaves nothing.
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
fn put<T>(new: NamedTempFile<T>, dest: &Path) -> anyhow::Result<()> {
    // Its own text tells of the temporary name, which nobody knows.
    new.persist(dest).map_err(|err| err.error)?;
    Ok(())
}

fn is_real_dir(path: &Path) -> bool {
    path.symlink_metadata()
        .is_ok_and(|metadata| metadata.is_dir())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_colon_before_a_slash_separates() {
        let check = |text: &str, expected: Option<(&str, &str)>| {
            let expected = expected.map(|(image, path)| (image, path.as_bytes()));
            assert_eq!(split_path(text.as_bytes()).ok(), expected, "{text}");
        };
        check("alpine:/etc", Some(("alpine", "/etc")));
        check(
            "host:5000/a/b:t:/etc/x:y",
            Some(("host:5000/a/b:t", "/etc/x:y")),
        );
        check("oci:/dir/layout:/etc", Some(("oci:/dir/layout", "/etc")));
        check("oci:layout:t:/", Some(("oci:layout:t", "/")));
        check("oci:/dir/layout", None);
        check("docker-archive:/file.tar", None);
        check("alpine", None);
        check("alpine:3.20", None);
        check(":/etc", None);
        let odd = split_path(b"alpine:/\xe9:/\xff").ok();
        assert_eq!(odd, None, "no image has such a name");
        let odd = split_path(b"alpine:/odd/\xe9").ok();
        assert_eq!(odd, Some(("alpine", &b"/odd/\xe9"[..])));
    }
}
