//! How calls get through: client-server API, "Voice over IP".

use std::{sync::Arc, time::Duration};

use axum::{Json, Router, extract::State};
use base64::{Engine, prelude::BASE64_STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use millrace_domain::{Env, accounts::Requester};
use ruma::api::client::voip::get_turn_server_info;
use serde_json::{Value, json};
use sha1::Sha1;

use super::{error::ApiError, extract::Matrix, router::MatrixRouter};
use crate::app::App;

/// TURN servers, and how users get in.
#[derive(Debug, Clone, Default)]
pub struct Turn {
    /// Where they are; nowhere, if there are none.
    pub uris: Vec<String>,
    /// The secret that they share with us.
    pub secret: Option<String>,
    /// Instead, the name and password for everybody.
    pub login: Option<(String, String)>,
    /// How long users may use what they are told.
    pub ttl: Duration,
    /// Whether guests are told.
    pub guests: bool,
}

pub(crate) fn routes() -> Router<App> {
    Router::new().matrix(turn_server)
}

/// `GET /_matrix/client/v3/voip/turnServer`
///
/// Where there is no TURN server the answer is empty, as clients expect it of Synapse.
#[tracing::instrument(name = "client.voip.turn_server", skip_all)]
async fn turn_server(
    State(turn): State<Arc<Turn>>,
    State(env): State<Env>,
    requester: Requester,
    Matrix(_): Matrix<get_turn_server_info::v3::Request>,
) -> Result<Json<Value>, ApiError> {
    if requester.is_guest && !turn.guests {
        return Ok(Json(json!({})));
    }
    let ttl = turn.ttl.as_secs();
    let (username, password) = match (&turn.secret, &turn.login) {
        _ if turn.uris.is_empty() => return Ok(Json(json!({}))),
        (Some(secret), _) => {
            let end = u64::from(env.now().as_secs()).saturating_add(ttl);
            let username = format!("{end}:{}", requester.user);
            let password = credential(secret, &username);
            (username, password)
        }
        (None, Some((username, password))) => (username.clone(), password.clone()),
        (None, None) => return Ok(Json(json!({}))),
    };
    Ok(Json(json!({ "username": username, "password": password, "uris": turn.uris, "ttl": ttl })))
}

/// What a TURN server takes from who was told the name: HMAC-SHA1 of it, under the shared secret.
fn credential(secret: &str, username: &str) -> String {
    let mut mac = Hmac::<Sha1>::new_from_slice(secret.as_bytes()).expect("any length is a key");
    mac.update(username.as_bytes());
    BASE64_STANDARD.encode(mac.finalize().into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_password_is_what_turn_servers_with_that_secret_expect() {
        // Computed with Python's hmac module.
        assert_eq!(credential("secret", "1700000000:@a:b"), "rdgio/2X2TM/Vu35wCFc+1QTCic=");
    }
}
