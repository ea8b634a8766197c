//! What is sent through the machine while it is measured, and the network
//! namespaces it is sent in.

use std::{net::SocketAddr, process::Command};

use anyhow::Context as _;

use crate::{
    process,
    traffic::storm::{self, Sent},
};

/// Namespaces of ours; B only takes.
const A: &str = "tracer-bench-a";
const B: &str = "tracer-bench-b";

const UP: &str = "
for n in $A $B; do
    ip netns add $n
    ip netns exec $n sysctl -qw net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1
    ip -n $n link set lo up
done
ip link add v0 netns $A type veth peer name v0 netns $B
ip -n $A addr add 10.0.0.1/24 dev v0
ip -n $B addr add 10.0.0.2/24 dev v0
ip -n $A link set v0 up
ip -n $B link set v0 up
known() { ip -n $1 neigh replace $2 lladdr $(ip netns exec $3 cat /sys/class/net/$4/address) dev $4 nud permanent; }
known $A 10.0.0.2 $B v0
known $B 10.0.0.1 $A v0
";

const VXLAN: &str = "
ip -n $A link add t0 type vxlan id 42 dstport 4789 local 10.0.0.1 dev v0 nolearning $TO
ip -n $A addr add 192.168.9.1/24 dev t0
ip -n $A link set t0 up
";

const NO_FDB: &str = "
for last in 2 3 4; do
    ip -n $A neigh add 192.168.9.$last lladdr 02:00:00:00:00:02 dev t0 nud permanent
done
";

const PAIR: &str = "
ip -n $B link add t0 type vxlan id 42 dstport 4789 local 10.0.0.2 remote 10.0.0.1 dev v0 nolearning
ip -n $B addr add 192.168.9.2/24 dev t0
ip -n $B link set t0 up
known $A 192.168.9.2 $B t0
known $B 192.168.9.1 $A t0
";

/// A kind of traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Load {
    /// UDP to a port of this host where nobody listens.
    ClosedPort,
    /// Into a vxlan device that has no forwarding entry for it.
    NoFdb,
    /// Through a vxlan tunnel that is well, from one namespace to another.
    Healthy,
    /// From one namespace to another beside that tunnel.
    Beside,
    /// The same where there is no tunnel at all.
    NoTunnel,
}

impl Load {
    pub const ALL: [Self; 5] = [
        Self::ClosedPort,
        Self::NoFdb,
        Self::Healthy,
        Self::Beside,
        Self::NoTunnel,
    ];

    pub fn title(self) -> &'static str {
        match self {
            Self::ClosedPort => {
                "UDP to a closed port on loopback: a drop a packet, no tunnel (`--all-drops`)"
            }
            Self::NoFdb => "vxlan without a forwarding entry: a frame and a drop a packet",
            Self::Healthy => "a healthy vxlan pair: a frame a packet, no drop",
            Self::Beside => "a veth pair beside that tunnel: no frame, no drop",
            Self::NoTunnel => "a veth pair on a host without tunnels: no frame, no drop",
        }
    }

    /// Does each packet vanish?
    pub fn drops(self) -> bool {
        matches!(self, Self::ClosedPort | Self::NoFdb)
    }

    /// Has tracer to be told that it matters?
    pub fn needs_all_drops(self) -> bool {
        self == Self::ClosedPort
    }

    pub fn to(self) -> SocketAddr {
        match self {
            Self::ClosedPort => ([127, 0, 0, 1], 9),
            Self::NoFdb | Self::Healthy => ([192, 168, 9, 2], 1000),
            Self::Beside | Self::NoTunnel => ([10, 0, 0, 2], 1000),
        }
        .into()
    }

    fn script(self) -> String {
        let clean =
            format!("A={A}\nB={B}\nfor n in $A $B; do ip netns del $n 2>/dev/null || true; done\n");
        let rest = match self {
            Self::ClosedPort | Self::NoTunnel => "".to_owned(),
            Self::NoFdb => format!("modprobe -q vxlan || true\nTO=\n{VXLAN}{NO_FDB}"),
            Self::Healthy | Self::Beside => {
                format!("modprobe -q vxlan || true\nTO='remote 10.0.0.2'\n{VXLAN}{PAIR}")
            }
        };
        format!("{clean}{UP}{rest}")
    }

    /// Makes the namespaces anew.
    pub fn set_up(self) -> anyhow::Result<Ready> {
        let ready = Ready(self);
        process::quiet(Command::new("sh").args(["-euc", &self.script()]))
            .with_context(|| format!("cannot set up: {}", self.title()))?;
        Ok(ready)
    }
}

/// The namespaces of a load; they go with it.
#[derive(Debug)]
pub struct Ready(Load);

impl Drop for Ready {
    fn drop(&mut self) {
        for netns in [A, B] {
            // It may not have come to it.
            let _ = process::quiet(Command::new("ip").args(["netns", "del", netns]));
        }
    }
}

/// How much to send.
#[derive(Debug, Clone, Copy)]
pub struct Amount {
    pub chunk: u32,
    pub chunks: u32,
    pub rate: Option<u32>,
    pub flows: u32,
}

impl Ready {
    /// Sends from a process of its own, pinned to that processor.
    pub fn send(&self, amount: Amount, cpu: usize) -> anyhow::Result<Sent> {
        let load = self.0;
        let options = storm::Options {
            to: load.to(),
            netns: Some(A.to_owned()),
            sink: (!load.drops()).then(|| B.to_owned()),
            cpu: Some(cpu),
            chunk: amount.chunk,
            chunks: amount.chunks,
            rate: amount.rate,
            flows: amount.flows,
            size: 64,
        };
        storm::elsewhere(&options)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scripts_are_shell_scripts() {
        for load in Load::ALL {
            let checked = Command::new("sh")
                .args(["-n", "-c", &load.script()])
                .status();
            assert!(checked.unwrap().success(), "{load:?}");
        }
    }
}
