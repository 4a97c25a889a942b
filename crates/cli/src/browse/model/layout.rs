//! Where things are on a terminal of a given size: two panes side by side, or one at a time where
//! it is narrow.

use ratatui::layout::Rect;

use super::Pane;

/// With fewer columns one pane has them all: two would show nothing whole.
const TWO_PANES: u16 = 80;
/// With fewer rows of panes the layer's details give way to the list of layers.
const DETAILS_FROM: u16 = 20;
/// Rows for the details of the chosen layer, border included.
const DETAILS: u16 = 9;
/// Rows of a pane that are no lines of its list: borders and the heading.
const HEADING: u16 = 3;

/// A list on the screen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Column {
    Layers,
    Files,
}

/// The parts of the screen. Those that are not shown are empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) struct Areas {
    pub header: Rect,
    pub body: Rect,
    pub layers: Rect,
    pub details: Rect,
    pub files: Rect,
    pub status: Rect,
    pub footer: Rect,
}

impl Areas {
    pub(super) fn new((columns, rows): (u16, u16), pane: Pane) -> Self {
        let line = |y: u16| Rect::new(0, y.min(rows), columns, u16::from(y < rows));
        let body = Rect::new(0, 1.min(rows), columns, rows.saturating_sub(3));
        let (left, right) = if columns >= TWO_PANES {
            let left = columns / 2;
            (left, columns - left)
        } else {
            match pane {
                Pane::Layers => (columns, 0),
                Pane::Files => (0, columns),
            }
        };
        let details = if body.height >= DETAILS_FROM {
            DETAILS
        } else {
            0
        };
        let list = body.height - details;
        Self {
            header: line(0),
            body,
            layers: Rect::new(0, body.y, left, list),
            details: Rect::new(0, body.y + list, left, details),
            files: Rect::new(left, body.y, right, body.height),
            status: line(rows.saturating_sub(2)),
            footer: line(rows.saturating_sub(1)),
        }
    }

    /// Lines of a list that can be seen.
    pub(in super::super) fn rows(&self, column: Column) -> usize {
        let area = match column {
            Column::Layers => self.layers,
            Column::Files => self.files,
        };
        usize::from(area.height.saturating_sub(HEADING))
    }

    /// Lines of a preview that can be seen.
    pub(super) fn preview_rows(&self) -> usize {
        usize::from(self.body.height.saturating_sub(2))
    }

    /// Columns of a preview that can be seen.
    pub(super) fn preview_columns(&self) -> usize {
        usize::from(self.body.width.saturating_sub(2))
    }
}
