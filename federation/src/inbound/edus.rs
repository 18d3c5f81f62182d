//! What other servers send beside events (spec: Server-Server API, EDUs).
//!
//! Who may say what is checked for each: a server speaks for its own users only, in rooms that it may
//! take part in. What it may not say is dropped, as is what nobody here understands.

use millrace_domain::{
    presence::RemotePresence,
    receipts::{self, AdvanceError, NewReceipt, RemoteReceipt, Scope},
    remote_devices::{self, DeviceUpdate, KeysUpdate},
    rooms::{events::LoadError, server_acl},
    to_device::{self, Messages, Target, ToDeviceError},
    typing::TypingError,
};
use millrace_store::rows::{inbound::RemoteDevice, receipt::ReceiptKind};
use ruma::{
    RoomId, ServerName, UserId,
    api::federation::transactions::edu::{
        DeviceListUpdateContent, DirectDeviceContent, Edu, PresenceContent, ReceiptContent,
        ReceiptData, SigningKeyUpdateContent, TypingContent,
    },
    events::receipt::ReceiptThread,
    serde::Raw,
    to_device::DeviceIdOrAllDevices,
};
use serde_json::value::RawValue;

use super::{AcceptError, Inbound};
use crate::delivery_edus;

/// Receipts of one room in one EDU that are looked at.
const RECEIPTS_MAX: usize = 1000;
/// Users whose presence one EDU may tell.
const PRESENCES_MAX: usize = 1000;
/// Longest status message, in bytes; longer ones are left out.
const STATUS_BYTES_MAX: usize = 4096;
/// Largest key or set of device keys, in bytes; larger ones are left out.
const KEYS_BYTES_MAX: usize = 65_536;
/// Longest public name of a device, in bytes; longer ones are left out.
const NAME_BYTES_MAX: usize = 1024;
/// Changes before one that a device-list update may refer to.
const PREV_IDS_MAX: usize = 100;

impl Inbound {
    /// Applies the ephemeral messages of a transaction.
    pub(super) async fn apply_edus(
        &self,
        origin: &ServerName,
        edus: Vec<Raw<Edu>>,
    ) -> Result<(), AcceptError> {
        for raw in edus {
            self.apply_deliveries(origin, &raw).await?;
            let Ok(edu) = raw.deserialize() else {
                tracing::debug!(%origin, "an EDU of another form than specified is dropped");
                continue;
            };
            match edu {
                Edu::Typing(typing) => self.apply_typing(origin, typing).await?,
                Edu::Receipt(receipts) => self.apply_receipts(origin, receipts).await?,
                Edu::Presence(presence) => self.apply_presence(origin, presence).await?,
                Edu::DirectToDevice(message) => self.apply_to_device(origin, message).await?,
                Edu::DeviceListUpdate(update) => self.apply_device(origin, update).await?,
                Edu::SigningKeyUpdate(update) => self.apply_keys(origin, update).await?,
                _ => {}
            }
        }
        Ok(())
    }

    async fn may_speak(
        &self,
        origin: &ServerName,
        room: &RoomId,
        user: &UserId,
    ) -> Result<bool, AcceptError> {
        let snapshot = self.env().store.snapshot();
        Ok(user.server_name() == origin
            && server_acl::admits(self.rooms(), &snapshot, room, origin).await?)
    }

    async fn apply_typing(
        &self,
        origin: &ServerName,
        edu: TypingContent,
    ) -> Result<(), AcceptError> {
        let TypingContent { room_id, user_id, typing, .. } = edu;
        if !self.may_speak(origin, &room_id, &user_id).await? {
            return Ok(());
        }
        let timeout = typing.then_some(self.settings.typing_timeout);
        match self.typing.set(&room_id, &user_id, timeout).await {
            Ok(()) | Err(TypingError::NotJoined { .. }) => Ok(()),
            Err(TypingError::Store(error)) => Err(error.into()),
        }
    }

    async fn apply_receipts(
        &self,
        origin: &ServerName,
        edu: ReceiptContent,
    ) -> Result<(), AcceptError> {
        for (room, receipts) in edu.receipts {
            let snapshot = self.env().store.snapshot();
            if !server_acl::admits(self.rooms(), &snapshot, &room, origin).await? {
                continue;
            }
            let own = receipts.read.into_iter().filter(|(user, _)| user.server_name() == origin);
            let receipts: Vec<_> =
                own.flat_map(|(user, data)| new_receipts(&user, data)).take(RECEIPTS_MAX).collect();
            match receipts::receive(self.rooms(), &room, &receipts).await {
                Ok(early) => self.late.keep(&room, early),
                Err(AdvanceError::Store(error)) => return Err(error.into()),
                Err(error) => tracing::warn!(%origin, %room, %error, "receipts are dropped"),
            }
        }
        Ok(())
    }

    async fn apply_deliveries(
        &self,
        origin: &ServerName,
        edu: &Raw<Edu>,
    ) -> Result<(), AcceptError> {
        for (room, mut deliveries) in delivery_edus::read(edu) {
            let snapshot = self.env().store.snapshot();
            deliveries.retain(|delivery| delivery.user.server_name() == origin);
            deliveries.truncate(RECEIPTS_MAX);
            if !server_acl::admits(self.rooms(), &snapshot, &room, origin).await? {
                continue;
            }
            match self.deliveries.receive(&room, &deliveries).await {
                Ok(()) => {}
                Err(LoadError::Store(error)) => return Err(error.into()),
                Err(error) => tracing::warn!(%origin, %room, %error, "receipts are dropped"),
            }
        }
        Ok(())
    }

