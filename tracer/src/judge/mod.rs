//! From evidence to a verdict.

pub mod causes;
pub mod evidence;
pub mod names;
mod places;

pub use causes::{Cause, all};
pub use evidence::{Evidence, Place};
pub use places::{is_drop, is_drop_anywhere};

/// How sure a verdict is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Confidence {
    /// Every part was observed.
    Proved,
    /// A part was concluded, from configuration or from what did not happen.
    Inferred,
    /// No cause is known for this evidence.
    Unknown,
}

impl Confidence {
    pub fn word(self) -> &'static str {
        match self {
            Self::Proved => "proved",
            Self::Inferred => "inferred",
            Self::Unknown => "unknown",
        }
    }
}

/// The first cause that applies.
pub fn judge(evidence: &Evidence) -> (&'static Cause, Confidence) {
    all()
        .find_map(|cause| (cause.applies)(evidence).map(|confidence| (cause, confidence)))
        .expect("the last cause, `unknown`, always applies")
}

/// A cause by its id.
pub fn cause(id: &str) -> Option<&'static Cause> {
    all().find(|cause| cause.id == id)
}

#[cfg(test)]
pub mod tests;
