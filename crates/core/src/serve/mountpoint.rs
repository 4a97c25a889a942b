//! The mountpoint before and after: what is there now, dead mounts, unmounting.

use std::path::{Path, PathBuf};

use super::fuse::Unmounter;
use crate::error::{EngineError, ErrorKind, Result, Within};
use crate::hint::Hint;

/// What [`clear`] had to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cleared {
    /// Nothing: the directory was free.
    WasFree,
    /// A mount of a process that is gone was taken away.
    DeadMount,
}

/// Makes sure that `dir` is a directory with no imgfs mount on it; a dead one is taken away.
pub fn clear(dir: &Path) -> Result<Cleared> {
    match std::fs::metadata(dir) {
        Ok(metadata) if !metadata.is_dir() => Err(EngineError::new(
            ErrorKind::Invalid,
            format!("{} is not a directory", dir.display()),
        )),
        Ok(_) => {
            if let Some(image) = imgfs_mounted_on(dir)? {
                return Err(EngineError::with_hint(
                    ErrorKind::Busy,
                    format_args!("{image} is already mounted on {}", dir.display()),
                    Hint::Unmount {
                        dir: dir.to_owned(),
                    },
                ));
            }
            Ok(Cleared::WasFree)
        }
        Err(err) if err.kind() == std::io::ErrorKind::NotFound => Err(EngineError::new(
            ErrorKind::NotFound,
            format!("{0} does not exist: run `mkdir {0}` first", dir.display()),
        )),
        Err(err) if is_dead(&err) => {
            if imgfs_mounted_on(dir)?.is_none() {
                return Err(EngineError::new(
                    ErrorKind::Busy,
                    format!(
                        "the mount on {} is dead and not of imgfs: unmount it first",
                        dir.display()
                    ),
                ));
            }
            unmount(dir, true).within(|| "a dead mount is in the way".to_owned())?;
            Ok(Cleared::DeadMount)
        }
        Err(err) => Err(err).within(|| format!("cannot look at {}", dir.display())),
    }
}

/// What the kernel answers for a mount whose process is gone, or goes while it is asked.
fn is_dead(err: &std::io::Error) -> bool {
    matches!(
        err.raw_os_error(),
        Some(libc::ENOTCONN | libc::ECONNABORTED)
    )
}

/// The source (image) of the imgfs mount right on `dir`, if there is one.
pub fn imgfs_mounted_on(dir: &Path) -> Result<Option<String>> {
    let dir = absolute(dir)?;
    let table = std::fs::read("/proc/self/mountinfo")
        .within(|| "cannot read /proc/self/mountinfo".to_owned())?;
    let mut found = None;
    for line in table.split(|byte| *byte == b'\n') {
        // proc(5): id, parent, device, root, mountpoint, options, optional fields, "-", type,
        // source, ...
        let mut fields = line.split(|byte| *byte == b' ');
        let Some(mountpoint) = fields.nth(4).map(unescape) else {
            continue;
        };
        if mountpoint != dir.as_os_str().as_encoded_bytes() {
            continue;
        }
        let mut rest = fields.skip_while(|field| *field != b"-").skip(1);
        let (kind, source) = (
            rest.next().unwrap_or_default(),
            rest.next().unwrap_or_default(),
        );
        // The last one on a directory is the one that is seen.
        found = (kind == b"fuse.imgfs")
            .then(|| String::from_utf8_lossy(&unescape(source)).into_owned());
    }
    Ok(found)
}

/// Unmounts `dir`; `lazy` even while it is in use.
pub fn unmount(dir: &Path, lazy: bool) -> Result<()> {
    Ok(Unmounter::new(absolute(dir)?).unmount(lazy)?)
}

/// The absolute path, links resolved, without a look at the last component: a dead mount cannot be
/// looked at.
pub(crate) fn absolute(dir: &Path) -> Result<PathBuf> {
    if let Ok(path) = dir.canonicalize() {
        return Ok(path);
    }
    let dir = std::path::absolute(dir).within(|| format!("bad path {}", dir.display()))?;
    let (Some(parent), Some(name)) = (dir.parent(), dir.file_name()) else {
        return Ok(dir);
    };
    let parent = parent
        .canonicalize()
        .within(|| format!("cannot look at {}", parent.display()))?;
    Ok(parent.join(name))
}

/// Undoes mountinfo's octal escapes of space, tab, newline and backslash.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, after)) = rest.split_first() {
        let digits = after
            .first_chunk::<3>()
            .and_then(|digits| std::str::from_utf8(digits).ok());
        let escaped = digits
            .filter(|_| *first == b'\\')
            .and_then(|text| u8::from_str_radix(text, 8).ok());
        out.push(escaped.unwrap_or(*first));
        rest = if escaped.is_some() {
            after.get(3..).unwrap_or_default()
        } else {
            after
        };
    }
    out
}

#[cfg(test)]
mod tests {
    #[test]
    fn mountinfo_escapes_are_undone() {
        assert_eq!(super::unescape(br"/a\040b\134c\012"), b"/a b\\c\n");
        assert_eq!(super::unescape(br"/a\04"), br"/a\04");
    }
}
