//! `imgfs export`, and the tar of a tree on stdout that `imgfs cp` writes too.

use std::fs::File;
use std::io::{BufWriter, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use anyhow::{Context, bail};
use clap::Args;

use super::globals::{Globals, ImageOptions, runtime};
use super::{output, progress, time};
use imgfs_core::image::Trees;
use imgfs_core::image::{Image, Opened, Prepared};
use imgfs_core::view::ImageFs;
use imgfs_core::work::Export;
use imgfs_formats::tree::Ino;

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

/// Writes the tar of a tree, showing how far it is; gives the number of files that were left out.
async fn write_tree(
    fs: &Arc<ImageFs>,
    ino: Ino,
    name: &[u8],
    out: &mut impl Write,
    quiet: bool,
) -> anyhow::Result<usize> {
    let export = Export::new(Arc::clone(fs), ino, name)?;
    let written = Arc::new(AtomicU64::new(0));
    let _shown = progress::show_bytes("written", export.bytes(), &written, quiet);
    let mut left_out = 0;
    let say_left_out = |path: &[u8]| {
        output::message(&format!(
            "left out {}: it is a hard link whose target is in no layer",
            output::printable(path)
        ));
        left_out += 1;
    };
    export.write(out, &written, say_left_out).await?;
    Ok(left_out)
}
