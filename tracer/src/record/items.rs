//! What is in the blocks: items, each with its type and length. What there is
//! much of is numbers ([`super::plain`]), the rest is JSON. An item of an
//! unknown type is passed over, and so is an unknown key of a known one.

use std::{
    collections::HashSet,
    ffi::OsString,
    hash::{DefaultHasher, Hash, Hasher as _},
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;
use tracer_common::{
    record::Record,
    tally::{DeviceKey, DeviceTally, LikeKey, LikeTally, PassedKey, Tally, TallyKey},
};

use super::{
    blocks::{Broken, damaged},
    plain::{self, Field, Layout, Plain, Plan},
};
use crate::{
    devices::{Device, printable},
    event::{Event, Known, Packet, Sample, Start},
    flows::Counts,
    judge::Place,
    routing::{Finding, Question},
    stream::Lost,
};

/// Type, zero, length.
const ITEM_HEADER: usize = 8;
/// Longest item but the first.
const MAX_ITEM: usize = 128 << 10;
/// Longest first item.
const MAX_START: usize = 1 << 20;
/// Longest text in an item; names of functions are the longest that are usual.
const MAX_TEXT: usize = 1 << 10;
/// Longest text where paths and the reasons of a kernel are told.
const MAX_LONG_TEXT: usize = 16 << 10;
/// Longest name of a device in bytes, with room to spare.
const MAX_NAME: usize = 64;
/// Most alternative names of a device, and bytes of each (`ALTIFNAMSIZ`).
const MAX_ALTNAMES: usize = 64;
const MAX_ALTNAME: usize = 128;
/// Most bytes of all that is known besides records and counts.
const MAX_KNOWN: usize = 32 << 20;
/// Most addresses of a stack.
const MAX_STACK: usize = 127;
/// Most counts between two looks at them.
const MAX_COUNTS: usize = 1 << 17;
/// No counter gets as far: sums of them fit where they are summed.
const MAX_COUNT: u64 = 1 << 46;
/// Most bytes that are taken of a packet.
const MAX_PACKET: usize = 4 << 10;
/// Most records at a time.
const MAX_RECORDS: usize = 1024;

/// The types.
mod kind {
    pub const START: u16 = 1;
    pub const DEVICE: u16 = 2;
    pub const NETNS: u16 = 3;
    pub const PLACE: u16 = 4;
    pub const MODULE: u16 = 5;
    pub const RECORD: u16 = 6;
    pub const TALLY: u16 = 7;
    pub const PASSED: u16 = 8;
    pub const LEDGER: u16 = 9;
    pub const COUNTED: u16 = 10;
    pub const END: u16 = 11;
    pub const ANSWER: u16 = 12;
    pub const PACKET: u16 = 13;
    pub const LIKE: u16 = 14;
}

/// The first item: what is known at the start, and how the rest is to be read.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Begin {
    /// Version of the tracer that wrote it.
    pub tracer: String,
    pub start: Start,
    pub scope: Scope,
    layouts: Layouts,
}

impl Begin {
    /// Does the file have ports and ICMP types of what passed? Those of before 0.1.0
    /// have not.
    pub fn keeps_ports(&self) -> bool {
        let mut fields = self.layouts.passed.iter();
        fields.any(|Field(name, ..)| name == "key.port")
    }
}

/// What was asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Scope {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dev: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub netns: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub filter: Option<String>,
    pub all_drops: bool,
    pub stack: bool,
    /// The command that ran meanwhile, as far as it is short.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
}

/// Most bytes of a command that are kept.
const MAX_COMMAND: usize = 4 << 10;

impl Scope {
    /// With the command that was traced.
    pub fn of_command(mut self, command: &[OsString]) -> Self {
        let mut room = MAX_COMMAND;
        for word in command {
            let word = printable(word.as_encoded_bytes());
            match room.checked_sub(word.len()) {
                Some(left) => {
                    room = left;
                    self.command.push(word);
                }
                None => {
                    self.command.push("…".to_owned());
                    break;
                }
            }
        }
        self
    }
}

/// Where the numbers of each thing are.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Layouts {
    record: Layout,
    tally: Layout,
    passed: Layout,
    like: Layout,
    ledger: Layout,
}

/// A network namespace.
#[derive(Serialize, Deserialize)]
struct Netns {
    inode: u32,
    name: String,
}

/// An address of the kernel's code.
#[derive(Serialize, Deserialize)]
struct At {
    address: u64,
    #[serde(flatten)]
    place: Place,
}

#[derive(Serialize, Deserialize)]
struct Module {
    name: String,
    loaded: bool,
}

/// What netlink said of a question.
#[derive(Serialize, Deserialize)]
struct Answer {
    question: Question,
    finding: Option<Finding>,
}

