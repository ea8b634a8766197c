//! Reading kernel memory.

use core::ffi::c_void;

use aya_ebpf::helpers::generated;
use tracer_common::offsets::ABSENT;

/// Reads a `T` at `base + offset`; `None` where the kernel has no such field
/// or the address is not readable.
#[inline(always)]
pub fn at<T: Copy>(base: u64, offset: u32) -> Option<T> {
    if offset == ABSENT {
        return None;
    }
    let mut value = core::mem::MaybeUninit::<T>::uninit();
    // SAFETY: the helper writes `size_of::<T>()` bytes to `value` or fails; it
    // takes any address to read from.
    let failed = unsafe {
        generated::bpf_probe_read_kernel(
            value.as_mut_ptr().cast(),
            size_of::<T>() as u32,
            (base + u64::from(offset)) as *const c_void,
        )
    };
    if failed != 0 {
        return None;
    }
    // SAFETY: written above; `T` is an integer or an array of them.
    Some(unsafe { value.assume_init() })
}

/// Copies `N` bytes from any kernel address to memory of ours.
#[inline(always)]
pub fn copy<T>(to: *mut T, from: u64) -> bool {
    // SAFETY: `to` is a map value or stack variable of type `T`.
    unsafe {
        generated::bpf_probe_read_kernel(to.cast(), size_of::<T>() as u32, from as *const c_void)
            == 0
    }
}

/// Copies a string of at most `N - 1` bytes and its terminating zero to a
/// buffer that was zeroed before: bytes behind a shorter string stay zero.
#[inline(always)]
pub fn string<const N: usize>(to: *mut [u8; N], from: u64) -> bool {
    // SAFETY: as in `copy`.
    unsafe { generated::bpf_probe_read_kernel_str(to.cast(), N as u32, from as *const c_void) >= 0 }
}

/// The number behind a pointer that the verifier tracks (context, map, map
/// value), which it would not let us do arithmetic on: spilled to the stack
/// and read back as plain memory.
#[inline(always)]
pub fn address<T>(pointer: *const T) -> u64 {
    let spilled = pointer;
    let mut number = 0u64;
    copy(&raw mut number, (&raw const spilled) as u64);
    number
}
