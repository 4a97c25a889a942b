//! The loop: keys and messages into the model, its wishes to the runtime, and what it is to the
//! screen.

use std::sync::mpsc::Receiver;
use std::time::Duration;

use anyhow::{Context, bail};
use ratatui::crossterm::event::{self, Event as Input, KeyEventKind};

use super::model::{Effect, Event, Message, Model, Stage};
use super::screen::Screen;
use super::view;
use super::work::Work;
use crate::output;

/// How long a key is waited for until messages are looked at: not to be felt, and nearly no work.
const TICK: Duration = Duration::from_millis(40);

/// Shows the image until the user has seen enough.
pub(super) fn run(work: &Work, messages: &Receiver<Message>) -> anyhow::Result<()> {
    work.watch_signals()?;
    let mut screen = Screen::enter()?;
    work.watch_log();
    let outcome = turn(work, messages, &mut screen);
    output::divert_log(None);
    drop(screen);
    outcome
}

fn turn(work: &Work, messages: &Receiver<Message>, screen: &mut Screen) -> anyhow::Result<()> {
    let size = screen.terminal.size().context("cannot ask the terminal")?;
    let mut model = Model::new(work.name(), (size.width, size.height));
    let theme = view::Theme::from_env();
    work.begin(Effect::Open);
    let mut is_stale = true;
    loop {
        if Screen::is_lost() {
            bail!("internal: a part of the program has failed");
        }
        if is_stale {
            let drawn = screen
                .terminal
                .draw(|frame| view::draw(frame, &model, &theme));
            drawn.context("cannot write to the terminal")?;
        }
        let mut events: Vec<Event> = Vec::new();
        if event::poll(TICK).context("cannot read from the terminal")? {
            match event::read().context("cannot read from the terminal")? {
                Input::Key(key) if key.kind != KeyEventKind::Release => {
                    events.push(Event::Key(key));
                }
                Input::Resize(columns, rows) => events.push(Event::Resize(columns, rows)),
                _ => {}
            }
        }
        events.extend(work.progress().into_iter().map(Event::Message));
        events.extend(messages.try_iter().map(Event::Message));
        is_stale = !events.is_empty();
        for event in events {
            for effect in model.update(event) {
                match effect {
                    Effect::Quit => return Ok(()),
                    effect => work.begin(effect),
                }
            }
        }
        // Nothing was ever shown of it: then the error alone says more.
        if model.stage == Stage::Failed
            && model.info.is_none()
            && let Some(err) = work.take_unresolved()
        {
            return Err(err);
        }
    }
}
