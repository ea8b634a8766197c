//! What the drop reasons of the *running* kernel are called.
//!
//! The numbers that `skb:kfree_skb` reports are no interface: they move with
//! every release and with backports, names disappear, and the subsystems in
//! the upper half are renumbered too. So nothing here knows a number; names and
//! numbers both come from the kernel's BTF (`include/net/dropreason-core.h`,
//! `include/net/dropreason.h`), the reasons of a subsystem that is a module
//! from that module's.
//!
//! It does not say what a reason means or whose fault it is.

use std::collections::BTreeMap;

use super::btf::Btf;

/// Where a subsystem's reasons are not in `enum SUBSYSTEM_drop_reason`.
/// mac80211's are named twice, plainly and with three underscores, and the
/// compiler may have dropped either (`net/mac80211/drop.h`).
const ENUMS: &[(&str, &[&str])] = &[
    ("OPENVSWITCH", &["ovs_drop_reason"]),
    (
        "MAC80211_UNUSABLE",
        &["mac80211_drop_reason", "___mac80211_drop_reason"],
    ),
    (
        "MAC80211_MONITOR",
        &["mac80211_drop_reason", "___mac80211_drop_reason"],
    ),
];

/// Names of drop reasons.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct Reasons {
    names: BTreeMap<u32, String>,
    /// Number and name of each subsystem but the core.
    subsystems: BTreeMap<u32, String>,
    /// How far a subsystem's number is shifted; 0 if there are none.
    shift: u32,
}

impl Reasons {
    /// Those of the kernel itself and of subsystems built into it.
    pub fn from_btf(vmlinux: &Btf) -> Self {
        let core = vmlinux.enum_values("skb_drop_reason").unwrap_or_default();
        let mut reasons = Self::default();
        for (value, name) in core {
            let Ok(value) = u32::try_from(value) else {
                continue;
            };
            match name {
                // The mask is the one enumerator that tells the shift, which
                // itself is a macro.
                "SKB_DROP_REASON_SUBSYS_MASK" => reasons.shift = value.trailing_zeros() % 32,
                // "the maximum of core drop reasons, which shouldn't be used as
                // a real 'reason'"
                "SKB_DROP_REASON_MAX" => {}
                _ => reasons.insert(value, core_name(name)),
            }
        }
        let subsystems = vmlinux
            .enum_values("skb_drop_reason_subsys")
            .unwrap_or_default();
        for (value, name) in subsystems {
            let name = name.strip_prefix("SKB_DROP_REASON_SUBSYS_").unwrap_or(name);
            match u32::try_from(value) {
                Ok(value) if value != 0 && name != "NUM" => {
                    reasons
                        .subsystems
                        .entry(value)
                        .or_insert_with(|| name.to_owned());
                }
                _ => {}
            }
        }
        reasons.add_module(vmlinux);
        reasons
    }

    /// Adds those of a module (openvswitch, mac80211). Harmless for one that
    /// has none.
    pub fn add_module(&mut self, module: &Btf) {
        let mut found = Vec::new();
        for (&subsystem, name) in &self.subsystems {
            let values = enums_of(name)
                .iter()
                .find_map(|name| module.enum_values(name));
            let values = values.unwrap_or_default();
            found.extend(full_codes(subsystem, self.shift, &values));
        }
        for (code, name) in found {
            self.insert(code, &name);
        }
    }

    /// Does this kernel give reasons at all? They came with 5.17.
    pub fn exist(&self) -> bool {
        !self.names.is_empty()
    }

    /// A reason's name: `NEIGH_FAILED`, `OVS_DROP_LAST_ACTION`.
    pub fn name(&self, reason: u32) -> Option<&str> {
        self.names.get(&reason).map(String::as_str)
    }

    /// Does this kernel have a reason of this name?
    pub fn has(&self, name: &str) -> bool {
        self.names.values().any(|known| known == name)
    }

