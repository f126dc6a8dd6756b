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
