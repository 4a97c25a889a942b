//! Giving memory back after the mount is set up.

#![expect(unsafe_code, reason = "malloc_trim has no safe face")]

/// Returns what the allocator keeps for later: after the layers are indexed and merged the daemon needs only a
/// small part of what it used. Elsewhere than on glibc there is nothing to do.
pub(crate) fn give_back() {
    #[cfg(target_env = "gnu")]
    {
        // SAFETY: malloc_trim takes no pointers and may be called at any time from any thread.
        let _released = unsafe { libc::malloc_trim(0) };
    }
}
