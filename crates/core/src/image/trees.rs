//! The trees of a process's open images: images of the same layers share one, as it never changes.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use crate::store::Slot;
use imgfs_formats::tree::Tree;

/// What a tree is made from: the indexes of its layers, base first, and whether the files that
/// belong to a layer's format are left out.
pub(super) type TreeKey = Vec<(Slot, bool)>;

/// Trees that are in use.
#[derive(Default)]
pub struct Trees(Mutex<HashMap<TreeKey, Weak<Tree>>>);

impl Trees {
    /// The tree of these layers, if somebody uses it.
    pub(super) fn get(&self, key: &TreeKey) -> Option<Arc<Tree>> {
        let trees = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        trees.get(key).and_then(Weak::upgrade)
    }

    /// Lets others use a tree. Of two that were made at the same time one stays.
    pub(super) fn share(&self, key: TreeKey, tree: Tree) -> Arc<Tree> {
        let mut trees = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        trees.retain(|_, tree| tree.strong_count() > 0);
        if let Some(shared) = trees.get(&key).and_then(Weak::upgrade) {
            return shared;
        }
        let tree = Arc::new(tree);
        trees.insert(key, Arc::downgrade(&tree));
        tree
    }
}
