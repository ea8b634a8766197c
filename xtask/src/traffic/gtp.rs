//! PDP contexts of gtp devices, which `ip` does not know.

use std::net::Ipv4Addr;

use anyhow::Context as _;
use clap::Args;
use neli::{
    consts::{nl::NlmF, socket::NlFamily},
    genl::{AttrTypeBuilder, Genlmsghdr, GenlmsghdrBuilder, NlattrBuilder, NoUserHeader},
    nl::NlPayload,
    router::synchronous::NlRouter,
    types::{Buffer, GenlBuffer},
    utils::Groups,
};

/// Commands, attributes and versions of include/uapi/linux/gtp.h.
const GTP_CMD_NEWPDP: u8 = 0;
const GTPA_LINK: u16 = 1;
const GTPA_VERSION: u16 = 2;
const GTPA_PEER_ADDRESS: u16 = 4;
const GTPA_MS_ADDRESS: u16 = 5;
const GTPA_I_TEI: u16 = 8;
const GTPA_O_TEI: u16 = 9;
const GTP_V1: u32 = 1;

#[derive(Debug, Args)]
pub struct Options {
    /// The gtp device, in this network namespace
    #[arg(long, value_name = "NAME")]
    dev: String,
    /// The mobile station's address
    #[arg(long, value_name = "ADDRESS")]
    station: Ipv4Addr,
    /// The other end of the tunnel
    #[arg(long, value_name = "ADDRESS")]
    peer: Ipv4Addr,
    /// Tunnel endpoint identifier of what comes in
    #[arg(long, value_name = "TEID")]
    incoming: u32,
    /// Tunnel endpoint identifier of what goes out
    #[arg(long, value_name = "TEID")]
    outgoing: u32,
}

/// Adds a context to a device.
pub fn command(options: &Options) -> anyhow::Result<()> {
    let socket = rustix::net::socket(
        rustix::net::AddressFamily::INET,
        rustix::net::SocketType::DGRAM,
        None,
    )?;
    let link = rustix::net::netdevice::name_to_index(socket, &options.dev)
        .with_context(|| format!("there is no device `{}` here", options.dev))?;
    let (router, _) = NlRouter::connect(NlFamily::Generic, None, Groups::empty())
        .context("cannot talk to the kernel over netlink")?;
    let family = router
        .resolve_genl_family("gtp")
        .context("the kernel has no gtp: is its module loaded?")?;
    let context = GenlmsghdrBuilder::<u8, u16, NoUserHeader>::default()
        .cmd(GTP_CMD_NEWPDP)
        .version(0)
        .attrs(attributes(options, link)?)
        .build()?;
    let answers = router.send::<_, _, u16, Genlmsghdr<u8, u16>>(
        family,
        NlmF::REQUEST | NlmF::ACK,
        NlPayload::Payload(context),
    )?;
    for answer in answers {
        answer.context("the kernel refused the context")?;
    }
    Ok(())
}

fn attributes(options: &Options, link: u32) -> anyhow::Result<GenlBuffer<u16, Buffer>> {
    [
        (GTPA_LINK, link),
        (GTPA_VERSION, GTP_V1),
        (GTPA_PEER_ADDRESS, u32::from(options.peer).to_be()),
        (GTPA_MS_ADDRESS, u32::from(options.station).to_be()),
        (GTPA_I_TEI, options.incoming),
        (GTPA_O_TEI, options.outgoing),
    ]
    .into_iter()
    .map(|(kind, value)| {
        let kind = AttrTypeBuilder::default().nla_type(kind).build()?;
        Ok(NlattrBuilder::default()
            .nla_type(kind)
            .nla_payload(value)
            .build()?)
    })
    .collect()
}
