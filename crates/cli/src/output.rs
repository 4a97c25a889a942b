//! Printing: data to stdout, messages to stderr, tables that align, names that cannot harm a
//! terminal.

mod colour;
mod names;
mod size;
mod stream;
mod table;

use std::io::{IsTerminal, Write};
use std::sync::{Mutex, OnceLock, PoisonError, mpsc};

use anyhow::Context;
use tracing::Level;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

pub(super) use colour::Colours;
pub(super) use names::{json_base64, json_text, name, printable, printable_name, shown_text};
pub(super) use size::{human, size};
pub(super) use stream::{JsonArray, Out};
pub(super) use table::{table, table_text, width};

/// Raises the level that `--quiet` lowered.
static RAISE: OnceLock<Box<dyn Fn() + Send + Sync>> = OnceLock::new();

/// From now on warnings are logged even with `--quiet`: stderr is a log file, which annoys nobody.
pub(super) fn log_warnings() {
    if let Some(raise) = RAISE.get() {
        raise();
    }
}

/// Where the log goes while a program has the whole screen.
static DIVERTED: Mutex<Option<mpsc::Sender<String>>> = Mutex::new(None);

/// From now on the log goes there, a piece of text at a time, and not to stderr; with `None` to
/// stderr again.
pub(super) fn divert_log(to: Option<mpsc::Sender<String>>) {
    *DIVERTED.lock().unwrap_or_else(PoisonError::into_inner) = to;
}

/// Where the log goes.
struct Log;

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let diverted = DIVERTED.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(to) = &*diverted else {
            return std::io::stderr().write(bytes);
        };
        // Who does not listen any more is about to give the screen back.
        let _unheard = to.send(String::from_utf8_lossy(bytes).into_owned());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        std::io::stderr().flush()
    }
}

/// What is logged if not asked for more. The checker of certificates logs what it returns, and that
/// is our error.
const USUAL: &str = "imgfs=warn,error,rustls_platform_verifier=off";
const QUIET: &str = "error,rustls_platform_verifier=off";

/// Starts the log on stderr: warnings, or more if asked for (`IMGFS_LOG` has the last word).
pub(super) fn start_log(verbose: u8, quiet: bool) {
    let level = match (verbose, quiet) {
        (0, true) => QUIET,
        (0, false) => USUAL,
        (1, _) => "imgfs=info,warn",
        (2, _) => "imgfs=debug,info",
        _ => "trace",
    };
    let filter = EnvFilter::try_from_env("IMGFS_LOG").unwrap_or_else(|_| EnvFilter::new(level));
    let log = tracing_subscriber::fmt()
        .with_writer(|| Log)
        .with_ansi(std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none())
        .event_format(LogLine)
        .with_env_filter(filter)
        .with_filter_reloading();
    let handle = log.reload_handle();
    let _already_set = RAISE.set(Box::new(move || {
        // The subscriber lives as long as the process.
        let _gone = handle.reload(EnvFilter::new(USUAL));
    }));
    // Only a second call in the same process could fail.
    let _already_started = log.try_init();
}

/// A line of the log: its level and its words. Not the mount that it is about: this process has
/// one.
struct LogLine;

impl<S, N> FormatEvent<S, N> for LogLine
where
    S: tracing::Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &tracing::Event<'_>,
    ) -> std::fmt::Result {
        let level = *event.metadata().level();
        if writer.has_ansi_escapes() {
            let colour = match level {
                Level::TRACE => 35,
                Level::DEBUG => 34,
                Level::INFO => 32,
                Level::WARN => 33,
                Level::ERROR => 31,
            };
            write!(writer, "\x1b[{colour}m{level:>5}\x1b[0m ")?;
        } else {
            write!(writer, "{level:>5} ")?;
        }
        context.format_fields(writer.by_ref(), event)?;
        writeln!(writer)
    }
}

/// An error for people: the chain of causes in one line, without saying anything twice.
pub(super) fn error(err: &anyhow::Error) {
    message(&format!("imgfs: {}", error_text(err)));
}

/// The same as text.
pub(super) fn error_text(err: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in err.chain().map(ToString::to_string) {
        if text.is_empty() {
            text = cause;
        } else if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

/// A line for people on stderr. If even that fails there is nobody to tell.
pub(super) fn message(text: &str) {
    let _unheard = writeln!(std::io::stderr(), "{text}");
}

/// Bytes to stdout.
pub(super) fn bytes(bytes: &[u8]) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(bytes)
        .and_then(|()| out.flush())
        .context("cannot write to stdout")
}

/// A line to stdout.
pub(super) fn line(text: &str) -> anyhow::Result<()> {
    bytes(format!("{text}\n").as_bytes())
}

/// A value as JSON to stdout.
pub(super) fn json<T: serde::Serialize>(value: &T) -> anyhow::Result<()> {
    line(&names::harmless_json(serde_json::to_string_pretty(value)?))
}

/// Whether an error only says that nobody reads our output any more, as with `| head`.
pub(super) fn is_broken_pipe(err: &anyhow::Error) -> bool {
    err.chain().any(|cause| {
        cause
            .downcast_ref::<std::io::Error>()
            .is_some_and(|err| err.kind() == std::io::ErrorKind::BrokenPipe)
    })
}

/// Whether somebody reads stdout as it is written.
pub(super) fn is_terminal() -> bool {
    std::io::stdout().is_terminal()
}
