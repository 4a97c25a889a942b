//! What a check must not take away.

use super::super::files::publish;
use super::super::{DEFAULT_LIMIT, Finding, Slot, Store, Trust};
use super::*;

fn store() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), DEFAULT_LIMIT).unwrap();
    (dir, store)
}
