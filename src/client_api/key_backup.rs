//! Backups of room keys: client-server API, "Server-side key backups".

use std::collections::BTreeMap;

use axum::{Router, extract::State, response::Response};
use http::StatusCode;
use millrace_domain::{
    Env,
    accounts::Requester,
    key_backup::{self, BackupError, BackupState, NewBackup, RoomKeys, Selection},
};
use millrace_store::rows::keys::{BackedUpKey, Backup};
use ruma::{
    OwnedRoomId, UInt,
    api::{
        client::backup::{
            BackupAlgorithm, KeyBackupData, RoomKeyBackup, add_backup_keys,
            add_backup_keys_for_room, add_backup_keys_for_session, create_backup_version,
            delete_backup_keys, delete_backup_keys_for_room, delete_backup_keys_for_session,
            delete_backup_version, get_backup_info, get_backup_keys, get_backup_keys_for_room,
            get_backup_keys_for_session, get_latest_backup_info, update_backup_version,
        },
        error::{ErrorKind, WrongRoomKeysVersionErrorData},
    },
    serde::Raw,
};
use serde::Deserialize;
use serde_json::{json, value::RawValue};

use super::{
    error::ApiError,
    extract::{Matrix, refuse_json},
    json::raw_json,
    limits::EndpointClass,
    router::MatrixRouter,
    user_limits::UserLimits,
};
use crate::app::App;

pub(crate) fn routes() -> Router<App> {
    Router::new()
        .matrix(create)
        .matrix(latest)
        .matrix(info)
        .matrix(update)
        .matrix(delete)
        .matrix(put_all)
        .matrix(put_room)
        .matrix(put_session)
        .matrix(get_all)
        .matrix(get_room)
        .matrix(get_session)
        .matrix(delete_all)
        .matrix(delete_room)
        .matrix(delete_session)
}

/// `POST /_matrix/client/v3/room_keys/version`
#[tracing::instrument(name = "client.key_backup.create", skip_all)]
async fn create(
    State(env): State<Env>,
    limits: UserLimits,
    requester: Requester,
    Matrix(request): Matrix<create_backup_version::v3::Request>,
) -> Result<Matrix<create_backup_version::v3::Response>, ApiError> {
    limits.check(EndpointClass::Other, &requester.user)?;
    let new = new_backup(&request.algorithm)?;
    let version = key_backup::create(&env, &requester.user, &new).await?;
    Ok(Matrix(create_backup_version::v3::Response::new(version.to_string())))
}

#[derive(Deserialize)]
struct Algorithm {
    algorithm: String,
    auth_data: Box<RawValue>,
}

fn new_backup(wire: &Raw<BackupAlgorithm>) -> Result<NewBackup, ApiError> {
    let Algorithm { algorithm, auth_data } =
        serde_json::from_str(wire.json().get()).map_err(|error| refuse_json(&error))?;
    let auth_data = object(&auth_data, "auth_data")?;
    Ok(NewBackup { algorithm, auth_data })
}

fn object(value: &RawValue, name: &str) -> Result<String, ApiError> {
    if !value.get().starts_with('{') {
        return Err(ApiError::bad_json(format!("{name} must be an object")));
    }
    Ok(value.get().to_owned())
}

/// `GET /_matrix/client/v3/room_keys/version`
#[tracing::instrument(name = "client.key_backup.latest", skip_all)]
async fn latest(
    State(env): State<Env>,
    requester: Requester,
    Matrix(_): Matrix<get_latest_backup_info::v3::Request>,
) -> Result<Response, ApiError> {
    let (version, backup) = key_backup::current(&env, &requester.user).await?;
    told(version, &backup)
}

/// `GET /_matrix/client/v3/room_keys/version/{version}`
#[tracing::instrument(name = "client.key_backup.info", skip_all)]
async fn info(
    State(env): State<Env>,
    requester: Requester,
    Matrix(request): Matrix<get_backup_info::v3::Request>,
) -> Result<Response, ApiError> {
    let version = number(&request.version)?;
    told(version, &key_backup::backup(&env, &requester.user, version).await?)
}

fn told(version: u64, backup: &Backup) -> Result<Response, ApiError> {
    let auth_data = RawValue::from_string(backup.auth_data.clone()).map_err(ApiError::internal)?;
    let mut body = BTreeMap::new();
    let value = |text: String| serde_json::value::to_raw_value(&text).map_err(ApiError::internal);
    body.insert("algorithm", value(backup.algorithm.clone())?);
    body.insert("auth_data", auth_data);
    body.insert("etag", value(backup.etag.to_string())?);
    body.insert("version", value(version.to_string())?);
    let count = serde_json::value::to_raw_value(&backup.count).map_err(ApiError::internal)?;
    body.insert("count", count);
    Ok(raw_json(serde_json::to_string(&body).map_err(ApiError::internal)?))
}

