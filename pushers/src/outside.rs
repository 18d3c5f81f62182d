//! What pushers need from outside: gateways and a mail server.

use std::time::Duration;

use async_trait::async_trait;
use ruma::{OwnedUserId, UserId};

/// Reaches push gateways, at addresses that users name.
#[async_trait]
pub trait Gateways: Send + Sync + 'static {
    /// Posts a notification, and returns the keys that the gateway calls dead.
    ///
    /// # Errors
    /// Where the gateway has not taken it.
    async fn notify(&self, url: &str, body: String) -> Result<Vec<String>, GatewayError>;
}

/// A gateway has not taken a notification.
#[derive(Debug, thiserror::Error)]
#[error("{reason}")]
pub struct GatewayError {
    /// Why.
    pub reason: String,
    /// When it wants to be asked again, if it said so.
    pub after: Option<Duration>,
}

/// Sends mails about what is unread.
#[async_trait]
pub trait Mails: Send + Sync + 'static {
    /// Sends one.
    ///
    /// # Errors
    /// Where the mail server has not taken it.
    async fn send(&self, to: &UserId, mail: DigestMail) -> Result<(), MailError>;
}

/// A mail was not sent.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct MailError(pub String);

/// What a mail tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DigestMail {
    /// The address: the pusher's key.
    pub address: String,
    /// The pusher's app.
    pub app_id: String,
    /// The rooms with news, and what they are.
    pub rooms: Vec<DigestRoom>,
}

/// One room in a mail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DigestRoom {
    /// Its name, or that of who wrote.
    pub name: String,
    /// Who wrote what, the oldest first: what it is that was written is absent where it is not known or
    /// encrypted.
    pub messages: Vec<(String, Option<String>)>,
    /// How many more there are.
    pub more: usize,
    /// The newest sender.
    pub sender: OwnedUserId,
}
