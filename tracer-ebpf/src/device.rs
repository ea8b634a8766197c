//! `struct net_device` of the running kernel, and its counters.

use aya_ebpf::helpers::generated;
use tracer_common::{
    ABI_VERSION,
    config::{IFNAMSIZ, KIND_LEN, switch},
    offsets::ABSENT,
    record::{Notice, notice},
    tally::{self, RX, TX},
};

use crate::{
    frame,
    globals::{config, offset},
    maps::{KINDS, KNOWN_KINDS, PERCPU, RECORDS},
    read::{self, PROBED, TYPED},
};

/// ARPHRD_* of devices that carry bare IP inside IP (include/uapi/linux/if_arp.h):
/// tunnels even where their kind is not in the table.
const ARPHRD_TUNNEL: u16 = 768;
const ARPHRD_TUNNEL6: u16 = 769;
const ARPHRD_SIT: u16 = 776;
const ARPHRD_IPGRE: u16 = 778;
const ARPHRD_IP6GRE: u16 = 823;
/// Devices whose packets begin with an Ethernet header.
const ARPHRD_ETHER: u16 = 1;
const ARPHRD_LOOPBACK: u16 = 772;

/// `enum netdev_stat_type` (include/linux/netdevice.h).
const NETDEV_PCPU_STAT_LSTATS: u8 = 1;
const NETDEV_PCPU_STAT_DSTATS: u8 = 3;

/// `struct net_device_stats` from `tx_packets` to `tx_fifo_errors`.
pub type Stats = [u64; 18];

/// Address of a `struct net_device`; for `TYPED` see [`read::field`].
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct NetDevice<const TYPED: bool>(pub u64);

/// What kind of tunnel a device is.
#[derive(Clone, Copy)]
pub struct Kind {
    /// `tracer_common::config::kind`
    pub facts: u32,
    /// Address of its name, 0: none. Read only where somebody asks.
    pub name: u64,
}

impl Kind {
    /// A tunnel that has no kind.
    pub const NAMELESS: Self = Self { facts: 0, name: 0 };
}

/// Writes the name at this address to a zeroed buffer.
#[inline(always)]
pub fn kind_name(to: *mut [u8; KIND_LEN], name: u64) {
    if name != 0 {
        read::string(to, name);
    }
}

/// Kinds that are remembered together.
const WAYS: usize = 4;
pub const KNOWN_LEN: u32 = 64;

/// What is remembered of kinds whose devices are alike.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Known {
    /// Addresses of their names, 0: free.
    names: [u64; WAYS],
    /// What is known of them, see [`KNOWN_TUNNEL`].
    facts: [u64; WAYS],
}

/// Beside the bits of `tracer_common::config::kind`: it is a tunnel.
const KNOWN_TUNNEL: u64 = 1 << 32;

impl<const TYPED: bool> NetDevice<TYPED> {
    #[inline(always)]
    fn field<T: Copy>(self, offset: u32) -> Option<T> {
        read::field::<TYPED, T>(self.0, offset)
    }

    #[inline(always)]
    pub fn ifindex(self) -> u32 {
        self.field(offset!(dev_ifindex)).unwrap_or(0)
    }

    #[inline(always)]
    pub fn mtu(self) -> u32 {
        self.field(offset!(dev_mtu)).unwrap_or(0)
    }

    /// Inode number of the device's network namespace.
    #[inline(always)]
    pub fn netns(self) -> u32 {
        match self.field::<u64>(offset!(dev_net)) {
            // The verifier may want to see that it is one.
            Some(net) if net != 0 => read::field::<TYPED, u32>(net, offset!(net_inum)).unwrap_or(0),
            _ => 0,
        }
    }

    /// Writes the name to a zeroed buffer.
    #[inline(always)]
    pub fn name(self, to: *mut [u8; IFNAMSIZ]) {
        let at = offset!(dev_name);
        if at == ABSENT {
            return;
        }
        if TYPED {
            // SAFETY: the caller's buffer.
            read::typed_string(unsafe { &mut *to }, self.0, at);
        } else {
            read::string(to, self.0 + u64::from(at));
        }
    }

    /// Do its packets have an Ethernet header?
    #[inline(always)]
    pub fn has_ethernet(self) -> bool {
        let hardware = self.field::<u16>(offset!(dev_type));
        matches!(hardware, Some(ARPHRD_ETHER | ARPHRD_LOOPBACK))
    }

