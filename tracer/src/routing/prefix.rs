//! Address prefixes.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

/// All addresses that begin with the same bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefix {
    pub address: IpAddr,
    pub length: u8,
}

impl Prefix {
    /// The prefix that covers all addresses of the family.
    pub fn all(ipv6: bool) -> Self {
        let address = if ipv6 {
            Ipv6Addr::UNSPECIFIED.into()
        } else {
            Ipv4Addr::UNSPECIFIED.into()
        };
        Self { address, length: 0 }
    }

    /// Is it an address of this prefix?
    pub fn covers(&self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                let shift = 32_u32.saturating_sub(self.length.into());
                let differ = u32::from(own) ^ u32::from(other);
                differ.checked_shr(shift).unwrap_or(0) == 0
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                let shift = 128_u32.saturating_sub(self.length.into());
                let differ = u128::from(own) ^ u128::from(other);
                differ.checked_shr(shift).unwrap_or(0) == 0
            }
            _ => false,
        }
    }

    /// Does it cover one address only?
    fn is_host(&self) -> bool {
        self.length >= if self.address.is_ipv6() { 128 } else { 32 }
    }
}

/// As a rule writes it: one address is only an address.
impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_host() {
            return self.address.fmt(f);
        }
        write!(f, "{}/{}", self.address, self.length)
    }
}

/// An address of 4 or 16 bytes.
pub fn address(value: &[u8]) -> Option<IpAddr> {
    match value.len() {
        4 => Some(<[u8; 4]>::try_from(value).ok()?.into()),
        16 => Some(<[u8; 16]>::try_from(value).ok()?.into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn prefix(text: &str) -> Prefix {
        let (address, length) = text.split_once('/').unwrap();
        Prefix {
            address: address.parse().unwrap(),
            length: length.parse().unwrap(),
        }
    }

    #[test]
    fn covers_what_begins_alike() {
        let covers = |text: &str, address: &str| prefix(text).covers(address.parse().unwrap());
        assert!(covers("10.0.0.0/24", "10.0.0.255"));
        assert!(!covers("10.0.0.0/24", "10.0.1.0"));
        assert!(covers("10.0.0.2/32", "10.0.0.2"));
        assert!(!covers("10.0.0.2/32", "10.0.0.3"));
        assert!(covers("0.0.0.0/0", "255.1.2.3"));
        assert!(covers("fd00::/64", "fd00::ffff"));
        assert!(!covers("fd00::/64", "fd00:0:0:1::"));
        assert!(covers("::/0", "ff02::1"));
        assert!(!covers("0.0.0.0/0", "::"));
    }

    #[test]
    fn is_written_as_in_a_rule() {
        assert_eq!(prefix("10.0.0.2/32").to_string(), "10.0.0.2");
        assert_eq!(prefix("10.0.0.0/8").to_string(), "10.0.0.0/8");
        assert_eq!(prefix("fd00::2/128").to_string(), "fd00::2");
        assert_eq!(Prefix::all(true).to_string(), "::/0");
    }

    proptest! {
        #[test]
        fn any_length_is_survived(a: [u8; 16], b: [u8; 16], length: u8) {
            let prefix = Prefix { address: a.into(), length };
            prop_assert!(prefix.covers(a.into()));
            let same = a == b;
            prop_assert!(!same || prefix.covers(b.into()));
        }
    }
}
