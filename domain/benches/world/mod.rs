//! A server without HTTP, in memory, for the benchmarks.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use millrace_domain::{
    Clock, Env, Identity, Random,
    rooms::{
        CacheSizes, Draft, Rooms,
        create::{self, Listing, NewRoom, Preset},
        membership::Direct,
        send,
    },
};
use millrace_model::rules::{room_version, signing_key::ServerSigningKey};
use millrace_store::{Limits, Store, engine::MemoryEngine};
use ruma::{
    CanonicalJsonObject, MilliSecondsSinceUnixEpoch, OwnedEventId, OwnedRoomId, RoomId,
    RoomVersionId, UInt, UserId, events::TimelineEventType, owned_server_name, user_id,
};
use serde_json::Value;

#[derive(Default)]
struct Ticks(AtomicU64);

impl Clock for Ticks {
    fn now(&self) -> MilliSecondsSinceUnixEpoch {
        MilliSecondsSinceUnixEpoch(UInt::new_saturating(self.0.fetch_add(1, Ordering::Relaxed)))
    }
}

impl Random for Ticks {
    fn fill(&self, bytes: &mut [u8]) {
        for byte in bytes {
            let n = self.0.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
            *byte = (n >> 56) as u8;
        }
    }
}

/// Who makes the rooms and reads them.
pub fn alice() -> &'static UserId {
    user_id!("@alice:bench")
}

fn object(json: Value) -> CanonicalJsonObject {
    serde_json::from_value(json).expect("an object")
}

/// An empty server.
pub async fn world() -> Rooms {
    let name = owned_server_name!("bench");
    let store = Store::open(Arc::new(MemoryEngine::new()), &name, Limits::default()).await;
    let key = ServerSigningKey::new("bench", &[7; 32]).expect("a key");
    let env = Env {
        store: store.expect("a store"),
        clock: Arc::new(Ticks::default()),
        random: Arc::new(Ticks::default()),
        identity: Arc::new(Identity { name, key }),
        rules: room_version::rules,
    };
    Rooms::open(env, CacheSizes::default()).await.expect("rooms")
}

/// A public room of Alice's.
pub async fn new_room(rooms: &Rooms) -> OwnedRoomId {
    let new = NewRoom {
        creator: alice().to_owned(),
        version: RoomVersionId::V12,
        preset: Preset::Public,
        creation_content: CanonicalJsonObject::new(),
        power_levels: CanonicalJsonObject::new(),
        initial_state: Vec::new(),
        name: None,
        topic: None,
        invite: Vec::new(),
        direct: Direct::No,
        alias_name: None,
        listing: Listing::Unlisted,
    };
    create::create(rooms, &new).await.expect("a room")
}

/// A message of Alice's.
pub async fn say(rooms: &Rooms, room: &RoomId, content: Value) -> OwnedEventId {
    let draft = Draft::message(alice(), TimelineEventType::RoomMessage, object(content));
    send::send(rooms, room, &draft, None).await.expect("an event")
}
