//! Signatures over layer indexes: Ed25519, with keys in the files that openssl writes.
//!
//! ```text
//! openssl genpkey -algorithm ed25519 -out key.pem          PKCS#8: the secret key
//! openssl pkey -in key.pem -pubout -out pub.pem            SPKI: the public key
//!
//! signed    "imgfs layer index v1\n" <layer digest> "\n" <index digest> "\n"
//! key id    first 16 hex digits of the SHA-256 of the public key's 32 bytes
//! ```
//!
//! What is signed names the layer and its index and nothing else: it holds in every repository and
//! for every image that the layer is in.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{PrivatePkcs8KeyDer, SubjectPublicKeyInfoDer};

use super::Digest;

/// First line of every statement: a signature for something else cannot be taken for one of these.
const DOMAIN: &str = "imgfs layer index v1";
/// What stands before the 32 bytes of a key in a `SubjectPublicKeyInfo` (RFC 8410, section 4).
const SPKI_PREFIX: [u8; 12] = [
    0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00,
];
/// Hex digits of a key id: enough that nobody's keys collide by chance. It only says which key to
/// try.
const KEY_ID: usize = 16;
/// Largest key file read, in bytes; real ones have some hundred.
pub const MAX_KEY_FILE: u64 = 64 << 10;

/// A key to sign with. Its secret is never printed.
pub struct SigningKey {
    pair: Ed25519KeyPair,
}

/// A key to check with.
#[derive(Clone, PartialEq, Eq)]
pub struct PublicKey {
    bytes: [u8; 32],
}

/// Why a file is no key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// No PKCS#8 section.
    #[error(
        "it has no private key in PEM form: make one with `openssl genpkey -algorithm ed25519`"
    )]
    NoPrivateKey,
    /// A key of another kind.
    #[error("its key is none for Ed25519: make one with `openssl genpkey -algorithm ed25519`")]
    OtherPrivateKey,
    /// No SPKI section.
    #[error(
        "it has no public key in PEM form: make it of the private key with `openssl pkey -in KEY -pubout`"
    )]
    NoPublicKey,
    /// A key of another kind.
    #[error("its public key is none for Ed25519")]
    OtherPublicKey,
}

impl SigningKey {
    /// Reads a file as `openssl genpkey` writes it.
    pub fn from_pem(pem: &[u8]) -> Result<Self, KeyError> {
        // The library's words could quote the key.
        let der = PrivatePkcs8KeyDer::from_pem_slice(pem).map_err(|_| KeyError::NoPrivateKey)?;
        // openssl leaves the public key out, which the strict form wants.
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der.secret_pkcs8_der())
            .map_err(|_| KeyError::OtherPrivateKey)?;
        Ok(Self { pair })
    }

    /// The key that checks what this one signs.
    pub fn public(&self) -> PublicKey {
        let mut bytes = [0; 32];
        for (to, from) in bytes.iter_mut().zip(self.pair.public_key().as_ref()) {
            *to = *from;
        }
        PublicKey { bytes }
    }

    /// Signs that `index` is the index of `layer`, in Base64.
    pub fn sign(&self, layer: &Digest, index: &Digest) -> String {
        STANDARD.encode(self.pair.sign(&statement(layer, index)).as_ref())
    }
}

impl PublicKey {
    /// Reads a file as `openssl pkey -pubout` writes it.
    pub fn from_pem(pem: &[u8]) -> Result<Self, KeyError> {
        let der =
            SubjectPublicKeyInfoDer::from_pem_slice(pem).map_err(|_| KeyError::NoPublicKey)?;
        let bytes = der
            .strip_prefix(&SPKI_PREFIX)
            .and_then(|bytes| bytes.try_into().ok())
            .ok_or(KeyError::OtherPublicKey)?;
        Ok(Self { bytes })
    }

    /// What signatures by this key are filed under.
    pub fn id(&self) -> String {
        let hash = Digest::sha256(&self.bytes).hex();
        hash.chars().take(KEY_ID).collect()
    }

    /// Whether `signature` says that `index` is the index of `layer`.
    pub fn verify(&self, layer: &Digest, index: &Digest, signature: &str) -> bool {
        STANDARD.decode(signature).is_ok_and(|signature| {
            UnparsedPublicKey::new(&ED25519, self.bytes)
                .verify(&statement(layer, index), &signature)
                .is_ok()
        })
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({})", self.public().id())
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({})", self.id())
    }
}

