//! Progress of downloads, copies and what is written: bars on a terminal, now and then a line otherwise, nothing with
//! `--quiet`.

use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::output;
use crate::mount::LayerProgress;

/// How often bars move.
const TICK: Duration = Duration::from_millis(100);
/// What is done sooner needs no line: as a rule everything was here.
const FIRST_LINE: Duration = Duration::from_millis(300);
/// How often a line is printed where there is no terminal.
const LINES: Duration = Duration::from_secs(10);

/// Shows progress until it is dropped.
pub(super) struct Shown {
    task: Option<tokio::task::JoinHandle<()>>,
}

/// Shows these downloads while they run.
pub(super) fn show(downloads: &[LayerProgress], quiet: bool) -> Shown {
    show_as(downloads, quiet, ("fetching", "fetched"))
}

/// Shows blobs on their way from one registry to another.
pub(super) fn show_copies(copies: &[LayerProgress], quiet: bool) -> Shown {
    show_as(copies, quiet, ("copying", "copied"))
}

/// `verb` is what is going on, and what was.
fn show_as(downloads: &[LayerProgress], quiet: bool, verb: (&'static str, &'static str)) -> Shown {
    if quiet || downloads.is_empty() {
        return Shown { task: None };
    }
    let downloads = downloads.to_vec();
    let task = if std::io::stderr().is_terminal() {
        tokio::spawn(bars(downloads))
    } else {
        tokio::spawn(lines(downloads, verb))
    };
    Shown { task: Some(task) }
}

/// Shows how much of `total` bytes has been written, which `written` counts.
pub(super) fn show_written(total: u64, written: &Arc<AtomicU64>, quiet: bool) -> Shown {
    if quiet {
        return Shown { task: None };
    }
    let written = Arc::clone(written);
    let task = if std::io::stderr().is_terminal() {
        tokio::spawn(bar_of_written(total, written))
    } else {
        tokio::spawn(lines_of_written(total, written))
    };
    Shown { task: Some(task) }
}

impl Drop for Shown {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

async fn bars(downloads: Vec<LayerProgress>) {
    let all = MultiProgress::with_draw_target(ProgressDrawTarget::stderr());
    let style = ProgressStyle::with_template(
        "{prefix} [{bar:30}] {bytes:>10}/{total_bytes:<10} {bytes_per_sec:>12} {eta:>4}",
    )
    .unwrap_or_else(|_| ProgressStyle::default_bar())
    .progress_chars("=> ");
    let bars: Vec<(LayerProgress, Cleared)> = downloads
        .into_iter()
        .map(|download| {
            let bar = all.add(ProgressBar::new(download.blob.size));
            bar.set_style(style.clone());
            bar.set_prefix(download.blob.digest.short());
            (download, Cleared(bar))
        })
        .collect();
    loop {
        for (download, bar) in &bars {
            bar.0.set_position(download.progress.done());
        }
        tokio::time::sleep(TICK).await;
    }
}

async fn bar_of_written(total: u64, written: Arc<AtomicU64>) {
    let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
    let style = ProgressStyle::with_template(
        "written [{bar:30}] {bytes:>10}/{total_bytes:<10} {bytes_per_sec:>12} {eta:>4}",
    )
    .unwrap_or_else(|_| ProgressStyle::default_bar())
    .progress_chars("=> ");
    let bar = Cleared(bar.with_style(style));
    loop {
        bar.0.set_position(written.load(Ordering::Relaxed));
        tokio::time::sleep(TICK).await;
    }
}

async fn lines_of_written(total: u64, written: Arc<AtomicU64>) {
    loop {
        tokio::time::sleep(LINES).await;
        let written = output::size(written.load(Ordering::Relaxed));
        output::message(&format!("written {written} of {}", output::size(total)));
    }
}

/// A bar that leaves the screen with its task.
struct Cleared(ProgressBar);

impl Drop for Cleared {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

async fn lines(downloads: Vec<LayerProgress>, verb: (&'static str, &'static str)) {
    let total: u64 = downloads.iter().map(|download| download.blob.size).sum();
    let layers = match &downloads[..] {
        [download] => format!("layer {}", download.blob.digest.short()),
        several => format!("{} layers", several.len()),
    };
    tokio::time::sleep(FIRST_LINE).await;
    let here: u64 = downloads
        .iter()
        .map(|download| download.progress.here())
        .sum();
    let here = match here {
        0 => String::new(),
        _ => format!(", of which {} were here", output::size(here)),
    };
    let (doing, done_so_far) = verb;
    output::message(&format!("{doing} {layers}, {}{here}", output::size(total)));
    loop {
        tokio::time::sleep(LINES).await;
        let done: u64 = downloads
            .iter()
            .map(|download| download.progress.done())
            .sum();
        output::message(&format!(
            "{done_so_far} {} of {}",
            output::size(done),
            output::size(total)
        ));
    }
}