    /// Is this a tunnel?
    #[inline(always)]
    pub fn tunnel(self) -> Option<Kind> {
        let ops = self.field::<u64>(offset!(dev_link_ops))?;
        let hardware = self.field::<u16>(offset!(dev_type)).unwrap_or(0);
        let mut name = 0;
        if ops != 0 {
            name = read::field::<TYPED, u64>(ops, offset!(link_ops_kind))?;
            let size = read::field::<TYPED, u64>(ops, offset!(link_ops_priv_size)).unwrap_or(0);
            if let Some(facts) = facts(name, size << 16 | u64::from(hardware)) {
                return Some(Kind { facts, name });
            }
        }
        matches!(
            hardware,
            ARPHRD_TUNNEL | ARPHRD_TUNNEL6 | ARPHRD_SIT | ARPHRD_IPGRE | ARPHRD_IP6GRE
        )
        .then_some(Kind { facts: 0, name })
    }

    /// Does the user want to see this device?
    #[inline(always)]
    pub fn wanted(self) -> bool {
        let netns = config!(netns);
        if netns != 0 && self.netns() != netns {
            return false;
        }
        let wanted = config!(dev);
        if wanted[0] == 0 {
            return true;
        }
        let mut name = [0u8; IFNAMSIZ];
        self.name(&raw mut name);
        name == wanted
    }

    /// The counters of transmitting as `ip -s link` adds them up, by index of
    /// `COUNTERS`. Per-CPU ones are this CPU's alone: no other CPU can move
    /// them while the frame is open. `room` is for what they are read from.
    #[inline(always)]
    pub fn transmit_counters(self, room: &mut Stats, to: &mut [u64; TX]) {
        // At once: a call for each is most of what a frame costs.
        let block = offset!(stats_tx_packets);
        let whole =
            !TYPED && block != ABSENT && read::copy(&raw mut *room, self.0 + u64::from(block));
        let stat = |field: u32| {
            if TYPED {
                return self.word(field);
            }
            let nth = field.wrapping_sub(block) / size_of::<u64>() as u32;
            match room.get(nth as usize) {
                Some(value) if whole => *value,
                _ => self.word(field),
            }
        };
        to[tally::TX_PACKETS] = stat(offset!(stats_tx_packets));
        to[tally::TX_ERRORS] = stat(offset!(stats_tx_errors));
        to[tally::TX_DROPPED] =
            stat(offset!(stats_tx_dropped)) + self.word(offset!(dev_core_tx_dropped));
        to[tally::TX_CARRIER_ERRORS] = stat(offset!(stats_tx_carrier_errors));
        to[tally::COLLISIONS] = stat(offset!(stats_collisions));
        to[tally::TX_FIFO_ERRORS] = stat(offset!(stats_tx_fifo_errors));
        to[tally::TX_ABORTED_ERRORS] = stat(offset!(stats_tx_aborted_errors));

        let Some(percpu) = percpu_offset() else {
            return;
        };
        let core = read::through(&mut room[0], self.word(offset!(dev_core_stats)));
        if core != 0 {
            to[tally::TX_DROPPED] +=
                read::at(core.wrapping_add(percpu), offset!(core_stats_tx_dropped)).unwrap_or(0);
        }
        let stats = read::through(&mut room[0], self.word(offset!(dev_tstats)));
        if stats != 0 {
            let stats = stats.wrapping_add(percpu);
            // A bit-field of eight bits that starts on a byte.
            match self.field::<u8>(offset!(dev_pcpu_stat_type)).unwrap_or(0) {
                NETDEV_PCPU_STAT_DSTATS => {
                    to[tally::TX_PACKETS] +=
                        read::at(stats, offset!(dstats_tx_packets)).unwrap_or(0);
                    to[tally::TX_DROPPED] += read::at(stats, offset!(dstats_tx_drops)).unwrap_or(0);
                }
                NETDEV_PCPU_STAT_LSTATS => {}
                _ => {
                    to[tally::TX_PACKETS] +=
                        read::at(stats, offset!(tstats_tx_packets)).unwrap_or(0);
                }
            }
        }
    }

    #[inline(always)]
    fn word(self, offset: u32) -> u64 {
        self.field(offset).unwrap_or(0)
    }
}

