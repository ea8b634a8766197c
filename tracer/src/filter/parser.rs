//! Words to the tree, by recursive descent. Each error says what would fit.

use std::{net::IpAddr, ops::Range};

use tracer_common::filter::{MAX_OPS, family, header};

use super::{
    EITHER, Ends, Expr, Header, IP, Layer, Name, Test, What,
    error::Error,
    lexer::{Kind, Token, tokens},
    longest, mask,
    world::World,
};
use crate::{
    devices::{did_you_mean, printable},
    judge::names,
    probes::kinds::KINDS,
};

/// Deepest nesting of parentheses.
const MAX_DEPTH: u32 = 32;

/// What begins a test, in the order of the man page.
const BEGINNINGS: [&str; 27] = [
    "host",
    "net",
    "port",
    "portrange",
    "proto",
    "src",
    "dst",
    "ip",
    "ip6",
    "arp",
    "icmp",
    "icmp6",
    "tcp",
    "udp",
    "gre",
    "esp",
    "sctp",
    "inner",
    "outer",
    "dev",
    "kind",
    "netns",
    "mark",
    "uid",
    "pid",
    "comm",
    "not",
];

/// A value's kind, by the word before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wants {
    Host,
    Net,
    /// `src 10.0.0.1`, `dst 10.0.0.0/8`
    HostOrNet,
    Port,
    PortRange,
    Proto,
    Dev,
    Kind,
    Netns,
    Mark,
    Uid,
    Pid,
    Comm,
}

/// Everything that stands before a value, and counts for the next one too if
/// that has nothing before it: `port 53 or 5353`.
#[derive(Clone, Copy, Debug)]
struct Before {
    headers: u32,
    layer: Layer,
    ends: Ends,
    wants: Wants,
}

struct Parser<'a> {
    text: &'a str,
    tokens: Vec<Token>,
    at: usize,
    world: &'a dyn World,
    /// What `inner` or `outer` around leaves of the headers.
    headers: u32,
    before: Option<Before>,
    depth: u32,
    ops: usize,
}

pub fn parse(text: &str, world: &dyn World) -> Result<Expr, Error> {
    let mut parser = Parser {
        text,
        tokens: tokens(text)?,
        at: 0,
        world,
        headers: EITHER,
        before: None,
        depth: 0,
        ops: 0,
    };
    let expr = parser.expr()?;
    match parser.peek() {
        Kind::End => Ok(expr),
        Kind::Close => Err(parser.error("a ) without its (: and, or or the end fits here")),
        _ => Err(parser.error("and, or or the end fits here")),
    }
}

