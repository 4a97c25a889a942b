//! The forward pass over gzip: members, deflate block boundaries, windows.

use super::super::inflate::{Inflate, InflateError, Step, Stop, WINDOW, Wrapper};
use super::super::span::{Checkpoint, SPAN_SIZE};
use super::super::window;
use super::{Progress, ScanError, Sink};

/// State between two pieces of input.
pub(super) struct GzipScan {
    inflate: Inflate,
    place: Place,
    /// The last cut, while it is not known yet which bytes of its window matter.
    open_window: Option<OpenWindow>,
    /// For decoding behind a cut with made-up windows.
    trial: Inflate,
}

#[derive(PartialEq, Eq)]
enum Place {
    FirstMember,
    Member,
    BetweenMembers,
    /// Zeros behind the last member, as tape-minded tools write.
    Padding,
}

/// A checkpoint whose window is still whole, and the compressed bytes behind it.
struct OpenWindow {
    window: Vec<u8>,
    bits: u8,
    last_byte: u8,
    following: Vec<u8>,
    produced: usize,
}

impl GzipScan {
    pub(super) fn new() -> Self {
        Self {
            inflate: Inflate::new(Wrapper::Gzip),
            place: Place::FirstMember,
            open_window: None,
            trial: Inflate::new(Wrapper::Raw),
        }
    }

    /// Whether the blob may end here.
    pub(super) fn is_complete(&self) -> bool {
        matches!(self.place, Place::BetweenMembers | Place::Padding)
    }

    pub(super) fn push(
        &mut self,
        mut input: &[u8],
        progress: &mut Progress,
        sink: &mut Sink<'_>,
    ) -> Result<(), ScanError> {
        while let Some(first) = input.first() {
            match self.place {
                Place::BetweenMembers if *first == 0 => self.place = Place::Padding,
                Place::Padding => {
                    if input.iter().any(|byte| *byte != 0) {
                        return Err(invalid(progress));
                    }
                    return progress.consumed(input);
                }
                Place::BetweenMembers => {
                    progress.member_start(Checkpoint::MemberStart, sink)?;
                    self.inflate.reset(Wrapper::Gzip);
                    self.place = Place::Member;
                }
                Place::FirstMember => self.place = Place::Member,
                Place::Member => {
                    let consumed = self.step(input, progress, sink)?;
                    input = input.get(consumed..).unwrap_or_default();
                }
            }
        }
        Ok(())
    }

    /// One call of inflate and what follows from it; returns how much input it used.
    fn step(
        &mut self,
        input: &[u8],
        progress: &mut Progress,
        sink: &mut Sink<'_>,
    ) -> Result<usize, ScanError> {
        let until_target = SPAN_SIZE.saturating_sub(progress.span_length());
        let mut room = usize::try_from(until_target).unwrap_or(usize::MAX);
        let mut stop = Stop::WhenFull;
        if room == 0 {
            (room, stop) = (usize::MAX, Stop::AtBlock);
        }
        if let Some(open) = &self.open_window {
            room = room.min(WINDOW - open.produced);
        }
        let space = progress.space(sink)?;
        let room = room.min(space.len());
        let space = space.get_mut(..room).unwrap_or_default();
        let step = self
            .inflate
            .run(input, space, stop)
            .map_err(|_| invalid(progress))?;
        let consumed = input.get(..step.consumed).unwrap_or_default();
        progress.consumed(consumed)?;
        progress.produced(step.produced)?;
        self.follow_window(consumed, &step, progress)?;
        if step.ended {
            self.place = Place::BetweenMembers;
        } else if let Some(bits) = step.boundary.filter(|_| progress.span_length() > SPAN_SIZE) {
            self.cut(bits, consumed, progress, sink)?;
        } else if step.consumed == 0 && step.produced == 0 {
            // There was input and room for output, and still nothing moved.
            return Err(invalid(progress));
        }
        Ok(step.consumed)
    }

    fn cut(
        &mut self,
        bits: u8,
        consumed: &[u8],
        progress: &mut Progress,
        sink: &mut Sink<'_>,
    ) -> Result<(), ScanError> {
        // The boundary was reached by the bytes just consumed, so the byte it may lie in is among
        // them.
        let last_byte = consumed.last().copied().unwrap_or_default();
        let shared = if bits > 0 { &[last_byte][..] } else { &[] };
        if bits > 0 && consumed.is_empty() {
            return Err(invalid(progress));
        }
        let checkpoint = Checkpoint::Deflate {
            bits,
            window: Box::default(),
        };
        progress.cut(checkpoint, shared, sink)?;
        self.open_window = Some(OpenWindow {
            window: self.inflate.window(),
            bits,
            last_byte,
            following: Vec::new(),
            produced: 0,
        });
        Ok(())
    }

    /// Collects what follows a cut; once there is enough of it, decides what of the window to keep.
    fn follow_window(
        &mut self,
        consumed: &[u8],
        step: &Step,
        progress: &mut Progress,
    ) -> Result<(), ScanError> {
        let Some(mut open) = self.open_window.take() else {
            return Ok(());
        };
        open.following.extend_from_slice(consumed);
        open.produced += step.produced;
        if open.produced < WINDOW && !step.ended {
            self.open_window = Some(open);
            return Ok(());
        }
        let kept = window::sparse(
            &mut self.trial,
            &open.window,
            open.bits,
            open.last_byte,
            &open.following,
        );
        let kept = kept.map_err(|InflateError| invalid(progress))?;
        progress.checkpoint = Checkpoint::Deflate {
            bits: open.bits,
            window: kept.into(),
        };
        Ok(())
    }
}

fn invalid(progress: &Progress) -> ScanError {
    ScanError::Invalid {
        codec: "gzip",
        position: progress.compressed,
    }
}
