//! What is sent beside events (spec: Server-Server API, EDUs).

use std::collections::{BTreeMap, BTreeSet};

use millrace_domain::keys::{self, Names, ToldDevice, UserDevices};
use millrace_store::{
    Read, Scan, Snapshot,
    one_writer::view,
    rows::{
        outbox::{DeviceChange, Reached, RemoteToDevice},
        receipt::Receipt,
    },
    tables::{
        DEVICE_CHANGES, DEVICE_LIST, DEVICE_LISTS, ROOM_SERVERS, SIGNING_KEYS_CHANGED,
        TO_DEVICE_OUT, TO_DEVICE_OUT_HEAD, USER_KEYS,
    },
};
use ruma::{
    MilliSecondsSinceUnixEpoch, OwnedDeviceId, OwnedRoomId, OwnedUserId, ServerName, UInt, UserId,
    api::federation::transactions::edu::{
        DeviceListUpdateContent, Edu, PresenceContent, ReceiptContent, ReceiptData, ReceiptMap,
        SigningKeyUpdateContent, TypingContent,
    },
    events::receipt::{Receipt as ReceiptInfo, ReceiptThread},
    serde::Raw,
};
use serde::Serialize;
use serde_json::value::RawValue;

use super::{
    Outbound, OutboundError,
    board::{Introduced, Pending},
    follow::joined_rooms,
};
use crate::delivery_edus;

/// So many EDUs are in one transaction at most (spec: Server-Server API, Transactions).
const EDUS_MAX: usize = 100;
/// So many of them are messages to devices.
const TO_DEVICE_MAX: usize = 50;
/// And so many bytes of those, but for one that is larger.
const TO_DEVICE_BYTES_MAX: usize = 1 << 20;
/// So many of them are changes of device lists.
const DEVICES_MAX: usize = 30;
/// Of a user of whom more devices changed than so many, one change is told: as what came before is
/// not known to the other server, it asks for the whole list.
const DEVICES_OF_USER_MAX: usize = 10;
/// So many users' presence is in one EDU.
const PRESENCES_MAX: usize = 50;

/// An EDU with its content as text.
#[derive(Serialize)]
struct DirectToDevice<'a> {
    edu_type: &'static str,
    content: DirectContent<'a>,
}

#[derive(Serialize)]
struct DirectContent<'a> {
    sender: &'a OwnedUserId,
    #[serde(rename = "type")]
    kind: &'a str,
    message_id: &'a str,
    messages: &'a RawValue,
}

impl Outbound {
    /// The messages to devices after those that `server` has, and how far they go; up to `last` where
    /// that is given.
    pub(super) async fn to_device(
        &self,
        snapshot: &Snapshot,
        server: &ServerName,
        from: &Reached,
        last: Option<u64>,
    ) -> Result<(Vec<Raw<Edu>>, u64), OutboundError> {
        let head = snapshot.get(&TO_DEVICE_OUT_HEAD, server, ()).await?.unwrap_or_default();
        let first = head.first.max(from.to_device.saturating_add(1));
        let last = last.unwrap_or(head.last);
        let (mut edus, mut reached) = (Vec::new(), from.to_device);
        if first > last {
            return Ok((edus, reached));
        }
        let scan = Scan::all().from(first).up_to(last).limit(TO_DEVICE_MAX);
        let mut bytes = 0;
        for (n, row) in snapshot.scan(&TO_DEVICE_OUT, server, scan).await? {
            bytes += row.messages.len();
            if bytes > TO_DEVICE_BYTES_MAX && !edus.is_empty() {
                break;
            }
            edus.push(direct(&row)?);
            reached = n;
        }
        Ok((edus, reached))
    }

