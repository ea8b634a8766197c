//! What the user side writes into `.rodata` before the programs are loaded.
//!
//! aya freezes the section, so each field is a constant to the verifier:
//! branches on absent fields cost nothing and need not even be valid.

use tracer_common::{config::Config, filter::Filter, offsets::Offsets};

#[unsafe(no_mangle)]
pub static OFFSETS: Offsets = Offsets::ABSENT;

#[unsafe(no_mangle)]
pub static CONFIG: Config = Config {
    dev: [0; 16],
    netns: 0,
    all_drops: 0,
    stack: 0,
    kfree_skb_args: 2,
    consume_skb_args: 1,
    stack_size: 0,
    realtime: 0,
    all_records: 0,
    typed_task: 0,
    snaplen: 0,
    twice: 0,
    reserved: 0,
};

#[unsafe(no_mangle)]
pub static FILTER: Filter = Filter::NONE;

/// One field of [`OFFSETS`]. Volatile, because the value at build time is not
/// the one at run time; one field at a time, because the whole would not fit
/// the 512 bytes of stack.
macro_rules! offset {
    ($field:ident) => {
        // SAFETY: a static is always readable and aligned.
        unsafe { core::ptr::read_volatile(&raw const $crate::globals::OFFSETS.$field) }
    };
}
pub(crate) use offset;

/// One field of [`CONFIG`].
macro_rules! config {
    ($field:ident) => {
        // SAFETY: a static is always readable and aligned.
        unsafe { core::ptr::read_volatile(&raw const $crate::globals::CONFIG.$field) }
    };
}
pub(crate) use config;

/// One field of [`FILTER`] beside its ops.
macro_rules! filter {
    ($field:ident) => {
        // SAFETY: a static is always readable and aligned.
        unsafe { core::ptr::read_volatile(&raw const $crate::globals::FILTER.$field) }
    };
}
pub(crate) use filter;
