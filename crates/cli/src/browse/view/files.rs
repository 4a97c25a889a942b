//! The right side: the files.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};
use ratatui::widgets::Paragraph;

use super::text::{cell, fit, fit_end};
use super::theme::{HEADING, sign};
use super::{Theme, chosen, pane};
use crate::browse::model::{Column, Entry, Listed, Listing, Mark, Model, Pane, Stage};
use crate::look::{kind_name, mode_text};
use crate::output::{printable, size};
use imgfs_formats::tree::{Aspects, Kind};

/// With at least so many columns there is room for owners, and for modes.
const OWNERS_FROM: usize = 64;
const MODES_FROM: usize = 46;
/// Before directories: open, folded.
const OPEN: char = '\u{25be}';
const FOLDED: char = '\u{25b8}';

pub(super) fn draw(frame: &mut Frame<'_>, area: Rect, model: &Model, theme: &Theme) {
    if area.is_empty() {
        return;
    }
    let is_active = model.pane == Pane::Files;
    let title = fit(&title(model), usize::from(area.width.saturating_sub(4)));
    let block = pane(&title, is_active);
    let inner = block.inner(area);
    frame.render_widget(block, area);
    let room = usize::from(inner.width);
    let Some(listing) = model.files.listing() else {
        let text = match model.stage {
            Stage::Resolving => "",
            Stage::Opening => "Files show when all layers are open.",
            Stage::Open => "Listing...",
            Stage::Failed => "The files are not known: r tries again.",
        };
        frame.render_widget(Line::raw(fit(text, room)), inner);
        return;
    };
    let mut lines = vec![Line::styled(fit(&heading(room), room), HEADING)];
    let shown = model.areas().rows(Column::Files);
    let rows = model.files.rows.iter().enumerate();
    for (number, position) in rows.skip(model.files.top).take(shown) {
        let Some(entry) = listing.entry(*position) else {
            continue;
        };
        let fold = if entry.end == position + 1 {
            ' '
        } else if model.files.is_open(*position) {
            OPEN
        } else {
            FOLDED
        };
        let line = line(listing, entry, fold, room, theme);
        let line = if number == model.files.cursor {
            line.patch_style(chosen(is_active))
        } else {
            line
        };
        lines.push(line);
    }
    if model.files.rows.is_empty() {
        let text = match (model.files.filter(), model.files.listed()) {
            ("", Some(Listed::Layer(_))) => "This layer changed nothing.",
            ("", _) => "There is nothing to show.",
            _ => "No path has this in it: f changes the filter, Esc drops it.",
        };
        lines.push(Line::raw(fit(text, room)));
    }
    frame.render_widget(Paragraph::new(lines), inner);
}

fn title(model: &Model) -> String {
    let shows_unchanged = model.files.shows_unchanged();
    let mut title = match (model.files.listed(), shows_unchanged) {
        (None, _) => "Files".to_owned(),
        (Some(Listed::Image), true) => "The image".to_owned(),
        (Some(Listed::Image), false) => "The image, what came after the base".to_owned(),
        (Some(Listed::Layer(layer)), false) => format!("What layer {layer} did"),
        (Some(Listed::Layer(layer)), true) => format!("All up to layer {layer}"),
    };
    if !model.files.filter().is_empty() {
        title.push_str(", only *");
        title.push_str(&printable(model.files.filter().as_bytes()));
        title.push('*');
    }
    if model.listing.is_some() {
        title += ", listing...";
    }
    title
}

fn heading(room: usize) -> String {
    let mut text = String::from("  ");
    if room >= MODES_FROM {
        text += &cell("MODE", 11, false);
    }
    if room >= OWNERS_FROM {
        text += &cell("OWNER", 12, false);
    }
    text + &cell("SIZE", 8, true) + "  NAME"
}

fn line(listing: &Listing, entry: &Entry, fold: char, room: usize, theme: &Theme) -> Line<'static> {
    let mut before = format!("{} ", sign(entry.mark));
    let node = listing.node(entry);
    if room >= MODES_FROM {
        let mode = node.map(mode_text).unwrap_or_default();
        before += &cell(&mode, 11, false);
    }
    if room >= OWNERS_FROM {
        let owner = node.map(|node| format!("{}:{}", node.uid(), node.gid()));
        before += &(cell(&owner.unwrap_or_default(), 11, false) + " ");
    }
    let bytes = match entry.kind {
        Kind::File | Kind::SparseFile | Kind::Directory => size(entry.size),
        _ => String::new(),
    };
    before += &cell(&bytes, 8, true);
    // A deep path must not push its name out of sight.
    let indent = (2 * entry.depth.saturating_sub(1)).min(room / 3);
    before.push_str(&" ".repeat(indent + 1));
    before.extend([fold, ' ']);
    let mut name = printable(listing.name(entry));
    if entry.kind == Kind::Directory {
        name.push('/');
    }
    if let Some(target) = listing.target(entry) {
        name.push_str(" -> ");
        name.push_str(&printable(target));
    }
    let used = super::text::width(&before);
    let name = cell(&name, room.saturating_sub(used), false);
    let style = theme.mark(entry.mark);
    Line::from(vec![Span::styled(before, style), Span::styled(name, style)])
}

/// The chosen entry in one line.
pub(super) fn details(model: &Model) -> String {
    let Some((listing, position)) = model.selected() else {
        return String::new();
    };
    let Some(entry) = listing.entry(position) else {
        return String::new();
    };
    let mut facts = Vec::new();
    match entry.mark {
        Mark::Same => {}
        Mark::Below => facts.push("changes below".to_owned()),
        Mark::Added => facts.push("added".to_owned()),
        Mark::Removed => facts.push("removed".to_owned()),
        Mark::Rewritten => facts.push("written anew, same bytes".to_owned()),
        Mark::Changed(aspects) => facts.push(format!("changed: {}", aspects_text(aspects))),
    }
    facts.push(kind_name(entry.kind).to_owned());
    if let Some(node) = listing.node(entry) {
        facts.push(mode_text(node));
        facts.push(format!("{}:{}", node.uid(), node.gid()));
        if node.is_file() {
            facts.push(format!("{} bytes", node.size()));
        }
    }
    if let Some(layer) = listing.layer(entry) {
        facts.push(format!("layer {layer}"));
    }
    let facts = facts.join("  ");
    let room = usize::from(model.size.0).saturating_sub(super::text::width(&facts) + 2);
    let path = fit_end(&printable(&listing.path(position)), room.max(20));
    format!("{path}  {facts}")
}

fn aspects_text(aspects: Aspects) -> String {
    let names = [
        (Aspects::KIND, "kind"),
        (Aspects::CONTENT, "content"),
        (Aspects::MODE, "mode"),
        (Aspects::OWNER, "owner"),
        (Aspects::MTIME, "time"),
        (Aspects::XATTRS, "attributes"),
    ];
    let names = names
        .iter()
        .filter(|(aspect, _)| aspects.contains(*aspect))
        .map(|(_, name)| *name);
    names.collect::<Vec<_>>().join(", ")
}