impl Parser<'_> {
    fn token(&self, ahead: usize) -> &Token {
        let at = (self.at + ahead).min(self.tokens.len() - 1);
        &self.tokens[at]
    }

    fn peek(&self) -> &Kind {
        &self.token(0).kind
    }

    fn peek_word(&self) -> Option<&str> {
        match self.peek() {
            Kind::Word(word) => Some(word),
            _ => None,
        }
    }

    fn spot(&self) -> Range<usize> {
        self.token(0).spot.clone()
    }

    /// An error at the next token.
    fn error(&self, message: impl Into<String>) -> Error {
        self.error_at(message, self.spot())
    }

    fn error_at(&self, message: impl Into<String>, spot: Range<usize>) -> Error {
        Error::new(message, self.text, spot)
    }

    /// Takes the word if it is next.
    fn take(&mut self, word: &str) -> bool {
        let is = self.peek_word() == Some(word);
        self.at += usize::from(is);
        is
    }

    /// Takes the next of these words.
    fn take_any<T: Copy>(&mut self, words: &[(&str, T)]) -> Option<T> {
        let next = self.peek_word()?;
        let (_, what) = words.iter().find(|(word, _)| *word == next)?;
        self.at += 1;
        Some(*what)
    }

    /// Counts a test or an operator of the program.
    fn count(&mut self, spot: Range<usize>) -> Result<(), Error> {
        self.ops += 1;
        if self.ops > MAX_OPS {
            return Err(self.error_at(
                format!("too long: {MAX_OPS} tests, and, or and not fit, and this is one more"),
                spot,
            ));
        }
        Ok(())
    }

    /// `and` and `or` bind alike and to the left.
    fn expr(&mut self) -> Result<Expr, Error> {
        let mut left = self.unary()?;
        loop {
            let combine = match self.peek() {
                Kind::And => Expr::And,
                Kind::Or => Expr::Or,
                _ => return Ok(left),
            };
            self.count(self.spot())?;
            self.at += 1;
            left = combine(Box::new(left), Box::new(self.unary()?));
        }
    }

    fn unary(&mut self) -> Result<Expr, Error> {
        let spot = self.spot();
        match self.peek() {
            Kind::Not => {
                self.count(spot)?;
                self.at += 1;
                Ok(Expr::Not(Box::new(self.unary()?)))
            }
            Kind::Open => {
                if self.depth == MAX_DEPTH {
                    return Err(self.error(format!("nested too deep: {MAX_DEPTH} levels fit")));
                }
                self.at += 1;
                self.depth += 1;
                let expr = self.expr()?;
                match self.peek() {
                    Kind::Close => self.at += 1,
                    Kind::End => return Err(self.error_at("no ) for this (", spot)),
                    _ => return Err(self.error("and, or or ) fits here")),
                }
                self.depth -= 1;
                Ok(expr)
            }
            Kind::Word(word) => {
                let headers = match word.as_str() {
                    "inner" => header::INNER,
                    "outer" => header::OUTER,
                    _ => return self.test(),
                };
                if self.headers != EITHER {
                    return Err(self.error("a second inner or outer: one of them fits"));
                }
                self.at += 1;
                self.headers = headers;
                let expr = self.unary()?;
                self.headers = EITHER;
                Ok(expr)
            }
            Kind::Quoted(_) => self.test(),
            Kind::And | Kind::Or | Kind::Close | Kind::End => {
                Err(self.error(format!("a test fits here: {} or (", BEGINNINGS.join(", "))))
            }
        }
    }

    fn test(&mut self) -> Result<Expr, Error> {
        let spot = self.spot();
        let before = self.before_value()?;
        let test = match before {
            Ok(before) => {
                let test = self.value(before)?;
                self.before = Some(before);
                test
            }
            Err(layer) => Test::Header(Header {
                headers: self.headers,
                layer,
                what: What::Protocol,
            }),
        };
        if self.headers != EITHER && !matches!(test, Test::Header(_)) {
            return Err(self.error_at(
                "inner and outer are about headers: host, net, port, portrange, proto or a protocol fits here",
                spot,
            ));
        }
        self.count(spot)?;
        Ok(Expr::Test(test))
    }

    /// Takes all that stands before a value; a protocol word can stand alone.
    fn before_value(&mut self) -> Result<Result<Before, Layer>, Error> {
        let mut before = Before {
            headers: self.headers,
            layer: Layer::ANY,
            ends: Ends::Either,
            wants: Wants::HostOrNet,
        };
        if let Some(wants) = self.take_any(&[
            ("dev", Wants::Dev),
            ("kind", Wants::Kind),
            ("netns", Wants::Netns),
            ("mark", Wants::Mark),
            ("uid", Wants::Uid),
            ("pid", Wants::Pid),
            ("comm", Wants::Comm),
            ("proto", Wants::Proto),
        ]) {
            before.wants = wants;
            return Ok(Ok(before));
        }
        let layer = self.take_any(&Layer::WORDS);
        if let Some(layer) = layer {
            before.layer = layer;
            if layer.families & !IP == 0 && layer.proto.is_none() && self.take("proto") {
                before.wants = Wants::Proto;
                return Ok(Ok(before));
            }
        }
        let ends = self.ends()?;
        before.ends = ends.unwrap_or(Ends::Either);
        let spot = self.spot();
        let wants = self.take_any(&[
            ("host", Wants::Host),
            ("net", Wants::Net),
            ("port", Wants::Port),
            ("portrange", Wants::PortRange),
        ]);
        match (wants, layer) {
            (Some(Wants::Port | Wants::PortRange), Some(layer))
                if !matches!(layer.proto, None | Some(6 | 17 | 132))
                    || layer.families == family::ARP =>
            {
                let name = layer.word().unwrap_or_default();
                let fits = "host or net fits here, or tcp, udp or sctp before it";
                Err(self.error_at(format!("{name} has no ports: {fits}"), spot))
            }
            (Some(wants), _) => Ok(Ok(Before { wants, ..before })),
            (None, _) if ends.is_some() => match self.address_follows() {
                true => Ok(Ok(before)),
                false => Err(self.error("host, net, port, portrange or an address fits here")),
            },
            (None, Some(layer)) => Ok(Err(layer)),
            (None, None) => self.elided(before).map(Ok),
        }
    }

    /// `src`, `dst`, `src or dst`.
    fn ends(&mut self) -> Result<Option<Ends>, Error> {
        let words = [("src", Ends::Src), ("dst", Ends::Dst)];
        let Some(one) = self.take_any(&words) else {
            return Ok(None);
        };
        let both = matches!(self.peek(), Kind::Or | Kind::And);
        if !both {
            return Ok(Some(one));
        }
        if *self.peek() == Kind::And {
            return Err(self.error("host, net, port, portrange, an address or 'or' fits here"));
        }
        self.at += 1;
        match self.take_any(&words) {
            Some(other) if other != one => Ok(Some(Ends::Either)),
            _ => Err(self.error(if one == Ends::Src {
                "dst fits here"
            } else {
                "src fits here"
            })),
        }
    }

    fn address_follows(&self) -> bool {
        self.peek_word().is_some_and(|word| {
            let address = word.split_once('/').map_or(word, |(address, _)| address);
            address.parse::<IpAddr>().is_ok()
        })
    }

    /// A value with nothing before it: an address, or another value of what
    /// stood before the last one.
    fn elided(&self, own: Before) -> Result<Before, Error> {
        let scope = |before: Before| Before {
            headers: if self.headers == EITHER {
                before.headers
            } else {
                self.headers
            },
            ..before
        };
        let addresses =
            |before: &Before| matches!(before.wants, Wants::Host | Wants::Net | Wants::HostOrNet);
        if self.address_follows() {
            return Ok(match self.before.filter(addresses) {
                Some(before) => scope(before),
                None => own,
            });
        }
        // Two words in a row: the first is no value but a word mistyped.
        let alone = !matches!(self.token(1).kind, Kind::Word(_) | Kind::Quoted(_));
        match self.before {
            Some(before) if alone => Ok(scope(before)),
            _ => Err(self.unknown()),
        }
    }

    /// The next word begins no test.
    fn unknown(&self) -> Error {
        let word = self.shown();
        let known = BEGINNINGS.iter().chain(&["and", "or"]);
        let known = known.map(|word| word.as_bytes());
        let hint = match self.peek() {
            Kind::Word(word) => did_you_mean(word.as_bytes(), known),
            _ => String::new(),
        };
        if !hint.is_empty() {
            return self.error(format!("unknown word '{word}'{hint}"));
        }
        self.error(format!(
            "unknown word '{word}': a test fits here: {}",
            BEGINNINGS.join(", ")
        ))
    }

    /// The next token as text for a message.
    fn shown(&self) -> String {
        match self.peek() {
            Kind::Quoted(bytes) => printable(bytes),
            _ => printable(self.text[self.spot()].as_bytes()),
        }
    }

    /// The value, and the test that it makes.
    fn value(&mut self, before: Before) -> Result<Test, Error> {
        let fits = match before.wants {
            Wants::Host => "an IPv4 or IPv6 address",
            Wants::Net => "a prefix such as 10.0.0.0/8 or fd00::/8",
            Wants::HostOrNet => "an address or a prefix",
            Wants::Port => "a port number, 0 to 65535,",
            Wants::PortRange => "a range of ports such as 1000-2000",
            Wants::Proto => "a protocol number, 0 to 255, or a name such as tcp or gre",
            Wants::Dev => "the name of a device (ip link)",
            Wants::Kind => "a kind of tunnel (ip -d link)",
            Wants::Netns => "a name (ip netns list) or an inode (lsns -t net)",
            Wants::Mark => "a mark such as 7, 0x10 or 0x10/0xf0",
            Wants::Uid => "a user's number or name",
            Wants::Pid => "the number of a process",
            Wants::Comm => "the name of a process (ps -o comm)",
        };
        let spot = self.spot();
        let value = match self.peek() {
            Kind::Word(word) => word.clone().into_bytes(),
            Kind::Quoted(bytes) => bytes.clone(),
            _ => return Err(self.error(format!("{fits} fits here"))),
        };
        let text = str::from_utf8(&value).unwrap_or_default();
        let wrong = |why: String| self.error_at(why, spot.clone());
        let misfit = || wrong(format!("'{}' does not fit: {fits} fits here", self.shown()));
        let header = |layer, what| {
            Test::Header(Header {
                headers: before.headers,
                layer,
                what,
            })
        };
        let test = match before.wants {
            Wants::Host | Wants::Net | Wants::HostOrNet => {
                let (address, length) =
                    address(text, before.wants).map_err(|why| why.map_or_else(misfit, wrong))?;
                let has = match address {
                    IpAddr::V4(_) => family::IPV4 | family::ARP,
                    IpAddr::V6(_) => family::IPV6,
                };
                if before.layer.families & has == 0 {
                    let name = before.layer.word().unwrap_or_default();
                    let other = if address.is_ipv4() { "IPv6" } else { "IPv4" };
                    return Err(wrong(format!(
                        "{name} does not go with '{text}': an {other} address fits here"
                    )));
                }
                let what = What::Net {
                    ends: before.ends,
                    address,
                    length,
                };
                header(before.layer, what)
            }
            Wants::Port => {
                if let Some((low, high)) = range(text) {
                    return Err(wrong(format!(
                        "a range is no port: portrange {low}-{high} fits"
                    )));
                }
                let port = decimal(text).ok_or_else(misfit)?;
                let what = What::Ports {
                    ends: before.ends,
                    low: port,
                    high: port,
                };
                header(before.layer, what)
            }
            Wants::PortRange => {
                let (low, high) = range(text).ok_or_else(misfit)?;
                if low > high {
                    return Err(wrong(format!("the range is empty: {high}-{low} fits here")));
                }
                let what = What::Ports {
                    ends: before.ends,
                    low,
                    high,
                };
                header(before.layer, what)
            }
            Wants::Proto => {
                let proto = decimal(text)
                    .or_else(|| protocol(text))
                    .ok_or_else(misfit)?;
                let families = before.layer.families & IP;
                header(Layer::new(families, Some(proto)), What::Protocol)
            }
            Wants::Dev => {
                Test::Dev(Name::new(&value).ok_or_else(|| too_long(misfit, wrong, &value))?)
            }
            Wants::Kind => {
                // Devices of l2tp have no kind.
                let known = || {
                    KINDS
                        .iter()
                        .map(|kind| kind.name)
                        .filter(|name| *name != "l2tp")
                };
                let kind = Name::new(&value).filter(|_| known().any(|name| name == text));
                Test::Kind(kind.ok_or_else(|| {
                    let hint = did_you_mean(&value, known().map(str::as_bytes));
                    let known: Vec<&str> = known().collect();
                    wrong(format!(
                        "no kind '{}'{}: {} fits here",
                        self.shown(),
                        hint.trim_end_matches('?'),
                        known.join(", ")
                    ))
                })?)
            }
            Wants::Netns => Test::Netns(match number(text) {
                Some(0) => return Err(misfit()),
                Some(inode) => inode,
                None => self.world.netns(text).map_err(wrong)?,
            }),
            Wants::Mark => {
                let (value, mask) = match text.split_once('/') {
                    Some((value, mask)) => (number(value), number(mask)),
                    None => (number(text), Some(u32::MAX)),
                };
                let (value, mask) = value.zip(mask).ok_or_else(misfit)?;
                if value & !mask != 0 {
                    return Err(wrong(format!(
                        "'{text}' never matches: the mark has bits that the mask takes away, {:#x}/{mask:#x} fits",
                        value & mask
                    )));
                }
                Test::Mark { value, mask }
            }
            Wants::Uid => Test::Uid(match decimal(text) {
                Some(uid) => uid,
                None if text.is_empty() => return Err(misfit()),
                None => {
                    let user = self.world.user(text);
                    user.map_err(|why| wrong(format!("{why}: {fits} fits here")))?
                }
            }),
            Wants::Pid => match decimal(text) {
                None | Some(0) => return Err(misfit()),
                Some(pid) => Test::Pid(pid),
            },
            Wants::Comm => {
                Test::Comm(Name::new(&value).ok_or_else(|| too_long(misfit, wrong, &value))?)
            }
        };
        self.at += 1;
        Ok(test)
    }
}

