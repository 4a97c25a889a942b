//! What differs between two images, from the indexes of their layers.
//!
//! ```text
//! old   base ── a ── b ── c            layers that both have at the bottom say the same in both: they are opened if that
//! new   base ── a ── d ── e            costs nothing, or else if it is asked for, where those above leave something open
//! ```
//!
//! Whether two files have the same bytes is told by the digests that the indexes have of them
//! (`digests`); where there are none, files are read (`content`), or their layer is streamed once
//! if that costs less.

mod content;
mod digests;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use futures_util::future::{join_all, try_join_all};

use crate::error::{EngineError, Expected, Result, fail};
use crate::image::{Image, LayerProgress, merge};
use crate::indexes::{hide_format_files, stream_instead};
use crate::store::{OpenLayer, Store};
use crate::view::ImageFs;
use content::{Decided, decide};
use imgfs_formats::layer::estargz::TOC_DIGEST;
use imgfs_formats::oci::{Descriptor, Digest};
use imgfs_formats::tree::{
    Aspects, Change, ChangeKind, ChangesAbove, PartialTree, PathError, changes_above,
};

/// An image, or the lower layers of one.
#[derive(Clone)]
pub struct Compared {
    /// The image.
    pub image: Image,
    /// How many of its layers count, from the base on.
    pub layers: usize,
}

/// Two images that are compared. Must run on a runtime of several threads.
pub struct Comparison {
    store: Arc<Store>,
    /// The old and the new one.
    images: [Image; 2],
    /// Their layers, base first.
    blobs: [Vec<Descriptor>; 2],
    /// How many layers, from the base on, are the same in both and not open.
    below: usize,
    open: HashMap<LayerKey, OpenLayer>,
    cost: Cost,
}

/// What differs, and how to read it.
pub struct Differences {
    /// What was found, the changes in the order of a walk.
    pub found: ChangesAbove,
    /// The old image, as far as it had to be opened.
    pub old: Arc<ImageFs>,
    /// The new one.
    pub new: Arc<ImageFs>,
    /// What it took beside the indexes.
    pub cost: Cost,
    /// The lowest layers, which both have, were not opened, although they may tell more. `None`:
    /// nothing more.
    pub unopened: Option<Unopened>,
}

/// Layers that are not opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unopened {
    /// Their number, from the base on.
    pub layers: usize,
    /// What it would take to open them, in bytes of blobs at most.
    pub size: u64,
}

/// What a comparison took because indexes had no digests of files.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cost {
    /// Files that were read, in one image or both.
    pub files_read: usize,
    /// Bytes of blobs that were fetched for that.
    pub fetched: u64,
    /// Layers that were streamed to index them anew.
    pub streamed: Vec<Descriptor>,
}

/// A layer, and whether what its format adds to it is hidden: the manifest's word, and two may
/// differ.
type LayerKey = (Digest, bool);

fn key(blob: &Descriptor) -> LayerKey {
    (blob.digest, blob.annotations.contains_key(TOC_DIGEST))
}

impl Comparison {
    /// Nothing is open yet.
    pub fn new(store: Arc<Store>, old: Compared, new: Compared) -> Self {
        let blobs = |one: &Compared| -> Vec<Descriptor> {
            let layers = one.image.resolved.manifest.layers.iter();
            layers.take(one.layers).cloned().collect()
        };
        let blobs = [blobs(&old), blobs(&new)];
        let [one, other] = &blobs;
        let same = one.iter().zip(other).take_while(|(a, b)| key(a) == key(b));
        Self {
            below: same.count(),
            store,
            images: [old.image, new.image],
            blobs,
            open: HashMap::new(),
            cost: Cost::default(),
        }
    }

    /// What differs at `path` and below. Where layers that both have could tell more, they are
    /// opened for nothing, or for what it takes if `all` is to be known. `announce` is told of
    /// downloads before they start. If the path leads nowhere in both, the error's cause is a
    /// [`PathError`].
    pub async fn run(
        mut self,
        path: &[u8],
        all: bool,
        mut announce: impl FnMut(&[LayerProgress]),
    ) -> Result<Differences> {
        self.open_tops(&mut announce).await?;
        loop {
            let [old, new] = self.trees().await?;
            // Those of which only a look at their content tells whether they changed.
            let mut files = Vec::new();
            let mut undecided = |a, b| {
                files.push((a, b));
                false
            };
            let above = changes_above(&old, &new, path, &mut undecided);
            let is_certain = above.as_ref().is_some_and(ChangesAbove::is_certain);
            if !is_certain && self.open_free().await? {
                continue;
            }
            let found = match above {
                Some(found) if is_certain || !all || self.below == 0 => found,
                _ => {
                    self.open_next(&mut announce).await?;
                    continue;
                }
            };
            if found.exists == Some(false) {
                return Err(self.nowhere(path));
            }
            let (old, new) = (self.filesystem(0, old)?, self.filesystem(1, new)?);
            let layers = [self.open_layers(0), self.open_layers(1)];
            let mut cost = self.cost.clone();
            let decided = decide(&self.store, [&old, &new], &layers, files, &mut cost).await?;
            self.cost = cost;
            match decided {
                Decided::Same(same) => {
                    let changes = found.changes.into_iter().filter_map(|change| {
                        let ChangeKind::Changed { old, new, aspects } = change.kind else {
                            return Some(change);
                        };
                        if !same.contains(&(old, new)) {
                            return Some(change);
                        }
                        let aspects = aspects.without(Aspects::CONTENT);
                        let kind = ChangeKind::Changed { old, new, aspects };
                        (!aspects.is_empty()).then_some(Change { kind, ..change })
                    });
                    let changes = changes.collect();
                    return Ok(Differences {
                        found: ChangesAbove { changes, ..found },
                        old,
                        new,
                        unopened: (!is_certain).then(|| self.unopened()),
                        cost: self.cost,
                    });
                }
                Decided::Stream(layer) => self.stream(&layer, &mut announce).await?,
            }
        }
    }

