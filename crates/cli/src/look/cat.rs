//! `imgfs cat`.

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;

use super::{find_all, found_of, peek, read_file, why_unreadable};
use crate::globals::{Globals, ImageOptions, runtime};
use crate::output;

/// Print files of an image.
#[derive(Args)]
#[command(after_help = "\
Layers are opened from the top down, only as far as these files need.

Examples:
  imgfs cat alpine:3.20 /etc/os-release
  imgfs cat debian /etc/passwd /etc/group | cut -d: -f1")]
pub(crate) struct CatArgs {
    /// The image
    image: String,
    /// Files in it
    #[arg(required = true)]
    paths: Vec<OsString>,
    #[command(flatten)]
    options: ImageOptions,
}

pub(crate) fn cat(globals: &Globals, args: &CatArgs) -> anyhow::Result<ExitCode> {
    runtime()?.block_on(async {
        let mut peek = peek(globals, &args.options, &args.image).await?;
        let found = find_all(&mut peek, &args.paths, true, globals.quiet, |_, _, _| true).await?;
        let (found, mut failed) = found_of(&args.paths, found);
        let fs = peek.into_fs();
        for (path, ino) in found {
            let node = fs.tree().node(ino).context("internal: no node")?;
            if let Some(why) = why_unreadable(path, node) {
                output::message(&format!("imgfs: {why}"));
                failed = true;
                continue;
            }
            read_file(&fs, ino, 0..u64::MAX, output::bytes).await?;
        }
        Ok(ExitCode::from(u8::from(failed)))
    })
}
