//! Messages from device to device: client-server API, "Send-to-Device messaging".

use std::collections::BTreeMap;

use axum::{Router, extract::State};
use millrace_domain::{
    Env,
    accounts::Requester,
    to_device::{self, Messages, Target, ToDeviceError},
};
use ruma::{
    api::client::to_device::send_event_to_device::{self, v3::Messages as WireMessages},
    to_device::DeviceIdOrAllDevices,
};

use super::{error::ApiError, extract::Matrix, router::MatrixRouter};
use crate::app::App;

pub(crate) fn routes() -> Router<App> {
    Router::new().matrix(send)
}

/// `PUT /_matrix/client/v3/sendToDevice/{eventType}/{txnId}`
#[tracing::instrument(name = "client.to_device.send", skip_all)]
async fn send(
    State(env): State<Env>,
    requester: Requester,
    Matrix(request): Matrix<send_event_to_device::v3::Request>,
) -> Result<Matrix<send_event_to_device::v3::Response>, ApiError> {
    let messages = messages(request.messages)?;
    let sender = (&*requester.user, &*requester.device);
    let kind = request.event_type.to_string();
    to_device::send(&env, sender, &kind, request.txn_id.as_str(), &messages).await?;
    Ok(Matrix(send_event_to_device::v3::Response::new()))
}

fn messages(wire: WireMessages) -> Result<Messages, ApiError> {
    let mut messages = Messages::new();
    for (user, devices) in wire {
        let mut targets = BTreeMap::new();
        for (device, content) in devices {
            let target = match device {
                DeviceIdOrAllDevices::AllDevices => Target::All,
                DeviceIdOrAllDevices::DeviceId(device) => Target::Device(device),
            };
            let content = content.json().get();
            if !content.starts_with('{') {
                return Err(ApiError::bad_json("The content of a message must be an object"));
            }
            targets.insert(target, content.to_owned());
        }
        messages.insert(user, targets);
    }
    Ok(messages)
}

impl From<ToDeviceError> for ApiError {
    fn from(error: ToDeviceError) -> Self {
        match error {
            ToDeviceError::TooLarge => Self::too_large(error),
            ToDeviceError::Content(_) => Self::bad_json(error),
            ToDeviceError::Store(_) => Self::internal(error),
        }
    }
}
