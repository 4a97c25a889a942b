//! Helpers shared by the integration tests: a registry in the process, images made in memory, other
//! programs.
//!
//! Each test binary uses a part of it, hence the allowance.
#![allow(dead_code, clippy::unwrap_used)]

pub mod docker_registry;
pub mod estargz;
pub mod image;
pub mod programs;
pub mod registry;
mod serve;
mod upload;
pub mod ztoc;
