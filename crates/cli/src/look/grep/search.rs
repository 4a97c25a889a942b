//! Patterns, and lines out of pieces of a file.

use std::ops::ControlFlow;

use anyhow::Context;
use regex::bytes::{Regex, RegexBuilder};

/// Longest line that is searched as one. Bounds memory: files of many GB can be without any line
/// end.
pub(super) const MAX_LINE: usize = 1 << 20;

/// How a pattern is meant.
#[derive(Clone, Copy, Default)]
pub(super) struct Pattern {
    pub fixed: bool,
    pub ignore_case: bool,
    /// Only where no word goes on before or after it.
    pub words: bool,
}

/// A pattern, or several with a line end between them, any of which may match.
pub(super) fn pattern(text: &str, how: Pattern) -> anyhow::Result<Regex> {
    let one = |text: &str| {
        let text = if how.fixed {
            regex::escape(text)
        } else {
            text.to_owned()
        };
        if how.words {
            format!(r"\b{{start-half}}(?:{text})\b{{end-half}}")
        } else {
            format!("(?:{text})")
        }
    };
    let all: Vec<_> = text.split('\n').map(one).collect();
    RegexBuilder::new(&all.join("|"))
        .case_insensitive(how.ignore_case)
        .build()
        .context("bad pattern; with -F it is taken as text")
}

/// Takes a file's pieces and gives its lines.
#[derive(Default)]
pub(super) struct Lines {
    /// The beginning of a line whose end has not come.
    begun: Vec<u8>,
    /// Lines that have ended.
    ended: u64,
    /// Parts of this line were given already.
    is_continued: bool,
}

impl Lines {
    /// Gives the lines that end in `bytes`, each with its number but without its end, until `take`
    /// has enough. A line longer than [`MAX_LINE`] is given in parts, all with its number.
    pub(super) fn feed<E>(
        &mut self,
        bytes: &[u8],
        mut take: impl FnMut(u64, &[u8]) -> Result<ControlFlow<()>, E>,
    ) -> Result<ControlFlow<()>, E> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let window = rest.get(..MAX_LINE - self.begun.len()).unwrap_or(rest);
            let end = window.iter().position(|byte| *byte == b'\n');
            let (part, after) = rest.split_at(end.unwrap_or(window.len()));
            let number = self.ended + 1;
            let is_full = self.begun.len() + part.len() == MAX_LINE;
            if end.is_none() && !is_full {
                self.begun.extend(part);
                break;
            }
            rest = after;
            let is_continued = std::mem::replace(&mut self.is_continued, end.is_none());
            if end.is_some() {
                self.ended += 1;
                rest = after.get(1..).unwrap_or_default();
                if is_continued && part.is_empty() && self.begun.is_empty() {
                    continue;
                }
            }
            let flow = if self.begun.is_empty() {
                take(number, part)?
            } else {
                self.begun.extend(part);
                let flow = take(number, &self.begun)?;
                self.begun.clear();
                flow
            };
            if flow.is_break() {
                return Ok(flow);
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// A last line that has no end.
    pub(super) fn rest(&self) -> Option<(u64, &[u8])> {
        (!self.begun.is_empty()).then_some((self.ended + 1, &self.begun))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The lines of these pieces.
    fn lines(pieces: &[&[u8]]) -> Vec<(u64, Vec<u8>)> {
        let (mut lines, mut found) = (Lines::default(), Vec::new());
        for piece in pieces {
            let flow = lines.feed(piece, |number, line| {
                found.push((number, line.to_vec()));
                Ok::<_, ()>(ControlFlow::Continue(()))
            });
            assert_eq!(flow, Ok(ControlFlow::Continue(())));
        }
        found.extend(lines.rest().map(|(number, line)| (number, line.to_vec())));
        found
    }

    #[test]
    fn lines_do_not_depend_on_pieces() {
        let text = b"one\n\nthree\nlast";
        let expected = [(1, "one"), (2, ""), (3, "three"), (4, "last")];
        let expected: Vec<_> = expected
            .iter()
            .map(|(number, line)| (*number, line.as_bytes().to_vec()))
            .collect();
        for cut in 0..=text.len() {
            let (a, b) = text.split_at(cut);
            assert_eq!(lines(&[a, b]), expected, "cut at {cut}");
        }
        assert_eq!(lines(&[b"a\n"]), [(1, b"a".to_vec())]);
        assert_eq!(lines(&[b""]), []);
    }

    #[test]
    fn endless_lines_come_in_parts() {
        let long = vec![b'x'; 2 * MAX_LINE + 3];
        let with_end = [&long[..], b"\ny"].concat();
        let expected = [(1, MAX_LINE), (1, MAX_LINE), (1, 3), (2, 1)];
        assert_eq!(
            lines(&[&[&long[..MAX_LINE], b"\n"].concat()]),
            [(1, long[..MAX_LINE].to_vec())],
            "the end of a line of that length is not one more part"
        );
        for pieces in [
            vec![&with_end[..]],
            with_end.chunks(1000).collect::<Vec<_>>(),
        ] {
            let found = lines(&pieces);
            let lengths = found.iter().map(|(number, line)| (*number, line.len()));
            assert_eq!(lengths.collect::<Vec<_>>(), expected);
        }
    }

    #[test]
    fn patterns_are_those_of_grep() {
        #[track_caller]
        fn check(text: &str, flags: &str, line: &[u8], expected: bool) {
            let how = Pattern {
                fixed: flags.contains('F'),
                ignore_case: flags.contains('i'),
                words: flags.contains('w'),
            };
            let found = pattern(text, how).unwrap().is_match(line);
            assert_eq!(found, expected, "{text:?} {flags} {line:?}");
        }
        check("a|b", "", b"b", true);
        check("a|b", "F", b"b", false);
        check("a|b", "F", b"xa|b", true);
        check("A\nB", "i", b"b", true);
        check("oo", "w", b"foo oo", true);
        check("oo", "w", b"foo oox", false);
        check("o|oo", "w", b"-oo-", true);
        check("-x", "w", b"a -x", true);
        check("^$", "", b"", true);
        check("a.c", "", b"\xffa\xc3\xa4c\xff", true);
        assert!(pattern("(", Pattern::default()).is_err());
    }
}
