//! The program of `--filter`: tests of what is known of a packet, combined in
//! postfix order, and how it is run. Both sides run the same code.

use core::ptr::read_volatile;

use crate::{
    config::{IFNAMSIZ, KIND_LEN},
    flow::{ETH_P_ARP, ETH_P_IP, ETH_P_IPV6, Flow},
    record::{PATH_LEN, Record, sender},
    tally::{DeviceKey, outcome, seen},
};

/// Most tests and operators of a program.
pub const MAX_OPS: usize = 32;
// One bit of a u64 for each value on the stack.
const _: () = assert!(MAX_OPS <= 64);

/// Values of [`Op::code`].
pub mod code {
    /// A header of these families and this protocol.
    pub const HEADER: u32 = 0;
    /// The same, with an address in `value` under `mask`.
    pub const ADDRESS: u32 = 1;
    /// The same, with a port from `low` to `high`.
    pub const PORT: u32 = 2;
    /// A device with the name in `value`.
    pub const DEV: u32 = 3;
    /// A tunnel device of the kind in `value`.
    pub const KIND: u32 = 4;
    /// A network namespace with the inode `low`.
    pub const NETNS: u32 = 5;
    /// The mark under the mask `high` is `low`.
    pub const MARK: u32 = 6;
    /// The sender's user is `low`.
    pub const UID: u32 = 7;
    /// The sender's process is `low`.
    pub const PID: u32 = 8;
    /// The sender's process has the name in `value`.
    pub const COMM: u32 = 9;
    pub const AND: u32 = 10;
    pub const OR: u32 = 11;
    pub const NOT: u32 = 12;
}

/// Bits of [`Op::headers`].
pub mod header {
    /// What was put into the tunnel.
    pub const INNER: u32 = 1;
    /// What the tunnel put around it; of a packet that no tunnel is part of,
    /// its only header.
    pub const OUTER: u32 = 2;
}

/// Bits of [`Op::ends`].
pub mod end {
    pub const SRC: u32 = 1;
    pub const DST: u32 = 2;
}

/// Bits of [`Op::families`].
pub mod family {
    pub const IPV4: u32 = 1;
    pub const IPV6: u32 = 2;
    pub const ARP: u32 = 4;
}

/// [`Op::proto`] of a test that takes any.
pub const ANY_PROTO: u32 = 256;

/// What the program needs beside a record; bits of [`Filter::needs`].
pub mod needs {
    /// The outer header, also of packets that are well.
    pub const OUTER: u32 = 1;
    /// Names and kinds of the devices of the path.
    pub const NAMES: u32 = 2;
}

/// One test or operator.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Op {
    /// One of [`code`].
    pub code: u32,
    /// Which headers may match, bits of [`header`].
    pub headers: u32,
    /// Which end of them, bits of [`end`].
    pub ends: u32,
    /// Bits of [`family`].
    pub families: u32,
    /// IP protocol, or [`ANY_PROTO`].
    pub proto: u32,
    pub low: u32,
    pub high: u32,
    pub reserved: u32,
    /// An address or a name, as it stands in memory.
    pub value: [u64; 2],
    pub mask: [u64; 2],
}
const _: () = assert!(size_of::<Op>() == 64);

/// A program; without ops, every packet matches.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Filter {
    pub len: u32,
    /// Bits of [`needs`].
    pub needs: u32,
    pub ops: [Op; MAX_OPS],
}
const _: () = assert!(size_of::<Filter>() == 8 + MAX_OPS * size_of::<Op>());
crate::pod!(Filter);

/// Name and kind of a tunnel device.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Named {
    pub name: [u8; IFNAMSIZ],
    pub kind: [u8; KIND_LEN],
}
const _: () = assert!(size_of::<Named>() == 32);
crate::pod!(Named);

impl Filter {
    /// No filter.
    pub const NONE: Self = Self {
        len: 0,
        needs: 0,
        ops: [Op {
            code: 0,
            headers: 0,
            ends: 0,
            families: 0,
            proto: 0,
            low: 0,
            high: 0,
            reserved: 0,
            value: [0; 2],
            mask: [0; 2],
        }; MAX_OPS],
    };
}

impl Default for Filter {
    fn default() -> Self {
        Self::NONE
    }
}

/// Address or name as two words.
#[inline(always)]
pub fn words(bytes: &[u8; 16]) -> [u64; 2] {
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = *bytes;
    [
        u64::from_ne_bytes([a, b, c, d, e, f, g, h]),
        u64::from_ne_bytes([i, j, k, l, m, n, o, p]),
    ]
}

/// One field of an op. Volatile: on the kernel side the compiler sees only the
/// empty program that the loader replaces. Field by field: so they stay
/// constants to the verifier, which then follows one test per op.
macro_rules! field {
    ($op:expr, $($field:tt)+) => {
        // SAFETY: a field of a live reference.
        unsafe { read_volatile(&raw const $op.$($field)+) }
    };
}

