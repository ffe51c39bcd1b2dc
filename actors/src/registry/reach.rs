//! Which addresses the registry's client may ask: what a URL may be, and which addresses a name may resolve to.
//!
//! The registry's own address is the operator's choice and may be anything that speaks TLS. Everything the registry
//! points to is the registry's choice, which may be hostile: it must be `https`, without credentials, on no address of
//! this machine or its network, and it is never sent what only the registry may see.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use url::{Host, Url};

/// Why an address is not asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unreachable {
    /// Not `https`.
    #[error("it is not https, and nothing is fetched without TLS")]
    Scheme,
    /// A user name or password in it.
    #[error("it carries a user name or password")]
    Credentials,
    /// No host.
    #[error("it names no host")]
    Host,
    /// An address in place of a name, where the registry pointed to it.
    #[error("it is an address and not a name")]
    Literal,
    /// An address of this machine or of a private network.
    #[error("it leads into this machine or a private network; set `allow_private` if it should")]
    Private,
}

/// What the operator allows.
#[derive(Debug, Clone)]
pub struct Reach {
    home: (String, u16),
    allow_private: bool,
}

impl Reach {
    /// For the registry at `home`. With `allow_private`, what it points to may be in a private network.
    ///
    /// # Errors
    /// [`Unreachable`] when `home` itself is no address to fetch from.
    pub fn of(home: &Url, allow_private: bool) -> Result<Self, Unreachable> {
        Ok(Self { home: plain(home)?, allow_private })
    }

    /// Whether it is the registry itself, which alone is sent its token.
    #[must_use]
    pub fn is_home(&self, url: &Url) -> bool {
        plain(url).is_ok_and(|place| place == self.home)
    }

    /// Whether a URL may be asked.
    ///
    /// # Errors
    /// [`Unreachable`].
    pub fn admit(&self, url: &Url) -> Result<(), Unreachable> {
        let place = plain(url)?;
        if place == self.home {
            return Ok(());
        }
        let address = match url.host() {
            Some(Host::Ipv4(address)) => IpAddr::V4(address),
            Some(Host::Ipv6(address)) => IpAddr::V6(address),
            Some(Host::Domain(_)) => return Ok(()),
            None => return Err(Unreachable::Host),
        };
        match (self.allow_private, is_private(address)) {
            (true, _) => Ok(()),
            (false, true) => Err(Unreachable::Private),
            (false, false) => Err(Unreachable::Literal),
        }
    }

    /// Whether a host's name may lead to this address.
    #[must_use]
    pub fn admits(&self, host: &str, address: IpAddr) -> bool {
        self.allow_private || host.eq_ignore_ascii_case(&self.home.0) || !is_private(address)
    }
}

/// Host and port of an `https` URL without credentials.
fn plain(url: &Url) -> Result<(String, u16), Unreachable> {
    if url.scheme() != "https" {
        return Err(Unreachable::Scheme);
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(Unreachable::Credentials);
    }
    let host = url.host_str().filter(|host| !host.is_empty()).ok_or(Unreachable::Host)?;
    let port = url.port_or_known_default().ok_or(Unreachable::Host)?;
    Ok((host.to_ascii_lowercase(), port))
}

/// Whether an address belongs to this machine, a private network or nobody: everything that is not the public internet.
#[must_use]
pub fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_private_v4(address),
        IpAddr::V6(address) => is_private_v6(address),
    }
}

/// The special ranges of RFC 6890 that do not lead to a public host.
fn is_private_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_broadcast()
        || address.is_documentation()
        || address.is_multicast()
        || a == 0
        // Shared by carriers: 100.64.0.0/10.
        || (a == 100 && b & 0xc0 == 64)
        // Protocol assignments 192.0.0.0/24, and benchmarking 198.18.0.0/15.
        || (a == 192 && b == 0 && c == 0)
        || (a == 198 && b & 0xfe == 18)
        // Reserved: 240.0.0.0/4.
        || a >= 240
}

fn is_private_v6(address: Ipv6Addr) -> bool {
    if let Some(inner) = embedded_v4(address) {
        return is_private_v4(inner);
    }
    let first = address.segments()[0];
    // Only 2000::/3 is handed out to public hosts; of it, 2001:db8::/32 is for documents and 2001::/23 for protocols.
    first & 0xe000 != 0x2000
        || (first == 0x2001 && (address.segments()[1] == 0x0db8 || address.segments()[1] < 0x0200))
}

