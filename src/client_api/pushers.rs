//! Pushers and what notified: client-server API, "Push Notifications".

use std::sync::Arc;

use axum::{Router, extract::State, response::Response};
use millrace_domain::{
    Env,
    accounts::Requester,
    pushers::{self, NewPusher, Others, PusherError, PusherId},
    threepids::{Address, owner},
    unread::{self, NotificationsQuery, UnreadError, Unreads},
};
use ruma::{
    UserId,
    api::{
        client::push::{
            PusherIds, PusherKind, get_notifications, get_pushers,
            set_pusher::{
                self,
                v3::{PusherAction, PusherPostData},
            },
        },
        error::ErrorKind,
    },
    push::HttpPusherData,
};
use serde_json::{json, value::RawValue};

use super::{
    error::ApiError, extract::Matrix, json::raw_json, limits::EndpointClass, router::MatrixRouter,
    user_limits::UserLimits,
};
use crate::app::{App, RoomsPart};

/// Notifications on a page, if the client does not say.
const PAGE: usize = 20;
/// Where every gateway listens (spec: `PusherData`).
const GATEWAY_PATH: &str = "/_matrix/push/v1/notify";

pub(crate) fn routes() -> Router<App> {
    Router::new().matrix(list).matrix(set).matrix(notifications)
}

/// `GET /_matrix/client/v3/pushers`
#[tracing::instrument(name = "client.pushers.list", skip_all)]
async fn list(
    State(env): State<Env>,
    requester: Requester,
    Matrix(_): Matrix<get_pushers::v3::Request>,
) -> Result<Response, ApiError> {
    let pushers = pushers::list(&env, &requester.user).await.map_err(ApiError::internal)?;
    let pushers: Result<Vec<Box<RawValue>>, _> =
        pushers.into_iter().map(|pusher| RawValue::from_string(pusher.json)).collect();
    let pushers = pushers.map_err(ApiError::internal)?;
    Ok(raw_json(json!({ "pushers": pushers }).to_string()))
}

/// `POST /_matrix/client/v3/pushers/set`
#[tracing::instrument(name = "client.pushers.set", skip_all)]
async fn set(
    State(env): State<Env>,
    limits: UserLimits,
    requester: Requester,
    Matrix(request): Matrix<set_pusher::v3::Request>,
) -> Result<Matrix<set_pusher::v3::Response>, ApiError> {
    limits.check(EndpointClass::Other, &requester.user)?;
    match request.action {
        PusherAction::Delete(ids) => pushers::remove(&env, &requester.user, &id(ids)).await?,
        PusherAction::Post(data) => {
            let user = requester.user.clone();
            if let PusherKind::Email(_) = &data.pusher.kind {
                own_address(&env, &user, &data.pusher.ids.pushkey).await?;
            }
            pushers::set(&env, &user, &new_pusher(requester, data)?).await?;
        }
        _ => return Err(ApiError::bad_json("kind must be a string or null")),
    }
    Ok(Matrix(set_pusher::v3::Response::new()))
}

/// Mails go to addresses that the user has proved only.
async fn own_address(env: &Env, user: &UserId, address: &str) -> Result<(), ApiError> {
    let unknown = || ApiError::bad_request(ErrorKind::ThreepidNotFound, "the address is not yours");
    let address = Address::email(address).map_err(|_| unknown())?;
    let owner = owner(&env.store.snapshot(), &address).await.map_err(ApiError::internal)?;
    if owner.as_deref() == Some(user) { Ok(()) } else { Err(unknown()) }
}

fn id(ids: PusherIds) -> PusherId {
    PusherId { app_id: ids.app_id, pushkey: ids.pushkey }
}

fn new_pusher(requester: Requester, data: PusherPostData) -> Result<NewPusher, ApiError> {
    let pusher = data.pusher;
    if let PusherKind::Http(HttpPusherData { url, .. }) = &pusher.kind {
        let web = url.starts_with("https://") || url.starts_with("http://");
        if !web || !url.ends_with(GATEWAY_PATH) {
            let message = format_args!("data.url must be an HTTPS URL that ends in {GATEWAY_PATH}");
            return Err(ApiError::invalid_param(message));
        }
    }
    let json = serde_json::to_string(&pusher).map_err(ApiError::bad_json)?;
    let others = if data.append { Others::Keep } else { Others::Remove };
    Ok(NewPusher { id: id(pusher.ids), json, device: requester.device, others })
}

/// `GET /_matrix/client/v3/notifications`
#[tracing::instrument(name = "client.notifications.list", skip_all)]
async fn notifications(
    State(rooms): State<RoomsPart>,
    State(unreads): State<Arc<Unreads>>,
    requester: Requester,
    Matrix(request): Matrix<get_notifications::v3::Request>,
) -> Result<Response, ApiError> {
    let before = request.from.as_deref().filter(|from| !from.is_empty()).map(str::parse);
    let before = before.transpose().map_err(|_| ApiError::invalid_param("from is no token"))?;
    let limit = request.limit.map_or(PAGE, |limit| usize::try_from(limit).unwrap_or(PAGE));
    let highlights_only = request.only.as_deref().is_some_and(|only| only.contains("highlight"));
    let query = NotificationsQuery { before, limit, highlights_only };
    let page = unread::notifications(&unreads, &rooms, &requester.user, query).await?;
    let wire = page.notifications.iter().map(|one| {
        json!({
            "room_id": one.room,
            "event": one.event,
            "ts": one.ts,
            "actions": one.actions,
            "read": one.read,
        })
    });
    let mut body = json!({ "notifications": wire.collect::<Vec<_>>() });
    if let Some(next) = page.next {
        body["next_token"] = next.to_string().into();
    }
    Ok(raw_json(body.to_string()))
}

impl From<PusherError> for ApiError {
    fn from(error: PusherError) -> Self {
        match error {
            PusherError::AppId | PusherError::Pushkey | PusherError::TooMany => {
                Self::invalid_param(error)
            }
            PusherError::TooLarge => Self::too_large(error),
            PusherError::Store(_) => Self::internal(error),
        }
    }
}

impl From<UnreadError> for ApiError {
    fn from(error: UnreadError) -> Self {
        Self::internal(error)
    }
}
