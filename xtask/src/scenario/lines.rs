//! The tracer's JSON lines, as far as a judge needs them.

use serde_json::Value;

/// The lines of one run, by type.
#[derive(Debug, Default)]
pub struct Lines {
    pub drops: Vec<Value>,
    pub devices: Vec<Value>,
    pub ends: Vec<Value>,
    /// Release of the kernel, by the first line.
    pub release: Option<String>,
}

impl Lines {
    /// Reads all of standard output; what breaks the contract of the format is named.
    pub fn read(stdout: &str) -> (Self, Vec<String>) {
        let mut lines = Self::default();
        let mut wrong = Vec::new();
        let mut starts = 0;
        for (number, line) in (1..).zip(stdout.lines()) {
            match kind(line) {
                Ok((kind, value)) => match kind.as_str() {
                    "drop" => lines.drops.push(value),
                    "device" => lines.devices.push(value),
                    "end" => lines.ends.push(value),
                    "start" => {
                        starts += 1;
                        lines.release = value
                            .get("kernel")
                            .and_then(Value::as_str)
                            .map(str::to_owned);
                    }
                    _ => {}
                },
                Err(why) => {
                    let shown: String = line.chars().take(80).collect();
                    wrong.push(format!("stdout line {number} {why}: {shown:?}"));
                }
            }
        }
        if starts != 1 {
            wrong.push(format!("expected one line of type start, got {starts}"));
        }
        if lines.ends.len() != 1 {
            wrong.push(format!(
                "expected one line of type end, got {}",
                lines.ends.len()
            ));
        }
        (lines, wrong)
    }
}

fn kind(line: &str) -> Result<(String, Value), String> {
    let value: Value =
        serde_json::from_str(line).map_err(|error| format!("is not JSON ({error})"))?;
    let Some(object) = value.as_object() else {
        return Err("is not an object".to_owned());
    };
    if object.get("v").and_then(Value::as_u64) != Some(1) {
        return Err("lacks \"v\":1".to_owned());
    }
    match object.get("type").and_then(Value::as_str) {
        Some(kind) => Ok((kind.to_owned(), value)),
        None => Err("lacks \"type\"".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: &str = r#"{"v":1,"type":"start"}"#;
    const END: &str = r#"{"v":1,"type":"end","complete":true}"#;

    #[test]
    fn sorts_lines_by_type() {
        let text = format!(
            "{START}\n{{\"type\":\"drop\",\"v\":1}}\n{{\"v\":1,\"type\":\"device\"}}\n{{\"v\":1,\"type\":\"new\"}}\n{END}\n"
        );
        let (lines, wrong) = Lines::read(&text);
        assert!(wrong.is_empty(), "{wrong:?}");
        assert_eq!(
            (lines.drops.len(), lines.devices.len(), lines.ends.len()),
            (1, 1, 1)
        );
    }

    #[test]
    fn every_breach_is_named() {
        for bad in [
            "",
            "[]",
            "7",
            "{",
            "PING 1.1.1.1",
            "{\"v\":1}",
            "{\"v\":2,\"type\":\"drop\"}",
            "{\"type\":\"drop\"}",
            "{\"v\":1,\"type\":7}",
        ] {
            let (_, wrong) = Lines::read(&format!("{START}\n{bad}\n{END}\n"));
            assert_eq!(wrong.len(), 1, "{bad:?}: {wrong:?}");
        }
        assert_eq!(Lines::read("").1.len(), 2);
        assert_eq!(Lines::read(&format!("{START}\n{END}\n{END}\n")).1.len(), 1);
    }
}
