//! A scenario's file: what it may say, and reading all of them.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

use super::fields::Fields;

/// Drops of every host with IPv6: router solicitations and multicast listener reports.
const KERNEL_NOISE: &str = "kernel-noise";
const KERNEL_NOISE_TO: [&str; 2] = ["ff02::2", "ff02::16"];

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    pub name: String,
    pub title: String,
    /// One of those that `test` runs without `--all`.
    #[serde(default)]
    pub core: bool,
    /// Shell, after the preamble; any failing command fails the scenario.
    #[serde(default)]
    pub setup: String,
    /// Shell, after the preamble; what `tracer run -- sh -c` runs.
    pub trigger: String,
    #[serde(default)]
    pub tracer_args: Vec<String>,
    /// Shell, after the preamble, before namespaces and new devices are deleted anyway.
    #[serde(default)]
    pub cleanup: String,
    /// Seconds for one pass of the tracer, slow emulation included.
    #[serde(default = "default_timeout")]
    pub timeout: u64,
    #[serde(default)]
    pub expect: Vec<Expect>,
}

/// What is expected on some kernels.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expect {
    pub kernels: Vec<String>,
    #[serde(default)]
    pub exit: Option<i32>,
    /// The trigger itself has to succeed.
    #[serde(default)]
    pub trigger_ok: bool,
    #[serde(default)]
    pub drop: Vec<DropWant>,
    #[serde(default)]
    pub device: Vec<DeviceWant>,
    #[serde(default = "yes")]
    pub only: bool,
    #[serde(default = "kernel_noise")]
    pub ignore: Vec<Ignore>,
    #[serde(default = "yes")]
    pub complete: bool,
    #[serde(default = "yes")]
    pub balanced: bool,
    #[serde(default)]
    pub human: Option<Human>,
}

/// Lines of type drop that must be there, taken together.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct DropWant {
    pub count: Option<u64>,
    pub count_min: Option<u64>,
    pub count_max: Option<u64>,
    #[serde(flatten)]
    pub fields: Fields,
}

/// Drops that are none of the scenario's business.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub enum Ignore {
    Named(String),
    Like(Fields),
}

/// What the lines of type device must say of one device.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeviceWant {
    pub dev: String,
    pub netns: Option<String>,
    pub packets_in: Option<u64>,
    pub packets_in_min: Option<u64>,
    pub packets_in_max: Option<u64>,
    pub sent: Option<u64>,
    pub sent_min: Option<u64>,
    pub sent_max: Option<u64>,
    pub dropped: Option<u64>,
    pub dropped_min: Option<u64>,
    pub dropped_max: Option<u64>,
    pub unexplained: Option<u64>,
    pub unexplained_min: Option<u64>,
    pub unexplained_max: Option<u64>,
    #[serde(default)]
    pub by_cause: BTreeMap<String, u64>,
    #[serde(default)]
    pub asymmetry: Vec<AsymmetryWant>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AsymmetryWant {
    pub attribute: String,
    pub value: String,
    pub passed: Option<u64>,
    pub dropped: Option<u64>,
}

/// A second pass, in the form for people.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Human {
    #[serde(default)]
    pub contains: Vec<String>,
    #[serde(default)]
    pub lacks: Vec<String>,
    pub max_lines: Option<usize>,
}

fn yes() -> bool {
    true
}

fn default_timeout() -> u64 {
    120
}

fn kernel_noise() -> Vec<Ignore> {
    vec![Ignore::kernel_noise()]
}

fn like(name: &str, kernel: &str) -> bool {
    match name.split_once('*') {
        None => name == kernel,
        Some((head, tail)) => {
            let rest = kernel.strip_prefix(head);
            kernel != super::NATIVE && rest.is_some_and(|rest| rest.ends_with(tail))
        }
    }
}

impl Ignore {
    /// Of every host with IPv6.
    pub fn kernel_noise() -> Self {
        Self::Named(KERNEL_NOISE.to_owned())
    }

    pub fn covers(&self, line: &serde_json::Value) -> bool {
        match self {
            Self::Like(fields) => fields.matches(line),
            Self::Named(_) => line
                .pointer("/inner/dst")
                .and_then(serde_json::Value::as_str)
                .is_some_and(|to| KERNEL_NOISE_TO.contains(&to)),
        }
    }
}

