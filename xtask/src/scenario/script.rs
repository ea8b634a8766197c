//! The job: all scenarios as one shell script, for busybox sh as well as dash.

use std::fmt::Write;

use super::file::{Expect, Scenario};

/// Seconds that the steps beside the triggers may take, all together.
pub const OTHER_STEPS: u64 = SETUP + STATE + CLEANUP;
const SETUP: u64 = 90;
const STATE: u64 = 30;
const CLEANUP: u64 = 60;

/// Runs a step with its output in files, so that nothing it leaves behind holds the job up.
const STEP: &str = r#"
step() { # step SCENARIO PART SECONDS COMMAND...
    scenario=$1 part=$2 seconds=$3
    shift 3
    timeout -k 10 "$seconds" "$@" >"$dir/out" 2>"$dir/err" </dev/null
    status=$?
    for stream in out err; do
        printf '\n%s open %s %s.%s\n' "$token" "$scenario" "$part" "$stream"
        cat "$dir/$stream"
        printf '\n%s close %s\n' "$token" "$status"
    done
    return "$status"
}
"#;

/// How each step gets the preamble's functions and variables.
const SOURCE: &str = ". \"$SCENARIO_DIR/preamble.sh\"\n";

/// What the network looks like after the trigger: for whoever reads a failure.
const STATE_OF: &str = r##"for n in A B R; do
    [ -e /run/netns/$n ] && echo "# $n" && ip -n $n -s -s -d link && ip -n $n route && ip -n $n -6 route
done
ip -s -s -d link
"##;

/// Everything that a scenario made goes, whatever it left undone.
const CLEAN: &str = "clean\n";
const CLEAN_ROOT: &str = r#"for d in $(ls /sys/class/net); do
    grep -qxF "$d" "$SCENARIO_DIR/devices" || ip link del "$d" 2>/dev/null
done
"#;

/// The script for `scenarios`. `root_too`: the machine is a throw-away, so devices that
/// appeared in its own namespace are deleted after each scenario.
pub fn job(
    scenarios: &[(Scenario, Expect)],
    preamble: &str,
    token: &str,
    root_too: bool,
) -> String {
    let mut out = String::from("# Written by `cargo xtask`: see xtask/src/scenario/script.rs.\n");
    out += &format!("token={token}\n");
    out += "mkdir -p \"${TMPDIR:-/tmp}\"\n";
    out += "dir=$(mktemp -d) || exit 1\n";
    out += "trap 'rm -rf \"$dir\"' EXIT\n";
    out += "SCENARIO_DIR=$dir\nexport SCENARIO_DIR\n";
    file(&mut out, token, "preamble.sh", preamble);
    file(&mut out, token, "state", &format!("{SOURCE}{STATE_OF}"));
    out += STEP;
    for (scenario, expect) in scenarios {
        one(&mut out, scenario, expect, token, root_too);
    }
    out += "\nexit 0\n";
    out
}

fn one(out: &mut String, scenario: &Scenario, expect: &Expect, token: &str, root_too: bool) {
    let name = &scenario.name;
    let root = if root_too { CLEAN_ROOT } else { "" };
    *out += &format!("\n# {name}\n");
    file(
        out,
        token,
        "setup",
        &format!("{SOURCE}set -e\n{}\n", scenario.setup),
    );
    // What the trigger prints is not the tracer's: its standard output must stay whole.
    file(
        out,
        token,
        "trigger",
        &format!("exec >&2\n{SOURCE}{}\n", scenario.trigger),
    );
    let cleanup = format!("{SOURCE}{}\n{CLEAN}{root}sleep 0.5\n", scenario.cleanup);
    file(out, token, "cleanup", &cleanup);

    let args: String = scenario
        .tracer_args
        .iter()
        .fold(String::new(), |mut all, arg| {
            all.push(' ');
            all += &quote(arg);
            all
        });
    let timeout = scenario.timeout;
    let run = |part: &str, format: &str| {
        format!(
            "step {name} {part} {timeout} tracer run{format}{args} -- sh -c \"$(cat \"$dir/trigger\")\"\n"
        )
    };
    *out += "ls /sys/class/net >\"$dir/devices\"\n";
    *out += &format!("if step {name} setup {SETUP} sh \"$dir/setup\"; then\n");
    *out += &run("trigger", " --format json");
    *out += &format!("step {name} state {STATE} sh \"$dir/state\"\n");
    if expect.human.is_some() {
        *out += &run("human", "");
    }
    *out += "fi\n";
    // Writing into a String cannot fail.
    let _ = writeln!(out, "step {name} cleanup {CLEANUP} sh \"$dir/cleanup\"");
}

/// Has the script write `text` to a file; the token ends it, so no text can end it early.
fn file(out: &mut String, token: &str, name: &str, text: &str) {
    *out += &format!("cat >\"$dir/{name}\" <<'{token}'\n{text}");
    if !text.ends_with('\n') {
        out.push('\n');
    }
    *out += &format!("{token}\n");
}

fn quote(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::marks;

    fn scenario(text: &str) -> (Scenario, Expect) {
        let scenario = Scenario::parse(text).unwrap();
        let expect = scenario.expect[0].clone();
        (scenario, expect)
    }

    #[test]
    fn quotes_what_a_shell_would_read() {
        assert_eq!(quote("a b"), "'a b'");
        assert_eq!(quote("it's $x"), r"'it'\''s $x'");
    }

    #[test]
    fn the_job_is_a_shell_script() {
        let one = scenario(
            "name='n'\ntitle='t'\nsetup=\"\"\"echo 'it''s' <<x\n\"$y\"\nx\"\"\"\ntrigger='t'\n\
             tracer_args=['--withhold', 'a b']\n[[expect]]\nkernels=['*']\n[expect.human]\n",
        );
        for root_too in [true, false] {
            let job = job(std::slice::from_ref(&one), "clean() { :; }", "T0", root_too);
            assert_eq!(job.contains("ip link del"), root_too);
            assert!(job.contains("tracer run --format json '--withhold' 'a b' -- sh -c"));
            assert!(job.contains("tracer run '--withhold' 'a b' -- sh -c"));
            let checked = std::process::Command::new("sh")
                .args(["-n", "-c", &job])
                .status();
            assert!(checked.unwrap().success(), "{job}");
        }
    }

    #[test]
    fn steps_come_back_as_sections() {
        let job = format!(
            "token=T1\ndir=$(mktemp -d)\n{STEP}step n a 5 sh -c 'printf x; echo y >&2; exit 3'\n\
             step n b 5 sh -c 'sleep 30 & echo z'\nrm -r \"$dir\"\n"
        );
        let output = std::process::Command::new("sh")
            .args(["-c", &job])
            .output()
            .unwrap();
        let sections = marks::cut(&String::from_utf8(output.stdout).unwrap(), "T1");
        let seen: Vec<_> = sections
            .iter()
            .map(|s| (s.part.as_str(), s.status, s.text.as_str()))
            .collect();
        assert_eq!(
            seen,
            [
                ("a.out", Some(3), "x"),
                ("a.err", Some(3), "y\n"),
                ("b.out", Some(0), "z\n"),
                ("b.err", Some(0), ""),
            ]
        );
    }
}
