//! JSON lines: one object a line, stable keys, absent means unknown.

use serde_json::{Map, Value, json};
use tracer_common::{
    flow::{ETH_P_IP, ETH_P_IPV6, Flow, IPPROTO_ICMP, IPPROTO_ICMPV6},
    record::{Record, route_hook},
    tally::{COUNTERS, outcome, route, seen},
};

use super::{text, why};
use crate::{
    devices::printable,
    flows::{Ledger, Report, Row, until_zero},
    judge::names,
    probes::{Attached, Missing},
};

/// Version of the format.
const V: u32 = 1;

/// An object under construction: what is unknown is left out.
struct Object(Map<String, Value>);

impl Object {
    fn new() -> Self {
        Self(Map::new())
    }

    fn of(kind: &str) -> Self {
        let mut object = Self::new();
        object.put("v", V);
        object.put("type", kind);
        object
    }

    fn put(&mut self, key: &str, value: impl Into<Value>) {
        self.0.insert(key.to_owned(), value.into());
    }

    fn put_some(&mut self, key: &str, value: Option<impl Into<Value>>) {
        if let Some(value) = value {
            self.put(key, value);
        }
    }

    fn put_name(&mut self, key: &str, bytes: &[u8]) {
        let bytes = until_zero(bytes);
        if !bytes.is_empty() {
            self.put(key, printable(bytes));
        }
    }

    fn line(self) -> String {
        Value::Object(self.0).to_string()
    }

    fn value(self) -> Value {
        Value::Object(self.0)
    }
}

/// The first line: what is watched, and what is not.
pub fn start(kernel: &str, arch: &str, attached: &[Attached], missing: &[Missing]) -> String {
    let mut object = Object::of("start");
    object.put("kernel", kernel);
    object.put("arch", arch);
    object.put("probes", attached.iter().map(probe).collect::<Vec<_>>());
    object.put("missing", missing.iter().map(missed).collect::<Vec<_>>());
    object.line()
}

fn probe(attached: &Attached) -> Value {
    let mut object = Object::new();
    object.put("point", attached.point.as_str());
    object.put("target", attached.target.as_str());
    object.put("way", &*attached.way);
    object.put_some("module", attached.module.as_deref());
    object.value()
}

fn missed(missing: &Missing) -> Value {
    let mut object = Object::new();
    object.put("point", missing.point.as_str());
    object.put("why", missing.why.as_str());
    object.put("lost", &*missing.lost);
    object.put_some("back", missing.way_back());
    object.value()
}

/// Packets that vanished; `count` of them since the line before about them.
pub fn drop(row: &Row, count: u64, time: &str, stack: bool) -> String {
    let evidence = &row.evidence;
    let key = &evidence.key;
    let record = evidence.record.as_deref();
    let mut object = Object::of("drop");
    object.put("time", time);
    object.put("cause", row.cause.id);
    object.put("title", row.cause.title);
    object.put("verdict", text::verdict(row));
    object.put("confidence", row.confidence.word());
    object.put("direction", if evidence.received() { "rx" } else { "tx" });
    if key.ifindex != 0 {
        object.put("tunnel", tunnel(row));
    }
    if !row.path.is_empty() {
        object.put("path", row.path.clone());
    }
    match key.outcome {
        outcome::STRAY | outcome::UNRELATED if key.seen & seen::INNER_DECODED == 0 => object.put(
            "outer",
            // Of what no tunnel has anything to do with, there is one length only.
            flow(
                &key.flow,
                record.map(|record| match record.outer_length {
                    0 => record.length,
                    outer => outer,
                }),
            ),
        ),
        _ => {
            object.put("inner", flow(&key.flow, record.map(|record| record.length)));
            if let Some(record) = record.filter(|record| record.outer.ethertype != 0) {
                object.put("outer", flow(&record.outer, Some(record.outer_length)));
            }
        }
    }
    if let Some(record) = record.filter(|record| record.origin.ethertype != 0) {
        object.put("origin", flow(&record.origin, None));
    }
    if let Some(record) = record.filter(|_| key.seen & seen::NUMBERED != 0) {
        object.put("number", record.number);
    }
    object.put("freed", freed(row));
    if let Some(route) = route_of(row) {
        object.put("route", route);
    }
    if let Some(record) = record {
        object.put("counters", counters(record));
    }
    // The inner sender's; of the outer packet's error it hears nothing.
    let told_inner = told(row).filter(|_| text::inner_is_told(row));
    if told_inner.is_some() || evidence.errors_watched {
        object.put("told", told_inner);
    }
    object.put_some(
        "outer_told",
        told(row).filter(|_| !text::inner_is_told(row)),
    );
    if let Some(process) = record.and_then(process) {
        object.put("process", process);
    }
    object.put("count", count);
    if stack && !row.stack.is_empty() {
        object.put(
            "stack",
            row.stack
                .iter()
                .map(|place| text::place(Some(place)))
                .collect::<Vec<_>>(),
        );
    }
    object.line()
}

