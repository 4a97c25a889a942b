//! SHA-256 midstates: the hash's inner state at every 4 MiB of a blob, so that several cores can
//! check it in any order.
//!
//! ```text
//! blob     |-- 4 MiB --|-- 4 MiB --|-- 4 MiB --|- rest -|
//! states  H0          S1          S2          S3       digest
//! file                 S1 32 bytes | S2 32 bytes | S3 32 bytes
//! ```
//!
//! A state is the eight 32-bit words of FIPS 180-4 (H0 to H7), each with its first byte first. The
//! states are hints that nobody has to believe: H0 is fixed and the digest is known, so if each
//! segment leads from the state before it to the state behind it, the chain is complete and the
//! blob is the one with that digest. A wrong state makes a check fail that should not; it cannot
//! make one succeed.
//!
//! ring, which hashes everything else here, gives no access to the state; `sha2` does. It is half
//! as fast where the processor has no instructions for SHA-256, so it is used only to make these
//! states and to check by them.

use std::ops::Range;

use super::{Algorithm, Digest};

/// Bytes of the blob between two states: few enough to be held in memory, so many that the states
/// are less than a hundred-thousandth of the blob. Changing it changes the media type.
pub const MIDSTATE_INTERVAL: u64 = 4 << 20;

/// Bytes of a state.
const STATE_SIZE: usize = 32;
/// Bytes that the compression function takes at a time.
const BLOCK: usize = 64;
/// H0 to H7 (FIPS 180-4, 5.3.3).
const START: [u32; 8] = [
    0x6a09_e667,
    0xbb67_ae85,
    0x3c6e_f372,
    0xa54f_f53a,
    0x510e_527f,
    0x9b05_688c,
    0x1f83_d9ab,
    0x5be0_cd19,
];

/// The claimed states of one blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Midstates {
    blob_size: u64,
    states: Vec<[u32; 8]>,
}

/// Why states are of no use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MidstateError {
    /// Not as many bytes as the blob needs.
    #[error("{found} bytes of midstates, where a blob of {blob_size} bytes has {expected}")]
    Length {
        /// Size of the blob.
        blob_size: u64,
        /// Bytes it needs.
        expected: u64,
        /// Bytes there are.
        found: u64,
    },
    /// The digest is none that this can check.
    #[error("{0} is no SHA-256, which is what midstates are for")]
    Algorithm(Digest),
    /// Bytes given for a segment that are not so many.
    #[error("segment {segment} has {expected} bytes, not {found}")]
    Segment {
        /// Its number, from 0.
        segment: u64,
        /// Bytes it has.
        expected: u64,
        /// Bytes given.
        found: u64,
    },
    /// The bytes do not lead from one state to the next: they, or one of the two states, are wrong.
    #[error("bytes {} to {} of the blob do not lead from one midstate to the next", range.start, range.end)]
    Mismatch {
        /// Where in the blob.
        range: Range<u64>,
    },
}

impl Midstates {
    /// Reads the states of a blob of this size.
    pub fn decode(bytes: &[u8], blob_size: u64) -> Result<Self, MidstateError> {
        let expected = Self::encoded_size(blob_size);
        let (states, rest) = bytes.as_chunks::<STATE_SIZE>();
        if bytes.len() as u64 != expected || !rest.is_empty() {
            return Err(MidstateError::Length {
                blob_size,
                expected,
                found: bytes.len() as u64,
            });
        }
        let states = states.iter().map(words).collect();
        Ok(Self { blob_size, states })
    }

    /// The file's bytes.
    pub fn encode(&self) -> Vec<u8> {
        self.states.iter().flat_map(bytes).collect()
    }

    /// Bytes that the file of a blob of this size has: none if the blob is a single segment.
    pub fn encoded_size(blob_size: u64) -> u64 {
        blob_size
            .div_ceil(MIDSTATE_INTERVAL)
            .saturating_sub(1)
            .saturating_mul(STATE_SIZE as u64)
    }

    /// How many segments the blob has; an empty one has one.
    pub fn segments(&self) -> u64 {
        self.states.len() as u64 + 1
    }

    /// The bytes of the blob that a segment is.
    pub fn range(&self, segment: u64) -> Range<u64> {
        let start = segment.saturating_mul(MIDSTATE_INTERVAL);
        let end = start.saturating_add(MIDSTATE_INTERVAL);
        start.min(self.blob_size)..end.min(self.blob_size)
    }

