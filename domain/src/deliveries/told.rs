//! What devices were told and have not acknowledged yet. Only in memory: of what is forgotten the next
//! message brings a receipt, which stands for the sender's earlier ones too.

use std::collections::BTreeMap;

use lru::LruCache;
use millrace_model::SyncToken;
use millrace_store::rows::{
    receipt::{Reach, Receipt},
    room::RoomHead,
};
use parking_lot::Mutex;
use ruma::{
    DeviceId, OwnedDeviceId, OwnedRoomId, OwnedUserId, UserId,
    events::room::member::MembershipState,
};

use super::{Deliveries, DeliverySettings, Way};
use crate::rooms::Seen;

/// So many devices are remembered that have something to acknowledge.
const DEVICES_MAX: usize = 10_000;
/// So many responses are remembered for a device.
const RESPONSES_MAX: usize = 4;
/// So many messages are noted of one response: one for each sender and room.
const MESSAGES_MAX: usize = 1_000;

/// A user's device; none where the client syncs by an endpoint that knows no devices.
type Device = (OwnedUserId, Option<OwnedDeviceId>);
type Arrivals = Vec<(Way, Receipt)>;

/// What each device was told, by the token of the response.
pub(super) struct Told {
    devices: Mutex<LruCache<Device, Vec<(SyncToken, Arrivals)>>>,
}

impl Default for Told {
    fn default() -> Self {
        let capacity = DEVICES_MAX.try_into().expect("the capacity is not zero");
        Self { devices: Mutex::new(LruCache::new(capacity)) }
    }
}

/// What one response tells somebody of the messages of others.
pub struct Telling {
    reader: OwnedUserId,
    members_max: u64,
    pub(super) arrivals: Mutex<Arrivals>,
}

impl Telling {
    /// Notes the newest message of each other member, where receipts are made for the room. What was
    /// said before the reader came is history to them, and was not sent to them.
    pub fn note(&self, room: &OwnedRoomId, head: &RoomHead, timeline: &[Seen]) {
        if head.joined > self.members_max {
            return;
        }
        let mut newest = BTreeMap::new();
        for seen in timeline {
            let pdu = &seen.event.pdu;
            let is_message = pdu.state_key.is_none() && pdu.sender != self.reader;
            if let (true, Some(MembershipState::Join)) = (is_message, &seen.membership) {
                newest.insert(&pdu.sender, seen);
            }
        }
        let mut arrivals = self.arrivals.lock();
        for (sender, seen) in newest {
            if arrivals.len() == MESSAGES_MAX {
                return;
            }
            let way = Way {
                room: room.clone(),
                sender: sender.clone(),
                recipient: self.reader.clone(),
                reach: Reach::Device,
            };
            let event_id = seen.event.pdu.event_id.clone();
            arrivals.push((way, Receipt { event_id, ts: 0, n: seen.index().n }));
        }
    }
}

impl Deliveries {
    /// For a response to `reader`.
    pub(crate) fn telling(&self, reader: &UserId) -> Option<Telling> {
        let DeliverySettings { enabled, members_max } = self.settings;
        // In a room there is at least who reads.
        let is_on = enabled && members_max > 0;
        is_on.then(|| Telling {
            reader: reader.to_owned(),
            members_max,
            arrivals: Mutex::default(),
        })
    }

    /// Notes what a response tells that carries `next`, until the device shows that it has it.
    pub(crate) fn tell(&self, telling: Telling, device: Option<&DeviceId>, next: &SyncToken) {
        let Telling { reader, arrivals, .. } = telling;
        let arrivals = arrivals.into_inner();
        if arrivals.is_empty() {
            return;
        }
        let mut devices = self.told.devices.lock();
        let key = (reader, device.map(ToOwned::to_owned));
        let responses = devices.get_or_insert_mut(key, Vec::new);
        responses.retain(|(token, _)| token != next);
        if responses.len() == RESPONSES_MAX {
            responses.remove(0);
        }
        responses.push((next.clone(), arrivals));
    }

    /// A device comes with a token: it has the response that carried it.
    pub(crate) fn acknowledge(&self, user: &UserId, device: Option<&DeviceId>, since: &SyncToken) {
        let mut devices = self.told.devices.lock();
        if devices.is_empty() {
            return;
        }
        let key = (user.to_owned(), device.map(ToOwned::to_owned));
        let Some(responses) = devices.get_mut(&key) else { return };
        let Some(place) = responses.iter().position(|(token, _)| token == since) else { return };
        let (_, arrivals) = responses.swap_remove(place);
        if responses.is_empty() {
            devices.pop(&key);
        }
        drop(devices);
        let ts = self.rooms.env.now().get().into();
        self.arrive(arrivals.into_iter().map(|(way, receipt)| (way, Receipt { ts, ..receipt })));
    }
}
