//! A file's content: as text if it seems to be some, else in hex. Pieces are asked for as they come
//! into sight.

use std::sync::Arc;

use super::Effect;
use imgfs_core::view::ImageFs;
use imgfs_formats::tree::Ino;

/// Bytes asked for at a time.
pub(in super::super) const PIECE: usize = 64 << 10;
/// Most bytes of a file that are looked at; protects memory. A user who wants more copies the file.
const MAX_BYTES: usize = 16 << 20;
/// Longest line of text, in bytes; a longer one goes on in the next line, so that drawing costs
/// little.
const MAX_LINE: usize = 4096;
/// Columns moved to the side at a time.
const SIDE: usize = 16;

/// What is shown of a file.
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a question of its own"
)]
pub(in super::super) struct Preview {
    fs: Arc<ImageFs>,
    ino: Ino,
    /// Its path in the image.
    pub path: Vec<u8>,
    /// Size of the file in bytes.
    pub size: u64,
    pub(super) number: u64,
    bytes: Vec<u8>,
    /// Where lines end, behind their line breaks.
    ends: Vec<usize>,
    /// A piece was asked for and has not come.
    pub waiting: bool,
    /// All that will be shown has come.
    pub ended: bool,
    /// Asking failed.
    pub failed: bool,
    /// In hex; by what the bytes look like until somebody decides.
    pub hex: bool,
    decided: bool,
    /// The first line and, of text, the first column that are shown.
    pub top: usize,
    pub left: usize,
    rows: usize,
    columns: usize,
}

impl Preview {
    pub(super) fn new(number: u64, fs: Arc<ImageFs>, ino: Ino, path: Vec<u8>, size: u64) -> Self {
        Self {
            fs,
            ino,
            path,
            size,
            number,
            bytes: Vec::new(),
            ends: Vec::new(),
            waiting: false,
            ended: size == 0,
            failed: false,
            hex: false,
            decided: false,
            top: 0,
            left: 0,
            rows: 0,
            columns: 0,
        }
    }

    /// The next piece, if it is nearly in sight and nobody has asked for it.
    pub(super) fn want(&mut self) -> Option<Effect> {
        let in_sight = self.top + 2 * self.rows >= self.lines();
        if self.waiting || self.ended || self.failed || !in_sight {
            return None;
        }
        self.waiting = true;
        Some(Effect::Read {
            preview: self.number,
            fs: Arc::clone(&self.fs),
            ino: self.ino,
            offset: self.bytes.len() as u64,
        })
    }

    /// The piece that was asked for, or that there is none.
    pub(super) fn take(&mut self, piece: Option<Vec<u8>>) {
        self.waiting = false;
        let Some(piece) = piece else {
            self.failed = true;
            return;
        };
        let is_first = self.bytes.is_empty();
        self.bytes.extend_from_slice(&piece);
        self.ended = piece.len() < PIECE
            || self.bytes.len() as u64 >= self.size
            || self.bytes.len() >= MAX_BYTES;
        if is_first && !self.decided {
            self.hex = !is_text(&self.bytes);
        }
        self.find_lines();
    }

    /// Asks again after a failure.
    pub(super) fn retry(&mut self) {
        self.failed = false;
    }

    pub(super) fn resize(&mut self, rows: usize, columns: usize) {
        (self.rows, self.columns) = (rows, columns);
        self.go(self.top);
    }

    /// Number of lines known so far.
    pub(in super::super) fn lines(&self) -> usize {
        if self.hex {
            self.bytes.len().div_ceil(self.row_bytes())
        } else {
            self.ends.len()
        }
    }

    /// The bytes of a line and where it begins in the file.
    pub(in super::super) fn line(&self, number: usize) -> Option<(usize, &[u8])> {
        let (start, end) = if self.hex {
            let start = number * self.row_bytes();
            (start, (start + self.row_bytes()).min(self.bytes.len()))
        } else {
            let before = number.checked_sub(1);
            let start = before.map_or(Some(0), |before| self.ends.get(before).copied())?;
            (start, *self.ends.get(number)?)
        };
        Some((start, self.bytes.get(start..end)?))
    }

    /// Bytes in a line of hex: as many as there is room for, offset and letters too.
    pub(in super::super) fn row_bytes(&self) -> usize {
        if self.columns >= 10 + 16 * 4 { 16 } else { 8 }
    }

    /// Whether only a part of the file will be shown.
    pub(in super::super) fn is_cut(&self) -> bool {
        self.ended && (self.bytes.len() as u64) < self.size
    }

    pub(super) fn go(&mut self, top: usize) {
        self.top = top.min(self.lines().saturating_sub(self.rows));
    }

    pub(super) fn go_by(&mut self, lines: isize) {
        self.go(self.top.saturating_add_signed(lines));
    }

    pub(super) fn page(&self) -> isize {
        isize::try_from(self.rows.saturating_sub(1).max(1)).unwrap_or(1)
    }

    /// To the end of what is known.
    pub(super) fn go_last(&mut self) {
        self.go(usize::MAX);
    }

    pub(super) fn go_aside(&mut self, right: bool) {
        self.left = if right {
            (self.left + SIDE).min(MAX_LINE)
        } else {
            self.left.saturating_sub(SIDE)
        };
    }

    /// Text or hex; the first line that is shown stays the same.
    pub(super) fn toggle_hex(&mut self) {
        let start = self.line(self.top).map_or(0, |(start, _)| start);
        self.decided = true;
        self.hex = !self.hex;
        let top = if self.hex {
            start / self.row_bytes()
        } else {
            self.ends.partition_point(|end| *end <= start)
        };
        self.left = 0;
        self.go(top);
    }

    fn find_lines(&mut self) {
        // The last line may have gone on.
        if self
            .ends
            .last()
            .is_some_and(|end| self.bytes.get(end - 1) != Some(&b'\n'))
        {
            self.ends.pop();
        }
        let mut start = self.ends.last().copied().unwrap_or(0);
        while let Some(rest) = self.bytes.get(start..).filter(|rest| !rest.is_empty()) {
            let longest = rest.get(..MAX_LINE).unwrap_or(rest);
            let length = match longest.iter().position(|byte| *byte == b'\n') {
                Some(position) => position + 1,
                None if longest.len() < rest.len() => whole_letters(longest),
                None => rest.len(),
            };
            start += length;
            self.ends.push(start);
        }
    }
}

/// How much of a line to show so that no letter of UTF-8 is cut in two.
fn whole_letters(line: &[u8]) -> usize {
    let is_start = |byte: &u8| !(0x80..0xC0).contains(byte);
    let last = line.iter().rposition(is_start).unwrap_or(0);
    if last + 4 > line.len() && last > 0 {
        last
    } else {
        line.len()
    }
}

/// Whether bytes look like text: no zero bytes, and few that are no letters of UTF-8.
fn is_text(bytes: &[u8]) -> bool {
    let mut odd = 0;
    for chunk in bytes.utf8_chunks() {
        odd += chunk.invalid().len();
        let controls = chunk.valid().bytes().filter(|byte| {
            byte.is_ascii_control() && !matches!(byte, b'\n' | b'\t' | b'\r' | 0x0c | 0x1b)
        });
        odd += controls.count();
    }
    !bytes.contains(&0) && odd * 10 <= bytes.len()
}
