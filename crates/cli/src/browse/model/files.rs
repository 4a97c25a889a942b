//! The right side: a listing, of which the folds, the filter and the marks leave some lines to be
//! seen.
//!
//! Folds are remembered by path, so that they stay from one layer to the next.

use std::collections::HashSet;
use std::sync::Arc;

use super::{Entry, Listed, Listing, Mark};

/// Directories that are open, by their paths.
#[derive(Debug, Default)]
struct Folds {
    /// Whether they are open if not named below.
    open: bool,
    but: HashSet<Vec<u8>>,
}

impl Folds {
    fn is_open(&self, path: &[u8]) -> bool {
        self.open != self.but.contains(path)
    }

    fn set(&mut self, path: Vec<u8>, open: bool) {
        if open == self.open {
            self.but.remove(&path);
        } else {
            self.but.insert(path);
        }
    }

    fn set_all(&mut self, open: bool) {
        self.open = open;
        self.but.clear();
    }
}

/// The lines, and the one that the cursor is on.
#[derive(Default)]
pub(in super::super) struct Files {
    listed: Option<Listed>,
    listing: Option<Arc<Listing>>,
    /// Positions in the listing.
    pub rows: Vec<usize>,
    /// A position in `rows`.
    pub cursor: usize,
    /// The first line that is shown.
    pub top: usize,
    folds: Folds,
    /// Those while there is a filter: what it leaves is to be seen at once.
    filter_folds: Folds,
    filter: String,
    /// For each entry whether the filter leaves it; empty without one.
    kept: Vec<bool>,
    /// Whether what did not change is shown: for the image, for a layer.
    unchanged: [bool; 2],
    /// What was searched for last.
    pub search: String,
}

impl Files {
    /// What is shown.
    pub(in super::super) fn listed(&self) -> Option<Listed> {
        self.listed
    }

    pub(in super::super) fn listing(&self) -> Option<&Arc<Listing>> {
        self.listing.as_ref()
    }

    /// The position in the listing that the cursor is on.
    pub(in super::super) fn selected(&self) -> Option<usize> {
        self.rows.get(self.cursor).copied()
    }

    /// The filter; empty for none.
    pub(in super::super) fn filter(&self) -> &str {
        &self.filter
    }

    /// Whether what did not change is shown too.
    pub(in super::super) fn shows_unchanged(&self) -> bool {
        match self.listed {
            // An image is looked at for what is in it, a layer for what it did.
            None | Some(Listed::Image) => !self.unchanged[0],
            Some(Listed::Layer(_)) => self.unchanged[1],
        }
    }

    pub(super) fn toggle_unchanged(&mut self) {
        let which = usize::from(matches!(self.listed, Some(Listed::Layer(_))));
        self.unchanged[which] = !self.unchanged[which];
        self.refresh();
    }

    /// Shows another listing; the cursor stays on its path, or on what is left of that.
    pub(super) fn set(&mut self, listed: Listed, listing: Arc<Listing>) {
        let mut path = self.selected_path().unwrap_or_default();
        self.listed = Some(listed);
        let mut position = listing.find(&path);
        while position.is_none() {
            path.truncate(path.iter().rposition(|byte| *byte == b'/').unwrap_or(0));
            position = listing.find(&path);
        }
        self.listing = Some(listing);
        self.keep();
        self.list(position);
    }

    pub(super) fn set_filter(&mut self, filter: &str) {
        if self.filter == filter {
            return;
        }
        filter.clone_into(&mut self.filter);
        self.filter_folds.set_all(true);
        self.keep();
        self.refresh();
    }

    pub(super) fn go(&mut self, to: usize) {
        self.cursor = to.min(self.rows.len().saturating_sub(1));
    }

    pub(super) fn scroll(&mut self, shown: usize) {
        self.top = window(self.top, self.cursor, self.rows.len(), shown);
    }

    /// Whether a line has others below it that can be seen.
    pub(in super::super) fn is_open(&self, position: usize) -> bool {
        let path = self.listing.as_ref().map(|listing| listing.path(position));
        path.is_some_and(|path| self.current_folds().is_open(&path))
    }

    pub(super) fn fold(&mut self, position: usize, open: bool) {
        if let Some(path) = self.listing.as_ref().map(|listing| listing.path(position)) {
            self.folds_to_change().set(path, open);
            self.refresh();
        }
    }

    pub(super) fn fold_all(&mut self, open: bool) {
        self.folds_to_change().set_all(open);
        self.refresh();
    }

    /// Goes to the line of the directory that the selected one is in.
    pub(super) fn go_up(&mut self) {
        let entry = self.selected_entry();
        if let Some(parent) = entry.map(|entry| entry.parent)
            && let Some(row) = self.rows.iter().position(|row| *row == parent)
        {
            self.cursor = row;
        }
    }

    pub(super) fn selected_entry(&self) -> Option<&Entry> {
        self.listing.as_ref()?.entry(self.selected()?)
    }

