//! E-mail addresses and phone numbers of users, and identity servers.

use ruma::OwnedServerName;
use serde::{Deserialize, Serialize};

use super::Problems;

/// Kinds of third-party identifiers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Medium {
    /// E-mail addresses.
    Email,
    /// Phone numbers.
    Msisdn,
}

/// Addresses that users may have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AllowedThreepid {
    /// Of this medium.
    pub medium: Medium,
    /// That look like this; `*` is any characters.
    pub pattern: String,
}

/// What users may do about third-party identifiers, and by whose help.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Threepids {
    /// What whoever registers must have.
    pub registrations_require_3pid: Vec<Medium>,
    /// Which addresses users may have; any where there are none.
    pub allowed_local_3pids: Vec<AllowedThreepid>,
    /// Whether users may add and remove addresses.
    pub enable_3pid_changes: bool,
    /// Whether nobody is told which addresses have an account.
    pub request_token_inhibit_3pid_errors: bool,
    /// Identity servers that users may use.
    pub trusted_third_party_id_servers: Vec<OwnedServerName>,
    /// An identity server that sends text messages for us: its base URL.
    pub msisdn_validation_url: Option<String>,
    /// An access token of that server, where it wants one.
    pub msisdn_validation_token: Option<String>,
}

impl Default for Threepids {
    fn default() -> Self {
        let trusted = ["matrix.org", "vector.im"];
        Self {
            registrations_require_3pid: Vec::new(),
            allowed_local_3pids: Vec::new(),
            enable_3pid_changes: true,
            request_token_inhibit_3pid_errors: false,
            trusted_third_party_id_servers: trusted
                .map(|name| name.try_into().expect("a valid server name"))
                .to_vec(),
            msisdn_validation_url: None,
            msisdn_validation_token: None,
        }
    }
}

impl Threepids {
    /// Checks the section; `email` says whether mails can be sent.
    pub(super) fn validate(&self, problems: &mut Problems, email: bool) {
        let needs = |medium| self.registrations_require_3pid.contains(&medium);
        let key = "registrations_require_3pid";
        let problem = "requires e-mail addresses, so that email.smtp_host must be set";
        problems.require(email || !needs(Medium::Email), key, problem);
        let problem = "requires phone numbers, so that msisdn_validation_url must be set";
        let msisdn = self.msisdn_validation_url.is_some();
        problems.require(msisdn || !needs(Medium::Msisdn), key, problem);
        let is_url = self.msisdn_validation_url.as_ref().is_none_or(|url| {
            let rest = url.strip_prefix("https://");
            rest.is_some_and(|rest| !rest.trim_end_matches('/').is_empty() && !rest.contains('?'))
        });
        problems.require(is_url, "msisdn_validation_url", "must start with https://");
    }
}
