//! Memberships across servers: joining, inviting, knocking, leaving, and those who cheat at it.

#![expect(clippy::unwrap_used, reason = "a test ends where an answer is not as expected")]

use millrace_federation::PeerError;
use millrace_test_support::{Answer, Client, Network, TestServer};
use ruma::{
    CanonicalJsonObject, OwnedRoomId, OwnedUserId, RoomVersionId,
    api::federation::{
        membership::{
            create_invite::v2 as send_invite, create_join_event::v2 as send_join,
            create_leave_event::v2 as send_leave, prepare_join_event::v1 as make_join,
        },
        transactions::send_transaction_message::v1 as send_transaction,
    },
    room_version_rules::RoomVersionRules,
    server_name, signatures,
};
use serde_json::{Value, json};

/// Two servers, with a user each.
struct World {
    network: Network,
    one: TestServer,
    two: TestServer,
    alice: Client,
    bob: Client,
}

async fn world() -> World {
    let network = Network::default();
    let one = TestServer::start_in(&network, "one").await;
    let two = TestServer::start_in(&network, "two").await;
    let (alice, bob) = (one.register("alice").await, two.register("bob").await);
    World { network, one, two, alice, bob }
}

async fn create(client: &Client, body: Value) -> String {
    let room = client.post("/_matrix/client/v3/createRoom", body).await.ok();
    room["room_id"].as_str().unwrap().to_owned()
}

async fn public_room(client: &Client, version: &str) -> String {
    create(client, json!({ "preset": "public_chat", "room_version": version })).await
}

async fn join(client: &Client, room: &str, via: &str) -> Answer {
    client.post(&format!("/_matrix/client/v3/join/{room}?via={via}"), json!({})).await
}

async fn invite(client: &Client, room: &str, user: &str) -> Answer {
    let path = format!("/_matrix/client/v3/rooms/{room}/invite");
    client.post(&path, json!({ "user_id": user })).await
}

async fn act(client: &Client, room: &str, action: &str, user: Option<&str>) -> Answer {
    let path = format!("/_matrix/client/v3/rooms/{room}/{action}");
    let body = user.map_or_else(|| json!({}), |user| json!({ "user_id": user }));
    client.post(&path, body).await
}

/// A user's membership, as a client's server has it.
async fn membership(client: &Client, room: &str, user: &str) -> String {
    let path = format!("/_matrix/client/v3/rooms/{room}/state/m.room.member/{user}");
    let answer = client.get(&path).await;
    answer.body["membership"].as_str().unwrap_or_default().to_owned()
}

async fn sync(client: &Client) -> Value {
    client.get("/_matrix/client/v3/sync").await.ok()
}

/// The content of a stripped event in an invitation or knock.
fn shown<'a>(events: &'a Value, kind: &str) -> &'a Value {
    let events = events.as_array().unwrap();
    events
        .iter()
        .find(|event| event["type"] == kind)
        .map_or(&Value::Null, |found| &found["content"])
}

const VERSIONS: [&str; 12] = ["1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12"];

#[tokio::test]
async fn a_public_room_of_another_server_is_joined_in_every_version() {
    let World { alice, bob, .. } = world().await;
    for version in VERSIONS {
        let room = public_room(&alice, version).await;
        join(&bob, &room, "one").await.ok();
        for client in [&alice, &bob] {
            assert_eq!(membership(client, &room, "@bob:two").await, "join", "version {version}");
            assert_eq!(membership(client, &room, "@alice:one").await, "join", "version {version}");
        }
        let synced = sync(&bob).await;
        assert!(synced["rooms"]["join"][&room].is_object(), "version {version}");
    }
}

#[tokio::test]
async fn a_joined_room_is_spoken_in_at_once() {
    let World { alice, bob, .. } = world().await;
    let room = public_room(&alice, "12").await;
    join(&bob, &room, "one").await.ok();
    let path = format!("/_matrix/client/v3/rooms/{room}/send/m.room.message/1");
    bob.put(&path, json!({ "msgtype": "m.text", "body": "hello" })).await.ok();
    let path = format!("/_matrix/client/v3/rooms/{room}/state/m.room.create/");
    assert_eq!(bob.get(&path).await.ok(), alice.get(&path).await.ok());
}

#[tokio::test]
async fn a_room_is_joined_by_its_alias() {
    let World { alice, bob, .. } = world().await;
    let body = json!({ "preset": "public_chat", "room_alias_name": "pub" });
    let room = create(&alice, body).await;
    let joined = bob.post("/_matrix/client/v3/join/%23pub%3Aone", json!({})).await.ok();
    assert_eq!(joined["room_id"], room);
    assert_eq!(membership(&bob, &room, "@bob:two").await, "join");
}

