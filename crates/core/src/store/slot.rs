//! Which index of a layer is meant.
//!
//! A layer's own index is the one that a full pass over the blob makes here. Others can be found
//! beside the image; they may number the layer's bytes differently, so what was fetched by each is
//! kept apart. In the cache a slot is a name:
//!
//! ```text
//! HEX                  the layer's own index, HEX being the blob's digest
//! HEX-IDENTITY         one that was found; IDENTITY is the start of its own digest, 32 hex digits
//! ```

use std::fmt;

use imgfs_formats::oci::Digest;

/// Hex digits of a found index's digest in its name: too many to collide by accident or by trying.
const IDENTITY_LENGTH: usize = 32;

/// One index of one layer, and the bytes that were fetched by it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot {
    layer: Digest,
    identity: Option<String>,
}

impl Slot {
    /// The index that was made here.
    pub fn own(layer: Digest) -> Self {
        Self {
            layer,
            identity: None,
        }
    }

    /// One that was found, whose bytes (or whose defining document) have this digest.
    pub fn found(layer: Digest, index: &Digest) -> Self {
        let identity = index.hex().chars().take(IDENTITY_LENGTH).collect();
        Self {
            layer,
            identity: Some(identity),
        }
    }

    /// The layer.
    pub fn layer(&self) -> &Digest {
        &self.layer
    }

    /// Whether it is the layer's own index.
    pub fn is_own(&self) -> bool {
        self.identity.is_none()
    }

    /// Reads a name back; `algorithm` is that of the layer's digest.
    pub(in crate::store) fn parse(algorithm: &str, name: &str) -> Option<Self> {
        let (hex, identity) = match name.split_once('-') {
            None => (name, None),
            Some((hex, identity)) => (hex, Some(identity)),
        };
        let is_identity = |text: &str| {
            text.len() == IDENTITY_LENGTH && text.bytes().all(|byte| byte.is_ascii_hexdigit())
        };
        if identity.is_some_and(|identity| !is_identity(identity)) {
            return None;
        }
        Some(Self {
            layer: format!("{algorithm}:{hex}").parse().ok()?,
            identity: identity.map(str::to_owned),
        })
    }
}

/// Its name.
impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.layer.hex())?;
        match &self.identity {
            Some(identity) => write!(f, "-{identity}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back() {
        let layer = Digest::sha256(b"layer");
        for slot in [
            Slot::own(layer),
            Slot::found(layer, &Digest::sha256(b"toc")),
        ] {
            assert_eq!(Slot::parse("sha256", &slot.to_string()), Some(slot));
        }
        let hex = layer.hex();
        for bad in [
            String::new(),
            "x".to_owned(),
            format!("{hex}-"),
            format!("{hex}-12"),
            format!("{hex}.json"),
            format!("{hex}-{}.json", "0".repeat(32)),
        ] {
            assert_eq!(Slot::parse("sha256", &bad), None, "{bad}");
        }
    }
}
