//! Netlink facts about network devices, in every network namespace.
//!
//! [`netns`] finds the network namespaces and runs code inside them, [`link`]
//! reads the devices of one of them, [`ports`] the UDP ports that no device tells;
//! [`snapshot`] does all that for all of them.
//!
//! Everything here blocks: call it on a blocking thread. Entering another
//! namespace than the caller's needs `CAP_SYS_ADMIN`.

pub mod attr;
pub mod link;
pub mod netns;
mod ports;
#[cfg(test)]
pub mod tests;
mod text;
pub mod wire;

use std::collections::HashMap;

use thiserror::Error;

use link::LinkError;
pub use link::{Counters, Device};
use netns::Netns;
use ports::Families;
pub use text::{did_you_mean, printable};

/// The devices of all network namespaces at one time, as far as they could be
/// read.
#[derive(Debug, Default, Clone)]
pub struct Snapshot {
    /// The devices, by the inode of their network namespace and their index.
    pub devices: HashMap<(u32, u32), Device>,
    /// What to call each network namespace ([`Netns::label`]), by its inode.
    pub names: HashMap<u32, String>,
    /// UDP ports where tunnels listen, beside those of the devices, and what follows
    /// the UDP header there (`config::payload`).
    pub ports: Vec<(u16, u32)>,
    /// What is missing, each as a sentence for the user.
    pub problems: Vec<String>,
}

/// Why [`Snapshot::find_dev`] did not give one device.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum FindError {
    /// No such device.
    #[error("no device named '{name}' in {scope}{hint} (ip link)")]
    Unknown {
        /// The name asked for, printable.
        name: String,
        /// Where it was sought.
        scope: String,
        /// Names close to it: empty, or begins with a comma.
        hint: String,
    },
    /// Several network namespaces have one, and none was named.
    #[error(
        "device '{name}' is in {} network namespaces ({}): say which one",
        .netns.len(),
        text::some_of(.netns)
    )]
    Ambiguous {
        /// The name asked for, printable.
        name: String,
        /// The labels of the network namespaces which have it.
        netns: Vec<String>,
    },
}

/// Reads the devices of `filter`, or of every network namespace that
/// [`netns::list`] finds. What cannot be read is said in
/// [`Snapshot::problems`].
pub fn snapshot(filter: Option<&Netns>) -> Snapshot {
    let mut snapshot = Snapshot::default();
    let namespaces = match filter {
        Some(netns) => vec![netns.clone()],
        None => {
            let scan = netns::scan();
            snapshot.problems = scan.problems;
            scan.netns
        }
    };
    let families = Families::read().unwrap_or_else(|problem| {
        tracing::info!("cannot ask for the ports of tunnels: {problem}");
        Families::default()
    });
    for netns in &namespaces {
        let label = netns.label();
        match link::dump(netns) {
            Ok(mut dump) => {
                let (devices, ports) = (&mut dump.devices, &mut snapshot.ports);
                if let Err(problem) = ports::dump(netns, &families, devices, ports) {
                    tracing::info!(
                        "network namespace {label}: not all ports of tunnels are known: {problem}"
                    );
                }
                let noted = dump.problems.into_iter();
                snapshot
                    .problems
                    .extend(noted.map(|problem| format!("network namespace {label}: {problem}")));
                for device in dump.devices {
                    snapshot
                        .devices
                        .insert((device.netns, device.ifindex), device);
                }
            }
            Err(LinkError::Netns(problem)) => snapshot.problems.push(problem.to_string()),
            Err(problem) => snapshot
                .problems
                .push(format!("network namespace {label}: {problem}")),
        }
        // Even one that could not be read is seen in events: keep its name.
        snapshot.names.insert(netns.inode, label);
    }
    snapshot
}

impl Snapshot {
    /// Is every device that was seen certainly no tunnel?
    pub fn has_no_tunnels(&self) -> bool {
        self.devices.values().all(Device::is_no_tunnel)
    }

    /// What to call the network namespace with this inode.
    pub fn netns_label(&self, inode: u32) -> String {
        match self.names.get(&inode) {
            Some(name) => name.clone(),
            None => format!("net:[{inode}]"),
        }
    }

    /// The device with this name or alternative name, in the network namespace
    /// with this inode, or in whichever one has it when it is only one.
    pub fn find_dev(
        &self,
        name: impl AsRef<[u8]>,
        netns: Option<u32>,
    ) -> Result<&Device, FindError> {
        let name = name.as_ref();
        let candidates = || {
            let all = self.devices.values();
            all.filter(|device| netns.is_none_or(|inode| device.netns == inode))
        };
        // A name wins over an alternative name, as in the kernel each is
        // unique in its network namespace.
        let mut found: Vec<&Device> = candidates().filter(|d| d.is_named(name)).collect();
        found.sort_by_key(|device| (device.netns, device.ifindex));
        match found.as_slice() {
            [device] => Ok(device),
            [] => Err(FindError::Unknown {
                name: printable(name),
                scope: match netns {
                    Some(inode) => format!("network namespace {}", self.netns_label(inode)),
                    None => "any network namespace".to_owned(),
                },
                hint: did_you_mean(
                    name,
                    candidates()
                        .flat_map(|d| d.altnames.iter().chain([&d.name]))
                        .map(Vec::as_slice),
                ),
            }),
            several => Err(FindError::Ambiguous {
                name: printable(name),
                netns: several.iter().map(|d| self.netns_label(d.netns)).collect(),
            }),
        }
    }
}