    /// The subsystem a reason belongs to, which is known even if its module's
    /// names are not: `OPENVSWITCH`. None for core reasons.
    pub fn subsystem(&self, reason: u32) -> Option<&str> {
        let number = reason.checked_shr(self.shift).filter(|_| self.shift != 0)?;
        self.subsystems.get(&number).map(String::as_str)
    }

    /// The number of a name on this kernel.
    #[cfg(test)]
    pub fn number(&self, name: &str) -> Option<u32> {
        self.iter()
            .find(|(_, known)| *known == name)
            .map(|(number, _)| number)
    }

    /// All, in order of their numbers.
    #[cfg(test)]
    pub fn iter(&self) -> impl Iterator<Item = (u32, &str)> {
        self.names
            .iter()
            .map(|(number, name)| (*number, name.as_str()))
    }

    fn insert(&mut self, code: u32, name: &str) {
        self.names.entry(code).or_insert_with(|| name.to_owned());
    }
}

/// As the kernel's own table has it: `SKB_CONSUMED` is `CONSUMED`
/// (`net/core/skbuff.c`, `drop_reasons`).
fn core_name(name: &str) -> &str {
    name.strip_prefix("SKB_DROP_REASON_")
        .or_else(|| name.strip_prefix("SKB_"))
        .unwrap_or(name)
}

/// The enums that may list a subsystem's reasons, best first.
fn enums_of(subsystem: &str) -> Vec<String> {
    let usual = format!("{}_drop_reason", subsystem.to_ascii_lowercase());
    let listed = ENUMS
        .iter()
        .filter(|(name, _)| *name == subsystem)
        .flat_map(|(_, enums)| *enums);
    listed
        .map(|name| (*name).to_owned())
        .chain([usual])
        .collect()
}