/// Does the record of a packet match?
///
/// `named` tells of the devices of the record's path. `room` is room for the
/// values of the tests under way: where the verifier does not look, or it would
/// follow each combination of them.
#[inline(always)]
pub fn matches<'n>(
    filter: &Filter,
    record: &Record,
    named: impl Fn(&DeviceKey) -> Option<&'n Named>,
    room: &mut u64,
) -> bool {
    let room = &raw mut *room;
    // SAFETY: of this access and the others to it: made from a live reference.
    unsafe { room.write_volatile(0) };
    let len = field!(filter, len);
    for n in 0..MAX_OPS {
        if n >= len as usize {
            break;
        }
        let op = &filter.ops[n];
        let code = field!(op, code);
        // SAFETY: as above.
        let stack = unsafe { room.read_volatile() };
        let stack = match code {
            code::AND => (stack >> 1) & (stack | !1),
            code::OR => (stack >> 1) | (stack & 1),
            code::NOT => stack ^ 1,
            _ => (stack << 1) | u64::from(test(op, code, record, &named)),
        };
        // SAFETY: as above.
        unsafe { room.write_volatile(stack) };
    }
    // SAFETY: as above.
    unsafe { room.read_volatile() & 1 != 0 }
}

#[inline(always)]
fn test<'n>(
    op: &Op,
    code: u32,
    record: &Record,
    named: &impl Fn(&DeviceKey) -> Option<&'n Named>,
) -> bool {
    let process = &record.process;
    match code {
        code::HEADER | code::ADDRESS | code::PORT => headers(op, code, record),
        code::DEV => {
            is(op, &record.dev)
                || is(op, &record.freed_dev)
                || on_path(record, |device| {
                    named(device).is_some_and(|device| is(op, &device.name))
                })
        }
        code::KIND => {
            is(op, &record.kind)
                || on_path(record, |device| {
                    named(device).is_some_and(|device| is(op, &device.kind))
                })
        }
        code::NETNS => {
            let netns = field!(op, low);
            record.key.netns == netns
                || record.key.sender_netns == netns
                || record.freed_netns == netns
                || on_path(record, |device| device.netns == netns)
        }
        code::MARK => record.mark & field!(op, high) == field!(op, low),
        code::UID => process.flags & sender::USER_SOCKET != 0 && process.uid == field!(op, low),
        code::PID => {
            process.flags & sender::PROCESS_CONTEXT != 0 && process.tgid == field!(op, low)
        }
        code::COMM => process.flags & sender::PROCESS_CONTEXT != 0 && is(op, &process.comm),
        _ => false,
    }
}

/// Is this the name of the op?
#[inline(always)]
fn is(op: &Op, name: &[u8; 16]) -> bool {
    let [a, b] = words(name);
    a == field!(op, value[0]) && b == field!(op, value[1])
}

/// Is one of the devices that the packet was in at the time so?
#[inline(always)]
fn on_path(record: &Record, so: impl Fn(&DeviceKey) -> bool) -> bool {
    for n in 0..PATH_LEN {
        if n >= record.path_len as usize {
            break;
        }
        if so(&record.path[n]) {
            return true;
        }
    }
    false
}

#[inline(always)]
fn headers(op: &Op, code: u32, record: &Record) -> bool {
    let key = &record.key;
    // The key has the outermost header where no inner one is known.
    let lone = key.outcome == outcome::UNRELATED
        || (key.outcome == outcome::STRAY && key.seen & seen::INNER_DECODED == 0);
    let of_key = if lone { header::OUTER } else { header::INNER };
    let headers = field!(op, headers);
    (headers & of_key != 0 && has(op, code, &key.flow))
        || (headers & header::INNER != 0 && has(op, code, &record.origin))
        || (headers & header::OUTER != 0 && has(op, code, &record.outer))
}

/// Is the header as the op wants it?
#[inline(always)]
fn has(op: &Op, code: u32, flow: &Flow) -> bool {
    let family = match flow.ethertype {
        ETH_P_IP => family::IPV4,
        ETH_P_IPV6 => family::IPV6,
        ETH_P_ARP => family::ARP,
        _ => 0,
    };
    if field!(op, families) & family == 0 {
        return false;
    }
    let proto = field!(op, proto);
    if proto != ANY_PROTO && proto != u32::from(flow.proto) {
        return false;
    }
    let ends = field!(op, ends);
    match code {
        code::ADDRESS => {
            (ends & end::SRC != 0 && has_address(op, &flow.src))
                || (ends & end::DST != 0 && has_address(op, &flow.dst))
        }
        code::PORT => {
            // Those that `flow::transport` of the kernel side reads.
            matches!(flow.proto, 6 | 17 | 33 | 132 | 136)
                && ((ends & end::SRC != 0 && has_port(op, flow.sport))
                    || (ends & end::DST != 0 && has_port(op, flow.dport)))
        }
        _ => true,
    }
}

#[inline(always)]
fn has_address(op: &Op, address: &[u8; 16]) -> bool {
    let [a, b] = words(address);
    a & field!(op, mask[0]) == field!(op, value[0])
        && b & field!(op, mask[1]) == field!(op, value[1])
}

#[inline(always)]
fn has_port(op: &Op, port: u16) -> bool {
    let port = u32::from(port);
    port >= field!(op, low) && port <= field!(op, high)
}
