//! Threads of which users want to be notified: MSC4306, under its unstable name.

use axum::{Json, Router, extract::State, routing::get};
use http::StatusCode;
use millrace_domain::{
    Env,
    accounts::Requester,
    thread_subscriptions::{By, SubscriptionError, subscribe, subscription, unsubscribe},
};
use ruma::{OwnedEventId, OwnedRoomId, api::error::ErrorKind};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    error::ApiError,
    extract::{JsonBody, PathArguments},
    history::Reading,
    limits::EndpointClass,
    user_limits::UserLimits,
};
use crate::app::{App, RoomsPart};

const PATH: &str =
    "/_matrix/client/unstable/io.element.msc4306/rooms/{room}/thread/{root}/subscription";

pub(crate) fn routes() -> Router<App> {
    Router::new().route(PATH, get(read).put(set).delete(remove))
}

/// A thread in a path.
type ThreadPath = PathArguments<(OwnedRoomId, OwnedEventId)>;

#[derive(Deserialize)]
struct Body {
    /// The event because of which a client subscribes by itself.
    automatic: Option<OwnedEventId>,
}

/// `GET …/rooms/{roomId}/thread/{eventId}/subscription`
#[tracing::instrument(name = "client.thread_subscription.read", skip_all)]
async fn read(
    State(rooms): State<RoomsPart>,
    requester: Requester,
    PathArguments((room, root)): ThreadPath,
) -> Result<Json<Value>, ApiError> {
    let reading = Reading::begin(&rooms, &requester).await?;
    let view = reading.open(&room).await?;
    match subscription(&view, &root).await? {
        Some(automatic) => Ok(Json(json!({ "automatic": automatic }))),
        None => Err(ApiError::not_found("You are not subscribed to this thread")),
    }
}

/// `PUT …/rooms/{roomId}/thread/{eventId}/subscription`
#[tracing::instrument(name = "client.thread_subscription.set", skip_all)]
async fn set(
    (State(rooms), State(env)): (State<RoomsPart>, State<Env>),
    limits: UserLimits,
    requester: Requester,
    PathArguments((room, root)): ThreadPath,
    JsonBody(Body { automatic }): JsonBody<Body>,
) -> Result<Json<Value>, ApiError> {
    limits.check(EndpointClass::Other, &requester.user)?;
    let reading = Reading::begin(&rooms, &requester).await?;
    let view = reading.open(&room).await?;
    let by = automatic.as_deref().map_or(By::Hand, By::Event);
    subscribe(&env, &view, &root, by).await?;
    Ok(Json(json!({})))
}

/// `DELETE …/rooms/{roomId}/thread/{eventId}/subscription`
#[tracing::instrument(name = "client.thread_subscription.remove", skip_all)]
async fn remove(
    (State(rooms), State(env)): (State<RoomsPart>, State<Env>),
    limits: UserLimits,
    requester: Requester,
    PathArguments((room, root)): ThreadPath,
) -> Result<Json<Value>, ApiError> {
    limits.check(EndpointClass::Other, &requester.user)?;
    let reading = Reading::begin(&rooms, &requester).await?;
    unsubscribe(&env, &reading.open(&room).await?, &root).await?;
    Ok(Json(json!({})))
}

impl From<SubscriptionError> for ApiError {
    fn from(error: SubscriptionError) -> Self {
        match error {
            SubscriptionError::UnknownThread(_) => Self::not_found(error),
            SubscriptionError::NotInThread(_) => Self::bad_request(ErrorKind::NotInThread, error),
            SubscriptionError::Unsubscribed => {
                Self::new(StatusCode::CONFLICT, ErrorKind::ConflictingUnsubscription, error)
            }
            SubscriptionError::Read(_) | SubscriptionError::Store(_) => Self::internal(error),
        }
    }
}
