//! Which addresses a request may go to. Pure: an address and the policy in, a verdict out.
//!
//! IPv4 is open except for the special blocks of IANA's registry (RFC 6890 and later). IPv6 is closed except for
//! global unicast, `2000::/3`, less the blocks that tunnel to or embed something else, and for the well-known prefix of
//! NAT64, whose addresses are as open as the IPv4 address they carry: where DNS64 is at work, every IPv4 receiver has such
//! an address (RFC 6147). `egress_allow` opens more.
//! Metadata services of the clouds hand out credentials to whoever asks, so they stay closed whatever it says, in
//! every form that can carry an IPv4 address inside an IPv6 one.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// Says whether a request may go to this address, and otherwise why not.
pub fn permitted(ip: IpAddr, allow: &[IpNet]) -> Result<(), &'static str> {
    if is_metadata(ip) {
        return Err("a cloud metadata address");
    }
    match refused(ip) {
        Some(why) if !is_listed(ip, allow) => Err(why),
        _ => Ok(()),
    }
}

/// The class for which an address is refused unless a list opens it; `None` for a public address.
pub fn refused(ip: IpAddr) -> Option<&'static str> {
    match ip.to_canonical() {
        IpAddr::V4(ip) => CLOSED_V4.iter().find(|(net, _)| net.contains(&ip)).map(|(_, why)| *why),
        IpAddr::V6(ip) if NAT64.contains(&ip) => embedded(ip).find_map(|inner| refused(inner.into())),
        IpAddr::V6(ip) => {
            let special = CLOSED_V6.iter().find(|(net, _)| net.contains(&ip)).map(|(_, why)| *why);
            special.or_else(|| (!GLOBAL_UNICAST.contains(&ip)).then_some("a reserved address"))
        }
    }
}

/// The address that a name stands for wherever it is looked up: RFC 6761, section 6.3, and the metadata services.
pub(super) fn stands_for(name: &str) -> Option<IpAddr> {
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    if name == "localhost" || name.ends_with(".localhost") {
        return Some(Ipv4Addr::LOCALHOST.into());
    }
    METADATA_NAMES.contains(&name.as_str()).then_some(Ipv4Addr::new(169, 254, 169, 254).into())
}

/// An IPv4-mapped address counts as the IPv4 address the kernel would connect to; so does a mapped network.
fn is_listed(ip: IpAddr, allow: &[IpNet]) -> bool {
    let ip = ip.to_canonical();
    allow.iter().any(|net| match net {
        IpNet::V6(v6) if MAPPED.contains(v6) => match (ip, v6.addr().to_ipv4_mapped()) {
            (IpAddr::V4(ip), Some(base)) => {
                Ipv4Net::new(base, v6.prefix_len() - MAPPED.prefix_len()).is_ok_and(|net| net.contains(&ip))
            }
            _ => false,
        },
        net => net.contains(&ip),
    })
}

fn is_metadata(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => METADATA_V4.iter().any(|net| net.contains(&ip)),
        IpAddr::V6(ip) => {
            METADATA_V6.contains(&ip)
                || embedded(ip).any(|inner| METADATA_V4.iter().any(|net| net.contains(&inner)))
        }
    }
}

/// Every IPv4 address that some mechanism could read out of this IPv6 address.
fn embedded(ip: Ipv6Addr) -> impl Iterator<Item = Ipv4Addr> {
    let bytes = ip.octets();
    let four =
        move |at: [usize; 4]| Some(Ipv4Addr::new(bytes[at[0]], bytes[at[1]], bytes[at[2]], bytes[at[3]]));
    let last = four([12, 13, 14, 15]);
    let found = if SIX_TO_FOUR.contains(&ip) {
        [four([2, 3, 4, 5]), None, None, None]
    } else if TEREDO.contains(&ip) {
        // RFC 4380: the server in the clear, the client with its bits inverted.
        let client = last.map(|ip| Ipv4Addr::from_bits(!ip.to_bits()));
        [four([4, 5, 6, 7]), client, None, None]
    } else if NAT64_LOCAL.contains(&ip) {
        // RFC 6052, section 2.2: prefixes of 48, 56, 64 and 96 bits; byte 8 is skipped.
        [four([6, 7, 9, 10]), four([7, 9, 10, 11]), four([9, 10, 11, 12]), last]
    } else if NAT64.contains(&ip) || COMPATIBLE.contains(&ip) || TRANSLATED.contains(&ip) || is_isatap(ip) {
        [last, None, None, None]
    } else {
        [None; 4]
    };
    found.into_iter().flatten()
}

/// RFC 5214: the interface identifier says `[02]00:5efe` and an IPv4 address.
fn is_isatap(ip: Ipv6Addr) -> bool {
    matches!(ip.segments(), [_, _, _, _, 0x0000 | 0x0200, 0x5efe, _, _])
}

const fn v4(a: u8, b: u8, c: u8, d: u8, bits: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), bits)
}