    /// Goes to the next entry (or the one before) that has `search` in its name, round the end,
    /// into what is folded too; with a slash in it, the path is looked at. Whether there is one.
    pub(super) fn find(&mut self, backward: bool) -> bool {
        let Some(listing) = self.listing.clone() else {
            return false;
        };
        let count = listing.len();
        let start = self.selected().unwrap_or(0);
        let needle = Needle::new(&self.search);
        let whole_path = self.search.contains('/');
        for step in 1..=count {
            let position = if backward {
                (start + count - step % count) % count
            } else {
                (start + step) % count
            };
            let Some(entry) = listing.entry(position) else {
                continue;
            };
            if !self.is_candidate(position, entry) {
                continue;
            }
            let is_hit = if whole_path {
                needle.is_in(&listing.path(position))
            } else {
                needle.is_in(listing.name(entry))
            };
            if is_hit {
                self.reveal(position);
                return true;
            }
        }
        false
    }

    /// Whether an entry could be seen if all directories were open.
    fn is_candidate(&self, position: usize, entry: &Entry) -> bool {
        entry.depth > 0
            && (self.shows_unchanged() || entry.mark != Mark::Same)
            && self.kept.get(position).copied().unwrap_or(true)
    }

    /// Opens what an entry is in, and goes there.
    fn reveal(&mut self, position: usize) {
        let Some(listing) = self.listing.clone() else {
            return;
        };
        let mut above = listing.entry(position).map(|entry| entry.parent);
        while let Some(parent) = above.filter(|parent| *parent > 0) {
            self.folds_to_change().set(listing.path(parent), true);
            above = listing.entry(parent).map(|entry| entry.parent);
        }
        self.list(Some(position));
    }

    fn current_folds(&self) -> &Folds {
        if self.filter.is_empty() {
            &self.folds
        } else {
            &self.filter_folds
        }
    }

    fn folds_to_change(&mut self) -> &mut Folds {
        if self.filter.is_empty() {
            &mut self.folds
        } else {
            &mut self.filter_folds
        }
    }

    fn selected_path(&self) -> Option<Vec<u8>> {
        Some(self.listing.as_ref()?.path(self.selected()?))
    }

    /// What the filter leaves: the paths that contain it, and the directories that lead to them.
    fn keep(&mut self) {
        self.kept.clear();
        let Some(listing) = self.listing.as_ref().filter(|_| !self.filter.is_empty()) else {
            return;
        };
        let needle = Needle::new(&self.filter);
        self.kept.resize(listing.len(), false);
        // The path of each entry, and how long those of the directories above it are.
        let (mut path, mut lengths) = (Vec::new(), Vec::new());
        for position in 0..listing.len() {
            let Some(entry) = listing.entry(position) else {
                continue;
            };
            lengths.truncate(entry.depth);
            path.truncate(lengths.last().copied().unwrap_or(0));
            if entry.depth > 0 {
                path.push(b'/');
                path.extend_from_slice(listing.name(entry));
            }
            lengths.push(path.len());
            if needle.is_in(&path) {
                let mut above = Some(position);
                while let Some(kept) = above
                    .and_then(|above| self.kept.get_mut(above))
                    .filter(|kept| !**kept)
                {
                    *kept = true;
                    above = above
                        .and_then(|above| listing.entry(above))
                        .map(|entry| entry.parent);
                }
            }
        }
    }

    /// Lists the lines anew; the cursor stays where it is.
    fn refresh(&mut self) {
        self.list(self.selected());
    }

    /// Lists the lines anew, with the cursor on this entry or the last line before it.
    fn list(&mut self, selected: Option<usize>) {
        let Some(listing) = self.listing.clone() else {
            return;
        };
        self.rows.clear();
        let mut position = 1;
        while let Some(entry) = listing.entry(position) {
            if !self.is_candidate(position, entry) {
                position = entry.end;
                continue;
            }
            self.rows.push(position);
            let goes_in = entry.end > position + 1 && self.is_open(position);
            position = if goes_in { position + 1 } else { entry.end };
        }
        let before = self
            .rows
            .partition_point(|row| selected.is_some_and(|selected| *row <= selected));
        self.cursor = before.saturating_sub(1);
    }
}

/// Letters to look for. Capital ones count only if there are some.
struct Needle {
    text: Vec<u8>,
    any_case: bool,
}

impl Needle {
    fn new(text: &str) -> Self {
        Self {
            text: text.as_bytes().to_vec(),
            any_case: !text.chars().any(char::is_uppercase),
        }
    }

    fn is_in(&self, text: &[u8]) -> bool {
        let is_it = |part: &[u8]| {
            if self.any_case {
                part.eq_ignore_ascii_case(&self.text)
            } else {
                part == self.text
            }
        };
        self.text.is_empty() || text.windows(self.text.len()).any(is_it)
    }
}

/// Where to begin to show `count` lines on `shown` so that the cursor is seen and no line stays
/// empty without need.
pub(super) fn window(top: usize, cursor: usize, count: usize, shown: usize) -> usize {
    let lowest = (cursor + 1).saturating_sub(shown);
    top.max(lowest)
        .min(cursor)
        .min(count.saturating_sub(shown).max(lowest))
}
