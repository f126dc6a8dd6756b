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
        "64:ff9b::a00:1",
        "64:ff9b:1::1",
        "64:ff9b:1::808:808",
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
        "64:ff9b::808:808",
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
    let all = nets(&["0.0.0.0/0", "::/0", "::ffff:0.0.0.0/96", "169.254.169.254/32", "fd00:ec2::254/128"]);
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

/// What the tests of two others in the field say of an address (hook0's `output-worker/src/dns.rs`, svix-server's
/// `core/webhook_http_client.rs`), those in [`STRICTER`] apart.
const REFUSED_BY_HOOK0: [&str; 49] = [
    "0.0.0.0",
    "127.0.0.1",
    "10.0.0.1",
    "172.16.5.4",
    "192.168.1.1",
    "100.64.0.1",
    "169.254.1.1",
    "169.254.169.254",
    "192.88.99.1",
    "224.0.0.1",
    "239.255.255.250",
    "255.255.255.255",
    "::1",
    "::",
    "1::1",
    "0:0:0:1::1",
    "ff:ffff::1",
    "fc00::1",
    "fe80::1",
    "::ffff:127.0.0.1",
    "::ffff:169.254.169.254",
    "64:ff9b:1::1",
    "100::1",
    "fec0::1",
    "5f00::1",
    "ff02::1",
    "ff0e::1",
    "2001::1",
    "2001:1ff::1",
    "2001:db8::1",
    "3fff::1",
    "3fff:fff::1",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b::7f00:1",
    "64:ff9b::a00:1",
    "64:ff9b::e000:1",
    "64:ff9b::c058:6301",
    "64:ff9b::",
    "64:ff9b:0:1::1",
    "2002:a9fe:a9fe::1",
    "2002:7f00:1::1",
    "2002:5db8:d822::1",
    "::7f00:1",
    "::a9fe:a9fe",
    "::ffff:0:7f00:1",
    "::ffff:0:a9fe:a9fe",
    "::ffff:0:5db8:d822",
    "::5efe:7f00:1",
    "::5efe:a9fe:a9fe",
];
const ALLOWED_BY_HOOK0: [&str; 12] = [
    "1.1.1.1",
    "8.8.8.8",
    "93.184.216.34",
    "192.88.98.255",
    "192.88.100.1",
    "223.255.255.255",
    "2606:4700:4700::1111",
    "2001:4860:4860::8888",
    "64:ff9b::5db8:d822",
    "64:ff9b::101:101",
    "2001:200::1",
    "3fff:1000::1",
];
const REFUSED_BY_SVIX: [&str; 19] = [
    "10.254.0.0",
    "192.168.10.65",
    "172.16.10.65",
    "0.1.2.3",
    "0.0.0.0",
    "127.0.0.1",
    "169.254.45.1",
    "255.255.255.255",
    "192.0.2.255",
    "198.51.100.65",
    "203.0.113.6",
    "100.100.0.0",
    "192.0.0.0",
    "192.0.0.255",
    "250.10.20.30",
    "198.18.0.0",
    "::1",
    "::ffff:127.0.0.1",
    "::ffff:0.0.0.1",
];
const ALLOWED_BY_SVIX: [&str; 3] = ["1.1.1.1", "2001:4860:4860::8888", "::ffff:8.8.8.8"];
/// Open there and closed here, and why.
const STRICTER: [(&str, &str); 14] = [
    // hook0
    ("100:0:0:1::1", "never given to anybody: only 2000::/3 is"),
    ("2001:1::1", "anycast of the Port Control Protocol: whoever is nearest, our own router"),
    ("2001:1::2", "anycast of TURN: the same"),
    ("2001:3::1", "AMT relays multicast"),
    ("2001:4:112::1", "AS112 sinks DNS queries"),
    ("2001:20::1", "ORCHIDv2 names hosts and is not routed"),
    ("2001:2f::1", "the same"),
    // svix
    ("0:0:0:ffff::1", "reserved (::/8)"),
    ("224.0.0.1", "multicast has no receiver"),
    ("2002:7f00:1::1", "6to4 carries any IPv4 address, this one loopback, and is withdrawn (RFC 7526)"),
    ("64:ff9b::7f00:1", "NAT64 carries any IPv4 address, this one loopback"),
    ("2001::1", "Teredo carries two IPv4 addresses"),
    ("fec0::1", "site-local: private, if old"),
    ("168.63.129.16", "metadata, in public space"),
];

#[test]
fn the_lists_of_two_others_in_the_field_agree_but_where_there_is_a_reason() {
    for text in REFUSED_BY_HOOK0.into_iter().chain(REFUSED_BY_SVIX) {
        assert!(permitted(ip(text), &[]).is_err(), "{text} was permitted");
    }
    for text in ALLOWED_BY_HOOK0.into_iter().chain(ALLOWED_BY_SVIX) {
        assert_eq!(permitted(ip(text), &[]), Ok(()), "{text} was refused");
    }
    for (text, why) in STRICTER {
        assert!(permitted(ip(text), &[]).is_err(), "{text} was permitted: {why}");
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
        let carries = |ip: &Ipv6Addr| ip.to_ipv4_mapped().is_some() || NAT64.contains(ip);
        prop_assert!(!open || GLOBAL_UNICAST.contains(&v6) || carries(&v6));
        let reserved = Ipv6Addr::from_bits(bits >> 8);
        prop_assert!(carries(&reserved) || refused(reserved.into()).is_some(), "::/8 is closed");
    }

    /// DNS64 gives every IPv4 receiver such an address.
    #[test]
    fn an_address_of_nat64_is_as_open_as_the_ipv4_address_that_it_carries(bits: u32) {
        let wrapped = Ipv6Addr::from_bits(NAT64.addr().to_bits() | u128::from(bits));
        prop_assert_eq!(refused(wrapped.into()), refused(Ipv4Addr::from_bits(bits).into()));
    }
}