    async fn apply_presence(
        &self,
        origin: &ServerName,
        edu: PresenceContent,
    ) -> Result<(), AcceptError> {
        if !self.presence.is_enabled() {
            return Ok(());
        }
        let own = edu.push.into_iter().filter(|update| update.user_id.server_name() == origin);
        let said: Vec<_> = own
            .take(PRESENCES_MAX)
            .map(|update| RemotePresence {
                user: update.user_id,
                presence: update.presence,
                status_msg: update.status_msg.filter(|text| text.len() <= STATUS_BYTES_MAX),
                last_active_ago_ms: update.last_active_ago.into(),
                currently_active: update.currently_active,
            })
            .collect();
        Ok(self.presence.receive(&said).await?)
    }

    async fn apply_to_device(
        &self,
        origin: &ServerName,
        edu: DirectDeviceContent,
    ) -> Result<(), AcceptError> {
        let DirectDeviceContent { sender, ev_type, message_id, messages, .. } = edu;
        if sender.server_name() != origin {
            return Ok(());
        }
        let target = |device| match device {
            DeviceIdOrAllDevices::DeviceId(device) => Target::Device(device),
            DeviceIdOrAllDevices::AllDevices => Target::All,
        };
        let messages: Messages = messages
            .into_iter()
            .filter(|(user, _)| self.env().is_local(user))
            .map(|(user, devices)| {
                let contents = devices
                    .into_iter()
                    .map(|(device, content)| (target(device), content.json().get().to_owned()));
                (user, contents.collect())
            })
            .collect();
        let (kind, id) = (ev_type.to_string(), message_id.as_str());
        match to_device::receive(self.env(), &sender, &kind, id, &messages).await {
            Ok(()) => Ok(()),
            Err(ToDeviceError::Store(error)) => Err(error.into()),
            Err(error) => {
                tracing::warn!(%origin, %error, "messages to devices are dropped");
                Ok(())
            }
        }
    }

    async fn apply_device(
        &self,
        origin: &ServerName,
        edu: DeviceListUpdateContent,
    ) -> Result<(), AcceptError> {
        if edu.user_id.server_name() != origin || edu.prev_id.len() > PREV_IDS_MAX {
            return Ok(());
        }
        let row = RemoteDevice {
            name: edu.device_display_name.filter(|name| name.len() <= NAME_BYTES_MAX),
            keys: edu.keys.and_then(|keys| bounded(keys.json())),
        };
        let update = DeviceUpdate {
            user: edu.user_id,
            device: edu.device_id,
            stream_id: edu.stream_id.into(),
            prev_ids: edu.prev_id.into_iter().map(u64::from).collect(),
            now: (edu.deleted != Some(true)).then_some(row),
        };
        remote_devices::keep(self.env(), &update.user).await?;
        if self.shares_room(&update.user).await?
            && remote_devices::apply(self.env(), &update).await?
        {
            self.stale_devices.notify_one();
        }
        Ok(())
    }

    async fn apply_keys(
        &self,
        origin: &ServerName,
        edu: SigningKeyUpdateContent,
    ) -> Result<(), AcceptError> {
        if edu.user_id.server_name() != origin {
            return Ok(());
        }
        remote_devices::keep(self.env(), &edu.user_id).await?;
        if !self.shares_room(&edu.user_id).await? {
            return Ok(());
        }
        let text = |key: Option<Raw<_>>| key.and_then(|key| bounded(key.json()));
        let update = KeysUpdate {
            user: edu.user_id,
            master_key: text(edu.master_key),
            self_signing_key: text(edu.self_signing_key),
        };
        Ok(remote_devices::apply_keys(self.env(), &update).await?)
    }

    async fn shares_room(&self, user: &UserId) -> Result<bool, AcceptError> {
        Ok(remote_devices::shares_room(self.env(), user).await?)
    }
}

/// A key, where it is not too large to be kept.
pub(super) fn bounded(json: &RawValue) -> Option<String> {
    (json.get().len() <= KEYS_BYTES_MAX).then(|| json.get().to_owned())
}

/// The receipts of one user, with the thread that they name.
fn new_receipts(user: &UserId, data: ReceiptData) -> Vec<RemoteReceipt> {
    let scope = match &data.data.thread {
        ReceiptThread::Unthreaded => Scope::All,
        ReceiptThread::Main => Scope::Main,
        ReceiptThread::Thread(root) => Scope::Thread(root.clone()),
        _ => return Vec::new(),
    };
    let ts = data.data.ts.map_or(0, |ts| ts.get().into());
    let receipt = |event_id| RemoteReceipt {
        user: user.to_owned(),
        receipt: NewReceipt { kind: ReceiptKind::Public, scope: scope.clone(), event_id },
        ts,
    };
    data.event_ids.into_iter().take(RECEIPTS_MAX).map(receipt).collect()
}
