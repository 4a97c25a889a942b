//! Platforms and their choice. (stub)
use serde::{Deserialize, Serialize};

/// A platform, as in an image index.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Platform {
    /// stub
    #[serde(default)]
    pub os: String,
}
/// stub
#[derive(Debug)]
pub struct PlatformMatcher;
/// stub
#[derive(Debug, thiserror::Error)]
pub enum PlatformError {}
