//! What takes time: finding the image, opening layers, listing, reading, copying. Each runs on the
//! runtime and ends in a message.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, ensure};
use tokio::runtime::Handle;
use tokio::signal::unix::{SignalKind, signal};

use super::contents::Contents;
use super::model::{Effect, ImageInfo, Listed, Message, PIECE};
use super::screen;
use crate::{output, time};
use imgfs_core::image::{Image, LayerProgress, Opened, Prepared, Request};
use imgfs_core::store::Store;
use imgfs_core::view::ImageFs;
use imgfs_core::work::Unpacking;
use imgfs_formats::oci::Digest;
use imgfs_formats::tree::Ino;

/// How long the program may take to end in order after a signal.
const PARTING: Duration = Duration::from_secs(1);

/// Does what the model asks for.
#[derive(Clone)]
pub(super) struct Work {
    store: Arc<Store>,
    request: Request,
    runtime: Handle,
    messages: Sender<Message>,
    shared: Arc<Mutex<Shared>>,
}

/// What one piece of work leaves for others.
#[derive(Default)]
struct Shared {
    contents: Option<Arc<Contents>>,
    downloads: Vec<LayerProgress>,
    /// Bytes of a copy that were written, and that there are.
    copying: Option<(Arc<AtomicU64>, u64)>,
    /// Why the image could not even be found.
    unresolved: Option<anyhow::Error>,
}

impl Work {
    pub(super) fn new(
        store: Arc<Store>,
        request: Request,
        runtime: Handle,
    ) -> (Self, Receiver<Message>) {
        let (messages, receiver) = mpsc::channel();
        let work = Self {
            store,
            request,
            runtime,
            messages,
            shared: Arc::default(),
        };
        (work, receiver)
    }

    /// What the user asked for.
    pub(super) fn name(&self) -> String {
        self.request.name()
    }

    /// Begins what the model wants done.
    pub(super) fn begin(&self, effect: Effect) {
        let work = self.clone();
        match effect {
            Effect::Quit => self.tell(Message::Quit),
            Effect::Open => {
                // Resolving asks the cache on the disk, too: a thread of its own, not one that
                // others wait for.
                self.runtime.spawn_blocking(move || {
                    if let Err(err) = work.runtime.block_on(work.open()) {
                        work.tell(Message::OpenFailed(one_line(&err)));
                    }
                });
            }
            Effect::List(listed) => {
                // Building trees is work for a processor, and may take a while for a million files.
                self.runtime.spawn_blocking(move || work.list(listed));
            }
            Effect::Read {
                preview,
                fs,
                ino,
                offset,
            } => {
                self.runtime.spawn(async move {
                    let mut piece = Vec::new();
                    let read = fs.read(ino, offset, PIECE, &mut piece).await;
                    let piece = read.map(|()| piece).map_err(|err| one_line(&err.into()));
                    work.tell(Message::Read { preview, piece });
                });
            }
            Effect::Copy {
                fs,
                ino,
                name,
                dest,
            } => {
                self.runtime.spawn(async move {
                    let begun = |written: &Arc<AtomicU64>, bytes| {
                        work.shared().copying = Some((Arc::clone(written), bytes));
                    };
                    let copied = copy(fs, ino, &name, &dest, begun).await;
                    work.shared().copying = None;
                    work.tell(Message::Copied(copied.map_err(|err| one_line(&err))));
                });
            }
        }
    }

    /// How far downloads and a copy are, if any is under way.
    pub(super) fn progress(&self) -> Vec<Message> {
        let shared = self.shared();
        let bytes: Vec<(Digest, u64)> = (shared.downloads.iter())
            .map(|download| (download.blob.digest, download.progress.done()))
            .collect();
        let copying = shared.copying.as_ref();
        let copying = copying
            .map(|(written, bytes)| Message::Copying(written.load(Ordering::Relaxed), *bytes));
        let downloads = (!bytes.is_empty()).then_some(Message::Progress(bytes));
        downloads.into_iter().chain(copying).collect()
    }