#[tokio::test]
async fn servers_are_asked_in_turn_until_one_helps() {
    let World { network, one, alice, bob, .. } = world().await;
    let room = public_room(&alice, "11").await;
    network.leave("one");
    let _stranger = TestServer::start_in(&network, "stranger").await;
    let path = format!("/_matrix/client/v3/join/{room}?via=nowhere&via=stranger&via=one");
    assert!(!bob.post(&path, json!({})).await.status.is_success());
    network.enter("one", one.router.clone());
    // Somebody waits, so it is asked although it was down just now.
    bob.post(&path, json!({})).await.ok();
    assert_eq!(membership(&alice, &room, "@bob:two").await, "join");
}

#[tokio::test]
async fn a_room_that_nobody_knows_is_not_found() {
    let World { bob, .. } = world().await;
    join(&bob, "!nothing", "one").await.refused(404, "M_NOT_FOUND");
    bob.post("/_matrix/client/v3/join/!nothing", json!({})).await.refused(404, "M_NOT_FOUND");
}

#[tokio::test]
async fn two_users_join_the_same_room_at_once() {
    let World { alice, bob, two, .. } = world().await;
    let room = public_room(&alice, "12").await;
    let carol = two.register("carol").await;
    let (bob_joins, carol_joins) =
        tokio::join!(join(&bob, &room, "one"), join(&carol, &room, "one"));
    bob_joins.ok();
    carol_joins.ok();
    for user in ["@bob:two", "@carol:two"] {
        assert_eq!(membership(&bob, &room, user).await, "join");
    }
}

#[tokio::test]
async fn an_invitation_shows_the_room_and_is_accepted_in_every_version() {
    let World { alice, bob, .. } = world().await;
    for version in VERSIONS {
        let body = json!({ "room_version": version, "name": "Tea" });
        let room = create(&alice, body).await;
        join(&bob, &room, "one").await.refused(403, "M_FORBIDDEN");
        invite(&alice, &room, "@bob:two").await.ok();
        assert_eq!(membership(&alice, &room, "@bob:two").await, "invite", "version {version}");
        let synced = sync(&bob).await;
        let events = &synced["rooms"]["invite"][&room]["invite_state"]["events"];
        assert_eq!(shown(events, "m.room.name")["name"], "Tea", "version {version}");
        assert_eq!(shown(events, "m.room.join_rules")["join_rule"], "invite");
        bob.post(&format!("/_matrix/client/v3/rooms/{room}/join"), json!({})).await.ok();
        assert_eq!(membership(&alice, &room, "@bob:two").await, "join", "version {version}");
        let synced = sync(&bob).await;
        assert!(synced["rooms"]["invite"][&room].is_null(), "version {version}");
    }
}

#[tokio::test]
async fn who_is_invited_at_the_creation_is_invited_on_their_server() {
    let World { alice, bob, .. } = world().await;
    let body = json!({ "preset": "private_chat", "invite": ["@bob:two"], "is_direct": true });
    let room = create(&alice, body).await;
    let synced = sync(&bob).await;
    let events = synced["rooms"]["invite"][&room]["invite_state"]["events"].as_array().unwrap();
    let own = events.iter().find(|event| event["state_key"] == "@bob:two").unwrap();
    assert_eq!(own["content"]["membership"], "invite");
    assert_eq!(own["content"]["is_direct"], true);
}

#[tokio::test]
async fn a_room_is_created_even_where_somebody_cannot_be_invited() {
    let World { alice, network, .. } = world().await;
    network.leave("two");
    let room = create(&alice, json!({ "invite": ["@bob:two", "@nobody:nowhere"] })).await;
    assert_eq!(membership(&alice, &room, "@bob:two").await, "");
}

#[tokio::test]
async fn an_invitation_set_as_state_reaches_its_user() {
    let World { alice, bob, .. } = world().await;
    let room = create(&alice, json!({})).await;
    let path = format!("/_matrix/client/v3/rooms/{room}/state/m.room.member/@bob:two");
    let sent = alice.put(&path, json!({ "membership": "invite", "reason": "tea" })).await.ok();
    assert!(sent["event_id"].is_string());
    let synced = sync(&bob).await;
    let events = &synced["rooms"]["invite"][&room]["invite_state"]["events"];
    let last = events.as_array().unwrap().last().unwrap();
    assert_eq!(last["content"]["reason"], "tea");
}

