//! Whether files have the same bytes: by digests where there are some, else by reading what is
//! cheapest to read.
//!
//! | what the indexes know of the two | what is read |
//! |---|---|
//! | the same bytes of the same layer | nothing |
//! | digests of the same kind, of the same pieces | nothing |
//! | a digest of one | the other, against that |
//! | digests of different kinds | the one that costs less to fetch |
//! | nothing | both |
//!
//! Where that would fetch most of a layer, the layer is streamed instead: one request for many, and
//! its index is complete from then on.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;

use futures_util::{StreamExt, stream};

use super::Cost;
use super::digests::{Check, Claim, Digests, Place, claim, load};
use crate::error::{EngineError, Expected, Result, Within};
use crate::store::{OpenLayer, Slot, Store};
use crate::view::ImageFs;
use imgfs_formats::oci::Digest;
use imgfs_formats::tree::Ino;

/// Bytes read at a time.
const PIECE: u64 = 1 << 20;
/// Files read at the same time: their fetches overlap.
const READS: usize = 8;

/// How it ended.
pub(super) enum Decided {
    /// These have the same bytes, all others not.
    Same(HashSet<(Ino, Ino)>),
    /// To tell, this layer is to be streamed first.
    Stream(Digest),
}

/// Two files of the same size.
struct Pair {
    inos: [Ino; 2],
    places: [Place; 2],
}

/// How to tell whether two files have the same bytes.
enum Plan {
    /// The one of this side is read, and checked against what is known of the other.
    Against(usize, Claim),
    /// Both are read.
    Both,
}

/// What reading a layer would fetch.
struct Fetches {
    /// For each span.
    bytes: Vec<u64>,
    /// Those that are to be read.
    planned: BTreeSet<usize>,
}

/// Tells which of these files of the two images, the same in size, have the same bytes.
pub(super) async fn decide(
    store: &Store,
    images: [&Arc<ImageFs>; 2],
    layers: &[Vec<&OpenLayer>; 2],
    files: Vec<(Ino, Ino)>,
    cost: &mut Cost,
) -> Result<Decided> {
    let mut same = HashSet::new();
    let mut pairs = Vec::new();
    for (old, new) in files {
        let [Some(from), Some(to)] = [place(images[0], old), place(images[1], new)] else {
            continue;
        };
        let in_one_layer =
            layer(layers, 0, &from)?.reader.slot() == layer(layers, 1, &to)?.reader.slot();
        if from.extents.is_empty() && to.extents.is_empty()
            || in_one_layer && from.extents == to.extents
        {
            same.insert((old, new));
        } else {
            pairs.push(Pair {
                inos: [old, new],
                places: [from, to],
            });
        }
    }
    let digests = digests(store, layers, &pairs)?;
    let mut plans = Vec::new();
    for pair in pairs {
        let [from, to] = &pair.places;
        let claims = [
            claim(layer(layers, 0, from)?, from, &digests),
            claim(layer(layers, 1, to)?, to, &digests),
        ];
        match told(&pair, &claims) {
            Some(true) => {
                let [old, new] = pair.inos;
                same.insert((old, new));
            }
            Some(false) => {}
            None => plans.push((pair, claims)),
        }
    }
    if plans.is_empty() {
        return Ok(Decided::Same(same));
    }
    let mut fetches: HashMap<Slot, Fetches> = HashMap::new();
    for layer in layers.iter().flatten() {
        let slot = layer.reader.slot().clone();
        fetches.entry(slot).or_insert_with(|| Fetches {
            bytes: layer.reader.to_fetch(),
            planned: BTreeSet::new(),
        });
    }
    let mut reads = Vec::new();
    for (pair, claims) in plans {
        let plan = plan(layers, &pair, claims, &mut fetches)?;
        reads.push((pair, plan));
    }
    for layer in layers.iter().flatten() {
        let (slot, size) = (layer.reader.slot(), layer.reader.blob_size());
        let bytes = fetches.get(slot).map_or(0, Fetches::total);
        if !slot.is_own() && bytes > size / 2 {
            return Ok(Decided::Stream(*slot.layer()));
        }
    }
    let before = fetched(layers);
    cost.files_read += reads.len();
    let checks = reads.into_iter().map(|(pair, plan)| async move {
        let is_same = read(images, &pair, plan).await.within(|| {
            let path = images[1].tree().path(pair.inos[1]).unwrap_or_default();
            format!("cannot compare {}", path.escape_ascii())
        })?;
        Ok::<_, EngineError>(is_same.then_some((pair.inos[0], pair.inos[1])))
    });
    let mut checks = stream::iter(checks).buffer_unordered(READS);
    while let Some(checked) = checks.next().await {
        same.extend(checked?);
    }
    cost.fetched += fetched(layers) - before;
    Ok(Decided::Same(same))
}

fn place(image: &ImageFs, ino: Ino) -> Option<Place> {
    let tree = image.tree();
    Place::of(tree, tree.node(ino)?)
}

fn layer<'a>(
    layers: &[Vec<&'a OpenLayer>; 2],
    side: usize,
    place: &Place,
) -> Result<&'a OpenLayer> {
    let found = layers.get(side).and_then(|layers| layers.get(place.layer));
    found.copied().expected("no such layer")
}

