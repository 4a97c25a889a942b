//! What the keys do.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::text::Line;
use ratatui::widgets::{Clear, Paragraph};

use super::pane;

const HELP: &[&str] = &[
    "arrows hjkl  move, fold, unfold    + added    ~ changed",
    "PgUp PgDn    by pages              - removed  * below it",
    "g G          first, last           = same bytes anew",
    "Tab          layers or files       u  unchanged too, or not",
    "Enter        fold, look into       e E  unfold, fold all",
    "p  look into a file (x: hex)       c  copy out",
    "f  filter by path, Esc drops it    / n N  search by name",
    "r  try again                       q Ctrl-C  quit",
];

pub(super) fn draw(frame: &mut Frame<'_>, body: Rect) {
    let lines: Vec<Line<'_>> = HELP.iter().map(|line| Line::raw(*line)).collect();
    let widest = HELP.iter().map(|line| line.len()).max().unwrap_or(0);
    let width = u16::try_from(widest + 2)
        .unwrap_or(u16::MAX)
        .min(body.width);
    let height = u16::try_from(HELP.len() + 2)
        .unwrap_or(u16::MAX)
        .min(body.height);
    let area = Rect::new(
        body.x + (body.width - width) / 2,
        body.y + (body.height - height) / 2,
        width,
        height,
    );
    frame.render_widget(Clear, area);
    frame.render_widget(Paragraph::new(lines).block(pane("Keys", true)), area);
}
