//! Rows of third-party identifiers: e-mail addresses and phone numbers.

use ruma::OwnedUserId;
use serde::{Deserialize, Serialize};

use super::account::TokenHash;

/// An identifier that belongs to an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Threepid {
    /// When its owner proved to hold it, in milliseconds since 1970.
    pub validated_ms: u64,
    /// When it was added to the account, in milliseconds since 1970.
    pub added_ms: u64,
}

/// Whose an identifier is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ThreepidOwner {
    /// The account.
    pub user: OwnedUserId,
}

/// What a validation is for. It is good for nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Purpose {
    /// To register an account.
    Register,
    /// To add the identifier to an account.
    Add,
    /// To set a new password.
    ResetPassword,
}

/// Somebody is asked to prove that they hold an address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ThreepidSession {
    /// `email` or `msisdn`.
    pub medium: String,
    /// The address in its canonical form.
    pub address: String,
    /// What for.
    pub purpose: Purpose,
    /// What the client shows to prove that it began the session.
    pub client_secret: TokenHash,
    /// The words that were sent to the address, the newest last; any of them is good.
    pub tokens: Vec<TokenHash>,
    /// The highest number that the client gave to its requests, of those that were served.
    pub attempt: u64,
    /// Where the client wants its user to go afterwards.
    pub next_link: Option<String>,
    /// The session of the service that sends the messages, where we do not.
    pub remote: Option<String>,
    /// When it ends, in milliseconds since 1970.
    pub expires_ms: u64,
    /// When the address was proved, in milliseconds since 1970.
    pub validated_ms: Option<u64>,
}

crate::serde_value!(Threepid, ThreepidOwner, ThreepidSession);
