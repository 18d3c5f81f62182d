//! Reading the state of a room: client-server API, "Getting events for a room".

use axum::{Router, extract::State};
use millrace_domain::{
    accounts::Requester,
    rooms::{
        Viewer,
        state::{self, Form, StateReadError},
    },
};
use ruma::{
    api::client::state::{
        get_state_event_for_key::{self, v3::StateEventFormat},
        get_state_events,
    },
    serde::Raw,
};

use super::{error::ApiError, extract::Matrix, partial_rooms, router::MatrixRouter};
use crate::app::{App, RoomsPart};

pub(crate) fn routes() -> Router<App> {
    Router::new().matrix(read_one).matrix(read_all)
}

/// Who reads state; nobody's state events are hidden by being ignored.
pub(super) fn viewer(requester: &Requester) -> Viewer {
    let (user, device) = (requester.user.clone(), Some(requester.device.clone()));
    Viewer { user, device, ignored: std::sync::Arc::default() }
}

/// `GET /_matrix/client/v3/rooms/{roomId}/state/{eventType}/{stateKey}`
#[tracing::instrument(name = "client.state.read", skip_all, fields(room = %request.room_id))]
async fn read_one(
    State(rooms): State<RoomsPart>,
    requester: Requester,
    Matrix(request): Matrix<get_state_event_for_key::v3::Request>,
) -> Result<Matrix<get_state_event_for_key::v3::Response>, ApiError> {
    let form = match request.format {
        StateEventFormat::Content => Form::Content,
        StateEventFormat::Event => Form::Event,
        _ => return Err(ApiError::invalid_param("format must be content or event")),
    };
    let kind = request.event_type.to_string();
    if kind == "m.room.member" && request.state_key != requester.user {
        partial_rooms::all_members(&rooms, &request.room_id, &requester.user).await?;
    }
    let (viewer, place) = (viewer(&requester), (kind.as_str(), request.state_key.as_str()));
    let found = state::state_event(&rooms, &viewer, &request.room_id, place, form).await?;
    Ok(Matrix(get_state_event_for_key::v3::Response::new(found)))
}

/// `GET /_matrix/client/v3/rooms/{roomId}/state`
#[tracing::instrument(name = "client.state.list", skip_all, fields(room = %request.room_id))]
async fn read_all(
    State(rooms): State<RoomsPart>,
    requester: Requester,
    Matrix(request): Matrix<get_state_events::v3::Request>,
) -> Result<Matrix<get_state_events::v3::Response>, ApiError> {
    partial_rooms::all_members(&rooms, &request.room_id, &requester.user).await?;
    let events = state::whole_state(&rooms, &viewer(&requester), &request.room_id).await?;
    let events = events.into_iter().map(Raw::from_json).collect();
    Ok(Matrix(get_state_events::v3::Response::new(events)))
}

impl From<StateReadError> for ApiError {
    fn from(error: StateReadError) -> Self {
        match error {
            StateReadError::NotReadable(_) => Self::forbidden(error),
            StateReadError::NoSuchState => Self::not_found(error),
            StateReadError::Read(error) => Self::internal(error),
        }
    }
}
