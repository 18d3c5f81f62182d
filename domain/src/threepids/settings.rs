//! What administrators decide about third-party identifiers.

use std::time::Duration;

use millrace_model::rules::push::glob;
use ruma::thirdparty::Medium;

use super::Address;

/// What administrators decide about third-party identifiers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Whether messages can be sent to e-mail addresses.
    pub email: bool,
    /// Whether messages can be sent to phone numbers.
    pub msisdn: bool,
    /// What whoever registers must have.
    pub required: Vec<Medium>,
    /// Addresses that may be used; any where there are none.
    pub allowed: Vec<Allowed>,
    /// Whether users may add and remove identifiers.
    pub changes: bool,
    /// Whether nobody is told which addresses have an account.
    pub silent: bool,
    /// How long a word that was sent can be used.
    pub lifetime: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            email: false,
            msisdn: false,
            required: Vec::new(),
            allowed: Vec::new(),
            changes: true,
            silent: false,
            lifetime: Duration::from_hours(24),
        }
    }
}

impl Settings {
    /// Whether messages can be sent to addresses of this medium.
    #[must_use]
    pub fn sends(&self, medium: &Medium) -> bool {
        match medium {
            Medium::Email => self.email,
            Medium::Msisdn => self.msisdn,
            _ => false,
        }
    }

    /// Whether users may have this address.
    #[must_use]
    pub fn allows(&self, address: &Address) -> bool {
        let fits = |allowed: &Allowed| {
            allowed.medium == *address.medium()
                && glob::matches_whole(&allowed.pattern, address.text())
        };
        self.allowed.is_empty() || self.allowed.iter().any(fits)
    }
}

/// Addresses that may be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Allowed {
    /// Of this medium.
    pub medium: Medium,
    /// That look like this; `*` is any characters, `?` one.
    pub pattern: String,
}