#[tokio::test]
async fn whom_the_other_server_does_not_know_is_not_invited() {
    let World { alice, .. } = world().await;
    let room = create(&alice, json!({})).await;
    invite(&alice, &room, "@nobody:two").await.refused(404, "M_NOT_FOUND");
    assert_eq!(membership(&alice, &room, "@nobody:two").await, "");
}

#[tokio::test]
async fn an_invitation_is_rejected_again_and_again() {
    let World { alice, bob, .. } = world().await;
    for version in ["1", "5", "10", "12"] {
        let room = create(&alice, json!({ "room_version": version })).await;
        for _ in 0..3 {
            invite(&alice, &room, "@bob:two").await.ok();
            act(&bob, &room, "leave", None).await.ok();
            assert_eq!(membership(&alice, &room, "@bob:two").await, "leave", "version {version}");
            let synced = sync(&bob).await;
            assert!(synced["rooms"]["invite"][&room].is_null(), "version {version}");
        }
    }
}

#[tokio::test]
async fn an_invitation_of_a_server_that_is_gone_is_rejected_here() {
    let World { network, alice, bob, .. } = world().await;
    let room = create(&alice, json!({ "invite": ["@bob:two"] })).await;
    network.leave("one");
    let since = sync(&bob).await["next_batch"].as_str().unwrap().to_owned();
    act(&bob, &room, "leave", None).await.ok();
    let synced = bob.get(&format!("/_matrix/client/v3/sync?since={since}")).await.ok();
    let left = &synced["rooms"]["leave"][&room]["timeline"]["events"][0];
    assert_eq!(
        (&left["state_key"], &left["content"]["membership"]),
        (&json!("@bob:two"), &json!("leave"))
    );
    assert!(sync(&bob).await["rooms"]["invite"][&room].is_null());
}

#[tokio::test]
async fn only_who_invited_takes_an_invitation_back() {
    let World { one, alice, bob, .. } = world().await;
    let room = create(&alice, json!({ "invite": ["@bob:two"] })).await;
    for (place, (sender, invited)) in
        [("@eve:one", true), ("@alice:two", true), ("@alice:one", false)].into_iter().enumerate()
    {
        let event = json!({
            "type": "m.room.member", "room_id": room, "sender": sender, "state_key": "@bob:two",
            "content": { "membership": "leave" },
        });
        let mut request = send_transaction::Request::new(
            format!("t{place}").into(),
            server_name!("one").to_owned(),
            one.env.now(),
        );
        request.pdus = vec![serde_json::value::to_raw_value(&event).unwrap()];
        one.federation.peers.ask(server_name!("two"), request).await.unwrap();
        let synced = sync(&bob).await;
        assert_eq!(synced["rooms"]["invite"][&room].is_object(), invited, "by {sender}");
    }
}

#[tokio::test]
async fn a_knock_is_accepted_by_an_invitation() {
    let World { alice, bob, .. } = world().await;
    for version in ["7", "10", "12"] {
        let rule = json!({ "type": "m.room.join_rules", "content": { "join_rule": "knock" } });
        let body = json!({ "room_version": version, "name": "Club", "initial_state": [rule] });
        let room = create(&alice, body).await;
        let path = format!("/_matrix/client/v3/knock/{room}?via=one");
        bob.post(&path, json!({ "reason": "please" })).await.ok();
        assert_eq!(membership(&alice, &room, "@bob:two").await, "knock", "version {version}");
        let synced = sync(&bob).await;
        let events = &synced["rooms"]["knock"][&room]["knock_state"]["events"];
        assert_eq!(shown(events, "m.room.name")["name"], "Club", "version {version}");
        invite(&alice, &room, "@bob:two").await.ok();
        join(&bob, &room, "one").await.ok();
        assert_eq!(membership(&alice, &room, "@bob:two").await, "join", "version {version}");
    }
}

#[tokio::test]
async fn a_knock_is_taken_back_through_the_server_that_took_it() {
    let World { alice, bob, .. } = world().await;
    let rule = json!({ "type": "m.room.join_rules", "content": { "join_rule": "knock" } });
    let room = create(&alice, json!({ "initial_state": [rule] })).await;
    bob.post(&format!("/_matrix/client/v3/knock/{room}?via=one"), json!({})).await.ok();
    act(&bob, &room, "leave", None).await.ok();
    assert_eq!(membership(&alice, &room, "@bob:two").await, "leave");
}