/// Codes and names of a subsystem's reasons.
///
/// So far every such enum has the subsystem in its values (it starts with
/// `__OVS_DROP_REASON = SKB_DROP_REASON_SUBSYS_OPENVSWITCH << ..`), next to
/// core values it borrows (mac80211's `RX_CONTINUE`); one where no value has a
/// subsystem counts from zero.
fn full_codes(subsystem: u32, shift: u32, values: &[(i64, &str)]) -> Vec<(u32, String)> {
    if shift == 0 {
        return Vec::new();
    }
    // Old pahole writes enums as signed; the upper half may be negative.
    let codes = values.iter().map(|(value, name)| (*value as u32, *name));
    let bare = codes.clone().all(|(code, _)| code >> shift == 0);
    codes
        .filter_map(|(code, name)| {
            let code = if bare {
                subsystem.checked_shl(shift)? | code
            } else {
                code
            };
            // Two underscores are a mark where the enum starts, three a name.
            let name = name.strip_prefix("___").unwrap_or(name);
            let mark = name.starts_with("__") || name.ends_with("_DROP_MAX");
            (code >> shift == subsystem && !mark).then(|| (code, name.to_owned()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{super::btf::fixture::Builder, *};

    /// 7.2 in small: OPENVSWITCH as a module, QDISC built in.
    fn kernel() -> Btf {
        let mut b = Builder::new();
        b.enumeration(
            "skb_drop_reason",
            false,
            &[
                ("SKB_NOT_DROPPED_YET", 0),
                ("SKB_CONSUMED", 1),
                ("SKB_DROP_REASON_NOT_SPECIFIED", 2),
                ("SKB_DROP_REASON_MAX", 3),
                ("SKB_DROP_REASON_SUBSYS_MASK", 0xffff_0000),
            ],
        );
        b.enumeration(
            "skb_drop_reason_subsys",
            false,
            &[
                ("SKB_DROP_REASON_SUBSYS_CORE", 0),
                ("SKB_DROP_REASON_SUBSYS_MAC80211_UNUSABLE", 1),
                ("SKB_DROP_REASON_SUBSYS_OPENVSWITCH", 2),
                ("SKB_DROP_REASON_SUBSYS_QDISC", 3),
                ("SKB_DROP_REASON_SUBSYS_NEW", 4),
                ("SKB_DROP_REASON_SUBSYS_NUM", 5),
            ],
        );
        b.enumeration(
            "qdisc_drop_reason",
            false,
            &[
                ("__QDISC_DROP_REASON", 0x30000),
                ("QDISC_DROP_GENERIC", 0x30001),
                ("QDISC_DROP_MAX", 0x30002),
            ],
        );
        b.enumeration("new_drop_reason", false, &[("NEW_ZERO", 0), ("NEW_ONE", 1)]);
        b.build()
    }

    #[test]
    fn core_and_subsystems() {
        let mut reasons = Reasons::from_btf(&kernel());
        assert!(reasons.exist());
        assert_eq!(reasons.name(0), Some("NOT_DROPPED_YET"));
        assert_eq!(reasons.name(1), Some("CONSUMED"));
        assert_eq!(reasons.name(2), Some("NOT_SPECIFIED"));
        assert_eq!(reasons.name(3), None, "MAX is no reason");
        assert_eq!(reasons.name(0x30000), None);
        assert_eq!(reasons.name(0x30001), Some("QDISC_DROP_GENERIC"));
        assert_eq!(reasons.name(0x30002), None);
        assert_eq!(
            reasons.name(0x40001),
            Some("NEW_ONE"),
            "without subsystem bits"
        );
        assert_eq!(reasons.number("NEW_ZERO"), Some(0x40000));
        assert_eq!(reasons.name(0x20001), None);
        assert_eq!(reasons.subsystem(0x20001), Some("OPENVSWITCH"));
        assert_eq!(
            (reasons.subsystem(2), reasons.subsystem(0x90001)),
            (None, None)
        );

        let mut b = Builder::new();
        b.enumeration(
            "ovs_drop_reason",
            false,
            &[
                ("__OVS_DROP_REASON", 0x20000),
                ("OVS_DROP_LAST_ACTION", 0x20001),
            ],
        );
        b.enumeration(
            "___mac80211_drop_reason",
            false,
            &[("___RX_CONTINUE", 1), ("___RX_DROP_U_REPLAY", 0x10002)],
        );
        let before = reasons.iter().count();
        reasons.add_module(&b.build());
        reasons.add_module(&b.build());
        assert_eq!(reasons.iter().count(), before + 2);
        assert_eq!(reasons.name(0x20001), Some("OVS_DROP_LAST_ACTION"));
        assert_eq!(reasons.name(0x10002), Some("RX_DROP_U_REPLAY"));
        assert_eq!(reasons.name(1), Some("CONSUMED"), "mac80211 borrows it");
    }

    #[test]
    fn kernels_without() {
        let old = Reasons::from_btf(&Builder::new().build());
        assert!(!old.exist());
        assert_eq!((old.name(0), old.subsystem(0x20001)), (None, None));
        // 6.1: reasons, but no subsystems.
        let mut b = Builder::new();
        let values = [
            ("SKB_NOT_DROPPED_YET", 0),
            ("SKB_DROP_REASON_NOT_SPECIFIED", 1),
        ];
        b.enumeration("skb_drop_reason", false, &values);
        let reasons = Reasons::from_btf(&b.build());
        assert_eq!(reasons.name(1), Some("NOT_SPECIFIED"));
        assert_eq!(reasons.subsystem(0x10001), None);
    }

    #[test]
    fn the_running_kernel() {
        let Ok(btf) = Btf::vmlinux() else {
            eprintln!("skipped: no BTF");
            return;
        };
        let reasons = Reasons::from_btf(&btf);
        if reasons.exist() {
            let number = reasons.number("NEIGH_FAILED").unwrap();
            assert_eq!(reasons.name(number), Some("NEIGH_FAILED"));
            assert!(
                reasons
                    .iter()
                    .all(|(_, name)| !name.starts_with("SKB_DROP_"))
            );
        }
    }
}