/// `PUT /_matrix/client/v3/room_keys/version/{version}`
#[tracing::instrument(name = "client.key_backup.update", skip_all)]
async fn update(
    State(env): State<Env>,
    limits: UserLimits,
    requester: Requester,
    Matrix(request): Matrix<update_backup_version::v3::Request>,
) -> Result<Matrix<update_backup_version::v3::Response>, ApiError> {
    #[derive(Deserialize)]
    struct Named {
        version: Option<String>,
    }
    limits.check(EndpointClass::Other, &requester.user)?;
    let named: Named = serde_json::from_str(request.algorithm.json().get())
        .map_err(|error| refuse_json(&error))?;
    if named.version.is_some_and(|version| version != request.version) {
        return Err(ApiError::invalid_param("The version in the body is another"));
    }
    let new = new_backup(&request.algorithm)?;
    key_backup::update(&env, &requester.user, number(&request.version)?, &new).await?;
    Ok(Matrix(update_backup_version::v3::Response::new()))
}

/// `DELETE /_matrix/client/v3/room_keys/version/{version}`
#[tracing::instrument(name = "client.key_backup.delete", skip_all)]
async fn delete(
    State(env): State<Env>,
    limits: UserLimits,
    requester: Requester,
    Matrix(request): Matrix<delete_backup_version::v3::Request>,
) -> Result<Matrix<delete_backup_version::v3::Response>, ApiError> {
    limits.check(EndpointClass::Other, &requester.user)?;
    key_backup::delete(&env, &requester.user, number(&request.version)?).await?;
    Ok(Matrix(delete_backup_version::v3::Response::new()))
}

/// A version of ours; what is no number is none.
fn number(version: &str) -> Result<u64, ApiError> {
    version.parse().map_err(|_| BackupError::Unknown.into())
}

/// `PUT /_matrix/client/v3/room_keys/keys`
#[tracing::instrument(name = "client.key_backup.put_all", skip_all)]
async fn put_all(
    State(env): State<Env>,
    limits: UserLimits,
    requester: Requester,
    Matrix(request): Matrix<add_backup_keys::v3::Request>,
) -> Result<Response, ApiError> {
    put(&env, (&limits, &requester), &request.version, request.rooms).await
}

/// `PUT /_matrix/client/v3/room_keys/keys/{roomId}`
#[tracing::instrument(name = "client.key_backup.put_room", skip_all)]
async fn put_room(
    State(env): State<Env>,
    limits: UserLimits,
    requester: Requester,
    Matrix(request): Matrix<add_backup_keys_for_room::v3::Request>,
) -> Result<Response, ApiError> {
    let rooms = [(request.room_id, RoomKeyBackup::new(request.sessions))].into();
    put(&env, (&limits, &requester), &request.version, rooms).await
}

/// `PUT /_matrix/client/v3/room_keys/keys/{roomId}/{sessionId}`
#[tracing::instrument(name = "client.key_backup.put_session", skip_all)]
async fn put_session(
    State(env): State<Env>,
    limits: UserLimits,
    requester: Requester,
    Matrix(request): Matrix<add_backup_keys_for_session::v3::Request>,
) -> Result<Response, ApiError> {
    let sessions = [(request.session_id, request.session_data)].into();
    let rooms = [(request.room_id, RoomKeyBackup::new(sessions))].into();
    put(&env, (&limits, &requester), &request.version, rooms).await
}

#[derive(Deserialize)]
struct WireKey {
    first_message_index: UInt,
    forwarded_count: UInt,
    is_verified: bool,
    session_data: Box<RawValue>,
}

async fn put(
    env: &Env,
    (limits, requester): (&UserLimits, &Requester),
    version: &str,
    rooms: BTreeMap<OwnedRoomId, RoomKeyBackup>,
) -> Result<Response, ApiError> {
    limits.check(EndpointClass::Other, &requester.user)?;
    let mut keys = RoomKeys::new();
    for (room, backup) in rooms {
        for (session, key) in backup.sessions {
            keys.entry(room.clone()).or_default().insert(session, parse(&key)?);
        }
    }
    let version = number(version)?;
    let state = key_backup::store_keys(env, &requester.user, version, &keys).await?;
    Ok(state_told(state))
}

fn parse(key: &Raw<KeyBackupData>) -> Result<BackedUpKey, ApiError> {
    let key: WireKey =
        serde_json::from_str(key.json().get()).map_err(|error| refuse_json(&error))?;
    Ok(BackedUpKey {
        first_message_index: key.first_message_index.into(),
        forwarded_count: key.forwarded_count.into(),
        is_verified: key.is_verified,
        session_data: object(&key.session_data, "session_data")?,
    })
}

fn state_told(state: BackupState) -> Response {
    raw_json(json!({ "etag": state.etag.to_string(), "count": state.count }).to_string())
}

