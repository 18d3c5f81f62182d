//! OpenID tokens, by which a third party learns who a user is (spec: Client-Server API, OpenID).
//!
//! A token is a statement that this server signs, so nothing is stored of it.

use std::time::Duration;

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use millrace_store::{Read, tables::ACCOUNTS};
use ruma::{
    CanonicalJsonObject, CanonicalJsonValue, Int, OwnedUserId, UserId,
    serde::Base64,
    signatures::{self, PublicKeySet},
};

use crate::Env;

/// How long a token holds.
pub const OPENID_TOKEN_LIFETIME: Duration = Duration::from_secs(3600);
/// What no other statement of this server says.
const PURPOSE: &str = "millrace.openid_token";
/// The longest text that is looked at.
const TOKEN_BYTES_MAX: usize = 2048;

/// Why no token can be made.
#[derive(Debug, thiserror::Error)]
pub enum OpenIdError {
    /// It cannot be signed.
    #[error("the token cannot be signed: {0}")]
    Sign(#[from] signatures::JsonError),
    /// It cannot be written.
    #[error("the token cannot be written: {0}")]
    Json(#[from] serde_json::Error),
}

/// A new token that tells third parties who `user` is.
///
/// # Errors
/// Where it cannot be signed.
pub fn issue_openid_token(env: &Env, user: &UserId) -> Result<String, OpenIdError> {
    let end_ms = u64::from(env.now().0).saturating_add(OPENID_TOKEN_LIFETIME.as_secs() * 1000);
    let end = Int::try_from(end_ms).unwrap_or(Int::MAX);
    let mut statement = CanonicalJsonObject::new();
    statement.insert("purpose".to_owned(), PURPOSE.into());
    statement.insert("sub".to_owned(), user.as_str().into());
    statement.insert("exp".to_owned(), CanonicalJsonValue::Integer(end));
    env.identity.key.sign_json(&env.identity.name, &mut statement)?;
    Ok(BASE64_URL_SAFE_NO_PAD.encode(serde_json::to_vec(&statement)?))
}

/// Whom a token names, if it is one of ours, still holds, and the account is active.
///
/// # Errors
/// Where the store cannot be read.
pub async fn openid_user(env: &Env, token: &str) -> millrace_store::Result<Option<OwnedUserId>> {
    let Some(user) = named_by(env, token) else { return Ok(None) };
    let account = env.store.snapshot().get(&ACCOUNTS, &user, ()).await?;
    Ok(account.filter(|account| account.deactivated.is_none()).map(|_| user))
}

fn named_by(env: &Env, token: &str) -> Option<OwnedUserId> {
    if token.len() > TOKEN_BYTES_MAX {
        return None;
    }
    let statement = BASE64_URL_SAFE_NO_PAD.decode(token).ok()?;
    let statement: CanonicalJsonObject = serde_json::from_slice(&statement).ok()?;
    let identity = &env.identity;
    let key = Base64::new(identity.key.public_bytes().to_vec());
    let keys: PublicKeySet = [(identity.key.key_id().to_string(), key)].into();
    signatures::verify_json(&[(identity.name.to_string(), keys)].into(), &statement).ok()?;
    let text = |field: &str| statement.get(field)?.as_str();
    let CanonicalJsonValue::Integer(end) = statement.get("exp")? else { return None };
    let holds = i64::from(*end) > i64::try_from(u64::from(env.now().0)).ok()?;
    let ours = text("purpose") == Some(PURPOSE);
    UserId::parse(text("sub")?).ok().filter(|user| holds && ours && env.is_local(user))
}

#[cfg(test)]
mod tests {
    use ruma::user_id;

    use super::*;
    use crate::testing;

    #[tokio::test]
    async fn a_token_names_its_user_and_no_other_text_does() {
        let env = testing::env().await;
        let alice = user_id!("@alice:test.example");
        let token = issue_openid_token(&env, alice).unwrap();
        assert_eq!(named_by(&env, &token).as_deref(), Some(alice));
        assert_eq!(openid_user(&env, &token).await.unwrap(), None, "there is no such account");
        for (n, byte) in token.bytes().enumerate() {
            let mut other = token.clone().into_bytes();
            other[n] = if byte == b'A' { b'B' } else { b'A' };
            let other = String::from_utf8(other).unwrap();
            assert_eq!(named_by(&env, &other), None, "byte {n} is changed");
        }
    }
}
