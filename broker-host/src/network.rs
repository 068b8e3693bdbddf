//! Parses ranges of addresses of the settings.

use std::net::IpAddr;
use std::str::FromStr;

/// An address, or all addresses that begin with the same bits: `10.0.0.0/8`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Network {
    address: IpAddr,
    bits: u32,
}

/// The error for a text that is not a range of addresses.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct NoNetwork;

impl std::fmt::Display for NoNetwork {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("must be an address, or a range such as 10.0.0.0/8")
    }
}

impl std::error::Error for NoNetwork {}

impl FromStr for Network {
    type Err = NoNetwork;

    fn from_str(text: &str) -> Result<Self, NoNetwork> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| NoNetwork)?;
        let longest = if address.is_ipv4() { 32 } else { 128 };
        let bits = match bits {
            None => longest,
            Some(bits) => bits.parse().map_err(|_| NoNetwork)?,
        };
        if bits > longest {
            return Err(NoNetwork);
        }
        Ok(Self { address, bits })
    }
}

impl Network {
    /// Returns whether an address is in the range. An IPv4 address written as an IPv6 address is the same address.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                let differing = network.to_bits() ^ address.to_bits();
                self.bits == 0 || differing >> (32 - self.bits) == 0
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => {
                let differing = network.to_bits() ^ address.to_bits();
                self.bits == 0 || differing >> (128 - self.bits) == 0
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_has_the_addresses_with_its_first_bits() {
        let within = |range: &str, address: &str| {
            let range: Network = range.parse().unwrap();
            range.contains(address.parse().unwrap())
        };
        assert!(within("10.1.0.0/16", "10.1.255.255"));
        assert!(!within("10.1.0.0/16", "10.2.0.0"));
        assert!(within("10.1.2.3", "10.1.2.3"));
        assert!(within("10.1.2.3", "::ffff:10.1.2.3"));
        assert!(!within("10.1.2.3", "10.1.2.4"));
        assert!(within("0.0.0.0/0", "255.0.0.1"));
        assert!(!within("0.0.0.0/0", "::1"));
        assert!(within("fd00::/8", "fdff::1"));
        assert!(!within("fd00::/8", "fe80::1"));
        assert!(within("::/0", "::1"));
        for wrong in ["", "10.0.0.0/33", "::/129", "10.0.0.0/x", "localhost"] {
            assert_eq!(wrong.parse::<Network>(), Err(NoNetwork), "{wrong}");
        }
    }
}
