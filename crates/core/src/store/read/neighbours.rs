//! Which spans to fetch before anybody asks for them.
//!
//! Programs read a layer in neighbourhoods: one file to its end, the files of a directory, which
//! tar keeps together, or some of them in any order. Over a distant registry each span that is
//! waited for costs a round trip, in which the line could bring three others. So when spans near to
//! each other are needed one after the other, those that follow in tar order are fetched, too:
//!
//! ```text
//! needed   10    11    12     13       9         60
//!                near  right  right    near      elsewhere
//! window   0     1     4      16       16        0
//! ahead    -     12    13-16  14-29    10-25     -          (what is here or on its way is left out)
//! ```
//!
//! Near is what lies within the window, or [`REACH`], of one of the spans needed last; so programs
//! may alternate between several places. That opens the window; it grows only when a guess was
//! right, when a span that had been fetched ahead is read. So random reads that are near to each
//! other by chance cost little: of a hundred in an image of 300 MB, where many small files lie
//! close together, some have one span fetched for nothing. A program that reads elsewhere is alone
//! with his span: the window closes, and what had not been asked for yet is dropped.
//!
//! This is only the policy: spans in, spans out. `super::fetch` says when a span is needed (when it
//! is read for the first time, whether it was missing or had been fetched ahead) and how much is
//! asked for at a time.

use std::collections::VecDeque;
use std::ops::Range;

/// Spans this near to each other are one neighbourhood: about a MiB of the blob, what the line
/// brings in a round trip of 40 ms at 200 Mbit/s. With more, more random reads look related.
const REACH: usize = 3;
/// Spans needed last that count: programs alternate between a few places. More would make random
/// reads look related.
const REMEMBERED: usize = 8;
/// What a guess that was right multiplies the window by: three of them reach the largest. Doubling
/// costs `import numpy` a tenth of a second.
const GROWTH: usize = 4;
/// Most spans ahead: 8 MB of a usual gzip layer, what 200 Mbit/s bring in eight round trips of 40
/// ms; that is also what a guess that is wrong can cost. With 16 the line runs dry now and then
/// while all of an image is read (by a model of the line fed with real reads: 14.2 s instead of
/// 13.9, where the wire alone takes 11.9).
const LARGEST_WINDOW: usize = 24;

/// What reads of one layer were like lately.
#[derive(Debug, Default)]
pub(super) struct ReadAhead {
    window: usize,
    /// Spans needed last, newest last.
    recent: VecDeque<usize>,
    /// To be fetched ahead, not asked for yet. Its end stays when it is empty.
    pending: Range<usize>,
}

impl ReadAhead {
    /// A read needs `spans` for the first time; `was_guessed` if all that was missing of them had
    /// been fetched ahead.
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
        // Each span on its own would be a request on its own: more only when a quarter of the
        // window is used up.
        let left = self.pending.end.saturating_sub(spans.end);
        if left <= self.window - self.window.div_ceil(4) || left > self.window {
            self.pending = spans.end..spans.end.saturating_add(self.window);
        }
        self.recent.push_back(last);
        if self.recent.len() > REMEMBERED {
            self.recent.pop_front();
        }
    }

    /// Takes the next neighbours to be fetched ahead, of those that `is_wanted` lets through: the
    /// first in any case, and then as many as `fits` likes.
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A read of spans, what had been fetched ahead among them or not, and what is fetched ahead
    /// then.
    type Step = (Range<usize>, bool, Range<usize>);

    #[track_caller]
    fn check(steps: &[Step]) {
        let mut ahead = ReadAhead::default();
        for (number, (needed, was_guessed, expected)) in steps.iter().enumerate() {
            ahead.needed(needed, *was_guessed);
            let found = ahead.take(|_| true, |_| true);
            assert_eq!(&found, expected, "step {number}: {needed:?}");
        }
    }

    #[test]
    fn the_second_read_of_a_neighbourhood_opens_the_window_and_right_guesses_let_it_grow() {
        check(&[
            (10..11, false, 11..11),
            (11..12, false, 12..13),
            (12..13, true, 13..17),
            (13..14, true, 14..30),
            (14..15, true, 15..39),
            (15..16, true, 39..39),
            (19..20, true, 39..39),
            (20..21, true, 21..45),
            (12..13, false, 13..37),
            (60..61, false, 61..61),
            (61..62, false, 62..63),
        ]);
    }

    #[test]
    fn guesses_that_are_not_read_keep_the_window_small() {
        check(&[
            (10..11, false, 11..11),
            (13..14, false, 14..15),
            (16..17, false, 17..18),
            (19..20, false, 20..21),
        ]);
    }

    #[test]
    fn random_reads_are_alone_with_their_spans() {
        let places = [700, 3, 250, 90, 500, 40, 333, 610, 120, 480, 4, 701];
        let steps: Vec<Step> = (places.iter())
            .map(|place| (*place..place + 1, false, place + 1..place + 1))
            .collect();
        // 4 is near to 3 and 701 to 700, but that is eight reads ago.
        check(&steps);
    }

    #[test]
    fn several_neighbourhoods_at_a_time_keep_the_window_open() {
        check(&[
            (10..11, false, 11..11),
            (80..81, false, 81..81),
            (11..12, false, 12..13),
            (81..82, false, 82..83),
            (12..13, true, 13..17),
            (82..83, true, 83..99),
        ]);
    }

    #[test]
    fn a_read_elsewhere_drops_what_was_not_asked_for() {
        let mut ahead = ReadAhead::default();
        ahead.needed(&(10..11), false);
        ahead.needed(&(11..12), false);
        assert!(ahead.goes_on_at(12));
        ahead.needed(&(90..91), false);
        assert!(ahead.take(|_| true, |_| true).is_empty());
    }

    #[test]
    fn an_attempt_after_a_failure_is_no_second_read() {
        let mut ahead = ReadAhead::default();
        for _ in 0..3 {
            ahead.needed(&(10..11), false);
        }
        assert!(ahead.take(|_| true, |_| true).is_empty());
        ahead.needed(&(11..12), false);
        ahead.stop();
        assert!(ahead.take(|_| true, |_| true).is_empty());
    }

    #[test]
    fn what_is_here_is_left_out_and_runs_are_cut() {
        let mut ahead = ReadAhead::default();
        for (id, was_guessed) in [(9, false), (10, false), (11, true), (12, true)] {
            ahead.needed(&(id..id + 1), was_guessed);
        }
        let is_wanted = |id| id < 20 && id != 13 && id != 16;
        let fits = |run: &Range<usize>| run.len() <= 2;
        let runs: Vec<_> = std::iter::repeat_with(|| ahead.take(is_wanted, fits))
            .take_while(|run| !run.is_empty())
            .collect();
        assert_eq!(runs, [14..16, 17..19, 19..20]);
        ahead.needed(&(usize::MAX - 1..usize::MAX), false);
    }
}