fn tunnel(row: &Row) -> Value {
    let evidence = &row.evidence;
    let mut object = Object::new();
    object.put("dev", text::device_name(row));
    object.put("ifindex", evidence.key.ifindex);
    if !evidence.kind.is_empty() {
        object.put("kind", evidence.kind.as_str());
    }
    if let Some(device) = &evidence.device {
        object.put_some("encap", device.encap.as_deref());
        object.put_some("local", device.local.map(|address| address.to_string()));
        object.put_some("remote", device.remote.map(|address| address.to_string()));
        object.put_some("key", device.key.as_deref());
    }
    object.put_some("netns", row.netns.as_deref());
    object.value()
}

fn flow(flow: &Flow, length: Option<u32>) -> Value {
    let mut object = Object::new();
    match flow.ethertype {
        ETH_P_IP => object.put("family", "ipv4"),
        ETH_P_IPV6 => object.put("family", "ipv6"),
        _ => {}
    }
    if let Some(label) = text::label(flow) {
        object.put("family", "mpls");
        object.put("label", label);
    }
    object.put_some(
        "src",
        text::address(&flow.src, flow.ethertype).map(|a| a.to_string()),
    );
    object.put_some(
        "dst",
        text::address(&flow.dst, flow.ethertype).map(|a| a.to_string()),
    );
    if flow.proto != 0 {
        object.put("proto", protocol(flow.proto));
    }
    match flow.proto {
        IPPROTO_ICMP | IPPROTO_ICMPV6 => object.put("icmp_type", flow.icmp_type),
        _ if flow.sport != 0 || flow.dport != 0 => {
            object.put("sport", flow.sport);
            object.put("dport", flow.dport);
        }
        _ => {}
    }
    object.put_some("length", length);
    object.value()
}

fn freed(row: &Row) -> Value {
    let evidence = &row.evidence;
    let mut object = Object::new();
    if let Some(place) = &evidence.place {
        object.put("function", place.function.as_str());
        object.put("offset", place.offset);
        object.put_some("module", place.module.as_deref());
    }
    object.put(
        "by",
        if evidence.by_kfree() {
            "kfree_skb"
        } else {
            "consume_skb"
        },
    );
    object.put_some("reason", evidence.reason.as_deref());
    if let Some(record) = &evidence.record {
        object.put_name("dev", &record.freed_dev);
    }
    object.value()
}

fn route_of(row: &Row) -> Option<Value> {
    let key = &row.evidence.key;
    let why = why::of(row);
    if key.route & route::SEEN == 0 && why.is_none() {
        return None;
    }
    let mut object = Object::new();
    if let Some(why) = why {
        object.put("why", why.text);
        object.put("why_confidence", why.confidence.word());
    }
    if key.route & route::SEEN == 0 {
        return Some(object.value());
    }
    let ipv6 = key.route & route::IPV6 != 0;
    object.put_some("type", names::route_type(key.route_type));
    if key.route_errno != 0 {
        object.put("errno", names::errno(key.route_errno));
    }
    object.put("from_cache", key.route & route::FROM_CACHE != 0);
    if let Some(record) = &row.evidence.record {
        let answer = &record.route;
        object.put_some("dst", text::looked_up(row).map(|a| a.to_string()));
        object.put_some(
            "src",
            text::underlay(&answer.src, ipv6).map(|a| a.to_string()),
        );
        object.put_name("dev", &answer.dev);
        if answer.gateway_family != 0 {
            let gateway = text::underlay(&answer.gateway, answer.gateway_family == 6);
            object.put_some("gateway", gateway.map(|a| a.to_string()));
        }
        if answer.mark != 0 {
            object.put("mark", answer.mark);
        }
        if answer.oif != 0 {
            object.put("oif", answer.oif);
        }
        object.put_some("seen_at", seen_at(answer.seen_at));
        if answer.table != 0 && answer.table_errno == key.route_errno {
            object.put("table", answer.table);
        }
    }
    Some(object.value())
}

