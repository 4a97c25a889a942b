//! Reading a layer: spans from the cache, else fetched on demand, a few of their neighbours with
//! them.
//!
//! ```text
//! LayerReader      one for each user of a layer       where its bytes come from, what it has cost
//! SharedLayer      one for each layer of a process    files, states of spans, flights
//! Reads            one for each user of the cache     patience, end, budget ahead
//! ```

mod claim;
mod demand;
mod fetch;
mod flights;
mod neighbours;
mod open_layers;
mod quarantine;
mod reader;
mod reads;
mod recent;

pub use reader::{Counters, LayerPin, LayerReader};
pub use reads::{OnError, ReadPolicy};

pub(in crate::store) use demand::Demand;
pub(in crate::store) use fetch::{ALL_RUNS_AHEAD, MAX_RUN};
pub(in crate::store) use open_layers::OpenLayers;
pub(in crate::store) use reads::Reads;
pub(in crate::store) use recent::RecentSpans;
