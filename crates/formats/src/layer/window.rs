//! Sparse windows: of the 32 KiB before a checkpoint, only the bytes that later data refers to.
//!
//! Typically a tenth is referred to, so a checkpoint costs about 2 KB instead of 32. Which bytes
//! they are is found without an inflater of our own: the data behind the checkpoint is decoded
//! three times with made-up windows. An output byte comes from the window exactly where two windows
//! that differ everywhere lead to different output; two windows that spell the low and the high
//! byte of their own positions say from where. (Output further than 32 KiB behind the checkpoint
//! cannot refer to the window.)
//!
//! A sparse window is stored as runs, LEB128 numbers, and the bytes between:
//!
//! ```text
//! length, then until the length is reached: zeros, count, count bytes
//! ```

use super::inflate::{Inflate, InflateError, Stop, WINDOW};

/// Runs of zeros shorter than this are cheaper to store as bytes.
const MIN_GAP: usize = 3;

/// Keeps of `window` only what `following` (compressed data right behind the checkpoint) refers to,
/// and encodes it. `bits` and `last_byte` are the checkpoint's, as for [`Inflate::resume`].
pub(super) fn sparse(
    inflate: &mut Inflate,
    window: &[u8],
    bits: u8,
    last_byte: u8,
    following: &[u8],
) -> Result<Vec<u8>, InflateError> {
    let low: Vec<u8> = (0..window.len()).map(low_byte).collect();
    let inverse: Vec<u8> = low.iter().map(|byte| !byte).collect();
    let high: Vec<u8> = (0..window.len()).map(|i| low_byte(i >> 8)).collect();
    let low = decode(inflate, &low, bits, last_byte, following)?;
    let inverse = decode(inflate, &inverse, bits, last_byte, following)?;
    let high = decode(inflate, &high, bits, last_byte, following)?;
    let mut used = vec![false; window.len()];
    for ((low, inverse), high) in low.iter().zip(&inverse).zip(&high) {
        if low != inverse
            && let Some(flag) = used.get_mut(usize::from(*low) | usize::from(*high) << 8)
        {
            *flag = true;
        }
    }
    let kept: Vec<u8> = window
        .iter()
        .zip(&used)
        .map(|(byte, used)| if *used { *byte } else { 0 })
        .collect();
    Ok(encode(&kept))
}

fn decode(
    inflate: &mut Inflate,
    window: &[u8],
    bits: u8,
    last_byte: u8,
    following: &[u8],
) -> Result<Vec<u8>, InflateError> {
    inflate.resume(bits, last_byte, window)?;
    let mut output = vec![0; WINDOW];
    let (mut consumed, mut produced) = (0, 0);
    loop {
        let input = following.get(consumed..).unwrap_or_default();
        let step = inflate.run(
            input,
            output.get_mut(produced..).unwrap_or_default(),
            Stop::WhenFull,
        )?;
        consumed += step.consumed;
        produced += step.produced;
        if step.ended || produced == WINDOW || (step.consumed == 0 && step.produced == 0) {
            output.truncate(produced);
            return Ok(output);
        }
    }
}

/// Encodes a window that is mostly zeros; any other is a few bytes longer then.
pub(super) fn encode(window: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    put_number(&mut out, window.len());
    let mut rest = window;
    while !rest.is_empty() {
        let zeros = rest.iter().take_while(|byte| **byte == 0).count();
        let (_, after) = rest.split_at(zeros);
        let mut count = 0;
        // A run of bytes ends where a gap of zeros is worth a new pair of numbers, or at the end.
        while count < after.len() {
            let gap = after
                .iter()
                .skip(count)
                .take_while(|byte| **byte == 0)
                .count();
            if gap >= MIN_GAP || count + gap == after.len() {
                break;
            }
            count += gap.max(1);
        }
        let (bytes, after) = after.split_at(count);
        put_number(&mut out, zeros);
        put_number(&mut out, count);
        out.extend_from_slice(bytes);
        rest = after;
    }
    out
}

/// The window that `encode` wrote, or nothing if the encoding is damaged.
pub(super) fn expand(mut encoded: &[u8]) -> Option<Vec<u8>> {
    let length = take_number(&mut encoded)?;
    if length > WINDOW {
        return None;
    }
    let mut window = Vec::with_capacity(length);
    while window.len() < length {
        let zeros = take_number(&mut encoded)?;
        let count = take_number(&mut encoded)?;
        if (zeros == 0 && count == 0) || zeros + count > length - window.len() {
            return None;
        }
        window.resize(window.len() + zeros, 0);
        let (bytes, rest) = encoded.split_at_checked(count)?;
        window.extend_from_slice(bytes);
        encoded = rest;
    }
    encoded.is_empty().then_some(window)
}

fn low_byte(number: usize) -> u8 {
    let [low, ..] = number.to_le_bytes();
    low
}

fn put_number(out: &mut Vec<u8>, mut number: usize) {
    while number > 127 {
        out.push(low_byte(number) | 128);
        number >>= 7;
    }
    out.push(low_byte(number));
}

/// A LEB128 number of at most three bytes: window positions need no more.
fn take_number(bytes: &mut &[u8]) -> Option<usize> {
    let mut number = 0;
    for shift in [0, 7, 14] {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= usize::from(byte & 127) << shift;
        if byte & 128 == 0 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_survive_encoding() {
        let mut busy = vec![0; WINDOW];
        for i in (0..WINDOW).filter(|i| i * i % 11 == 3 || i / 100 % 7 == 0) {
            busy[i] = low_byte(i);
        }
        for window in [
            vec![],
            vec![0; WINDOW],
            vec![7; WINDOW],
            vec![0, 0, 1],
            vec![1, 0, 0, 2, 0],
            busy,
        ] {
            assert_eq!(expand(&encode(&window)).unwrap(), window);
        }
    }

    #[test]
    fn damaged_windows_are_refused() {
        let good = encode(&[0, 0, 0, 9, 9, 0, 0, 0, 0, 1]);
        for length in 0..good.len() {
            assert_eq!(expand(&good[..length]), None, "cut to {length}");
        }
        assert_eq!(expand(&[255, 255, 255]), None);
        assert_eq!(expand(&[5, 0, 0]), None, "no progress");
        assert_eq!(expand(&[2, 3, 0]), None, "too far");
    }
}
