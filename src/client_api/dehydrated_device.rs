//! Dehydrated devices: MSC3814.

use std::collections::BTreeMap;

use axum::{
    Router,
    extract::{Path, State},
    response::Response,
    routing::{get, post},
};
use millrace_domain::{
    Env,
    accounts::{
        DehydratedError, NewDehydratedDevice, Requester, dehydrate, dehydrated, dehydrated_events,
        delete_dehydrated,
    },
    keys::KeysUpload,
};
use ruma::OwnedDeviceId;
use serde::Deserialize;
use serde_json::{json, value::RawValue};

use super::{error::ApiError, extract::JsonBody, json::raw_json};
use crate::app::{AccountsPart, App};

/// Where the endpoints are; ruma has them behind a feature only.
const PATH: &str = "/_matrix/client/unstable/org.matrix.msc3814.v1/dehydrated_device";

pub(crate) fn routes() -> Router<App> {
    Router::new()
        .route(PATH, get(read).put(put).delete(delete))
        .route(&format!("{PATH}/{{device}}/events"), post(events))
}

#[derive(Deserialize)]
struct Put {
    device_id: OwnedDeviceId,
    initial_device_display_name: Option<String>,
    device_data: Box<RawValue>,
    device_keys: Box<RawValue>,
    #[serde(default)]
    one_time_keys: BTreeMap<String, Box<RawValue>>,
    #[serde(default)]
    fallback_keys: BTreeMap<String, Box<RawValue>>,
}

/// `PUT …/dehydrated_device`
#[tracing::instrument(name = "client.dehydrated_device.put", skip_all)]
async fn put(
    State(accounts): State<AccountsPart>,
    requester: Requester,
    JsonBody(body): JsonBody<Put>,
) -> Result<Response, ApiError> {
    if !body.device_data.get().starts_with('{') {
        return Err(ApiError::bad_json("device_data must be an object"));
    }
    let texts = |keys: BTreeMap<String, Box<RawValue>>| {
        keys.into_iter().map(|(id, key)| (id, key.get().to_owned())).collect()
    };
    let new = NewDehydratedDevice {
        id: body.device_id,
        display_name: body.initial_device_display_name,
        data: body.device_data.get().to_owned(),
        keys: KeysUpload {
            device_keys: Some(body.device_keys.get().to_owned()),
            one_time_keys: texts(body.one_time_keys),
            fallback_keys: texts(body.fallback_keys),
        },
    };
    dehydrate(&accounts, &requester, &new).await?;
    Ok(raw_json(json!({ "device_id": new.id }).to_string()))
}

/// `GET …/dehydrated_device`
#[tracing::instrument(name = "client.dehydrated_device.read", skip_all)]
async fn read(State(env): State<Env>, requester: Requester) -> Result<Response, ApiError> {
    let device = dehydrated(&env, &requester.user).await?;
    let id = json!(device.device);
    Ok(raw_json(format!(r#"{{"device_id":{id},"device_data":{}}}"#, device.data)))
}

/// `DELETE …/dehydrated_device`
#[tracing::instrument(name = "client.dehydrated_device.delete", skip_all)]
async fn delete(State(env): State<Env>, requester: Requester) -> Result<Response, ApiError> {
    let device = delete_dehydrated(&env, &requester).await?;
    Ok(raw_json(json!({ "device_id": device }).to_string()))
}

#[derive(Deserialize)]
struct Events {
    next_batch: Option<String>,
}

/// `POST …/dehydrated_device/{device_id}/events`
#[tracing::instrument(name = "client.dehydrated_device.events", skip_all)]
async fn events(
    State(env): State<Env>,
    requester: Requester,
    Path(device): Path<OwnedDeviceId>,
    JsonBody(body): JsonBody<Events>,
) -> Result<Response, ApiError> {
    let after = match body.next_batch.as_deref() {
        None | Some("") => 0,
        Some(text) => {
            text.parse().map_err(|_| ApiError::invalid_param("next_batch is no token"))?
        }
    };
    let waiting = dehydrated_events(&env, &requester.user, &device, after).await?;
    let next = waiting.last().map_or(after, |last| last.n);
    let events = waiting.iter().map(|waiting| {
        let message = &waiting.message;
        let (kind, sender) = (json!(message.kind), json!(message.sender));
        format!(r#"{{"type":{kind},"sender":{sender},"content":{}}}"#, message.content)
    });
    let events = events.collect::<Vec<_>>().join(",");
    Ok(raw_json(format!(r#"{{"events":[{events}],"next_batch":"{next}"}}"#)))
}

impl From<DehydratedError> for ApiError {
    fn from(error: DehydratedError) -> Self {
        match error {
            DehydratedError::None => Self::not_found(error),
            DehydratedError::OtherDevice => Self::forbidden(error),
            DehydratedError::InUse => Self::invalid_param(error),
            DehydratedError::TooLarge(_) => Self::too_large(error),
            DehydratedError::Keys(error) => error.into(),
            DehydratedError::Session(error) => error.into(),
            DehydratedError::Store(_) => Self::internal(error),
        }
    }
}