/// `GET /_matrix/client/v3/room_keys/keys`
#[tracing::instrument(name = "client.key_backup.get_all", skip_all)]
async fn get_all(
    State(env): State<Env>,
    requester: Requester,
    Matrix(request): Matrix<get_backup_keys::v3::Request>,
) -> Result<Response, ApiError> {
    let version = number(&request.version)?;
    Ok(raw_json(key_backup::keys_json(&env, &requester.user, version).await?))
}

/// `GET /_matrix/client/v3/room_keys/keys/{roomId}`
#[tracing::instrument(name = "client.key_backup.get_room", skip_all)]
async fn get_room(
    State(env): State<Env>,
    requester: Requester,
    Matrix(request): Matrix<get_backup_keys_for_room::v3::Request>,
) -> Result<Response, ApiError> {
    let (version, room) = (number(&request.version)?, &request.room_id);
    let mut keys = key_backup::keys(&env, &requester.user, version, Selection::Room(room)).await?;
    let mut sessions = BTreeMap::new();
    for (session, key) in keys.remove(room).unwrap_or_default() {
        sessions.insert(session, wire(&key)?);
    }
    let body = serde_json::to_string(&BTreeMap::from([("sessions", sessions)]));
    Ok(raw_json(body.map_err(ApiError::internal)?))
}

/// `GET /_matrix/client/v3/room_keys/keys/{roomId}/{sessionId}`
#[tracing::instrument(name = "client.key_backup.get_session", skip_all)]
async fn get_session(
    State(env): State<Env>,
    requester: Requester,
    Matrix(request): Matrix<get_backup_keys_for_session::v3::Request>,
) -> Result<Response, ApiError> {
    let (room, session) = (&request.room_id, &request.session_id);
    let selection = Selection::Session(room, session);
    let version = number(&request.version)?;
    let mut keys = key_backup::keys(&env, &requester.user, version, selection).await?;
    let key = keys.remove(room).and_then(|mut of_room| of_room.remove(session));
    let key = key.ok_or_else(|| ApiError::not_found("The backup has no such key"))?;
    Ok(raw_json(wire(&key)?.get().to_owned()))
}

/// A key as the text of a JSON object; what is encrypted is passed on as it came.
fn wire(key: &BackedUpKey) -> Result<Box<RawValue>, ApiError> {
    let text = format!(
        r#"{{"first_message_index":{},"forwarded_count":{},"is_verified":{},"session_data":{}}}"#,
        key.first_message_index, key.forwarded_count, key.is_verified, key.session_data,
    );
    RawValue::from_string(text).map_err(ApiError::internal)
}

/// `DELETE /_matrix/client/v3/room_keys/keys`
#[tracing::instrument(name = "client.key_backup.delete_all", skip_all)]
async fn delete_all(
    State(env): State<Env>,
    limits: UserLimits,
    requester: Requester,
    Matrix(request): Matrix<delete_backup_keys::v3::Request>,
) -> Result<Response, ApiError> {
    remove(&env, (&limits, &requester), &request.version, Selection::All).await
}

/// `DELETE /_matrix/client/v3/room_keys/keys/{roomId}`
#[tracing::instrument(name = "client.key_backup.delete_room", skip_all)]
async fn delete_room(
    State(env): State<Env>,
    limits: UserLimits,
    requester: Requester,
    Matrix(request): Matrix<delete_backup_keys_for_room::v3::Request>,
) -> Result<Response, ApiError> {
    let selection = Selection::Room(&request.room_id);
    remove(&env, (&limits, &requester), &request.version, selection).await
}

/// `DELETE /_matrix/client/v3/room_keys/keys/{roomId}/{sessionId}`
#[tracing::instrument(name = "client.key_backup.delete_session", skip_all)]
async fn delete_session(
    State(env): State<Env>,
    limits: UserLimits,
    requester: Requester,
    Matrix(request): Matrix<delete_backup_keys_for_session::v3::Request>,
) -> Result<Response, ApiError> {
    let selection = Selection::Session(&request.room_id, &request.session_id);
    remove(&env, (&limits, &requester), &request.version, selection).await
}

async fn remove(
    env: &Env,
    (limits, requester): (&UserLimits, &Requester),
    version: &str,
    selection: Selection<'_>,
) -> Result<Response, ApiError> {
    limits.check(EndpointClass::Other, &requester.user)?;
    let version = number(version)?;
    Ok(state_told(key_backup::delete_keys(env, &requester.user, version, selection).await?))
}

impl From<BackupError> for ApiError {
    fn from(error: BackupError) -> Self {
        match error {
            BackupError::Unknown => Self::not_found(error),
            BackupError::NotCurrent { current } => {
                let data = WrongRoomKeysVersionErrorData::new(current.to_string());
                let kind = ErrorKind::WrongRoomKeysVersion(data);
                Self::new(StatusCode::FORBIDDEN, kind, error)
            }
            BackupError::OtherAlgorithm => Self::invalid_param(error),
            BackupError::TooLarge(_) => Self::too_large(error),
            BackupError::Store(_) => Self::internal(error),
        }
    }
}
