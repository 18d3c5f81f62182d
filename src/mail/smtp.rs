//! Mails leave by SMTP, to the one mail server that is configured.

use std::time::Duration;

use lettre::{
    AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor,
    message::{
        Mailbox, MultiPart,
        header::{Header, HeaderName, HeaderValue},
    },
    transport::smtp::{
        authentication::Credentials,
        client::{Certificate, CertificateStore, Tls, TlsParameters},
    },
};
use rustls::pki_types::CertificateDer;

use crate::config::email::Security;

/// How long one command of the conversation may take.
const TIMEOUT: Duration = Duration::from_secs(30);
/// How long sending one mail may take, from connecting to the last answer.
const WHOLE_TIMEOUT: Duration = Duration::from_secs(60);

/// Which mail server, and who we are to it.
#[derive(Clone)]
pub struct MailerSettings {
    /// Its name.
    pub host: String,
    /// Its port; none for the usual one.
    pub port: Option<u16>,
    /// How the connection is protected.
    pub security: Security,
    /// Name and password to log in with.
    pub login: Option<(String, String)>,
    /// Authorities that are trusted besides the usual ones.
    pub authorities: Vec<CertificateDer<'static>>,
    /// Who mails are from.
    pub from: String,
}

/// Sends mails.
pub struct Mailer {
    transport: AsyncSmtpTransport<Tokio1Executor>,
    from: Mailbox,
}

/// One mail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mail {
    /// The address of who gets it.
    pub to: String,
    /// Its subject.
    pub subject: String,
    /// What it says, as plain text.
    pub text: String,
    /// The same as HTML.
    pub html: String,
    /// A link that ends mails of its kind (RFC 8058).
    pub unsubscribe: Option<String>,
}

/// `List-Unsubscribe`.
#[derive(Clone)]
struct ListUnsubscribe(String);

/// `List-Unsubscribe-Post`: the link takes one click (RFC 8058).
#[derive(Clone)]
struct ListUnsubscribePost;

type Parsed<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

impl Header for ListUnsubscribe {
    fn name() -> HeaderName {
        HeaderName::new_from_ascii_str("List-Unsubscribe")
    }

    fn parse(text: &str) -> Parsed<Self> {
        Ok(Self(text.trim_matches(['<', '>']).to_owned()))
    }

    fn display(&self) -> HeaderValue {
        HeaderValue::new(Self::name(), format!("<{}>", self.0))
    }
}

impl Header for ListUnsubscribePost {
    fn name() -> HeaderName {
        HeaderName::new_from_ascii_str("List-Unsubscribe-Post")
    }

    fn parse(_: &str) -> Parsed<Self> {
        Ok(Self)
    }

    fn display(&self) -> HeaderValue {
        HeaderValue::new(Self::name(), "List-Unsubscribe=One-Click".to_owned())
    }
}

/// Why mails cannot be sent at all.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// The sender is no mailbox.
    #[error("email.from: {0}")]
    From(lettre::address::AddressError),
    /// TLS cannot be set up.
    #[error("email.smtp_ca_file: {0}")]
    Tls(lettre::transport::smtp::Error),
}

/// Why a mail was not sent.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// The address cannot be written to.
    #[error("the address cannot be written to: {0}")]
    Address(#[from] lettre::address::AddressError),
    /// The mail cannot be made.
    #[error("the mail cannot be made: {0}")]
    Message(#[from] lettre::error::Error),
    /// The mail server did not take it.
    #[error("the mail server did not take the mail: {0}")]
    Smtp(#[from] lettre::transport::smtp::Error),
    /// This server sends no mails.
    #[error("this server sends no e-mail: email.smtp_host is not set")]
    NotConfigured,
    /// The mail server took too long.
    #[error("the mail server did not answer within {} s", WHOLE_TIMEOUT.as_secs())]
    TimedOut,
}

/// Whether a text is an address, with a name if any, as in `Example <no-reply@example.org>`.
#[must_use]
pub fn is_mailbox(text: &str) -> bool {
    text.parse::<Mailbox>().is_ok()
}

impl Mailer {
    /// A mailer that connects when it has something to send.
    ///
    /// # Errors
    /// Where the settings cannot be used.
    pub fn new(settings: MailerSettings) -> Result<Self, SetupError> {
        let MailerSettings { host, port, security, login, authorities, from } = settings;
        let from = from.parse().map_err(SetupError::From)?;
        let parameters = || -> Result<TlsParameters, SetupError> {
            let mut parameters = TlsParameters::builder(host.clone())
                .certificate_store(CertificateStore::WebpkiRoots);
            for authority in &authorities {
                let authority = Certificate::from_der(authority.to_vec());
                parameters = parameters.add_root_certificate(authority.map_err(SetupError::Tls)?);
            }
            parameters.build_rustls().map_err(SetupError::Tls)
        };
        let (tls, usual_port) = match security {
            Security::Tls => (Tls::Wrapper(parameters()?), 465),
            Security::StartTls => (Tls::Required(parameters()?), 587),
            Security::None => (Tls::None, 25),
        };
        let mut transport = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(&host)
            .port(port.unwrap_or(usual_port))
            .timeout(Some(TIMEOUT))
            .tls(tls);
        if let Some((user, password)) = login {
            transport = transport.credentials(Credentials::new(user, password));
        }
        Ok(Self { transport: transport.build(), from })
    }

    /// Sends a mail; when it returns, the mail server has taken it.
    ///
    /// # Errors
    /// Where it has not.
    pub async fn send(&self, mail: &Mail) -> Result<(), SendError> {
        let mut message = Message::builder();
        if let Some(link) = &mail.unsubscribe {
            message = message.header(ListUnsubscribe(link.clone())).header(ListUnsubscribePost);
        }
        let message = message
            .from(self.from.clone())
            .to(Mailbox::new(None, mail.to.parse()?))
            .subject(&mail.subject)
            .message_id(None)
            .multipart(MultiPart::alternative_plain_html(mail.text.clone(), mail.html.clone()))?;
        match tokio::time::timeout(WHOLE_TIMEOUT, self.transport.send(message)).await {
            Ok(sent) => Ok(sent.map(drop)?),
            Err(_) => Err(SendError::TimedOut),
        }
    }
}
