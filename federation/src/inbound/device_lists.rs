//! Fetching the devices of users of other servers, at first and where an update was missed (spec:
//! Server-Server API, Device Management).

use std::time::Duration;

use futures::{StreamExt, stream};
use millrace_domain::remote_devices::{self, DeviceList, ListedDevice};
use millrace_store::rows::inbound::RemoteDevice;
use ruma::{
    UserId,
    api::federation::device::get_devices::v1::{self as get_devices, UserDevice},
};

use super::{Inbound, edus::bounded};
use crate::PeerError;

/// Users whose devices are fetched again in one step, and so many at once.
const USERS_PER_STEP: usize = 64;
const AT_ONCE: usize = 8;
/// The keys of a user's devices take so many bytes at most; devices beyond are left out.
const LIST_BYTES_MAX: usize = 4 << 20;
/// Where servers could not be asked, they are asked again after so long.
const RETRY_AFTER: Duration = Duration::from_mins(2);

/// Why a user's devices are not known.
#[derive(Debug, thiserror::Error)]
pub enum DevicesError {
    /// Their server could not be asked, or answers of somebody else.
    #[error(transparent)]
    Peer(#[from] PeerError),
    /// The server answers of another user than was asked for.
    #[error("the devices of another user were answered")]
    OtherUser,
    /// The store failed.
    #[error("devices cannot be read or stored")]
    Store(#[from] millrace_store::Error),
}

impl Inbound {
    /// The devices of a user of another server, from what is known or from their server. From then
    /// on they are tracked, as long as the user is in a room with us.
    ///
    /// # Errors
    /// Where they are neither known nor to be had.
    pub async fn devices_of(&self, user: &UserId) -> Result<DeviceList, DevicesError> {
        let known = remote_devices::devices(self.env(), &self.env().store.snapshot(), user).await?;
        match known {
            Some(known) => Ok(known),
            None => self.fetch_devices(user).await,
        }
    }

    /// Fetches the devices of a user, and keeps them while the user is in a room with us.
    pub(super) async fn fetch_devices(&self, user: &UserId) -> Result<DeviceList, DevicesError> {
        let request = get_devices::Request::new(user.to_owned());
        let answer = self.federation.peers.ask(user.server_name(), request).await?;
        if answer.user_id != user {
            return Err(DevicesError::OtherUser);
        }
        let list = DeviceList {
            stream_id: answer.stream_id.into(),
            master_key: answer.master_key.and_then(|key| bounded(key.json())),
            self_signing_key: answer.self_signing_key.and_then(|key| bounded(key.json())),
            devices: bounded_devices(answer.devices),
        };
        remote_devices::replace(self.env(), user, &list).await?;
        Ok(list)
    }

    /// Fetches the devices of users again of which an update was missed, for ever.
    pub async fn run_device_lists(&self) {
        loop {
            let news = self.stale_devices.notified();
            let left = self.refresh_devices().await.unwrap_or_else(|error| {
                tracing::warn!(%error, "device lists are not fetched");
                true
            });
            if left {
                let _ = tokio::time::timeout(RETRY_AFTER, news).await;
            } else {
                news.await;
            }
        }
    }

    /// Fetches stale lists; whether any is left.
    async fn refresh_devices(&self) -> Result<bool, millrace_store::Error> {
        let users = remote_devices::stale(&self.env().store.snapshot(), USERS_PER_STEP).await?;
        let count = users.len();
        let fetch = |user: ruma::OwnedUserId| async move {
            match self.fetch_devices(&user).await {
                Ok(_) => true,
                Err(error) => {
                    tracing::info!(%user, %error, "devices cannot be fetched now");
                    false
                }
            }
        };
        let fetched: Vec<bool> =
            stream::iter(users).map(fetch).buffer_unordered(AT_ONCE).collect().await;
        Ok(count == USERS_PER_STEP || fetched.contains(&false))
    }
}

/// The devices of an answer, as far as they may be kept.
fn bounded_devices(devices: Vec<UserDevice>) -> Vec<ListedDevice> {
    let mut bytes = 0;
    let devices = devices.into_iter().map(|device| {
        let keys = bounded(device.keys.json());
        (device.device_id, RemoteDevice { name: device.device_display_name, keys })
    });
    let fit = devices.take_while(|(id, device)| {
        let texts = [device.name.as_ref(), device.keys.as_ref()].into_iter().flatten();
        bytes += id.as_str().len() + texts.map(String::len).sum::<usize>();
        bytes <= LIST_BYTES_MAX
    });
    fit.collect()
}
