//! Questions to the kernel over a netlink socket, and its answers.

use std::{ops::ControlFlow, os::fd::OwnedFd, time::Duration};

use netlink_packet_core::NetlinkBuffer;
use rustix::{
    io::Errno,
    net::{
        AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType,
        netlink::{self, SocketAddrNetlink},
        recvfrom, sendto, socket_with,
        sockopt::{Timeout, set_socket_timeout},
    },
};
use thiserror::Error;

use super::attr::host_u32;

/// Route netlink has number 0.
pub const ROUTE: Option<Protocol> = None;
pub const GENERIC: Option<Protocol> = Some(netlink::GENERIC);

/// How long the kernel may be silent.
const PATIENCE: Duration = Duration::from_secs(5);

/// The kernel makes datagrams of 32 KiB at most, unless one device needs more.
const DATAGRAM: usize = 256 * 1024;

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_DUMP_INTR: u16 = 0x10;
const NLM_F_DUMP: u16 = 0x300;

/// `struct nlmsghdr`.
const HEADER: usize = 16;

/// Why there is no answer.
#[derive(Debug, Error)]
pub enum WireError {
    /// No socket, or it does not work.
    #[error("cannot {what} netlink: {source}")]
    Socket {
        /// What was tried.
        what: &'static str,
        /// The system's reason.
        source: Errno,
    },
    /// The kernel's own answer.
    #[error("{0}")]
    Refused(Errno),
    /// Nothing came, or no end of it.
    #[error("no answer in {} s", PATIENCE.as_secs())]
    Timeout,
    /// A datagram longer than the kernel makes them.
    #[error("netlink message of {0} bytes is too long")]
    TooLong(usize),
}

/// What is asked.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// `RTM_GET…`, or the number of a family.
    pub kind: u16,
    /// All there is of it, or the one thing that the body asks for.
    pub dump: bool,
    /// What follows the netlink header.
    pub body: &'a [u8],
}

/// How complete an answer is.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// How many messages could not be told apart.
    pub malformed: usize,
    /// Whether what was asked for changed meanwhile.
    pub interrupted: bool,
}

/// Opens a netlink socket in the network namespace of this thread.
pub fn open(protocol: Option<Protocol>) -> Result<OwnedFd, WireError> {
    let failed = |what| move |source| WireError::Socket { what, source };
    let (family, kind) = (AddressFamily::NETLINK, SocketType::RAW);
    let socket =
        socket_with(family, kind, SocketFlags::CLOEXEC, protocol).map_err(failed("open"))?;
    set_socket_timeout(&socket, Timeout::Recv, Some(PATIENCE)).map_err(failed("set up"))?;
    Ok(socket)
}

/// Asks, and hands type and payload of each message of the answer to `take`
/// until that has enough. The answers to earlier questions (other `sequence`
/// numbers) are passed over.
pub fn ask(
    socket: &OwnedFd,
    request: Request,
    sequence: u32,
    take: &mut dyn FnMut(u16, &[u8]) -> ControlFlow<()>,
) -> Result<Answer, WireError> {
    let mut buffer = vec![0; DATAGRAM];
    let mut longest = 0;
    let answer = receive(socket, request, sequence, take, &mut buffer, &mut longest);
    // WireGuard's answer has its keys: they do not stay in memory.
    std::hint::black_box(&mut buffer[..longest.min(DATAGRAM)]).fill(0);
    answer
}

/// The same into `buffer`, of which `longest` bytes were used.
fn receive(
    socket: &OwnedFd,
    request: Request,
    sequence: u32,
    take: &mut dyn FnMut(u16, &[u8]) -> ControlFlow<()>,
    buffer: &mut [u8],
    longest: &mut usize,
) -> Result<Answer, WireError> {
    let failed = |what| move |source| WireError::Socket { what, source };
    let kernel = SocketAddrNetlink::new(0, 0);
    let bytes = request.bytes(sequence);
    sendto(socket, &bytes, SendFlags::empty(), &kernel).map_err(failed("send over"))?;
    let mut reading = Reading {
        dump: request.dump,
        sequence,
        answer: Answer::default(),
        done: false,
        take,
    };
    while !reading.done {
        let received = recvfrom(socket, &mut *buffer, RecvFlags::TRUNC);
        let (length, from) = match received {
            Ok((_, length, from)) => (length, from),
            Err(Errno::INTR) => continue,
            Err(Errno::AGAIN) => return Err(WireError::Timeout),
            Err(source) => return Err(failed("read from")(source)),
        };
        *longest = length.max(*longest);
        let from = from.and_then(|from| SocketAddrNetlink::try_from(from).ok());
        if from.is_none_or(|from| from.pid() != 0) {
            continue;
        }
        let datagram = buffer.get(..length).ok_or(WireError::TooLong(length))?;
        reading.datagram(datagram)?;
    }
    Ok(reading.answer)
}

impl Request<'_> {
    fn bytes(&self, sequence: u32) -> Vec<u8> {
        let mut bytes = vec![0; HEADER];
        bytes.extend_from_slice(self.body);
        let length = u32::try_from(bytes.len()).expect("bodies are short");
        let mut message = NetlinkBuffer::new(&mut bytes);
        message.set_length(length);
        message.set_message_type(self.kind);
        message.set_flags(NLM_F_REQUEST | if self.dump { NLM_F_DUMP } else { 0 });
        message.set_sequence_number(sequence);
        bytes
    }
}