    /// Why the image could not be found, if that is so: then there is nothing to show.
    pub(super) fn take_unresolved(&self) -> Option<anyhow::Error> {
        self.shared().unresolved.take()
    }

    /// Ends the program in order when somebody asks it to by a signal.
    pub(super) fn watch_signals(&self) -> anyhow::Result<()> {
        let _runtime = self.runtime.enter();
        for kind in [
            SignalKind::terminate(),
            SignalKind::hangup(),
            SignalKind::interrupt(),
        ] {
            let mut signals = signal(kind).context("cannot wait for signals")?;
            let work = self.clone();
            self.runtime.spawn(async move {
                if signals.recv().await.is_some() {
                    work.tell(Message::Quit);
                    // Where the terminal is gone its reader goes round in circles and never looks
                    // at messages.
                    tokio::time::sleep(PARTING).await;
                    screen::leave();
                    std::process::exit(1);
                }
            });
        }
        Ok(())
    }

    /// Shows warnings of the log instead of letting them into the screen. Ends with
    /// [`output::divert_log`].
    pub(super) fn watch_log(&self) {
        let (sender, receiver) = mpsc::channel::<String>();
        let work = self.clone();
        self.runtime.spawn_blocking(move || {
            while let Ok(text) = receiver.recv() {
                work.tell(Message::Warning(without_colours(text.trim())));
            }
        });
        output::divert_log(Some(sender));
    }

    async fn open(&self) -> anyhow::Result<()> {
        // What this adds cannot be evicted while it runs, so the next one does.
        if let Err(err) = self.store.enforce_limit() {
            tracing::warn!("cannot keep the cache within its limit: {err}");
        }
        let image = match Image::resolve_to_open(&self.store, &self.request).await {
            Ok(image) => image,
            Err(err) => {
                let err = anyhow::Error::from(err);
                let text = one_line(&err);
                self.shared().unresolved = Some(err);
                self.tell(Message::OpenFailed(text));
                return Ok(());
            }
        };
        self.tell(Message::Resolved(info(&image)));
        if let Some(text) = time::freshness_text(&image.freshness) {
            self.tell(Message::Note(text));
        }
        let prepared = Prepared::find(&self.store, image).await;
        let downloads = prepared.downloads();
        let digests = downloads.iter().map(|download| download.blob.digest);
        self.tell(Message::Downloads(digests.collect()));
        self.shared().downloads.clone_from(&downloads);
        let opened = Opened::open_with_tocs(&self.store, prepared, &downloads).await;
        self.shared().downloads.clear();
        let (opened, tocs) = opened?;
        let contents = Arc::new(Contents::new(Arc::clone(&self.store), opened, tocs));
        let summary = contents.summary();
        self.shared().contents = Some(contents);
        self.tell(Message::Opened(summary));
        Ok(())
    }

    fn list(&self, listed: Listed) {
        let contents = self.shared().contents.clone();
        let listing = contents
            .context("internal: the image is not open")
            .and_then(|contents| contents.listing(listed));
        let listing = listing.map(Arc::new).map_err(|err| one_line(&err));
        self.tell(Message::Listing(listed, listing));
    }

    fn shared(&self) -> std::sync::MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, message: Message) {
        // Nobody listens any more when the program ends.
        let _unheard = self.messages.send(message);
    }
}

fn info(image: &Image) -> ImageInfo {
    let resolved = &image.resolved;
    let steps = resolved.config.steps_of_layers();
    let mut commands = steps
        .into_iter()
        .map(|step| step.map(|step| step.created_by));
    let layers = resolved.manifest.layers.iter();
    ImageInfo {
        reference: image.reference.to_string(),
        digest: resolved
            .manifest_digest()
            .map(Digest::short)
            .unwrap_or_default(),
        platform: resolved.platform().to_string(),
        layers: layers
            .map(|blob| (blob.digest, blob.size, commands.next().flatten()))
            .collect(),
    }
}

