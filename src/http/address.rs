//! Which addresses a request may go to. Pure: an address and the policy in, a verdict out.
//!
//! IPv4 is open except for the special blocks of IANA's registry (RFC 6890 and later). IPv6 is closed except for
//! global unicast, `2000::/3`, less the blocks that tunnel to or embed something else. `egress_allow` opens more.
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
        IpAddr::V6(ip) => {
            let special = CLOSED_V6.iter().find(|(net, _)| net.contains(&ip)).map(|(_, why)| *why);
            special.or_else(|| (!GLOBAL_UNICAST.contains(&ip)).then_some("a reserved address"))
        }
    }
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
const CLOSED_V6: [(Ipv6Net, &str); 13] = [
    (v6([0, 0, 0, 0, 0, 0, 0, 1], 128), "a loopback address"),
    (v6([0; 8], 128), "an unspecified address"),
    (NAT64, "a NAT64 address"),
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
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn nets(list: &[&str]) -> Vec<IpNet> {
        list.iter().map(|net| net.parse().unwrap()).collect()
    }

    /// The ways to write an IPv4 address as an IPv6 one.
    fn wrappers(inner: Ipv4Addr) -> Vec<Ipv6Addr> {
        let [a, b, c, d] = inner.octets().map(u16::from);
        let (high, low) = (a << 8 | b, c << 8 | d);
        vec![
            inner.to_ipv6_mapped(),
            Ipv6Addr::new(0, 0, 0, 0, 0, 0, high, low),
            Ipv6Addr::new(0, 0, 0, 0, 0xffff, 0, high, low),
            Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, high, low),
            Ipv6Addr::new(0x64, 0xff9b, 1, 0, 0, 0, high, low),
            Ipv6Addr::new(0x64, 0xff9b, 1, high, c, d << 8, 0, 0),
            Ipv6Addr::new(0x64, 0xff9b, 1, a, b, c << 8 | d, 0, 0),
            Ipv6Addr::new(0x64, 0xff9b, 1, 0, a, b << 8 | c, d << 8, 0),
            Ipv6Addr::new(0x2002, high, low, 0, 0, 0, 0, 1),
            Ipv6Addr::new(0x2001, 0, high, low, 0, 0, 0, 0),
            Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, !high, !low),
            Ipv6Addr::new(0x2a00, 1, 2, 3, 0, 0x5efe, high, low),
            Ipv6Addr::new(0xfe80, 0, 0, 0, 0x200, 0x5efe, high, low),
        ]
    }

    #[test]
    fn special_addresses_are_refused() {
        for text in [
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "100.64.0.1",
            "100.127.255.255",
            "127.0.0.1",
            "127.255.255.254",
            "169.254.1.1",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.1",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.0.1",
            "198.18.0.1",
            "198.19.255.255",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "239.255.255.255",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::2",
            "100::1",
            "64:ff9b::808:808",
            "64:ff9b:1::1",
            "2001::1",
            "2001:2::1",
            "2001:10::1",
            "2001:20::1",
            "2001:db8::1",
            "2002:808:808::1",
            "3fff::1",
            "5f00::1",
            "fc00::1",
            "fdff::1",
            "fe80::1",
            "fec0::1",
            "ff02::1",
            "::ffff:10.0.0.1",
            "::8.8.8.8",
        ] {
            assert!(permitted(ip(text), &[]).is_err(), "{text} was permitted");
        }
    }

    #[test]
    fn public_addresses_are_permitted() {
        for text in [
            "1.1.1.1",
            "8.8.8.8",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "126.255.255.255",
            "128.0.0.1",
            "172.15.255.255",
            "172.32.0.0",
            "192.0.1.1",
            "198.17.255.255",
            "198.20.0.0",
            "223.255.255.255",
            "2606:4700::1111",
            "2a00:1450:4001::5",
            "2001:4860:4860::8888",
            "::ffff:8.8.8.8",
        ] {
            assert_eq!(permitted(ip(text), &[]), Ok(()), "{text} was refused");
        }
    }

    #[test]
    fn a_list_opens_exactly_its_networks() {
        let allow = nets(&["10.1.0.0/16", "fd00:1::/32", "::ffff:192.168.7.0/120"]);
        for open in ["10.1.2.3", "::ffff:10.1.2.3", "fd00:1::9", "192.168.7.1", "8.8.8.8"] {
            assert_eq!(permitted(ip(open), &allow), Ok(()), "{open} was refused");
        }
        for closed in ["10.2.0.1", "127.0.0.1", "fd00:2::9", "::ffff:10.2.0.1", "192.168.8.1", "::1"] {
            assert!(permitted(ip(closed), &allow).is_err(), "{closed} was permitted");
        }
        assert!(permitted(ip("10.0.0.1"), &nets(&["::/0"])).is_err());
        assert!(permitted(ip("fd00:1::9"), &nets(&["0.0.0.0/0"])).is_err());
    }

    #[test]
    fn metadata_addresses_stay_closed_under_any_list() {
        let all =
            nets(&["0.0.0.0/0", "::/0", "::ffff:0.0.0.0/96", "169.254.169.254/32", "fd00:ec2::254/128"]);
        for text in ["169.254.169.254", "169.254.170.2", "168.63.129.16", "100.100.100.200"] {
            let IpAddr::V4(plain) = ip(text) else { panic!() };
            assert!(permitted(ip(text), &all).is_err(), "{text} was permitted");
            for wrapped in wrappers(plain) {
                assert!(permitted(wrapped.into(), &all).is_err(), "{wrapped} ({text}) was permitted");
            }
        }
        for text in ["fd00:ec2::254", "fd00:ec2::23", "fd20:ce::254"] {
            assert!(permitted(ip(text), &all).is_err(), "{text} was permitted");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1024))]

        /// The standard library and this table were written by different people.
        #[test]
        fn the_standard_library_agrees_about_ipv4(bits: u32) {
            let v4 = Ipv4Addr::from_bits(bits);
            let special = v4.is_private() || v4.is_loopback() || v4.is_link_local() || v4.is_multicast()
                || v4.is_broadcast() || v4.is_documentation() || v4.is_unspecified();
            prop_assert!(!special || refused(v4.into()).is_some());
        }

        #[test]
        fn a_wrapped_special_address_is_refused(bits: u32, block in 0..CLOSED_V4.len()) {
            let net = CLOSED_V4[block].0;
            let inner = Ipv4Addr::from_bits(net.network().to_bits() | (bits & net.hostmask().to_bits()));
            prop_assert!(refused(inner.into()).is_some());
            for wrapped in wrappers(inner) {
                let public_isatap = is_isatap(wrapped) && GLOBAL_UNICAST.contains(&wrapped);
                prop_assert!(public_isatap || refused(wrapped.into()).is_some(), "{wrapped} was permitted");
            }
        }

        #[test]
        fn only_global_unicast_is_open_in_ipv6(bits: u128) {
            let v6 = Ipv6Addr::from_bits(bits);
            let open = refused(v6.into()).is_none();
            prop_assert!(!open || GLOBAL_UNICAST.contains(&v6) || v6.to_ipv4_mapped().is_some());
            prop_assert!(refused(Ipv6Addr::from_bits(bits >> 8).into()).is_some(), "::/8 is closed");
        }
    }
}
