//! Rows of accounts, their devices and their tokens.

use std::collections::BTreeMap;

use ruma::{OwnedDeviceId, OwnedUserId};
use serde::{Deserialize, Serialize};

/// SHA-256 of a token: tokens themselves are never stored.
pub type TokenHash = [u8; 32];

/// One account of this server. It stays when it is deactivated, so that no name is given twice.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// The password as a PHC string of argon2id; none where nobody can log in by password.
    pub password_hash: Option<String>,
    /// When it was registered, in milliseconds since 1970.
    pub created_ms: u64,
    /// Whether it is a guest's.
    #[serde(default)]
    pub guest: bool,
    /// Whether it may use the admin API.
    #[serde(default)]
    pub admin: bool,
    /// `support` or `bot`, as the admin API calls kinds of users; none for people.
    #[serde(default)]
    pub user_type: Option<String>,
    /// Whether and how it was given up.
    #[serde(default)]
    pub deactivated: Option<Deactivation>,
    /// Whether its user may only read and leave, as an administrator decided.
    #[serde(default)]
    pub suspended: bool,
    /// Whether it cannot be used, as an administrator decided.
    #[serde(default)]
    pub locked: bool,
}

/// How an account was given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deactivation {
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
    /// Whether its messages are to be shown in redacted form to those who join later.
    pub erase: bool,
}

/// A device, and the hashes of all tokens that were given to it and are still known.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// The name that its user gave it.
    pub display_name: Option<String>,
    /// When it first logged in, in milliseconds since 1970.
    pub created_ms: u64,
    /// Access tokens: the newest, and those that it may still be using.
    pub access_tokens: Vec<TokenHash>,
    /// Refresh tokens, likewise.
    #[serde(default)]
    pub refresh_tokens: Vec<TokenHash>,
    /// The newest token with which this device may log in another one.
    #[serde(default)]
    pub login_token: Option<TokenHash>,
}

/// Where and when a device was last seen. Written every few minutes, not for each request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceSeen {
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
    /// From which address.
    pub ip: String,
    /// As what the client introduced itself (`User-Agent`).
    #[serde(default)]
    pub user_agent: Option<String>,
}

/// Everything that a request's access token says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessToken {
    /// Who it stands for.
    pub user: OwnedUserId,
    /// The device that it was given to.
    pub device: OwnedDeviceId,
    /// As [`Account::guest`].
    #[serde(default)]
    pub guest: bool,
    /// As [`Account::admin`].
    #[serde(default)]
    pub admin: bool,
    /// As [`Account::suspended`].
    #[serde(default)]
    pub suspended: bool,
    /// As [`Account::locked`].
    #[serde(default)]
    pub locked: bool,
    /// From when on it is refused, in milliseconds since 1970.
    #[serde(default)]
    pub expires_ms: Option<u64>,
    /// The refresh token that was given with it, while this one has never been used: its first use
    /// proves that both arrived, and ends those before them.
    #[serde(default)]
    pub unproven_with: Option<TokenHash>,
}

/// What a refresh token says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefreshToken {
    /// Who it stands for.
    pub user: OwnedUserId,
    /// The device that it was given to.
    pub device: OwnedDeviceId,
    /// The access token that was given with it.
    pub access_token: TokenHash,
    /// From when on it is refused, in milliseconds since 1970.
    #[serde(default)]
    pub expires_ms: Option<u64>,
}

/// What a login token says. It can be used once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoginToken {
    /// Who it logs in.
    pub user: OwnedUserId,
    /// The device that asked for it; none where its owner signed on elsewhere.
    #[serde(default)]
    pub device: Option<OwnedDeviceId>,
    /// From when on it is refused, in milliseconds since 1970.
    pub expires_ms: u64,
}

/// Whose account somebody has whom another service knows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SsoLink {
    /// The account.
    pub user: OwnedUserId,
}

/// What a user has agreed to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Consent {
    /// By the ID of a document, its version and when, in milliseconds since 1970.
    pub documents: BTreeMap<String, (String, u64)>,
}

/// A word that allows to register.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegistrationToken {
    /// How many accounts it is good for; none is any number.
    pub uses_allowed: Option<u64>,
    /// How many it has been used for.
    pub uses: u64,
    /// From when on it is refused, in milliseconds since 1970.
    pub expires_ms: Option<u64>,
}

crate::serde_value!(
    Account,
    Device,
    DeviceSeen,
    AccessToken,
    RefreshToken,
    LoginToken,
    RegistrationToken,
    Deactivation,
    SsoLink,
    Consent,
);