/// The counts before this are of that time.
#[derive(Serialize, Deserialize)]
struct Counted {
    time_ns: u64,
    frames: bool,
    #[serde(default = "yes")]
    surveyed: bool,
    lost: Lost,
}

/// Recordings of before 0.1.0 do not say.
fn yes() -> bool {
    true
}

/// The last item.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct End {
    /// Another file goes on where this one ends.
    pub continued: bool,
}

/// Writes the first item.
pub fn put_begin(start: &Start, scope: &Scope, out: &mut Vec<u8>) {
    let begin = Begin {
        tracer: env!("CARGO_PKG_VERSION").to_owned(),
        start: start.clone(),
        scope: scope.clone(),
        layouts: Layouts {
            record: plain::layout::<Record>(),
            tally: plain::layout::<(TallyKey, Tally)>(),
            passed: plain::layout::<(PassedKey, u64)>(),
            like: plain::layout::<(LikeKey, LikeTally)>(),
            ledger: plain::layout::<(DeviceKey, DeviceTally)>(),
        },
    };
    put_json(kind::START, &begin, out);
}

/// Writes the last item.
pub fn put_end(end: &End, out: &mut Vec<u8>) {
    put_json(kind::END, end, out);
}

/// Writes an event. `full` is called after each item, when it may be time to
/// write a block.
pub fn put(
    event: &Event,
    out: &mut Vec<u8>,
    mut full: impl FnMut(&mut Vec<u8>) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    match event {
        Event::Devices(devices) => {
            for known in devices {
                put_json(kind::DEVICE, known, out);
                full(out)?;
            }
        }
        Event::Netns(names) => {
            for (inode, name) in names {
                let (inode, name) = (*inode, name.clone());
                put_json(kind::NETNS, &Netns { inode, name }, out);
                full(out)?;
            }
        }
        Event::Places(places) => {
            for (address, place) in places {
                let (address, place) = (*address, place.clone());
                put_json(kind::PLACE, &At { address, place }, out);
                full(out)?;
            }
        }
        Event::Module { name, loaded } => {
            let (name, loaded) = (name.clone(), *loaded);
            put_json(kind::MODULE, &Module { name, loaded }, out);
        }
        Event::Answer { question, finding } => {
            let (question, finding) = (*question, finding.clone());
            put_json(kind::ANSWER, &Answer { question, finding }, out);
        }
        Event::Records(samples) => {
            for sample in samples {
                let Sample {
                    record,
                    stack,
                    packet,
                } = sample;
                put_item(kind::RECORD, out, |out| {
                    record.put(out);
                    for address in stack {
                        address.put(out);
                    }
                });
                // In the same block as its record.
                if let Some(packet) = packet {
                    put_item(kind::PACKET, out, |out| {
                        packet.begin().put(out);
                        0u16.put(out);
                        packet.length.put(out);
                        out.extend_from_slice(&packet.bytes);
                    });
                }
                full(out)?;
            }
        }
        Event::Counts(counts) => {
            let Counts {
                time_ns,
                frames,
                surveyed,
                lost,
                tallies,
                passed,
                likes,
                devices,
            } = counts;
            for (key, tally) in tallies {
                put_item(kind::TALLY, out, |out| (*key, *tally).put(out));
                full(out)?;
            }
            for (key, packets) in passed {
                put_item(kind::PASSED, out, |out| (*key, *packets).put(out));
                full(out)?;
            }
            for (key, tally) in likes {
                put_item(kind::LIKE, out, |out| (*key, *tally).put(out));
                full(out)?;
            }
            for (key, tally) in devices {
                put_item(kind::LEDGER, out, |out| (*key, *tally).put(out));
                full(out)?;
            }
            let counted = Counted {
                time_ns: *time_ns,
                frames: *frames,
                surveyed: *surveyed,
                lost: *lost,
            };
            put_json(kind::COUNTED, &counted, out);
        }
    }
    full(out)
}

fn put_item(kind: u16, out: &mut Vec<u8>, content: impl FnOnce(&mut Vec<u8>)) {
    out.extend_from_slice(&kind.to_le_bytes());
    out.extend_from_slice(&[0; 6]);
    let start = out.len();
    content(out);
    let length = (out.len() - start) as u32;
    if let Some(place) = out.get_mut(start - 4..start) {
        place.copy_from_slice(&length.to_le_bytes());
    }
}

fn put_json(kind: u16, value: &impl Serialize, out: &mut Vec<u8>) {
    put_item(kind, out, |out| {
        // Writing to memory does not fail, and the keys of all maps are texts or
        // numbers.
        let _ = serde_json::to_writer(out, value);
    });
}

/// What an item, or some of them, say.
pub enum Said {
    Event(Event),
    End(End),
    /// There are no more in this block.
    Nothing,
}

