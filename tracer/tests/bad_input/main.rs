//! What the tracer does with bad input and bad days: the real binary is run,
//! mostly for real, which takes root and a kernel with BTF. Where these are
//! missing, a test says that it is skipped.

mod command;
mod endings;
mod names;
mod pcapng;
mod recordings;
mod refused;
mod rest;
mod support;
mod terminal;