#[tokio::test]
async fn a_room_that_takes_no_knocks_refuses_them() {
    let World { alice, bob, .. } = world().await;
    let room = public_room(&alice, "10").await;
    let path = format!("/_matrix/client/v3/knock/{room}?via=one");
    bob.post(&path, json!({})).await.refused(403, "M_FORBIDDEN");
    let old = create(&alice, json!({ "room_version": "6" })).await;
    let path = format!("/_matrix/client/v3/knock/{old}?via=one");
    bob.post(&path, json!({})).await.refused(400, "M_INCOMPATIBLE_ROOM_VERSION");
}

#[tokio::test]
async fn who_is_banned_does_not_come_in_and_who_is_unbanned_does() {
    let World { alice, bob, .. } = world().await;
    let room = public_room(&alice, "12").await;
    act(&alice, &room, "ban", Some("@bob:two")).await.ok();
    join(&bob, &room, "one").await.refused(403, "M_FORBIDDEN");
    act(&alice, &room, "unban", Some("@bob:two")).await.ok();
    join(&bob, &room, "one").await.ok();
    assert_eq!(membership(&alice, &room, "@bob:two").await, "join");
}

/// A room that the members of another may join, in which only its creator may invite.
async fn restricted(client: &Client, version: &str, allowed: &str) -> String {
    let allow = json!([{ "type": "m.room_membership", "room_id": allowed }]);
    let content = json!({ "join_rule": "restricted", "allow": allow });
    let rule = json!({ "type": "m.room.join_rules", "content": content });
    let levels = json!({ "invite": 50 });
    let body = json!({
        "room_version": version, "initial_state": [rule], "power_level_content_override": levels,
    });
    create(client, body).await
}

#[tokio::test]
async fn who_is_in_the_named_room_joins_a_restricted_one() {
    let World { alice, bob, .. } = world().await;
    for version in ["8", "10", "12"] {
        let allowed = public_room(&alice, version).await;
        let room = restricted(&alice, version, &allowed).await;
        join(&bob, &room, "one").await.refused(403, "M_FORBIDDEN");
        join(&bob, &allowed, "one").await.ok();
        join(&bob, &room, "one").await.ok();
        for client in [&alice, &bob] {
            let path = format!("/_matrix/client/v3/rooms/{room}/state/m.room.member/@bob:two");
            let content = client.get(&path).await.ok();
            assert_eq!(content["membership"], "join", "version {version}");
            assert_eq!(content["join_authorised_via_users_server"], "@alice:one");
        }
    }
}

#[tokio::test]
async fn a_restricted_room_is_joined_by_the_help_of_who_can_tell() {
    let World { network, alice, bob, .. } = world().await;
    let three = TestServer::start_in(&network, "three").await;
    let carol = three.register("carol").await;
    // Rooms of this version do not name a server in their ID, which would be asked too.
    let allowed = public_room(&alice, "12").await;
    let room = restricted(&alice, "12", &allowed).await;
    // Two is in the room and not in the one that it names: it can tell nothing, and may not invite.
    invite(&alice, &room, "@bob:two").await.ok();
    join(&bob, &room, "one").await.ok();
    join(&carol, &room, "two").await.refused(400, "M_UNABLE_TO_AUTHORISE_JOIN");
    join(&carol, &allowed, "one").await.ok();
    let path = format!("/_matrix/client/v3/join/{room}?via=two&via=one");
    carol.post(&path, json!({})).await.ok();
    assert_eq!(membership(&alice, &room, "@carol:three").await, "join");
}

#[tokio::test]
async fn a_local_user_joins_a_restricted_room_by_the_help_of_another_server() {
    let World { alice, bob, two, .. } = world().await;
    let carol = two.register("carol").await;
    let allowed = public_room(&alice, "10").await;
    let room = restricted(&alice, "10", &allowed).await;
    invite(&alice, &room, "@bob:two").await.ok();
    join(&bob, &room, "one").await.ok();
    join(&carol, &allowed, "one").await.ok();
    // Nobody of two may invite.
    let path = format!("/_matrix/client/v3/join/{room}");
    carol.post(&path, json!({})).await.ok();
    for client in [&alice, &bob] {
        assert_eq!(membership(client, &room, "@carol:two").await, "join", "{}", client.user());
    }
}

#[tokio::test]
async fn an_excluded_server_gets_no_template() {
    let World { alice, bob, .. } = world().await;
    let content = json!({ "allow": ["*"], "deny": ["two"] });
    let acl = json!({ "type": "m.room.server_acl", "content": content });
    let room = create(&alice, json!({ "preset": "public_chat", "initial_state": [acl] })).await;
    join(&bob, &room, "one").await.refused(403, "M_FORBIDDEN");
}

// --- Those who cheat ---------------------------------------------------------------------------

type Rules = RoomVersionRules;

