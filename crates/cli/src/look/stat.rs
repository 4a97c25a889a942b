//! `imgfs stat`.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;

use anyhow::Context;
use clap::Args;

use super::entry::{Entry, device, kind_name, mode_text, target};
use super::{find, peek};
use crate::globals::{Globals, ImageOptions, runtime};
use crate::output::{self, printable_name};
use crate::time::utc;
use imgfs_formats::tree::{Answer, Ino, PartialTree};

/// Show what an image knows of a file.
#[derive(Args)]
#[command(after_help = "Example:\n  imgfs stat golang /usr/local/go/bin/go")]
pub(crate) struct StatArgs {
    /// The image
    image: String,
    /// A path in it; a symbolic link is shown, not followed
    #[arg(default_value = "/")]
    path: OsString,
    #[command(flatten)]
    options: ImageOptions,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn stat(globals: &Globals, args: &StatArgs) -> anyhow::Result<()> {
    let path = args.path.as_bytes();
    runtime()?.block_on(async {
        let mut peek = peek(globals, &args.options, &args.image).await?;
        let ino = find(&mut peek, path, false, globals.quiet, is_told).await?;
        let tree = peek.tree();
        let node = tree.node(ino).context("internal: no node")?;
        if args.json {
            return output::json(&Entry::new(tree, path, node));
        }
        let target = target(tree, node)
            .map(|target| format!(" -> {}", printable_name(target)))
            .unwrap_or_default();
        output::line(&format!("path    {}{target}", printable_name(path)))?;
        output::line(&format!("kind    {}", kind_name(node.kind())))?;
        let mode = mode_text(node);
        output::line(&format!("mode    {:04o} ({mode})", node.permissions()))?;
        output::line(&format!("owner   {}:{}", node.uid(), node.gid()))?;
        output::line(&format!("size    {}", node.size()))?;
        output::line(&format!("links   {}", node.nlink()))?;
        output::line(&format!("mtime   {}", utc(node.mtime().seconds)))?;
        if let Some(device) = device(tree, node) {
            output::line(&format!("device  {device}"))?;
        }
        for (xattr, _) in tree.xattrs(node) {
            output::line(&format!("xattr   {}", printable_name(xattr)))?;
        }
        Ok(())
    })
}

/// Whether all that is shown of a node is known: a directory's links count the directories in it.
fn is_told(tree: &PartialTree, ino: Ino) -> bool {
    match tree.attributes(ino) {
        Answer::Found(node) => {
            !node.is_directory() || matches!(tree.listing(ino), Answer::Found(_))
        }
        _ => false,
    }
}
