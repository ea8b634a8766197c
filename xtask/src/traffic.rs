//! `traffic`: what the scenarios send through a tunnel in a guest, where no
//! other program makes it: a TCP stream each way, UDP as fast as it goes, and
//! a packet socket that copies everything. And contexts for gtp, without which
//! nothing goes through it.

mod gtp;
pub mod storm;

use std::{
    io::{ErrorKind, Read, Write as _},
    net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    process::Command,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use clap::{Args, Subcommand};
use socket2::{Domain, Protocol, Socket, Type};

/// How long a stream may stand still, an accept included.
const PATIENCE: Duration = Duration::from_secs(60);
/// What is written and read at a time.
const CHUNK: usize = 64 * 1024;
/// `ETH_P_ALL`: packets of every protocol.
const EVERYTHING: u16 = 3;

#[derive(Debug, Args)]
pub struct Options {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Take one stream and send as many bytes back
    TcpServe {
        #[arg(long)]
        port: u16,
    },
    /// Send a stream and take as many bytes back
    TcpSend {
        #[arg(long, value_name = "ADDRESS:PORT")]
        to: SocketAddr,
        #[arg(long)]
        bytes: u64,
    },
    /// Send packets as fast as they go
    Udp {
        #[arg(long, value_name = "ADDRESS:PORT")]
        to: SocketAddr,
        #[arg(long)]
        packets: u64,
        /// Bytes of payload
        #[arg(long, default_value_t = 64)]
        size: usize,
    },
    /// Send packets from one processor, timed in chunks; for the benchmark
    Storm(storm::Options),
    /// Give a gtp device a PDP context (GTPv1)
    GtpContext(gtp::Options),
    /// Run a command while a packet socket sees what all devices here carry
    Tap {
        /// Read nothing, so that the socket is soon full
        #[arg(long)]
        deaf: bool,
        #[arg(trailing_var_arg = true, required = true, value_name = "COMMAND")]
        command: Vec<String>,
    },
}

/// Hands back the exit status.
pub fn command(options: &Options) -> anyhow::Result<i32> {
    match &options.what {
        What::TcpServe { port } => {
            let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, *port))
                .with_context(|| format!("cannot listen at TCP port {port}"))?;
            // Who starts us waits for this line.
            println!("listening");
            let bytes = serve(&listener)?;
            println!("{bytes} bytes came and went");
        }
        What::TcpSend { to, bytes } => {
            let began = Instant::now();
            send(*to, *bytes)?;
            println!("{bytes} bytes each way in {:.1?}", began.elapsed());
        }
        What::Udp { to, packets, size } => {
            let began = Instant::now();
            let (sent, refused) = flood(*to, *packets, *size)?;
            let took = began.elapsed();
            println!("{sent} packets of {size} bytes sent, {refused} refused, in {took:.3?}");
        }
        What::Storm(options) => storm::command(options)?,
        What::GtpContext(options) => gtp::command(options)?,
        What::Tap { deaf, command } => return tap(*deaf, command),
    }
    Ok(0)
}

/// Takes one connection: the number of bytes, that many bytes, and the same back.
fn serve(listener: &TcpListener) -> anyhow::Result<u64> {
    let mut stream = accept(listener)?;
    let mut length = [0; 8];
    stream
        .read_exact(&mut length)
        .context("the peer did not say how many bytes come")?;
    let bytes = u64::from_be_bytes(length);
    take(&mut stream, bytes)?;
    give(&mut stream, bytes)?;
    // The peer has it all when it hangs up.
    end(&mut stream)?;
    Ok(bytes)
}

/// `TcpListener` itself waits for ever.
fn accept(listener: &TcpListener) -> anyhow::Result<TcpStream> {
    listener.set_nonblocking(true)?;
    let began = Instant::now();
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(false)?;
                return patient(stream);
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                ensure!(began.elapsed() < PATIENCE, "nobody connected");
                thread::sleep(Duration::from_millis(10));
            }
            Err(error) => return Err(error).context("cannot accept a connection"),
        }
    }
}

fn send(to: SocketAddr, bytes: u64) -> anyhow::Result<()> {
    let stream = TcpStream::connect_timeout(&to, PATIENCE)
        .with_context(|| format!("cannot connect to {to}"))?;
    let mut stream = patient(stream)?;
    stream
        .write_all(&bytes.to_be_bytes())
        .context("cannot send")?;
    give(&mut stream, bytes)?;
    take(&mut stream, bytes)?;
    stream.shutdown(std::net::Shutdown::Write)?;
    end(&mut stream)
}

fn patient(stream: TcpStream) -> anyhow::Result<TcpStream> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// Which byte is where: a chunk that is lost, doubled or out of place shows,
/// since 251 divides no chunk. Made once, so that an emulated processor only
/// has to copy and to compare.
struct Pattern(Vec<u8>);

impl Pattern {
    const PERIOD: u8 = 251;

    fn new() -> Self {
        Self((0..Self::PERIOD).cycle().take(2 * CHUNK).collect())
    }

    /// What a stream of `bytes` has at `done`, a chunk at most.
    fn at(&self, done: u64, bytes: u64) -> &[u8] {
        let left = usize::try_from(bytes - done).unwrap_or(CHUNK);
        let phase = usize::try_from(done % u64::from(Self::PERIOD)).unwrap_or_default();
        &self.0[phase..][..left.min(CHUNK)]
    }
}

fn give(stream: &mut TcpStream, bytes: u64) -> anyhow::Result<()> {
    let pattern = Pattern::new();
    let mut done = 0;
    while done < bytes {
        let part = pattern.at(done, bytes);
        stream
            .write_all(part)
            .with_context(|| format!("cannot send more than {done} of {bytes} bytes"))?;
        done += part.len() as u64;
    }
    Ok(())
}