    /// The changes of device lists between two commits that concern a server, and up to which commit
    /// they go.
    pub(super) async fn device_lists(
        &self,
        snapshot: &Snapshot,
        server: &ServerName,
        (since, up_to): (u64, u64),
    ) -> Result<(Vec<Raw<Edu>>, u64), OutboundError> {
        let changes = snapshot.changes::<String>(DEVICE_LISTS, &view(since), usize::MAX).await?;
        let mut users: BTreeSet<OwnedUserId> = BTreeSet::new();
        for change in changes.iter().filter(|change| change.table == DEVICE_LIST.info().id) {
            users.insert(DEVICE_LIST.decode_key(&change.key)?);
        }
        let mut updates: Vec<(u64, Edu)> = Vec::new();
        for user in users {
            if self.federation.env.is_local(&user) && shares_room(snapshot, server, &user).await? {
                updates.extend(self.changed_devices(snapshot, &user, (since, up_to)).await?);
                updates.extend(changed_keys(snapshot, &user, (since, up_to)).await?);
            }
        }
        updates.sort_by_key(|(seq, _)| *seq);
        let mut reached = up_to;
        if let Some((next, _)) = updates.get(DEVICES_MAX) {
            // Whole commits only, unless the first has too many.
            reached = updates[0].0.max(next - 1);
            updates.retain(|(seq, _)| *seq <= reached);
            updates.truncate(EDUS_MAX - TO_DEVICE_MAX);
        }
        let updates = updates.into_iter().map(|(_, edu)| Raw::new(&edu));
        Ok((updates.collect::<Result<_, _>>()?, reached))
    }

    /// The devices of a user that changed between two commits, as they are now.
    async fn changed_devices(
        &self,
        snapshot: &Snapshot,
        user: &UserId,
        (since, up_to): (u64, u64),
    ) -> millrace_store::Result<Vec<(u64, Edu)>> {
        let rows = snapshot.scan_stamped(&DEVICE_CHANGES, user, Scan::all()).await?;
        let new = rows.into_iter().filter(|(_, at, _)| since < at.seq && at.seq <= up_to);
        let mut new: Vec<_> = new.map(|(device, at, row)| (at.seq, device, row)).collect();
        new.sort_by_key(|(seq, ..)| *seq);
        let excess = new.len().saturating_sub(1);
        new.drain(..if excess >= DEVICES_OF_USER_MAX { excess } else { 0 });
        if new.is_empty() {
            return Ok(Vec::new());
        }
        let devices = keys::user_devices(snapshot, user).await?.devices;
        let devices: BTreeMap<_, _> =
            devices.into_iter().map(|told| (told.id.clone(), told)).collect();
        let update = |(seq, device, row): (u64, OwnedDeviceId, DeviceChange)| {
            let stream = UInt::new_saturating(seq);
            let told = devices.get(&device);
            let mut update = DeviceListUpdateContent::new(user.to_owned(), device, stream);
            if row.previous > 0 {
                update.prev_id = vec![UInt::new_saturating(row.previous)];
            }
            match told {
                Some(told) if !row.deleted => self.describe(&mut update, told),
                _ => update.deleted = Some(true),
            }
            (seq, Edu::DeviceListUpdate(update))
        };
        Ok(new.into_iter().map(update).collect())
    }

    /// Adds what other servers are told of a device.
    fn describe(&self, update: &mut DeviceListUpdateContent, told: &ToldDevice) {
        update.keys = told.keys.clone().and_then(raw);
        let shown = self.settings.device_names == Names::Shown;
        update.device_display_name = told.name.clone().filter(|_| shown);
    }

