//! Tables whose columns align, whatever script their text is in.

/// Rows under a heading, columns aligned; `right` lists the columns of numbers.
pub(crate) fn table(heading: &[&str], rows: &[Vec<String>], right: &[usize]) -> anyhow::Result<()> {
    super::bytes(table_text(heading, rows, right).as_bytes())
}

/// The lines of such a table.
pub(crate) fn table_text(heading: &[&str], rows: &[Vec<String>], right: &[usize]) -> String {
    let heading: Vec<String> = heading.iter().map(|cell| (*cell).to_owned()).collect();
    let all = || std::iter::once(&heading).chain(rows);
    let widths: Vec<usize> = (0..heading.len())
        .map(|i| {
            all()
                .filter_map(move |row| row.get(i))
                .map(|cell| width(cell))
        })
        .map(|widths| widths.max().unwrap_or(0))
        .collect();
    let mut text = String::new();
    for row in all() {
        let mut line = String::new();
        for (i, (cell, wide)) in row.iter().zip(&widths).enumerate() {
            let padding = " ".repeat(wide.saturating_sub(width(cell)));
            let (before, after) = if right.contains(&i) {
                (padding.as_str(), "")
            } else {
                ("", padding.as_str())
            };
            line.extend([before, cell, after, "  "]);
        }
        text += line.trim_end();
        text.push('\n');
    }
    text
}

/// Columns that a text takes on a terminal.
pub(crate) fn width(text: &str) -> usize {
    unicode_width::UnicodeWidthStr::width(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wide_and_combining_characters_align() {
        let row = |name: &str, number: &str| vec![name.to_owned(), number.to_owned()];
        let rows = [
            row("abc", "1"),
            row("\u{6f22}\u{5b57}", "22"),
            row("e\u{301}", "333"),
        ];
        let expected = "\
NAME    N
abc     1
\u{6f22}\u{5b57}   22
e\u{301}     333
";
        assert_eq!(table_text(&["NAME", "N"], &rows, &[1]), expected);
    }
}
