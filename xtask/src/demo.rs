//! `demo`: the bug that started it all, live on the console of a guest.

use std::{fs, time::Duration};

use anyhow::Context as _;

use crate::{build, paths, qemu::Machine, setup, vm};

/// As released it still has the bug.
const KERNEL: &str = "5.10";

/// Plays `scenarios/demo.sh` and hands back its exit status.
pub fn command() -> anyhow::Result<i32> {
    build::build()?;
    setup::vm()?;
    let file = paths::root().join("scenarios/demo.sh");
    let script =
        fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
    let machine = Machine {
        timeout: Duration::from_secs(300),
        on_terminal: true,
        ..Machine::default()
    };
    Ok(vm::run(KERNEL, &script, &[], &machine, |_| ())?.status)
}
