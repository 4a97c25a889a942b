//! Output of any length: written as it comes, in large pieces.

use std::io::{BufWriter, StdoutLock, Write};

use anyhow::Context;
use serde::Serialize;

use super::names::harmless_json;

/// Stdout with a buffer.
pub(crate) struct Out(BufWriter<StdoutLock<'static>>);

impl Out {
    /// Nothing is written yet.
    pub(crate) fn new() -> Self {
        Self(BufWriter::with_capacity(64 << 10, std::io::stdout().lock()))
    }

    /// Writes bytes, in the end.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        self.0.write_all(bytes).context("cannot write to stdout")
    }

    /// Writes what is in the buffer.
    pub(crate) fn flush(&mut self) -> anyhow::Result<()> {
        self.0.flush().context("cannot write to stdout")
    }
}

/// A JSON array, one element a line.
pub(crate) struct JsonArray {
    out: Out,
    is_empty: bool,
}

impl JsonArray {
    /// An empty array.
    pub(crate) fn new() -> Self {
        Self {
            out: Out::new(),
            is_empty: true,
        }
    }

    /// Adds an element.
    pub(crate) fn push<T: Serialize>(&mut self, element: &T) -> anyhow::Result<()> {
        let before = if self.is_empty { "[\n  " } else { ",\n  " };
        self.is_empty = false;
        self.out.bytes(before.as_bytes())?;
        let json = harmless_json(serde_json::to_string(element)?);
        self.out.bytes(json.as_bytes())
    }

    /// Ends the array.
    pub(crate) fn end(mut self) -> anyhow::Result<()> {
        let end = if self.is_empty { "[]\n" } else { "\n]\n" };
        self.out.bytes(end.as_bytes())?;
        self.out.flush()
    }
}
