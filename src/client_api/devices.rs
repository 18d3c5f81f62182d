//! The requester's devices: client-server API, "Device management".

use axum::{
    Router,
    extract::State,
    response::{IntoResponse, Response},
};
use http::StatusCode;
use millrace_domain::accounts::{
    self, DeviceError, DeviceInfo, Requester, create_device, rename_device, uiaa::Challenge,
};
use ruma::{
    MilliSecondsSinceUnixEpoch, UInt,
    api::client::device::{
        Device, delete_device, delete_devices, get_device, get_devices, update_device,
    },
};

use super::{
    account_limits::AccountLimits, appservices::authorise_unless_service, error::ApiError,
    extract::Matrix, limits::EndpointClass, router::MatrixRouter,
};
use crate::app::{AccountsPart, App};

pub(crate) fn routes() -> Router<App> {
    Router::new().matrix(list).matrix(read).matrix(update).matrix(delete).matrix(delete_many)
}

/// `GET /_matrix/client/v3/devices`
#[tracing::instrument(name = "client.devices.list", skip_all)]
async fn list(
    State(accounts): State<AccountsPart>,
    requester: Requester,
    Matrix(_): Matrix<get_devices::v3::Request>,
) -> Result<Matrix<get_devices::v3::Response>, ApiError> {
    let devices =
        accounts::devices(&accounts, &requester.user).await.map_err(ApiError::internal)?;
    let devices = devices.into_iter().map(wire).collect();
    Ok(Matrix(get_devices::v3::Response::new(devices)))
}

/// `GET /_matrix/client/v3/devices/{deviceId}`
#[tracing::instrument(name = "client.devices.read", skip_all)]
async fn read(
    State(accounts): State<AccountsPart>,
    requester: Requester,
    Matrix(request): Matrix<get_device::v3::Request>,
) -> Result<Matrix<get_device::v3::Response>, ApiError> {
    let device = accounts::device(&accounts, &requester.user, &request.device_id).await?;
    Ok(Matrix(get_device::v3::Response::new(wire(device))))
}

fn wire(info: DeviceInfo) -> Device {
    let mut device = Device::new(info.id);
    device.display_name = info.display_name;
    if let Some(seen) = info.seen {
        let at = MilliSecondsSinceUnixEpoch(UInt::new_saturating(seen.at_ms));
        (device.last_seen_ip, device.last_seen_ts) = (Some(seen.ip), Some(at));
    }
    device
}

/// `PUT /_matrix/client/v3/devices/{deviceId}`
#[tracing::instrument(name = "client.devices.update", skip_all)]
async fn update(
    State(accounts): State<AccountsPart>,
    limits: AccountLimits,
    requester: Requester,
    Matrix(request): Matrix<update_device::v3::Request>,
) -> Result<Response, ApiError> {
    limits.check_name(EndpointClass::Other, requester.user.as_str())?;
    let (id, name) = (&request.device_id, request.display_name.as_deref());
    let mut status = StatusCode::OK;
    if requester.service.is_some() {
        // Application services make devices so, which need no session.
        if create_device(&accounts, &requester, id, name).await? {
            status = StatusCode::CREATED;
        }
    } else {
        rename_device(&accounts, &requester, id, name).await?;
    }
    Ok((status, Matrix(update_device::v3::Response::new())).into_response())
}

/// `DELETE /_matrix/client/v3/devices/{deviceId}`
#[tracing::instrument(name = "client.devices.delete", skip_all)]
async fn delete(
    State(accounts): State<AccountsPart>,
    limits: AccountLimits,
    requester: Requester,
    Matrix(request): Matrix<delete_device::v3::Request>,
) -> Result<Matrix<delete_device::v3::Response>, ApiError> {
    limits.check_name(EndpointClass::Login, requester.user.as_str())?;
    let operation = format!("devices/{}", request.device_id);
    let challenge = Challenge::password(operation, &requester.user);
    authorise_unless_service(&accounts, &requester, &challenge, request.auth.as_ref()).await?;
    accounts::delete_devices(&accounts, &requester, &[request.device_id]).await?;
    Ok(Matrix(delete_device::v3::Response::new()))
}

/// `POST /_matrix/client/v3/delete_devices`
#[tracing::instrument(name = "client.devices.delete_many", skip_all)]
async fn delete_many(
    State(accounts): State<AccountsPart>,
    limits: AccountLimits,
    requester: Requester,
    Matrix(request): Matrix<delete_devices::v3::Request>,
) -> Result<Matrix<delete_devices::v3::Response>, ApiError> {
    limits.check_name(EndpointClass::Login, requester.user.as_str())?;
    let challenge = Challenge::password("delete_devices", &requester.user);
    authorise_unless_service(&accounts, &requester, &challenge, request.auth.as_ref()).await?;
    accounts::delete_devices(&accounts, &requester, &request.devices).await?;
    Ok(Matrix(delete_devices::v3::Response::new()))
}

impl From<DeviceError> for ApiError {
    fn from(error: DeviceError) -> Self {
        match error {
            DeviceError::Unknown => Self::not_found(error),
            DeviceError::NameTooLong | DeviceError::NamedLikeKey => Self::invalid_param(error),
            DeviceError::Session(error) => error.into(),
            DeviceError::Store(_) => Self::internal(error),
        }
    }
}
