//! Spans that could not be written because the disk is full: kept in memory for the readers that
//! wait for them.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use crate::store::Slot;

/// Memory for all layers of a store together, in bytes; one span may have more.
const RECENT_BYTES: usize = 16 << 20;

/// The spans most recently fetched that could not be written.
#[derive(Default)]
pub(in crate::store) struct RecentSpans {
    spans: Mutex<Spans>,
}

#[derive(Default)]
struct Spans {
    /// Newest last.
    queue: VecDeque<(Slot, usize, Arc<Vec<u8>>)>,
    bytes: usize,
}

impl RecentSpans {
    /// Keeps a span for a while.
    pub(super) fn insert(&self, slot: Slot, id: usize, bytes: Vec<u8>) {
        let mut spans = self.spans.lock().unwrap_or_else(PoisonError::into_inner);
        spans.bytes += bytes.len();
        spans.queue.push_back((slot, id, Arc::new(bytes)));
        while spans.bytes > RECENT_BYTES && spans.queue.len() > 1 {
            if let Some((_, _, old)) = spans.queue.pop_front() {
                spans.bytes -= old.len();
            }
        }
    }

    /// The span, if it is still here.
    pub(super) fn get(&self, slot: &Slot, id: usize) -> Option<Arc<Vec<u8>>> {
        let spans = self.spans.lock().unwrap_or_else(PoisonError::into_inner);
        let found = (spans.queue.iter().rev()).find(|(of, known, _)| *known == id && of == slot);
        found.map(|(_, _, bytes)| Arc::clone(bytes))
    }
}