impl NetDevice<PROBED> {
    /// The counters of receiving, in the order of `COUNTERS`.
    #[inline(always)]
    pub fn receive_counters(self, to: &mut [u64; RX]) {
        to[tally::RX_ERRORS - TX] = self.word(offset!(stats_rx_errors));
        to[tally::RX_DROPPED - TX] =
            self.word(offset!(stats_rx_dropped)) + self.word(offset!(dev_core_rx_dropped));
        to[tally::RX_LENGTH_ERRORS - TX] = self.word(offset!(stats_rx_length_errors));
        to[tally::RX_CRC_ERRORS - TX] = self.word(offset!(stats_rx_crc_errors));
        to[tally::RX_FRAME_ERRORS - TX] = self.word(offset!(stats_rx_frame_errors));
        to[tally::RX_FIFO_ERRORS - TX] = self.word(offset!(stats_rx_fifo_errors));

        let Some(percpu) = percpu_offset() else {
            return;
        };
        let core = self.word(offset!(dev_core_stats));
        if core != 0 {
            to[tally::RX_DROPPED - TX] +=
                read::at(core.wrapping_add(percpu), offset!(core_stats_rx_dropped)).unwrap_or(0);
        }
        let stats = self.word(offset!(dev_tstats));
        if stats != 0
            && read::at::<u8>(self.0, offset!(dev_pcpu_stat_type)) == Some(NETDEV_PCPU_STAT_DSTATS)
        {
            to[tally::RX_DROPPED - TX] +=
                read::at(stats.wrapping_add(percpu), offset!(dstats_rx_drops)).unwrap_or(0);
        }
    }
}

/// What is known of the kind whose name is at this address; `None`: it is no
/// tunnel. `like` is what its devices have in common, so that two drivers that
/// were loaded to the same place one after the other are not taken for each
/// other.
///
/// The address may be a pointer to the verifier: it can be compared and kept, no
/// more.
#[inline(always)]
fn facts(name: u64, like: u64) -> Option<u32> {
    const BITS: u32 = KNOWN_LEN.trailing_zeros();
    let set = like.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - BITS);
    let known = KNOWN_KINDS.get_ptr_mut(set as u32)?;
    // SAFETY: this CPU's own element.
    let known = unsafe { &mut *known };
    for n in 0..WAYS {
        if known.names[n] == name {
            let facts = known.facts[n];
            return (facts & KNOWN_TUNNEL != 0).then_some(facts as u32);
        }
    }
    let mut kind = [0; KIND_LEN];
    if !read::string(&raw mut kind, name) {
        return None;
    }
    let facts = match KINDS.get_ptr(&kind) {
        // SAFETY: nothing is ever removed from the map.
        Some(facts) => u64::from(unsafe { *facts }) | KNOWN_TUNNEL,
        None => 0,
    };
    for n in 0..WAYS {
        if known.names[n] == 0 {
            // SAFETY: fields of a live element; volatile, because a program that
            // comes in between may fill the same place.
            unsafe {
                core::ptr::write_volatile(&raw mut known.facts[n], facts);
                core::ptr::write_volatile(&raw mut known.names[n], name);
                if core::ptr::read_volatile(&raw const known.facts[n]) != facts {
                    core::ptr::write_volatile(&raw mut known.names[n], 0);
                }
            }
            break;
        }
    }
    (facts & KNOWN_TUNNEL != 0).then_some(facts as u32)
}

/// A device gets its queue: it is about to come up for the first time. Where the
/// points of frames rest, the first tunnel is what they wait for.
#[inline(always)]
pub fn comes_up(dev: NetDevice<TYPED>) {
    if frame::switched(switch::RESTING) && dev.tunnel().is_some() {
        notify(notice::TUNNEL);
    }
}

/// A module was loaded: it may be a tunnel's driver.
#[inline(always)]
pub fn may_come() {
    if frame::switched(switch::RESTING) {
        notify(notice::MODULE);
    }
}

#[inline(always)]
fn notify(what: u32) {
    let mut notice = Notice {
        version: ABI_VERSION,
        size: size_of::<Notice>() as u16,
        what,
    };
    // Where there is no room, the records that are there wake the user side, and
    // one of them is of a tunnel soon.
    // SAFETY: the notice is alive, and of that size.
    let _ = unsafe {
        generated::bpf_ringbuf_output(
            (&raw const RECORDS).cast_mut().cast(),
            (&raw mut notice).cast(),
            size_of::<Notice>() as u64,
            crate::tally::BPF_RB_FORCE_WAKEUP,
        )
    };
}

/// What to add to a per-CPU pointer to get this CPU's copy.
///
/// No symbol is needed: a per-CPU array map holds such a pointer
/// (`bpf_array.pptrs[0]`), and looking the element up gives its address.
#[inline(always)]
fn percpu_offset() -> Option<u64> {
    let here = PERCPU.get_ptr_mut(0)?;
    // SAFETY: this CPU's own element; whoever writes it writes the same.
    let known = unsafe { &mut *here };
    if *known == 0 {
        let base: u64 = read::at(read::address(&raw const PERCPU), offset!(array_pptrs))?;
        *known = read::address(&raw const *known).wrapping_sub(base);
    }
    Some(*known)
}
