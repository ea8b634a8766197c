//! What a scenario can ask of a drop line: one entry per key, each with its place in the JSON.

use std::collections::BTreeMap;

use anyhow::{Result, bail};
use serde::Deserialize;
use serde_json::Value;

/// Wanted fields by key. A list means: any of these.
#[derive(Debug, Clone, Default, Deserialize, PartialEq)]
#[serde(transparent)]
pub struct Fields(BTreeMap<String, toml::Value>);

/// How a wanted value is compared with the one on the line.
#[derive(Clone, Copy, PartialEq)]
enum As {
    Text,
    Number,
    Flag,
    /// All counters that moved, no more and no less.
    Counters,
    /// `true`: an object is there; `false`: null is there. Absent is neither.
    Told,
}

struct Field {
    key: &'static str,
    pointer: &'static str,
    compared: As,
    /// Identity says which lines are meant; the rest says how those must look.
    identity: bool,
}

const fn field(key: &'static str, pointer: &'static str, compared: As, identity: bool) -> Field {
    Field {
        key,
        pointer,
        compared,
        identity,
    }
}

const FIELDS: &[Field] = &[
    field("cause", "/cause", As::Text, true),
    field("dev", "/tunnel/dev", As::Text, true),
    field("inner_family", "/inner/family", As::Text, true),
    field("inner_src", "/inner/src", As::Text, true),
    field("inner_dst", "/inner/dst", As::Text, true),
    field("confidence", "/confidence", As::Text, false),
    field("direction", "/direction", As::Text, false),
    field("function", "/freed/function", As::Text, false),
    field("module", "/freed/module", As::Text, false),
    field("by", "/freed/by", As::Text, false),
    field("reason", "/freed/reason", As::Text, false),
    field("route_type", "/route/type", As::Text, false),
    field("errno", "/route/errno", As::Text, false),
    field("route_from_cache", "/route/from_cache", As::Flag, false),
    field("why", "/route/why", As::Text, false),
    field("why_confidence", "/route/why_confidence", As::Text, false),
    field("kind", "/tunnel/kind", As::Text, false),
    field("encap", "/tunnel/encap", As::Text, false),
    field("netns", "/tunnel/netns", As::Text, false),
    field("inner_proto", "/inner/proto", As::Text, false),
    field("outer_dst", "/outer/dst", As::Text, false),
    field("outer_dport", "/outer/dport", As::Number, false),
    field("counters", "/counters", As::Counters, false),
    field("told", "/told", As::Told, false),
];

impl Fields {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Refuses unknown keys and values of the wrong kind.
    pub fn check(&self) -> Result<()> {
        for (key, value) in &self.0 {
            let Some(field) = FIELDS.iter().find(|f| f.key == key) else {
                let known: Vec<_> = FIELDS.iter().map(|f| f.key).collect();
                bail!(
                    "unknown key `{key}`: the keys of a drop are {}",
                    known.join(", ")
                );
            };
            if !well_formed(field.compared, value) {
                bail!("`{key} = {value}` is of the wrong kind: see CONTRIBUTING.md, scenarios");
            }
        }
        Ok(())
    }

    /// Whether `line` is one of the lines meant.
    pub fn identifies(&self, line: &Value) -> bool {
        self.differences(line, true).is_empty()
    }

    /// Whether `line` has every field, identity or not.
    pub fn matches(&self, line: &Value) -> bool {
        self.identifies(line) && self.wrong(line).is_empty()
    }

    /// How `line` differs in the fields that are not identity.
    pub fn wrong(&self, line: &Value) -> Vec<String> {
        self.differences(line, false)
    }

    fn differences(&self, line: &Value, identity: bool) -> Vec<String> {
        let asked = FIELDS.iter().filter(|f| f.identity == identity);
        asked
            .filter_map(|field| {
                let want = self.0.get(field.key)?;
                let seen = line.pointer(field.pointer);
                let good = match want {
                    toml::Value::Array(any) => {
                        any.iter().any(|one| equal(field.compared, one, seen))
                    }
                    one => equal(field.compared, one, seen),
                };
                let shown = seen.map_or_else(|| "absent".to_owned(), Value::to_string);
                (!good).then(|| format!("{}: expected {want}, got {shown}", field.key))
            })
            .collect()
    }

    /// The identity, for messages.
    pub fn name(&self) -> String {
        let named: Vec<String> = FIELDS
            .iter()
            .filter(|f| f.identity)
            .filter_map(|f| Some(format!("{}={}", f.key, self.0.get(f.key)?)))
            .collect();
        if named.is_empty() {
            "any drop".to_owned()
        } else {
            named.join(" ")
        }
    }
}

fn well_formed(compared: As, value: &toml::Value) -> bool {
    if let toml::Value::Array(any) = value {
        return !any.is_empty()
            && any
                .iter()
                .all(|one| !one.is_array() && well_formed(compared, one));
    }
    match compared {
        As::Text => value.is_str(),
        As::Number => value.is_integer(),
        As::Flag | As::Told => value.is_bool(),
        As::Counters => value
            .as_table()
            .is_some_and(|table| table.values().all(toml::Value::is_integer)),
    }
}

