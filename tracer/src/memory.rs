//! Memory that only the start needed goes back to the kernel.

/// Returns what is free in the allocator's arenas. Types of the kernel, its
/// symbols and the programs are parsed on threads that end; glibc keeps what
/// they freed for threads to come, and there will be none.
pub fn give_back() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: takes no pointer, locks the arenas itself, and frees nothing that
    // is in use.
    unsafe {
        libc::malloc_trim(0);
    }
}
