//! The tree to the program.

use std::net::IpAddr;

use tracer_common::filter::{
    ANY_PROTO, Filter, MAX_OPS, Op, code, end, family, header, needs, words,
};

use super::{Ends, Expr, Header, Name, Test, What};

/// The program of a tree that the parser made: it has seen to it that there is
/// room.
pub fn compile(expr: &Expr) -> Filter {
    let mut filter = Filter::NONE;
    emit(&mut filter, expr);
    filter
}

fn emit(filter: &mut Filter, expr: &Expr) {
    let op = match expr {
        Expr::And(left, right) => {
            emit(filter, left);
            emit(filter, right);
            operator(code::AND)
        }
        Expr::Or(left, right) => {
            emit(filter, left);
            emit(filter, right);
            operator(code::OR)
        }
        Expr::Not(inner) => {
            emit(filter, inner);
            operator(code::NOT)
        }
        Expr::Test(test) => {
            filter.needs |= needed(test);
            self::test(test)
        }
    };
    let free = filter.ops[..MAX_OPS].get_mut(filter.len as usize);
    *free.expect("the parser counts them") = op;
    filter.len += 1;
}

fn needed(test: &Test) -> u32 {
    match test {
        Test::Header(of) if of.headers & header::OUTER != 0 => needs::OUTER,
        Test::Dev(_) | Test::Kind(_) => needs::NAMES,
        _ => 0,
    }
}

fn operator(code: u32) -> Op {
    Op {
        code,
        ..Op::default()
    }
}

fn test(test: &Test) -> Op {
    let number = |code, low| Op {
        code,
        low,
        ..Op::default()
    };
    let name = |code, name: &Name| Op {
        code,
        value: words(&name.0),
        ..Op::default()
    };
    match test {
        Test::Header(of) => header(of),
        Test::Dev(dev) => name(code::DEV, dev),
        Test::Kind(kind) => name(code::KIND, kind),
        Test::Netns(inode) => number(code::NETNS, *inode),
        Test::Mark { value, mask } => Op {
            high: *mask,
            ..number(code::MARK, *value)
        },
        Test::Uid(uid) => number(code::UID, *uid),
        Test::Pid(pid) => number(code::PID, *pid),
        Test::Comm(comm) => name(code::COMM, comm),
    }
}

fn header(of: &Header) -> Op {
    let op = Op {
        headers: of.headers,
        families: of.layer.families,
        proto: of.layer.proto.map_or(ANY_PROTO, u32::from),
        ..Op::default()
    };
    match of.what {
        What::Protocol => Op {
            code: code::HEADER,
            ..op
        },
        What::Net {
            ends,
            address,
            length,
        } => {
            let (families, value, mask) = prefix(address, length);
            Op {
                code: code::ADDRESS,
                ends: self::ends(ends),
                families: op.families & families,
                value: words(&value),
                mask: words(&mask),
                ..op
            }
        }
        What::Ports { ends, low, high } => Op {
            code: code::PORT,
            ends: self::ends(ends),
            low: low.into(),
            high: high.into(),
            ..op
        },
    }
}

fn ends(ends: Ends) -> u32 {
    match ends {
        Ends::Either => end::SRC | end::DST,
        Ends::Src => end::SRC,
        Ends::Dst => end::DST,
    }
}

/// Families that have the prefix, its bytes and its mask as a flow has them.
fn prefix(address: IpAddr, length: u8) -> (u32, [u8; 16], [u8; 16]) {
    let mut value = [0; 16];
    let families = match address {
        IpAddr::V4(address) => {
            value[..4].copy_from_slice(&address.octets());
            family::IPV4 | family::ARP
        }
        IpAddr::V6(address) => {
            value = address.octets();
            family::IPV6
        }
    };
    (families, value, super::mask(length))
}