/// The member event that `one`'s template makes, before it is signed.
async fn template(world: &World, room: &str) -> CanonicalJsonObject {
    let room = OwnedRoomId::try_from(room).unwrap();
    let bob = OwnedUserId::try_from("@bob:two").unwrap();
    let mut request = make_join::Request::new(room, bob);
    request.ver = vec![RoomVersionId::V10, RoomVersionId::V12];
    let answer = world.two.federation.peers.ask(server_name!("one"), request).await.unwrap();
    let mut event: CanonicalJsonObject = serde_json::from_str(answer.event.get()).unwrap();
    let now = ruma::Int::from(world.two.env.now().0);
    event.insert("origin_server_ts".to_owned(), ruma::CanonicalJsonValue::Integer(now));
    event
}

fn sign(signer: &TestServer, event: &mut CanonicalJsonObject, rules: &Rules) -> String {
    let identity = &signer.env.identity;
    let name = identity.name.as_str();
    signatures::hash_and_sign_event(name, &identity.key, event, &rules.redaction).unwrap();
    format!("${}", signatures::reference_hash(event, rules).unwrap())
}

/// What `one` answers to a join that `two` sends.
async fn hand_in(
    world: &World,
    room: &str,
    event_id: &str,
    event: &CanonicalJsonObject,
) -> Result<(), (u16, String)> {
    let room = OwnedRoomId::try_from(room).unwrap();
    let event = serde_json::value::to_raw_value(event).unwrap();
    let request = send_join::Request::new(room, event_id.try_into().unwrap(), event);
    refusal(world.two.federation.peers.ask(server_name!("one"), request).await)
}

fn refusal<T>(answer: Result<T, PeerError>) -> Result<(), (u16, String)> {
    match answer {
        Ok(_) => Ok(()),
        Err(PeerError::Refused { status, error, .. }) => {
            let kind = error.error_kind().map(|kind| kind.errcode().to_string());
            Err((status.as_u16(), kind.unwrap_or_default()))
        }
        Err(error) => panic!("{error}"),
    }
}

fn invalid() -> Result<(), (u16, String)> {
    Err((400, "M_INVALID_PARAM".to_owned()))
}

fn set(event: &mut CanonicalJsonObject, field: &str, value: &str) {
    event.insert(field.to_owned(), value.into());
}

fn set_membership(event: &mut CanonicalJsonObject, membership: &str) {
    let content = event.get_mut("content").and_then(|content| content.as_object_mut()).unwrap();
    content.insert("membership".to_owned(), membership.into());
}

#[tokio::test]
async fn only_a_join_of_ones_own_user_is_taken_as_a_join() {
    let world = world().await;
    let rules = RoomVersionId::V10.rules().unwrap();
    let room = public_room(&world.alice, "10").await;
    let other = public_room(&world.alice, "10").await;
    let good = template(&world, &room).await;
    let cheats: [&dyn Fn(&mut CanonicalJsonObject); 6] = [
        &|event| set(event, "type", "m.room.message"),
        &|event| set(event, "room_id", &other),
        &|event| set(event, "state_key", "@alice:one"),
        &|event| {
            set(event, "sender", "@alice:one");
            set(event, "state_key", "@alice:one");
        },
        &|event| set_membership(event, "leave"),
        &|event| {
            event.remove("state_key");
        },
    ];
    for (place, cheat) in cheats.iter().enumerate() {
        let mut event = good.clone();
        cheat(&mut event);
        let id = sign(&world.two, &mut event, &rules);
        assert_eq!(hand_in(&world, &room, &id, &event).await, invalid(), "cheat {place}");
    }
    assert_eq!(membership(&world.alice, &room, "@bob:two").await, "");
    let mut event = good;
    let id = sign(&world.two, &mut event, &rules);
    assert_eq!(hand_in(&world, &room, &id, &event).await, Ok(()));
    assert_eq!(hand_in(&world, &room, &id, &event).await, Ok(()), "a repeated request");
    assert_eq!(membership(&world.alice, &room, "@bob:two").await, "join");
}

#[tokio::test]
async fn a_join_whose_signature_id_or_room_is_wrong_is_refused() {
    let world = world().await;
    let rules = RoomVersionId::V10.rules().unwrap();
    let room = public_room(&world.alice, "10").await;
    let mut event = template(&world, &room).await;
    let id = sign(&world.two, &mut event, &rules);
    let mut forged = event.clone();
    forged.remove("signatures");
    assert_eq!(hand_in(&world, &room, &id, &forged).await, invalid(), "unsigned");
    sign(&world.one, &mut forged, &rules);
    assert_eq!(hand_in(&world, &room, &id, &forged).await, invalid(), "signed by another");
    let other = "$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    assert_eq!(hand_in(&world, &room, other, &event).await, invalid(), "another ID");
    let unknown = hand_in(&world, "!unknown:one", &id, &event).await;
    assert_eq!(unknown, Err((404, "M_NOT_FOUND".to_owned())));
    assert_eq!(membership(&world.alice, &room, "@bob:two").await, "");
}

