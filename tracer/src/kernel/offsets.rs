//! Fills [`Offsets`] from the running kernel's BTF.

use tracer_common::offsets::{ABSENT, Offsets};

use super::btf::Btf;

/// A field without which frames or drops cannot be told at all.
const ESSENTIAL: &[&str] = &[
    "skb_dev",
    "skb_head",
    "skb_network_header",
    "skb_protocol",
    "dev_ifindex",
    "dev_net",
    "dev_link_ops",
    "link_ops_kind",
    "net_inum",
];

/// Looks every field up. Also returns the names of those this kernel has not.
pub fn resolve(btf: &Btf) -> (Offsets, Vec<&'static str>) {
    let mut missing = Vec::new();
    let offsets = Offsets::resolve(|field, paths| {
        let found = paths
            .iter()
            .find_map(|(strukt, path)| btf.member(strukt, path))
            // A bit-field that does not start on a byte cannot be read as one.
            .filter(|member| !matches!(member.bit, Some((start, _)) if start % 8 != 0));
        match found {
            Some(member) => member.byte_offset,
            None => {
                missing.push(field);
                ABSENT
            }
        }
    });
    (offsets, missing)
}

/// The first missing field that nothing works without.
pub fn essential_missing(missing: &[&'static str]) -> Option<&'static str> {
    missing
        .iter()
        .copied()
        .find(|field| ESSENTIAL.contains(field))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_kernel_has_the_essential_fields() {
        let Ok(btf) = Btf::vmlinux() else {
            eprintln!("skipped: no BTF on this machine");
            return;
        };
        let (offsets, missing) = resolve(&btf);
        assert_eq!(essential_missing(&missing), None, "{missing:?}");
        assert_eq!(offsets.skb_dev, 16);
    }

    #[test]
    fn essential_fields_are_fields() {
        for field in ESSENTIAL {
            assert!(
                Offsets::PATHS.iter().any(|(name, _)| name == field),
                "{field}"
            );
        }
    }
}
