//! Sending e-mail.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::Problems;

/// The table `email`. Nothing is sent without `smtp_host`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Email {
    /// The mail server.
    pub smtp_host: Option<String>,
    /// Its port; unset, the one that goes with `smtp_security`.
    pub smtp_port: Option<u16>,
    /// How the connection is protected.
    pub smtp_security: Security,
    /// The name to log in with, if any.
    pub smtp_user: Option<String>,
    /// The password that goes with it.
    pub smtp_password: Option<String>,
    /// A file of certificates (PEM) of authorities that are trusted besides the usual ones.
    pub smtp_ca_file: Option<PathBuf>,
    /// Who the mails are from: an address, with a name if wanted.
    pub from: Option<String>,
    /// How mails and pages call this service.
    pub app_name: String,
    /// A folder of templates that replace the built-in ones of the same name.
    pub templates_path: Option<PathBuf>,
    /// How long the links in mails are good, in seconds.
    pub link_lifetime_s: u64,
    /// Hosts to which people are sent on at once, when they have followed a link.
    pub next_link_hosts: Vec<String>,
}

/// How the connection to a mail server is protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Security {
    /// TLS from the first byte (port 465).
    Tls,
    /// TLS after a greeting (port 587); refused where the server has none.
    StartTls,
    /// None (port 25), for a mail server on the same machine.
    None,
}

impl Default for Email {
    fn default() -> Self {
        Self {
            smtp_host: None,
            smtp_port: None,
            smtp_security: Security::StartTls,
            smtp_user: None,
            smtp_password: None,
            smtp_ca_file: None,
            from: None,
            app_name: "Matrix".to_owned(),
            templates_path: None,
            link_lifetime_s: 24 * 3600,
            next_link_hosts: Vec::new(),
        }
    }
}

impl Email {
    /// Checks the section; `client_url` is `well_known.client`, to which the links lead.
    pub(super) fn validate(&self, problems: &mut Problems, client_url: Option<&str>) {
        problems.require(self.link_lifetime_s > 0, "email.link_lifetime_s", "must be above 0");
        let pair = self.smtp_user.is_some() == self.smtp_password.is_some();
        problems.require(pair, "email.smtp_password", "must be set together with smtp_user");
        if self.smtp_host.is_none() {
            return;
        }
        let url = "must be set, because email.smtp_host is: links in mails lead there";
        problems.require(client_url.is_some(), "well_known.client", url);
        let from = self.from.as_ref().is_some_and(|from| crate::mail::is_mailbox(from));
        let problem = "must be an address such as \"Example <no-reply@example.org>\", because \
                       email.smtp_host is set";
        problems.require(from, "email.from", problem);
    }
}