#[tokio::test]
async fn a_join_that_the_room_does_not_allow_is_refused() {
    let world = world().await;
    let rules = RoomVersionId::V10.rules().unwrap();
    let room = public_room(&world.alice, "10").await;
    let mut event = template(&world, &room).await;
    act(&world.alice, &room, "ban", Some("@bob:two")).await.ok();
    let id = sign(&world.two, &mut event, &rules);
    let refused = hand_in(&world, &room, &id, &event).await;
    assert_eq!(refused, Err((403, "M_FORBIDDEN".to_owned())));
    assert_eq!(membership(&world.alice, &room, "@bob:two").await, "ban");
}

#[tokio::test]
async fn nobody_is_vouched_for_who_is_not_in_the_named_room() {
    let world = world().await;
    let rules = RoomVersionId::V10.rules().unwrap();
    let allowed = public_room(&world.alice, "10").await;
    let room = restricted(&world.alice, "10", &allowed).await;
    let mut event = template(&world, &allowed).await;
    set(&mut event, "room_id", &room);
    let content = json!({
        "membership": "join", "join_authorised_via_users_server": "@alice:one",
    });
    event.insert("content".to_owned(), content.try_into().unwrap());
    let id = sign(&world.two, &mut event, &rules);
    let refused = hand_in(&world, &room, &id, &event).await;
    assert_eq!(refused, Err((403, "M_FORBIDDEN".to_owned())));
}

#[tokio::test]
async fn templates_are_made_for_ones_own_users_and_versions_only() {
    let world = world().await;
    let room = OwnedRoomId::try_from(public_room(&world.alice, "12").await).unwrap();
    let ask = async |user: &str, versions: Vec<RoomVersionId>| {
        let user = OwnedUserId::try_from(user).unwrap();
        let mut request = make_join::Request::new(room.clone(), user);
        request.ver = versions;
        refusal(world.two.federation.peers.ask(server_name!("one"), request).await)
    };
    let forbidden = Err((403, "M_FORBIDDEN".to_owned()));
    assert_eq!(ask("@alice:one", vec![RoomVersionId::V12]).await, forbidden);
    assert_eq!(ask("@carol:three", vec![RoomVersionId::V12]).await, forbidden);
    let incompatible = Err((400, "M_INCOMPATIBLE_ROOM_VERSION".to_owned()));
    assert_eq!(ask("@bob:two", vec![RoomVersionId::V1]).await, incompatible);
    assert_eq!(ask("@bob:two", vec![RoomVersionId::V12]).await, Ok(()));
}

#[tokio::test]
async fn a_leaving_of_somebody_else_is_refused() {
    let world = world().await;
    let rules = RoomVersionId::V10.rules().unwrap();
    let room = public_room(&world.alice, "10").await;
    let mut event = template(&world, &room).await;
    set_membership(&mut event, "leave");
    set(&mut event, "state_key", "@alice:one");
    let id = sign(&world.two, &mut event, &rules);
    let raw = serde_json::value::to_raw_value(&event).unwrap();
    let room_id = OwnedRoomId::try_from(room.as_str()).unwrap();
    let request = send_leave::Request::new(room_id, id.as_str().try_into().unwrap(), raw);
    let peers = &world.two.federation.peers;
    assert_eq!(refusal(peers.ask(server_name!("one"), request).await), invalid());
    assert_eq!(membership(&world.alice, &room, "@alice:one").await, "join");
}

