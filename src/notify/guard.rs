//! Which addresses may be called.
//!
//! A target's name is resolved here, every address that it has is checked, and the caller connects to the checked addresses and to no
//! others: a name that means something else a moment later changes nothing.
//!
//! Source of the ranges: IANA's special-purpose address registries for IPv4 and IPv6 (RFC 6890 and its successors).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The addresses of a host, all of them checked.
///
/// # Errors
/// Where it has none, or one that is not public while only public ones are allowed. The text names the host.
pub async fn resolve(host: &str, port: u16, allow_private: bool) -> Result<Vec<SocketAddr>, String> {
    let addresses: Vec<SocketAddr> = match literal(host) {
        Some(ip) => vec![SocketAddr::new(ip, port)],
        None => tokio::net::lookup_host((host, port)).await.map_err(|why| format!("{host} cannot be resolved: {why}"))?.collect(),
    };
    if addresses.is_empty() {
        return Err(format!("{host} has no address"));
    }
    match addresses.iter().find(|address| !allow_private && !is_public(address.ip())) {
        Some(private) => Err(format!("{host} has the address {}, which is not public: refused", private.ip())),
        None => Ok(addresses),
    }
}

/// The address that a URL's host spells, where it is no name.
#[must_use]
pub fn literal(host: &str) -> Option<IpAddr> {
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host).parse().ok()
}

/// Whether an address belongs to the internet at large. What is not known to, does not.
#[must_use]
pub fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    !matches!(
        (a, b, c),
        (0 | 10 | 127, ..)              // this network, private, loopback
            | (100, 64..=127, _)        // carrier-grade NAT
            | (169, 254, _)             // link-local, and clouds' metadata
            | (172, 16..=31, _)
            | (192, 0, 0 | 2)           // protocol assignments, documentation
            | (192, 88, 99)             // 6to4 relays
            | (192, 168, _)
            | (198, 18 | 19, _)         // benchmarks
            | (198, 51, 100)
            | (203, 0, 113)             // documentation
            | (224.., ..) // multicast, reserved, broadcast
    )
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let s = address.segments();
    let v4 = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        is_public_v4(Ipv4Addr::new(a, b, c, d))
    };
    match s {
        // An IPv4 address in other clothes: mapped, translated (NAT64), and 6to4.
        [0, 0, 0, 0, 0, 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0x2002, high, low, ..] => v4(high, low),
        // Protocol assignments (Teredo, ORCHID and others), documentation.
        [0x2001, 0..=0x1ff, ..] | [0x2001, 0xdb8, ..] | [0x3fff, 0..=0xfff, ..] => false,
        // Global unicast. Loopback, unique local, link-local, site-local, multicast and all that is reserved lie outside of it.
        [first, ..] => first & 0xe000 == 0x2000,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_public_addresses_are_public() {
        for private in [
            "0.0.0.0",
            "10.1.2.3",
            "127.0.0.1",
            "127.8.8.8",
            "100.64.0.1",
            "100.127.255.255",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.8",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.1.1",
            "198.18.0.1",
            "198.51.100.7",
            "203.0.113.9",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::ffff:169.254.169.254",
            "::127.0.0.1",
            "64:ff9b::7f00:1",
            "64:ff9b::a00:1",
            "2002:7f00:1::",
            "2002:a9fe:a9fe::1",
            "2001::1",
            "2001:db8::1",
            "3fff::1",
            "fc00::1",
            "fd00:ec2::254",
            "fe80::1",
            "fec0::1",
            "ff02::1",
            "100::1",
            "5f00::1",
        ] {
            assert!(!is_public(private.parse().expect(private)), "{private}");
        }
        for public in [
            "8.8.8.8",
            "1.1.1.1",
            "100.63.255.255",
            "100.128.0.1",
            "172.15.0.1",
            "172.32.0.1",
            "192.0.1.1",
            "198.17.0.1",
            "198.20.0.1",
            "223.255.255.255",
            "::ffff:8.8.8.8",
            "64:ff9b::808:808",
            "2002:808:808::1",
            "2606:4700::1111",
            "2001:4860:4860::8888",
        ] {
            assert!(is_public(public.parse().expect(public)), "{public}");
        }
    }

    #[tokio::test]
    async fn a_name_and_a_literal_of_this_machine_are_refused_unless_allowed() {
        for host in ["localhost", "127.0.0.1", "[::1]", "[::ffff:127.0.0.1]"] {
            let why = resolve(host, 80, false).await.expect_err(host);
            assert!(why.contains("not public"), "{why}");
            assert!(resolve(host, 80, true).await.is_ok(), "{host}");
        }
        assert!(resolve("no-such-host.invalid", 80, true).await.is_err());
    }
}
