//! Which addresses we may connect to on the word of others.

use std::{fmt, net::IpAddr, str::FromStr};

/// A range of addresses, such as `10.0.0.0/8` or `fc00::/7`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AddressRange {
    first: IpAddr,
    prefix: u8,
}

/// A text that is no range of addresses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0} is no address or range such as 10.0.0.0/8")]
pub struct InvalidRange(String);

impl FromStr for AddressRange {
    type Err = InvalidRange;

    fn from_str(text: &str) -> Result<Self, InvalidRange> {
        let invalid = || InvalidRange(text.to_owned());
        let (address, prefix) = text.split_once('/').map_or((text, None), |(a, p)| (a, Some(p)));
        let first: IpAddr = address.parse().map_err(|_| invalid())?;
        let bits = if first.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.map_or(Ok(bits), str::parse).map_err(|_| invalid())?;
        if prefix > bits {
            return Err(invalid());
        }
        Ok(Self { first, prefix })
    }
}

impl fmt::Display for AddressRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.first, self.prefix)
    }
}

impl AddressRange {
    /// Whether `address` lies in it.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.first, address) {
            (IpAddr::V4(first), IpAddr::V4(address)) => {
                let differ = u32::from(first) ^ u32::from(address);
                self.prefix == 0 || differ >> (32 - self.prefix) == 0
            }
            (IpAddr::V6(first), IpAddr::V6(address)) => {
                let differ = u128::from(first) ^ u128::from(address);
                self.prefix == 0 || differ >> (128 - self.prefix) == 0
            }
            _ => false,
        }
    }
}

/// What is refused, and what is allowed all the same.
#[derive(Debug, Clone, Default)]
pub struct AddressPolicy {
    /// Never connected to.
    pub refused: Vec<AddressRange>,
    /// Goes above `refused`.
    pub allowed: Vec<AddressRange>,
}

impl AddressPolicy {
    /// Whether we may connect to `address`. An IPv6 address that stands for one of IPv4 is judged as
    /// that.
    #[must_use]
    pub fn allows(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        let in_one_of =
            |ranges: &[AddressRange]| ranges.iter().any(|range| range.contains(address));
        in_one_of(&self.allowed) || !in_one_of(&self.refused)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranges(texts: &[&str]) -> Vec<AddressRange> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn ranges_hold_what_their_prefix_says() {
        for (range, inside, outside) in [
            ("10.0.0.0/8", "10.255.0.1", "11.0.0.0"),
            ("172.16.0.0/12", "172.31.255.255", "172.32.0.0"),
            ("fc00::/7", "fdff::1", "fe00::"),
            ("::1", "::1", "::2"),
            ("1.2.3.4", "1.2.3.4", "1.2.3.5"),
            ("0.0.0.0/0", "9.9.9.9", "::9"),
        ] {
            let range: AddressRange = range.parse().unwrap();
            assert!(range.contains(inside.parse().unwrap()), "{range}");
            assert!(!range.contains(outside.parse().unwrap()), "{range}");
        }
        for wrong in ["", "x", "1.2.3.4/33", "::/129", "1.2.3.4/", "1.2.3.4/-1"] {
            wrong.parse::<AddressRange>().unwrap_err();
        }
    }

    #[test]
    fn what_is_allowed_goes_above_what_is_refused_and_mapped_addresses_are_seen_through() {
        let policy = AddressPolicy {
            refused: ranges(&["127.0.0.0/8", "::1"]),
            allowed: ranges(&["127.0.0.7"]),
        };
        for (address, allowed) in [
            ("127.0.0.1", false),
            ("::ffff:127.0.0.1", false),
            ("127.0.0.7", true),
            ("::1", false),
            ("9.9.9.9", true),
        ] {
            assert_eq!(policy.allows(address.parse().unwrap()), allowed, "{address}");
        }
    }
}
