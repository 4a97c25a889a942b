//! `imgfs export`, and the tar of a tree that `imgfs cp` writes too.
//!
//! A directory comes before what is in it, names in their order as bytes; of a file with several names the first one has
//! the content. So two exports of an image are the same bytes.

mod member;

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufWriter, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, bail};
use clap::Args;

use super::globals::{Globals, ImageOptions, runtime};
use super::{output, progress, time};
use imgfs_core::image::Trees;
use imgfs_core::image::{Image, Opened, Prepared};
use imgfs_core::prefetch::FilesInOrder;
use imgfs_core::view::ImageFs;
use imgfs_formats::tree::{Content, Ino, Kind, Node, Tree};
use member::{BLOCK, What, padding, start};

/// Bytes gathered for each write.
const BUFFER: usize = 1 << 20;

/// Write an image's files as a tar archive.
#[derive(Args)]
#[command(after_help = "\
The archive holds what a mount shows: the merged layers, nothing of the config. It is a PAX \
archive with times to the nanosecond, hard links, devices, extended attributes and holes; GNU \
tar restores the attributes with --xattrs --xattrs-include='*'. Two exports of the same image \
are the same bytes.

Examples:
  imgfs export golang -o golang.tar
  imgfs export alpine:3.20 | tar -x -C rootfs --xattrs --xattrs-include='*'
  imgfs export --platform linux/arm64 debian:12 | zstd > debian.tar.zst")]
pub(super) struct ExportArgs {
    /// The image
    image: String,
    #[command(flatten)]
    options: ImageOptions,
    /// Write to this file instead of stdout
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
}

pub(super) fn export(globals: &Globals, args: &ExportArgs) -> anyhow::Result<()> {
    if args.output.is_none() {
        refuse_terminal("name a file with -o FILE, or redirect the output")?;
    }
    runtime()?.block_on(async {
        let store = globals.store()?;
        if let Err(err) = tokio::task::block_in_place(|| store.enforce_limit()) {
            tracing::warn!("cannot keep the cache within its limit: {err}");
        }
        let request = args.options.request(&args.image)?;
        let image = Image::resolve_to_open(&store, &request).await?;
        time::say_freshness(&image.freshness, globals.quiet);
        let prepared = Prepared::find(&store, image).await;
        let downloads = prepared.downloads();
        let shown = progress::show(&downloads, globals.quiet);
        let opened = Opened::open(&store, prepared, &downloads, &Trees::default()).await?;
        drop(shown);
        let fs = &opened.fs;
        match &args.output {
            None => write_to_stdout(fs, Ino::ROOT, b".", globals.quiet).await,
            Some(path) => write_to_file(fs, path, globals.quiet).await,
        }
    })
}

/// A tar on a terminal helps nobody.
pub(super) fn refuse_terminal(advice: &str) -> anyhow::Result<()> {
    if std::io::stdout().is_terminal() {
        bail!("a tar archive is not written to a terminal: {advice}");
    }
    Ok(())
}

/// The tar of a tree to stdout; the tree's own name there is `name`.
pub(super) async fn write_to_stdout(
    fs: &Arc<ImageFs>,
    ino: Ino,
    name: &[u8],
    quiet: bool,
) -> anyhow::Result<()> {
    let mut out = BufWriter::with_capacity(BUFFER, std::io::stdout().lock());
    let left_out = write_tree(fs, ino, name, &mut out, quiet).await?;
    out.flush().context("cannot write to stdout")?;
    fail_if_any(left_out)
}

/// A regular file appears whole or not at all; what is no regular file is written to as it is.
async fn write_to_file(fs: &Arc<ImageFs>, path: &Path, quiet: bool) -> anyhow::Result<()> {
    let cannot = || format!("cannot write {}", path.display());
    if path.metadata().is_ok_and(|metadata| !metadata.is_file()) {
        let file = std::fs::OpenOptions::new().write(true).open(path);
        let mut out = BufWriter::with_capacity(BUFFER, file.with_context(cannot)?);
        let left_out = write_tree(fs, Ino::ROOT, b".", &mut out, quiet).await?;
        out.flush().with_context(cannot)?;
        return fail_if_any(left_out);
    }
    // A link stays one: what it leads to is replaced.
    let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let dir = match path.parent() {
        Some(dir) if dir.as_os_str().is_empty() => Path::new("."),
        Some(dir) => dir,
        None => Path::new("/"),
    };
    // Made by hand: errors of the usual way name the temporary file.
    let file = tempfile::Builder::new()
        .prefix(".imgfs-export-")
        .make_in(dir, |path| File::create_new(path));
    let mut out = BufWriter::with_capacity(BUFFER, file.with_context(cannot)?);
    let left_out = write_tree(fs, Ino::ROOT, b".", &mut out, quiet).await?;
    let file = out
        .into_inner()
        .map_err(std::io::IntoInnerError::into_error);
    let file = file.with_context(cannot)?;
    file.persist(&path)
        .map_err(|err| err.error)
        .with_context(cannot)?;
    fail_if_any(left_out)
}