fn equal(compared: As, want: &toml::Value, seen: Option<&Value>) -> bool {
    let Some(seen) = seen else {
        // A line that names no counter says that none moved.
        return compared == As::Counters && moved_wanted(want).is_some_and(|all| all.is_empty());
    };
    match compared {
        As::Text => want.as_str().is_some() && want.as_str() == seen.as_str(),
        As::Number => want.as_integer().is_some() && want.as_integer() == seen.as_i64(),
        As::Flag => want.as_bool().is_some() && want.as_bool() == seen.as_bool(),
        As::Told => match want.as_bool() {
            Some(true) => seen.is_object(),
            Some(false) => seen.is_null(),
            None => false,
        },
        As::Counters => moved_wanted(want).is_some() && moved_wanted(want) == moved_seen(seen),
    }
}

fn moved_wanted(want: &toml::Value) -> Option<BTreeMap<&str, i64>> {
    let all = want.as_table()?.iter();
    all.map(|(name, n)| Some((name.as_str(), n.as_integer()?)))
        .filter(|entry| !matches!(entry, Some((_, 0))))
        .collect()
}

fn moved_seen(seen: &Value) -> Option<BTreeMap<&str, i64>> {
    let all = seen.as_object()?.iter();
    all.map(|(name, n)| Some((name.as_str(), n.as_i64()?)))
        .filter(|entry| !matches!(entry, Some((_, 0))))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn fields(text: &str) -> Fields {
        toml::from_str(text).unwrap()
    }

    fn line() -> Value {
        json!({"v": 1, "type": "drop", "cause": "c", "confidence": "proved", "direction": "tx",
            "tunnel": {"dev": "t0", "kind": "sit", "encap": "fou", "netns": "A"},
            "inner": {"family": "ipv6", "src": "fd09::1", "dst": "fd09::2", "proto": "icmpv6"},
            "outer": {"dst": "127.0.0.1", "dport": 1111},
            "freed": {"function": "f", "module": "m", "by": "kfree_skb", "reason": "NOT_SPECIFIED"},
            "route": {"type": "RTN_LOCAL", "errno": "EACCES", "from_cache": true,
                "why": "rule 10: prohibit", "why_confidence": "inferred"},
            "counters": {"tx_errors": 1, "tx_dropped": 0}, "told": {"icmp": 1}, "count": 1})
    }

    #[test]
    fn every_field_once_right_and_once_wrong() {
        let pairs = [
            ("cause", "'c'", "'d'"),
            ("dev", "'t0'", "'t1'"),
            ("inner_family", "'ipv6'", "'ipv4'"),
            ("inner_src", "'fd09::1'", "'fd09::2'"),
            ("inner_dst", "'fd09::2'", "'fd09::1'"),
            ("confidence", "'proved'", "['inferred', 'unknown']"),
            ("direction", "'tx'", "'rx'"),
            ("function", "'f'", "'g'"),
            ("module", "['l', 'm']", "'n'"),
            ("by", "'kfree_skb'", "'consume_skb'"),
            ("reason", "'NOT_SPECIFIED'", "['NO_SOCKET']"),
            ("route_type", "'RTN_LOCAL'", "'RTN_UNICAST'"),
            ("errno", "'EACCES'", "'EPERM'"),
            ("route_from_cache", "true", "false"),
            ("why", "'rule 10: prohibit'", "'rule 1'"),
            ("why_confidence", "'inferred'", "'proved'"),
            ("kind", "'sit'", "'ipip'"),
            ("encap", "'fou'", "'gue'"),
            ("netns", "'A'", "'B'"),
            ("inner_proto", "'icmpv6'", "'udp'"),
            ("outer_dst", "'127.0.0.1'", "'10.0.0.2'"),
            ("outer_dport", "1111", "1112"),
            (
                "counters",
                "{ tx_errors = 1 }",
                "{ tx_errors = 1, collisions = 1 }",
            ),
            ("told", "true", "false"),
        ];
        assert_eq!(pairs.len(), FIELDS.len());
        for (key, right, wrong) in pairs {
            let right = fields(&format!("{key} = {right}"));
            right.check().unwrap();
            assert!(right.matches(&line()), "{key}");
            assert!(!right.matches(&json!({})), "{key}: absent is not a match");
            let wrong = fields(&format!("{key} = {wrong}"));
            wrong.check().unwrap();
            assert!(!wrong.matches(&line()), "{key}");
        }
    }

    #[test]
    fn counters_are_exact_and_zero_is_none() {
        assert!(!fields("counters = { collisions = 1 }").matches(&line()));
        assert!(!fields("counters = {}").matches(&line()));
        assert!(fields("counters = {}").matches(&json!({})));
        assert!(fields("counters = {}").matches(&json!({"counters": {"tx_errors": 0}})));
        assert!(
            !fields("counters = { tx_errors = 1 }")
                .matches(&json!({"counters": {"tx_errors": "1"}}))
        );
    }

    #[test]
    fn not_told_has_to_be_said() {
        assert!(fields("told = false").matches(&json!({"told": null})));
        assert!(!fields("told = false").matches(&json!({})));
        assert!(!fields("told = true").matches(&json!({"told": null})));
    }

    #[test]
    fn typos_and_wrong_kinds_are_refused() {
        for text in [
            "couse = 'x'",
            "cause = 1",
            "cause = []",
            "cause = [['x']]",
            "outer_dport = '1111'",
            "told = 'yes'",
            "counters = 1",
            "counters = { tx_errors = 'one' }",
        ] {
            assert!(fields(text).check().is_err(), "{text}");
        }
    }
}
