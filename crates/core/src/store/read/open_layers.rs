//! The layers that somebody in this process reads, so that all readers of one share it: its open
//! files, which spans are here, which are being fetched.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::flights::Flights;
use super::quarantine::Quarantine;
use crate::store::Slot;
use crate::store::disk::LayerFiles;
use imgfs_formats::layer::SpanTable;

/// What all readers of one layer by one index share. The index is a function of the slot, so the
/// spans are the same for all of them.
pub(in crate::store) struct SharedLayer {
    pub(super) spans: SpanTable,
    pub(super) files: Arc<LayerFiles>,
    pub(super) slot: Slot,
    pub(super) flights: Flights,
    /// That the layer and its index contradict each other.
    pub(super) quarantine: Quarantine,
    /// One computation of its DiffId at a time.
    pub(super) diff_id_turn: tokio::sync::Mutex<()>,
    states: Box<[AtomicU8]>,
    write_failed: AtomicBool,
}

/// Where a span of an open layer is: see `super::reader`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum SpanState {
    /// Nobody has looked yet.
    Unknown,
    /// It is not on the disk, or was not right there.
    Missing,
    /// It is on the disk, and right.
    Ready,
}

impl SpanState {
    fn of(value: u8) -> Self {
        match value {
            value if value == Self::Ready as u8 => Self::Ready,
            value if value == Self::Unknown as u8 => Self::Unknown,
            _ => Self::Missing,
        }
    }
}

impl SharedLayer {
    fn new(spans: SpanTable, files: Arc<LayerFiles>, slot: Slot) -> Self {
        let unknown = || AtomicU8::new(SpanState::Unknown as u8);
        Self {
            states: (0..spans.len()).map(|_| unknown()).collect(),
            flights: Flights::new(spans.len()),
            spans,
            files,
            slot,
            quarantine: Quarantine::default(),
            diff_id_turn: tokio::sync::Mutex::new(()),
            write_failed: AtomicBool::new(false),
        }
    }

    pub(super) fn state(&self, id: usize) -> SpanState {
        // Acquire pairs with the Release below: a reader that sees Ready sees the bytes written.
        let state = self.states.get(id);
        state.map_or(SpanState::Missing, |state| {
            SpanState::of(state.load(Ordering::Acquire))
        })
    }

    pub(super) fn set_state(&self, id: usize, state: SpanState) {
        if let Some(place) = self.states.get(id) {
            place.store(state as u8, Ordering::Release);
        }
    }

    /// Nobody found the span on the disk, unless a flight has brought it meanwhile, which must not
    /// be forgotten. Whether that is so.
    pub(super) fn found_missing(&self, id: usize) -> bool {
        let Some(place) = self.states.get(id) else {
            return false;
        };
        let (unknown, missing) = (SpanState::Unknown as u8, SpanState::Missing as u8);
        let set = place.compare_exchange(unknown, missing, Ordering::AcqRel, Ordering::Acquire);
        set == Err(SpanState::Ready as u8)
    }

    /// Whether spans that are fetched can be written to the cache, as far as is known.
    pub(super) fn is_kept(&self) -> bool {
        !self.write_failed.load(Ordering::Relaxed)
    }

    /// A span could not be written: from now on none is tried.
    pub(super) fn write_failed(&self) {
        self.write_failed.store(true, Ordering::Relaxed);
    }
}

/// The open layers of a process, by slot.
#[derive(Default)]
pub(in crate::store) struct OpenLayers(Mutex<HashMap<Slot, Weak<SharedLayer>>>);

impl OpenLayers {
    /// The layer with the files that were just opened: the one that somebody reads already, if it
    /// reads these files. Other files have taken their place where a first contact or a removal
    /// came between.
    pub(in crate::store) fn share(
        &self,
        spans: SpanTable,
        files: Arc<LayerFiles>,
        slot: Slot,
    ) -> Arc<SharedLayer> {
        let mut layers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(open) = layers.get(&slot).and_then(Weak::upgrade)
            && open.files.are_the_same(&files)
            && open.spans == spans
        {
            return open;
        }
        layers.retain(|_, layer| layer.strong_count() > 0);
        let layer = Arc::new(SharedLayer::new(spans, files, slot.clone()));
        layers.insert(slot, Arc::downgrade(&layer));
        layer
    }
}
