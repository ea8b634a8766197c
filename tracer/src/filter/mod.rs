//! `--filter`: an expression in the words of pcap filters, and the program that
//! both sides run on what is known of a packet.
//!
//! The parser gives a tree, the tree prints as an expression that parses to the
//! same tree, and compiles to the program of `tracer_common::filter`.

mod compile;
mod error;
mod lexer;
mod parser;
mod partly;
#[cfg(test)]
mod tests;
mod world;

use std::{fmt, net::IpAddr};

use tracer_common::filter::{Filter, family, header};

pub use error::Error;
pub use partly::Partly;
pub use world::{Host, Recorded, World};

/// The program of an expression, on the host that names in it are of.
pub fn program(text: &str, world: &dyn World) -> Result<Filter, Error> {
    Ok(compile::compile(&parse(text, world)?))
}

/// The program that takes what is of a device with this name: in it, or freed
/// while it was on it.
pub fn of_dev(name: &[u8]) -> Option<Filter> {
    Some(compile::compile(&Expr::Test(Test::Dev(Name::new(name)?))))
}

/// The program that takes what is of the namespace with this inode.
pub fn of_netns(inode: u32) -> Filter {
    compile::compile(&Expr::Test(Test::Netns(inode)))
}

fn parse(text: &str, world: &dyn World) -> Result<Expr, Error> {
    parser::parse(text, world)
}

/// An expression. `and` and `or` bind alike and to the left, as in pcap.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Expr {
    And(Box<Expr>, Box<Expr>),
    Or(Box<Expr>, Box<Expr>),
    Not(Box<Expr>),
    Test(Test),
}

/// One test. Names are known by now: users and namespaces are numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Test {
    Header(Header),
    Dev(Name),
    Kind(Name),
    Netns(u32),
    Mark { value: u32, mask: u32 },
    Uid(u32),
    Pid(u32),
    Comm(Name),
}

/// What one header has to be, all of it together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Header {
    /// Bits of `header`.
    headers: u32,
    layer: Layer,
    what: What,
}

/// A protocol word before or instead of an address or port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Layer {
    /// Bits of `family`.
    families: u32,
    proto: Option<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    /// The protocol is all.
    Protocol,
    Net {
        ends: Ends,
        address: IpAddr,
        length: u8,
    },
    Ports {
        ends: Ends,
        low: u16,
        high: u16,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ends {
    Either,
    Src,
    Dst,
}

/// A name as the kernel keeps it: any bytes, zeros behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Name([u8; 16]);

const IP: u32 = family::IPV4 | family::IPV6;
const EITHER: u32 = header::INNER | header::OUTER;

impl Layer {
    /// No protocol word.
    const ANY: Self = Self {
        families: IP | family::ARP,
        proto: None,
    };

    const fn new(families: u32, proto: Option<u8>) -> Self {
        Self { families, proto }
    }

    /// The words that stand for a protocol.
    const WORDS: [(&'static str, Self); 10] = [
        ("ip", Self::new(family::IPV4, None)),
        ("ip6", Self::new(family::IPV6, None)),
        ("arp", Self::new(family::ARP, None)),
        ("icmp", Self::new(family::IPV4, Some(1))),
        ("icmp6", Self::new(family::IPV6, Some(58))),
        ("tcp", Self::new(IP, Some(6))),
        ("udp", Self::new(IP, Some(17))),
        ("gre", Self::new(IP, Some(47))),
        ("esp", Self::new(IP, Some(50))),
        ("sctp", Self::new(IP, Some(132))),
    ];

    fn word(self) -> Option<&'static str> {
        let found = Self::WORDS.iter().find(|(_, layer)| *layer == self);
        found.map(|(name, _)| *name)
    }
}

impl Name {
    /// `None` if it is empty or longer than the kernel keeps.
    fn new(bytes: &[u8]) -> Option<Self> {
        let mut name = [0; 16];
        // The last byte stays zero.
        let room = name[..15].get_mut(..bytes.len())?;
        room.copy_from_slice(bytes);
        (!bytes.is_empty() && !bytes.contains(&0)).then_some(Self(name))
    }
}

impl fmt::Display for Expr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (left, word, right) = match self {
            Self::And(left, right) => (left, "and", right),
            Self::Or(left, right) => (left, "or", right),
            Self::Not(inner) => {
                return match **inner {
                    Self::And(..) | Self::Or(..) => write!(f, "not ({inner})"),
                    _ => write!(f, "not {inner}"),
                };
            }
            Self::Test(test) => return test.fmt(f),
        };
        match **right {
            Self::And(..) | Self::Or(..) => write!(f, "{left} {word} ({right})"),
            _ => write!(f, "{left} {word} {right}"),
        }
    }
}

impl fmt::Display for Test {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header(header) => header.fmt(f),
            Self::Dev(name) => write!(f, "dev {name}"),
            Self::Kind(name) => write!(f, "kind {name}"),
            Self::Netns(inode) => write!(f, "netns {inode}"),
            Self::Mark {
                value,
                mask: u32::MAX,
            } => write!(f, "mark {value:#x}"),
            Self::Mark { value, mask } => write!(f, "mark {value:#x}/{mask:#x}"),
            Self::Uid(uid) => write!(f, "uid {uid}"),
            Self::Pid(pid) => write!(f, "pid {pid}"),
            Self::Comm(name) => write!(f, "comm {name}"),
        }
    }
}

impl fmt::Display for Header {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.headers {
            header::INNER => f.write_str("inner ")?,
            header::OUTER => f.write_str("outer ")?,
            _ => {}
        }
        let (ends, words) = match self.what {
            What::Protocol => return self.layer.fmt(f),
            What::Net {
                ends,
                address,
                length,
            } if length == longest(address) => (ends, format!("host {address}")),
            What::Net {
                ends,
                address,
                length,
            } => (ends, format!("net {address}/{length}")),
            What::Ports { ends, low, high } if low == high => (ends, format!("port {low}")),
            What::Ports { ends, low, high } => (ends, format!("portrange {low}-{high}")),
        };
        if let Some(word) = self.layer.word() {
            write!(f, "{word} ")?;
        }
        match ends {
            Ends::Either => {}
            Ends::Src => f.write_str("src ")?,
            Ends::Dst => f.write_str("dst ")?,
        }
        f.write_str(&words)
    }
}

impl fmt::Display for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(word) = self.word() {
            return f.write_str(word);
        }
        match self.families {
            family::IPV4 => f.write_str("ip ")?,
            family::IPV6 => f.write_str("ip6 ")?,
            _ => {}
        }
        write!(f, "proto {}", self.proto.unwrap_or_default())
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("\"")?;
        for byte in self.0.iter().take_while(|byte| **byte != 0) {
            match byte {
                b'"' | b'\\' => write!(f, "\\{}", char::from(*byte))?,
                b' '..=b'~' => write!(f, "{}", char::from(*byte))?,
                _ => write!(f, "\\x{byte:02x}")?,
            }
        }
        f.write_str("\"")
    }
}

/// The length of a prefix that is one address.
fn longest(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// The mask of a prefix, from the first byte of an address on.
fn mask(length: u8) -> [u8; 16] {
    let ones = u128::MAX
        .checked_shr(length.into())
        .map_or(u128::MAX, |rest| !rest);
    ones.to_be_bytes()
}
