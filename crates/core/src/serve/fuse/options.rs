//! How a mount is treated by the kernel.

/// How to mount. It is always read-only and without access times.
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent switches, as in mount(8)"
)]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountOptions {
    /// Let other users in, not only the one that mounted it.
    pub allow_other: bool,
    /// Let the kernel check modes and owners. Without it a user who may enter may read everything.
    pub default_permissions: bool,
    /// Let devices work.
    pub dev: bool,
    /// Honour setuid and setgid.
    pub suid: bool,
    /// Let programs run.
    pub exec: bool,
    /// What stands in the first column of the mount table.
    pub source: String,
    /// Threads that take requests; at least one.
    pub threads: usize,
}
