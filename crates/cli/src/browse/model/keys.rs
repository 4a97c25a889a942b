//! What keys do.

use std::sync::Arc;

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::input::Typed;
use super::{Column, Effect, Input, Model, Overlay, Pane, Preview, Purpose, Stage, Status};
use crate::output;

/// A move in a list.
#[derive(Clone, Copy)]
enum Move {
    By(isize),
    First,
    Last,
}

impl Model {
    pub(super) fn key(&mut self, key: KeyEvent) -> Vec<Effect> {
        if key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL) {
            return vec![Effect::Quit];
        }
        self.status = Status::Nothing;
        if let Overlay::Input(_) = self.overlay {
            return self.key_of_input(key);
        }
        if let KeyCode::Char('q') = key.code {
            return vec![Effect::Quit];
        }
        match &mut self.overlay {
            Overlay::Help => {
                self.overlay = Overlay::None;
                Vec::new()
            }
            Overlay::Preview(_) => self.key_of_preview(key),
            Overlay::None | Overlay::Input(_) => self.key_of_panes(key),
        }
    }

    fn key_of_panes(&mut self, key: KeyEvent) -> Vec<Effect> {
        let column = match self.pane {
            Pane::Layers => Column::Layers,
            Pane::Files => Column::Files,
        };
        if let Some(how) = movement(key, self.areas().rows(column)) {
            return self.go(how);
        }
        match key.code {
            KeyCode::Tab | KeyCode::BackTab => {
                self.pane = match self.pane {
                    Pane::Layers => Pane::Files,
                    Pane::Files => Pane::Layers,
                };
            }
            KeyCode::Char('?') => self.overlay = Overlay::Help,
            KeyCode::Char('r') => return self.retry(),
            KeyCode::Char('u') => self.files.toggle_unchanged(),
            KeyCode::Char('e') => self.files.fold_all(true),
            KeyCode::Char('E') => self.files.fold_all(false),
            KeyCode::Char('f') => {
                self.pane = Pane::Files;
                self.overlay = Overlay::Input(Input::new(Purpose::Filter, self.files.filter()));
            }
            KeyCode::Char('/') => {
                self.pane = Pane::Files;
                self.overlay = Overlay::Input(Input::new(Purpose::Search, ""));
            }
            KeyCode::Char('n') => self.search(false),
            KeyCode::Char('N') => self.search(true),
            KeyCode::Char('p') => return self.preview(),
            KeyCode::Char('c') => self.ask_for_destination(),
            KeyCode::Esc => self.files.set_filter(""),
            _ => match self.pane {
                Pane::Layers => {
                    if matches!(
                        key.code,
                        KeyCode::Enter | KeyCode::Right | KeyCode::Char('l' | ' ')
                    ) {
                        self.pane = Pane::Files;
                    }
                }
                Pane::Files => return self.key_of_files(key),
            },
        }
        Vec::new()
    }

    fn key_of_files(&mut self, key: KeyEvent) -> Vec<Effect> {
        let Some((listing, position)) = self.selected() else {
            return Vec::new();
        };
        let has_below = listing
            .entry(position)
            .is_some_and(|entry| entry.end > position + 1);
        let is_open = has_below && self.files.is_open(position);
        match key.code {
            KeyCode::Enter if !has_below => return self.preview(),
            KeyCode::Enter | KeyCode::Char(' ') if has_below => {
                self.files.fold(position, !is_open);
            }
            KeyCode::Right | KeyCode::Char('l') if is_open => self.files.go(self.files.cursor + 1),
            KeyCode::Right | KeyCode::Char('l') if has_below => self.files.fold(position, true),
            KeyCode::Left | KeyCode::Char('h') if is_open => self.files.fold(position, false),
            KeyCode::Left | KeyCode::Char('h') => self.files.go_up(),
            _ => {}
        }
        Vec::new()
    }

    fn go(&mut self, how: Move) -> Vec<Effect> {
        let to = |from: usize| match how {
            Move::By(lines) => from.saturating_add_signed(lines),
            Move::First => 0,
            Move::Last => usize::MAX,
        };
        match self.pane {
            Pane::Layers => {
                self.layers.go(to(self.layers.cursor));
                self.want_listing().into_iter().collect()
            }
            Pane::Files => {
                self.files.go(to(self.files.cursor));
                Vec::new()
            }
        }
    }

    fn key_of_preview(&mut self, key: KeyEvent) -> Vec<Effect> {
        let rows = self.areas().preview_rows();
        let Overlay::Preview(preview) = &mut self.overlay else {
            return Vec::new();
        };
        if let Some(how) = movement(key, rows) {
            match how {
                Move::By(lines) => preview.go_by(lines.clamp(-preview.page(), preview.page())),
                Move::First => preview.go(0),
                Move::Last => preview.go_last(),
            }
            return Vec::new();
        }
        match key.code {
            KeyCode::Char(' ') => preview.go_by(preview.page()),
            KeyCode::Char('x') => preview.toggle_hex(),
            KeyCode::Char('r') => preview.retry(),
            KeyCode::Right | KeyCode::Char('l') => preview.go_aside(true),
            KeyCode::Left | KeyCode::Char('h') => preview.go_aside(false),
            KeyCode::Esc | KeyCode::Enter | KeyCode::Char('p') => self.overlay = Overlay::None,
            _ => {}
        }
        Vec::new()
    }

    fn key_of_input(&mut self, key: KeyEvent) -> Vec<Effect> {
        let Overlay::Input(input) = &mut self.overlay else {
            return Vec::new();
        };
        let (typed, purpose) = (input.key(key), input.purpose);
        let text = input.text();
        if typed != Typed::Changed {
            self.overlay = Overlay::None;
        }
        match (purpose, typed) {
            (Purpose::Filter, Typed::Given) => self.files.set_filter(""),
            (Purpose::Filter, _) => self.files.set_filter(&text),
            (Purpose::Search, Typed::Accepted) => {
                if !text.is_empty() {
                    self.files.search = text;
                }
                self.search(false);
            }
            (Purpose::Copy, Typed::Accepted) => return self.copy(text),
            (Purpose::Search | Purpose::Copy, _) => {}
        }
        Vec::new()
    }

    fn search(&mut self, backward: bool) {
        if self.files.search.is_empty() {
            self.status = Status::Note("nothing was searched for: / begins".to_owned());
        } else if !self.files.find(backward) {
            let text = output::printable(self.files.search.as_bytes());
            self.status = Status::Warning(format!("nothing here is called *{text}*"));
        }
    }

    /// Again what failed: opening the image, or making the listing.
    fn retry(&mut self) -> Vec<Effect> {
        if self.stage != Stage::Failed {
            return self.want_listing().into_iter().collect();
        }
        self.stage = Stage::Resolving;
        vec![Effect::Open]
    }

    fn preview(&mut self) -> Vec<Effect> {
        let Some((listing, position)) = self.selected() else {
            return Vec::new();
        };
        let Some(entry) = listing.entry(position) else {
            return Vec::new();
        };
        let is_file = listing
            .node(entry)
            .is_some_and(imgfs_formats::tree::Node::is_file);
        if !is_file {
            let kind = crate::look::kind_name(entry.kind);
            self.status = Status::Note(format!("a {kind} has no content to look at"));
            return Vec::new();
        }
        let (fs, ino) = (Arc::clone(listing.fs(entry)), entry.ino);
        let (path, size) = (listing.path(position), entry.size);
        self.previews += 1;
        self.overlay = Overlay::Preview(Preview::new(self.previews, fs, ino, path, size));
        Vec::new()
    }

    fn ask_for_destination(&mut self) {
        if self.copying.is_some() {
            self.status = Status::Warning("one copy at a time: this one is under way".to_owned());
            return;
        }
        let name = self.selected().and_then(|(listing, position)| {
            let name = listing.name(listing.entry(position)?);
            Some(output::printable(name).replace(['/', '\\'], "_"))
        });
        if let Some(name) = name {
            self.overlay = Overlay::Input(Input::new(Purpose::Copy, &name));
        }
    }

    fn copy(&mut self, dest: String) -> Vec<Effect> {
        let Some((listing, position)) = self.selected() else {
            return Vec::new();
        };
        let Some(entry) = listing.entry(position) else {
            return Vec::new();
        };
        let effect = Effect::Copy {
            fs: Arc::clone(listing.fs(entry)),
            ino: entry.ino,
            name: listing.name(entry).to_vec(),
            dest,
        };
        self.copying = Some((0, 0));
        vec![effect]
    }
}

/// The move that a key means in a list of which `shown` lines are seen.
fn movement(key: KeyEvent, shown: usize) -> Option<Move> {
    let page = isize::try_from(shown.saturating_sub(1).max(1)).unwrap_or(1);
    let control = key.modifiers.contains(KeyModifiers::CONTROL);
    Some(match key.code {
        KeyCode::Down | KeyCode::Char('j') => Move::By(1),
        KeyCode::Up | KeyCode::Char('k') => Move::By(-1),
        KeyCode::PageDown => Move::By(page),
        KeyCode::PageUp => Move::By(-page),
        KeyCode::Char('f') if control => Move::By(page),
        KeyCode::Char('b') if control => Move::By(-page),
        KeyCode::Home | KeyCode::Char('g') => Move::First,
        KeyCode::End | KeyCode::Char('G') => Move::Last,
        _ => return None,
    })
}