/// Copies to a place below the current directory; what to say about it.
async fn copy(
    fs: Arc<ImageFs>,
    ino: Ino,
    name: &[u8],
    dest: &str,
    begun: impl FnOnce(&Arc<AtomicU64>, u64),
) -> anyhow::Result<String> {
    let here = std::env::current_dir().context("there is no current directory")?;
    let mut dest = below(&here, dest)?;
    if here.join(&dest).is_dir() {
        dest.push(OsStr::from_bytes(name));
    }
    let shown = output::printable(dest.as_os_str().as_bytes());
    // The name that is offered was hardly chosen to replace what has it.
    ensure!(
        here.join(&dest).symlink_metadata().is_err(),
        "./{shown} exists: imgfs cp replaces files, here another name is needed"
    );
    let mut copy = Unpacking::new(fs, ino)?;
    begun(copy.written(), copy.bytes());
    copy.node(ino, &here.join(&dest)).await?;
    Ok(match copy.skipped() {
        0 => format!("copied to ./{shown}"),
        skipped => {
            format!("copied to ./{shown} without {skipped} device nodes: those need root")
        }
    })
}

/// A destination, once it is sure that it lies below `here` whatever links lead to.
fn below(here: &Path, dest: &str) -> anyhow::Result<PathBuf> {
    let mut cleaned = PathBuf::new();
    for component in Path::new(dest.trim()).components() {
        match component {
            Component::Normal(name) => cleaned.push(name),
            Component::CurDir => {}
            Component::RootDir | Component::ParentDir | Component::Prefix(_) => {
                anyhow::bail!(
                    "{} is not below the current directory: imgfs cp copies to any place",
                    output::printable(dest.as_bytes())
                )
            }
        }
    }
    let dest = here.join(&cleaned);
    // Where nothing is yet, the directory that it goes into decides.
    let existing = if dest.is_dir() {
        dest.as_path()
    } else {
        dest.parent().unwrap_or(here)
    };
    let real = existing.canonicalize().with_context(|| {
        format!(
            "no directory {}: make it, or choose another place",
            output::printable(existing.as_os_str().as_bytes())
        )
    })?;
    let here = here
        .canonicalize()
        .context("there is no current directory")?;
    ensure!(
        real.starts_with(&here),
        "{} leads out of the current directory: imgfs cp copies to any place",
        output::printable(cleaned.as_os_str().as_bytes())
    );
    Ok(cleaned)
}

/// An error in one line, nothing twice.
fn one_line(err: &anyhow::Error) -> String {
    output::printable(output::error_text(err).as_bytes())
}

/// Text of the log without what colours it.
fn without_colours(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('\u{1b}') {
        out.push_str(before);
        rest = after.split_once('m').map_or("", |(_, after)| after);
    }
    out.push_str(rest);
    output::printable(out.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn destinations_stay_below_the_current_directory() {
        let dir = tempfile::tempdir().unwrap();
        let here = dir.path().join("here");
        std::fs::create_dir_all(here.join("sub")).unwrap();
        std::os::unix::fs::symlink(dir.path(), here.join("out")).unwrap();
        std::os::unix::fs::symlink(here.join("sub"), here.join("in")).unwrap();
        let check = |dest: &str, expected: Option<&str>| {
            let found = below(&here, dest).ok();
            assert_eq!(found.as_deref(), expected.map(Path::new), "{dest}");
        };
        check("a", Some("a"));
        check("./sub/a ", Some("sub/a"));
        check("", Some(""));
        check("in/a", Some("in/a"));
        for bad in ["/a", "../a", "sub/../../a", "out", "out/a", "absent/a"] {
            check(bad, None);
        }
    }

    #[test]
    fn the_log_is_shown_without_colours() {
        assert_eq!(
            without_colours("\u{1b}[33m WARN\u{1b}[0m odd\u{7}"),
            " WARN odd\\u{7}"
        );
    }
}
