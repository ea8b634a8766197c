//! What crosses the border between tracer's kernel side and its user side.
//!
//! Plain data only: fixed-width integers, `repr(C)`, no padding, no `Option`,
//! `bool` or enum, because every byte is written by one program and read by
//! another. Numbers are in host byte order unless a field says otherwise;
//! addresses are as they stand in the packet.
#![no_std]

pub mod config;
pub mod filter;
pub mod flow;
pub mod offsets;
pub mod record;
pub mod tally;

/// Implements `aya::Pod` on the user side for types that are plain data.
macro_rules! pod {
    ($($t:ty),+ $(,)?) => {$(
        // SAFETY: the type is `repr(C)`, holds integers and arrays of them
        // only, and its size assertion below it shows it has no padding.
        #[cfg(feature = "user")]
        unsafe impl aya::Pod for $t {}
    )+};
}
pub(crate) use pod;

/// Version of everything in this crate. A record with another version is not
/// read.
pub const ABI_VERSION: u16 = 1;
