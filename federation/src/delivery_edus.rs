//! Receipts of delivery between servers (MSC4089): the `m.receipt` EDU with one more type.
//!
//! ruma knows that EDU with read receipts alone. Servers built on it want those to be there, so they
//! always are, and skip the rest; Synapse keeps receipts of any type.

use std::collections::BTreeMap;

use millrace_domain::deliveries::{DELIVERY, RemoteDelivery};
use millrace_store::rows::receipt::Receipt;
use ruma::{
    MilliSecondsSinceUnixEpoch, OwnedEventId, OwnedRoomId, OwnedUserId, UInt,
    api::federation::transactions::edu::{Edu, ReceiptData},
    events::receipt::Receipt as ReceiptInfo,
    serde::Raw,
};
use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};

/// The type of the EDU, and of the receipts in it that every server knows.
const RECEIPT: &str = "m.receipt";
const READ: &str = "m.read";

/// Receipts of delivery that wait for a server: by room, recipient and sender.
pub(crate) type Deliveries = BTreeMap<(OwnedRoomId, OwnedUserId, OwnedUserId), Receipt>;

#[derive(Serialize, Deserialize)]
struct Wire<T> {
    edu_type: String,
    content: BTreeMap<OwnedRoomId, BTreeMap<String, T>>,
}

type Users = BTreeMap<OwnedUserId, ReceiptData>;

/// The EDU that tells these.
pub(crate) fn write(deliveries: Deliveries) -> serde_json::Result<Raw<Edu>> {
    let mut content: BTreeMap<OwnedRoomId, BTreeMap<String, Users>> = BTreeMap::new();
    for ((room, recipient, _), Receipt { event_id, ts, .. }) in deliveries {
        let of_room = content.entry(room).or_default();
        of_room.entry(READ.to_owned()).or_default();
        let ts = MilliSecondsSinceUnixEpoch(UInt::new_saturating(ts));
        let of_user = of_room.entry(DELIVERY.to_owned()).or_default().entry(recipient);
        let data = of_user.or_insert_with(|| ReceiptData::new(ReceiptInfo::new(ts), Vec::new()));
        data.data.ts = data.data.ts.max(Some(ts));
        data.event_ids.push(event_id);
    }
    Ok(Raw::from_json(to_raw_value(&Wire { edu_type: RECEIPT.to_owned(), content })?))
}

/// What an EDU tells of deliveries, by room. What has another form tells nothing.
pub(crate) fn read(edu: &Raw<Edu>) -> Vec<(OwnedRoomId, Vec<RemoteDelivery>)> {
    let json = edu.json().get();
    // Almost all EDUs: they are not parsed for it.
    if !json.contains(DELIVERY) {
        return Vec::new();
    }
    let wire = serde_json::from_str::<Wire<Box<RawValue>>>(json);
    let Some(wire) = wire.ok().filter(|wire| wire.edu_type == RECEIPT) else { return Vec::new() };
    let rooms = wire.content.into_iter().filter_map(|(room, mut types)| {
        let users: Users = serde_json::from_str(types.remove(DELIVERY)?.get()).ok()?;
        Some((room, users.into_iter().flat_map(|(user, data)| deliveries(&user, data)).collect()))
    });
    rooms.collect()
}

fn deliveries(user: &OwnedUserId, data: ReceiptData) -> Vec<RemoteDelivery> {
    let ts = data.data.ts.map_or(0, |ts| ts.get().into());
    let delivery = |event_id: OwnedEventId| RemoteDelivery { user: user.clone(), event_id, ts };
    data.event_ids.into_iter().map(delivery).collect()
}

#[cfg(test)]
mod tests {
    use ruma::{owned_event_id, owned_room_id, owned_user_id};
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_written_is_read_back_and_is_an_edu_to_who_does_not_know_it() {
        let (room, bob) = (owned_room_id!("!r:one"), owned_user_id!("@bob:two"));
        let receipt = |event_id, ts| Receipt { event_id, ts, n: 1 };
        let mut waiting = Deliveries::new();
        for (sender, event, ts) in [
            (owned_user_id!("@alice:one"), owned_event_id!("$a"), 7),
            (owned_user_id!("@carol:one"), owned_event_id!("$c"), 5),
        ] {
            waiting.insert((room.clone(), bob.clone(), sender), receipt(event, ts));
        }
        let edu = write(waiting).unwrap();
        let content = json!({ "!r:one": { "m.read": {}, "org.matrix.msc4089.delivery": {
            "@bob:two": { "data": { "ts": 7 }, "event_ids": ["$a", "$c"] },
        } } });
        let text: serde_json::Value = serde_json::from_str(edu.json().get()).unwrap();
        assert_eq!(text, json!({ "edu_type": "m.receipt", "content": content }));
        let Edu::Receipt(typed) = edu.deserialize().unwrap() else { panic!("another EDU") };
        assert!(typed.receipts[&room].read.is_empty());
        let delivery = |event_id| RemoteDelivery { user: bob.clone(), event_id, ts: 7 };
        let both = vec![delivery(owned_event_id!("$a")), delivery(owned_event_id!("$c"))];
        assert_eq!(read(&edu), [(room, both)]);
    }

    #[test]
    fn what_has_another_form_tells_nothing() {
        for edu in [
            json!({ "edu_type": "m.receipt", "content": { "!r:one": { DELIVERY: [] } } }),
            json!({ "edu_type": "m.typing", "content": { "!r:one": { DELIVERY: {} } } }),
            json!({ "edu_type": "m.receipt", "content": DELIVERY }),
        ] {
            assert_eq!(read(&Raw::from_json(to_raw_value(&edu).unwrap())), []);
        }
    }
}
