//! Which spans to fetch before anybody asks for them.
//!
//! Programs read a layer in neighbourhoods: one file to its end, the files of a directory, which tar keeps together, or
//! some of them in any order. Over a distant registry each span that is waited for costs a round trip, in which the
//! line could bring three others. So when spans near to each other are needed one after the other, those that follow
//! in tar order are fetched, too:
//!
//! ```text
//! needed   10    11    12     13       9         40
//!                near  right  right    near      elsewhere
//! window   0     1     4      16       16        0
//! ahead    -     12    13-16  14-29    10-25     -          (what is here or on its way is left out)
//! ```
//!
//! Near is what lies within the window, or [`REACH`], of one of the spans needed last; so programs may alternate
//! between several places. That opens the window; it grows only when a guess was right, when a span that had been
//! fetched ahead is read. So random reads that are near to each other by chance cost little: of a hundred in an image of
//! 300 MB, where many small files lie close together, some have one span fetched for nothing. Whoever reads elsewhere is
//! alone with his span: the window closes, and what had not been asked for yet is dropped.
//!
//! This is only the policy: spans in, spans out. `super::fetch` says when a span is needed (when it is read for the first
//! time, whether it was missing or had been fetched ahead) and how much is asked for at a time.

use std::collections::VecDeque;
use std::ops::Range;

/// Spans this near to each other are one neighbourhood: about a MiB of the blob, what the line brings in a round trip of
/// 40 ms at 200 Mbit/s. With more, more random reads look related.
const REACH: usize = 3;
/// Spans needed last that count: programs alternate between a few places. More would make random reads look related.
const REMEMBERED: usize = 8;
/// What a guess that was right multiplies the window by: two of them reach the largest. Doubling costs `import numpy` a
/// tenth of a second.
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
    /// A read needs `spans` for the first time; `was_guessed` if all that was missing of them had been fetched ahead.
    pub(super) fn needed(&mut self, spans: &Range<usize>, was_guessed: bool) {
        let Some(last) = spans.end.checked_sub(1) else {
            return;
        };
        if self.recent.back() == Some(&last) {
            // Tried again after a failure, or the rest of a program.
            return;
        }
        let reach = self.window.max(REACH);
        let near = spans.start.saturating_sub(reach)..spans.end.saturating_add(reach);
        self.window = if !self.recent.iter().any(|recent| near.contains(recent)) {
            0
        } else if was_guessed {
            (self.window * GROWTH).clamp(1, LARGEST_WINDOW)
        } else {
            self.window.max(1)
        };
        self.pending = spans.end..spans.end.saturating_add(self.window);
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
