//! Recordings: the events of a run in a file, for `tracer report` on this host
//! or any other. `docs/recording.md` says what the file looks like, and what of
//! it stays as it is.
//!
//! [`blocks`] is the file, [`items`] what is in it, [`plain`] the numbers in
//! those; [`Recorder`] writes, [`Recording`] reads. Verdicts are not in it: they
//! are made when it is read, by a tracer that may know better by then.

mod blocks;
mod file;
mod items;
mod plain;
mod read;
#[cfg(test)]
mod tests;

pub use blocks::Broken;
pub use file::{Limits, Output, Recorder};
pub use items::{Begin, Scope};
pub use read::Recording;
