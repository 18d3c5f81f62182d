use std::sync::atomic::{AtomicUsize, Ordering};

use futures::FutureExt;
use millrace_model::rules::signing_key::ServerSigningKey;
use millrace_store::tables::{EVENT_NUMBERS, ROOM_HEAD};
use ruma::{RoomVersionId, events::TimelineEventType, user_id};
use serde_json::json;

use super::*;
use crate::rooms::{
    membership::Guest,
    send,
    set_state::{self, NewState},
    test_room::{TestRoom, object, user},
};

fn key() -> ServerSigningKey {
    ServerSigningKey::new("policy_server", &[9; 32]).unwrap()
}

fn policy(n: usize) -> serde_json::Value {
    json!({ "via": "guard", "public_keys": { "ed25519": key().public_base64() }, "n": n })
}

/// Signs everything, after it has changed the room so often.
struct Meddler {
    rooms: Rooms,
    room: ruma::OwnedRoomId,
    changes: AtomicUsize,
}

impl PolicyServers for Meddler {
    fn sign<'a>(
        &'a self,
        _: &'a RoomPolicyEventContent,
        event: &'a Pdu,
        _: AskedFor,
    ) -> BoxFuture<'a, Result<String, NotVouched>> {
        async move {
            let left = self.changes.fetch_sub(1, Ordering::SeqCst);
            if left > 0 {
                let new = NewState {
                    sender: user("alice"),
                    guest: Guest::No,
                    kind: "m.room.policy".into(),
                    state_key: String::new(),
                    content: object(policy(left)),
                };
                set_state::set_state(&self.rooms, &self.room, &new).await.unwrap();
            }
            let rules = millrace_model::rules::room_version::rules(&RoomVersionId::V12).unwrap();
            let mut object = event.to_canonical().unwrap();
            signatures::sign_event("guard", &key(), &mut object, &rules.redaction).unwrap();
            let signed = &object["signatures"].as_object().unwrap()["guard"].as_object().unwrap();
            Ok(signed["ed25519:policy_server"].as_str().unwrap().to_owned())
        }
        .boxed()
    }
}

#[tokio::test]
async fn an_event_finds_its_place_though_the_room_went_on_while_the_policy_server_was_asked() {
    let room = TestRoom::with_visibility("shared").await;
    let watcher = user_id!("@watcher:guard");
    let kind = TimelineEventType::RoomMember;
    let join = object(json!({ "membership": "join" }));
    room.append(Draft::state(watcher, kind, watcher.as_str(), join)).await;
    room.set("alice", "m.room.policy", "", policy(0)).await;
    let (rooms, id) = (room.rooms.clone(), room.id.clone());
    let changes = AtomicUsize::new(1);
    let meddler = Meddler { rooms: rooms.clone(), room: id.clone(), changes };
    let rooms = rooms.asking(Arc::new(meddler));
    let content = object(json!({ "msgtype": "m.text", "body": "hello" }));
    let draft = Draft::message(&user("alice"), TimelineEventType::RoomMessage, content);
    let sent = send::send(&rooms, &id, &draft, None).await.unwrap();
    let snapshot = rooms.env.store.snapshot();
    let head = snapshot.get(&ROOM_HEAD, &id, ()).await.unwrap().unwrap();
    assert_eq!(head.extremities.len(), 2, "it stands beside what came meanwhile");
    assert!(snapshot.get(&EVENT_NUMBERS, &id, &sent).await.unwrap().is_some());
    send::send(&rooms, &id, &draft, None).await.unwrap();
    let head = rooms.env.store.snapshot().get(&ROOM_HEAD, &id, ()).await.unwrap().unwrap();
    assert_eq!(head.extremities.len(), 1, "and the next event joins them");
}