/// An answer on its way.
struct Reading<'a> {
    dump: bool,
    sequence: u32,
    answer: Answer,
    done: bool,
    take: &'a mut dyn FnMut(u16, &[u8]) -> ControlFlow<()>,
}

impl Reading<'_> {
    /// Takes in the messages of one datagram.
    fn datagram(&mut self, mut datagram: &[u8]) -> Result<(), WireError> {
        while !datagram.is_empty() && !self.done {
            let Ok(message) = NetlinkBuffer::new_checked(datagram) else {
                self.answer.malformed += 1;
                return Ok(());
            };
            let length = (message.length() as usize).next_multiple_of(4);
            datagram = datagram.get(length..).unwrap_or_default();
            if message.sequence_number() != self.sequence {
                continue;
            }
            self.answer.interrupted |= message.flags() & NLM_F_DUMP_INTR != 0;
            match message.message_type() {
                // Both begin with a negative error number.
                NLMSG_DONE => {
                    errno(message.payload()).map_or(Ok(()), refused)?;
                    self.done = true;
                }
                NLMSG_ERROR => refused(errno(message.payload()).unwrap_or(Errno::IO))?,
                kind => {
                    let enough = (self.take)(kind, message.payload()).is_break();
                    self.done = enough || !self.dump;
                }
            }
        }
        Ok(())
    }
}

fn refused(problem: Errno) -> Result<(), WireError> {
    Err(WireError::Refused(problem))
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

    const RTM_NEWLINK: u16 = 16;

    fn message(kind: u16, flags: u16, sequence: u32, payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; HEADER];
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

    /// What is taken of a datagram that answers question 1, and how it ends.
    fn read(
        dump: bool,
        datagram: &[u8],
        enough: usize,
    ) -> Result<(Vec<Vec<u8>>, Answer, bool), WireError> {
        let mut taken = Vec::new();
        let mut take = |kind, payload: &[u8]| {
            if kind == RTM_NEWLINK {
                taken.push(payload.to_vec());
            }
            if taken.len() < enough {
                ControlFlow::Continue(())
            } else {
                ControlFlow::Break(())
            }
        };
        let mut reading = Reading {
            dump,
            sequence: 1,
            answer: Answer::default(),
            done: false,
            take: &mut take,
        };
        reading.datagram(datagram)?;
        let (answer, done) = (reading.answer, reading.done);
        Ok((taken, answer, done))
    }

    fn example() -> Vec<u8> {
        [
            message(RTM_NEWLINK, 2, 1, b"one"),
            message(RTM_NEWLINK, 2, 9, b"of another"),
            message(4, 2, 1, b"overrun"),
            message(RTM_NEWLINK, 2 | NLM_F_DUMP_INTR, 1, b"two"),
            message(NLMSG_DONE, 2, 1, &[0; 4]),
            message(RTM_NEWLINK, 2, 1, b"late"),
        ]
        .concat()
    }

    #[test]
    fn takes_messages_until_done() {
        let (taken, answer, done) = read(true, &example(), usize::MAX).unwrap();
        assert_eq!(taken, [b"one", b"two"]);
        assert!(answer.interrupted && done);
        assert_eq!(answer.malformed, 0);
    }

    #[test]
    fn takes_messages_until_there_are_enough() {
        let (taken, answer, done) = read(true, &example(), 1).unwrap();
        assert_eq!(taken, [b"one"]);
        assert!(done && !answer.interrupted);
        // One thing was asked for.
        let (taken, _, done) = read(false, &example(), usize::MAX).unwrap();
        assert_eq!(taken, [b"one"]);
        assert!(done);
    }

    #[test]
    fn a_request_has_its_header() {
        let request = Request {
            kind: 26,
            dump: true,
            body: &[7; 4],
        };
        let bytes = request.bytes(3);
        assert_eq!(bytes, message(26, NLM_F_REQUEST | NLM_F_DUMP, 3, &[7; 4]));
    }

    #[test]
    fn a_refusal_is_an_error() {
        for kind in [NLMSG_DONE, NLMSG_ERROR] {
            let datagram = message(kind, 0, 1, &(-1_i32).to_ne_bytes());
            let problem = read(true, &datagram, 9).unwrap_err();
            assert!(matches!(problem, WireError::Refused(Errno::PERM)));
        }
        // Not even the end is said in full.
        assert!(read(true, &message(NLMSG_ERROR, 0, 1, &[]), 9).is_err());
        for odd in [i32::MIN, -5000, 7] {
            assert_eq!(errno(&odd.to_ne_bytes()), None);
        }
    }

    #[test]
    fn cut_messages_are_counted() {
        let whole = message(RTM_NEWLINK, 2, 1, b"payload");
        for cut in 1..whole.len() - 1 {
            let (taken, answer, _) = read(true, &whole[..cut], 9).unwrap();
            assert_eq!((taken.len(), answer.malformed), (0, 1), "{cut}");
        }
    }

    proptest! {
        #[test]
        fn any_datagram_is_survived(
            dump: bool,
            bytes in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            let _ = read(dump, &bytes, 9);
        }
    }
}
