//! A dump of all links over a route netlink socket.

use std::{os::fd::OwnedFd, time::Duration};

use netlink_packet_core::NetlinkBuffer;
use rustix::{
    io::Errno,
    net::{
        AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType,
        netlink::SocketAddrNetlink,
        recvfrom, sendto, socket_with,
        sockopt::{Timeout, set_socket_timeout},
    },
};

use super::{attr::host_u32, link::LinkError};

/// How long an answer may take.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// The kernel makes datagrams of 32 KiB at most, unless one device needs more.
const DATAGRAM: usize = 256 * 1024;

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_DUMP_INTR: u16 = 0x10;
const NLM_F_DUMP: u16 = 0x300;

/// `struct nlmsghdr` and `struct ifinfomsg`.
const REQUEST: usize = 16 + 16;

/// What the kernel answered so far.
#[derive(Debug, Default)]
pub(super) struct Reply {
    /// The payloads of the `RTM_NEWLINK` messages.
    pub links: Vec<Vec<u8>>,
    /// How many messages could not be told apart.
    pub malformed: usize,
    /// Whether devices came or went meanwhile.
    pub interrupted: bool,
    /// Whether it is complete.
    pub done: bool,
}

/// Opens a route netlink socket in the network namespace of this thread.
pub(super) fn open() -> Result<OwnedFd, LinkError> {
    let failed = |what| move |source| LinkError::Socket { what, source };
    let (family, kind) = (AddressFamily::NETLINK, SocketType::RAW);
    let socket = socket_with(family, kind, SocketFlags::CLOEXEC, None).map_err(failed("open"))?;
    set_socket_timeout(&socket, Timeout::Recv, Some(PATIENCE)).map_err(failed("set up"))?;
    Ok(socket)
}

/// Asks for all links. The answers to earlier questions (other `sequence`
/// numbers) are passed over.
pub(super) fn dump_links(socket: &OwnedFd, sequence: u32) -> Result<Reply, LinkError> {
    let failed = |what| move |source| LinkError::Socket { what, source };
    let kernel = SocketAddrNetlink::new(0, 0);
    sendto(socket, &request(sequence), SendFlags::empty(), &kernel).map_err(failed("send over"))?;
    let mut reply = Reply::default();
    let mut buffer = vec![0; DATAGRAM];
    while !reply.done {
        let received = recvfrom(socket, buffer.as_mut_slice(), RecvFlags::TRUNC);
        let (length, from) = match received {
            Ok((_, length, from)) => (length, from),
            Err(Errno::INTR) => continue,
            Err(Errno::AGAIN) => return Err(LinkError::Timeout),
            Err(source) => return Err(failed("read from")(source)),
        };
        let from = from.and_then(|from| SocketAddrNetlink::try_from(from).ok());
        if from.is_none_or(|from| from.pid() != 0) {
            continue;
        }
        let datagram = buffer.get(..length).ok_or(LinkError::TooLong(length))?;
        reply.take(datagram, sequence)?;
    }
    Ok(reply)
}

fn request(sequence: u32) -> [u8; REQUEST] {
    let mut bytes = [0; REQUEST];
    let mut message = NetlinkBuffer::new(&mut bytes);
    message.set_length(REQUEST as u32);
    message.set_message_type(RTM_GETLINK);
    message.set_flags(NLM_F_REQUEST | NLM_F_DUMP);
    message.set_sequence_number(sequence);
    bytes
}

impl Reply {
    /// Takes in the messages of one datagram.
    fn take(&mut self, mut datagram: &[u8], sequence: u32) -> Result<(), LinkError> {
        while !datagram.is_empty() && !self.done {
            let Ok(message) = NetlinkBuffer::new_checked(datagram) else {
                self.malformed += 1;
                return Ok(());
            };
            let length = (message.length() as usize).next_multiple_of(4);
            datagram = datagram.get(length..).unwrap_or_default();
            if message.sequence_number() != sequence {
                continue;
            }
            self.interrupted |= message.flags() & NLM_F_DUMP_INTR != 0;
            match message.message_type() {
                RTM_NEWLINK => self.links.push(message.payload().to_vec()),
                // Both begin with a negative error number.
                NLMSG_DONE => {
                    errno(message.payload()).map_or(Ok(()), refused)?;
                    self.done = true;
                }
                NLMSG_ERROR => refused(errno(message.payload()).unwrap_or(Errno::IO))?,
                _ => {}
            }
        }
        Ok(())
    }
}

fn refused(problem: Errno) -> Result<(), LinkError> {
    Err(LinkError::Refused(problem))
}

fn errno(payload: &[u8]) -> Option<Errno> {
    let code = host_u32(payload)?.cast_signed();
    let code = code.checked_neg().filter(|code| (1..4096).contains(code))?;
    Some(Errno::from_raw_os_error(code))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn message(kind: u16, flags: u16, sequence: u32, payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; 16];
        bytes.extend_from_slice(payload);
        let length = u32::try_from(bytes.len()).unwrap();
        let mut message = NetlinkBuffer::new(&mut bytes);
        message.set_length(length);
        message.set_message_type(kind);
        message.set_flags(flags);
        message.set_sequence_number(sequence);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    #[test]
    fn takes_messages_until_done() {
        let datagram = [
            message(RTM_NEWLINK, 2, 1, b"one"),
            message(RTM_NEWLINK, 2, 9, b"of another"),
            message(4, 2, 1, b"overrun"),
            message(RTM_NEWLINK, 2 | NLM_F_DUMP_INTR, 1, b"two"),
            message(NLMSG_DONE, 2, 1, &[0; 4]),
            message(RTM_NEWLINK, 2, 1, b"late"),
        ]
        .concat();
        let mut reply = Reply::default();
        reply.take(&datagram, 1).unwrap();
        assert_eq!(reply.links, [b"one", b"two"]);
        assert!(reply.interrupted && reply.done);
        assert_eq!(reply.malformed, 0);
    }

    #[test]
    fn a_refusal_is_an_error() {
        for kind in [NLMSG_DONE, NLMSG_ERROR] {
            let datagram = message(kind, 0, 1, &(-1_i32).to_ne_bytes());
            let problem = Reply::default().take(&datagram, 1).unwrap_err();
            assert!(matches!(problem, LinkError::Refused(Errno::PERM)));
        }
        // Not even the end is said in full.
        assert!(
            Reply::default()
                .take(&message(NLMSG_ERROR, 0, 1, &[]), 1)
                .is_err()
        );
        for odd in [i32::MIN, -5000, 7] {
            assert_eq!(errno(&odd.to_ne_bytes()), None);
        }
    }

    #[test]
    fn cut_messages_are_counted() {
        let whole = message(RTM_NEWLINK, 2, 1, b"payload");
        for cut in 1..whole.len() - 1 {
            let mut reply = Reply::default();
            reply.take(&whole[..cut], 1).unwrap();
            assert_eq!((reply.links.len(), reply.malformed), (0, 1), "{cut}");
        }
    }

    proptest! {
        #[test]
        fn any_datagram_is_survived(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut reply = Reply::default();
            let _ = reply.take(&bytes, 0);
        }
    }
}
