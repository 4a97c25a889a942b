//! Which spans to fetch before anybody asks for them.
//!
//! Programs read a layer in neighbourhoods: one file to its end, the files of a directory, which tar keeps together, or
//! some of them in any order. Over a distant registry each span that is waited for costs a round trip, in which the
//! line could bring three others. So when spans near to each other are needed one after the other, those that follow
//! in tar order are fetched, too:
//!
//! ```text
//! needed   10   11      15      12      40
//! window   0    2       8       16      0
//! ahead    -    12-13   16-23   13-28   -        (what is here or on its way is left out)
//! ```
//!
//! Near is what lies within the window, or [`REACH`], of one of the spans needed last; so programs may alternate
//! between several places. Whoever reads elsewhere is alone with his span: the window closes and what had not been
//! asked for yet is dropped. It opens again with the next two spans that are near to each other.
//!
//! This is only the policy: spans in, spans out. `super::fetch` says when a span is needed (when it is read for the first
//! time, whether it was missing or had been fetched ahead) and how much is asked for at a time.

use std::collections::VecDeque;
use std::ops::Range;

/// Spans this near to each other are one neighbourhood: about a MiB of the blob, what the line brings in a round trip of
/// 40 ms at 200 Mbit/s. In a layer of 250 MB one random read in ten is so near to one of the last [`REMEMBERED`].
const REACH: usize = 4;
/// Spans needed last that count: programs alternate between a few places. More would make random reads look related.
const REMEMBERED: usize = 8;
/// Spans ahead after the second of a neighbourhood; each further one multiplies them by [`GROWTH`].
const FIRST_WINDOW: usize = 2;
/// See [`FIRST_WINDOW`]. Three reads reach the largest window.
const GROWTH: usize = 4;
/// Most spans ahead: 5.6 MB of a usual gzip layer, what 200 Mbit/s bring in five round trips of 40 ms. That is also what a
/// guess that is wrong can cost.
const LARGEST_WINDOW: usize = 16;

/// What reads of one layer were like lately.
#[derive(Debug, Default)]
pub(super) struct ReadAhead {
    window: usize,
    /// Spans needed last, newest last.
    recent: VecDeque<usize>,
    /// To be fetched ahead, not asked for yet.
    pending: Range<usize>,
}

impl ReadAhead {
    /// A read needs `spans` for the first time.
    pub(super) fn needed(&mut self, spans: &Range<usize>) {
        let Some(last) = spans.end.checked_sub(1) else {
            return;
        };
        if self.recent.back() == Some(&last) {
            // Tried again after a failure.
            return;
        }
        let reach = self.window.max(REACH);
        let is_near = |recent: &usize| {
            (spans.start.saturating_sub(reach)..spans.end + reach).contains(recent)
        };
        self.window = match self.window {
            _ if !self.recent.iter().any(is_near) => 0,
            0 => FIRST_WINDOW,
            window => (window * GROWTH).min(LARGEST_WINDOW),
        };
        self.pending = spans.end..spans.end + self.window;
        self.recent.push_back(last);
        if self.recent.len() > REMEMBERED {
            self.recent.pop_front();
        }
    }

    /// Takes the next neighbours to be fetched ahead, of those that `is_wanted` lets through: the first in any case,
    /// and then as many as `fits` likes.
    pub(super) fn take(
        &mut self,
        is_wanted: impl Fn(usize) -> bool,
        fits: impl Fn(&Range<usize>) -> bool,
    ) -> Range<usize> {
        while !self.pending.is_empty() && !is_wanted(self.pending.start) {
            self.pending.start += 1;
        }
        let mut taken = self.pending.start..self.pending.start;
        while taken.end < self.pending.end && is_wanted(taken.end) {
            if !taken.is_empty() && !fits(&(taken.start..taken.end + 1)) {
                break;
            }
            taken.end += 1;
        }
        self.pending.start = taken.end;
        taken
    }

    /// Whether what is to be fetched next begins at `span`.
    pub(super) fn goes_on_at(&self, span: usize) -> bool {
        !self.pending.is_empty() && self.pending.start == span
    }

    /// Drops what has not been asked for: it would fail.
    pub(super) fn stop(&mut self) {
        self.pending = 0..0;
        self.window = 0;
    }
}
