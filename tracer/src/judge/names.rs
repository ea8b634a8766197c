//! Names of numbers that are the same on every kernel: part of its interface
//! with user space.

/// `RTN_*` (include/uapi/linux/rtnetlink.h).
pub fn route_type(number: u8) -> Option<&'static str> {
    Some(match number {
        1 => "RTN_UNICAST",
        2 => "RTN_LOCAL",
        3 => "RTN_BROADCAST",
        4 => "RTN_ANYCAST",
        5 => "RTN_MULTICAST",
        6 => "RTN_BLACKHOLE",
        7 => "RTN_UNREACHABLE",
        8 => "RTN_PROHIBIT",
        9 => "RTN_THROW",
        10 => "RTN_NAT",
        11 => "RTN_XRESOLVE",
        _ => return None,
    })
}

/// `E*` (include/uapi/asm-generic/errno.h).
pub fn errno(number: u16) -> String {
    match number {
        1 => "EPERM",
        2 => "ENOENT",
        3 => "ESRCH",
        11 => "EAGAIN",
        12 => "ENOMEM",
        13 => "EACCES",
        16 => "EBUSY",
        19 => "ENODEV",
        22 => "EINVAL",
        40 => "ELOOP",
        66 => "EREMOTE",
        90 => "EMSGSIZE",
        92 => "ENOPROTOOPT",
        95 => "EOPNOTSUPP",
        97 => "EAFNOSUPPORT",
        99 => "EADDRNOTAVAIL",
        100 => "ENETDOWN",
        101 => "ENETUNREACH",
        105 => "ENOBUFS",
        113 => "EHOSTUNREACH",
        126 => "ENOKEY",
        other => return format!("errno {other}"),
    }
    .to_owned()
}

/// IP protocol numbers (IANA).
pub fn protocol(number: u8) -> Option<&'static str> {
    Some(match number {
        1 => "ICMP",
        2 => "IGMP",
        4 => "IPIP",
        6 => "TCP",
        17 => "UDP",
        33 => "DCCP",
        41 => "IPv6",
        47 => "GRE",
        50 => "ESP",
        51 => "AH",
        58 => "ICMPv6",
        115 => "L2TP",
        132 => "SCTP",
        136 => "UDP-Lite",
        137 => "MPLS",
        _ => return None,
    })
}

/// ICMP types worth a name (IANA).
pub fn icmp(version: u8, kind: u8) -> Option<&'static str> {
    Some(match (version, kind) {
        (4, 0) | (6, 129) => "echo reply",
        (4, 3) | (6, 1) => "destination unreachable",
        (4, 5) | (6, 137) => "redirect",
        (4, 8) | (6, 128) => "echo request",
        (4, 11) | (6, 3) => "time exceeded",
        (4, 12) | (6, 4) => "parameter problem",
        (6, 2) => "packet too big",
        (6, 130) => "MLD query",
        (6, 131) | (6, 143) => "MLD report",
        (6, 132) => "MLD done",
        (6, 133) => "router solicitation",
        (6, 134) => "router advertisement",
        (6, 135) => "neighbour solicitation",
        (6, 136) => "neighbour advertisement",
        _ => return None,
    })
}
