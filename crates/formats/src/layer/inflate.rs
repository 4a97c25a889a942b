//! A safe, small face on zlib's inflate: what random access into gzip needs and streaming crates
//! hide.
//!
//! That is: stopping at deflate block boundaries (`Z_BLOCK`), resuming in the middle of a byte
//! (`inflatePrime`) with a given window (`inflateSetDictionary`), and asking for the current
//! window. The semantics are zlib's manual's; the implementation is zlib-rs.

#![expect(
    unsafe_code,
    reason = "the C-style API of libz-rs-sys; every caller of this module is safe"
)]

use std::ffi::c_int;

use libz_rs_sys::{
    Z_BLOCK, Z_BUF_ERROR, Z_NO_FLUSH, Z_OK, Z_STREAM_END, inflate, inflateEnd,
    inflateGetDictionary, inflateInit2_, inflatePrime, inflateReset2, inflateSetDictionary,
    z_stream, zlibVersion,
};

/// Size of the deflate window: no back reference reaches further (RFC 1951).
pub(crate) const WINDOW: usize = 32768;

/// What surrounds the deflate data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wrapper {
    /// A gzip header before and a checked trailer behind (RFC 1952).
    Gzip,
    /// Nothing.
    Raw,
}

impl Wrapper {
    fn window_bits(self) -> c_int {
        match self {
            Self::Gzip => 15 + 16,
            Self::Raw => -15,
        }
    }
}

/// How far one call may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    /// Until input or output is used up, or the stream ends.
    WhenFull,
    /// At the next end of a deflate block, too.
    AtBlock,
}

/// What one call of [`Inflate::run`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Step {
    /// Input bytes used.
    pub consumed: usize,
    /// Output bytes written.
    pub produced: usize,
    /// The deflate stream (and the gzip trailer, with [`Wrapper::Gzip`]) is complete.
    pub ended: bool,
    /// Stopped between two deflate blocks; so many bits (0 to 7) of the last consumed byte belong
    /// to what comes next.
    pub boundary: Option<u8>,
}

/// The data is no valid deflate or gzip stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("invalid gzip data")]
pub(crate) struct InflateError;

/// An inflate state.
pub(crate) struct Inflate {
    stream: Box<z_stream>,
}

// SAFETY: the stream owns its state, allocated by Rust's allocator; nothing in it is tied to a
// thread.
unsafe impl Send for Inflate {}

impl Inflate {
    /// A state at the start of a stream.
    ///
    /// # Panics
    ///
    /// If zlib-rs cannot be initialised, which only a wrong version of the crate could cause.
    pub(crate) fn new(wrapper: Wrapper) -> Self {
        let mut stream = Box::<z_stream>::default();
        let size = c_int::try_from(size_of::<z_stream>()).expect("a z_stream is small");
        // SAFETY: the stream is default-initialised and boxed, so it never moves while zlib refers
        // to it.
        let code =
            unsafe { inflateInit2_(&raw mut *stream, wrapper.window_bits(), zlibVersion(), size) };
        assert_eq!(code, Z_OK, "inflateInit2 of a default stream succeeds");
        Self { stream }
    }

    /// Back to the start of a stream, keeping the allocations.
    pub(crate) fn reset(&mut self, wrapper: Wrapper) {
        // SAFETY: the stream was initialised by `new`.
        let code = unsafe { inflateReset2(&raw mut *self.stream, wrapper.window_bits()) };
        debug_assert_eq!(code, Z_OK);
    }

    /// Resumes a raw stream in the middle: `bits` (0 to 7) unused high bits of `last_byte`, and the
    /// output that came before, at most [`WINDOW`] bytes.
    pub(crate) fn resume(
        &mut self,
        bits: u8,
        last_byte: u8,
        window: &[u8],
    ) -> Result<(), InflateError> {
        self.reset(Wrapper::Raw);
        if bits > 7 || window.len() > WINDOW {
            return Err(InflateError);
        }
        let mut code = Z_OK;
        if bits > 0 {
            let value = c_int::from(last_byte >> (8 - bits));
            // SAFETY: the stream was initialised by `new`.
            code = unsafe { inflatePrime(&raw mut *self.stream, c_int::from(bits), value) };
        }
        if code == Z_OK && !window.is_empty() {
            let length = u32::try_from(window.len()).map_err(|_| InflateError)?;
            // SAFETY: pointer and length are those of a live slice, which zlib copies.
            code = unsafe { inflateSetDictionary(&raw mut *self.stream, window.as_ptr(), length) };
        }
        if code == Z_OK {
            Ok(())
        } else {
            Err(InflateError)
        }
    }

    /// Inflates from `input` into `output`.
    pub(crate) fn run(
        &mut self,
        input: &[u8],
        output: &mut [u8],
        stop: Stop,
    ) -> Result<Step, InflateError> {
        let available_in = u32::try_from(input.len()).unwrap_or(u32::MAX);
        let available_out = u32::try_from(output.len()).unwrap_or(u32::MAX);
        let stream = &mut *self.stream;
        stream.next_in = input.as_ptr();
        stream.avail_in = available_in;
        stream.next_out = output.as_mut_ptr();
        stream.avail_out = available_out;
        let flush = match stop {
            Stop::WhenFull => Z_NO_FLUSH,
            Stop::AtBlock => Z_BLOCK,
        };
        // SAFETY: both pointers are valid for the lengths given, which are at most the slices'
        // lengths.
        let code = unsafe { inflate(&raw mut *stream, flush) };
        let step = Step {
            consumed: (available_in - stream.avail_in) as usize,
            produced: (available_out - stream.avail_out) as usize,
            ended: code == Z_STREAM_END,
            boundary: Self::boundary(stream.data_type).filter(|_| stop == Stop::AtBlock),
        };
        match code {
            // Z_BUF_ERROR says that no progress was possible with this input and output: not an
            // error.
            Z_OK | Z_STREAM_END | Z_BUF_ERROR => Ok(step),
            _ => Err(InflateError),
        }
    }

    /// The last output, at most [`WINDOW`] bytes: what following data may refer to.
    pub(crate) fn window(&self) -> Vec<u8> {
        let mut window = vec![0; WINDOW];
        let mut length = 0;
        // SAFETY: the buffer has the 32768 bytes that are always enough, says the manual.
        let code = unsafe {
            inflateGetDictionary(
                &raw const *self.stream,
                window.as_mut_ptr(),
                &raw mut length,
            )
        };
        debug_assert_eq!(code, Z_OK);
        window.truncate(length as usize);
        window
    }

    /// zlib's `data_type`: +128 at a block boundary, +64 in the last block, low three bits the
    /// unused bits. Behind the last block nothing can be resumed, so that is no boundary.
    fn boundary(data_type: c_int) -> Option<u8> {
        let at_boundary = data_type & 128 != 0 && data_type & 64 == 0;
        at_boundary.then(|| u8::try_from(data_type & 7).unwrap_or_default())
    }
}

impl Drop for Inflate {
    fn drop(&mut self) {
        // SAFETY: the stream was initialised by `new` and is not used afterwards.
        unsafe { inflateEnd(&raw mut *self.stream) };
    }
}
