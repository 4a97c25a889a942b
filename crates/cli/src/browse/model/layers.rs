//! The left side: a line for the image, then one for each layer, base first.

use super::image::ImageInfo;
use super::{Listed, files::window};
use imgfs_formats::oci::Digest;

/// One layer.
#[derive(Debug, Clone)]
pub(in super::super) struct LayerRow {
    pub digest: Digest,
    /// Bytes of the blob.
    pub size: u64,
    /// The command that made it, if the config tells.
    pub command: Option<String>,
    pub state: LayerState,
}

/// How far a layer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum LayerState {
    /// Whether it has to be streamed is not known yet.
    Waiting,
    /// So many of its bytes are here.
    Fetching(u64),
    /// What it holds is known.
    Open,
}

/// The lines, and the one that is chosen.
#[derive(Debug, Default)]
pub(in super::super) struct Layers {
    pub rows: Vec<LayerRow>,
    /// The chosen line: 0 is the image, 1 the base layer.
    pub cursor: usize,
    /// The first line that is shown.
    pub top: usize,
}

impl Layers {
    pub(super) fn set(&mut self, info: &ImageInfo) {
        let layers = info.layers.iter();
        self.rows = layers
            .map(|(digest, size, command)| LayerRow {
                digest: *digest,
                size: *size,
                command: command.as_deref().map(shortened),
                state: LayerState::Waiting,
            })
            .collect();
        self.cursor = self.cursor.min(self.rows.len());
    }

    /// These are streamed now, the others are open.
    pub(super) fn begin(&mut self, digests: &[Digest]) {
        for row in &mut self.rows {
            row.state = if digests.contains(&row.digest) {
                LayerState::Fetching(0)
            } else {
                LayerState::Open
            };
        }
    }

    pub(super) fn progress(&mut self, bytes: &[(Digest, u64)]) {
        for row in &mut self.rows {
            let done = bytes.iter().find(|(digest, _)| *digest == row.digest);
            if let (Some((_, done)), LayerState::Fetching(_)) = (done, row.state) {
                row.state = LayerState::Fetching(*done);
            }
        }
    }

    /// Whose files are wanted.
    pub(in super::super) fn listed(&self) -> Listed {
        match self.cursor.checked_sub(1) {
            None => Listed::Image,
            Some(layer) => Listed::Layer(layer),
        }
    }

    /// The layer of the chosen line.
    pub(in super::super) fn selected(&self) -> Option<&LayerRow> {
        self.rows.get(self.cursor.checked_sub(1)?)
    }

    pub(super) fn go(&mut self, to: usize) {
        self.cursor = to.min(self.rows.len());
    }

    pub(super) fn scroll(&mut self, shown: usize) {
        self.top = window(self.top, self.cursor, self.rows.len() + 1, shown);
    }
}

/// A command without what builders write around it.
fn shortened(command: &str) -> String {
    let command = command.strip_suffix("# buildkit").unwrap_or(command);
    let mut rest = command.trim();
    for prefix in ["RUN ", "/bin/sh -c ", "#(nop) "] {
        rest = rest.strip_prefix(prefix).unwrap_or(rest).trim_start();
    }
    let words: Vec<&str> = rest.split_whitespace().collect();
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_lose_what_builders_write_around_them() {
        let check = |command, expected: &str| assert_eq!(shortened(command), expected);
        check("/bin/sh -c #(nop) ADD file:1 in / ", "ADD file:1 in /");
        check(
            "RUN /bin/sh -c apt-get \tupdate # buildkit",
            "apt-get update",
        );
        check("COPY a b # buildkit", "COPY a b");
        check("", "");
    }
}
