//! Answers without a mount: layers are opened from the top down, only as far as the question needs.

use std::sync::Arc;

use super::opened::LayerProgress;
use super::resolve::Image;
use crate::error::{EngineError, Expected, Result};
use crate::indexes::{hide_format_files, stream_instead};
use crate::store::{OpenLayer, Store};
use crate::view::ImageFs;
use imgfs_formats::layer::Toc;
use imgfs_formats::tree::{Answer, Ino, PartialTree, PathError, Tree, TreeError, Warning};

/// An image of which some layers, from the top, are open.
pub struct Peek {
    /// The image.
    pub image: Image,
    store: Arc<Store>,
    /// Open layers, lowest first.
    open: Vec<OpenLayer>,
    /// How many layers below are not open.
    below: usize,
    tree: PartialTree,
}

impl Peek {
    /// Nothing is open yet.
    pub fn new(store: Arc<Store>, image: Image) -> Self {
        let below = image.resolved.manifest.layers.len();
        Self {
            image,
            store,
            tree: PartialTree::start(below > 0),
            open: Vec::new(),
            below,
        }
    }

    /// The node at `path` (following links, at its end too if `follow`), once `enough` is known
    /// about it. `announce` is told of each download before it starts. If the path leads nowhere
    /// the error's cause is a [`PathError`].
    pub async fn find(
        &mut self,
        path: &[u8],
        follow: bool,
        enough: impl Fn(&PartialTree, Ino) -> bool,
        mut announce: impl FnMut(LayerProgress),
    ) -> Result<Ino> {
        loop {
            match self.tree.resolve(path, follow) {
                Answer::Found(ino) if enough(&self.tree, ino) => return Ok(ino),
                Answer::Absent(err) => return Err(self.nowhere(path, err)),
                Answer::Found(ino) if self.below == 0 => return Ok(ino),
                Answer::NeedsLowerLayer if self.below == 0 => {
                    return Err(self.nowhere(path, PathError::NotFound));
                }
                Answer::Found(_) | Answer::NeedsLowerLayer => {}
            }
            self.open_next(&mut announce).await?;
        }
    }

    /// An error whose cause is a [`PathError`].
    fn nowhere(&self, path: &[u8], err: PathError) -> EngineError {
        let text = format!("{}: {err} in {}", path.escape_ascii(), self.image.reference);
        EngineError::from(err).within(text)
    }

    /// Opens layers until `enough` is known, or all. `announce` is told of each download before it
    /// starts.
    pub async fn open_until(
        &mut self,
        enough: impl Fn(&PartialTree) -> bool,
        mut announce: impl FnMut(LayerProgress),
    ) -> Result<()> {
        while self.below > 0 && !(self.has_begun() && enough(&self.tree)) {
            self.open_next(&mut announce).await?;
        }
        Ok(())
    }

    /// Opens all layers. `announce` is told of each download before it starts.
    pub async fn open_all(&mut self, mut announce: impl FnMut(LayerProgress)) -> Result<()> {
        while self.below > 0 {
            self.open_next(&mut announce).await?;
        }
        Ok(())
    }

    /// The cache that they are opened in.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The open layers with their positions in the image, where the base is 0: all from some
    /// position up.
    pub fn layers(&self) -> impl Iterator<Item = (usize, &OpenLayer)> {
        (self.below..).zip(&self.open)
    }

    /// The tree as far as it is known.
    pub fn tree(&self) -> &Tree {
        self.tree.tree()
    }

    /// The filesystem over the layers open so far, for reading; others may be opened afterwards.
    pub fn fs(&self) -> Arc<ImageFs> {
        let readers = self.open.iter().map(|layer| Arc::clone(&layer.reader));
        Arc::new(ImageFs::new(
            Arc::new(self.tree().clone()),
            readers.collect(),
        ))
    }

    /// The filesystem over the open layers, for reading.
    pub fn into_fs(self) -> Arc<ImageFs> {
        let readers = self.open.into_iter().map(|layer| layer.reader);
        Arc::new(ImageFs::new(
            Arc::new(self.tree.into_tree()),
            readers.collect(),
        ))
    }

    /// Whether any layer is open.
    fn has_begun(&self) -> bool {
        !self.open.is_empty()
    }

    /// Opens the next layer below, and those under it that cost nothing because their index is
    /// here.
    async fn open_next(&mut self, announce: &mut impl FnMut(LayerProgress)) -> Result<()> {
        let layers = self.image.resolved.manifest.layers.clone();
        let mut opened = 0;
        while let Some(blob) = self.below.checked_sub(1).and_then(|next| layers.get(next)) {
            let is_free = self.store.has_index(&blob.digest);
            if opened > 0 && !is_free {
                break;
            }
            let found = self.image.finder.take(&blob.digest).await.found;
            let mut layer = if let Some(found) = found {
                found.layer
            } else {
                let download = LayerProgress {
                    blob: blob.clone(),
                    progress: Arc::default(),
                };
                if !is_free {
                    announce(download.clone());
                }
                self.store
                    .open_layer(&self.image.source, blob, &download.progress)
                    .await?
            };
            hide_format_files(blob, &mut layer.index);
            self.open.insert(0, layer);
            self.below -= 1;
            opened += 1;
        }
        let (tree, warnings) = loop {
            let tocs: Vec<_> = self.open.iter().map(|layer| &layer.index.toc).collect();
            let is_all = self.below == 0;
            let build = || merge(&tocs, is_all);
            let built = self.store.cores().run_here(build).await;
            let built = built.expected("merging layers stopped")?;
            let err = match built {
                Ok(built) => break built,
                Err(err) => err,
            };
            // The open layers are the topmost ones.
            let blobs = layers.iter().skip(self.below);
            let mut open = self.open.iter_mut().zip(blobs);
            let Some((layer, blob)) = err.layer().and_then(|position| open.nth(position)) else {
                return Err(err.into());
            };
            let source = &self.image.source;
            *layer = stream_instead(&self.store, source, blob, &layer.reader, err).await?;
        };
        for warning in warnings {
            tracing::debug!("{warning}");
        }
        self.tree = tree;
        Ok(())
    }
}

/// Merges layers: all of an image, or its topmost ones.
pub(crate) fn merge(
    tocs: &[&Toc],
    is_all: bool,
) -> std::result::Result<(PartialTree, Vec<Warning>), TreeError> {
    if is_all {
        let (tree, warnings) = Tree::build(tocs)?;
        return Ok((PartialTree::complete(tree), warnings));
    }
    PartialTree::build(tocs)
}
