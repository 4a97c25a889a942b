//! The terminal: taken for the program, and given back as it was however the program ends.

use std::io::{Stdout, stdout};
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context;
use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::cursor::{Hide, Show};
use ratatui::crossterm::terminal::{
    EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};
use ratatui::crossterm::{execute, style};

/// Whether some thread has panicked: then the terminal is as it was before.
static PANICKED: AtomicBool = AtomicBool::new(false);

/// The terminal while it is ours.
pub(super) struct Screen {
    pub(super) terminal: Terminal<CrosstermBackend<Stdout>>,
}

impl Screen {
    pub(super) fn enter() -> anyhow::Result<Self> {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            // On whatever thread: its words must not get lost in the screen.
            leave();
            PANICKED.store(true, Ordering::Relaxed);
            usual(panic);
        }));
        enable_raw_mode().context("cannot set up the terminal")?;
        // From here on dropping it puts things right.
        let screen = Terminal::new(CrosstermBackend::new(stdout()));
        let screen = screen.map(|terminal| Self { terminal });
        if screen.is_err() {
            leave();
        }
        let screen = screen.context("cannot set up the terminal")?;
        execute!(stdout(), EnterAlternateScreen, Hide).context("cannot write to the terminal")?;
        // We see to NO_COLOR ourselves; crossterm would turn "default colour" into "no highlighting
        // either".
        style::force_color_output(true);
        Ok(screen)
    }

    /// Whether the screen was lost to a panic.
    pub(super) fn is_lost() -> bool {
        PANICKED.load(Ordering::Relaxed)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        leave();
    }
}

/// Gives the terminal back. If that fails there is nothing else to try.
pub(super) fn leave() {
    let _left = execute!(stdout(), LeaveAlternateScreen, Show);
    let _usual = disable_raw_mode();
}
