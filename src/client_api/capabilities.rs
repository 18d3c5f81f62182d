//! `GET /capabilities`: what this server lets its users do.

use std::sync::Arc;

use axum::{Json, Router, extract::State};
use millrace_model::rules::room_version::OWNED_STATE;
use ruma::{RoomVersionId, api::client::discovery::get_capabilities};
use serde_json::{Map, Value, json};

use super::{extract::Matrix, requester::Requester, router::MatrixRouter};
use crate::app::App;

/// Newest of the room versions that are served, from 1 on.
const NEWEST_ROOM_VERSION: u8 = 12;

/// What differs between servers.
#[derive(Debug, Clone)]
pub struct Capabilities {
    /// Version of rooms whose creator asks for none.
    pub default_room_version: RoomVersionId,
    /// Whether users may add and remove addresses.
    pub threepid_changes: bool,
}

pub(crate) fn routes() -> Router<App> {
    Router::new().matrix(read)
}

/// `GET /_matrix/client/v3/capabilities`
///
/// Answered in full: ruma's response type leaves out what has the default of the specification,
/// and clients look for some of it.
#[tracing::instrument(name = "client.capabilities.read", skip_all)]
async fn read(
    State(capabilities): State<Arc<Capabilities>>,
    requester: Requester,
    Matrix(_): Matrix<get_capabilities::v3::Request>,
) -> Json<Value> {
    let stable = |version: u8| (version.to_string(), Value::from("stable"));
    let mut available: Map<String, Value> = (1..=NEWEST_ROOM_VERSION).map(stable).collect();
    available.insert(OWNED_STATE.to_owned(), "unstable".into());
    let enabled = json!({ "enabled": true });
    let mut capabilities = json!({
        "m.room_versions": {
            "default": capabilities.default_room_version,
            "available": available,
        },
        "m.change_password": enabled,
        "m.set_displayname": enabled,
        "m.set_avatar_url": enabled,
        "m.profile_fields": enabled,
        "m.get_login_token": enabled,
        "m.3pid_changes": { "enabled": capabilities.threepid_changes },
        "m.forget_forced_upon_leave": { "enabled": false },
    });
    if requester.admin {
        capabilities["m.account_moderation"] = json!({ "suspend": true, "lock": true });
    }
    Json(json!({ "capabilities": capabilities }))
}
