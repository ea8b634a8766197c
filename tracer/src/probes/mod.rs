//! Programs into the kernel: the ladder, loading, attaching, and what came of
//! it.

mod attach;
mod hooks;
pub mod kinds;
mod kprobe;
mod load;
mod missed;
mod modules;
mod plan;
pub mod points;
mod rest;

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

pub use attach::{Prepared, Probes};
pub use missed::Missed;
pub use plan::would_attach;

/// A point that is attached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attached {
    pub point: String,
    /// Function or tracepoint.
    pub target: String,
    /// The contract's word for the way taken.
    pub way: Cow<'static, str>,
    /// Module of the function, unless it is vmlinux.
    pub module: Option<String>,
}

/// A point that is not attached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Missing {
    pub point: String,
    pub why: String,
    pub lost: Cow<'static, str>,
}
