//! `tracer report --pcapng OUT FILE`: the packets that vanished, for Wireshark
//! and its kin. Each has its verdict as a comment, and the device that it was on
//! as its interface.

mod packet;

use std::{
    collections::HashMap,
    fs::OpenOptions,
    io::{self, BufWriter, Write},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow};
use pcap_file::{
    DataLink, Endianness, PcapError,
    pcapng::{
        PcapNgWriter,
        blocks::{
            enhanced_packet::{EnhancedPacketBlock, EnhancedPacketOption},
            interface_description::{InterfaceDescriptionBlock, InterfaceDescriptionOption},
            section_header::{SectionHeaderBlock, SectionHeaderOption},
        },
    },
};
use tracer_common::record::Record;

use crate::{
    devices::printable,
    event::{Layer, Sample, Start},
    flows::{Book, Row, until_zero},
    report::shown,
    session::Usage,
    view::{facts, text},
};

/// Most interfaces; packets of devices beyond are left out, and counted.
const MAX_INTERFACES: usize = 4096;
/// Longest comment in bytes.
const MAX_COMMENT: usize = 4096;
/// Timestamps are in nanoseconds.
const NANOSECONDS: u8 = 9;

/// A device, as what a packet came by.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Interface {
    netns: u32,
    ifindex: u32,
    name: String,
    /// An interface has packets of one link type.
    layer: Layer,
}

/// Writes packets.
pub struct Packets<W: Write> {
    out: PcapNgWriter<W>,
    snaplen: u32,
    clock_ns: i64,
    interfaces: HashMap<Interface, u32>,
    /// Packets that were written, and records that are none of IP or had no
    /// room.
    written: u64,
    left_out: u64,
}

/// Makes the file; one that is there stays as it is. Only its owner may read it.
pub fn create(path: &Path) -> Result<impl Write + use<>> {
    let made = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path);
    match made {
        Ok(file) => Ok(BufWriter::new(file)),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(Usage(format!(
            "--pcapng: {} exists: name another file",
            shown(path)
        ))
        .into()),
        Err(error) => Err(error).with_context(|| format!("cannot make {}", shown(path))),
    }
}

impl<W: Write> Packets<W> {
    /// Begins, with what is the same for all packets.
    pub fn begin(out: W, start: &Start, snaplen: u32) -> Result<Self> {
        let text = |bytes: &str| printable(bytes.as_bytes());
        let comment = "Packets whose details were recorded: of a storm, these are fewer than \
             were counted. Their first bytes are as they were when they were freed, unless a \
             packet's comment says that its headers were written anew.";
        let section = SectionHeaderBlock {
            endianness: Endianness::Little,
            major_version: 1,
            minor_version: 0,
            section_length: -1,
            options: vec![
                SectionHeaderOption::Comment(comment.into()),
                SectionHeaderOption::Hardware(cut(&text(&start.arch)).into()),
                SectionHeaderOption::OS(cut(&format!("Linux {}", text(&start.kernel))).into()),
                SectionHeaderOption::UserApplication(
                    concat!("tracer ", env!("CARGO_PKG_VERSION")).into(),
                ),
            ],
        };
        let out = PcapNgWriter::with_section_header(out, section).map_err(because)?;
        Ok(Self {
            out,
            snaplen,
            clock_ns: start.clock_ns,
            interfaces: HashMap::new(),
            written: 0,
            left_out: 0,
        })
    }

