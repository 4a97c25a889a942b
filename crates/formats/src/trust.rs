//! How an index of a layer came to be, and how far it is bound to the layer: two words that
//! everybody shares.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// How far a layer's index is bound to the layer, the strongest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Trust {
    /// It was made, or made again, here by a full pass over bytes that have the layer's digest.
    Proven,
    /// Its digest stands in the manifest, or is signed by a key that the user named.
    Pinned,
    /// It was found beside the image, and nothing binds it to the layer.
    Claimed,
}

impl Trust {
    /// What users write.
    pub const NAMES: [&str; 3] = ["proven", "pinned", "claimed"];

    /// As users write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Proven => "proven",
            Self::Pinned => "pinned",
            Self::Claimed => "claimed",
        }
    }

    /// Whether it is as good as what is required.
    pub fn satisfies(self, required: Self) -> bool {
        self <= required
    }
}

impl FromStr for Trust {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        [Self::Proven, Self::Pinned, Self::Claimed]
            .into_iter()
            .find(|trust| trust.name() == text)
            .ok_or_else(|| format!("{text:?} is none of {}", Self::NAMES.join(", ")))
    }
}

/// How an index of a layer came to be. Its names stand in the cache's records and in what is
/// printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum IndexKind {
    /// The layer was streamed just now, which made its own.
    #[serde(rename = "first-contact")]
    FirstContact,
    /// The layer's own, made here before.
    #[serde(rename = "cache")]
    Cache,
    /// The table of contents in an eStargz layer.
    #[serde(rename = "eStargz")]
    EStargz,
    /// The table of contents in a zstd:chunked layer.
    #[serde(rename = "zstd:chunked")]
    ZstdChunked,
    /// A zTOC beside the image.
    #[serde(rename = "SOCI")]
    Soci,
    /// One of our own format that somebody published.
    #[serde(rename = "published")]
    Published,
}

impl IndexKind {
    /// As it is written down and printed.
    pub fn name(self) -> &'static str {
        match self {
            Self::FirstContact => "first-contact",
            Self::Cache => "cache",
            Self::EStargz => "eStargz",
            Self::ZstdChunked => "zstd:chunked",
            Self::Soci => "SOCI",
            Self::Published => "published",
        }
    }
}

impl fmt::Display for IndexKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_the_same_wherever_they_stand() {
        for kind in [
            IndexKind::FirstContact,
            IndexKind::Cache,
            IndexKind::EStargz,
            IndexKind::ZstdChunked,
            IndexKind::Soci,
            IndexKind::Published,
        ] {
            let json = format!("\"{kind}\"");
            assert_eq!(serde_json::to_string(&kind).unwrap(), json);
            assert_eq!(serde_json::from_str::<IndexKind>(&json).unwrap(), kind);
        }
        for name in Trust::NAMES {
            let trust: Trust = name.parse().unwrap();
            assert_eq!(
                serde_json::to_string(&trust).unwrap(),
                format!("\"{name}\"")
            );
        }
        assert!("sure".parse::<Trust>().is_err());
    }
}
