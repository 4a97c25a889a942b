//! Directories of certificates, one for each host, as Docker, podman and containerd share them.
//!
//! ```text
//! certs.d/example.com:5000/ca.crt        every *.crt: an authority trusted beside the system's
//! certs.d/example.com:5000/client.cert   a *.cert with its *.key: shown to servers that ask
//! certs.d/example.com:5000/client.key
//! ```

use std::io;
use std::path::{Path, PathBuf};

use super::error::RouteError;
use crate::source::endpoint::Tls;
use crate::source::small_file::is_absent;

/// What a directory has.
#[derive(Debug, Default)]
pub(super) struct Certificates {
    /// Certificate authorities.
    pub authorities: Vec<PathBuf>,
    /// Certificate and key.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// For people.
    pub notes: Vec<String>,
}

impl Certificates {
    /// Whether there is nothing in it.
    pub(super) fn is_empty(&self) -> bool {
        self.authorities.is_empty() && self.identity.is_none()
    }

    /// Makes TLS use them.
    pub(super) fn apply(&self, tls: &mut Tls) {
        tls.authorities.clone_from(&self.authorities);
        tls.identity.clone_from(&self.identity);
    }
}

/// The first directory for one of the names that can be read; those of others may be closed to us.
pub(super) fn for_host(
    roots: &[PathBuf],
    names: &[&str],
) -> Result<Option<(PathBuf, Certificates)>, RouteError> {
    let dirs = roots
        .iter()
        .flat_map(|root| names.iter().map(|name| root.join(name)));
    for dir in dirs {
        match read(&dir) {
            Ok(certificates) => return Ok(Some((dir, certificates))),
            Err(cause) if is_absent(&cause) || cause.kind() == io::ErrorKind::PermissionDenied => {}
            Err(cause) => return Err(RouteError::Read { file: dir, cause }),
        }
    }
    Ok(None)
}

/// The certificates in a directory, in the order of their names.
pub(super) fn read(dir: &Path) -> io::Result<Certificates> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if !path.is_dir() {
            files.push(path);
        }
    }
    files.sort();
    let mut found = Certificates::default();
    for file in files {
        match file.extension().and_then(|extension| extension.to_str()) {
            Some("crt") => found.authorities.push(file),
            Some("cert") if found.identity.is_some() => found.notes.push(format!(
                "{}: only the first client certificate of the directory is used",
                file.display()
            )),
            Some("cert") => {
                let key = file.with_extension("key");
                // Without a file of its own the key is beside the certificate.
                let key = if key.exists() { key } else { file.clone() };
                found.identity = Some((file, key));
            }
            _ => {}
        }
    }
    Ok(found)
}
