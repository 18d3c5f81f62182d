//! Mails that ask people to prove an address, and where their links lead.

use std::path::Path;

use millrace_domain::threepids::Purpose;

use super::{Mailer, MailerSettings, Page, SendError, SetupError, TemplateError, Templates, Text};
use crate::{
    config::Config,
    tls_files::{self, TlsFileError},
};

/// Where the links in mails lead.
pub const SUBMIT_PATH: &str = "/_matrix/millrace/email/submit_token";

/// Mails, or what there is instead: a server without SMTP sends none.
pub struct Messages {
    mailer: Option<Mailer>,
    templates: Templates,
    base_url: String,
    next_link_hosts: Vec<String>,
}

/// Why mails cannot be sent.
#[derive(Debug, thiserror::Error)]
pub enum MailSetupError {
    /// A file of templates cannot be used.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// The mail server cannot be used.
    #[error(transparent)]
    Mailer(#[from] SetupError),
    /// The file of authorities cannot be used.
    #[error(transparent)]
    Authorities(#[from] TlsFileError),
}

impl Messages {
    /// What the table `email` says.
    ///
    /// # Errors
    /// Where a file that it names cannot be used.
    pub fn open(config: &Config) -> Result<Self, MailSetupError> {
        let email = &config.email;
        let authorities = |path: &Path| tls_files::certificates("email.smtp_ca_file", path);
        let mailer = match (&email.smtp_host, &email.from) {
            (Some(host), Some(from)) => Some(Mailer::new(MailerSettings {
                host: host.clone(),
                port: email.smtp_port,
                security: email.smtp_security,
                login: email.smtp_user.clone().zip(email.smtp_password.clone()),
                authorities: email.smtp_ca_file.as_deref().map_or(Ok(Vec::new()), authorities)?,
                from: from.clone(),
            })?),
            _ => None,
        };
        let names = (&*email.app_name, &*config.server.server_name);
        Ok(Self {
            mailer,
            templates: Templates::load(email.templates_path.as_deref(), names)?,
            base_url: config.base_url(),
            next_link_hosts: email.next_link_hosts.clone(),
        })
    }

    /// Sends the mail with the word that proves an address.
    ///
    /// # Errors
    /// Where the mail server does not take it.
    pub async fn ask(
        &self,
        purpose: Purpose,
        to: &str,
        (sid, token): (&str, &str),
    ) -> Result<(), SendError> {
        let link = self.url(&format!("{SUBMIT_PATH}?sid={sid}&token={token}"));
        let text = match purpose {
            Purpose::Register => Text::Register,
            Purpose::Add => Text::Add,
            Purpose::ResetPassword => Text::ResetPassword,
        };
        self.send(text, to, &link).await
    }

    /// Tells the owner of an address that somebody wanted to use it.
    ///
    /// # Errors
    /// Where the mail server does not take it.
    pub async fn tell_owner(&self, to: &str) -> Result<(), SendError> {
        self.send(Text::AlreadyInUse, to, "").await
    }

    /// Sends a mail about what is unread: `content` as text and as HTML; `link` ends these mails.
    ///
    /// # Errors
    /// Where the mail server does not take it.
    pub async fn digest(
        &self,
        to: &str,
        content: (&str, &str),
        link: &str,
    ) -> Result<(), SendError> {
        let mail = self.templates.unread(to, content, link);
        let mailer = self.mailer.as_ref().ok_or(SendError::NotConfigured)?;
        mailer.send(&mail).await
    }

    async fn send(&self, text: Text, to: &str, link: &str) -> Result<(), SendError> {
        let mail = self.templates.mail(text, to, link);
        let mailer = self.mailer.as_ref().ok_or(SendError::NotConfigured)?;
        mailer.send(&mail).await
    }

    /// A path of this server as people reach it.
    #[must_use]
    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base_url)
    }

    /// A page that says `content`, which is HTML.
    #[must_use]
    pub fn layout(&self, content: &str) -> String {
        self.templates.layout(content)
    }

    /// A page.
    #[must_use]
    pub fn page(&self, page: Page, values: &[(&str, &str)]) -> String {
        self.templates.page(page, values)
    }

    /// Whether people may be sent on to this address without being asked: it is on a host that the
    /// administrator named, or our own.
    #[must_use]
    pub fn leads_to_friends(&self, link: &str) -> bool {
        let host = |link: &str| {
            let uri: http::Uri = link.parse().ok()?;
            let web = matches!(uri.scheme_str(), Some("https" | "http"));
            uri.host().filter(|_| web).map(str::to_ascii_lowercase)
        };
        let Some(to) = host(link) else { return false };
        self.next_link_hosts.contains(&to) || host(&self.base_url) == Some(to)
    }
}
