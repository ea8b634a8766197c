//! Facts about the running kernel: types, symbols, drop reasons, and what it
//! allows.

pub mod btf;
pub mod host;
pub mod offsets;
pub mod reasons;
pub mod symbols;
