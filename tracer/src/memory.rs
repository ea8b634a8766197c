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

/// Lets go of the part of the binary that `bytes` are: only the start reads them,
/// and what is read again comes from the file again.
pub fn give_back_file(bytes: &'static [u8]) {
    let page = rustix::param::page_size();
    // Whole pages only: what is beside them is in use.
    let before = bytes.as_ptr().align_offset(page);
    let Some(whole) = bytes.get(before..) else {
        return;
    };
    let length = whole.len() / page * page;
    if length == 0 {
        return;
    }
    // SAFETY: pages of a constant, thus of the binary's file and never written:
    // whoever looks again finds the same bytes.
    let done = unsafe {
        rustix::mm::madvise(
            whole.as_ptr().cast_mut().cast(),
            length,
            rustix::mm::Advice::LinuxDontNeed,
        )
    };
    if let Err(error) = done {
        tracing::debug!("cannot give the programs' bytes back: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    static BYTES: [u8; 65536] = [7; 65536];

    #[test]
    fn what_is_given_back_can_still_be_read() {
        for bytes in [&BYTES[..], &BYTES[1..5000], &BYTES[..3], &[]] {
            give_back_file(bytes);
        }
        assert!(BYTES.iter().all(|byte| *byte == 7));
    }
}
