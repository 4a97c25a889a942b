//! Key files.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, ensure};

use imgfs_formats::oci::{MAX_KEY_FILE, PublicKey, SigningKey};

/// Permissions of others than the owner.
const OTHERS: u32 = 0o077;

/// Reads a key to sign with; warns if others may read it too.
pub(crate) fn read_signing_key(path: &Path) -> anyhow::Result<SigningKey> {
    let (pem, mode) = read(path)?;
    if mode & OTHERS != 0 {
        tracing::warn!(
            "others may use the secret key {}: run `chmod 600` on it",
            path.display()
        );
    }
    SigningKey::from_pem(&pem).with_context(|| format!("cannot use {}", path.display()))
}

/// Reads a key to check with.
pub(crate) fn read_public_key(path: &Path) -> anyhow::Result<PublicKey> {
    let (pem, _) = read(path)?;
    PublicKey::from_pem(&pem).with_context(|| format!("cannot use {}", path.display()))
}

/// A key file's bytes and permissions.
fn read(path: &Path) -> anyhow::Result<(Vec<u8>, u32)> {
    let reading = || format!("cannot read {}", path.display());
    let file = File::open(path).with_context(reading)?;
    let mode = file.metadata().with_context(reading)?.permissions().mode();
    let mut pem = Vec::new();
    file.take(MAX_KEY_FILE + 1)
        .read_to_end(&mut pem)
        .with_context(reading)?;
    ensure!(
        pem.len() as u64 <= MAX_KEY_FILE,
        "{} is too large for a key file",
        path.display()
    );
    Ok((pem, mode))
}
