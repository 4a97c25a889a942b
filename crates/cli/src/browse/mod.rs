//! `imgfs browse`: an image on a whole screen, to walk through.
//!
//! ```text
//! keys ─────────┐
//!               ├─> Event ──> Model::update ──> Effect ──> Work: the runtime ──> Message
//! messages ─────┘                  └──> view::draw
//! ```
//!
//! The model does no I/O and waits for nothing; what takes time is an effect, whose end comes back
//! as a message. So keys are answered at any time.

mod contents;
mod model;
mod screen;
mod session;
mod view;
mod work;

use std::io::IsTerminal;
use std::time::Duration;

use anyhow::bail;
use clap::Args;

use super::globals::{Globals, ImageOptions, runtime};
use imgfs_core::store::{OnError, ReadPolicy};
use work::Work;

/// Somebody is waiting who can press a key to try again: less patience than a mount has.
const READS: ReadPolicy = ReadPolicy {
    timeout: Duration::from_secs(20),
    on_error: OnError::Eio,
};

/// Walk through an image on the whole screen: its layers, files and their content.
#[derive(Args)]
#[command(after_help = "\
Nothing needs to be pulled before: layers without an index are streamed once, and a file's bytes \
are fetched when it is looked at or copied.

On the left are the layers, base first: how large each is as distributed (PACKED), the bytes of \
the files that it brings (ADDED), what of these is not in the image any more because a later \
layer replaces or removes it (WASTED), and the command that made it. The first line is the image \
as a whole. On the right is what the chosen layer did, or the image's files with what came after \
the base layer marked:

  + added   ~ changed   - removed   = written anew, same bytes   * something below is marked

Efficiency is the share of all layers' bytes that is in the image.

Keys:
  arrows, hjkl      move; left and right fold and unfold    Tab     to the other side
  PgUp PgDn g G     by pages, to the first, to the last     Enter   fold, unfold, look into a file
  e E               unfold and fold everything              u       what did not change, too, or not
  f                 filter: only paths with these letters   / n N   search, next, the one before
  p                 look into a file (x: text or hex)       c       copy out of the image
  r                 try again after a failed download       ? q     help, quit

Capital letters count in filters and searches that have some. NO_COLOR is respected.

Examples:
  imgfs browse golang
  imgfs browse --platform linux/arm64 ghcr.io/owner/name:tag")]
pub(super) struct BrowseArgs {
    /// The image
    image: String,
    #[command(flatten)]
    options: ImageOptions,
}

pub(super) fn browse(globals: &Globals, args: &BrowseArgs) -> anyhow::Result<()> {
    if !std::io::stdin().is_terminal() || !std::io::stdout().is_terminal() {
        bail!(
            "browse needs a terminal for its input and output: `imgfs ls {image}` and `imgfs tree {image}` do not",
            image = args.image
        );
    }
    // A password is asked for here, while the terminal is still as usual.
    let request = args.options.request(&args.image)?;
    let (store, runtime) = (globals.patient_store(READS)?, runtime()?);
    let (work, messages) = Work::new(store, request, runtime.handle().clone());
    let outcome = session::run(&work, &messages);
    // What is still under way is given up: a broken download costs a fetch at most.
    runtime.shutdown_background();
    outcome
}