/// What is wrong with a name that the kernel cannot have.
fn too_long(misfit: impl Fn() -> Error, wrong: impl Fn(String) -> Error, name: &[u8]) -> Error {
    match name.get(..15) {
        Some(kept) if name.len() > 15 && !name.contains(&0) => wrong(format!(
            "too long: the kernel keeps 15 bytes of a name, \"{}\" fits here",
            printable(kept)
        )),
        _ => misfit(),
    }
}

/// An address and the length of its prefix, or what is wrong beside its form.
fn address(text: &str, wants: Wants) -> Result<(IpAddr, u8), Option<String>> {
    if let Some((plain, _)) = text.split_once('%')
        && plain.parse::<IpAddr>().is_ok()
    {
        return Err(Some(format!(
            "packets carry no zone: '{plain}' fits here, and dev for the device"
        )));
    }
    let Some((address, length)) = text.split_once('/') else {
        let address: IpAddr = text.parse().map_err(|_| None)?;
        if wants == Wants::Net {
            return Err(Some(format!(
                "a prefix without its length: '{address}/{}' or shorter fits here, or host before it",
                longest(address)
            )));
        }
        return Ok((address, longest(address)));
    };
    let address: IpAddr = address.parse().map_err(|_| None)?;
    if wants == Wants::Host {
        return Err(Some(format!(
            "a host has no prefix length: '{address}' fits here, or net before it"
        )));
    }
    let longest = longest(address);
    let length: u8 = decimal(length)
        .filter(|length| *length <= longest)
        .ok_or_else(|| Some(format!("the length of this prefix is 0 to {longest}")))?;
    let masked = masked(address, length);
    if masked != address {
        return Err(Some(format!(
            "bits beyond the prefix length are set: '{masked}/{length}' fits here, or host before the address"
        )));
    }
    Ok((address, length))
}

