//! Whom an address belongs to, and invitations of who has no account yet (spec: Identity Service API,
//! Association lookup, Invitation storage).

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use http::Method;
use millrace_domain::threepids::Address;
use ruma::{OwnedUserId, RoomId, ServerName, UserId};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::{IdentityError, IdentityServers, ask::Credentials};

/// An invitation of whoever has an address.
#[derive(Debug, Clone, Copy)]
pub struct StoreInvite<'a> {
    /// The address.
    pub address: &'a Address,
    /// To which room.
    pub room: &'a RoomId,
    /// Who invites.
    pub sender: &'a UserId,
    /// What the mail may say of room and sender.
    pub shown: &'a RoomShown,
}

/// What an invitation by mail may say.
#[derive(Debug, Clone, Default, Serialize)]
pub struct RoomShown {
    /// The room's canonical alias.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub room_alias: Option<String>,
    /// Its avatar.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub room_avatar_url: Option<String>,
    /// Its join rule.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub room_join_rules: Option<String>,
    /// Its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub room_name: Option<String>,
    /// The `type` of its create event.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub room_type: Option<String>,
    /// The sender's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sender_display_name: Option<String>,
    /// The sender's avatar.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sender_avatar_url: Option<String>,
}

/// An invitation that an identity server keeps until the address is somebody's.
#[derive(Debug, Clone, Deserialize)]
pub struct StoredInvite {
    /// The state key of the room's `m.room.third_party_invite`.
    pub token: String,
    /// The keys that will sign who it is, the server's own first.
    pub public_keys: Vec<PublicKey>,
    /// The address as everybody may see it.
    pub display_name: String,
}

/// A key of an identity server.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PublicKey {
    /// The key in base64.
    pub public_key: String,
    /// Where to ask whether it is still good.
    pub key_validity_url: String,
}

#[derive(Deserialize)]
struct HashDetails {
    lookup_pepper: String,
    algorithms: Vec<String>,
}

#[derive(Deserialize)]
struct Lookup {
    mappings: Map<String, Value>,
}

impl IdentityServers {
    /// The user that an identity server knows for an address, if it knows one.
    ///
    /// # Errors
    /// Where the identity server refuses or cannot be reached.
    pub async fn lookup(
        &self,
        server: &ServerName,
        access_token: &str,
        address: &Address,
    ) -> Result<Option<OwnedUserId>, IdentityError> {
        let credentials = Credentials::Token(access_token);
        let path = (Method::GET, "/_matrix/identity/v2/hash_details");
        let details: HashDetails = self.ask(server, path, credentials, None).await?;
        let (text, medium) = (address.text(), address.medium().as_str());
        let (algorithm, asked) = if details.algorithms.iter().any(|known| known == "sha256") {
            let hashed = Sha256::digest(format!("{text} {medium} {}", details.lookup_pepper));
            ("sha256", BASE64_URL_SAFE_NO_PAD.encode(hashed))
        } else {
            ("none", format!("{text} {medium}"))
        };
        let body = json!({
            "addresses": [asked],
            "algorithm": algorithm,
            "pepper": details.lookup_pepper,
        });
        let path = (Method::POST, "/_matrix/identity/v2/lookup");
        let lookup: Lookup = self.ask(server, path, credentials, Some(&body)).await?;
        let user = lookup.mappings.get(&asked).and_then(Value::as_str);
        Ok(user.and_then(|user| UserId::parse(user).ok()))
    }

    /// Has an identity server keep an invitation, and tell whoever has the address.
    ///
    /// # Errors
    /// Where the identity server refuses or cannot be reached.
    pub async fn store_invite(
        &self,
        server: &ServerName,
        access_token: &str,
        invite: &StoreInvite<'_>,
    ) -> Result<StoredInvite, IdentityError> {
        let unwritable = |error: serde_json::Error| IdentityError::Request(error.to_string());
        let mut body = serde_json::to_value(invite.shown).map_err(unwritable)?;
        for (field, value) in [
            ("medium", invite.address.medium().as_str()),
            ("address", invite.address.text()),
            ("room_id", invite.room.as_str()),
            ("sender", invite.sender.as_str()),
        ] {
            body[field] = value.into();
        }
        let path = (Method::POST, "/_matrix/identity/v2/store-invite");
        let stored: StoredInvite =
            self.ask(server, path, Credentials::Token(access_token), Some(&body)).await?;
        let good = |token: &str| {
            let char = |byte: u8| byte.is_ascii_alphanumeric() || b".=_-".contains(&byte);
            (1..=255).contains(&token.len()) && token.bytes().all(char)
        };
        if !good(&stored.token) || stored.public_keys.is_empty() {
            let reason = "the invitation has no usable token or no keys".to_owned();
            return Err(IdentityError::Unreadable { server: server.to_string(), reason });
        }
        Ok(stored)
    }
}

#[derive(Deserialize)]
struct Validity {
    valid: bool,
}

impl IdentityServers {
    /// Whether a key of an invitation is still good, as the address that the room names says. No
    /// answer is no.
    pub async fn is_key_valid(&self, url: &str, public_key: &str) -> bool {
        let joined = if url.contains('?') { '&' } else { '?' };
        let key: String = public_key
            .bytes()
            .map(|byte| match byte {
                b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' | b'-' | b'_' => {
                    char::from(byte).to_string()
                }
                other => format!("%{other:02X}"),
            })
            .collect();
        match self.fetch::<Validity>(&format!("{url}{joined}public_key={key}")).await {
            Ok(validity) => validity.valid,
            Err(error) => {
                tracing::debug!(url, %error, "whether a key is valid cannot be told");
                false
            }
        }
    }
}
