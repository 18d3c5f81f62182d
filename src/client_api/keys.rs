//! Keys of devices: client-server API, "End-to-End Encryption", key management.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use axum::{Router, extract::State};
use millrace_domain::{
    Env,
    accounts::Requester,
    keys::{self, Claims, KeysUpload, Published, Reader, UploadKeysError},
    sync::{Syncs, device_lists},
};
use millrace_federation::inbound::Inbound;
use millrace_model::{SyncToken, encryption::InvalidKey};
use ruma::{
    UInt, UserId,
    api::client::keys::{claim_keys, get_key_changes, get_keys, upload_keys},
    serde::Raw,
};
use serde_json::{Value, json, value::RawValue};

use super::{error::ApiError, extract::Matrix, router::MatrixRouter};
use crate::app::App;

/// How long other servers are waited for where the client does not say (spec: `timeout`).
const PATIENCE: Duration = Duration::from_secs(10);
/// Keys of so many devices are claimed by one request.
const CLAIMS_MAX: usize = 20_000;

pub(crate) fn routes() -> Router<App> {
    Router::new().matrix(upload).matrix(query).matrix(claim).matrix(changes)
}

/// `POST /_matrix/client/v3/keys/upload`
#[tracing::instrument(name = "client.keys.upload", skip_all)]
async fn upload(
    State(env): State<Env>,
    requester: Requester,
    Matrix(request): Matrix<upload_keys::v3::Request>,
) -> Result<Matrix<upload_keys::v3::Response>, ApiError> {
    if !requester.has_device() {
        return Err(ApiError::missing_param(
            "An application service must say which device: device_id",
        ));
    }
    let upload = KeysUpload {
        device_keys: request.device_keys.map(text),
        one_time_keys: by_id(request.one_time_keys),
        fallback_keys: by_id(request.fallback_keys),
    };
    let counts = keys::upload(&env, &requester, &upload).await?;
    let counts = counts
        .one_time
        .into_iter()
        .map(|(algorithm, count)| (algorithm.as_str().into(), UInt::new_saturating(count)));
    Ok(Matrix(upload_keys::v3::Response::new(counts.collect())))
}

/// Keys by the texts of their IDs, as JSON texts.
pub(super) fn by_id<K: ToString, T>(keys: BTreeMap<K, Raw<T>>) -> BTreeMap<String, String> {
    keys.into_iter().map(|(id, key)| (id.to_string(), text(key))).collect()
}

/// `POST /_matrix/client/v3/keys/query`
#[tracing::instrument(name = "client.keys.query", skip_all)]
async fn query(
    State(inbound): State<Arc<Inbound>>,
    State(env): State<Env>,
    requester: Requester,
    Matrix(request): Matrix<get_keys::v3::Request>,
) -> Result<Matrix<get_keys::v3::Response>, ApiError> {
    let (wanted, reader) = (request.device_keys, &*requester.user);
    let mut response = get_keys::v3::Response::new();
    let snapshot = env.store.snapshot();
    for (user, devices) in wanted.iter().filter(|(user, _)| env.is_local(user)) {
        let found = keys::query(&snapshot, Reader::User(reader), user, devices).await;
        if let Some(found) = found.map_err(ApiError::internal)? {
            put_keys(&mut response, user, found);
        }
    }
    let patience = request.timeout.unwrap_or(PATIENCE);
    let remote = inbound.query_keys(&wanted, patience).await.map_err(ApiError::internal)?;
    for (user, mut found) in remote.found {
        if let Some(master) = found.master.take() {
            let master = keys::with_signatures_of(&snapshot, reader, &user, master).await;
            found.master = Some(master.map_err(ApiError::internal)?);
        }
        put_keys(&mut response, &user, found);
    }
    response.failures = failures(remote.failures);
    Ok(Matrix(response))
}

fn put_keys(response: &mut get_keys::v3::Response, user: &UserId, found: Published) {
    let devices = found.devices.into_iter();
    let devices = devices.filter_map(|(id, keys)| Some((id, raw(keys)?)));
    response.device_keys.insert(user.to_owned(), devices.collect());
    let given = [
        (&mut response.master_keys, found.master),
        (&mut response.self_signing_keys, found.self_signing),
        (&mut response.user_signing_keys, found.user_signing),
    ];
    for (keys, given) in given {
        keys.extend(given.and_then(raw).map(|key| (user.to_owned(), key)));
    }
}

