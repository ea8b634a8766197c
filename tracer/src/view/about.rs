//! What a report is about, for whoever was not there: what was asked for, and
//! how to ask for it again.

use super::facts::shell;
use crate::record::Scope;

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct About {
    pub scope: Scope,
    /// The recording it is made from, and the tracer that wrote it.
    pub recording: Option<(String, String)>,
    /// What of the recording is shown, as options.
    pub part: Vec<(&'static str, String)>,
}

impl About {
    /// The command lines that measure and show the same.
    pub fn again(&self) -> Vec<String> {
        let scope = &self.scope;
        let mut options = Vec::new();
        for (option, value) in [
            ("--dev", &scope.dev),
            ("--netns", &scope.netns),
            ("--filter", &scope.filter),
        ] {
            if let Some(value) = value {
                options.push(format!("{option} {}", shell(value.as_bytes())));
            }
        }
        for (option, given) in [("--all-drops", scope.all_drops), ("--stack", scope.stack)] {
            if given {
                options.push(option.to_owned());
            }
        }
        let mut command = Vec::new();
        if !scope.command.is_empty() {
            command.push("--".to_owned());
            command.extend(scope.command.iter().map(|word| shell(word.as_bytes())));
        }
        let line = |words: &[&[String]]| words.concat().join(" ");
        match &self.recording {
            // Without a command it was watched.
            None => {
                let how = if command.is_empty() { "watch" } else { "run" };
                vec![line(&[&[format!("tracer {how}")], &options, &command])]
            }
            Some((file, _)) => {
                let file = shell(file.as_bytes());
                let record = [format!("tracer record -o {file}")];
                let report = ["tracer report".to_owned()];
                let part = self.part.iter();
                let part: Vec<String> = part
                    .map(|(option, value)| format!("{option} {}", shell(value.as_bytes())))
                    .collect();
                vec![
                    line(&[&record, &options, &command]),
                    line(&[&report, &part, &[file]]),
                ]
            }
        }
    }

    /// Who measured: `tracer 0.1.0`, and who tells, if that is another.
    pub fn by(&self) -> String {
        let own = env!("CARGO_PKG_VERSION");
        match &self.recording {
            Some((_, theirs)) if theirs != own => {
                format!("tracer {theirs}, told by {own}")
            }
            _ => format!("tracer {own}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_can_be_made_again() {
        let mut about = About {
            scope: Scope {
                filter: Some("ip6 and uid 0".to_owned()),
                stack: true,
                command: vec!["ping".to_owned(), "-c1".to_owned(), "a'b".to_owned()],
                ..Scope::default()
            },
            ..About::default()
        };
        let run = "tracer run --filter $'ip6 and uid 0' --stack -- ping -c1 $'a\\'b'";
        assert_eq!(about.again(), [run]);
        about.recording = Some(("x.rec".to_owned(), "0.0.9".to_owned()));
        about.part = vec![("--dev", "t0".to_owned())];
        assert_eq!(
            about.again(),
            [
                &run.replace("run", "record -o x.rec"),
                "tracer report --dev t0 x.rec"
            ]
        );
        assert!(about.by().starts_with("tracer 0.0.9, told by"));
    }
}