    /// Checks one segment's bytes: that they lead from the state before to the one behind, or, at
    /// the end, to `blob`. If every segment of the blob passes, its digest is `blob`.
    pub fn check(&self, segment: u64, bytes: &[u8], blob: &Digest) -> Result<(), MidstateError> {
        if blob.algorithm() != Algorithm::Sha256 {
            return Err(MidstateError::Algorithm(*blob));
        }
        let range = self.range(segment);
        let expected = range.end - range.start;
        if segment >= self.segments() || bytes.len() as u64 != expected {
            return Err(MidstateError::Segment {
                segment,
                expected,
                found: bytes.len() as u64,
            });
        }
        let before = match segment.checked_sub(1) {
            None => START,
            Some(previous) => self.state(previous).unwrap_or(START),
        };
        let is_right = match self.state(segment) {
            Some(behind) => {
                let mut state = before;
                compress(&mut state, bytes);
                state == behind
            }
            None => finish(before, bytes, self.blob_size) == *blob.hash(),
        };
        if is_right {
            Ok(())
        } else {
            Err(MidstateError::Mismatch { range })
        }
    }

    /// Number of the first state, from 1, in which two claims about the same blob differ.
    pub fn first_difference(&self, other: &Self) -> Option<usize> {
        let pairs = self.states.iter().zip(&other.states);
        let differing = pairs.take_while(|(one, two)| one == two).count();
        (self != other).then_some(differing + 1)
    }

    /// State number `number` of the file.
    fn state(&self, number: u64) -> Option<[u32; 8]> {
        let number = usize::try_from(number).ok()?;
        self.states.get(number).copied()
    }
}

/// Hashes a blob that comes in pieces, and keeps the states on the way.
pub struct MidstateDigester {
    state: [u32; 8],
    states: Vec<[u32; 8]>,
    length: u64,
    /// What does not fill a block yet.
    pending: Vec<u8>,
}

impl MidstateDigester {
    /// Starts an empty hash.
    pub fn new() -> Self {
        Self {
            state: START,
            states: Vec::new(),
            length: 0,
            pending: Vec::with_capacity(BLOCK),
        }
    }

    /// Adds the next bytes.
    pub fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let position = self.length % MIDSTATE_INTERVAL;
            if position == 0 && self.length > 0 {
                // Only now is it known that the blob goes on: at its end the digest takes the
                // state's place.
                self.states.push(self.state);
            }
            let until_state = usize::try_from(MIDSTATE_INTERVAL - position).unwrap_or(usize::MAX);
            let (now, later) = bytes.split_at(bytes.len().min(until_state));
            self.absorb(now);
            bytes = later;
        }
    }

    /// The digest of everything added, and the states.
    pub fn finish(self) -> (Digest, Midstates) {
        let hash = finish(self.state, &self.pending, self.length);
        let midstates = Midstates {
            blob_size: self.length,
            states: self.states,
        };
        (Digest::from_sha256(hash), midstates)
    }

    /// Adds bytes that lie between two states.
    fn absorb(&mut self, mut bytes: &[u8]) {
        self.length += bytes.len() as u64;
        if !self.pending.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(BLOCK - self.pending.len()));
            self.pending.extend_from_slice(now);
            bytes = later;
            if self.pending.len() < BLOCK {
                return;
            }
            compress(&mut self.state, &self.pending);
            self.pending.clear();
        }
        let (whole, rest) = bytes.split_at(bytes.len() - bytes.len() % BLOCK);
        compress(&mut self.state, whole);
        self.pending.extend_from_slice(rest);
    }
}

impl Default for MidstateDigester {
    fn default() -> Self {
        Self::new()
    }
}

/// Takes in whole blocks.
fn compress(state: &mut [u32; 8], bytes: &[u8]) {
    let (blocks, rest) = bytes.as_chunks::<BLOCK>();
    debug_assert!(rest.is_empty(), "callers give whole blocks");
    sha2::block_api::compress256(state, blocks);
}

/// The hash of a message of `length` bytes of which `rest` is still to be taken in.
fn finish(mut state: [u32; 8], rest: &[u8], length: u64) -> [u8; STATE_SIZE] {
    let (whole, rest) = rest.split_at(rest.len() - rest.len() % BLOCK);
    compress(&mut state, whole);
    // Padding (FIPS 180-4, 5.1.1): a one bit, zeros, the length in bits.
    let mut padded = rest.to_vec();
    padded.push(0x80);
    while padded.len() % BLOCK != BLOCK - 8 {
        padded.push(0);
    }
    padded.extend_from_slice(&length.wrapping_mul(8).to_be_bytes());
    compress(&mut state, &padded);
    bytes(&state)
}

fn bytes(state: &[u32; 8]) -> [u8; STATE_SIZE] {
    let mut bytes = [0; STATE_SIZE];
    for (to, word) in bytes.as_chunks_mut::<4>().0.iter_mut().zip(state) {
        *to = word.to_be_bytes();
    }
    bytes
}

