//! Text that fits: widths as a terminal counts them, so that wide letters do not push anything
//! aside.

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// What stands where something was left out.
const CUT: char = '~';

/// Columns that a text takes.
pub(super) fn width(text: &str) -> usize {
    text.width()
}

/// The text, or as much of its beginning as there is room for.
pub(super) fn fit(text: &str, room: usize) -> String {
    if width(text) <= room {
        return text.to_owned();
    }
    let mut out = String::new();
    let mut left = room.saturating_sub(1);
    for letter in text.chars() {
        let columns = letter.width().unwrap_or(0);
        if columns > left {
            break;
        }
        left -= columns;
        out.push(letter);
    }
    if room > 0 {
        out.push(CUT);
    }
    out
}

/// The text, or as much of its end as there is room for.
pub(super) fn fit_end(text: &str, room: usize) -> String {
    if width(text) <= room {
        return text.to_owned();
    }
    let mut letters = Vec::new();
    let mut left = room.saturating_sub(1);
    for letter in text.chars().rev() {
        let columns = letter.width().unwrap_or(0);
        if columns > left {
            break;
        }
        left -= columns;
        letters.push(letter);
    }
    if room > 0 {
        letters.push(CUT);
    }
    letters.iter().rev().collect()
}

/// What is behind the first `columns` columns of a text.
pub(super) fn skip(text: &str, columns: usize) -> &str {
    let mut left = columns;
    for (position, letter) in text.char_indices() {
        if left == 0 {
            return text.get(position..).unwrap_or_default();
        }
        left = left.saturating_sub(letter.width().unwrap_or(0));
    }
    ""
}

/// The text in lines; if it needs more than `most`, the last one is cut.
pub(super) fn wrap(text: &str, room: usize, most: usize) -> Vec<String> {
    let mut lines = Vec::new();
    let mut rest = text;
    while lines.len() + 1 < most && width(rest) > room {
        let mut used = 0;
        let end = rest.char_indices().find(|(_, letter)| {
            used += letter.width().unwrap_or(0);
            used > room
        });
        // A letter wider than the line would be cut for ever.
        let Some((end, _)) = end.filter(|(end, _)| *end > 0) else {
            break;
        };
        let (line, after) = rest.split_at(end);
        lines.push(line.to_owned());
        rest = after;
    }
    lines.push(fit(rest, room));
    lines
}

/// A cell of a table: cut or filled up, numbers to the right.
pub(super) fn cell(text: &str, room: usize, right: bool) -> String {
    let text = fit(text, room);
    let blank = " ".repeat(room.saturating_sub(width(&text)));
    if right { blank + &text } else { text + &blank }
}

/// One text at the left, one at the right.
pub(super) fn spread(left: &str, right: &str, room: usize) -> String {
    let blank = room.saturating_sub(width(left) + width(right));
    format!("{left}{}{right}", " ".repeat(blank))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wide_letters_take_two_columns() {
        let wide = "\u{4e2d}\u{6587}.txt";
        assert_eq!(fit(wide, 8), wide);
        assert_eq!(fit(wide, 4), "\u{4e2d}~");
        assert_eq!(fit_end(wide, 6), "~.txt");
        assert_eq!(cell(wide, 5, true), "\u{4e2d}\u{6587}~");
        assert_eq!(cell("\u{4e2d}x", 3, false), "\u{4e2d}x");
        assert_eq!(cell("\u{4e2d}\u{6587}", 4, true), "\u{4e2d}\u{6587}");
        assert_eq!(cell("\u{4e2d}\u{6587}", 3, true), "\u{4e2d}~");
        assert_eq!(skip(wide, 2), "\u{6587}.txt");
        assert_eq!(skip("ab", 5), "");
        assert_eq!(fit("abc", 0), "");
        assert_eq!(wrap("abcdefg", 3, 9), ["abc", "def", "g"]);
        assert_eq!(wrap("abcdefg", 3, 2), ["abc", "de~"]);
        assert_eq!(wrap(wide, 3, 9), ["\u{4e2d}", "\u{6587}.", "txt"]);
        assert_eq!(wrap(wide, 1, 9), ["~"]);
    }
}