#[tokio::test]
async fn only_an_invitation_of_a_user_here_is_signed() {
    let world = world().await;
    let rules = RoomVersionId::V10.rules().unwrap();
    let room = OwnedRoomId::try_from("!room:two").unwrap();
    let ask = async |change: &dyn Fn(&mut Value), version: RoomVersionId| {
        let mut event = json!({
            "type": "m.room.member", "room_id": room, "sender": "@bob:two",
            "state_key": "@alice:one", "content": { "membership": "invite" },
            "origin_server_ts": 1, "depth": 1, "prev_events": [], "auth_events": [],
        });
        change(&mut event);
        let mut event: CanonicalJsonObject = serde_json::from_value(event).unwrap();
        let id = sign(&world.two, &mut event, &rules);
        let raw = serde_json::value::to_raw_value(&event).unwrap();
        let id = id.as_str().try_into().unwrap();
        let request = send_invite::Request::new(room.clone(), id, version, raw, Vec::new());
        refusal(world.two.federation.peers.ask(server_name!("one"), request).await)
    };
    for change in [
        &(|event: &mut Value| event["type"] = json!("m.room.name")) as &dyn Fn(&mut Value),
        &|event| event["content"]["membership"] = json!("join"),
        &|event| event["sender"] = json!("@eve:three"),
        &|event| event["state_key"] = json!("@bob:two"),
        &|event| event["room_id"] = json!("!other:two"),
    ] {
        assert_eq!(ask(change, RoomVersionId::V10).await, invalid());
    }
    let unknown = Err((404, "M_NOT_FOUND".to_owned()));
    let nobody = |event: &mut Value| event["state_key"] = json!("@nobody:one");
    assert_eq!(ask(&nobody, RoomVersionId::V10).await, unknown);
    let future = RoomVersionId::try_from("org.example.99").unwrap();
    let incompatible = Err((400, "M_INCOMPATIBLE_ROOM_VERSION".to_owned()));
    assert_eq!(ask(&|_| (), future).await, incompatible);
    // Rooms of version 12 have no invitations without their create event.
    assert_eq!(ask(&|_| (), RoomVersionId::V12).await, invalid());
    assert!(
        sync(&world.alice).await["rooms"]["invite"]
            .as_object()
            .is_none_or(serde_json::Map::is_empty)
    );
    assert_eq!(ask(&|_| (), RoomVersionId::V10).await, Ok(()));
}

/// Puts a liar in the place of a server: what it answers on paths with `path` in them is changed.
fn lie(
    network: &Network,
    (name, server): (&str, &TestServer),
    path: &'static str,
    change: impl Fn(&mut Value) + Clone + Send + Sync + 'static,
) {
    let lying = axum::middleware::from_fn(
        move |request: axum::extract::Request, next: axum::middleware::Next| {
            let change = change.clone();
            async move {
                let lies = request.uri().path().contains(path);
                let answer = next.run(request).await;
                if !lies {
                    return answer;
                }
                let (mut parts, body) = answer.into_parts();
                let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
                let mut json: Value = serde_json::from_slice(&body).unwrap();
                change(&mut json);
                parts.headers.remove(http::header::CONTENT_LENGTH);
                axum::response::Response::from_parts(parts, json.to_string().into())
            }
        },
    );
    network.enter(name, server.router.clone().layer(lying));
}

/// Whether `two` knows nothing of a room, and signed nothing for it.
async fn untouched(bob: &Client, room: &str) {
    assert!(sync(bob).await["rooms"]["join"][room].is_null());
    let path = format!("/_matrix/client/v3/rooms/{room}/state");
    assert!(!bob.get(&path).await.status.is_success());
}

#[tokio::test]
async fn nothing_is_signed_but_the_join_that_was_asked_for() {
    let World { network, one, alice, bob, .. } = world().await;
    let room = public_room(&alice, "10").await;
    let lies: [fn(&mut Value); 8] = [
        |answer| answer["event"]["type"] = json!("m.room.power_levels"),
        |answer| answer["event"]["room_id"] = json!("!other:one"),
        |answer| answer["event"]["sender"] = json!("@carol:two"),
        |answer| answer["event"]["state_key"] = json!("@carol:two"),
        |answer| answer["event"]["content"]["membership"] = json!("leave"),
        |answer| answer["event"]["content"]["join_authorised_via_users_server"] = json!("@e:vil"),
        |answer| answer["event"]["auth_events"] = json!("all"),
        |answer| answer["room_version"] = json!("org.example.99"),
    ];
    for change in lies {
        lie(&network, ("one", &one), "make_join", change);
        join(&bob, &room, "one").await.refused(502, "M_UNKNOWN");
        untouched(&bob, &room).await;
    }
    assert_eq!(membership(&alice, &room, "@bob:two").await, "");
    // What the content says is ours alone to say.
    lie(&network, ("one", &one), "make_join", |answer| {
        answer["event"]["content"]["displayname"] = json!("Mallory");
        answer["event"]["unsigned"] = json!({ "more": true });
    });
    join(&bob, &room, "one").await.ok();
    let path = format!("/_matrix/client/v3/rooms/{room}/state/m.room.member/@bob:two");
    assert_ne!(alice.get(&path).await.ok()["displayname"], "Mallory");
}

fn without(events: &mut Value, kind: &str) {
    events.as_array_mut().unwrap().retain(|event| event["type"] != kind);
}

