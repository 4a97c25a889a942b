//! `imgfs ls`, `cat` and `stat`: answers without a mount.

use std::ops::Range;
use std::sync::Arc;

use anyhow::{Context, bail};
use clap::Args;
use serde::Serialize;

use super::globals::{Globals, ImageOptions, runtime};
use super::time::utc;
use super::{output, progress, time};
use crate::fs::ImageFs;
use crate::mount::{Image, Peek};
use crate::tree::{Answer, Content, Ino, Kind, Node, PartialTree, Tree};

/// Bytes read at a time.
const PIECE: usize = 1 << 20;

/// List a directory of an image.
#[derive(Args)]
#[command(after_help = "\
Layers are opened from the top down, only as far as the answer needs.

Examples:
  imgfs ls golang
  imgfs ls -l golang /usr/local/go")]
pub(super) struct LsArgs {
    /// The image
    image: String,
    /// A directory or file in it
    #[arg(default_value = "/")]
    path: String,
    #[command(flatten)]
    options: ImageOptions,
    /// Modes, owners, sizes and times too
    #[arg(short)]
    long: bool,
    /// Names that begin with a dot too
    #[arg(short)]
    all: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Print files of an image.
#[derive(Args)]
#[command(after_help = "Example:\n  imgfs cat alpine:3.20 /etc/os-release")]
pub(super) struct CatArgs {
    /// The image
    image: String,
    /// Files in it
    #[arg(required = true)]
    paths: Vec<String>,
    #[command(flatten)]
    options: ImageOptions,
}

/// Show what an image knows of a file.
#[derive(Args)]
#[command(after_help = "Example:\n  imgfs stat golang /usr/local/go/bin/go")]
pub(super) struct StatArgs {
    /// The image
    image: String,
    /// A path in it; a symbolic link is shown, not followed
    #[arg(default_value = "/")]
    path: String,
    #[command(flatten)]
    options: ImageOptions,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// One file. Times in seconds since 1970, with fractions.
#[derive(Serialize)]
struct FileInfo {
    name: String,
    kind: &'static str,
    mode: String,
    uid: u32,
    gid: u32,
    size: u64,
    links: u32,
    mtime: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    device: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    xattrs: Vec<String>,
}

pub(super) fn ls(globals: &Globals, args: &LsArgs) -> anyhow::Result<()> {
    let details = args.long || args.json;
    runtime()?.block_on(async {
        let mut peek = peek(globals, &args.options, &args.image).await?;
        let enough = |tree: &PartialTree, ino: Ino| is_listed(tree, ino, details);
        let ino = find(&mut peek, &args.path, true, globals.quiet, enough).await?;
        let tree = peek.tree().context("internal: no tree")?;
        let node = tree.node(ino).context("internal: no node")?;
        let mut rows = Vec::new();
        if node.is_directory() {
            for dirent in tree.children(node) {
                let name = tree.name(dirent);
                if let Some(child) = tree
                    .node(dirent.ino())
                    .filter(|_| args.all || !name.starts_with(b"."))
                {
                    rows.push((name.to_vec(), child));
                }
            }
        } else {
            rows.push((args.path.clone().into_bytes(), node));
        }
        print_list(tree, &rows, args)
    })
}

pub(super) fn cat(globals: &Globals, args: &CatArgs) -> anyhow::Result<()> {
    runtime()?.block_on(async {
        for path in &args.paths {
            let mut peek = peek(globals, &args.options, &args.image).await?;
            let ino = find(&mut peek, path, true, globals.quiet, |_, _| true).await?;
            let node = peek
                .tree()
                .and_then(|tree| tree.node(ino))
                .context("internal: no node")?;
            if !node.is_file() {
                bail!("{path} is a {}, not a file", kind_name(node.kind()));
            }
            let (fs, _) = peek.into_fs().context("internal: no layers")?;
            read_file(&fs, ino, 0..u64::MAX, output::bytes).await?;
        }
        Ok(())
    })
}

pub(super) fn stat(globals: &Globals, args: &StatArgs) -> anyhow::Result<()> {
    runtime()?.block_on(async {
        let mut peek = peek(globals, &args.options, &args.image).await?;
        let enough =
            |tree: &PartialTree, ino: Ino| matches!(tree.attributes(ino), Answer::Found(_));
        let ino = find(&mut peek, &args.path, false, globals.quiet, enough).await?;
        let tree = peek.tree().context("internal: no tree")?;
        let node = tree.node(ino).context("internal: no node")?;
        let info = info(tree, args.path.as_bytes(), node);
        if args.json {
            return output::json(&info);
        }
        let target = info
            .target
            .map(|target| format!(" -> {target}"))
            .unwrap_or_default();
        output::line(&format!("path    {}{target}", info.name))?;
        output::line(&format!("kind    {}", info.kind))?;
        output::line(&format!("mode    {} ({})", info.mode, mode_text(node)))?;
        output::line(&format!("owner   {}:{}", info.uid, info.gid))?;
        output::line(&format!("size    {}", info.size))?;
        output::line(&format!("links   {}", info.links))?;
        output::line(&format!("mtime   {}", utc(node.mtime().seconds)))?;
        if let Some(device) = info.device {
            output::line(&format!("device  {device}"))?;
        }
        for xattr in info.xattrs {
            output::line(&format!("xattr   {xattr}"))?;
        }
        Ok(())
    })
}

pub(super) async fn peek(
    globals: &Globals,
    options: &ImageOptions,
    image: &str,
) -> anyhow::Result<Peek> {
    let store = globals.store()?;
    // What this command adds cannot be evicted while it runs, so the next one does; a mount does it for itself.
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
    path: &str,
    follow: bool,
    quiet: bool,
    enough: impl Fn(&PartialTree, Ino) -> bool,
) -> anyhow::Result<Ino> {
    let mut shown = Vec::new();
    let announce = |download| shown.push(progress::show(&[download], quiet));
    peek.find(path.as_bytes(), follow, enough, announce).await
}

/// Reads a part of a file piece by piece.
pub(super) async fn read_file(
    fs: &Arc<ImageFs>,
    ino: Ino,
    range: Range<u64>,
    mut take: impl FnMut(&[u8]) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut buffer = Vec::new();
    let mut offset = range.start;
    loop {
        let left = usize::try_from(range.end - offset).unwrap_or(PIECE);
        fs.read(ino, offset, PIECE.min(left), &mut buffer).await?;
        if buffer.is_empty() {
            return Ok(());
        }
        take(&buffer)?;
        offset += buffer.len() as u64;
    }
}

/// Whether a directory's listing (with its entries' attributes if `details`) is known; a file is itself.
fn is_listed(tree: &PartialTree, ino: Ino, details: bool) -> bool {
    let known = |ino| matches!(tree.attributes(ino), Answer::Found(_));
    match tree.tree().node(ino) {
        Some(node) if node.is_directory() => match tree.listing(ino) {
            Answer::Found(children) => !details || children.iter().all(|child| known(child.ino())),
            _ => false,
        },
        _ => !details || known(ino),
    }
}

fn print_list(tree: &Tree, rows: &[(Vec<u8>, &Node)], args: &LsArgs) -> anyhow::Result<()> {
    if args.json {
        let infos: Vec<_> = rows
            .iter()
            .map(|(name, node)| info(tree, name, node))
            .collect();
        return output::json(&infos);
    }
    if !args.long {
        let mut text = Vec::new();
        for (name, _) in rows {
            text.extend(output::name(name));
            text.push(b'\n');
        }
        return output::bytes(&text);
    }
    let cells: Vec<_> = (rows.iter())
        .map(|(name, node)| {
            let info = info(tree, name, node);
            let target = info
                .target
                .map(|target| format!(" -> {target}"))
                .unwrap_or_default();
            vec![
                mode_text(node),
                info.links.to_string(),
                info.uid.to_string(),
                info.gid.to_string(),
                info.device.unwrap_or_else(|| info.size.to_string()),
                utc(node.mtime().seconds),
                format!("{}{target}", info.name),
            ]
        })
        .collect();
    output::table(
        &[
            "MODE",
            "LINKS",
            "UID",
            "GID",
            "SIZE",
            "MODIFIED (UTC)",
            "NAME",
        ],
        &cells,
        &[1, 2, 3, 4],
    )
}

fn info(tree: &Tree, name: &[u8], node: &Node) -> FileInfo {
    let (mut target, mut device) = (None, None);
    match tree.content(node) {
        Content::Symlink(bytes) => target = Some(output::printable(bytes)),
        Content::Device { major, minor } => device = Some(format!("{major}, {minor}")),
        _ => {}
    }
    let mtime = node.mtime();
    #[expect(
        clippy::cast_precision_loss,
        reason = "seconds of real files are far below 2^52"
    )]
    let seconds = mtime.seconds as f64;
    FileInfo {
        name: output::printable(name),
        kind: kind_name(node.kind()),
        mode: format!("{:04o}", node.permissions()),
        uid: node.uid(),
        gid: node.gid(),
        size: node.size(),
        links: node.nlink(),
        mtime: seconds + f64::from(mtime.nanoseconds) / 1e9,
        target,
        device,
        xattrs: tree
            .xattrs(node)
            .iter()
            .map(|(name, _)| output::printable(name))
            .collect(),
    }
}

