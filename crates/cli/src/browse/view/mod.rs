//! Draws the model. Decides nothing: what is where follows from [`Areas`], what is what from the
//! model.

mod files;
mod help;
mod layers;
mod preview;
#[cfg(test)]
mod tests;
mod text;
mod theme;

use ratatui::Frame;
use ratatui::layout::{Position, Rect};
use ratatui::style::{Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, BorderType, Clear, Paragraph};

pub(super) use theme::Theme;

use super::model::{Areas, Input, Model, Overlay, Pane, Purpose, Stage, Status};
use crate::output::{printable, size};
use text::{fit, fit_end, spread, wrap};

/// Most lines of a message.
const MESSAGE_LINES: usize = 5;
/// Smallest terminal that anything can be shown on.
const SMALLEST: (u16, u16) = (40, 10);

pub(super) fn draw(frame: &mut Frame<'_>, model: &Model, theme: &Theme) {
    let area = frame.area();
    if area.width < SMALLEST.0 || area.height < SMALLEST.1 {
        let text = format!("needs {} x {}", SMALLEST.0, SMALLEST.1);
        frame.render_widget(Paragraph::new(text), area);
        return;
    }
    let areas = model.areas();
    header(frame, areas.header, model, theme);
    if let Overlay::Preview(shown) = &model.overlay {
        preview::draw(frame, areas.body, shown);
    } else {
        layers::draw(frame, &areas, model, theme);
        files::draw(frame, areas.files, model, theme);
    }
    if let Overlay::Help = model.overlay {
        help::draw(frame, areas.body);
    }
    status(frame, &areas, model, theme);
    footer(frame, areas.footer, model, theme);
}

/// A frame with a title; a thick one around what keys are for.
fn pane(title: &str, is_active: bool) -> Block<'static> {
    let border = if is_active {
        BorderType::Thick
    } else {
        BorderType::Plain
    };
    let title = Span::raw(format!(" {title} "));
    let title = if is_active {
        title.style(Modifier::BOLD)
    } else {
        title
    };
    Block::bordered().border_type(border).title(title)
}

/// How the chosen line looks.
fn chosen(is_active: bool) -> Modifier {
    if is_active {
        Modifier::REVERSED
    } else {
        Modifier::UNDERLINED
    }
}

fn header(frame: &mut Frame<'_>, area: Rect, model: &Model, theme: &Theme) {
    let mut facts = Vec::new();
    if let Some(info) = &model.info {
        let packed = info.layers.iter().map(|(_, size, _)| size).sum();
        let (count, packed) = (info.layers.len(), size(packed));
        let plural = if count == 1 { "" } else { "s" };
        facts.push(format!("{count} layer{plural}, {packed}"));
        facts.push(info.platform.clone());
        facts.push(info.digest.clone());
    }
    if let Some(summary) = &model.summary {
        let (share, wasted) = (summary.efficiency(), size(summary.wasted()));
        facts.insert(
            0,
            format!(
                "efficiency {}.{} %, {wasted} wasted",
                share / 10,
                share % 10
            ),
        );
    }
    let name = printable(model.reference.as_bytes());
    let room = usize::from(area.width);
    // The name and what is most telling: what there is no room for is left out.
    let least = room.saturating_sub(text::width(&name).min(room / 2) + 2);
    while text::width(&facts.join("  ")) > least && facts.pop().is_some() {}
    let facts = facts.join("  ");
    let name = fit(&name, room.saturating_sub(text::width(&facts) + 1));
    let line = spread(&name, &facts, room);
    frame.render_widget(Line::styled(line, theme.header()), area);
}

