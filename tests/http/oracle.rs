//! The address rule against a second one, written another way: plain ranges of numbers, after IANA's registries of
//! special-purpose addresses.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;
use webhook_pg::http::address::{permitted, refused};

/// IPv4: first and last address of all that is not open to everybody.
const CLOSED_V4: [(&str, &str); 15] = [
    ("0.0.0.0", "0.255.255.255"),
    ("10.0.0.0", "10.255.255.255"),
    ("100.64.0.0", "100.127.255.255"),
    ("127.0.0.0", "127.255.255.255"),
    ("169.254.0.0", "169.254.255.255"),
    ("172.16.0.0", "172.31.255.255"),
    ("192.0.0.0", "192.0.0.255"),
    ("192.0.2.0", "192.0.2.255"),
    ("192.88.99.0", "192.88.99.255"),
    ("192.168.0.0", "192.168.255.255"),
    ("198.18.0.0", "198.19.255.255"),
    ("198.51.100.0", "198.51.100.255"),
    ("203.0.113.0", "203.0.113.255"),
    ("224.0.0.0", "239.255.255.255"),
    ("240.0.0.0", "255.255.255.255"),
];

/// IPv6: what is open, and what of that is not.
const OPEN_V6: (&str, &str) = ("2000::", "3fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff");
const CLOSED_V6: [(&str, &str); 4] = [
    ("2001::", "2001:1ff:ffff:ffff:ffff:ffff:ffff:ffff"),
    ("2001:db8::", "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff"),
    ("2002::", "2002:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
    ("3fff::", "3fff:fff:ffff:ffff:ffff:ffff:ffff:ffff"),
];

const MAPPED: u128 = 0xffff_0000_0000;
/// 64:ff9b::/96: what DNS64 makes of an IPv4 address.
const NAT64: u128 = 0x0064_ff9b << 96;

fn v4(text: &str) -> u32 {
    text.split('.').fold(0, |bits, part| bits << 8 | part.parse::<u32>().unwrap())
}

fn v6(text: &str) -> u128 {
    let groups = |text: &str| -> Vec<u128> {
        let groups = text.split(':').filter(|group| !group.is_empty());
        groups.map(|group| u128::from_str_radix(group, 16).unwrap()).collect()
    };
    let (left, right) = text.split_once("::").unwrap_or((text, ""));
    let (left, right) = (groups(left), groups(right));
    let number = |groups: &[u128]| groups.iter().fold(0, |bits, group| bits << 16 | group);
    let left_shift = 128 - 16 * left.len() as u32;
    number(&left).checked_shl(left_shift).unwrap_or(0) | number(&right)
}

fn closed_v4(bits: u32) -> bool {
    CLOSED_V4.iter().any(|(first, last)| v4(first) <= bits && bits <= v4(last))
}

fn closed_v6(bits: u128) -> bool {
    for carrier in [MAPPED, NAT64] {
        if (carrier..=carrier | u128::from(u32::MAX)).contains(&bits) {
            return closed_v4(bits as u32);
        }
    }
    let within = |(first, last): &(&str, &str)| v6(first) <= bits && bits <= v6(last);
    !within(&OPEN_V6) || CLOSED_V6.iter().any(within)
}

/// Any address, with a liking for the borders of the ranges.
fn some_v4() -> impl Strategy<Value = u32> {
    let border = (0..CLOSED_V4.len(), any::<bool>(), -2_i32..=2).prop_map(|(range, first, off)| {
        let (low, high) = CLOSED_V4[range];
        v4(if first { low } else { high }).wrapping_add_signed(off)
    });
    prop_oneof![any::<u32>(), border]
}

fn some_v6() -> impl Strategy<Value = u128> {
    let border = (0..=CLOSED_V6.len(), any::<bool>(), -2_i128..=2).prop_map(|(range, first, off)| {
        let (low, high) = CLOSED_V6.get(range).copied().unwrap_or(OPEN_V6);
        v6(if first { low } else { high }).wrapping_add_signed(off)
    });
    let global = any::<u128>().prop_map(|bits| bits >> 3 | 1 << 125);
    let low = any::<u128>().prop_map(|bits| bits >> 8);
    let carried = |carrier: u128| some_v4().prop_map(move |bits| carrier | u128::from(bits));
    let beside = (-2_i128..=2).prop_map(|off| NAT64.wrapping_add_signed(off));
    prop_oneof![any::<u128>(), border, global, low, carried(MAPPED), carried(NAT64), beside]
}

/// The IPv6 addresses that carry this IPv4 address: NAT64, local NAT64, 6to4, Teredo server and client, compatible,
/// translated.
fn tunnels(inner: u32, rest: u64) -> [u128; 7] {
    let (inner, rest) = (u128::from(inner), u128::from(rest));
    [
        v6("64:ff9b::") | inner,
        v6("64:ff9b:1::") | (rest & 0xffff_ffff) << 32 | inner,
        v6("2002::") | inner << 80 | rest,
        v6("2001::") | inner << 64 | rest,
        v6("2001::") | rest << 32 | (!inner & 0xffff_ffff),
        inner,
        v6("::ffff:0:0") << 16 | inner,
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2048))]

    #[test]
    fn both_rules_agree_about_every_ipv4_address(bits in some_v4()) {
        let ip = IpAddr::from(Ipv4Addr::from_bits(bits));
        prop_assert_eq!(refused(ip).is_some(), closed_v4(bits), "{}", ip);
    }

    #[test]
    fn both_rules_agree_about_every_ipv6_address(bits in some_v6()) {
        let ip = IpAddr::from(Ipv6Addr::from_bits(bits));
        prop_assert_eq!(refused(ip).is_some(), closed_v6(bits), "{}", ip);
    }

    #[test]
    fn no_tunnel_to_any_address_is_open_but_that_of_dns64_to_a_public_one(inner in some_v4(), rest: u64) {
        for bits in tunnels(inner, rest) {
            let ip = IpAddr::from(Ipv6Addr::from_bits(bits));
            let is_open = bits == NAT64 | u128::from(inner) && !closed_v4(inner);
            prop_assert_eq!((refused(ip).is_none(), !closed_v6(bits)), (is_open, is_open), "{}", ip);
        }
    }

    #[test]
    fn no_tunnel_to_a_metadata_address_is_opened_by_any_list(service in 0..4_usize, rest: u64) {
        let all = ["0.0.0.0/0".parse().unwrap(), "::/0".parse().unwrap()];
        let service = v4(["169.254.169.254", "169.254.170.2", "168.63.129.16", "100.100.100.200"][service]);
        for bits in tunnels(service, rest).into_iter().chain([MAPPED | u128::from(service)]) {
            let ip = IpAddr::from(Ipv6Addr::from_bits(bits));
            prop_assert!(permitted(ip, &all).is_err(), "{ip}");
        }
    }
}