impl Scenario {
    pub fn parse(text: &str) -> Result<Self> {
        let scenario = Self::without_expectations(text)?;
        ensure!(
            !scenario.expect.is_empty(),
            "no [[expect]]: it would never run"
        );
        Ok(scenario)
    }

    /// The same of one that is only asked about.
    pub fn without_expectations(text: &str) -> Result<Self> {
        let scenario: Self = toml::from_str(text)?;
        scenario.check()?;
        Ok(scenario)
    }

    /// The first entry for `kernel`. A `*` in a name is any text, though never this machine's
    /// own kernel; a name after `!` takes its kernels out of the entry.
    pub fn expect_of(&self, kernel: &str) -> Option<&Expect> {
        let has = |expect: &Expect| {
            let out = |name: &String| {
                name.strip_prefix('!')
                    .is_some_and(|name| like(name, kernel))
            };
            !expect.kernels.iter().any(out) && expect.kernels.iter().any(|name| like(name, kernel))
        };
        self.expect.iter().find(|expect| has(expect))
    }

    fn check(&self) -> Result<()> {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        ensure!(
            !self.name.is_empty() && self.name.chars().all(plain),
            "name {:?}: use a-z, 0-9 and - only",
            self.name
        );
        ensure!(self.timeout > 0, "timeout = 0: give seconds");
        for expect in &self.expect {
            expect
                .check()
                .with_context(|| format!("expect for {}", expect.kernels.join(", ")))?;
        }
        Ok(())
    }
}

impl Expect {
    /// Whatever happens.
    pub fn nothing() -> Self {
        Self {
            kernels: vec!["*".to_owned()],
            exit: None,
            trigger_ok: false,
            drop: Vec::new(),
            device: Vec::new(),
            only: false,
            ignore: Vec::new(),
            complete: false,
            balanced: false,
            human: None,
        }
    }

    fn check(&self) -> Result<()> {
        ensure!(
            !self.kernels.is_empty(),
            "kernels is empty: name one, or \"*\""
        );
        if let Some(exit) = self.exit {
            ensure!(
                [0, 1, 125].contains(&exit),
                "exit = {exit}: tracer run ends with 0, 1 or 125"
            );
        }
        for drop in &self.drop {
            drop.fields.check()?;
            ensure!(!drop.fields.is_empty(), "[[expect.drop]] names no field");
        }
        for ignore in &self.ignore {
            match ignore {
                Ignore::Named(name) if name == KERNEL_NOISE => {}
                Ignore::Named(name) => {
                    bail!("ignore {name:?}: the one named list is {KERNEL_NOISE:?}")
                }
                Ignore::Like(fields) => {
                    fields.check()?;
                    ensure!(
                        !fields.is_empty(),
                        "ignore = [{{}}] would ignore every drop"
                    );
                }
            }
        }
        Ok(())
    }
}

