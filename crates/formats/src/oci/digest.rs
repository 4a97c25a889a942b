//! Content digests: `algorithm:hex`, as the OCI image spec's descriptor.md defines them.
//!
//! A [`Digest`] names bytes as they are distributed (a blob); a [`DiffId`] names the uncompressed
//! tar of a layer. They are two types because mixing them up is the classic mistake.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A hash algorithm this program can compute.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Algorithm {
    /// SHA-256: every registry's default.
    Sha256,
    /// SHA-512: registered by the spec, rarely used.
    Sha512,
}

impl Algorithm {
    /// The name in front of the colon.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
        }
    }

    /// Length of the hash in bytes.
    pub fn size(self) -> usize {
        match self {
            Self::Sha256 => 32,
            Self::Sha512 => 64,
        }
    }

    fn ring(self) -> &'static ring::digest::Algorithm {
        match self {
            Self::Sha256 => &ring::digest::SHA256,
            Self::Sha512 => &ring::digest::SHA512,
        }
    }
}

/// Digest of a blob as distributed: usually of the compressed bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest {
    algorithm: Algorithm,
    hash: [u8; 64],
}

/// Digest of the uncompressed tar of a layer, as the image config's `rootfs.diff_ids` lists it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DiffId(pub Digest);

/// Why a string is no digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DigestError {
    /// Not of the form `algorithm:hex`.
    #[error("digest {0:?} is not of the form algorithm:hex")]
    Malformed(String),
    /// Well formed, but with an algorithm this program does not have.
    #[error("digest {0:?} uses an unsupported algorithm: sha256 and sha512 are supported")]
    Unsupported(String),
    /// The hex part is too long, too short or not lower-case hex.
    #[error("digest {text:?} needs {expected} lower-case hex digits after the colon")]
    Hex {
        /// The offending text.
        text: String,
        /// How many digits this algorithm has.
        expected: usize,
    },
}

impl Digest {
    /// Hashes `bytes`.
    pub fn of(algorithm: Algorithm, bytes: &[u8]) -> Self {
        let mut digester = Digester::new(algorithm);
        digester.update(bytes);
        digester.finish()
    }

    /// SHA-256 of `bytes`.
    pub fn sha256(bytes: &[u8]) -> Self {
        Self::of(Algorithm::Sha256, bytes)
    }

    /// The algorithm.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The raw hash.
    pub fn hash(&self) -> &[u8] {
        self.hash.get(..self.algorithm.size()).unwrap_or(&self.hash)
    }

    /// The hash in lower-case hex, without the algorithm.
    pub fn hex(&self) -> String {
        use fmt::Write;
        self.hash().iter().fold(String::new(), |mut text, byte| {
            // Writing to a String cannot fail.
            let _ignored: fmt::Result = write!(text, "{byte:02x}");
            text
        })
    }

    /// As a tag: where a registry without the referrers API keeps what belongs to a manifest, and
    /// an index repository the index of a layer (distribution spec, "Referrers Tag Schema").
    pub fn tag(&self) -> String {
        let hex: String = self.hex().chars().take(64).collect();
        format!("{}-{hex}", self.algorithm.name())
    }

    /// First twelve hex digits, as container tools abbreviate digests for people.
    pub fn short(&self) -> String {
        self.hex().chars().take(12).collect()
    }
}

impl Digest {
    /// A SHA-256 that was computed elsewhere.
    pub(super) fn from_sha256(sha256: [u8; 32]) -> Self {
        let mut hash = [0; 64];
        for (to, from) in hash.iter_mut().zip(sha256) {
            *to = from;
        }
        Self {
            algorithm: Algorithm::Sha256,
            hash,
        }
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.algorithm.name(), self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for DiffId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        let malformed = || DigestError::Malformed(text.to_owned());
        let (name, hex) = text.split_once(':').ok_or_else(malformed)?;
        let algorithm = match name {
            "sha256" => Algorithm::Sha256,
            "sha512" => Algorithm::Sha512,
            _ => {
                let grammatical = !name.is_empty()
                    && name.split(['+', '.', '_', '-']).all(|part| {
                        !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric())
                    })
                    && !hex.is_empty();
                return Err(if grammatical {
                    DigestError::Unsupported(text.to_owned())
                } else {
                    malformed()
                });
            }
        };
        let bad_hex = || DigestError::Hex {
            text: text.to_owned(),
            expected: algorithm.size() * 2,
        };
        if hex.len() != algorithm.size() * 2 {
            return Err(bad_hex());
        }
        let mut hash = [0; 64];
        for (byte, pair) in hash.iter_mut().zip(hex.as_bytes().chunks_exact(2)) {
            let [high, low] = pair else {
                return Err(bad_hex());
            };
            *byte = nibble(*high).ok_or_else(bad_hex)? << 4 | nibble(*low).ok_or_else(bad_hex)?;
        }
        Ok(Self { algorithm, hash })
    }
}

/// Value of one lower-case hex digit; upper case is invalid in digests.
fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

impl Serialize for Digest {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Computes a [`Digest`] from bytes that arrive in pieces.
pub struct Digester {
    algorithm: Algorithm,
    context: ring::digest::Context,
}

impl Digester {
    /// Starts an empty hash.
    pub fn new(algorithm: Algorithm) -> Self {
        Self {
            algorithm,
            context: ring::digest::Context::new(algorithm.ring()),
        }
    }

    /// Adds the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.context.update(bytes);
    }

    /// The digest of everything added.
    pub fn finish(self) -> Digest {
        let mut hash = [0; 64];
        for (to, from) in hash.iter_mut().zip(self.context.finish().as_ref()) {
            *to = *from;
        }
        Digest {
            algorithm: self.algorithm,
            hash,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_parse_or_say_why_not() {
        let hex = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        let digest: Digest = format!("sha256:{hex}").parse().unwrap();
        assert_eq!(digest, Digest::sha256(b""));
        assert_eq!(digest.to_string(), format!("sha256:{hex}"));
        assert_eq!(digest.short(), "e3b0c44298fc");
        let check = |text: &str, expected: &str| {
            let err = text.parse::<Digest>().unwrap_err().to_string();
            assert!(err.contains(expected), "{text}: {err}");
        };
        check("", "form algorithm:hex");
        check(hex, "form algorithm:hex");
        check(":abc", "form algorithm:hex");
        check("sha256:", "64 lower-case");
        check(&format!("sha256:{}", hex.to_uppercase()), "64 lower-case");
        check(&format!("sha256:{hex}0"), "64 lower-case");
        check(&format!("blake3:{hex}"), "unsupported algorithm");
    }

    #[test]
    fn sha512_round_trips() {
        let digest = Digest::of(Algorithm::Sha512, b"abc");
        assert_eq!(digest.to_string().parse::<Digest>().unwrap(), digest);
        assert!(digest.hex().starts_with("ddaf35a193617aba"));
        assert!(digest.tag().starts_with("sha512-ddaf35a193617aba"));
        assert_eq!(digest.tag().len(), "sha512-".len() + 64);
    }
}
