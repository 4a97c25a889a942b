//! Reading files that users and other programs keep: small, and bounded in case they are not.

use std::fs::File;
use std::io;
use std::io::Read;
use std::path::Path;

/// Largest file of credentials or configuration read, in bytes; protects memory.
pub(super) const MAX_FILE: u64 = 1 << 20;

/// Why there are no bytes.
pub(super) enum Unreadable {
    /// The system's words.
    Io(io::Error),
    /// It has more than [`MAX_FILE`] bytes.
    TooLarge,
}

/// A file's bytes; `None` if it is not there.
pub(super) fn read_small_file(path: &Path) -> Result<Option<Vec<u8>>, Unreadable> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(cause) if is_absent(&cause) => return Ok(None),
        Err(cause) => return Err(Unreadable::Io(cause)),
    };
    let mut body = Vec::new();
    file.take(MAX_FILE + 1)
        .read_to_end(&mut body)
        .map_err(Unreadable::Io)?;
    if body.len() as u64 > MAX_FILE {
        return Err(Unreadable::TooLarge);
    }
    Ok(Some(body))
}

/// Whether there is no such file, whatever of its path is missing.
pub(super) fn is_absent(cause: &io::Error) -> bool {
    matches!(
        cause.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}