/// The IPv4 address that an IPv6 one stands for: mapped, compatible, by NAT64 or 6to4.
fn embedded_v4(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let segments = address.segments();
    let [.., c, d] = segments;
    let last = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        Ipv4Addr::new(a, b, c, d)
    };
    match segments {
        [0, 0, 0, 0, 0, 0 | 0xffff, ..] if address.octets()[..15] != [0; 15] => Some(last(c, d)),
        [0x64, 0xff9b, 0, 0, 0, 0, ..] => Some(last(c, d)),
        [0x2002, high, low, ..] => Some(last(high, low)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        text.parse().unwrap()
    }

    #[test]
    fn only_the_operator_chooses_addresses_in_private_networks() {
        let reach = Reach::of(&url("https://127.0.0.1:8443/plugins/"), false).unwrap();
        assert_eq!(reach.admit(&url("https://127.0.0.1:8443/targets/x")), Ok(()));
        for (text, why) in [
            ("https://127.0.0.1:9443/", Unreachable::Private),
            ("https://127.1/", Unreachable::Private),
            ("https://0x7f000001/", Unreachable::Private),
            ("https://169.254.169.254/latest/meta-data", Unreachable::Private),
            ("https://[::1]/", Unreachable::Private),
            ("https://[::ffff:10.0.0.1]/", Unreachable::Private),
            ("https://[64:ff9b::a00:1]/", Unreachable::Private),
            ("https://[fe80::1]/", Unreachable::Private),
            ("https://8.8.8.8/", Unreachable::Literal),
            ("http://plugins.example/", Unreachable::Scheme),
            ("file:///etc/passwd", Unreachable::Scheme),
            ("unix:/run/x.sock", Unreachable::Scheme),
            ("https://user@plugins.example/", Unreachable::Credentials),
        ] {
            assert_eq!(reach.admit(&url(text)), Err(why), "{text}");
        }
        assert_eq!(reach.admit(&url("https://cdn.example/x")), Ok(()));
    }

    #[test]
    fn a_name_may_not_lead_where_an_address_may_not() {
        let reach = Reach::of(&url("https://plugins.example"), false).unwrap();
        let inside: IpAddr = "10.1.2.3".parse().unwrap();
        let outside: IpAddr = "93.184.216.34".parse().unwrap();
        assert!(reach.admits("cdn.example", outside));
        assert!(!reach.admits("cdn.example", inside));
        assert!(reach.admits("Plugins.Example", inside), "the operator's own choice");
        let lax = Reach::of(&url("https://plugins.example"), true).unwrap();
        assert!(lax.admits("cdn.example", inside));
    }

    #[test]
    fn the_registry_itself_is_its_host_and_its_port() {
        let reach = Reach::of(&url("https://plugins.example/a/"), false).unwrap();
        assert!(reach.is_home(&url("https://plugins.example:443/b")));
        for other in ["https://plugins.example:444/", "https://plugins.example.evil/"] {
            assert!(!reach.is_home(&url(other)), "{other}");
        }
    }

    #[test]
    fn every_special_range_is_private() {
        for text in [
            "0.0.0.0",
            "10.0.0.1",
            "100.64.0.1",
            "100.127.255.255",
            "127.0.0.1",
            "169.254.0.1",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.8",
            "192.0.2.1",
            "192.168.0.1",
            "198.18.0.1",
            "198.19.255.255",
            "203.0.113.1",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "fc00::1",
            "fd12::1",
            "fe80::1",
            "ff02::1",
            "2001:db8::1",
            "2001::1",
            "2002:a00:1::",
            "::10.0.0.1",
            "100::1",
        ] {
            assert!(is_private(text.parse().unwrap()), "{text}");
        }
        for text in [
            "1.1.1.1",
            "100.63.255.255",
            "100.128.0.1",
            "172.32.0.1",
            "198.20.0.1",
            "2606:4700::1111",
            "2002:808:808::",
            "::ffff:8.8.8.8",
        ] {
            assert!(!is_private(text.parse().unwrap()), "{text}");
        }
    }
}
