//! The flights of a layer: which spans are on their way, what became of them, and which were
//! fetched before anybody asked.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Semaphore, watch};

use super::neighbours::ReadAhead;
use super::reads::ReadsId;
use crate::store::StoreError;

/// Runs ahead of one layer at a time: one waits for its answer while the other fills the line. Each
/// takes as much of the line as a read that is waited for.
const RUNS_AHEAD: usize = 2;

/// What became of a flight; `None` as long as it is under way.
pub(super) type Outcome = Option<Result<(), FlightError>>;

/// Why a flight failed. Mounts reach a layer by different names and credentials, so what fails for
/// one may come for another.
#[derive(Debug, Clone)]
pub(super) struct FlightError {
    /// Whose flight it was.
    pub(super) led_by: ReadsId,
    pub(super) cause: Arc<StoreError>,
}

/// The spans being fetched, and those to be fetched ahead.
pub(super) struct Flights {
    state: Mutex<FlightState>,
    /// Which spans were fetched ahead and not read yet.
    unread: Box<[AtomicBool]>,
    /// Bounds the runs ahead of this layer.
    pub(super) turns_ahead: Arc<Semaphore>,
}

impl Flights {
    /// Whether nothing is being fetched.
    pub(super) fn are_none(&self) -> bool {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.waiting.is_empty()
    }
}

/// What a lock protects.
#[derive(Default)]
pub(super) struct FlightState {
    /// The spans on their way, and where their readers hear of them.
    pub(super) waiting: HashMap<usize, watch::Receiver<Outcome>>,
    /// The window ahead of the reads.
    pub(super) ahead: ReadAhead,
}

impl Flights {
    /// For a layer of so many spans.
    pub(super) fn new(spans: usize) -> Self {
        Self {
            state: Mutex::default(),
            unread: (0..spans).map(|_| AtomicBool::new(false)).collect(),
            turns_ahead: Arc::new(Semaphore::new(RUNS_AHEAD)),
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, FlightState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether this is the first read of a span that was fetched ahead. Asked for each cached read.
    pub(super) fn is_first_read(&self, id: usize) -> bool {
        // The order does not matter: it is about speed only.
        self.unread.get(id).is_some_and(|unread| {
            unread.load(Ordering::Relaxed) && unread.swap(false, Ordering::Relaxed)
        })
    }

    /// A span is fetched before anybody asked for it.
    pub(super) fn note_guess(&self, id: usize) {
        if let Some(unread) = self.unread.get(id) {
            unread.store(true, Ordering::Relaxed);
        }
    }
}