    /// Opens what only one of the images has, or both in other places.
    async fn open_tops(&mut self, announce: &mut impl FnMut(&[LayerProgress])) -> Result<()> {
        let mut wanted: Vec<(usize, Descriptor)> = Vec::new();
        for (side, blobs) in self.blobs.iter().enumerate() {
            for blob in blobs.iter().skip(self.below) {
                if !wanted.iter().any(|(_, other)| key(other) == key(blob)) {
                    wanted.push((side, blob.clone()));
                }
            }
        }
        self.open(wanted, announce).await
    }

    /// An error whose cause is a [`PathError`].
    fn nowhere(&self, path: &[u8]) -> EngineError {
        let [old, new] = self.images.each_ref().map(|image| &image.reference);
        let or = if old == new {
            String::new()
        } else {
            format!(" or {new}")
        };
        let err = PathError::NotFound;
        let text = format!("{}: {err} in {old}{or}", path.escape_ascii());
        EngineError::from(err).within(text)
    }

    /// What is not open, and would not be for nothing.
    fn unopened(&self) -> Unopened {
        let [blobs, _] = &self.blobs;
        let mut seen = HashSet::new();
        let cold = blobs.iter().take(self.below).filter(|blob| {
            !self.store.has_index(&blob.digest)
                && !self.open.contains_key(&key(blob))
                && seen.insert(blob.digest)
        });
        Unopened {
            layers: self.below,
            size: cold.map(|blob| blob.size).sum(),
        }
    }

    /// Opens the next layers below whose indexes are here, or else the next one if it is found to
    /// have one beside it; whether there was any.
    async fn open_free(&mut self) -> Result<bool> {
        let mut has_opened = false;
        loop {
            let [blobs, _] = &self.blobs;
            let next = self.below.checked_sub(1).and_then(|next| blobs.get(next));
            let Some(blob) = next.cloned() else {
                return Ok(has_opened);
            };
            let is_open = self.open.contains_key(&key(&blob));
            if !is_open && self.store.has_index(&blob.digest) {
                self.open(vec![(0, blob)], &mut |_: &[LayerProgress]| {})
                    .await?;
            } else if !is_open && (has_opened || !self.open_found(&blob).await) {
                return Ok(has_opened);
            }
            self.below -= 1;
            has_opened = true;
        }
    }

    /// Opens a layer by an index that is found beside one of the images; whether there is one.
    async fn open_found(&mut self, blob: &Descriptor) -> bool {
        for image in &self.images {
            if let Some(found) = image.finder.take(&blob.digest).await.found {
                image.finder.written().await;
                let mut layer = found.layer;
                hide_format_files(blob, &mut layer.index);
                self.open.insert(key(blob), layer);
                return true;
            }
        }
        false
    }

    /// Opens the next layer below, and those under it that cost nothing because their index is
    /// here.
    async fn open_next(&mut self, announce: &mut impl FnMut(&[LayerProgress])) -> Result<()> {
        let [blobs, _] = &self.blobs;
        let mut wanted = Vec::new();
        while let Some(blob) = self.below.checked_sub(1).and_then(|next| blobs.get(next)) {
            let is_free = self.store.has_index(&blob.digest) || self.open.contains_key(&key(blob));
            if !wanted.is_empty() && !is_free {
                break;
            }
            if !wanted.iter().any(|(_, other)| key(other) == key(blob)) {
                wanted.push((0, blob.clone()));
            }
            self.below -= 1;
        }
        if wanted.is_empty() {
            fail!(Internal, "internal: all layers do not tell what differs");
        }
        wanted.retain(|(_, blob)| !self.open.contains_key(&key(blob)));
        self.open(wanted, announce).await
    }

