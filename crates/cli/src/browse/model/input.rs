//! A line that the user types into.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

/// Longest text: a path.
const MAX_LENGTH: usize = 4096;

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Purpose {
    Filter,
    Search,
    /// Where to copy to.
    Copy,
}

/// What was typed so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) struct Input {
    pub purpose: Purpose,
    letters: Vec<char>,
    /// How many letters are before the cursor.
    cursor: usize,
}

/// What a key did to an input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Typed {
    Changed,
    Accepted,
    Given,
}

impl Input {
    pub(super) fn new(purpose: Purpose, text: &str) -> Self {
        let letters: Vec<char> = text.chars().collect();
        Self {
            purpose,
            cursor: letters.len(),
            letters,
        }
    }

    pub(in super::super) fn text(&self) -> String {
        self.letters.iter().collect()
    }

    /// The text before the cursor.
    pub(in super::super) fn before(&self) -> String {
        self.letters.iter().take(self.cursor).collect()
    }

    pub(super) fn key(&mut self, key: KeyEvent) -> Typed {
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        match key.code {
            KeyCode::Enter => return Typed::Accepted,
            KeyCode::Esc => return Typed::Given,
            KeyCode::Char('u') if control => {
                self.letters.drain(..self.cursor);
                self.cursor = 0;
            }
            KeyCode::Char('w') if control => {
                let before = self.letters.iter().take(self.cursor);
                let word = before
                    .rev()
                    .skip_while(|letter| !letter.is_alphanumeric())
                    .skip_while(|letter| letter.is_alphanumeric())
                    .count();
                self.letters.drain(word..self.cursor);
                self.cursor = word;
            }
            KeyCode::Char('a') if control => self.cursor = 0,
            KeyCode::Char('e') if control => self.cursor = self.letters.len(),
            KeyCode::Char(letter)
                if !control && !letter.is_control() && self.letters.len() < MAX_LENGTH =>
            {
                self.letters.insert(self.cursor, letter);
                self.cursor += 1;
            }
            KeyCode::Backspace => {
                if let Some(before) = self.cursor.checked_sub(1) {
                    self.letters.remove(before);
                    self.cursor = before;
                }
            }
            KeyCode::Delete if self.cursor < self.letters.len() => {
                self.letters.remove(self.cursor);
            }
            KeyCode::Left => self.cursor = self.cursor.saturating_sub(1),
            KeyCode::Right => self.cursor = (self.cursor + 1).min(self.letters.len()),
            KeyCode::Home => self.cursor = 0,
            KeyCode::End => self.cursor = self.letters.len(),
            _ => {}
        }
        Typed::Changed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_edited_as_in_a_shell() {
        let check = |keys: &[(KeyCode, bool)], expected: (&str, &str)| {
            let mut input = Input::new(Purpose::Copy, "a/bc");
            for (code, control) in keys {
                let modifiers = if *control {
                    KeyModifiers::CONTROL
                } else {
                    KeyModifiers::NONE
                };
                input.key(KeyEvent::new(*code, modifiers));
            }
            assert_eq!((input.text().as_str(), input.before().as_str()), expected);
        };
        let (plain, control) = (|code| (code, false), |code| (KeyCode::Char(code), true));
        check(&[plain(KeyCode::Char('d'))], ("a/bcd", "a/bcd"));
        check(&[plain(KeyCode::Backspace)], ("a/b", "a/b"));
        check(
            &[plain(KeyCode::Left), plain(KeyCode::Delete)],
            ("a/b", "a/b"),
        );
        check(
            &[plain(KeyCode::Home), plain(KeyCode::Backspace)],
            ("a/bc", ""),
        );
        check(&[plain(KeyCode::Left), control('u')], ("c", ""));
        check(&[control('w')], ("a/", "a/"));
        check(&[control('a'), plain(KeyCode::Right)], ("a/bc", "a"));
    }
}