    /// Writes the packet of a record, if it vanished and was asked for.
    pub fn packet(&mut self, book: &Book, sample: &Sample) -> Result<()> {
        let record = &sample.record;
        let Some(row) = book.row_of(record) else {
            return Ok(());
        };
        let Some(packet) = packet::of(sample, row.evidence.device.as_deref()) else {
            self.left_out += 1;
            return Ok(());
        };
        let Some(interface_id) = self.interface(book, record, &row, packet.layer)? else {
            self.left_out += 1;
            return Ok(());
        };
        let nanoseconds = i128::from(self.clock_ns) + i128::from(record.time_ns);
        let mut bytes = packet.bytes;
        bytes.truncate(self.snaplen as usize);
        let block = EnhancedPacketBlock {
            interface_id,
            timestamp: Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(0)),
            original_len: packet.length,
            data: bytes.into(),
            options: vec![EnhancedPacketOption::Comment(
                comment(&row, packet.outer, packet.rebuilt).into(),
            )],
        };
        self.out.write_pcapng_block(block).map_err(because)?;
        self.written += 1;
        Ok(())
    }

    /// The number of the interface that the packet was on when it vanished.
    fn interface(
        &mut self,
        book: &Book,
        record: &Record,
        row: &Row,
        layer: Layer,
    ) -> Result<Option<u32>> {
        let key = &record.key;
        let tunnel = (key.netns, key.ifindex);
        let freed = (record.freed_netns, record.freed_ifindex);
        let (id, name) = if freed.1 != 0 {
            (freed, printable(until_zero(&record.freed_dev)))
        } else {
            (tunnel, text::device_name(row))
        };
        let interface = Interface {
            netns: id.0,
            ifindex: id.1,
            name,
            layer,
        };
        if let Some(number) = self.interfaces.get(&interface) {
            return Ok(Some(*number));
        }
        if self.interfaces.len() >= MAX_INTERFACES {
            return Ok(None);
        }
        let mut facts = Vec::new();
        if let Some(device) = book.device_of(id.0, id.1) {
            facts.push(printable(device.kind.as_bytes()));
            facts.extend(
                device
                    .encap
                    .as_ref()
                    .map(|encap| printable(encap.as_bytes())),
            );
            facts.extend(device.remote.map(|remote| format!("remote {remote}")));
        }
        let netns = book
            .netns_label(id.0)
            .map(|label| printable(label.as_bytes()));
        facts.extend(netns.map(|label| format!("netns {label}")));
        facts.retain(|fact| !fact.is_empty());
        let mut options = vec![
            InterfaceDescriptionOption::IfName(cut(&interface.name).into()),
            InterfaceDescriptionOption::IfTsResol(NANOSECONDS),
        ];
        if !facts.is_empty() {
            let text = facts.join(", ");
            options.push(InterfaceDescriptionOption::IfDescription(cut(&text).into()));
        }
        let block = InterfaceDescriptionBlock {
            linktype: match layer {
                Layer::Network => DataLink::RAW,
                Layer::Ethernet => DataLink::ETHERNET,
            },
            snaplen: self.snaplen,
            options,
        };
        self.out.write_pcapng_block(block).map_err(because)?;
        let number = self.interfaces.len() as u32;
        self.interfaces.insert(interface, number);
        Ok(Some(number))
    }

    /// Ends it: how many were written, and how many records had no place.
    pub fn finish(self) -> Result<(u64, u64)> {
        let mut out = self.out.into_inner();
        out.flush().context("cannot write")?;
        Ok((self.written, self.left_out))
    }
}

/// The verdict, and what it is made of.
fn comment(row: &Row, outer: bool, rebuilt: bool) -> String {
    let mut lines = vec![format!(
        "{} [{}, {}]: {}",
        facts::fate(row),
        row.cause.id,
        row.confidence.word(),
        text::verdict(row)
    )];
    let wanted = |name: &str| {
        matches!(
            name,
            "tunnel"
                | "path"
                | "freed in"
                | "drop reason"
                | "route"
                | "counters"
                | "sender told"
                | "sender"
        ) || (name == "inner packet" && outer)
            || (name == "outer packet" && !outer)
    };
    let known = facts::of(row).into_iter();
    lines.extend(
        known
            .filter(|(name, _)| wanted(name))
            .map(|(name, fact)| format!("{name}: {fact}")),
    );
    if rebuilt {
        lines.push(REBUILT.to_owned());
    }
    cut(&lines.join("\n"))
}

const REBUILT: &str = "headers written anew from addresses, protocol, ports, ICMP type and \
    lengths: TTL and hop limit are 64, MAC addresses and all other fields 0, which they need \
    not have been";

/// No longer than there is room for.
fn cut(text: &str) -> String {
    let mut end = text.len().min(MAX_COMMENT);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

fn because(error: PcapError) -> anyhow::Error {
    match error {
        PcapError::IoError(error) => anyhow::Error::from(error).context("cannot write"),
        other => anyhow!("cannot write: {other}"),
    }
}
