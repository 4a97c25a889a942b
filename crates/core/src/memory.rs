//! The allocator, told what it cannot know. Elsewhere than on glibc there is nothing to tell.

#![expect(unsafe_code, reason = "malloc_trim and mallopt have no safe face")]

/// Returns what the allocator keeps for later: once the layers are indexed and merged a mount needs
/// only a small part of what that took, and none once it has ended.
pub(crate) fn give_back() {
    #[cfg(target_env = "gnu")]
    {
        // SAFETY: malloc_trim takes no pointers and may be called at any time from any thread.
        let _released = unsafe { libc::malloc_trim(0) };
    }
}

/// Keeps the buffers of FUSE threads out of the heap. fuser has 16 MiB for each, of which the
/// kernel fills a few pages; as pages of their own the rest costs nothing. But glibc moves its
/// threshold up to the largest block that was ever freed, so that from the second mount on they
/// would be cut from memory that was used before, and zeroed: 23 MB for each mount.
pub(crate) fn keep_large_buffers_apart() {
    #[cfg(target_env = "gnu")]
    {
        /// Below fuser's buffers, and above what is allocated for spans again and again.
        const MMAP_THRESHOLD: libc::c_int = 8 << 20;
        /// What each of glibc's arenas may keep at its end, where `malloc_trim` frees nothing: two
        /// spans. Loading an index takes several MiB for a moment, in the arena of whichever thread
        /// does it.
        const TRIM_THRESHOLD: libc::c_int = 2 << 20;
        static ONCE: std::sync::Once = std::sync::Once::new();
        ONCE.call_once(|| {
            // SAFETY: mallopt takes no pointers. It is meant for a program's start, but glibc takes
            // its lock for it.
            let done = unsafe {
                libc::mallopt(libc::M_MMAP_THRESHOLD, MMAP_THRESHOLD)
                    & libc::mallopt(libc::M_TRIM_THRESHOLD, TRIM_THRESHOLD)
            };
            if done == 0 {
                tracing::debug!("the allocator keeps its thresholds");
            }
        });
    }
}
