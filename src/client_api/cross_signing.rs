//! Keys for cross-signing, and signatures: client-server API, "Cross-signing".

use std::{collections::BTreeMap, sync::Arc};

use axum::{Router, extract::State, response::Response};
use millrace_domain::{
    Env,
    accounts::{Requester, uiaa::Challenge},
    keys::{
        self, Confirmed, NewSigningKeys, RefusedSignature, SignatureFailures, SignedKeys,
        SigningKeysError,
    },
};
use millrace_federation::inbound::Inbound;
use millrace_model::encryption::InvalidKey;
use ruma::{
    OwnedUserId,
    api::client::keys::{upload_signatures, upload_signing_keys},
};
use serde_json::{Map, Value, json};

use super::{
    account_limits::AccountLimits, appservices::authorise_unless_service, error::ApiError,
    extract::Matrix, json::raw_json, keys::text, limits::EndpointClass, router::MatrixRouter,
};
use crate::app::{AccountsPart, App};

pub(crate) fn routes() -> Router<App> {
    Router::new().matrix(upload_keys).matrix(sign)
}

/// `POST /_matrix/client/v3/keys/device_signing/upload`
#[tracing::instrument(name = "client.cross_signing.upload", skip_all)]
async fn upload_keys(
    State(accounts): State<AccountsPart>,
    limits: AccountLimits,
    requester: Requester,
    Matrix(request): Matrix<upload_signing_keys::v3::Request>,
) -> Result<Matrix<upload_signing_keys::v3::Response>, ApiError> {
    let new = NewSigningKeys {
        master: request.master_key.map(text),
        self_signing: request.self_signing_key.map(text),
        user_signing: request.user_signing_key.map(text),
    };
    let mut confirmed = Confirmed::No;
    if keys::brings_new_keys(&accounts.env, &requester.user, &new).await? {
        limits.check_name(EndpointClass::Login, requester.user.as_str())?;
        let challenge = Challenge::password("keys/device_signing/upload", &requester.user);
        let auth = request.auth.as_ref();
        authorise_unless_service(&accounts, &requester, &challenge, auth).await?;
        confirmed = Confirmed::Yes;
    }
    keys::upload_signing_keys(&accounts.env, &requester, &new, confirmed).await?;
    Ok(Matrix(upload_signing_keys::v3::Response::new()))
}

/// `POST /_matrix/client/v3/keys/signatures/upload`
#[tracing::instrument(name = "client.cross_signing.sign", skip_all)]
async fn sign(
    State(inbound): State<Arc<Inbound>>,
    State(env): State<Env>,
    requester: Requester,
    Matrix(request): Matrix<upload_signatures::v3::Request>,
) -> Result<Response, ApiError> {
    let signed: SignedKeys = request
        .signed_keys
        .iter()
        .map(|(user, keys)| {
            let keys = keys.iter().map(|(name, json)| (name.to_owned(), json.get().to_owned()));
            (user.clone(), keys.collect())
        })
        .collect();
    let masters = masters(&inbound, &env, &signed).await;
    let failures = keys::upload_signatures(&env, &requester, &signed, &masters).await?;
    Ok(raw_json(json!({ "failures": told(failures) }).to_string()))
}

/// The master keys of users of other servers; those that cannot be had are left out.
async fn masters(
    inbound: &Inbound,
    env: &Env,
    signed: &SignedKeys,
) -> BTreeMap<OwnedUserId, String> {
    let mut masters = BTreeMap::new();
    for user in signed.keys().filter(|user| !env.is_local(user)) {
        let list = inbound.devices_of(user).await;
        masters.extend(list.ok().and_then(|list| Some((user.clone(), list.master_key?))));
    }
    masters
}

fn told(failures: SignatureFailures) -> Map<String, Value> {
    let error = |refused: RefusedSignature| {
        let errcode = match &refused {
            RefusedSignature::Invalid(InvalidKey::Form(_)) => "M_BAD_JSON",
            RefusedSignature::Invalid(_) | RefusedSignature::UnknownSigner => "M_INVALID_SIGNATURE",
            RefusedSignature::UnknownKey => "M_NOT_FOUND",
            RefusedSignature::Differs => "M_INVALID_PARAM",
        };
        json!({ "errcode": errcode, "error": refused.to_string() })
    };
    let of_user = |(user, keys): (OwnedUserId, BTreeMap<String, RefusedSignature>)| {
        let keys = keys.into_iter().map(|(name, refused)| (name, error(refused)));
        (user.to_string(), Value::Object(keys.collect()))
    };
    failures.into_iter().map(of_user).collect()
}

impl From<SigningKeysError> for ApiError {
    fn from(error: SigningKeysError) -> Self {
        match error {
            SigningKeysError::Invalid(error) => error.into(),
            SigningKeysError::NoMaster => Self::missing_param(error),
            SigningKeysError::InUse | SigningKeysError::Unconfirmed => Self::forbidden(error),
            SigningKeysError::Session(error) => error.into(),
            SigningKeysError::Store(_) => Self::internal(error),
        }
    }
}
