//! What work comes to, and what the model makes of it.

use std::sync::Arc;

use super::image::{ImageInfo, Summary};
use super::layers::LayerState;
use super::{Effect, Listed, Listing, Model, Overlay, Stage, Status};
use imgfs_formats::oci::Digest;

/// What work came to.
pub(in super::super) enum Message {
    /// The image is known.
    Resolved(ImageInfo),
    /// These layers have to be streamed, the others are open.
    Downloads(Vec<Digest>),
    /// So many bytes of these layers are here.
    Progress(Vec<(Digest, u64)>),
    /// All layers are open.
    Opened(Summary),
    /// They cannot be opened.
    OpenFailed(String),
    /// A listing is ready.
    Listing(Listed, Result<Arc<Listing>, String>),
    /// A piece of the file in the preview with this number. Shorter than asked for only at its end.
    Read {
        preview: u64,
        piece: Result<Vec<u8>, String>,
    },
    /// So many bytes of so many are copied.
    Copying(u64, u64),
    /// A copy ended; what to say about it.
    Copied(Result<String, String>),
    /// Something to say that nobody waits for.
    Note(String),
    /// Something odd that work went on after.
    Warning(String),
    /// The program has to end.
    Quit,
}

impl Model {
    pub(super) fn message(&mut self, message: Message) -> Vec<Effect> {
        match message {
            Message::Resolved(info) => {
                self.reference.clone_from(&info.reference);
                self.layers.set(&info);
                self.info = Some(info);
                self.stage = Stage::Opening;
            }
            Message::Downloads(digests) => self.layers.begin(&digests),
            Message::Progress(bytes) => self.layers.progress(&bytes),
            Message::Opened(summary) => {
                self.stage = Stage::Open;
                for layer in &mut self.layers.rows {
                    layer.state = LayerState::Open;
                }
                self.summary = Some(summary);
                return self.want_listing().into_iter().collect();
            }
            Message::OpenFailed(why) => {
                self.stage = Stage::Failed;
                self.status = Status::failed_for_now(why);
            }
            Message::Listing(listed, listing) => {
                self.listing = None;
                match listing {
                    Ok(listing) => self.files.set(listed, listing),
                    Err(why) => {
                        self.status = Status::failed_for_now(why);
                        return Vec::new();
                    }
                }
                return self.want_listing().into_iter().collect();
            }
            Message::Read {
                preview: number,
                piece,
            } => {
                if let Overlay::Preview(preview) = &mut self.overlay
                    && preview.number == number
                {
                    match piece {
                        Ok(piece) => preview.take(Some(piece)),
                        Err(why) => {
                            preview.take(None);
                            self.status = Status::failed_for_now(why);
                        }
                    }
                }
            }
            // It may have ended just now.
            Message::Copying(written, bytes) => {
                self.copying = self.copying.map(|_| (written, bytes));
            }
            Message::Copied(outcome) => {
                self.copying = None;
                self.status = match outcome {
                    Ok(text) => Status::Note(text),
                    Err(why) => Status::failed(why),
                };
            }
            Message::Note(text) => self.status = Status::Note(text),
            Message::Warning(text) => self.status = Status::Warning(text),
            Message::Quit => return vec![Effect::Quit],
        }
        Vec::new()
    }
}
