//! Devices of our users, and their keys (spec: Server-Server API, Device Management; End-to-End
//! Encryption).

use axum::{Router, extract::State};
use millrace_domain::{
    Env,
    keys::{self, Claims, Names, Reader},
};
use ruma::{
    UInt,
    api::federation::{
        device::get_devices::v1::{self as get_devices, UserDevice},
        keys::{claim_keys::v1 as claim_keys, get_keys::v1 as get_keys},
    },
};

use super::authenticate::Signed;
use crate::{
    app::{App, DeviceNames},
    client_api::{
        error::ApiError,
        extract::Matrix,
        keys::{claimed, raw},
        router::MatrixRouter,
    },
};

pub(super) fn routes() -> Router<App> {
    Router::new().matrix(devices).matrix(query).matrix(claim)
}

/// `GET /_matrix/federation/v1/user/devices/{userId}`
#[tracing::instrument(name = "federation.keys.devices", skip_all, fields(origin = %signed.origin))]
async fn devices(
    State(env): State<Env>,
    State(DeviceNames(names)): State<DeviceNames>,
    signed: Signed<get_devices::Request>,
) -> Result<Matrix<get_devices::Response>, ApiError> {
    let user = signed.request.user_id;
    if !env.is_local(&user) {
        return Err(ApiError::not_found("The user belongs to another server"));
    }
    let told = keys::user_devices(&env.store.snapshot(), &user).await;
    let told = told.map_err(ApiError::internal)?;
    let stream = UInt::new_saturating(told.stream_id);
    let mut response = get_devices::Response::new(user, stream);
    response.master_key = told.master.and_then(raw);
    response.self_signing_key = told.self_signing.and_then(raw);
    let devices = told.devices.into_iter().filter_map(|device| {
        let mut wire = UserDevice::new(device.id, raw(device.keys?)?);
        wire.device_display_name = device.name.filter(|_| names == Names::Shown);
        Some(wire)
    });
    response.devices = devices.collect();
    Ok(Matrix(response))
}

/// `POST /_matrix/federation/v1/user/keys/query`
#[tracing::instrument(name = "federation.keys.query", skip_all, fields(origin = %signed.origin))]
async fn query(
    State(env): State<Env>,
    State(DeviceNames(names)): State<DeviceNames>,
    signed: Signed<get_keys::Request>,
) -> Result<Matrix<get_keys::Response>, ApiError> {
    let mut response = get_keys::Response::default();
    let snapshot = env.store.snapshot();
    let wanted = signed.request.device_keys.into_iter();
    for (user, devices) in wanted.filter(|(user, _)| env.is_local(user)) {
        let found = keys::query(&snapshot, Reader::Server(names), &user, &devices).await;
        let Some(found) = found.map_err(ApiError::internal)? else { continue };
        let devices = found.devices.into_iter();
        let devices = devices.filter_map(|(id, keys)| Some((id, raw(keys)?)));
        response.device_keys.insert(user.clone(), devices.collect());
        let master = found.master.and_then(raw);
        response.master_keys.extend(master.map(|key| (user.clone(), key)));
        let self_signing = found.self_signing.and_then(raw);
        response.self_signing_keys.extend(self_signing.map(|key| (user, key)));
    }
    Ok(Matrix(response))
}

/// `POST /_matrix/federation/v1/user/keys/claim`
#[tracing::instrument(name = "federation.keys.claim", skip_all, fields(origin = %signed.origin))]
async fn claim(
    State(env): State<Env>,
    signed: Signed<claim_keys::Request>,
) -> Result<Matrix<claim_keys::Response>, ApiError> {
    let wanted = signed.request.one_time_keys.into_iter();
    let claims: Claims = wanted
        .map(|(user, devices)| {
            let devices = devices.into_iter();
            (user, devices.map(|(device, algorithm)| (device, algorithm.to_string())).collect())
        })
        .collect();
    let keys = keys::claim(&env, &claims).await.map_err(ApiError::internal)?;
    Ok(Matrix(claim_keys::Response::new(claimed(keys).collect())))
}
