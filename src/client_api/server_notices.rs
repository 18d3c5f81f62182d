//! Telling users something in the name of the server, as Synapse's tools do:
//! `/_synapse/admin/v1/send_server_notice`.

use axum::{
    Json, Router,
    extract::State,
    routing::{post, put},
};
use millrace_domain::rooms::{
    send::TransactionKey,
    server_notices::{Notice, NoticeError, NoticeSettings, send_notice},
};
use millrace_model::json::canonical_object;
use ruma::{OwnedUserId, api::error::ErrorKind, events::TimelineEventType};
use serde::Deserialize;
use serde_json::{Value, json, value::RawValue};

use super::{
    error::ApiError,
    extract::{JsonBody, PathArguments},
    requester::Administrator,
};
use crate::app::{App, RoomsPart};

const PATH: &str = "/_synapse/admin/v1/send_server_notice";

/// How the server speaks to its users; not at all where `None`.
#[derive(Debug, Clone, Default)]
pub struct Notices(pub Option<std::sync::Arc<NoticeSettings>>);

pub(crate) fn routes() -> Router<App> {
    Router::new().route(PATH, post(send)).route(&format!("{PATH}/{{txn}}"), put(send_once))
}

#[derive(Deserialize)]
struct Body {
    user_id: OwnedUserId,
    content: Box<RawValue>,
    #[serde(rename = "type")]
    kind: Option<String>,
    state_key: Option<String>,
}

/// `POST /_synapse/admin/v1/send_server_notice`
#[tracing::instrument(name = "synapse_admin.server_notice", skip_all)]
async fn send(
    State(rooms): State<RoomsPart>,
    State(notices): State<Notices>,
    _: Administrator,
    JsonBody(body): JsonBody<Body>,
) -> Result<Json<Value>, ApiError> {
    send_as(&rooms, &notices, (body, None)).await
}

/// `PUT /_synapse/admin/v1/send_server_notice/{txnId}`
#[tracing::instrument(name = "synapse_admin.server_notice_once", skip_all)]
async fn send_once(
    State(rooms): State<RoomsPart>,
    State(notices): State<Notices>,
    Administrator(requester): Administrator,
    PathArguments(id): PathArguments<String>,
    JsonBody(body): JsonBody<Body>,
) -> Result<Json<Value>, ApiError> {
    let endpoint = format!("server_notice/{}/{}", requester.user, body.user_id);
    let key = TransactionKey { device: requester.device.clone(), endpoint, id };
    send_as(&rooms, &notices, (body, Some(key))).await
}

async fn send_as(
    rooms: &RoomsPart,
    notices: &Notices,
    (body, key): (Body, Option<TransactionKey>),
) -> Result<Json<Value>, ApiError> {
    let Some(settings) = &notices.0 else {
        let message = "Server notices are not enabled on this server";
        return Err(ApiError::bad_request(ErrorKind::Unknown, message));
    };
    let kind = body.kind.map_or(TimelineEventType::RoomMessage, Into::into);
    let content = canonical_object(body.content.get())?;
    let notice = Notice { user: body.user_id, kind, state_key: body.state_key, content };
    let sent = send_notice(rooms, settings, &notice, key.as_ref()).await?;
    Ok(Json(json!({ "event_id": sent })))
}

impl From<NoticeError> for ApiError {
    fn from(error: NoticeError) -> Self {
        match error {
            NoticeError::OtherServer(_) => Self::bad_request(ErrorKind::Unknown, error),
            NoticeError::Unknown(_) => Self::not_found(error),
            NoticeError::Create(error) => error.into(),
            NoticeError::Invite(error) => error.into(),
            NoticeError::Send(error) => error.into(),
            NoticeError::Store(_) => Self::internal(error),
        }
    }
}
