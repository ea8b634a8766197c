//! Packages of Debian releases other than the host's, with apt itself but
//! without touching the system's own state.

mod sources;
mod suite;
pub mod version;

pub use suite::{Package, Suite};