/// Whether a text may be a key id.
pub(super) fn is_key_id(text: &str) -> bool {
    text.len() == KEY_ID && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

fn statement(layer: &Digest, index: &Digest) -> Vec<u8> {
    format!("{DOMAIN}\n{layer}\n{index}\n").into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `openssl genpkey -algorithm ed25519`, and what `openssl pkey -pubout` makes of it.
    const PRIVATE: &str = "-----BEGIN PRIVATE KEY-----\n\
MC4CAQAwBQYDK2VwBCIEIBQ2huwVSmy/LnySAaZEnKuqFBLz3gXnwUgeN1YUbrEe\n\
-----END PRIVATE KEY-----\n";
    const PUBLIC: &str = "-----BEGIN PUBLIC KEY-----\n\
MCowBQYDK2VwAyEA+rh6lxrYF+3Ei7JWX3ktYyye7v5EPkI1p+YOjZhiwM0=\n\
-----END PUBLIC KEY-----\n";
    /// `openssl pkeyutl -sign -rawin` of the statement in the test, in Base64.
    const SIGNATURE: &str =
        "hI9vZQ2z4hCsW/9HCz7siutBNRSD0icbi6pzsUr6uSnqOsMC4LCmW57rMa1PTFwYEl/4Bdh00nEnmPyLpqFaBQ==";
    /// `openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256`, and its public key.
    const EC_PRIVATE: &str = "-----BEGIN PRIVATE KEY-----\n\
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgTluDKQtpBYBfYyrw\n\
z3NgEyvEb9q49+vcDlmrfHxJvYihRANCAARw2NcntkxyGEDSUNbAlMchSeix5wCS\n\
rwS8QOwDqdJXWLGplZVI//ftKyWq6+1HA0cbE4wdYS+ZIOKkcYVq/iF2\n\
-----END PRIVATE KEY-----\n";
    const EC_PUBLIC: &str = "-----BEGIN PUBLIC KEY-----\n\
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEcNjXJ7ZMchhA0lDWwJTHIUnosecA\n\
kq8EvEDsA6nSV1ixqZWVSP/37SslquvtRwNHGxOMHWEvmSDipHGFav4hdg==\n\
-----END PUBLIC KEY-----\n";

    #[test]
    fn openssl_signs_the_same() {
        let key = SigningKey::from_pem(PRIVATE.as_bytes()).unwrap();
        let (layer, index) = (Digest::sha256(b"layer"), Digest::sha256(b"index"));
        // Ed25519 has no randomness: there is one signature.
        assert_eq!(key.sign(&layer, &index), SIGNATURE);
        let public = PublicKey::from_pem(PUBLIC.as_bytes()).unwrap();
        assert_eq!(public, key.public());
        assert_eq!(public.id(), "d1073511c21d6a17");
        assert!(is_key_id(&public.id()));
        assert!(public.verify(&layer, &index, SIGNATURE));
        assert!(!public.verify(&index, &layer, SIGNATURE));
        assert!(!public.verify(&layer, &layer, SIGNATURE));
        let mut other = SIGNATURE.to_owned();
        other.replace_range(0..1, "A");
        for wrong in [other.as_str(), "", "====", "AAAA", &SIGNATURE[..80]] {
            assert!(!public.verify(&layer, &index, wrong), "{wrong}");
        }
    }

    #[test]
    fn other_files_are_refused_with_the_way_out() {
        let private = |pem: &str| SigningKey::from_pem(pem.as_bytes()).err();
        assert_eq!(private(PUBLIC), Some(KeyError::NoPrivateKey));
        assert_eq!(private(""), Some(KeyError::NoPrivateKey));
        assert_eq!(private(EC_PRIVATE), Some(KeyError::OtherPrivateKey));
        let public = |pem: &str| PublicKey::from_pem(pem.as_bytes()).err();
        assert_eq!(public(PRIVATE), Some(KeyError::NoPublicKey));
        assert_eq!(public("\u{fc}"), Some(KeyError::NoPublicKey));
        assert_eq!(public(EC_PUBLIC), Some(KeyError::OtherPublicKey));
    }

    #[test]
    fn a_key_is_not_printed() {
        let key = SigningKey::from_pem(PRIVATE.as_bytes()).unwrap();
        assert_eq!(format!("{key:?}"), "SigningKey(d1073511c21d6a17)");
    }
}
