//! Why an operation fails, and the one map from that to errno.

use crate::store::StoreError;
use imgfs_formats::tree::Ino;

/// Why a filesystem operation fails.
#[derive(Debug, thiserror::Error)]
pub enum FsError {
    /// No node has this number.
    #[error("there is no inode {}", .0.get())]
    NoSuchInode(Ino),
    /// Something else was asked of a directory's operation.
    #[error("inode {} is not a directory", .0.get())]
    NotADirectory(Ino),
    /// A directory was read like a file.
    #[error("inode {} is a directory", .0.get())]
    IsADirectory(Ino),
    /// Not a file, or not a symlink, where one is needed.
    #[error("inode {} does not support {operation}", .ino.get())]
    WrongKind {
        /// The node.
        ino: Ino,
        /// What was asked of it.
        operation: &'static str,
    },
    /// The node has no such attribute.
    #[error("no such extended attribute")]
    NoSuchXattr,
    /// No node of the tree has attributes, so the kernel need not ask again.
    #[error("the image has no extended attributes")]
    NoXattrs,
    /// There is no data, or nothing at all, from this position on.
    #[error("nothing to seek to at or after {0}")]
    NothingToSeek(i64),
    /// An unknown way to seek.
    #[error("unknown whence {0}")]
    InvalidWhence(i32),
    /// Not executable.
    #[error("no execute permission")]
    NotExecutable,
    /// The file is a hard link whose target is in no layer.
    #[error("{path} is a hard link to nothing")]
    BrokenLink {
        /// One path of the file.
        path: String,
    },
    /// The tree names a layer that the filesystem was not given.
    #[error("{path} lies in layer {layer}, which is not there")]
    NoSuchLayer {
        /// One path of the file.
        path: String,
        /// Position of the layer.
        layer: usize,
    },
    /// The bytes could not be had.
    #[error("cannot read {path}")]
    Read {
        /// One path of the file.
        path: String,
        /// Why.
        #[source]
        source: Box<StoreError>,
    },
}

impl FsError {
    /// The number the kernel gets.
    pub fn errno(&self) -> i32 {
        match self {
            // Only a handle from another mount (NFS) can name a node that is not there.
            Self::NoSuchInode(_) => libc::ESTALE,
            Self::NotADirectory(_) => libc::ENOTDIR,
            Self::IsADirectory(_) => libc::EISDIR,
            // POSIX: EINVAL for readlink of anything else; the kernel asks for nothing else by
            // itself.
            Self::WrongKind { .. } | Self::InvalidWhence(_) => libc::EINVAL,
            Self::NoSuchXattr => libc::ENODATA,
            Self::NoXattrs => libc::ENOSYS,
            Self::NothingToSeek(_) => libc::ENXIO,
            Self::NotExecutable => libc::EACCES,
            // POSIX knows no "could not be fetched" or "is not what it should be" for a read.
            Self::BrokenLink { .. } | Self::NoSuchLayer { .. } | Self::Read { .. } => libc::EIO,
        }
    }

    /// Whether the user must hear of it: everything else is an ordinary answer to a program.
    pub fn is_failure(&self) -> bool {
        self.errno() == libc::EIO
    }
}
