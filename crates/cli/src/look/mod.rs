//! Answers without a mount: `imgfs ls`, `tree`, `find`, `cat`, `head`, `grep`, `stat`, `du`.
//!
//! Each resolves the image once, opens layers from the top down and only as far as its answer needs
//! ([`find_all`] is told what that is), and then prints what the tree or the files say.

mod cat;
mod du;
mod entry;
mod find;
mod grep;
mod head;
mod ls;
mod stat;
mod tree;
mod walk;

use std::ffi::OsString;
use std::ops::{ControlFlow, Range};
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use super::globals::{Globals, ImageOptions};
use super::{output, progress, time};
use imgfs_core::error::EngineError;
use imgfs_core::image::{Image, Peek};
use imgfs_core::view::ImageFs;
use imgfs_formats::tree::{Ino, Kind, Node, PartialTree, PathError};

pub(super) use cat::{CatArgs, cat};
pub(super) use du::{DuArgs, du};
pub(super) use entry::{kind_name, mode_text};
pub(super) use find::{FindArgs, find_files, with_tests_last};
pub(super) use grep::{GrepArgs, grep};
pub(super) use head::{HeadArgs, head};
pub(super) use ls::{LsArgs, ls};
pub(super) use stat::{StatArgs, stat};
pub(super) use tree::{TreeArgs, tree};

/// Bytes read at a time.
const PIECE: usize = 1 << 20;

pub(super) async fn peek(
    globals: &Globals,
    options: &ImageOptions,
    image: &str,
) -> anyhow::Result<Peek> {
    let store = globals.store()?;
    // What this command adds cannot be evicted while it runs, so the next one does; a mount does it
    // for itself.
    if let Err(err) = tokio::task::block_in_place(|| store.enforce_limit()) {
        tracing::warn!("cannot keep the cache within its limit: {err}");
    }
    let image = Image::resolve(&store, &options.request(image)?).await?;
    time::say_freshness(&image.freshness, globals.quiet);
    Ok(Peek::new(store, image))
}

/// Finds a node, showing the downloads that takes.
pub(super) async fn find(
    peek: &mut Peek,
    path: impl AsRef<[u8]>,
    follow: bool,
    quiet: bool,
    enough: impl Fn(&PartialTree, Ino) -> bool,
) -> anyhow::Result<Ino> {
    let mut shown = Vec::new();
    let announce = |download| shown.push(progress::show(&[download], quiet));
    Ok(peek.find(path.as_ref(), follow, enough, announce).await?)
}

/// Finds several nodes. Layers that one of them needs are opened for all, so the nodes are those of
/// the tree as it is at the end. A path that leads nowhere has its own error; any other failure is
/// one of all.
async fn find_all(
    peek: &mut Peek,
    paths: &[OsString],
    follow: bool,
    quiet: bool,
    enough: impl Fn(&PartialTree, Ino, &[u8]) -> bool,
) -> anyhow::Result<Vec<anyhow::Result<Ino>>> {
    let mut errors = Vec::new();
    for path in paths {
        let path = path.as_bytes();
        let found = find(peek, path, follow, quiet, |tree, ino| {
            enough(tree, ino, path)
        });
        match found.await {
            Err(err) if !leads_nowhere(&err) => return Err(err),
            found => errors.push(found.err()),
        }
    }
    // What is known of a path stays known, but nodes get other numbers with each layer.
    let mut found = Vec::new();
    for (path, err) in paths.iter().zip(errors) {
        found.push(match err {
            Some(err) => Err(err),
            None => find(peek, path.as_bytes(), follow, quiet, |_, _| true).await,
        });
    }
    Ok(found)
}

/// Whether an error says that a path leads nowhere.
fn leads_nowhere(err: &anyhow::Error) -> bool {
    let engine = err.downcast_ref::<EngineError>();
    engine.is_some_and(|err| err.find::<PathError>().is_some())
}

/// Those that were found, with the paths they were asked for by; errors of the others are printed.
/// Whether there are any.
fn found_of(paths: &[OsString], found: Vec<anyhow::Result<Ino>>) -> (Vec<(&[u8], Ino)>, bool) {
    let (mut nodes, mut failed) = (Vec::new(), false);
    for (path, found) in paths.iter().zip(found) {
        match found {
            Ok(ino) => nodes.push((path.as_bytes(), ino)),
            Err(err) => {
                output::error(&err);
                failed = true;
            }
        }
    }
    (nodes, failed)
}

/// Why the bytes of a node cannot be read, if they cannot.
fn why_unreadable(path: &[u8], node: &Node) -> Option<String> {
    let readable = matches!(node.kind(), Kind::File | Kind::SparseFile);
    let path = output::printable_name(path);
    (!readable).then(|| format!("{path} is a {}, not a file", kind_name(node.kind())))
}

/// Reads a part of a file piece by piece.
pub(super) async fn read_file(
    fs: &Arc<ImageFs>,
    ino: Ino,
    range: Range<u64>,
    mut take: impl FnMut(&[u8]) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let take = |bytes: &[u8]| take(bytes).map(ControlFlow::Continue);
    read_pieces(fs, ino, range, PIECE, take).await
}

/// The same in pieces of `size` bytes, until `take` has enough.
async fn read_pieces(
    fs: &Arc<ImageFs>,
    ino: Ino,
    range: Range<u64>,
    size: usize,
    mut take: impl FnMut(&[u8]) -> anyhow::Result<ControlFlow<()>>,
) -> anyhow::Result<()> {
    let mut buffer = Vec::new();
    let mut offset = range.start;
    loop {
        let left = usize::try_from(range.end - offset).unwrap_or(size);
        fs.read(ino, offset, size.min(left), &mut buffer).await?;
        if buffer.is_empty() || take(&buffer)?.is_break() {
            return Ok(());
        }
        offset += buffer.len() as u64;
    }
}