/// Servers that did not answer, as clients are told of them.
fn failures<S: ToString>(failures: BTreeMap<S, String>) -> BTreeMap<String, Value> {
    let told =
        |(server, why): (S, String)| (server.to_string(), json!({ "status": 503, "message": why }));
    failures.into_iter().map(told).collect()
}

/// `POST /_matrix/client/v3/keys/claim`
#[tracing::instrument(name = "client.keys.claim", skip_all)]
async fn claim(
    State(inbound): State<Arc<Inbound>>,
    State(env): State<Env>,
    _: Requester,
    Matrix(request): Matrix<claim_keys::v3::Request>,
) -> Result<Matrix<claim_keys::v3::Response>, ApiError> {
    if request.one_time_keys.values().map(BTreeMap::len).sum::<usize>() > CLAIMS_MAX {
        let most = format!("One request claims keys of at most {CLAIMS_MAX} devices");
        return Err(ApiError::invalid_param(most));
    }
    let claims: Claims = request
        .one_time_keys
        .into_iter()
        .map(|(user, devices)| {
            let devices = devices.into_iter();
            (user, devices.map(|(device, algorithm)| (device, algorithm.to_string())).collect())
        })
        .collect();
    let patience = request.timeout.unwrap_or(PATIENCE);
    let (local, remote) =
        futures::join!(keys::claim(&env, &claims), inbound.claim_keys(&claims, patience));
    let mut response = claim_keys::v3::Response::new(remote.found);
    response.one_time_keys.extend(claimed(local.map_err(ApiError::internal)?));
    response.failures = failures(remote.failures);
    Ok(Matrix(response))
}

/// Keys that were claimed, as both APIs answer them.
pub(crate) fn claimed(
    claimed: keys::Claimed,
) -> impl Iterator<Item = (ruma::OwnedUserId, claim_keys::v3::OneTimeKeys)> {
    claimed.into_iter().map(|(user, keys)| {
        let keys = keys.into_iter().filter_map(|(device, key)| {
            let id = key.id.as_str().try_into().ok()?;
            Some((device, BTreeMap::from([(id, raw(key.json)?)])))
        });
        (user, keys.collect())
    })
}

/// `GET /_matrix/client/v3/keys/changes`
#[tracing::instrument(name = "client.keys.changes", skip_all)]
async fn changes(
    State(syncs): State<Syncs>,
    requester: Requester,
    Matrix(request): Matrix<get_key_changes::v3::Request>,
) -> Result<Matrix<get_key_changes::v3::Response>, ApiError> {
    let token = |name: &str, text: &str| {
        let refuse = |_| ApiError::invalid_param(format!("{name} is not a token of this server"));
        text.parse::<SyncToken>().map_err(refuse)
    };
    // Up to now, which is after `to`: more than was asked for does no harm, less might.
    token("to", &request.to)?;
    let from = token("from", &request.from)?;
    let lists = device_lists(&syncs, &requester.user, &from).await?;
    let (changed, left) = (lists.changed.into_iter(), lists.left.into_iter());
    Ok(Matrix(get_key_changes::v3::Response::new(changed.collect(), left.collect())))
}

/// What ruma keeps of JSON, as text.
pub(super) fn text<T>(raw: Raw<T>) -> String {
    raw.into_json().get().to_owned()
}

/// JSON text of ours as ruma takes it.
pub(crate) fn raw<T>(json: String) -> Option<Raw<T>> {
    RawValue::from_string(json).ok().map(Raw::from_json)
}

impl From<InvalidKey> for ApiError {
    fn from(error: InvalidKey) -> Self {
        match error {
            InvalidKey::Form(_) => Self::bad_json(error),
            InvalidKey::Owner(_) | InvalidKey::Algorithm(_) => Self::invalid_param(error),
            InvalidKey::Signature(_) => Self::invalid_signature(error),
        }
    }
}

impl From<UploadKeysError> for ApiError {
    fn from(error: UploadKeysError) -> Self {
        match error {
            UploadKeysError::Invalid(error) => error.into(),
            UploadKeysError::Exists { .. }
            | UploadKeysError::TooMany
            | UploadKeysError::SeveralFallbackKeys
            | UploadKeysError::NoDeviceKeys => Self::invalid_param(error),
            UploadKeysError::Session(error) => error.into(),
            UploadKeysError::Store(_) => Self::internal(error),
        }
    }
}
