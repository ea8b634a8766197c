//! `traffic storm`: packets from one pinned processor, timed in chunks, for the
//! benchmark: as many as asked for, as fast as asked for, in as many flows.
//!
//! The socket is not connected, so that an ICMP error about one packet does not
//! refuse the next. What arrives is taken out of the sink's socket between two
//! chunks, when nothing is timed, by the same process: nobody is woken.

use std::{
    env,
    fmt::Display,
    fs::File,
    io::ErrorKind,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    os::fd::AsFd as _,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use clap::Args;
use rustix::{
    net::sockopt::set_socket_recv_buffer_size_force,
    thread::{CpuSet, LinkNameSpaceType, move_into_link_name_space, sched_setaffinity},
};
use serde::{Deserialize, Serialize};

use crate::process;

/// Where `ip netns` keeps its namespaces.
const NETNS: &str = "/run/netns";
/// Room for a chunk in the sink's socket, whatever the host allows by default.
const SINK_BYTES: usize = 64 << 20;
/// So many ports are used of one address before the next address is.
const PORTS: u32 = 50_000;
/// How many packets go out at a time where the rate is limited.
const BURST: u32 = 8;

#[derive(Debug, Clone, Args)]
pub struct Options {
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub to: SocketAddr,
    /// Network namespace to send from
    #[arg(long, value_name = "NAME")]
    pub netns: Option<String>,
    /// Network namespace where somebody takes them
    #[arg(long, value_name = "NAME")]
    pub sink: Option<String>,
    /// The processor to run on, and no other
    #[arg(long)]
    pub cpu: Option<usize>,
    #[arg(long, default_value_t = 2000)]
    pub chunk: u32,
    #[arg(long, default_value_t = 10)]
    pub chunks: u32,
    /// Packets per second; without: as fast as it goes
    #[arg(long)]
    pub rate: Option<u32>,
    /// How many flows: destination ports from that of --to on, then addresses
    #[arg(long, default_value_t = 1)]
    pub flows: u32,
    /// Bytes of payload
    #[arg(long, default_value_t = 64)]
    pub size: usize,
}

/// What came of it; printed as JSON.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Sent {
    pub packets: u64,
    /// What the kernel did not take.
    pub refused: u64,
    /// What the sink got.
    pub arrived: u64,
    /// Nanoseconds that each chunk took.
    pub chunks_ns: Vec<u64>,
    /// From the first packet to the last.
    pub seconds: f64,
}

pub fn command(options: &Options) -> anyhow::Result<()> {
    println!("{}", serde_json::to_string(&storm(options)?)?);
    Ok(())
}

/// Sends it all from another process: this one stays where it is.
pub fn elsewhere(options: &Options) -> anyhow::Result<Sent> {
    let ourselves = env::current_exe().context("cannot find ourselves")?;
    let mut command = Command::new(ourselves);
    command.args(["traffic", "storm"]);
    let mut option = |name: &str, value: &dyn Display| {
        command.arg(format!("--{name}={value}"));
    };
    let Options {
        to,
        netns,
        sink,
        cpu,
        chunk,
        chunks,
        rate,
        flows,
        size,
    } = options;
    option("to", to);
    option("chunk", chunk);
    option("chunks", chunks);
    option("flows", flows);
    option("size", size);
    if let Some(netns) = netns {
        option("netns", netns);
    }
    if let Some(sink) = sink {
        option("sink", sink);
    }
    if let Some(cpu) = cpu {
        option("cpu", cpu);
    }
    if let Some(rate) = rate {
        option("rate", rate);
    }
    let said = process::read(&mut command)?;
    serde_json::from_str(&said).with_context(|| format!("what was sent is not known: {said}"))
}

/// Sends it all.
pub fn storm(options: &Options) -> anyhow::Result<Sent> {
    if let Some(cpu) = options.cpu {
        pin(&[cpu])?;
    }
    let sink = match &options.sink {
        Some(netns) => {
            enter(netns)?;
            Some(sink(options.to)?)
        }
        None => None,
    };
    if let Some(netns) = &options.netns {
        enter(netns)?;
    }
    let any: SocketAddr = match options.to {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any).context("cannot make a UDP socket")?;
    let targets = targets(options.to, options.flows)?;
    let payload = vec![0; options.size];
    let mut targets = targets.iter().cycle();
    let mut sent = Sent::default();
    let mut refusal = None;
    let began = Instant::now();
    for _ in 0..options.chunks {
        let chunk = Instant::now();
        for n in 0..options.chunk {
            if n % BURST == 0
                && let Some(rate) = options.rate
            {
                wait(began, sent.packets + sent.refused, rate);
            }
            let Some(to) = targets.next() else { break };
            match socket.send_to(&payload, to) {
                Ok(_) => sent.packets += 1,
                Err(error) => {
                    sent.refused += 1;
                    refusal = Some(error);
                }
            }
        }
        sent.chunks_ns.push(nanoseconds(chunk.elapsed()));
        if let Some(sink) = &sink {
            sent.arrived += take(sink)?;
        }
    }
    sent.seconds = began.elapsed().as_secs_f64();
    match refusal {
        Some(error) if sent.packets == 0 => {
            Err(error).with_context(|| format!("cannot send to {}", options.to))
        }
        _ => Ok(sent),
    }
}