    /// What tells a server of the devices of users who came into a room of its. Such an update follows
    /// itself, as nothing has changed; it is not told again, as the joining tells as much. It is not noted
    /// that it was told: after a crash it may come twice, of which the second is no news to anybody.
    pub(super) async fn introductions(
        &self,
        snapshot: &Snapshot,
        users: BTreeMap<OwnedUserId, Introduced>,
    ) -> Result<Vec<Raw<Edu>>, OutboundError> {
        let mut edus = Vec::new();
        for (user, which) in users {
            let UserDevices { stream_id, devices, .. } =
                keys::user_devices(snapshot, &user).await?;
            let stream = UInt::new_saturating(stream_id);
            let is_told = |told: &&ToldDevice| which == Introduced::All || told.keys.is_some();
            for told in devices.iter().filter(is_told).take(DEVICES_OF_USER_MAX) {
                let mut update =
                    DeviceListUpdateContent::new(user.clone(), told.id.clone(), stream);
                update.prev_id = vec![stream];
                self.describe(&mut update, told);
                edus.push(Raw::new(&Edu::DeviceListUpdate(update))?);
            }
        }
        Ok(edus)
    }
}

/// The keys for cross-signing of a user, where they changed between two commits.
async fn changed_keys(
    snapshot: &Snapshot,
    user: &UserId,
    (since, up_to): (u64, u64),
) -> millrace_store::Result<Option<(u64, Edu)>> {
    let changed = snapshot.get_stamped(&SIGNING_KEYS_CHANGED, user, ()).await?;
    let Some(seq) = changed.map(|(at, ())| at.seq).filter(|seq| since < *seq && *seq <= up_to)
    else {
        return Ok(None);
    };
    let keys = snapshot.get(&USER_KEYS, user, ()).await?.unwrap_or_default();
    let mut update = SigningKeyUpdateContent::new(user.to_owned());
    update.master_key = keys.master.and_then(raw);
    update.self_signing_key = keys.self_signing.and_then(raw);
    Ok(Some((seq, Edu::SigningKeyUpdate(update))))
}

fn raw<T>(json: String) -> Option<Raw<T>> {
    RawValue::from_string(json).ok().map(Raw::from_json)
}

/// Takes some of the users whose devices are to be told, where they fit beside `others` EDUs.
pub(super) fn take_introduced(
    pending: &mut Pending,
    others: usize,
) -> BTreeMap<OwnedUserId, Introduced> {
    let room = EDUS_MAX.saturating_sub(others) / DEVICES_OF_USER_MAX;
    let rest = pending.introduced.keys().nth(room).cloned();
    let rest = rest.map(|first| pending.introduced.split_off(&first)).unwrap_or_default();
    std::mem::replace(&mut pending.introduced, rest)
}

fn direct(row: &RemoteToDevice) -> Result<Raw<Edu>, OutboundError> {
    let messages = serde_json::from_str(&row.messages)?;
    let content =
        DirectContent { sender: &row.sender, kind: &row.kind, message_id: &row.id, messages };
    let edu = DirectToDevice { edu_type: "m.direct_to_device", content };
    Ok(Raw::from_json(serde_json::value::to_raw_value(&edu)?))
}

