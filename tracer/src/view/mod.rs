//! Forms of a report: functions of data, without I/O.

pub mod json;
pub mod lines;
pub mod summary;
pub mod table;
pub mod text;
pub mod why;