/// The scenarios of the repository by name, or those in `names`.
pub fn load(root: &Path, names: &[String]) -> Result<Vec<Scenario>> {
    let dir = root.join("scenarios");
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(&dir).context("cannot list scenarios/: restore it with git")? {
        let path = entry.context("cannot list scenarios/")?.path();
        if path.extension().is_none_or(|ext| ext != "toml") {
            continue;
        }
        let stem = path
            .file_stem()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let text = fs::read_to_string(&path)
            .with_context(|| format!("cannot read scenarios/{stem}.toml"))?;
        let scenario = Scenario::parse(&text).with_context(|| format!("scenarios/{stem}.toml"))?;
        ensure!(
            scenario.name == stem,
            "scenarios/{stem}.toml is named {:?} inside: rename one of the two",
            scenario.name
        );
        all.insert(stem, scenario);
    }
    if names.is_empty() {
        return Ok(all.into_values().collect());
    }
    let known = all.keys().cloned().collect::<Vec<_>>().join(", ");
    let mut chosen: Vec<Scenario> = Vec::new();
    for name in names {
        if chosen.iter().any(|scenario| scenario.name == *name) {
            continue;
        }
        let Some(scenario) = all.remove(name) else {
            bail!("no scenario {name:?}: there are {known}");
        };
        chosen.push(scenario);
    }
    Ok(chosen)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::place;
    use serde_json::json;

    #[test]
    fn every_file_of_the_repository_is_valid() {
        let all = load(&place::root().unwrap(), &[]).unwrap();
        assert!(all.len() > 20);
        for scenario in &all {
            assert!(!scenario.title.is_empty(), "{}", scenario.name);
            for expect in &scenario.expect {
                assert!(
                    expect.exit.is_some(),
                    "{}: what exit status?",
                    scenario.name
                );
            }
        }
    }

    #[test]
    fn every_script_of_the_repository_is_shell() {
        let root = place::root().unwrap();
        let all = load(&root, &[]).unwrap();
        let chosen: Vec<_> = all
            .into_iter()
            .map(|s| (s.clone(), s.expect[0].clone()))
            .collect();
        let preamble = place::preamble(&root).unwrap();
        let texts = chosen
            .iter()
            .flat_map(|(s, _)| [&s.setup, &s.trigger, &s.cleanup]);
        let job = super::super::script::job(&chosen, &preamble, "T", true);
        for text in texts.chain([&preamble, &job]) {
            // By stdin: all of them are more than one argument can be.
            let mut shell = std::process::Command::new("sh")
                .arg("-n")
                .stdin(std::process::Stdio::piped())
                .spawn()
                .unwrap();
            let mut stdin = shell.stdin.take().unwrap();
            std::io::Write::write_all(&mut stdin, text.as_bytes()).unwrap();
            drop(stdin);
            assert!(shell.wait().unwrap().success(), "{text}");
        }
    }

    #[test]
    fn names_choose_and_unknown_ones_are_refused() {
        let root = place::root().unwrap();
        let twice = ["seed".to_owned(), "seed".to_owned()];
        assert_eq!(load(&root, &twice).unwrap().len(), 1);
        let error = load(&root, &["sede".to_owned()]).unwrap_err().to_string();
        assert!(
            error.contains("\"sede\"") && error.contains("seed-five"),
            "{error}"
        );
    }

    #[test]
    fn the_first_entry_of_a_kernel_wins() {
        let scenario = Scenario::parse(
            "name='n'\ntitle='t'\ntrigger='t'\n[[expect]]\nkernels=['5.10']\nexit=1\n\
             [[expect]]\nkernels=['*', '!6.1']\nexit=0\n[[expect]]\nkernels=['native']\nexit=125\n",
        )
        .unwrap();
        let exit = |kernel| scenario.expect_of(kernel).map(|expect| expect.exit);
        assert_eq!(exit("5.10"), Some(Some(1)));
        assert_eq!(exit("6.12"), Some(Some(0)));
        assert_eq!(exit("native"), Some(Some(125)));
        assert_eq!(exit("6.1"), None);
    }

    #[test]
    fn a_star_stands_for_any_text_but_not_for_this_machine() {
        for (name, kernel, right) in [
            ("5.10", "5.10", true),
            ("5.10", "5.10-cloud", false),
            ("5.10*", "5.10-cloud", true),
            ("*-reverted", "6.1-cloud-reverted", true),
            ("*-reverted", "6.1", false),
            ("*", "6.12", true),
            ("*", "native", false),
            ("native", "native", true),
            ("ab*ba", "aba", false),
        ] {
            assert_eq!(like(name, kernel), right, "{name} {kernel}");
        }
    }

    #[test]
    fn typos_are_refused() {
        let good = "name='n'\ntitle='t'\ntrigger='t'\n[[expect]]\nkernels=['*']\n";
        Scenario::parse(good).unwrap();
        for extra in [
            "exti = 1",
            "exit = 2",
            "ignore = ['noise']",
            "ignore = [{ inner_dts = 'x' }]",
            "ignore = [{}]",
            "[[expect.drop]]\ncuase = 'x'",
            "[[expect.drop]]\ncount = 3",
            "[[expect.drop]]\ncause = 'x'\ncount = -1",
            "[[expect.device]]\nnetns = 'A'",
            "[[expect.device]]\ndev = 't0'\nsent_mni = 1",
            "[expect.human]\ncontain = ['x']",
        ] {
            assert!(
                Scenario::parse(&format!("{good}{extra}\n")).is_err(),
                "{extra}"
            );
        }
        for bad in ["name='N'", "name='../n'", "name=''"] {
            assert!(
                Scenario::parse(&good.replacen("name='n'", bad, 1)).is_err(),
                "{bad}"
            );
        }
    }

    #[test]
    fn kernel_noise_is_told_by_its_destination() {
        let noise = &kernel_noise()[0];
        assert!(noise.covers(&json!({"inner": {"dst": "ff02::16"}})));
        assert!(!noise.covers(&json!({"inner": {"dst": "fd09::2"}})));
        assert!(!noise.covers(&json!({})));
    }
}
