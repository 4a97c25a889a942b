//! Colours, and their absence: whatever they say is said by a sign too.

use ratatui::style::{Color, Modifier, Style};

use crate::browse::model::Mark;

/// How things look.
pub(in super::super) struct Theme {
    colour: bool,
}

impl Theme {
    /// With colours, unless `NO_COLOR` is set to something (no-color.org).
    pub(in super::super) fn from_env() -> Self {
        Self::new(std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()))
    }

    pub(super) fn new(colour: bool) -> Self {
        Self { colour }
    }

    pub(super) fn header(&self) -> Style {
        self.coloured(Color::Cyan).add_modifier(Modifier::BOLD)
    }

    pub(super) fn key(&self) -> Style {
        self.coloured(Color::Cyan).add_modifier(Modifier::BOLD)
    }

    pub(super) fn error(&self) -> Style {
        self.coloured(Color::Red).add_modifier(Modifier::BOLD)
    }

    pub(super) fn warning(&self) -> Style {
        self.coloured(Color::Yellow)
    }

    pub(super) fn mark(&self, mark: Mark) -> Style {
        match mark {
            Mark::Same | Mark::Below => Style::new(),
            Mark::Added => self.coloured(Color::Green),
            Mark::Changed(_) => self.coloured(Color::Yellow),
            Mark::Rewritten => self.coloured(Color::Cyan),
            Mark::Removed => self.coloured(Color::Red),
        }
    }

    pub(super) fn added(&self) -> Style {
        self.coloured(Color::Green)
    }

    pub(super) fn wasted(&self) -> Style {
        self.coloured(Color::Red)
    }

    fn coloured(&self, colour: Color) -> Style {
        if self.colour {
            Style::new().fg(colour)
        } else {
            Style::new()
        }
    }
}

/// How headings look.
pub(super) const HEADING: Style = Style::new().add_modifier(Modifier::DIM);

/// The sign of a mark.
pub(super) fn sign(mark: Mark) -> char {
    match mark {
        Mark::Same => ' ',
        Mark::Below => '*',
        Mark::Added => '+',
        Mark::Changed(_) => '~',
        Mark::Rewritten => '=',
        Mark::Removed => '-',
    }
}
