//! Progress of downloads, copies and what is written: bars on a terminal, now and then a line
//! otherwise, nothing with `--quiet`.

use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::output;
use imgfs_core::image::LayerProgress;

/// How often bars move.
const TICK: Duration = Duration::from_millis(100);
/// What is done sooner needs no line: as a rule everything was here.
const FIRST_LINE: Duration = Duration::from_millis(300);
/// How often a line is printed where there is no terminal.
const LINES: Duration = Duration::from_secs(10);

/// Shows progress until it is dropped.
pub(super) struct Shown {
    task: Option<tokio::task::JoinHandle<()>>,
    lines: Option<Arc<Lines>>,
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
        return Shown {
            task: None,
            lines: None,
        };
    }
    let downloads = downloads.to_vec();
    if std::io::stderr().is_terminal() {
        return Shown {
            task: Some(tokio::spawn(bars(downloads))),
            lines: None,
        };
    }
    let lines = Arc::new(Lines {
        downloads,
        verb,
        is_announced: AtomicBool::new(false),
    });
    Shown {
        task: Some(tokio::spawn(Arc::clone(&lines).print())),
        lines: Some(lines),
    }
}

/// Shows how much of `total` bytes is `what`, such as written: `done` counts them.
pub(super) fn show_bytes(
    what: &'static str,
    total: u64,
    done: &Arc<AtomicU64>,
    quiet: bool,
) -> Shown {
    if quiet {
        return Shown {
            task: None,
            lines: None,
        };
    }
    let done = Arc::clone(done);
    let task = if std::io::stderr().is_terminal() {
        tokio::spawn(bar_of_bytes(what, total, done))
    } else {
        tokio::spawn(lines_of_bytes(what, total, done))
    };
    Shown {
        task: Some(task),
        lines: None,
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
        if let Some(lines) = &self.lines {
            lines.finish();
        }
    }
}

async fn bars(downloads: Vec<LayerProgress>) {
    let all = MultiProgress::with_draw_target(ProgressDrawTarget::stderr());
    let style = style();
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

/// Bytes of all bytes, with this in front.
fn style() -> ProgressStyle {
    ProgressStyle::with_template(
        "{prefix} [{bar:30}] {bytes:>10}/{total_bytes:<10} {bytes_per_sec:>12} {eta:>4}",
    )
    .unwrap_or_else(|_| ProgressStyle::default_bar())
    .progress_chars("=> ")
}

async fn bar_of_bytes(what: &'static str, total: u64, done: Arc<AtomicU64>) {
    let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
    let bar = Cleared(bar.with_style(style()).with_prefix(what));
    loop {
        bar.0.set_position(done.load(Ordering::Relaxed));
        tokio::time::sleep(TICK).await;
    }
}

async fn lines_of_bytes(what: &'static str, total: u64, done: Arc<AtomicU64>) {
    loop {
        tokio::time::sleep(LINES).await;
        let done = output::size(done.load(Ordering::Relaxed));
        output::message(&format!("{what} {done} of {}", output::size(total)));
    }
}

/// A bar that leaves the screen with its task.
struct Cleared(ProgressBar);

impl Drop for Cleared {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

/// Downloads where there is no terminal.
struct Lines {
    downloads: Vec<LayerProgress>,
    /// What is going on, and what was.
    verb: (&'static str, &'static str),
    /// A line says that they began, and none that they ended.
    is_announced: AtomicBool,
}

impl Lines {
    async fn print(self: Arc<Self>) {
        let (doing, done_so_far) = self.verb;
        tokio::time::sleep(FIRST_LINE).await;
        let here = self.sum(|download| download.progress.here());
        let here = match here {
            0 => String::new(),
            _ => format!(", of which {} were here", output::size(here)),
        };
        let total = output::size(self.total());
        output::message(&format!("{doing} {}, {total}{here}", self.layers()));
        self.is_announced.store(true, Ordering::Release);
        let mut next = tokio::time::Instant::now() + LINES;
        while !self.finish() {
            tokio::time::sleep(TICK).await;
            if tokio::time::Instant::now() >= next {
                next += LINES;
                let done = self.sum(|download| download.progress.done());
                output::message(&format!("{done_so_far} {} of {total}", output::size(done)));
            }
        }
    }

    /// Says that all of it is done, if it is and was announced. Whether nothing more is to be said.
    fn finish(&self) -> bool {
        let is_done = self.sum(|download| download.progress.done()) >= self.total();
        if is_done && self.is_announced.swap(false, Ordering::AcqRel) {
            let (_, done) = self.verb;
            let total = output::size(self.total());
            output::message(&format!("{done} {}, {total}", self.layers()));
        }
        is_done
    }

    fn layers(&self) -> String {
        match &self.downloads[..] {
            [download] => format!("layer {}", download.blob.digest.short()),
            several => format!("{} layers", several.len()),
        }
    }

    fn total(&self) -> u64 {
        self.sum(|download| download.blob.size)
    }

    fn sum(&self, part: impl Fn(&LayerProgress) -> u64) -> u64 {
        self.downloads.iter().map(part).sum()
    }
}