/// Reads items of one file.
pub struct Decoder {
    record: Plan,
    tally: Plan,
    passed: Plan,
    like: Plan,
    ledger: Plan,
    /// Counts of which it is not known yet when they were.
    counts: Counts,
    /// What is known besides records and counts, by hash, and its bytes.
    keys: HashSet<u64>,
    known: usize,
}

impl Decoder {
    /// Reads the first item of the first block; `block` loses it.
    pub fn begin(block: &mut &[u8]) -> Result<(Begin, Self), Broken> {
        let Some((kind::START, content)) = next(block)? else {
            return Err(damaged("it does not begin with a start"));
        };
        let begin: Begin = json(content, MAX_START, MAX_LONG_TEXT)?;
        let layouts = &begin.layouts;
        let decoder = Self {
            record: Plan::of::<Record>(&layouts.record).map_err(damaged)?,
            tally: Plan::of::<(TallyKey, Tally)>(&layouts.tally).map_err(damaged)?,
            passed: Plan::of::<(PassedKey, u64)>(&layouts.passed).map_err(damaged)?,
            like: Plan::of::<(LikeKey, LikeTally)>(&layouts.like).map_err(damaged)?,
            ledger: Plan::of::<(DeviceKey, DeviceTally)>(&layouts.ledger).map_err(damaged)?,
            counts: Counts::default(),
            keys: HashSet::new(),
            known: 0,
        };
        Ok((begin, decoder))
    }

    /// Something more is known: how much there can be of it is limited in bytes, too.
    /// What is told again takes no more room.
    fn learn(&mut self, key: &impl Hash, content: &[u8]) -> Result<(), Broken> {
        let mut hasher = DefaultHasher::new();
        key.hash(&mut hasher);
        if self.keys.insert(hasher.finish()) {
            self.known = self.known.saturating_add(content.len());
        }
        match self.known > MAX_KNOWN {
            true => Err(damaged(
                "it knows more devices, places and answers than any host has",
            )),
            false => Ok(()),
        }
    }

    /// Reads the next items; `block` loses them.
    pub fn next(&mut self, block: &mut &[u8]) -> Result<Said, Broken> {
        let mut samples = Vec::new();
        loop {
            let before = *block;
            match next(block)? {
                Some((kind::RECORD, content)) if samples.len() < MAX_RECORDS => {
                    samples.push(self.sample(content)?);
                }
                Some((kind::PACKET, content)) if !samples.is_empty() => {
                    let last: Option<&mut Sample> = samples.last_mut();
                    if let Some(sample) = last {
                        sample.packet = packet(content);
                    }
                }
                _ if !samples.is_empty() => {
                    *block = before;
                    return Ok(Said::Event(Event::Records(samples)));
                }
                None => return Ok(Said::Nothing),
                Some((kind, content)) => {
                    if let Some(said) = self.item(kind, content)? {
                        return Ok(said);
                    }
                }
            }
        }
    }

    fn sample(&self, content: &[u8]) -> Result<Sample, Broken> {
        let read = self.record.read(content);
        let (record, stack) =
            read.ok_or_else(|| damaged("a record is too short, or has a number too great"))?;
        let (stack, []) = stack.as_chunks() else {
            return Err(damaged("a stack has a half address"));
        };
        if stack.len() > MAX_STACK {
            return Err(damaged("a stack is longer than any"));
        }
        let stack = stack.iter().map(|address| u64::from_le_bytes(*address));
        let stack = stack.collect();
        Ok(Sample {
            record,
            stack,
            packet: None,
        })
    }

