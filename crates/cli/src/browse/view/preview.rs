//! A file's content.

use std::fmt::Write;

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::text::Line;
use ratatui::widgets::Paragraph;

use super::pane;
use super::text::{fit, fit_end, skip};
use super::theme::HEADING;
use crate::browse::model::Preview;
use crate::output::{printable, size};

/// Columns between tab stops.
const TAB: usize = 8;

pub(super) fn draw(frame: &mut Frame<'_>, area: Rect, preview: &Preview) {
    let kind = match (preview.lines(), preview.hex) {
        (0, _) => "",
        (_, true) => ", hex",
        (_, false) => ", text",
    };
    let facts = format!(", {}{kind}", size(preview.size));
    let room = usize::from(area.width.saturating_sub(4));
    let path = fit_end(&printable(&preview.path), room.saturating_sub(facts.len()));
    let block = pane(&format!("{path}{facts}"), true);
    let inner = block.inner(area);
    frame.render_widget(block, area);
    let room = usize::from(inner.width);
    let rows = usize::from(inner.height);
    let mut lines = Vec::new();
    for number in preview.top..preview.top + rows {
        let Some((start, bytes)) = preview.line(number) else {
            break;
        };
        let text = if preview.hex {
            hex(start, bytes, preview.row_bytes())
        } else {
            skip(&text(bytes), preview.left).to_owned()
        };
        lines.push(Line::raw(fit(&text, room)));
    }
    let last = if preview.failed {
        "(it could not be read)"
    } else if preview.waiting {
        "(fetching...)"
    } else if preview.is_cut() {
        "(only so much is shown: c copies all of it)"
    } else if preview.size == 0 {
        "(empty)"
    } else {
        ""
    };
    if !last.is_empty() {
        lines.truncate(rows.saturating_sub(1));
        lines.push(Line::styled(last, HEADING));
    }
    frame.render_widget(Paragraph::new(lines), inner);
}

/// A line as text: tabs to their stops, everything else that is no letter escaped.
fn text(bytes: &[u8]) -> String {
    let line = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let mut out = String::new();
    for (number, part) in line.split(|byte| *byte == b'\t').enumerate() {
        if number > 0 {
            let stop = TAB - super::text::width(&out) % TAB;
            out.push_str(&" ".repeat(stop));
        }
        out.push_str(&printable(part));
    }
    out
}

/// A line in hex, as `hexdump -C` writes it.
fn hex(start: usize, bytes: &[u8], row: usize) -> String {
    let mut out = format!("{start:08x} ");
    for number in 0..row {
        // Writing into a string cannot fail.
        let _written = match bytes.get(number) {
            Some(byte) => write!(out, " {byte:02x}"),
            None => write!(out, "   "),
        };
    }
    out.push_str("  ");
    out.extend(bytes.iter().map(|byte| match byte {
        b' '..=b'~' => char::from(*byte),
        _ => '.',
    }));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_cannot_harm_the_terminal() {
        assert_eq!(text(b"a\tb\x1b[2J\xff\r\n"), "a       b\\u{1b}[2J\\xff");
        assert_eq!(hex(16, b"A\0\x1b", 4), "00000010  41 00 1b     A..");
    }
}
