//! `imgfs head`.

use std::ffi::OsString;
use std::ops::ControlFlow;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use clap::Args;

use super::{find_all, found_of, peek, read_pieces, why_unreadable};
use crate::globals::{Globals, ImageOptions, runtime};
use crate::output;
use imgfs_core::view::ImageFs;
use imgfs_formats::tree::Ino;

/// Bytes read at a time: ten lines are nearly always in the first.
const PIECE: usize = 16 << 10;

/// Print the beginning of files of an image.
#[derive(Args)]
#[command(after_help = "\
Of a file that is not in the cache only what is printed is fetched, once its layer has an index.

Examples:
  imgfs head -n 3 debian /etc/passwd
  imgfs head -c 4 alpine /bin/busybox | xxd")]
pub(crate) struct HeadArgs {
    /// The image
    image: String,
    /// Files in it
    #[arg(required = true)]
    paths: Vec<OsString>,
    #[command(flatten)]
    options: ImageOptions,
    /// Print this many lines
    #[arg(short = 'n', long, value_name = "N", default_value_t = 10)]
    lines: u64,
    /// Print this many bytes instead
    #[arg(short = 'c', long, value_name = "N", conflicts_with = "lines")]
    bytes: Option<u64>,
}

pub(crate) fn head(globals: &Globals, args: &HeadArgs) -> anyhow::Result<ExitCode> {
    runtime()?.block_on(async {
        let mut peek = peek(globals, &args.options, &args.image).await?;
        let found = find_all(&mut peek, &args.paths, true, globals.quiet, |_, _, _| true).await?;
        let (found, mut failed) = found_of(&args.paths, found);
        let fs = peek.into_fs();
        let mut before = "";
        for (path, ino) in found {
            let node = fs.tree().node(ino).context("internal: no node")?;
            if let Some(why) = why_unreadable(path, node) {
                output::message(&format!("imgfs: {why}"));
                failed = true;
                continue;
            }
            if args.paths.len() > 1 && !globals.quiet {
                let name = output::name(path);
                let title = [before.as_bytes(), b"==> ", &name, b" <==\n"].concat();
                output::bytes(&title)?;
                before = "\n";
            }
            match args.bytes {
                Some(count) => first_bytes(&fs, ino, count).await?,
                None => first_lines(&fs, ino, args.lines).await?,
            }
        }
        Ok(ExitCode::from(u8::from(failed)))
    })
}

async fn first_bytes(fs: &Arc<ImageFs>, ino: Ino, count: u64) -> anyhow::Result<()> {
    let print = |bytes: &[u8]| output::bytes(bytes).map(ControlFlow::Continue);
    read_pieces(fs, ino, 0..count, super::PIECE, print).await
}

async fn first_lines(fs: &Arc<ImageFs>, ino: Ino, count: u64) -> anyhow::Result<()> {
    let mut left = count;
    if left == 0 {
        return Ok(());
    }
    let print = |bytes: &[u8]| {
        let mut end = bytes.len();
        for (position, _) in bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n') {
            left -= 1;
            if left == 0 {
                end = position + 1;
                break;
            }
        }
        output::bytes(bytes.get(..end).unwrap_or_default())?;
        Ok(if left == 0 {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        })
    };
    read_pieces(fs, ino, 0..u64::MAX, PIECE, print).await
}
