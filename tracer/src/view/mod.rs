//! Forms of a report: functions of data, without I/O.

pub mod about;
pub mod facts;
pub mod html;
pub mod json;
pub mod lines;
pub mod markdown;
pub mod summary;
pub mod table;
pub mod text;
pub mod why;