pub(super) fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::File | Kind::SparseFile => "file",
        Kind::Directory => "directory",
        Kind::Symlink => "symlink",
        Kind::CharDevice => "character device",
        Kind::BlockDevice => "block device",
        Kind::Fifo => "fifo",
        Kind::BrokenLink | Kind::UnresolvedLink | Kind::Phantom => "broken hard link",
    }
}

/// As `ls -l` writes it.
pub(super) fn mode_text(node: &Node) -> String {
    let letter = match node.kind() {
        Kind::Directory => 'd',
        Kind::Symlink => 'l',
        Kind::CharDevice => 'c',
        Kind::BlockDevice => 'b',
        Kind::Fifo => 'p',
        Kind::File | Kind::SparseFile | Kind::BrokenLink | Kind::UnresolvedLink | Kind::Phantom => {
            '-'
        }
    };
    let mode = node.permissions();
    let mut text = String::from(letter);
    for (shift, special, set, unset) in [
        (6, 0o4000, 's', 'S'),
        (3, 0o2000, 's', 'S'),
        (0, 0o1000, 't', 'T'),
    ] {
        let bits = mode >> shift;
        text.push(if bits & 4 != 0 { 'r' } else { '-' });
        text.push(if bits & 2 != 0 { 'w' } else { '-' });
        text.push(match (bits & 1 != 0, mode & special != 0) {
            (true, true) => set,
            (false, true) => unset,
            (true, false) => 'x',
            (false, false) => '-',
        });
    }
    text
}
