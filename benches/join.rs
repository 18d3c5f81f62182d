//! What it costs to join a room of another server: the time until a client has its answer, the time
//! until all members are known, and the memory that is needed for it, on RocksDB. The other server is
//! a fake one that only hands out what was made before. Prints figures; run with
//! `cargo bench --bench join`, and `-- N…` for rooms of other sizes than 60, 500, 5,000 and 50,000 members.

#![expect(clippy::print_stdout, reason = "a benchmark reports")]

use std::time::{Duration, Instant};

use bytes::Bytes;
use millrace_model::{Pdu, rules::room_version};
use millrace_test_support::{
    FakeAnswer, FakeEvent, FakeRoom, FakeServer, Network,
    bench::{BenchServer, Memory, memory_kib, reset_peak},
};
use ruma::{OwnedRoomId, RoomVersionId};
use serde_json::{Value, json};

/// Whether the other server leaves out members when it is asked to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Members {
    Omitted,
    Told,
}

#[tokio::main]
async fn main() {
    let mut sizes: Vec<usize> = std::env::args().filter_map(|arg| arg.parse().ok()).collect();
    if sizes.is_empty() {
        sizes = vec![60, 500, 5_000, 50_000];
    }
    for size in sizes {
        for members in [Members::Told, Members::Omitted] {
            run(size, members).await;
        }
    }
}

async fn run(size: usize, members: Members) {
    let network = Network::default();
    let started = BenchServer::start_in(&network).await;
    let one = &started.server;
    let alice = one.register("alice").await;
    let room = {
        let far = FakeServer::start(&network, "far");
        let room = room_of(&far, size);
        serve(&far, &room, members);
        room.room.id
    };
    reset_peak();
    let (before, began) = (memory_kib(Memory::Resident), Instant::now());
    let path = format!("/_matrix/client/v3/join/{room}?via=far");
    alice.post(&path, json!({})).await.ok();
    let answered = began.elapsed();
    let path = format!("/_matrix/client/v3/rooms/{room}/members");
    let told = alice.get(&path).await.ok();
    let complete = began.elapsed();
    let count = told["chunk"].as_array().map_or(0, Vec::len);
    assert_eq!(count, size + 1, "all members are known");
    let peak = memory_kib(Memory::Peak).saturating_sub(before) / 1024;
    println!(
        "{size} members, {members:?}: answered in {answered:?}, all known in {complete:?}, {peak} MiB more than before"
    );
    started.server.stop().await;
    // What the other server hands out is freed before the next room.
    tokio::time::sleep(Duration::from_millis(50)).await;
}

/// A room, and all that it takes to join it.
struct Room {
    room: FakeRoom,
    state: Vec<Pdu>,
    members: Vec<Pdu>,
}

fn room_of(far: &FakeServer, size: usize) -> Room {
    let owner = far.user("owner");
    let rules = room_version::rules(&RoomVersionId::V11).expect("a known version");
    let id = OwnedRoomId::try_from("!large:far").expect("a room ID");
    // What is not made yet is not looked at.
    let blank = |create: &Pdu| FakeRoom {
        id: id.clone(),
        rules,
        create: create.clone(),
        levels: create.clone(),
        join_rules: create.clone(),
        newest: create.clone(),
    };
    let create = far.first_event(&id, &owner, &RoomVersionId::V11);
    let mut room = blank(&create);
    let make = |room: &FakeRoom, kind: &str, key: &str, content: Value, auth: &[&Pdu]| {
        let (sender, prev) = (&*owner, [&room.newest]);
        let event = FakeEvent { sender, kind, state_key: Some(key), content, prev: &prev, auth };
        far.event(room, event)
    };
    let join = json!({ "membership": "join" });
    let first = make(&room, "m.room.member", owner.as_str(), join, &[&create]);
    room.newest = first.clone();
    let levels = json!({ "users": { owner.as_str(): 100 } });
    room.levels = make(&room, "m.room.power_levels", "", levels, &[&create, &first]);
    room.newest = room.levels.clone();
    let auth = [&create, &first, &room.levels.clone()];
    room.join_rules = make(&room, "m.room.join_rules", "", json!({ "join_rule": "public" }), &auth);
    room.newest = room.join_rules.clone();
    let name = make(&room, "m.room.name", "", json!({ "name": "Large" }), &auth);
    room.newest = name.clone();
    let mut members = vec![first];
    for n in 1..size {
        let member = room.join(far, &far.user(&format!("member{n}")), &[&room.newest]);
        room.newest = member.clone();
        members.push(member);
    }
    let state = vec![create, room.levels.clone(), room.join_rules.clone(), name];
    Room { room, state, members }
}

fn serve(far: &FakeServer, room: &Room, omits: Members) {
    let template = json!({
        "room_id": room.room.id,
        "type": "m.room.member",
        "content": { "membership": "join" },
        "depth": room.room.newest.depth + 1,
        "prev_events": [room.room.newest.event_id],
        "auth_events": room.room.join_auth().iter().map(|pdu| &pdu.event_id).collect::<Vec<_>>(),
        "origin_server_ts": 1_767_225_600_000_u64,
    });
    far.on("/make_join/", move |asked| {
        let user = asked.path.split("/").nth(6)?.split('?').next()?.replace("%40", "@");
        let mut event = template.clone();
        event["sender"] = user.replace("%3A", ":").into();
        event["state_key"] = event["sender"].clone();
        Some(FakeAnswer::Json(json!({ "room_version": "11", "event": event })))
    });
    let whole: Vec<&Pdu> = room.state.iter().chain(&room.members).collect();
    let few: Vec<&Pdu> = room.state.iter().collect();
    let chain: Vec<&Pdu> = few.iter().copied().chain([&room.members[0]]).collect();
    let joined = match omits {
        Members::Told => {
            format!(r#"{{"origin":"far","state":{},"auth_chain":{}}}"#, array(&whole), array(&few))
        }
        Members::Omitted => format!(
            r#"{{"origin":"far","members_omitted":true,"servers_in_room":["far"],"state":{},"auth_chain":{}}}"#,
            array(&few),
            array(&chain)
        ),
    };
    far.answers("/send_join/", FakeAnswer::Text(Bytes::from(joined)));
    let ids = |pdus: &[&Pdu]| pdus.iter().map(|pdu| pdu.event_id.to_string()).collect::<Vec<_>>();
    let told = json!({ "pdu_ids": ids(&whole), "auth_chain_ids": ids(&chain) });
    far.answers("/state_ids/", text(&told));
    let told = format!(r#"{{"pdus":{},"auth_chain":{}}}"#, array(&whole), array(&chain));
    far.answers("/state/", FakeAnswer::Text(Bytes::from(told)));
    let known: std::collections::HashMap<String, String> =
        whole.iter().map(|pdu| (pdu.event_id.to_string(), pdu.json().to_string())).collect();
    far.on("/federation/v1/event/", move |asked| {
        let id = asked.path.rsplit('/').next()?.replace("%24", "$");
        let event: Value = serde_json::from_str(known.get(&id)?).ok()?;
        Some(FakeAnswer::Json(json!({ "origin": "far", "origin_server_ts": 0, "pdus": [event] })))
    });
    far.answers("/send/", FakeAnswer::Json(json!({ "pdus": {} })));
}

/// Events as they are sent, in an array.
fn array(pdus: &[&Pdu]) -> String {
    let texts: Vec<&str> = pdus.iter().map(|pdu| &**pdu.json()).collect();
    format!("[{}]", texts.join(","))
}

fn text(answer: &Value) -> FakeAnswer {
    FakeAnswer::Text(Bytes::from(answer.to_string()))
}