fn words(bytes: &[u8; STATE_SIZE]) -> [u32; 8] {
    let mut state = [0; 8];
    for (word, from) in state.iter_mut().zip(bytes.as_chunks::<4>().0) {
        *word = u32::from_be_bytes(*from);
    }
    state
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes without a pattern that a compression function could hide.
    fn blob(size: usize) -> Vec<u8> {
        let mut random = 1_u64;
        (0..size)
            .map(|_| {
                random = random
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                (random >> 56).to_le_bytes()[0]
            })
            .collect()
    }

    fn made(blob: &[u8], piece: usize) -> (Digest, Midstates) {
        let mut digester = MidstateDigester::new();
        for piece in blob.chunks(piece.max(1)) {
            digester.update(piece);
        }
        digester.finish()
    }

    const INTERVAL: usize = 4 << 20;

    #[test]
    fn digests_are_those_of_ring_whatever_the_pieces() {
        for size in [
            0,
            1,
            55,
            56,
            63,
            64,
            65,
            119,
            120,
            1000,
            INTERVAL - 1,
            INTERVAL,
            INTERVAL + 1,
            2 * INTERVAL,
            2 * INTERVAL + 77,
        ] {
            let blob = blob(size);
            let expected = Digest::sha256(&blob);
            let whole = made(&blob, usize::MAX);
            assert_eq!(whole.0, expected, "{size}");
            for piece in [1000, 64, 4097, INTERVAL + 13] {
                assert_eq!(made(&blob, piece), whole, "{size} in pieces of {piece}");
            }
            let encoded = whole.1.encode();
            assert_eq!(encoded.len() as u64, Midstates::encoded_size(size as u64));
            let decoded = Midstates::decode(&encoded, size as u64).unwrap();
            assert_eq!(decoded, whole.1);
            // Any order will do.
            for segment in (0..decoded.segments()).rev() {
                let range = decoded.range(segment);
                let range =
                    usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap();
                decoded.check(segment, &blob[range], &expected).unwrap();
            }
        }
    }

    #[test]
    fn what_is_wrong_does_not_pass() {
        let blob = blob(2 * INTERVAL + 100);
        let (digest, states) = made(&blob, usize::MAX);
        let pieces: Vec<&[u8]> = blob.chunks(INTERVAL).collect();
        let mismatch = |segment: u64| {
            Err(MidstateError::Mismatch {
                range: states.range(segment),
            })
        };
        for (segment, piece) in (0..).zip(&pieces) {
            let mut other = piece.to_vec();
            other[77] ^= 1;
            assert_eq!(states.check(segment, &other, &digest), mismatch(segment));
        }
        // A state that is wrong, or two that are exchanged.
        let mut lying = states.encode();
        lying[3] ^= 1;
        let lying = Midstates::decode(&lying, blob.len() as u64).unwrap();
        assert_eq!(lying.check(0, pieces[0], &digest), mismatch(0));
        assert_eq!(lying.check(1, pieces[1], &digest), mismatch(1));
        lying.check(2, pieces[2], &digest).unwrap();
        assert_eq!(states.first_difference(&lying), Some(1));
        assert_eq!(states.first_difference(&states), None);
        assert_eq!(
            states.check(2, pieces[2], &Digest::sha256(b"other")),
            mismatch(2)
        );
        assert!(states.check(0, &pieces[0][1..], &digest).is_err());
        assert!(states.check(3, &[], &digest).is_err());
        let sha512 = Digest::of(Algorithm::Sha512, &blob);
        assert!(states.check(0, pieces[0], &sha512).is_err());
    }

    #[test]
    fn the_file_has_as_many_states_as_the_blob_needs() {
        for (size, found) in [(0, 32), (INTERVAL as u64, 32), (INTERVAL as u64 + 1, 0)] {
            let err = Midstates::decode(&vec![0; found], size).unwrap_err();
            assert!(err.to_string().contains("bytes of midstates"), "{err}");
        }
        assert!(Midstates::decode(&[0; 33], INTERVAL as u64 + 1).is_err());
        // No overflow, and nothing is allocated for what only a size says.
        assert!(Midstates::decode(&[], u64::MAX).is_err());
    }

    /// Computed by another implementation (Python, FIPS 180-4 written out): the words' first byte
    /// comes first, so a machine of the other word order makes the same file.
    #[test]
    fn a_known_state() {
        let (_, states) = made(&vec![0; INTERVAL + 1], usize::MAX);
        let expected: [u64; 4] = [
            0x2a70_08c0_8349_516d,
            0x05c4_7e8a_7e44_2f0f,
            0x3445_9254_ef61_999d,
            0x1648_00e8_722e_bf7b,
        ];
        let expected = expected.map(u64::to_be_bytes);
        assert_eq!(states.encode(), expected.as_flattened());
    }
}