    fn item(&mut self, kind: u16, content: &[u8]) -> Result<Option<Said>, Broken> {
        let event = match kind {
            kind::DEVICE => {
                let mut known: Known = json(content, MAX_ITEM, MAX_TEXT)?;
                let Device {
                    netns,
                    ifindex,
                    name,
                    altnames,
                    ..
                } = &mut known.device;
                if name.len() > MAX_NAME {
                    return Err(damaged("a device has a name longer than any"));
                }
                altnames.truncate(MAX_ALTNAMES);
                altnames
                    .iter_mut()
                    .for_each(|name| name.truncate(MAX_ALTNAME));
                self.learn(&(kind, *netns, *ifindex), content)?;
                Event::Devices(vec![known])
            }
            kind::NETNS => {
                let Netns { inode, name } = json(content, MAX_ITEM, MAX_TEXT)?;
                self.learn(&(kind, inode), content)?;
                Event::Netns(vec![(inode, name)])
            }
            kind::PLACE => {
                let At { address, place } = json(content, MAX_ITEM, MAX_TEXT)?;
                self.learn(&(kind, address), content)?;
                Event::Places(vec![(address, place)])
            }
            kind::MODULE => {
                let Module { name, loaded } = json(content, MAX_ITEM, MAX_TEXT)?;
                Event::Module { name, loaded }
            }
            kind::ANSWER => {
                let Answer { question, finding } = json(content, MAX_ITEM, MAX_TEXT)?;
                self.learn(&(kind, question), content)?;
                Event::Answer { question, finding }
            }
            kind::TALLY => {
                let (key, tally): (TallyKey, Tally) = counted(&self.tally, content)?;
                check([tally.packets, tally.bytes])?;
                self.counts.tallies.insert(key, tally);
                return self.room();
            }
            kind::PASSED => {
                let (key, packets): (PassedKey, u64) = counted(&self.passed, content)?;
                check([packets])?;
                self.counts.passed.insert(key, packets);
                return self.room();
            }
            kind::LIKE => {
                let (key, tally): (LikeKey, LikeTally) = counted(&self.like, content)?;
                check([tally.sent, tally.dropped, tally.lost])?;
                self.counts.likes.insert(key, tally);
                return self.room();
            }
            kind::LEDGER => {
                let (key, tally): (DeviceKey, DeviceTally) = counted(&self.ledger, content)?;
                let DeviceTally {
                    packets_in,
                    sent,
                    dropped,
                    unexplained,
                } = tally;
                check([packets_in, sent, dropped, unexplained])?;
                self.counts.devices.insert(key, tally);
                return self.room();
            }
            kind::COUNTED => {
                let Counted {
                    time_ns,
                    frames,
                    surveyed,
                    lost,
                } = json(content, MAX_ITEM, MAX_TEXT)?;
                check([lost.ring, lost.tally, lost.frames, lost.missed])?;
                Event::Counts(Counts {
                    time_ns,
                    frames,
                    surveyed,
                    lost,
                    ..std::mem::take(&mut self.counts)
                })
            }
            kind::END => return Ok(Some(Said::End(json(content, MAX_ITEM, MAX_TEXT)?))),
            // One of a newer tracer.
            _ => return Ok(None),
        };
        Ok(Some(Said::Event(event)))
    }

    /// Is there room for more counts?
    fn room(&self) -> Result<Option<Said>, Broken> {
        let counts = &self.counts;
        let all =
            counts.tallies.len() + counts.passed.len() + counts.likes.len() + counts.devices.len();
        match all > MAX_COUNTS {
            true => Err(damaged("there are more counts than any tracer keeps")),
            false => Ok(None),
        }
    }
}

/// A packet's bytes, `None` if it has none.
fn packet(content: &[u8]) -> Option<Packet> {
    let ([a, b, _, _, length @ ..], bytes) = content.split_first_chunk::<8>()?;
    let kept = bytes.get(..MAX_PACKET).unwrap_or(bytes);
    Packet::new(
        u16::from_le_bytes([*a, *b]),
        u32::from_le_bytes(*length),
        kept,
    )
}

fn counted<K: Plain, V: Plain>(plan: &Plan, content: &[u8]) -> Result<(K, V), Broken> {
    let (pair, _) = plan
        .read(content)
        .ok_or_else(|| damaged("a count is too short, or has a number too great"))?;
    Ok(pair)
}

fn check<const N: usize>(counts: [u64; N]) -> Result<(), Broken> {
    match counts.iter().all(|count| *count <= MAX_COUNT) {
        true => Ok(()),
        false => Err(damaged("a count is higher than any can be")),
    }
}

/// Type and content of the next item; none at the end of the block.
fn next<'a>(block: &mut &'a [u8]) -> Result<Option<(u16, &'a [u8])>, Broken> {
    if block.is_empty() {
        return Ok(None);
    }
    let short = || damaged("an item is longer than its block");
    let (header, rest) = block.split_first_chunk::<ITEM_HEADER>().ok_or_else(short)?;
    let [k0, k1, _, _, l0, l1, l2, l3] = *header;
    let length = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
    let (content, rest) = rest.split_at_checked(length).ok_or_else(short)?;
    *block = rest;
    Ok(Some((u16::from_le_bytes([k0, k1]), content)))
}

/// An object, with all texts in it made safe to show: whoever wrote the file
/// need not have been a tracer.
fn json<T: DeserializeOwned>(content: &[u8], most: usize, text: usize) -> Result<T, Broken> {
    if content.len() > most {
        return Err(damaged("an item is longer than any of its type"));
    }
    let parsed = serde_json::from_slice(content).and_then(|mut value: Value| {
        tidy(&mut value, text);
        serde_json::from_value(value)
    });
    parsed.map_err(|error| damaged(printable(error.to_string().as_bytes())))
}

fn tidy(value: &mut Value, most: usize) {
    match value {
        Value::String(text) => {
            let shown = printable(
                text.get(..text.floor_char_boundary(most))
                    .unwrap_or_default()
                    .as_bytes(),
            );
            *text = shown;
        }
        Value::Array(values) => values.iter_mut().for_each(|value| tidy(value, most)),
        Value::Object(entries) => entries.values_mut().for_each(|value| tidy(value, most)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}
