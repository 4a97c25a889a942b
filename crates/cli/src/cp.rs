//! `imgfs cp`: files and trees out of an image.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::Args;

use super::export::{refuse_terminal, write_to_stdout};
use super::globals::{Globals, ImageOptions, runtime};
use super::look::peek;
use super::{output, progress};
use imgfs_core::work::{Unpacking, split_last};
use imgfs_formats::tree::{Ino, Node, PartialTree, Tree};

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
        let fs = peek.into_fs();
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
        let mut copy = Unpacking::new(fs, ino)?;
        let _shown = progress::show_bytes("written", copy.bytes(), copy.written(), globals.quiet);
        copy.node(ino, &dest).await?;
        if copy.skipped() > 0 {
            output::message(&format!(
                "{} device nodes were not copied: that needs root",
                copy.skipped()
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

/// Whether `dest` can be replaced by a node, or made. What is inside of a copied directory replaces
/// whatever is there, but a device or a pipe that a file is to be copied to was hardly meant to go.
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

/// What a copy is called in a directory that exists: as it was asked for. `None` for what is to be
/// merged with the directory: the root, and what is in a directory.
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
