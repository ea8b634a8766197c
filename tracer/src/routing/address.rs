//! The addresses of a network namespace.

use std::net::IpAddr;

use super::prefix::address;
use crate::devices::attr::{attributes, host_u32};

/// `struct ifaddrmsg`.
pub const HEADER: usize = 8;

const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_FLAGS: u16 = 8;
const IFA_F_DADFAILED: u32 = 0x08;
const IFA_F_TENTATIVE: u32 = 0x40;

/// An address of this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    pub address: IpAddr,
    pub ifindex: u32,
    /// Duplicate address detection is not over.
    pub tentative: bool,
    /// Another host has it.
    pub duplicate: bool,
}

impl Address {
    /// Reads the payload of a `RTM_NEWADDR` message.
    pub fn parse(message: &[u8]) -> Option<Self> {
        let (header, rest) = message.split_at_checked(HEADER)?;
        let mut flags = u32::from(*header.get(2)?);
        let ifindex = host_u32(header.get(4..)?)?;
        let (mut local, mut other) = (None, None);
        for (kind, value) in attributes(rest) {
            match kind {
                IFA_LOCAL => local = address(value),
                // Of a link between two, the other end's.
                IFA_ADDRESS => other = address(value),
                IFA_FLAGS => flags = host_u32(value).unwrap_or(flags),
                _ => {}
            }
        }
        Some(Self {
            address: local.or(other)?,
            ifindex,
            tentative: flags & IFA_F_TENTATIVE != 0,
            duplicate: flags & IFA_F_DADFAILED != 0,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::devices::attr::tests::nla;
    use proptest::prelude::*;

    fn message(flags: u8, attributes: &[Vec<u8>]) -> Vec<u8> {
        let header = [[2, 24, flags, 0], 5_u32.to_ne_bytes()];
        [header.concat(), attributes.concat()].concat()
    }

    #[test]
    fn reads_addresses() {
        let found = Address::parse(&message(
            0x80,
            &[
                nla(IFA_ADDRESS, &[10, 0, 0, 9]),
                nla(IFA_LOCAL, &[10, 0, 0, 1]),
            ],
        ));
        let expected = Address {
            address: "10.0.0.1".parse().unwrap(),
            ifindex: 5,
            tentative: false,
            duplicate: false,
        };
        assert_eq!(found, Some(expected));
        // IPv6 has one of them only, and more flags than fit the header.
        let v6 = "fd00::1".parse::<std::net::Ipv6Addr>().unwrap().octets();
        let found = Address::parse(&message(
            0,
            &[
                nla(IFA_ADDRESS, &v6),
                nla(IFA_FLAGS, &0x248_u32.to_ne_bytes()),
            ],
        ));
        let found = found.unwrap();
        assert_eq!(found.address, IpAddr::from(v6));
        assert!(found.tentative && found.duplicate);
        assert_eq!(Address::parse(&message(0, &[])), None);
    }

    proptest! {
        #[test]
        fn any_message_is_survived(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = Address::parse(&bytes);
        }
    }
}