/// The function whose return told the route.
fn seen_at(hook: u8) -> Option<&'static str> {
    Some(match hook {
        route_hook::IP_ROUTE_OUTPUT_FLOW => "ip_route_output_flow",
        route_hook::DST_CACHE_GET_IP4 => "dst_cache_get_ip4",
        route_hook::IP6_ROUTE_OUTPUT_FLAGS => "ip6_route_output_flags",
        route_hook::DST_CACHE_GET => "dst_cache_get",
        route_hook::DST_CACHE_GET_IP6 => "dst_cache_get_ip6",
        route_hook::FIB_TABLE_LOOKUP => "fib_table_lookup",
        route_hook::FIB6_TABLE_LOOKUP => "fib6_table_lookup",
        _ => return None,
    })
}

fn counters(record: &Record) -> Value {
    let mut object = Object::new();
    for (n, name) in COUNTERS.iter().enumerate() {
        if record.key.counters & (1 << n) != 0 {
            object.put(name, record.counters[n]);
        }
    }
    object.value()
}

fn told(row: &Row) -> Option<Value> {
    let (version, kind, code) = row.evidence.told()?;
    let name = if version == 6 { "icmpv6" } else { "icmp" };
    Some(json!({"icmp": format!("{name} {kind}/{code}")}))
}

fn process(record: &Record) -> Option<Value> {
    let process = &record.process;
    let user = process.flags & tracer_common::record::sender::USER_SOCKET != 0;
    if !user {
        return None;
    }
    let mut object = Object::new();
    if process.tgid != 0 {
        object.put("pid", process.tgid);
        object.put_name("comm", &process.comm);
        object.put("cgroup", process.cgroup);
    }
    object.put("uid", process.uid);
    Some(object.value())
}

/// A device's ledger.
pub fn device(ledger: &Ledger) -> String {
    let sums = |counts: &[(&'static str, u64)]| {
        counts
            .iter()
            .map(|(name, count)| ((*name).to_owned(), Value::from(*count)))
            .collect::<Map<_, _>>()
    };
    let mut object = Object::of("device");
    object.put("dev", ledger.name.as_str());
    object.put_some(
        "kind",
        Some(ledger.kind.as_str()).filter(|kind| !kind.is_empty()),
    );
    object.put_some("netns", ledger.netns.as_deref());
    object.put("packets_in", ledger.tally.packets_in);
    object.put("sent", ledger.tally.sent);
    object.put("dropped", ledger.tally.dropped);
    object.put("unexplained", ledger.unexplained());
    object.put("by_cause", sums(&ledger.by_cause));
    object.put("lost_after_sending", sums(&ledger.lost_after_sending));
    object.put_some("counters", ledger.counters.as_deref().map(sums));
    object.put("asymmetry", json!(ledger.asymmetry));
    if !ledger.asymmetry_after_sending.is_empty() {
        let later = json!(ledger.asymmetry_after_sending);
        object.put("asymmetry_after_sending", later);
    }
    object.line()
}

/// `icmpv6`, or the number.
pub fn protocol(number: u8) -> String {
    names::protocol(number).map_or_else(|| number.to_string(), str::to_ascii_lowercase)
}

/// The last line.
pub fn end(report: &Report) -> String {
    let mut object = Object::of("end");
    object.put("complete", report.is_complete());
    if report.broken_off {
        object.put("broken_off", true);
    }
    if let Some(selected) = &report.selected {
        object.put("selected_of", selected.of);
        object.put("undecided", selected.undecided);
    }
    object.put("records", report.records);
    object.put("lost", json!(report.lost));
    object.put("drops", report.drops());
    object.put(
        "duration",
        (report.duration.as_secs_f64() * 1000.0).round() / 1000.0,
    );
    object.line()
}
