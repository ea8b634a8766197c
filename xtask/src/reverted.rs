//! sit with the fix of the seed's bug taken out, for kernels that have it.

use std::path::PathBuf;

use anyhow::bail;

use crate::kernels::Kernel;

pub fn sit(_kernel: &Kernel) -> anyhow::Result<PathBuf> {
    bail!("not there yet")
}
