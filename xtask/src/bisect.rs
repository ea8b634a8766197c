//! What `git bisect run` finds with tracer's exit status alone: a commit of a
//! series of which each builds `sit.ko`, one of them with the seed's bug.

use std::{fs, path::Path, process::Command};

use anyhow::{Context as _, ensure};

use crate::{
    kernels::{self, Wanted},
    paths, process,
    sit::{self, Workshop},
};

/// Has the fix, so that it can be taken out.
const KERNEL: &str = "6.1";
/// How many commits, and which of them breaks sit.
const COMMITS: usize = 7;
const BREAKS: usize = 4;
const SUBJECT: &str = "sit: accept fewer routes";

/// In the guest: with a listener for what is sent, so that nothing vanishes
/// unless sit drops it. What tracer answers is the guest's exit status.
const GUEST: &str = r#"
set -e
PREAMBLE
seed
ip fou add port 1111 ipproto 41
ip -6 rule add iif fou_test pref 100 lookup 200
ip -6 route add local fe80::d0b0:dfff:fe4c:fcbc dev fou_test table 200
set +e
tracer run -i fou_test -- ping -6 -I fou_test -c3 -i.3 -W1 fe80::d0b0:dfff:fe4c:fcbc
"#;

/// Makes the series, lets git find the commit, and checks that it is the one.
pub fn test() -> anyhow::Result<()> {
    let kernel = kernels::get(&Wanted::parse(KERNEL)?)?;
    let workshop = Workshop::of(&kernel)?;
    let series = paths::vm().join(format!("bisect-{}", std::process::id()));
    paths::remove(&series)?;
    paths::make(&series)?;
    let found = bisect(&workshop, &series);
    paths::remove(&series)?;
    let found = found?;
    ensure!(
        found.contains("is the first bad commit") && found.contains(SUBJECT),
        "git bisect did not find \"{SUBJECT}\" but said:\n{found}"
    );
    println!("ok   git bisect run finds the commit that broke sit ({KERNEL}, {COMMITS} commits)");
    Ok(())
}

/// What git said in the end.
fn bisect(workshop: &Workshop, series: &Path) -> anyhow::Result<String> {
    git(series, &["init", "--quiet"])?;
    for (number, source) in (1..).zip(sources(&workshop.source)?) {
        paths::write(&series.join("sit.c"), source.as_bytes())?;
        git(series, &["add", "sit.c"])?;
        let subject = if number == BREAKS {
            SUBJECT.to_owned()
        } else {
            format!("sit: note {number}")
        };
        git(series, &["commit", "--quiet", "-m", &subject])?;
    }
    let preamble = fs::read_to_string(paths::root().join("scenarios/preamble.sh"))
        .context("cannot read scenarios/preamble.sh: restore it with git")?;
    // Beside the series, and not in it: git cleans up after itself.
    let guest = series.join(".git/guest.sh");
    paths::write(&guest, GUEST.replace("PREAMBLE", &preamble).as_bytes())?;
    let me = std::env::current_exe().context("cannot find myself")?;
    let step = format!(
        "'{me}' sit --kernel {KERNEL} sit.c .git/sit.ko || exit 125\n\
         exec '{me}' vm --kernel {KERNEL} --module .git/sit.ko -- \"$(cat .git/guest.sh)\"",
        me = me.display(),
    );
    let first = format!("HEAD~{}", COMMITS - 1);
    git(series, &["bisect", "start", "HEAD", &first])?;
    git(series, &["bisect", "run", "sh", "-c", &step])
}

/// The file at each commit: the bug comes with one, the others change nothing
/// that matters.
fn sources(fixed: &str) -> anyhow::Result<Vec<String>> {
    let broken = sit::revert(fixed)?;
    Ok((1..=COMMITS)
        .map(|number| {
            let source = if number < BREAKS { fixed } else { &broken };
            format!("{source}\n/* note {number} */\n")
        })
        .collect())
}

fn git(series: &Path, arguments: &[&str]) -> anyhow::Result<String> {
    let mut git = Command::new("git");
    git.current_dir(series)
        .args([
            "-c",
            "user.name=tracer",
            "-c",
            "user.email=tracer@localhost",
        ])
        .args([
            "-c",
            "commit.gpgsign=false",
            "-c",
            "core.hooksPath=/dev/null",
        ])
        .args(arguments);
    // Those of a hook or a bisect above us mean another repository.
    for variable in ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"] {
        git.env_remove(variable);
    }
    process::read(&mut git)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bug_comes_with_one_commit_and_stays() {
        let fixed = "a\nif (rt->rt_type != RTN_UNICAST && rt->rt_type != RTN_LOCAL)\nb\n";
        let all = sources(fixed).unwrap();
        assert_eq!(all.len(), COMMITS);
        let has_bug: Vec<bool> = all.iter().map(|text| !text.contains("RTN_LOCAL")).collect();
        assert_eq!(has_bug, [false, false, false, true, true, true, true]);
    }
}