/// Runs on these processors only.
pub fn pin(cpus: &[usize]) -> anyhow::Result<()> {
    let mut set = CpuSet::new();
    for cpu in cpus {
        ensure!(*cpu < CpuSet::MAX_CPU, "there is no processor {cpu}");
        set.set(*cpu);
    }
    sched_setaffinity(None, &set).with_context(|| format!("cannot run on processors {cpus:?}"))
}

fn enter(netns: &str) -> anyhow::Result<()> {
    let path = Path::new(NETNS).join(netns);
    let file = File::open(&path).with_context(|| format!("cannot open {}", path.display()))?;
    move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
        .with_context(|| format!("cannot enter the network namespace {netns}"))
}

/// A socket that gets what comes to this port, whatever the address.
fn sink(to: SocketAddr) -> anyhow::Result<UdpSocket> {
    let any: IpAddr = match to {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, to.port()))
        .with_context(|| format!("cannot listen at UDP port {}", to.port()))?;
    socket.set_nonblocking(true)?;
    set_socket_recv_buffer_size_force(&socket, SINK_BYTES)
        .context("cannot make room for what arrives: are you root?")?;
    Ok(socket)
}

/// Empties the socket; how many packets were in it.
fn take(sink: &UdpSocket) -> anyhow::Result<u64> {
    let mut packet = [0; 2048];
    let mut count = 0;
    loop {
        match sink.recv(&mut packet) {
            Ok(_) => count += 1,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(count),
            Err(error) => return Err(error).context("cannot take what arrives"),
        }
    }
}

/// Waits, without sleeping, until it is time for packet number `nth`.
fn wait(began: Instant, nth: u64, rate: u32) {
    let due = Duration::from_secs_f64(nth as f64 / f64::from(rate.max(1)));
    while began.elapsed() < due {
        std::hint::spin_loop();
    }
}

/// Where each flow goes.
fn targets(to: SocketAddr, flows: u32) -> anyhow::Result<Vec<SocketAddr>> {
    (0..flows.max(1))
        .map(|flow| {
            let port = u32::from(to.port()) + flow % PORTS;
            let port = u16::try_from(port).context("there are no ports for so many flows")?;
            let further = flow / PORTS;
            let address = match to.ip() {
                IpAddr::V4(first) => Ipv4Addr::from(u32::from(first).wrapping_add(further)).into(),
                IpAddr::V6(first) => {
                    Ipv6Addr::from(u128::from(first).wrapping_add(further.into())).into()
                }
            };
            Ok(SocketAddr::new(address, port))
        })
        .collect()
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(to: SocketAddr) -> Options {
        Options {
            to,
            netns: None,
            sink: None,
            cpu: None,
            chunk: 10,
            chunks: 3,
            rate: None,
            flows: 1,
            size: 8,
        }
    }

    #[test]
    fn every_packet_is_counted_though_nobody_listens() {
        // A port that was free a moment ago.
        let to = UdpSocket::bind("127.0.0.1:0").unwrap();
        let to = to.local_addr().unwrap();
        let sent = storm(&options(to)).unwrap();
        assert_eq!((sent.packets, sent.refused), (30, 0));
        assert_eq!(sent.chunks_ns.len(), 3);
    }

    #[test]
    fn a_rate_is_kept() {
        let taker = UdpSocket::bind("127.0.0.1:0").unwrap();
        let limited = Options {
            rate: Some(1000),
            ..options(taker.local_addr().unwrap())
        };
        let sent = storm(&limited).unwrap();
        assert_eq!(sent.packets, 30);
        // The last burst is due after 28 packets' time.
        assert!(sent.seconds >= 0.024, "{}", sent.seconds);
    }

    #[test]
    fn flows_are_ports_then_addresses() {
        let targets = targets("10.0.0.255:1000".parse().unwrap(), PORTS + 2).unwrap();
        assert_eq!(targets.len(), 50_002);
        assert_eq!(targets[1], "10.0.0.255:1001".parse().unwrap());
        assert_eq!(targets[50_001], "10.0.1.0:1001".parse().unwrap());
        assert!(super::targets("10.0.0.1:60000".parse().unwrap(), PORTS).is_err());
    }
}