fn fail_if_any(left_out: usize) -> anyhow::Result<()> {
    match left_out {
        0 => Ok(()),
        1 => bail!("the archive is complete but for one hard link to nothing"),
        count => bail!("the archive is complete but for {count} hard links to nothing"),
    }
}

/// Writes the tar of a tree; gives the number of files that were left out because nothing can be read of them.
async fn write_tree(
    fs: &Arc<ImageFs>,
    ino: Ino,
    name: &[u8],
    out: &mut impl Write,
    quiet: bool,
) -> anyhow::Result<usize> {
    let tree = fs.tree();
    let files = files_of(tree, ino);
    let mut files = FilesInOrder::new(Arc::clone(fs), &files)?;
    let written = Arc::new(AtomicU64::new(0));
    let _shown = progress::show_bytes("written", files.bytes(), &written, quiet);
    // Where files with several names went first.
    let mut links: HashMap<Ino, Vec<u8>> = HashMap::new();
    let mut buffer = Vec::new();
    let mut left_out = 0;
    for (ino, path) in Walk::new(tree, ino, name) {
        let node = tree.node(ino).context("internal: no node")?;
        let first = links.get(&ino);
        let what = match first {
            Some(first) => Some(What::HardLink(first)),
            None => what_is(tree, node),
        };
        let Some(what) = what else {
            output::message(&format!(
                "left out {}: it is a hard link whose target is in no layer",
                output::printable(&path)
            ));
            left_out += 1;
            continue;
        };
        out.write_all(&start(&path, what, node, tree.xattrs(node)))
            .context("cannot write the archive")?;
        if let What::File(_) | What::Sparse(..) = what {
            let mut length = 0;
            while files.read(ino, &mut buffer).await?.is_some() {
                out.write_all(&buffer).context("cannot write the archive")?;
                length += buffer.len() as u64;
                written.fetch_add(buffer.len() as u64, Ordering::Relaxed);
            }
            out.write_all(padding(length))
                .context("cannot write the archive")?;
        }
        if first.is_none() && node.nlink() > 1 && !node.is_directory() {
            links.insert(ino, path);
        }
    }
    // Two blocks of zeros end an archive.
    out.write_all(&[0; 2 * BLOCK])
        .context("cannot write the archive")?;
    Ok(left_out)
}

/// The regular files of a tree whose content has to be read, in the order of [`Walk`], each once.
pub(super) fn files_of(tree: &Tree, ino: Ino) -> Vec<Ino> {
    let mut seen = std::collections::HashSet::new();
    let files = Walk::new(tree, ino, b"").filter_map(|(ino, _)| {
        let node = tree.node(ino)?;
        let is_content = matches!(node.kind(), Kind::File | Kind::SparseFile);
        (is_content && (node.nlink() < 2 || seen.insert(ino))).then_some(ino)
    });
    files.collect()
}

/// What a node is in an archive; nothing if it cannot be read.
fn what_is<'a>(tree: &'a Tree, node: &Node) -> Option<What<'a>> {
    Some(match tree.content(node) {
        Content::Directory => What::Directory,
        Content::File { size, .. } => What::File(size),
        Content::SparseFile { extents, size, .. } => What::Sparse(size, extents),
        Content::Symlink(target) => What::Symlink(target),
        Content::Device { major, minor } if node.kind() == Kind::BlockDevice => {
            What::BlockDevice(major, minor)
        }
        Content::Device { major, minor } => What::CharDevice(major, minor),
        Content::Fifo => What::Fifo,
        Content::Missing => return None,
    })
}

/// A node and what is below it, a directory before its entries, with names as an archive has them: directories end with
/// a slash, and what is below `.` begins without it.
struct Walk<'a> {
    tree: &'a Tree,
    /// The next one last.
    pending: Vec<(Ino, Vec<u8>)>,
}

impl<'a> Walk<'a> {
    fn new(tree: &'a Tree, ino: Ino, name: &[u8]) -> Self {
        Self {
            tree,
            pending: vec![(ino, name.to_vec())],
        }
    }
}

impl Iterator for Walk<'_> {
    type Item = (Ino, Vec<u8>);

    fn next(&mut self) -> Option<Self::Item> {
        let (ino, mut path) = self.pending.pop()?;
        if let Some(node) = self.tree.node(ino).filter(|node| node.is_directory()) {
            path.push(b'/');
            let prefix = if path == b"./" { &[][..] } else { &path };
            for child in self.tree.children(node).iter().rev() {
                let path = [prefix, self.tree.name(child)].concat();
                self.pending.push((child.ino(), path));
            }
        }
        Some((ino, path))
    }
}

/// The part of a path up to its last slash, and what is behind that; slashes at the end do not count.
pub(super) fn split_last(path: &[u8]) -> (&[u8], &[u8]) {
    let end = path.iter().rposition(|byte| *byte != b'/');
    let path = path
        .get(..end.map_or(0, |last| last + 1))
        .unwrap_or_default();
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => path.split_at(slash + 1),
        None => (&[], path),
    }
}
