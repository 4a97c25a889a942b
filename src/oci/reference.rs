//! References: what the user types. (stub)
/// stub
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference;
/// stub
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {}
/// stub
#[derive(Debug, thiserror::Error)]
pub enum ReferenceError {}
