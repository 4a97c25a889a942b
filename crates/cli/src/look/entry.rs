//! What is shown of one file.

use serde::Serialize;

use super::walk::last_part;
use crate::output::{json_base64, json_text};
use imgfs_formats::tree::{Content, Kind, Node, Tree};

/// One file as JSON.
#[derive(Serialize)]
pub(super) struct Entry {
    #[serde(flatten)]
    pub named: Named,
    mode: String,
    uid: u32,
    gid: u32,
    size: u64,
    links: u32,
    /// Whole seconds since 1970, rounded down.
    mtime: i64,
    /// Beyond that, below a second.
    mtime_nanoseconds: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    device: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    xattrs: Vec<String>,
}

/// Where a file is, and what.
#[derive(Serialize)]
pub(super) struct Named {
    path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    path_base64: Option<String>,
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    name_base64: Option<String>,
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target_base64: Option<String>,
}

impl Named {
    pub(super) fn new(tree: &Tree, path: &[u8], node: &Node) -> Self {
        let name = last_part(path);
        let target = target(tree, node);
        Self {
            path: json_text(path),
            path_base64: json_base64(path),
            name: json_text(name),
            name_base64: json_base64(name),
            kind: kind_name(node.kind()),
            target: target.map(json_text),
            target_base64: target.and_then(json_base64),
        }
    }
}

impl Entry {
    pub(super) fn new(tree: &Tree, path: &[u8], node: &Node) -> Self {
        let mtime = node.mtime();
        let xattrs = tree.xattrs(node).iter();
        Self {
            named: Named::new(tree, path, node),
            mode: format!("{:04o}", node.permissions()),
            uid: node.uid(),
            gid: node.gid(),
            size: node.size(),
            links: node.nlink(),
            mtime: mtime.seconds,
            mtime_nanoseconds: mtime.nanoseconds,
            device: device(tree, node),
            xattrs: xattrs.map(|(name, _)| json_text(name)).collect(),
        }
    }
}

/// Where a symbolic link leads to.
pub(super) fn target<'t>(tree: &'t Tree, node: &Node) -> Option<&'t [u8]> {
    match tree.content(node) {
        Content::Symlink(target) => Some(target),
        _ => None,
    }
}

/// The numbers of a device.
pub(super) fn device(tree: &Tree, node: &Node) -> Option<String> {
    match tree.content(node) {
        Content::Device { major, minor } => Some(format!("{major}, {minor}")),
        _ => None,
    }
}

/// What a kind is called.
pub(crate) fn kind_name(kind: Kind) -> &'static str {
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
pub(crate) fn mode_text(node: &Node) -> String {
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
