//! Makes a list of tracer's modules, which the target builds as its own: tracer
//! is a program and has no library. Of the kernel side it needs nothing.

use std::{env, error::Error, fmt::Write as _, fs, path::Path};

fn main() -> Result<(), Box<dyn Error>> {
    let out = env::var("OUT_DIR")?;
    let out = Path::new(&out);
    let source = Path::new(&env::var("CARGO_MANIFEST_DIR")?).join("../tracer/src");
    let main = source.join("main.rs");
    println!("cargo::rerun-if-changed={}", main.display());
    let mut modules = String::new();
    for line in fs::read_to_string(&main)?.lines() {
        let Some(name) = line
            .strip_prefix("mod ")
            .and_then(|rest| rest.strip_suffix(';'))
        else {
            continue;
        };
        let file = [format!("{name}.rs"), format!("{name}/mod.rs")]
            .map(|file| source.join(file))
            .into_iter()
            .find(|file| file.is_file())
            .ok_or_else(|| format!("no file of module {name}"))?;
        writeln!(modules, "#[path = {:?}]\nmod {name};", file.canonicalize()?)?;
    }
    fs::write(out.join("modules.rs"), modules)?;
    // The programs are never loaded.
    fs::write(out.join("tracer-probes"), [])?;
    Ok(())
}
