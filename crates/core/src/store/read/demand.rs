//! How many reads wait for the network, in all layers of a cache: background work gives way to
//! them.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Counts the reads that wait.
#[derive(Default)]
pub(in crate::store) struct Demand(AtomicUsize);

/// A read that waits.
pub(super) struct Demanding<'a>(&'a Demand);

impl Demand {
    /// A read begins to wait.
    pub(super) fn begin(&self) -> Demanding<'_> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Demanding(self)
    }

    /// Whether no read waits.
    pub(in crate::store) fn is_none(&self) -> bool {
        self.0.load(Ordering::Relaxed) == 0
    }
}

impl Drop for Demanding<'_> {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}
