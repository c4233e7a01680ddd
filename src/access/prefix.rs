//! IP prefixes, as `10.0.0.0/8`.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The addresses whose first bits are the same. An IPv4 prefix admits IPv4 addresses only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct IpPrefix {
    network: IpAddr,
    length: u8,
}

impl IpPrefix {
    /// Parses `ADDRESS/LENGTH`, or an address alone, which is the prefix of that address.
    ///
    /// # Errors
    ///
    /// What is wrong with the text.
    pub fn parse(text: &str) -> Result<Self, IpPrefixError> {
        let (address, length) = text.split_once('/').map_or((text, None), |(address, length)| (address, Some(length)));
        let network: IpAddr = address.parse().map_err(|_| IpPrefixError::Form)?;
        if matches!(network, IpAddr::V6(address) if address.to_ipv4_mapped().is_some()) {
            return Err(IpPrefixError::Mapped);
        }
        let width = width_of(network);
        let is_number =
            |text: &&str| !text.is_empty() && text.len() <= 3 && text.bytes().all(|byte| byte.is_ascii_digit());
        let length = match length {
            None => width,
            Some(length) => {
                Some(length).filter(is_number).and_then(|length| length.parse().ok()).ok_or(IpPrefixError::Form)?
            }
        };
        if length > width {
            return Err(IpPrefixError::Form);
        }
        let prefix = Self { network, length };
        if bits_of(network) & !prefix.mask() != 0 {
            return Err(IpPrefixError::HostBits(Self {
                network: address_of(network, bits_of(network) & prefix.mask()),
                length,
            }));
        }
        Ok(prefix)
    }

    /// The number of leading bits that are the same.
    #[must_use]
    pub const fn length(self) -> u8 {
        self.length
    }

    /// Whether the address has this prefix.
    #[must_use]
    pub fn contains(self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        address.is_ipv4() == self.network.is_ipv4() && bits_of(address) & self.mask() == bits_of(self.network)
    }

    /// Whether an address of this machine itself has this prefix: one of 127.0.0.0/8, or `::1`.
    #[must_use]
    pub fn has_loopback(self) -> bool {
        let loopback = match self.network {
            IpAddr::V4(_) => Self { network: Ipv4Addr::new(127, 0, 0, 0).into(), length: 8 },
            IpAddr::V6(_) => Self { network: Ipv6Addr::LOCALHOST.into(), length: 128 },
        };
        self.contains(loopback.network) || loopback.contains(self.network)
    }

    /// The bits that the prefix fixes, at the top of 128 bits.
    const fn mask(self) -> u128 {
        match self.length {
            0 => 0,
            length => u128::MAX << (128 - length as u32),
        }
    }
}

const fn width_of(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// The bits of an address at the top of 128 bits.
fn bits_of(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(address.to_bits()) << 96,
        IpAddr::V6(address) => address.to_bits(),
    }
}

/// The address of the same family with these bits.
fn address_of(family: IpAddr, bits: u128) -> IpAddr {
    match family {
        IpAddr::V4(_) => Ipv4Addr::from_bits(u32::try_from(bits >> 96).unwrap_or_default()).into(),
        IpAddr::V6(_) => Ipv6Addr::from_bits(bits).into(),
    }
}

impl fmt::Display for IpPrefix {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.network, self.length)
    }
}

/// Why a text is no prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IpPrefixError {
    /// It is no address with a length.
    #[error("must be an IP address and a prefix length, like \"10.0.0.5/32\"")]
    Form,
    /// It is an IPv4 address in the form of IPv6.
    #[error("must be written as IPv4: connections over IPv4 are compared with IPv4 prefixes")]
    Mapped,
    /// Bits behind the prefix are set.
    #[error("has bits behind its prefix: write {0}, or the whole address")]
    HostBits(IpPrefix),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(text: &str) -> IpPrefix {
        IpPrefix::parse(text).unwrap()
    }

    #[test]
    fn a_prefix_admits_its_addresses_and_no_other() {
        let contains = |text: &str, address: &str| prefix(text).contains(address.parse().unwrap());
        assert!(contains("10.0.0.0/8", "10.255.0.1") && !contains("10.0.0.0/8", "11.0.0.0"));
        assert!(contains("10.0.0.5", "10.0.0.5") && !contains("10.0.0.5/32", "10.0.0.4"));
        assert!(contains("10.0.0.5/32", "::ffff:10.0.0.5"), "a socket of both families maps IPv4");
        assert!(contains("0.0.0.0/0", "203.0.113.1") && !contains("0.0.0.0/0", "::1"));
        assert!(contains("fd00::/8", "fdff::1") && !contains("fd00::/8", "fe80::1"));
        assert!(contains("::/0", "::1") && !contains("::/0", "127.0.0.1"));
    }

    #[test]
    fn a_text_that_is_no_prefix_says_why() {
        for text in
            ["", "10.0.0.5/33", "10.0.0/24", "10.0.0.5/", "10.0.0.5/+8", "::/129", "pbx", "10.0.0.5/8/8", "10.0.0.5/ 8"]
        {
            assert_eq!(IpPrefix::parse(text), Err(IpPrefixError::Form), "{text:?}");
        }
        assert_eq!(IpPrefix::parse("10.0.0.5/24"), Err(IpPrefixError::HostBits(prefix("10.0.0.0/24"))));
        assert_eq!(IpPrefix::parse("::ffff:10.0.0.5/128"), Err(IpPrefixError::Mapped));
    }

    #[test]
    fn the_prefixes_of_this_machine_are_known() {
        for text in ["127.0.0.1/32", "127.0.0.0/8", "0.0.0.0/0", "127.3.0.0/16", "::1", "::/0", "112.0.0.0/4"] {
            assert!(prefix(text).has_loopback(), "{text}");
        }
        for text in ["10.0.0.0/8", "128.0.0.0/1", "fd00::/8", "::2/128"] {
            assert!(!prefix(text).has_loopback(), "{text}");
        }
    }
}