fn take(stream: &mut TcpStream, bytes: u64) -> anyhow::Result<()> {
    let pattern = Pattern::new();
    let mut chunk = vec![0; CHUNK];
    let mut done = 0;
    while done < bytes {
        let wanted = pattern.at(done, bytes);
        let got = stream
            .read(&mut chunk[..wanted.len()])
            .with_context(|| format!("nothing came after {done} of {bytes} bytes"))?;
        ensure!(got > 0, "the stream ended after {done} of {bytes} bytes");
        ensure!(
            chunk[..got] == wanted[..got],
            "other bytes came than were sent, after {done} of {bytes}"
        );
        done += got as u64;
    }
    Ok(())
}

/// The peer has nothing more to say.
fn end(stream: &mut TcpStream) -> anyhow::Result<()> {
    let more = stream
        .read(&mut [0])
        .context("the peer did not end the stream")?;
    ensure!(more == 0, "more bytes came than were sent");
    Ok(())
}

/// How many packets the kernel took, and how many it refused.
fn flood(to: SocketAddr, packets: u64, size: usize) -> anyhow::Result<(u64, u64)> {
    let any = match to {
        SocketAddr::V4(_) => "0.0.0.0:0",
        SocketAddr::V6(_) => "[::]:0",
    };
    let socket = UdpSocket::bind(any).context("cannot make a UDP socket")?;
    socket
        .connect(to)
        .with_context(|| format!("there is no way to {to}"))?;
    let payload = vec![0; size];
    let mut sent = 0;
    let mut refusal = None;
    for _ in 0..packets {
        // A queue can be full, or an ICMP error about an earlier packet come.
        match socket.send(&payload) {
            Ok(_) => sent += 1,
            Err(error) => refusal = Some(error),
        }
    }
    match refusal {
        Some(error) if sent == 0 => {
            Err(error).with_context(|| format!("cannot send {size} bytes to {to}"))
        }
        _ => Ok((sent, packets - sent)),
    }
}

/// Hands back the command's exit status.
fn tap(deaf: bool, command: &[String]) -> anyhow::Result<i32> {
    // Not bound to any device: it sees all of them.
    let protocol = Protocol::from(i32::from(EVERYTHING.to_be()));
    let socket = Socket::new(Domain::PACKET, Type::RAW, Some(protocol))
        .context("cannot make a packet socket: are you root?")?;
    let status = if deaf {
        status(command)?
    } else {
        let (status, seen) = watched(&socket, command)?;
        println!("the tap saw {seen} packets");
        ensure!(seen > 0, "the tap saw no packet");
        status
    };
    Ok(status)
}

/// The command's exit status, and how many packets came by meanwhile.
fn watched(mut socket: &Socket, command: &[String]) -> anyhow::Result<(i32, u64)> {
    socket.set_read_timeout(Some(Duration::from_millis(100)))?;
    let over = AtomicBool::new(false);
    let seen = AtomicU64::new(0);
    let status = thread::scope(|scope| {
        scope.spawn(|| {
            let mut packet = vec![0; CHUNK];
            while !over.load(Ordering::Relaxed) {
                if socket.read(&mut packet).is_ok() {
                    seen.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        let status = status(command);
        over.store(true, Ordering::Relaxed);
        status
    })?;
    Ok((status, seen.into_inner()))
}

fn status(command: &[String]) -> anyhow::Result<i32> {
    let Some((program, arguments)) = command.split_first() else {
        bail!("no command");
    };
    let status = Command::new(program)
        .args(arguments)
        .status()
        .with_context(|| format!("cannot start `{program}`"))?;
    Ok(status.code().unwrap_or(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_goes_each_way() {
        for local in ["127.0.0.1:0", "[::1]:0"] {
            for bytes in [0, 1, 1_000_000] {
                let listener = TcpListener::bind(local).unwrap();
                let to = listener.local_addr().unwrap();
                let server = thread::spawn(move || serve(&listener));
                send(to, bytes).unwrap();
                assert_eq!(server.join().unwrap().unwrap(), bytes);
            }
        }
    }

    #[test]
    fn a_stream_that_ends_early_is_an_error() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let to = listener.local_addr().unwrap();
        let server = thread::spawn(move || serve(&listener));
        let mut stream = TcpStream::connect(to).unwrap();
        stream.write_all(&10u64.to_be_bytes()).unwrap();
        stream.write_all(&[0, 1, 2]).unwrap();
        drop(stream);
        let error = server.join().unwrap().unwrap_err().to_string();
        assert!(error.contains("after 3 of 10 bytes"), "{error}");
    }

    #[test]
    fn other_bytes_are_an_error() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let to = listener.local_addr().unwrap();
        let server = thread::spawn(move || serve(&listener));
        let mut stream = TcpStream::connect(to).unwrap();
        stream.write_all(&3u64.to_be_bytes()).unwrap();
        stream.write_all(&[0, 2, 1]).unwrap();
        let error = server.join().unwrap().unwrap_err().to_string();
        assert!(error.contains("other bytes"), "{error}");
    }

    #[test]
    fn packets_are_counted() {
        let taker = UdpSocket::bind("127.0.0.1:0").unwrap();
        taker.set_read_timeout(Some(PATIENCE)).unwrap();
        let (sent, refused) = flood(taker.local_addr().unwrap(), 5, 33).unwrap();
        assert_eq!((sent, refused), (5, 0));
        let mut packet = [0; 64];
        for _ in 0..5 {
            assert_eq!(taker.recv(&mut packet).unwrap(), 33);
        }
    }

    #[test]
    fn a_packet_that_cannot_be_is_an_error() {
        let to = "127.0.0.1:9".parse().unwrap();
        assert!(flood(to, 1, 100_000).is_err());
    }
}
