//! Fetching the devices of users of other servers, at first and where an update was missed (spec:
//! Server-Server API, Device Management).

use std::time::Duration;

use futures::{StreamExt, stream};
use millrace_domain::remote_devices::{self, DeviceList};
use millrace_store::rows::inbound::RemoteDevice;
use ruma::{UserId, api::federation::device::get_devices::v1 as get_devices};

use super::Inbound;
use crate::PeerError;

/// Users whose devices are fetched again in one step, and so many at once.
const USERS_PER_STEP: usize = 64;
const AT_ONCE: usize = 8;
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
        let known = remote_devices::devices(&self.env().store.snapshot(), user).await?;
        match known {
            Some(known) => Ok(known),
            None => self.fetch_devices(user).await,
        }
    }

    async fn fetch_devices(&self, user: &UserId) -> Result<DeviceList, DevicesError> {
        let request = get_devices::Request::new(user.to_owned());
        let answer = self.federation.peers.ask(user.server_name(), request).await?;
        if answer.user_id != user {
            return Err(DevicesError::OtherUser);
        }
        let list = DeviceList {
            stream_id: answer.stream_id.into(),
            master_key: answer.master_key.map(|key| key.json().get().to_owned()),
            self_signing_key: answer.self_signing_key.map(|key| key.json().get().to_owned()),
            devices: answer
                .devices
                .into_iter()
                .map(|device| {
                    let keys = Some(device.keys.json().get().to_owned());
                    (device.device_id, RemoteDevice { name: device.device_display_name, keys })
                })
                .collect(),
        };
        if remote_devices::shares_room(self.env(), user).await? {
            remote_devices::replace(self.env(), user, &list).await?;
        }
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