/// The digests that indexes have of these files.
fn digests(store: &Store, layers: &[Vec<&OpenLayer>; 2], pairs: &[Pair]) -> Result<Digests> {
    let mut wanted: HashMap<Slot, HashSet<u64>> = HashMap::new();
    for pair in pairs {
        for (side, place) in pair.places.iter().enumerate() {
            let slot = layer(layers, side, place)?.reader.slot();
            let starts = match wanted.get_mut(slot) {
                Some(starts) => starts,
                None => wanted.entry(slot.clone()).or_default(),
            };
            starts.extend(place.start());
        }
    }
    Ok(tokio::task::block_in_place(|| load(store, &wanted))?)
}

/// What is known without reading.
fn told(pair: &Pair, claims: &[Claim; 2]) -> Option<bool> {
    let [from, to] = &pair.places;
    if from.stored() != to.stored() {
        return None;
    }
    let lengths =
        |chunks: &[(u64, _)]| chunks.iter().map(|(length, _)| *length).collect::<Vec<_>>();
    match claims {
        [Claim::Stored(one), Claim::Stored(other)] => Some(one == other),
        [Claim::Chunks(one), Claim::Chunks(other)] if lengths(one) == lengths(other) => {
            Some(one == other)
        }
        _ => None,
    }
}

/// The cheapest way to tell; what it reads is noted in `fetches`.
fn plan(
    layers: &[Vec<&OpenLayer>; 2],
    pair: &Pair,
    claims: [Claim; 2],
    fetches: &mut HashMap<Slot, Fetches>,
) -> Result<Plan> {
    let [from, to] = &pair.places;
    let [of_old, of_new] = claims;
    let is_same_layout = from.stored() == to.stored();
    let mut spans = Vec::new();
    let mut costs = Vec::new();
    for (side, place) in pair.places.iter().enumerate() {
        let open = layer(layers, side, place)?;
        let covering = place
            .in_layer()
            .flat_map(|range| open.index.spans.covering(range));
        let ids: BTreeSet<usize> = covering.collect();
        let fetch = fetches.get(open.reader.slot());
        costs.push(fetch.map_or(0, |fetch| fetch.cost(&ids)));
        spans.push((open.reader.slot(), ids));
    }
    let cheaper_is_new = costs.first() > costs.last();
    let plan = match (of_old, of_new) {
        (Claim::Nothing, Claim::Nothing) => Plan::Both,
        _ if !is_same_layout => Plan::Both,
        (Claim::Nothing, of_new) => Plan::Against(0, of_new),
        (of_old, Claim::Nothing) => Plan::Against(1, of_old),
        (of_old, _) if cheaper_is_new => Plan::Against(1, of_old),
        (_, of_new) => Plan::Against(0, of_new),
    };
    for (side, (slot, ids)) in spans.into_iter().enumerate() {
        let is_read = match &plan {
            Plan::Against(read, _) => *read == side,
            Plan::Both => true,
        };
        if let Some(fetch) = fetches.get_mut(slot).filter(|_| is_read) {
            fetch.planned.extend(ids);
        }
    }
    Ok(plan)
}

impl Fetches {
    fn cost(&self, spans: &BTreeSet<usize>) -> u64 {
        spans.iter().filter_map(|id| self.bytes.get(*id)).sum()
    }

    fn total(&self) -> u64 {
        self.cost(&self.planned)
    }
}

/// Bytes of blobs that were fetched by reads so far.
fn fetched(layers: &[Vec<&OpenLayer>; 2]) -> u64 {
    let readers = layers.iter().flatten().map(|layer| &layer.reader);
    let mut seen = HashSet::new();
    readers
        .filter(|reader| seen.insert(Arc::as_ptr(reader)))
        .map(|reader| reader.counters().fetched)
        .sum()
}

/// Whether two files have the same bytes.
async fn read(images: [&Arc<ImageFs>; 2], pair: &Pair, plan: Plan) -> Result<bool> {
    let [old, new] = images;
    let mut buf = Vec::new();
    if let Plan::Against(side, claim) = plan {
        let Some(mut check) = Check::new(claim) else {
            return Ok(false);
        };
        let (image, ino, place) = match side {
            0 => (old, pair.inos[0], &pair.places[0]),
            _ => (new, pair.inos[1], &pair.places[1]),
        };
        for piece in pieces(place.stored()) {
            read_exact(image, ino, &piece, &mut buf).await?;
            check.update(&buf);
        }
        return Ok(check.finish());
    }
    let mut stored: Vec<Range<u64>> = pair.places.iter().flat_map(Place::stored).collect();
    stored.sort_by_key(|range| (range.start, range.end));
    let mut other = Vec::new();
    for piece in pieces(stored) {
        read_exact(old, pair.inos[0], &piece, &mut buf).await?;
        read_exact(new, pair.inos[1], &piece, &mut other).await?;
        if buf != other {
            return Ok(false);
        }
    }
    Ok(true)
}

/// These ranges in pieces, what was there before left out.
fn pieces(ranges: Vec<Range<u64>>) -> impl Iterator<Item = Range<u64>> {
    let mut end = 0;
    ranges.into_iter().flat_map(move |range| {
        let start = range.start.max(end);
        end = end.max(range.end);
        let cuts = (start..end).step_by(usize::try_from(PIECE).unwrap_or(usize::MAX));
        cuts.map(move |cut| cut..end.min(cut.saturating_add(PIECE)))
    })
}

async fn read_exact(
    image: &Arc<ImageFs>,
    ino: Ino,
    range: &Range<u64>,
    buf: &mut Vec<u8>,
) -> Result<()> {
    let size = usize::try_from(range.end - range.start).unwrap_or(usize::MAX);
    image.read(ino, range.start, size, buf).await?;
    Ok(())
}