const fn v6(s: [u16; 8], bits: u8) -> Ipv6Net {
    Ipv6Net::new_assert(Ipv6Addr::new(s[0], s[1], s[2], s[3], s[4], s[5], s[6], s[7]), bits)
}

const GLOBAL_UNICAST: Ipv6Net = v6([0x2000, 0, 0, 0, 0, 0, 0, 0], 3);
const MAPPED: Ipv6Net = v6([0, 0, 0, 0, 0, 0xffff, 0, 0], 96);
const TRANSLATED: Ipv6Net = v6([0, 0, 0, 0, 0xffff, 0, 0, 0], 96);
const COMPATIBLE: Ipv6Net = v6([0; 8], 96);
const NAT64: Ipv6Net = v6([0x64, 0xff9b, 0, 0, 0, 0, 0, 0], 96);
const NAT64_LOCAL: Ipv6Net = v6([0x64, 0xff9b, 1, 0, 0, 0, 0, 0], 48);
const TEREDO: Ipv6Net = v6([0x2001, 0, 0, 0, 0, 0, 0, 0], 32);
const SIX_TO_FOUR: Ipv6Net = v6([0x2002, 0, 0, 0, 0, 0, 0, 0], 16);

const CLOSED_V4: [(Ipv4Net, &str); 16] = [
    (v4(0, 0, 0, 0, 8), "an unspecified address"),
    (v4(10, 0, 0, 0, 8), "a private address"),
    (v4(100, 64, 0, 0, 10), "a carrier-grade NAT address"),
    (v4(127, 0, 0, 0, 8), "a loopback address"),
    (v4(169, 254, 0, 0, 16), "a link-local address"),
    (v4(172, 16, 0, 0, 12), "a private address"),
    (v4(192, 0, 0, 0, 24), "a protocol assignment"),
    (v4(192, 0, 2, 0, 24), "a documentation address"),
    (v4(192, 88, 99, 0, 24), "a 6to4 relay"),
    (v4(192, 168, 0, 0, 16), "a private address"),
    (v4(198, 18, 0, 0, 15), "a benchmark address"),
    (v4(198, 51, 100, 0, 24), "a documentation address"),
    (v4(203, 0, 113, 0, 24), "a documentation address"),
    (v4(224, 0, 0, 0, 4), "a multicast address"),
    (v4(255, 255, 255, 255, 32), "the broadcast address"),
    (v4(240, 0, 0, 0, 4), "a reserved address"),
];

/// Blocks inside `2000::/3`, and names for the best known ones outside, which are all closed.
const CLOSED_V6: [(Ipv6Net, &str); 12] = [
    (v6([0, 0, 0, 0, 0, 0, 0, 1], 128), "a loopback address"),
    (v6([0; 8], 128), "an unspecified address"),
    (NAT64_LOCAL, "a NAT64 address"),
    (v6([0x100, 0, 0, 0, 0, 0, 0, 0], 64), "a discard address"),
    (TEREDO, "a Teredo address"),
    // RFC 2928: protocol assignments, among them benchmarking and ORCHID.
    (v6([0x2001, 0, 0, 0, 0, 0, 0, 0], 23), "a protocol assignment"),
    (v6([0x2001, 0xdb8, 0, 0, 0, 0, 0, 0], 32), "a documentation address"),
    (v6([0x3fff, 0, 0, 0, 0, 0, 0, 0], 20), "a documentation address"),
    (SIX_TO_FOUR, "a 6to4 address"),
    (v6([0xfc00, 0, 0, 0, 0, 0, 0, 0], 7), "a private address"),
    (v6([0xfe80, 0, 0, 0, 0, 0, 0, 0], 9), "a link-local address"),
    (v6([0xff00, 0, 0, 0, 0, 0, 0, 0], 8), "a multicast address"),
];

const METADATA_V4: [Ipv4Net; 8] = [
    // AWS, Google Cloud, Azure, Oracle, DigitalOcean, Hetzner and many more.
    v4(169, 254, 169, 0, 24),
    // AWS: container and pod credentials (.2 and .23).
    v4(169, 254, 170, 0, 24),
    // Azure's host agent, in public space.
    v4(168, 63, 129, 16, 32),
    // Alibaba Cloud.
    v4(100, 100, 100, 200, 32),
    // Oracle Cloud, classic.
    v4(192, 0, 0, 192, 32),
    // Tencent Cloud.
    v4(169, 254, 0, 23, 32),
    // Scaleway.
    v4(169, 254, 42, 42, 32),
    // Joyent and early OpenStack images.
    v4(169, 254, 0, 1, 32),
];

/// Google Cloud, and AWS in its old networks.
const METADATA_NAMES: [&str; 4] =
    ["metadata.google.internal", "metadata.goog", "instance-data", "instance-data.ec2.internal"];

const METADATA_V6: [Ipv6Addr; 5] = [
    // AWS: instance metadata, its DNS, pod credentials.
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254),
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x253),
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x23),
    // Google Cloud.
    Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254),
    // Scaleway.
    Ipv6Addr::new(0xfd00, 0x42, 0, 0, 0, 0, 0, 0x42),
];

#[cfg(test)]
mod tests;
