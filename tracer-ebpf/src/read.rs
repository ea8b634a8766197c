//! Reading kernel memory.

use core::ffi::c_void;

use aya_ebpf::helpers::generated;
use tracer_common::offsets::ABSENT;

/// The verifier knows the type of what is at an address, see [`field`].
pub const TYPED: bool = true;
/// Nothing is known of it but the number.
pub const PROBED: bool = false;

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

/// The same of an integer in a structure whose type the verifier knows
/// (`TYPED`: an argument of a program of type `tp_btf`, `fentry` or `fexit`, or
/// what such a structure points to). The kernel lets those be loaded as they
/// are, which costs nothing beside a call of the helper, and gives 0 where the
/// address is not readable. The offset must be one of `OFFSETS`: a constant to
/// the verifier, which checks it against the type.
#[inline(always)]
pub fn field<const TYPED: bool, T: Copy>(base: u64, offset: u32) -> Option<T> {
    if !TYPED {
        return at(base, offset);
    }
    if offset == ABSENT {
        return None;
    }
    // SAFETY: the kernel handles the fault where there is nothing to read; `T` is
    // an integer.
    Some(unsafe { ((base + u64::from(offset)) as *const T).read_volatile() })
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

/// The same of an array of 16 bytes in a typed structure.
#[inline(always)]
pub fn typed_string(to: &mut [u8; 16], base: u64, offset: u32) {
    if offset == ABSENT {
        return;
    }
    let [first, second] =
        [offset, offset + WORD as u32].map(|offset| field::<TYPED, u64>(base, offset).unwrap_or(0));
    let (first, ended) = until_zero(first);
    let second = if ended { 0 } else { until_zero(second).0 };
    let to: *mut u64 = to.as_mut_ptr().cast();
    // SAFETY: two words of 16 bytes.
    unsafe {
        to.write_unaligned(first);
        to.add(1).write_unaligned(second);
    }
}

/// The bytes of a word before its first zero, and whether it has one.
#[inline(always)]
fn until_zero(word: u64) -> (u64, bool) {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGHEST: u64 = 0x8080_8080_8080_8080;
    // The lowest bit that is left stands in the first byte that is zero.
    let zeros = word.wrapping_sub(ONES) & !word & HIGHEST;
    if zeros == 0 {
        return (word, false);
    }
    let first = zeros & zeros.wrapping_neg();
    (word & ((first >> 7) - 1), true)
}

/// Writes a value to a map and reads it back as plain memory.
///
/// The number behind a pointer that the verifier tracks (context, map, map
/// value, typed structure), which it would not let us do arithmetic on. And what
/// can have come about in many ways: the verifier would follow all that comes
/// after once for each of them.
#[inline(always)]
pub fn through<T: Copy>(room: &mut T, value: T) -> T {
    // SAFETY: a live field; volatile, so that the detour is not taken out.
    unsafe {
        core::ptr::write_volatile(room, value);
        core::ptr::read_volatile(room)
    }
}

/// The number behind a pointer, by way of the stack, which the verifier sees through:
/// by a call.
#[inline(always)]
pub fn address<T>(pointer: *const T) -> u64 {
    let spilled = pointer;
    let mut number = 0u64;
    copy(&raw mut number, (&raw const spilled) as u64);
    number
}

/// Plain memory in words.
///
/// # Safety
///
/// A `#[repr(C)]` structure of integers only, without padding at its end, whose
/// size is a multiple of eight.
pub unsafe trait Words: Sized {}

// SAFETY: see `tracer_common::record`.
unsafe impl Words for tracer_common::record::Record {}

const WORD: usize = size_of::<u64>();

/// Makes all of it zero. Not by a call, and not by the loop over bytes that the
/// compiler would make of an assignment.
#[inline(always)]
pub fn clear<T: Words>(to: &mut T) {
    let to: *mut u64 = (&raw mut *to).cast();
    for n in 0..size_of::<T>() / WORD {
        // SAFETY: within `T`.
        unsafe { to.add(n).write_volatile(0) };
    }
}

/// Copies from a map value to another.
#[inline(always)]
pub fn assign<T: Words>(to: &mut T, from: &T) {
    let to: *mut u64 = (&raw mut *to).cast();
    let from: *const u64 = (&raw const *from).cast();
    for n in 0..size_of::<T>() / WORD {
        // SAFETY: within `T`.
        unsafe { to.add(n).write_volatile(from.add(n).read_volatile()) };
    }
}
