//! Addresses in their canonical form (spec: appendices, 3PID Types).

use ruma::thirdparty::Medium;

use super::calling_codes;

/// The longest e-mail address (RFC 5321).
const EMAIL_BYTES_MAX: usize = 254;
/// Digits of a phone number with its calling code (E.164); shorter ones reach nobody from afar.
const PHONE_DIGITS: std::ops::RangeInclusive<usize> = 7..=15;

/// An e-mail address in lower case, or a phone number as its digits from the calling code on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    medium: Medium,
    text: String,
}

/// Why a text is no address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidAddress {
    /// Not an e-mail address.
    #[error("this is no e-mail address")]
    Email,
    /// Not a phone number.
    #[error("this is no phone number")]
    Phone,
    /// No country has this code.
    #[error("{0:?} is no country (two letters of ISO 3166)")]
    Country(String),
    /// Neither an e-mail address nor a phone number is meant.
    #[error("{0:?} is no kind of third-party identifier that this server has")]
    Medium(String),
}

impl Address {
    /// An e-mail address.
    ///
    /// # Errors
    /// Where it is none that mail could be sent to over SMTP without extensions for its form.
    pub fn email(text: &str) -> Result<Self, InvalidAddress> {
        let text = text.trim().to_lowercase();
        let (local, domain) = text.rsplit_once('@').ok_or(InvalidAddress::Email)?;
        let visible = |part: &str| {
            let bad = |c: char| c.is_whitespace() || c.is_control() || "<>()[]\\,;:\"@".contains(c);
            !part.is_empty() && !part.contains(bad)
        };
        let labels = domain
            .split('.')
            .all(|label| !label.is_empty() && !label.starts_with('-') && !label.ends_with('-'));
        if !visible(local) || !visible(domain) || !labels || text.len() > EMAIL_BYTES_MAX {
            return Err(InvalidAddress::Email);
        }
        Ok(Self { medium: Medium::Email, text })
    }

    /// A phone number as somebody in a country (two letters, ISO 3166) dials it.
    ///
    /// # Errors
    /// Where there is no such country, or the number is none.
    pub fn phone(country: &str, number: &str) -> Result<Self, InvalidAddress> {
        let code = calling_codes::find(country)
            .ok_or_else(|| InvalidAddress::Country(country.to_owned()))?;
        let international = number.trim_start().starts_with('+');
        let digits = digits(number)?;
        if international {
            return Self::msisdn(&digits);
        }
        if let Some(rest) = digits.strip_prefix("00") {
            return Self::msisdn(rest);
        }
        let local =
            code.trunk.map_or(&*digits, |trunk| digits.strip_prefix(trunk).unwrap_or(&digits));
        Self::msisdn(&format!("{}{local}", code.code))
    }

    /// A phone number with its calling code.
    ///
    /// # Errors
    /// Where it is none.
    pub fn msisdn(number: &str) -> Result<Self, InvalidAddress> {
        let text = digits(number)?;
        if !PHONE_DIGITS.contains(&text.len()) || text.starts_with('0') {
            return Err(InvalidAddress::Phone);
        }
        Ok(Self { medium: Medium::Msisdn, text })
    }

    /// An address of a medium that is told by its name.
    ///
    /// # Errors
    /// Where it is none of that medium.
    pub fn of(medium: &Medium, text: &str) -> Result<Self, InvalidAddress> {
        match medium {
            Medium::Email => Self::email(text),
            Medium::Msisdn => Self::msisdn(text),
            other => Err(InvalidAddress::Medium(other.to_string())),
        }
    }

    /// What kind of address it is.
    #[must_use]
    pub fn medium(&self) -> &Medium {
        &self.medium
    }

    /// The address.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }
}

/// The digits of a number, written with whatever people put between them.
fn digits(number: &str) -> Result<String, InvalidAddress> {
    let between = |c: char| c.is_whitespace() || "+-./()".contains(c);
    let digits: String = number.chars().filter(|c| !between(*c)).collect();
    let all = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    if all { Ok(digits) } else { Err(InvalidAddress::Phone) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_compared_in_lower_case() {
        let address = Address::email(" Alice@Example.ORG ").unwrap();
        assert_eq!(address.text(), "alice@example.org");
        for bad in [
            "",
            "alice",
            "@example.org",
            "alice@",
            "a b@example.org",
            "a@b@c.org",
            "a@example..org",
            "alice@example.org\r\nRCPT TO:<x@y>",
            "a@<b>",
            "a@-b.org",
        ] {
            assert_eq!(Address::email(bad), Err(InvalidAddress::Email), "{bad:?}");
        }
        let long = format!("{}@example.org", "a".repeat(243));
        assert_eq!(Address::email(&long), Err(InvalidAddress::Email));
    }

    #[test]
    fn a_phone_number_is_the_same_however_it_is_dialled() {
        for (country, number, canonical) in [
            ("GB", "07700 900001", "447700900001"),
            ("GB", "+44 7700 900001", "447700900001"),
            ("DE", "0044 7700/900001", "447700900001"),
            ("US", "(212) 555-0123", "12125550123"),
            ("US", "1 212 555 0123", "12125550123"),
            ("IT", "06 1234 5678", "390612345678"),
            ("RU", "8 912 345-67-89", "79123456789"),
        ] {
            let phone = Address::phone(country, number).unwrap();
            assert_eq!(phone.text(), canonical, "{country} {number}");
        }
        assert_eq!(Address::phone("XX", "123"), Err(InvalidAddress::Country("XX".to_owned())));
        for bad in ["", "12", "07700x900001", "12345678901234567"] {
            assert_eq!(Address::phone("GB", bad), Err(InvalidAddress::Phone), "{bad:?}");
        }
    }
}
