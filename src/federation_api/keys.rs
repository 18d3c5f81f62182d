//! Our signing keys, published (spec: Server-Server API, Retrieving server keys).

use std::{error::Error, time::Duration};

use axum::{Router, extract::State};
use millrace_domain::Env;
use ruma::{
    CanonicalJsonObject, MilliSecondsSinceUnixEpoch, OwnedServerSigningKeyId, UInt,
    api::federation::discovery::{ServerSigningKeys, VerifyKey, get_server_keys::v2 as get_keys},
    serde::{Base64, Raw},
};

use crate::{
    app::App,
    client_api::{error::ApiError, extract::Matrix, router::MatrixRouter},
};

/// How long others may use our keys before they ask again. The specification bounds it to 7 days.
const VALID_FOR: Duration = Duration::from_secs(24 * 3600);

pub(super) fn routes() -> Router<App> {
    Router::new().matrix(own_keys)
}

/// `GET /_matrix/key/v2/server`
#[tracing::instrument(name = "federation.keys.own", skip_all)]
async fn own_keys(
    State(env): State<Env>,
    Matrix(_): Matrix<get_keys::Request>,
) -> Result<Matrix<get_keys::Response>, ApiError> {
    let keys = signed_keys(&env).map_err(|error| ApiError::internal(&*error))?;
    Ok(Matrix(get_keys::Response::new(keys)))
}

fn signed_keys(env: &Env) -> Result<Raw<ServerSigningKeys>, Box<dyn Error>> {
    let identity = &env.identity;
    let valid_for = UInt::try_from(VALID_FOR.as_millis())?;
    let valid_until = MilliSecondsSinceUnixEpoch(env.now().0.saturating_add(valid_for));
    let mut keys = ServerSigningKeys::new(identity.name.clone(), valid_until);
    let id = OwnedServerSigningKeyId::try_from(identity.key.key_id().as_str())?;
    let key = Base64::new(identity.key.public_bytes().to_vec());
    keys.verify_keys.insert(id, VerifyKey::new(key));
    let mut object: CanonicalJsonObject = serde_json::from_value(serde_json::to_value(&keys)?)?;
    identity.key.sign_json(&identity.name, &mut object)?;
    Ok(Raw::from_json(serde_json::value::to_raw_value(&object)?))
}