#[tokio::test]
async fn a_room_whose_state_cannot_be_right_is_not_entered() {
    let World { network, one, alice, bob, .. } = world().await;
    let room = public_room(&alice, "10").await;
    let lies: [fn(&mut Value); 6] = [
        |answer| without(&mut answer["state"], "m.room.create"),
        |answer| {
            without(&mut answer["state"], "m.room.create");
            without(&mut answer["auth_chain"], "m.room.create");
        },
        |answer| without(&mut answer["state"], "m.room.join_rules"),
        |answer| {
            let again = answer["state"][0].clone();
            answer["state"].as_array_mut().unwrap().push(again);
        },
        |answer| answer["state"] = json!([]),
        |answer| answer["event"]["content"]["membership"] = json!("leave"),
    ];
    for (place, change) in lies.into_iter().enumerate() {
        lie(&network, ("one", &one), "send_join", change);
        let refused = join(&bob, &room, "one").await;
        assert_eq!(refused.status, 502, "lie {place}: {}", refused.body);
        untouched(&bob, &room).await;
    }
    lie(&network, ("one", &one), "make_join", |answer| answer["room_version"] = json!("11"));
    assert!(!join(&bob, &room, "one").await.status.is_success(), "another version than it has");
    untouched(&bob, &room).await;
    network.enter("one", one.router.clone());
    join(&bob, &room, "one").await.ok();
}

#[tokio::test]
async fn a_server_that_tells_of_another_room_is_not_believed() {
    let World { network, one, alice, bob, .. } = world().await;
    for version in ["10", "12"] {
        let room = public_room(&alice, version).await;
        let other = public_room(&alice, version).await;
        let state = alice.get(&format!("/_matrix/client/v3/rooms/{other}/state")).await.ok();
        let head = one.env.store.snapshot();
        let mut events = Vec::new();
        for event in state.as_array().unwrap() {
            let room = <&ruma::RoomId>::try_from(other.as_str()).unwrap();
            let id = <&ruma::EventId>::try_from(event["event_id"].as_str().unwrap()).unwrap();
            let found = millrace_domain::rooms::events::find(&head, room, id).await.unwrap();
            let rooms = &one.federation.rooms;
            let version = RoomVersionId::try_from(version).unwrap();
            let number = found.unwrap().0;
            let event = rooms.events.load_one(&head, room, &version, number).await.unwrap();
            events.push(serde_json::from_str::<Value>(event.pdu.json()).unwrap());
        }
        let events = Value::Array(events);
        lie(&network, ("one", &one), "send_join", move |answer| answer["state"] = events.clone());
        join(&bob, &room, "one").await.refused(502, "M_UNKNOWN");
        untouched(&bob, &room).await;
        untouched(&bob, &other).await;
    }
}

#[tokio::test]
async fn events_whose_signatures_do_not_hold_are_left_out() {
    let World { network, one, alice, bob, .. } = world().await;
    let name = json!({ "type": "m.room.name", "content": { "name": "Tea" } });
    let body = json!({ "preset": "public_chat", "room_version": "10", "initial_state": [name] });
    let room = create(&alice, body).await;
    // In the answer to the join, and alone.
    lie(&network, ("one", &one), "federation", |answer| {
        for list in ["state", "pdus"] {
            for event in answer[list].as_array_mut().into_iter().flatten() {
                if event["type"] == "m.room.name" {
                    event["origin_server_ts"] = json!(5);
                }
            }
        }
    });
    join(&bob, &room, "one").await.ok();
    let path = format!("/_matrix/client/v3/rooms/{room}/state/m.room.name/");
    bob.get(&path).await.refused(404, "M_NOT_FOUND");
    assert_eq!(membership(&bob, &room, "@alice:one").await, "join");
}

#[tokio::test]
async fn an_invitation_that_comes_back_changed_or_unsigned_is_not_written() {
    let World { network, two, alice, .. } = world().await;
    let room = create(&alice, json!({})).await;
    lie(&network, ("two", &two), "invite", |answer| {
        answer["event"]["signatures"].as_object_mut().unwrap().remove("two");
    });
    invite(&alice, &room, "@bob:two").await.refused(502, "M_UNKNOWN");
    assert_eq!(membership(&alice, &room, "@bob:two").await, "");
    lie(&network, ("two", &two), "invite", |answer| {
        answer["event"]["content"]["membership"] = json!("join");
    });
    invite(&alice, &room, "@bob:two").await.ok();
    assert_eq!(membership(&alice, &room, "@bob:two").await, "invite", "only signatures are taken");
}
