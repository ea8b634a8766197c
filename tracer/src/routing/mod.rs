//! Why a look-up failed, by what netlink says afterwards: which rule, which
//! route, or an address or a device that is not there.
//!
//! [`Question`] is what a tunnel asked for in vain. [`Inquiry`] puts it to the
//! kernel once more, on a thread of its own, and reads the rules, routes,
//! addresses and devices ([`facts`]) of the network namespace it was asked in;
//! [`find`] walks them as the kernel does. The system may have changed since:
//! what is found is a conclusion, and nothing where it contradicts the errno
//! that was observed.

mod address;
mod facts;
mod find;
mod inquiry;
mod prefix;
mod question;
mod route;
mod rule;
#[cfg(test)]
mod tests;

pub use find::{Decided, Finding};
pub use inquiry::Inquiry;
pub use question::Question;
pub use route::table_name;
