//! The left side: the layers, and what is known of the chosen one.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Paragraph, Wrap};

use super::text::{cell, fit};
use super::theme::HEADING;
use super::{Theme, chosen, pane};
use crate::browse::model::{Areas, Column, LayerRow, LayerState, Model, Pane};
use crate::output::{printable, size};

/// Columns of a size.
const SIZE: usize = 7;
/// Columns of a gauge's bar, without its ends.
const BAR: u64 = 8;

pub(super) fn draw(frame: &mut Frame<'_>, areas: &Areas, model: &Model, theme: &Theme) {
    if areas.layers.is_empty() {
        return;
    }
    let is_active = model.pane == Pane::Layers;
    let block = pane("Layers", is_active);
    let inner = block.inner(areas.layers);
    frame.render_widget(block, areas.layers);
    let room = usize::from(inner.width);
    let heading = format!(
        "{:>3} {:>SIZE$} {:>SIZE$} {:>SIZE$}  COMMAND",
        "#", "PACKED", "ADDED", "WASTED"
    );
    let mut lines = vec![Line::styled(fit(&heading, room), HEADING)];
    let last = model.layers.top + areas.rows(Column::Layers);
    for number in model.layers.top..last.min(model.layers.rows.len() + 1) {
        let line = match number.checked_sub(1) {
            None => image(model, room, theme),
            Some(layer) => match model.layers.rows.get(layer) {
                Some(row) => layer_line(model, layer, row, room, theme),
                None => continue,
            },
        };
        let line = if number == model.layers.cursor {
            line.patch_style(chosen(is_active))
        } else {
            line
        };
        lines.push(line);
    }
    frame.render_widget(Paragraph::new(lines), inner);
    if !areas.details.is_empty() {
        details(frame, areas.details, model);
    }
}

/// The line of the image as a whole.
fn image(model: &Model, room: usize, theme: &Theme) -> Line<'static> {
    let packed = model.layers.rows.iter().map(|row| row.size).sum();
    let sums = (model.summary.as_ref()).map(|sums| (sums.added(), sums.wasted()));
    let mut spans = vec![Span::raw(format!("all {:>SIZE$} ", size(packed)))];
    spans.extend(sums_of(sums, theme));
    finish(spans, "  the whole image", room)
}

fn layer_line(
    model: &Model,
    layer: usize,
    row: &LayerRow,
    room: usize,
    theme: &Theme,
) -> Line<'static> {
    let packed = cell(&size(row.size), SIZE, true);
    let mut spans = vec![Span::raw(format!("{layer:>3} {packed} "))];
    if let LayerState::Fetching(done) = row.state {
        spans.push(Span::raw(cell(&gauge(done, row.size), 2 * SIZE + 1, false)));
    } else {
        let sums = model
            .summary
            .as_ref()
            .and_then(|sums| sums.layers.get(layer));
        spans.extend(sums_of(sums.map(|sum| (sum.added, sum.wasted)), theme));
    }
    let command = row.command.as_deref();
    let command = command.map_or_else(
        || "(not told)".to_owned(),
        |text| printable(text.as_bytes()),
    );
    finish(spans, &format!("  {command}"), room)
}

/// What was added and wasted, or room for it.
fn sums_of(sums: Option<(u64, u64)>, theme: &Theme) -> [Span<'static>; 3] {
    let (added, wasted) = match sums {
        Some((added, 0)) => (size(added), "-".to_owned()),
        Some((added, wasted)) => (size(added), size(wasted)),
        None => (String::new(), String::new()),
    };
    [
        Span::styled(cell(&added, SIZE, true), theme.added()),
        Span::raw(" "),
        Span::styled(cell(&wasted, SIZE, true), theme.wasted()),
    ]
}

/// How much of a download has come.
fn gauge(done: u64, size: u64) -> String {
    let share = |whole: u64| {
        let part = u128::from(done.min(size)) * u128::from(whole);
        let part = part.checked_div(size.into()).unwrap_or(whole.into());
        usize::try_from(part).unwrap_or(0)
    };
    let filled = share(BAR);
    let width = usize::try_from(BAR).unwrap_or(0);
    format!("[{:<width$}]{:>3} %", "=".repeat(filled), share(100))
}

fn finish(mut spans: Vec<Span<'static>>, text: &str, room: usize) -> Line<'static> {
    let used: usize = spans.iter().map(Span::width).sum();
    spans.push(Span::raw(cell(text, room.saturating_sub(used), false)));
    Line::from(spans)
}

fn details(frame: &mut Frame<'_>, area: Rect, model: &Model) {
    let layer = model.layers.selected();
    let title = match layer {
        None => "The image".to_owned(),
        Some(_) => format!("Layer {}", model.layers.cursor),
    };
    let block = pane(&title, false);
    let inner = block.inner(area);
    frame.render_widget(block, area);
    let mut lines = Vec::new();
    let sum = model.layers.cursor.checked_sub(1).and_then(|layer| {
        let summary = model.summary.as_ref()?;
        summary.layers.get(layer).copied()
    });
    if let Some(row) = layer {
        lines.push(row.digest.to_string());
        if let LayerState::Fetching(done) = row.state {
            lines.push(format!("{} of {} fetched", size(done), size(row.size)));
        }
        if let Some(sum) = sum {
            lines.push(format!("{} entries", sum.entries));
        }
        let command = row
            .command
            .as_deref()
            .unwrap_or("(the config does not tell)");
        lines.push(printable(command.as_bytes()));
    } else {
        if let Some(info) = &model.info {
            lines.push(info.reference.clone());
            lines.push(format!("manifest {}, {}", info.digest, info.platform));
        }
        if let Some(summary) = &model.summary {
            lines.push(format!(
                "{} files and directories, {}",
                summary.nodes,
                size(summary.added().saturating_sub(summary.wasted()))
            ));
        }
    }
    let lines: Vec<Line<'_>> = lines.into_iter().map(Line::raw).collect();
    frame.render_widget(Paragraph::new(lines).wrap(Wrap { trim: true }), inner);
}
