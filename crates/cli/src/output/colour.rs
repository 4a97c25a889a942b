//! Colours, where somebody looks: on terminals, unless `NO_COLOR` is set (<https://no-color.org>).

use std::io::IsTerminal;

use imgfs_formats::tree::{Kind, Node};

/// Whether stdout shows colours. They are those that `ls` and `grep` use if nobody has chosen
/// others.
#[derive(Clone, Copy)]
pub(crate) struct Colours {
    on: bool,
}

impl Colours {
    /// As stdout and the environment have it.
    pub(crate) fn of_stdout() -> Self {
        let set = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        let dumb = set("TERM").is_some_and(|term| term == "dumb");
        Self {
            on: std::io::stdout().is_terminal() && set("NO_COLOR").is_none() && !dumb,
        }
    }

    /// A name, as `ls` paints it.
    pub(crate) fn name(self, node: &Node, text: Vec<u8>) -> Vec<u8> {
        let style = match node.kind() {
            Kind::Directory => "01;34",
            Kind::Symlink => "01;36",
            Kind::CharDevice | Kind::BlockDevice => "01;33",
            Kind::Fifo => "33",
            Kind::File | Kind::SparseFile if node.permissions() & 0o111 != 0 => "01;32",
            _ => return text,
        };
        self.paint(style, text)
    }

    /// The name of a file before a line of it, as `grep` paints it.
    pub(crate) fn file_name(self, text: Vec<u8>) -> Vec<u8> {
        self.paint("35", text)
    }

    /// The number of a line.
    pub(crate) fn number(self, text: Vec<u8>) -> Vec<u8> {
        self.paint("32", text)
    }

    /// What stands between them.
    pub(crate) fn separator(self, text: Vec<u8>) -> Vec<u8> {
        self.paint("36", text)
    }

    /// What was looked for.
    pub(crate) fn found(self, text: Vec<u8>) -> Vec<u8> {
        self.paint("01;31", text)
    }

    /// Whether there are any.
    pub(crate) fn on(self) -> bool {
        self.on
    }

    fn paint(self, style: &str, text: Vec<u8>) -> Vec<u8> {
        if !self.on {
            return text;
        }
        [b"\x1b[", style.as_bytes(), b"m", &text, b"\x1b[0m"].concat()
    }
}
