//! Typing and presence: client-server API, "Typing Notifications", "Presence".

use std::{sync::Arc, time::Duration};

use axum::{Router, extract::State};
use millrace_domain::{
    accounts::Requester,
    presence::Presence,
    typing::{Typing, TypingError},
};
use ruma::{
    api::client::{
        presence::{get_presence, set_presence},
        typing::create_typing_event::{self, v3::Typing as Wanted},
    },
    presence::PresenceState,
};

use super::{
    account_data::only_own, error::ApiError, extract::Matrix, limits::EndpointClass,
    router::MatrixRouter, user_limits::UserLimits,
};
use crate::app::App;

/// The longest status message, in bytes.
const STATUS_BYTES_MAX: usize = 1024;

pub(crate) fn routes() -> Router<App> {
    Router::new().matrix(set_typing).matrix(set_status).matrix(status)
}

/// `PUT /_matrix/client/v3/rooms/{roomId}/typing/{userId}`
#[tracing::instrument(name = "client.typing.set", skip_all, fields(room = %request.room_id))]
async fn set_typing(
    State(typing): State<Arc<Typing>>,
    State(presence): State<Arc<Presence>>,
    limits: UserLimits,
    requester: Requester,
    Matrix(request): Matrix<create_typing_event::v3::Request>,
) -> Result<Matrix<create_typing_event::v3::Response>, ApiError> {
    only_own(&requester, &request.user_id)?;
    limits.check(EndpointClass::Other, &requester.user)?;
    let timeout = match request.state {
        Wanted::No => None,
        Wanted::Yes(info) => Some(info.timeout),
    };
    typing.set(&request.room_id, &requester.user, timeout).await?;
    presence.active(&requester.user).await.map_err(ApiError::internal)?;
    Ok(Matrix(create_typing_event::v3::Response::new()))
}

/// `PUT /_matrix/client/v3/presence/{userId}/status`
#[tracing::instrument(name = "client.presence.set", skip_all)]
async fn set_status(
    State(presence): State<Arc<Presence>>,
    limits: UserLimits,
    requester: Requester,
    Matrix(request): Matrix<set_presence::v3::Request>,
) -> Result<Matrix<set_presence::v3::Response>, ApiError> {
    only_own(&requester, &request.user_id)?;
    limits.check(EndpointClass::Other, &requester.user)?;
    if request.status_msg.as_ref().is_some_and(|text| text.len() > STATUS_BYTES_MAX) {
        return Err(ApiError::invalid_param("The status message is too long"));
    }
    let known = [PresenceState::Online, PresenceState::Unavailable, PresenceState::Offline];
    if !known.contains(&request.presence) {
        return Err(ApiError::invalid_param("There is no such presence"));
    }
    let set = presence.set(&requester.user, request.presence, request.status_msg);
    set.await.map_err(ApiError::internal)?;
    Ok(Matrix(set_presence::v3::Response::new()))
}

/// `GET /_matrix/client/v3/presence/{userId}/status`
#[tracing::instrument(name = "client.presence.read", skip_all)]
async fn status(
    State(presence): State<Arc<Presence>>,
    requester: Requester,
    Matrix(request): Matrix<get_presence::v3::Request>,
) -> Result<Matrix<get_presence::v3::Response>, ApiError> {
    let visible = presence.is_visible(&requester.user, &request.user_id).await;
    if !visible.map_err(ApiError::internal)? {
        return Err(ApiError::forbidden("You share no room with this user"));
    }
    let mut response = get_presence::v3::Response::new(PresenceState::Offline);
    if let Some(shown) = presence.of([&*request.user_id]).into_iter().next() {
        response.presence = shown.presence;
        response.status_msg = shown.status_msg;
        response.currently_active = Some(shown.currently_active);
        response.last_active_ago = shown.last_active_ago_ms.map(Duration::from_millis);
    }
    Ok(Matrix(response))
}

impl From<TypingError> for ApiError {
    fn from(error: TypingError) -> Self {
        match error {
            TypingError::NotJoined { .. } => Self::forbidden(error),
            TypingError::Store(_) => Self::internal(error),
        }
    }
}