fn status(frame: &mut Frame<'_>, areas: &Areas, model: &Model, theme: &Theme) {
    let area = areas.status;
    let room = usize::from(area.width);
    if let Overlay::Input(input) = &model.overlay {
        prompt(frame, area, model, input);
        return;
    }
    let (text, style) = match &model.status {
        Status::Error { text, again } => {
            let next = if *again { ", r tries again" } else { "" };
            (format!("error{next}: {text}"), theme.error())
        }
        Status::Warning(text) => (text.clone(), theme.warning()),
        Status::Note(text) => (text.clone(), Style::new()),
        Status::Nothing => match (&model.overlay, model.stage) {
            _ if model.copying.is_some() => (copying(model), Style::new()),
            (Overlay::Preview(_), _) => (String::new(), Style::new()),
            (_, Stage::Resolving) => ("asking what the image is...".to_owned(), Style::new()),
            (_, Stage::Opening) => ("opening the layers...".to_owned(), Style::new()),
            _ => (files::details(model), Style::new()),
        },
    };
    if let Status::Nothing = model.status {
        frame.render_widget(Line::styled(fit(&text, room), style), area);
        return;
    }
    // What went wrong has to be read to its end: it takes lines of the panes if it must.
    let lines = wrap(&text, room, MESSAGE_LINES);
    let count = u16::try_from(lines.len()).unwrap_or(1).max(1);
    let area = Rect::new(
        area.x,
        (area.y + 1).saturating_sub(count),
        area.width,
        count,
    );
    let lines: Vec<Line<'_>> = lines.into_iter().map(Line::raw).collect();
    frame.render_widget(Clear, area);
    frame.render_widget(Paragraph::new(lines).style(style), area);
}

/// How far a copy is.
fn copying(model: &Model) -> String {
    let (written, bytes) = model.copying.unwrap_or_default();
    format!("copying, {} of {}", size(written), size(bytes))
}

/// What is asked for, and what was typed so far.
fn prompt(frame: &mut Frame<'_>, area: Rect, model: &Model, input: &Input) {
    let label = match input.purpose {
        Purpose::Filter => "only paths with: ".to_owned(),
        Purpose::Search => "search: ".to_owned(),
        Purpose::Copy => {
            let path = model
                .selected()
                .map(|(listing, position)| printable(&listing.path(position)));
            let path = path.unwrap_or_default();
            format!("copy {} to ./", fit_end(&path, usize::from(area.width) / 2))
        }
    };
    let (text, before) = (input.text(), input.before());
    let room = usize::from(area.width).saturating_sub(text::width(&label) + 1);
    // The end of what is before the cursor can be seen at any rate.
    let seen = fit_end(&before, room);
    let after = text.get(before.len()..).unwrap_or_default();
    let line = format!("{label}{seen}{after}");
    frame.render_widget(Line::raw(fit(&line, usize::from(area.width))), area);
    let column = text::width(&label) + text::width(&seen);
    let column = u16::try_from(column).unwrap_or(u16::MAX);
    frame.set_cursor_position(Position::new(area.x.saturating_add(column), area.y));
}

fn footer(frame: &mut Frame<'_>, area: Rect, model: &Model, theme: &Theme) {
    let keys: &[(&str, &str)] = match (&model.overlay, model.pane) {
        (Overlay::Input(input), _) => match input.purpose {
            Purpose::Filter => &[("Enter", "keep"), ("Esc", "no filter")],
            Purpose::Search => &[("Enter", "search"), ("Esc", "back")],
            Purpose::Copy => &[("Enter", "copy"), ("Esc", "back")],
        },
        (Overlay::Preview(_), _) => &[
            ("Esc", "back"),
            ("x", "text/hex"),
            ("PgDn", "on"),
            ("g", "start"),
            ("G", "end"),
            ("q", "quit"),
        ],
        (Overlay::Help, _) => &[("any key", "back"), ("q", "quit")],
        (Overlay::None, Pane::Layers) => &[
            ("q", "quit"),
            ("?", "help"),
            ("Tab", "files"),
            ("Enter", "go in"),
            ("u", "unchanged"),
            ("f", "filter"),
            ("/", "search"),
        ],
        (Overlay::None, Pane::Files) => &[
            ("q", "quit"),
            ("?", "help"),
            ("Tab", "layers"),
            ("Enter", "fold"),
            ("p", "look"),
            ("c", "copy"),
            ("f", "filter"),
            ("/", "search"),
            ("u", "unchanged"),
        ],
    };
    let mut spans = Vec::new();
    let mut room = usize::from(area.width);
    for (key, what) in keys {
        let needed = key.len() + what.len() + 3;
        if needed > room {
            break;
        }
        room -= needed;
        spans.push(Span::styled(format!(" {key}"), theme.key()));
        spans.push(Span::raw(format!(" {what} ")));
    }
    frame.render_widget(Clear, area);
    frame.render_widget(Line::from(spans), area);
}