    /// Opens these layers at the same time, each by way of the image that it is listed with.
    async fn open(
        &mut self,
        wanted: Vec<(usize, Descriptor)>,
        announce: &mut impl FnMut(&[LayerProgress]),
    ) -> Result<()> {
        let (images, store) = (&self.images, &self.store);
        let image = |side: usize| images.get(side).expected("no such image");
        let mut searches = Vec::new();
        for (side, blob) in &wanted {
            let finder = &image(*side)?.finder;
            searches.push(async {
                let found = finder.take(&blob.digest).await.found;
                // Its digests of files are read from there.
                finder.written().await;
                found
            });
        }
        let found = join_all(searches).await;
        let mut downloads = Vec::new();
        let mut opening = Vec::new();
        for ((side, blob), found) in wanted.iter().zip(found) {
            if let Some(found) = found {
                self.open.insert(key(blob), found.layer);
                continue;
            }
            let download = LayerProgress {
                blob: blob.clone(),
                progress: Arc::default(),
            };
            if !store.has_index(&blob.digest) {
                downloads.push(download.clone());
            }
            let source = &image(*side)?.source;
            opening.push(async move {
                let layer = store.open_layer(source, blob, &download.progress).await?;
                Ok::<_, EngineError>((key(blob), layer))
            });
        }
        if !downloads.is_empty() {
            announce(&downloads);
        }
        self.open.extend(try_join_all(opening).await?);
        for (_, blob) in &wanted {
            if let Some(layer) = self.open.get_mut(&key(blob)) {
                hide_format_files(blob, &mut layer.index);
            }
        }
        Ok(())
    }

    /// Streams a layer that was opened by an index without digests, which makes it one that has
    /// them.
    async fn stream(
        &mut self,
        layer: &Digest,
        announce: &mut impl FnMut(&[LayerProgress]),
    ) -> Result<()> {
        let mut blobs = self
            .blobs
            .iter()
            .zip(&self.images)
            .flat_map(|(blobs, image)| blobs.iter().map(move |blob| (blob, image)));
        let (blob, image) =
            (blobs.find(|(blob, _)| blob.digest == *layer)).expected("no such layer")?;
        let download = LayerProgress {
            blob: blob.clone(),
            progress: Arc::default(),
        };
        if !self.store.has_index(layer) {
            announce(std::slice::from_ref(&download));
            self.cost.streamed.push(blob.clone());
        }
        for hidden in [false, true] {
            if let Some(open) = self.open.get_mut(&(*layer, hidden)) {
                let progress = &download.progress;
                let mut own = self.store.open_layer(&image.source, blob, progress).await?;
                let mut blob = blob.clone();
                if !hidden {
                    blob.annotations.clear();
                }
                hide_format_files(&blob, &mut own.index);
                *open = own;
            }
        }
        Ok(())
    }

    /// The trees of what is open.
    async fn trees(&mut self) -> Result<[PartialTree; 2]> {
        Ok([self.tree(0).await?, self.tree(1).await?])
    }

    async fn tree(&mut self, side: usize) -> Result<PartialTree> {
        let (warnings, tree) = loop {
            let layers = self.open_layers(side);
            let tocs: Vec<_> = layers.iter().map(|layer| &layer.index.toc).collect();
            let is_all = self.below == 0;
            let built = (self.store.cores())
                .run_here(|| merge(&tocs, is_all))
                .await
                .expected("merging layers stopped")?;
            let err = match built {
                Ok((tree, warnings)) => break (warnings, tree),
                Err(err) => err,
            };
            let position = err.layer().map(|position| position + self.below);
            let blob = self
                .blobs
                .get(side)
                .zip(position)
                .and_then(|(blobs, at)| blobs.get(at));
            let image = self.images.get(side);
            let (Some(blob), Some(image)) = (blob.cloned(), image) else {
                return Err(err.into());
            };
            let Some(open) = self.open.get(&key(&blob)) else {
                return Err(err.into());
            };
            let own = stream_instead(&self.store, &image.source, &blob, &open.reader, err).await?;
            self.open.insert(key(&blob), own);
        };
        for warning in warnings {
            tracing::debug!("{warning}");
        }
        Ok(tree)
    }

    /// The open layers of an image, the lowest first.
    fn open_layers(&self, side: usize) -> Vec<&OpenLayer> {
        let blobs = self.blobs.get(side).map_or(&[][..], Vec::as_slice);
        let above = blobs.iter().skip(self.below);
        above.filter_map(|blob| self.open.get(&key(blob))).collect()
    }

    fn filesystem(&self, side: usize, tree: PartialTree) -> Result<Arc<ImageFs>> {
        let layers = self.open_layers(side);
        let readers: Vec<_> = layers
            .iter()
            .map(|layer| Arc::clone(&layer.reader))
            .collect();
        let tree = tree.into_tree();
        if tree.layers() != readers.len() {
            fail!(Internal, "internal: a layer is not open");
        }
        Ok(Arc::new(ImageFs::new(Arc::new(tree), readers)))
    }
}
