//! Other servers.

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
};

use millrace_domain::keys::Names;
use millrace_federation::addresses::{AddressPolicy, AddressRange};
use ruma::{MilliSecondsSinceUnixEpoch, OwnedServerName, OwnedServerSigningKeyId, serde::Base64};
use serde::{Deserialize, Serialize};

use super::{Problems, server::OneOrMany};

/// Addresses that lead into this machine, its own network, or nowhere.
const NOT_PUBLIC: [&str; 23] = [
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.0.2.0/24",
    "192.88.99.0/24",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "198.51.100.0/24",
    "203.0.113.0/24",
    "224.0.0.0/4",
    "240.0.0.0/4",
    "::/127",
    "64:ff9b::/96",
    "100::/64",
    "2001:db8::/32",
    "2002::/16",
    "fc00::/7",
    "fe80::/10",
    "ff00::/8",
];

/// Whether and with whom this server federates.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Federation {
    /// Whether other servers may be talked to at all.
    pub allow_federation: bool,
    /// Ports to serve other servers on, with TLS; none to leave that to a reverse proxy.
    pub federation_port: Option<OneOrMany<u16>>,
    /// Addresses to serve other servers on; those of the client API where there are none.
    pub federation_address: Option<OneOrMany<IpAddr>>,
    /// The certificate of the federation port and those of its issuers (PEM).
    pub tls_certificate_path: Option<PathBuf>,
    /// The key of that certificate (PEM).
    pub tls_key_path: Option<PathBuf>,
    /// Servers that are asked for the keys of others.
    pub trusted_servers: Vec<OwnedServerName>,
    /// A file of certificates (PEM) of authorities that are trusted besides the usual ones.
    pub federation_ca_file: Option<PathBuf>,
    /// Ranges of addresses that requests to other servers never go to.
    pub ip_range_blacklist: Vec<String>,
    /// Ranges that they may go to all the same.
    pub ip_range_whitelist: Vec<String>,
    /// Keys that this server signed with in the past.
    pub old_signing_keys: Vec<OldSigningKey>,
    /// Whether servers that share a room with a user are told what the user has read.
    pub allow_outgoing_read_receipts: bool,
    /// Whether they are told that the user types.
    pub allow_outgoing_typing: bool,
    /// Whether other servers are told the names that users give their devices.
    pub allow_device_name_federation: bool,
    /// Transactions sent at once, each to another server that answered the last one.
    pub federation_sends_at_once: usize,
    /// Transactions sent at once to servers that did not answer the last one, or got none yet.
    pub federation_tries_at_once: usize,
}

/// A key that this server signed with in the past, published so that old events can be checked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OldSigningKey {
    /// Its ID, `ed25519:NAME`.
    pub id: OwnedServerSigningKeyId,
    /// The public key in base64.
    pub key: Base64,
    /// When it was used last, in milliseconds since 1970.
    pub expired_ts: MilliSecondsSinceUnixEpoch,
}

impl Default for Federation {
    fn default() -> Self {
        let notary = "matrix.org".try_into().expect("a valid server name");
        Self {
            allow_federation: true,
            federation_port: None,
            federation_address: None,
            tls_certificate_path: None,
            tls_key_path: None,
            trusted_servers: vec![notary],
            federation_ca_file: None,
            ip_range_blacklist: NOT_PUBLIC.map(ToOwned::to_owned).to_vec(),
            ip_range_whitelist: Vec::new(),
            old_signing_keys: Vec::new(),
            allow_outgoing_read_receipts: true,
            allow_outgoing_typing: true,
            allow_device_name_federation: false,
            federation_sends_at_once: 256,
            federation_tries_at_once: 64,
        }
    }
}

impl Federation {
    /// Where requests to other servers may go. Ranges that are none are left out; validation has
    /// refused them.
    #[must_use]
    pub fn address_policy(&self) -> AddressPolicy {
        let ranges = |texts: &[String]| -> Vec<AddressRange> {
            texts.iter().filter_map(|text| text.parse().ok()).collect()
        };
        AddressPolicy {
            refused: ranges(&self.ip_range_blacklist),
            allowed: ranges(&self.ip_range_whitelist),
        }
    }

    /// Whether other servers are told the names of devices.
    #[must_use]
    pub fn device_names(&self) -> Names {
        if self.allow_device_name_federation { Names::Shown } else { Names::Hidden }
    }

    /// The files of certificate and key, where other servers are served on a port of their own.
    #[must_use]
    pub fn tls_files(&self) -> Option<(&Path, &Path)> {
        self.federation_port.as_ref()?;
        Some((self.tls_certificate_path.as_deref()?, self.tls_key_path.as_deref()?))
    }

    pub(super) fn validate(&self, problems: &mut Problems) {
        for (key, ranges) in [
            ("ip_range_blacklist", &self.ip_range_blacklist),
            ("ip_range_whitelist", &self.ip_range_whitelist),
        ] {
            for range in ranges {
                if let Err(error) = range.parse::<AddressRange>() {
                    problems.require(false, key, &error.to_string());
                }
            }
        }
        for (key, count) in [
            ("federation_sends_at_once", self.federation_sends_at_once),
            ("federation_tries_at_once", self.federation_tries_at_once),
        ] {
            problems.require((1..=100_000).contains(&count), key, "must be from 1 to 100000");
        }
        for (key, path) in [
            ("tls_certificate_path", &self.tls_certificate_path),
            ("tls_key_path", &self.tls_key_path),
        ] {
            let there = self.federation_port.is_none() || path.is_some();
            problems.require(there, key, "must be set, because federation_port is");
        }
        let are_keys = self.old_signing_keys.iter().all(|old| old.key.as_bytes().len() == 32);
        problems.require(are_keys, "old_signing_keys", "a key must be 32 bytes in base64");
    }
}
