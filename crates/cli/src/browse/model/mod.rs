//! What is on the screen and what keys do to it. Nothing here reads, writes or waits.

mod files;
mod image;
mod input;
mod keys;
mod layers;
mod layout;
mod listing;
mod message;
mod preview;
#[cfg(test)]
pub(super) mod tests;

use std::sync::Arc;

use ratatui::crossterm::event::KeyEvent;

pub(super) use files::Files;
pub(super) use image::{ImageInfo, LayerSum, Summary};
pub(super) use input::{Input, Purpose};
pub(super) use layers::{LayerRow, LayerState, Layers};
pub(super) use layout::{Areas, Column};
pub(super) use listing::{Entry, Listing, Mark};
pub(super) use message::Message;
pub(super) use preview::{PIECE, Preview};

use imgfs_core::view::ImageFs;
use imgfs_formats::tree::Ino;

/// Something that happened.
pub(super) enum Event {
    /// A key was pressed.
    Key(KeyEvent),
    /// The terminal has so many columns and rows now.
    Resize(u16, u16),
    /// Work came to something.
    Message(Message),
}

/// What is to be done, elsewhere.
#[derive(Clone)]
pub(super) enum Effect {
    /// Give the terminal back.
    Quit,
    /// Find the image and open its layers.
    Open,
    /// Make the listing of this.
    List(Listed),
    /// Read a piece of a file for the preview with this number.
    Read {
        preview: u64,
        fs: Arc<ImageFs>,
        ino: Ino,
        offset: u64,
    },
    /// Copy a file or directory to a path below the current directory.
    Copy {
        fs: Arc<ImageFs>,
        ino: Ino,
        name: Vec<u8>,
        dest: String,
    },
}

/// Whose files are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Listed {
    /// The merged tree, compared with the base layer.
    Image,
    /// The tree up to this layer, compared with that below it; the base is 0.
    Layer(usize),
}

/// Which side keys are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pane {
    Layers,
    Files,
}

/// What lies over the two panes.
pub(super) enum Overlay {
    None,
    Help,
    Preview(Preview),
    Input(Input),
}

/// How far the image is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// Which image it is is not known yet.
    Resolving,
    /// Layers are being opened.
    Opening,
    /// All layers are open.
    Open,
    /// Opening ended with an error, which the status line says.
    Failed,
}

/// A word for the user, until the next key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Status {
    Nothing,
    Note(String),
    Warning(String),
    Error {
        text: String,
        /// Whether a key tries again.
        again: bool,
    },
}

impl Status {
    fn failed(text: String) -> Self {
        Self::Error { text, again: false }
    }

    fn failed_for_now(text: String) -> Self {
        Self::Error { text, again: true }
    }
}

/// All there is to show.
pub(super) struct Model {
    /// As the user wrote it, normalised once it is found.
    pub(super) reference: String,
    pub(super) info: Option<ImageInfo>,
    pub(super) stage: Stage,
    pub(super) summary: Option<Summary>,
    pub(super) layers: Layers,
    pub(super) files: Files,
    pub(super) pane: Pane,
    pub(super) overlay: Overlay,
    pub(super) status: Status,
    /// Columns and rows of the terminal.
    pub(super) size: (u16, u16),
    /// A copy is under way: so many bytes of so many.
    pub(super) copying: Option<(u64, u64)>,
    /// The listing that is being made.
    pub(super) listing: Option<Listed>,
    previews: u64,
}

impl Model {
    /// Nothing is known yet but what the user asked for.
    pub(super) fn new(reference: String, size: (u16, u16)) -> Self {
        Self {
            reference,
            info: None,
            stage: Stage::Resolving,
            summary: None,
            layers: Layers::default(),
            files: Files::default(),
            pane: Pane::Files,
            overlay: Overlay::None,
            status: Status::Nothing,
            size,
            copying: None,
            listing: None,
            previews: 0,
        }
    }

    /// Takes note of what happened; gives what is to be done about it.
    pub(super) fn update(&mut self, event: Event) -> Vec<Effect> {
        let effects = match event {
            Event::Key(key) => self.key(key),
            Event::Resize(columns, rows) => {
                self.size = (columns, rows);
                Vec::new()
            }
            Event::Message(message) => self.message(message),
        };
        self.scroll();
        let more = match &mut self.overlay {
            Overlay::Preview(preview) => preview.want(),
            Overlay::None | Overlay::Help | Overlay::Input(_) => None,
        };
        effects.into_iter().chain(more).collect()
    }

    /// Where things are on a terminal of this size.
    pub(super) fn areas(&self) -> Areas {
        Areas::new(self.size, self.pane)
    }

    /// The entry that the cursor is on.
    pub(super) fn selected(&self) -> Option<(&Arc<Listing>, usize)> {
        Some((self.files.listing()?, self.files.selected()?))
    }

    /// Asks for the files of the chosen line, unless one listing is being made: that asks again
    /// when it is ready, so however fast somebody walks through layers there is one at a time.
    fn want_listing(&mut self) -> Option<Effect> {
        let wanted = self.layers.listed();
        if self.stage != Stage::Open
            || self.listing.is_some()
            || self.files.listed() == Some(wanted)
        {
            return None;
        }
        self.listing = Some(wanted);
        Some(Effect::List(wanted))
    }

    /// Keeps cursors within what is shown.
    fn scroll(&mut self) {
        let areas = self.areas();
        self.layers.scroll(areas.rows(Column::Layers));
        self.files.scroll(areas.rows(Column::Files));
        if let Overlay::Preview(preview) = &mut self.overlay {
            preview.resize(areas.preview_rows(), areas.preview_columns());
        }
    }
}