/// Whether a server has users in a room of a user of ours.
pub(super) async fn shares_room(
    snapshot: &Snapshot,
    server: &ServerName,
    user: &OwnedUserId,
) -> millrace_store::Result<bool> {
    for room in joined_rooms(snapshot, user).await? {
        let row = snapshot.get(&ROOM_SERVERS, &room, server).await?;
        if row.is_some_and(|row| row.joined > 0) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Takes what types, reads and is online out of what waits, as far as it fits beside `others` EDUs.
pub(super) fn take_ephemeral(
    pending: &mut Pending,
    others: usize,
) -> Result<Vec<Raw<Edu>>, OutboundError> {
    let mut edus = Vec::new();
    let fits = |edus: &Vec<Edu>| edus.len() + others < EDUS_MAX;
    for layer in receipt_layers(std::mem::take(&mut pending.receipts)) {
        if fits(&edus) {
            edus.push(Edu::Receipt(ReceiptContent::new(layer)));
        }
    }
    while fits(&edus) && !pending.presence.is_empty() {
        let rest = pending.presence.keys().nth(PRESENCES_MAX).cloned();
        let rest = rest.map(|first| pending.presence.split_off(&first)).unwrap_or_default();
        let some = std::mem::replace(&mut pending.presence, rest);
        edus.push(Edu::Presence(PresenceContent::new(some.into_values().collect())));
    }
    while fits(&edus)
        && let Some(((room, user), types)) = pending.typing.pop_first()
    {
        edus.push(Edu::Typing(TypingContent::new(room, user, types)));
    }
    let mut edus = edus.iter().map(Raw::new).collect::<Result<Vec<_>, _>>()?;
    // Last, as that of all the least harm is done where it has no room: it is only dropped.
    let deliveries = std::mem::take(&mut pending.deliveries);
    if edus.len() + others < EDUS_MAX && !deliveries.is_empty() {
        edus.push(delivery_edus::write(deliveries)?);
    }
    Ok(edus)
}

type Layer = BTreeMap<OwnedRoomId, ReceiptMap>;

/// One EDU holds one receipt of a user in a room: those of further threads go into further ones.
fn receipt_layers(receipts: BTreeMap<(OwnedRoomId, OwnedUserId, String), Receipt>) -> Vec<Layer> {
    let mut layers: Vec<Layer> = Vec::new();
    for ((room, user, thread), receipt) in receipts {
        let taken = |layer: &Layer| layer.get(&room).is_some_and(|of| of.read.contains_key(&user));
        let free = layers.iter().position(|layer| !taken(layer)).unwrap_or_else(|| {
            layers.push(Layer::new());
            layers.len() - 1
        });
        let mut info =
            ReceiptInfo::new(MilliSecondsSinceUnixEpoch(UInt::new_saturating(receipt.ts)));
        info.thread = match thread.as_str() {
            "" => ReceiptThread::Unthreaded,
            thread => ReceiptThread::try_from(Some(thread)).unwrap_or(ReceiptThread::Unthreaded),
        };
        let data = ReceiptData::new(info, vec![receipt.event_id]);
        let of_room = layers[free].entry(room).or_insert_with(|| ReceiptMap::new(BTreeMap::new()));
        of_room.read.insert(user, data);
    }
    layers
}

#[cfg(test)]
mod tests {
    use ruma::{owned_event_id, owned_room_id, owned_user_id};

    use super::*;

    #[test]
    fn receipts_of_two_threads_are_two_edus_and_those_of_two_users_are_one() {
        let receipt = || Receipt { event_id: owned_event_id!("$e"), ts: 1, n: 1 };
        let (room, user) = (owned_room_id!("!r:x"), owned_user_id!("@a:x"));
        let mut pending = Pending::default();
        for (user, thread) in [(&user, ""), (&user, "main"), (&owned_user_id!("@b:x"), "")] {
            let key = (room.clone(), user.clone(), thread.to_owned());
            pending.receipts.insert(key, receipt());
        }
        let edus = take_ephemeral(&mut pending, 0).unwrap();
        assert_eq!(edus.len(), 2);
        assert!(pending.is_empty());
        let first: serde_json::Value = serde_json::from_str(edus[0].json().get()).unwrap();
        let read = &first["content"]["!r:x"]["m.read"];
        assert_eq!(read.as_object().unwrap().len(), 2);
        assert_eq!(read["@a:x"]["event_ids"][0], "$e");
        let second: serde_json::Value = serde_json::from_str(edus[1].json().get()).unwrap();
        assert_eq!(second["content"]["!r:x"]["m.read"]["@a:x"]["data"]["thread_id"], "main");
    }

    #[test]
    fn no_more_edus_than_a_transaction_holds() {
        let mut pending = Pending::default();
        for n in 0..150 {
            let user = UserId::parse(format!("@u{n}:x")).unwrap();
            pending.typing.insert((owned_room_id!("!r:x"), user), true);
        }
        assert_eq!(take_ephemeral(&mut pending, 20).unwrap().len(), 80);
        assert_eq!(pending.typing.len(), 70);
    }
}