/// The address without the bits beyond the length of the prefix.
pub fn masked(address: IpAddr, length: u8) -> IpAddr {
    let mask = mask(length);
    let mut octets = [0; 16];
    match address {
        IpAddr::V4(v4) => octets[..4].copy_from_slice(&v4.octets()),
        IpAddr::V6(v6) => octets = v6.octets(),
    }
    for (octet, mask) in octets.iter_mut().zip(mask) {
        *octet &= mask;
    }
    match address {
        IpAddr::V4(_) => [octets[0], octets[1], octets[2], octets[3]].into(),
        IpAddr::V6(_) => octets.into(),
    }
}

fn protocol(name: &str) -> Option<u8> {
    let name = match name {
        "icmp6" | "ipv6-icmp" => "ICMPv6",
        name => name,
    };
    (0..=u8::MAX).find(|number| {
        names::protocol(*number).is_some_and(|known| known.eq_ignore_ascii_case(name))
    })
}

fn range(text: &str) -> Option<(u16, u16)> {
    let (low, high) = text.split_once('-')?;
    Some((decimal(low)?, decimal(high)?))
}

/// Digits only: no sign.
fn decimal<T: std::str::FromStr>(text: &str) -> Option<T> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok())?
}

/// The same, or hexadecimal with `0x`.
fn number(text: &str) -> Option<u32> {
    match text.strip_prefix("0x") {
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_hexdigit()) => {
            u32::from_str_radix(digits, 16).ok()
        }
        Some(_) => None,
        None => decimal(text),
    }
}
