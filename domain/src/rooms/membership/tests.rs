use millrace_store::{
    Read,
    tables::{CURRENT_STATE, PROFILES, ROOM_HEAD, USER_ROOMS},
};
use ruma::{OwnedUserId, user_id};
use serde_json::{Value, json};

use super::*;
use crate::{
    rooms::{
        create::{self, InitialState, NewRoom},
        forget,
        profile::spread_profile,
        redact, send,
    },
    testing,
};

fn object(json: Value) -> CanonicalJsonObject {
    serde_json::from_value(json).unwrap()
}

fn user(name: &str) -> OwnedUserId {
    format!("@{name}:test.example").try_into().unwrap()
}

/// A room of alice's with these join rules.
async fn room_with(rooms: &Rooms, version: &str, join_rules: Value) -> OwnedRoomId {
    let kind = TimelineEventType::RoomJoinRules;
    let join_rules = InitialState { kind, state_key: String::new(), content: object(join_rules) };
    let initial_state = vec![join_rules];
    let new =
        NewRoom { initial_state, ..NewRoom::plain(user("alice"), version.try_into().unwrap()) };
    create::create(rooms, &new).await.unwrap()
}

async fn member(rooms: &Rooms, room: &RoomId, user: &UserId) -> Value {
    let snapshot = rooms.env.store.snapshot();
    let head = snapshot.get(&ROOM_HEAD, room, ()).await.unwrap().unwrap();
    let place = ("m.room.member", user.as_str());
    let number = snapshot.get(&CURRENT_STATE, room, place).await.unwrap().unwrap();
    let event = rooms.events.load_one(&snapshot, room, &head.version, number).await.unwrap();
    serde_json::from_str(event.pdu.content.get()).unwrap()
}

async fn last(rooms: &Rooms, room: &RoomId) -> i64 {
    let snapshot = rooms.env.store.snapshot();
    snapshot.get(&ROOM_HEAD, room, ()).await.unwrap().unwrap().last
}

async fn set_profile(rooms: &Rooms, user: &UserId, name: &str) {
    let json = serde_json::to_string(name).unwrap();
    let json = &json;
    let body = |tx: Tx| {
        async move {
            tx.put(&PROFILES, user, "displayname", json);
            Ok::<_, millrace_store::Error>(())
        }
        .boxed()
    };
    rooms.env.store.transact(body).await.unwrap();
}

#[tokio::test]
async fn only_who_is_invited_joins_an_invite_only_room_and_joining_again_makes_no_event() {
    let rooms = testing::rooms().await;
    let room = room_with(&rooms, "12", json!({"join_rule": "invite"})).await;
    let (alice, bob) = (&user("alice"), &user("bob"));
    let refused = join::join(&rooms, &room, bob, Guest::No, None).await.unwrap_err();
    assert!(matches!(refused, MembershipError::Refused(Refusal::NotInvited)), "{refused}");
    set_profile(&rooms, bob, "Bob").await;
    invite::invite(&rooms, &room, alice, bob, Some("come")).await.unwrap();
    let invited = json!({"membership": "invite", "displayname": "Bob", "reason": "come"});
    assert_eq!(member(&rooms, &room, bob).await, invited);
    join::join(&rooms, &room, bob, Guest::No, None).await.unwrap();
    let joined = json!({"membership": "join", "displayname": "Bob"});
    assert_eq!(member(&rooms, &room, bob).await, joined);
    let before = last(&rooms, &room).await;
    join::join(&rooms, &room, bob, Guest::No, None).await.unwrap();
    assert_eq!(last(&rooms, &room).await, before);
    for user in [alice, bob] {
        let error = invite::invite(&rooms, &room, alice, user, None).await.unwrap_err();
        assert!(matches!(error, MembershipError::AlreadyInRoom(_)), "{error}");
    }
}

#[tokio::test]
async fn a_member_of_an_allowed_room_is_let_in_by_somebody_who_may_invite() {
    let rooms = testing::rooms().await;
    let club = room_with(&rooms, "12", json!({"join_rule": "public"})).await;
    let (alice, bob) = (&user("alice"), &user("bob"));
    for (version, rule) in [("8", "restricted"), ("12", "restricted"), ("10", "knock_restricted")] {
        let allow = json!([{"type": "m.room_membership", "room_id": club}, {"type": "x"}]);
        let rules = json!({"join_rule": rule, "allow": allow});
        let room = room_with(&rooms, version, rules).await;
        let refused = join::join(&rooms, &room, bob, Guest::No, None).await.unwrap_err();
        assert!(matches!(refused, MembershipError::Refused(Refusal::NotInvited)), "{refused}");
        join::join(&rooms, &club, bob, Guest::No, None).await.unwrap();
        join::join(&rooms, &room, bob, Guest::No, None).await.unwrap();
        let content = member(&rooms, &room, bob).await;
        assert_eq!(content["join_authorised_via_users_server"], alice.as_str());
        set_profile(&rooms, bob, &format!("Bob {version}")).await;
        spread_profile(&rooms, bob).await.unwrap();
        let content = member(&rooms, &room, bob).await;
        let renamed = json!({"membership": "join", "displayname": format!("Bob {version}")});
        assert_eq!(content, renamed);
        leave::leave(&rooms, &club, bob, None).await.unwrap();
    }
}

#[tokio::test]
async fn without_anybody_who_may_invite_nobody_is_let_in() {
    let rooms = testing::rooms().await;
    let club = room_with(&rooms, "11", json!({"join_rule": "public"})).await;
    let allow = json!([{"type": "m.room_membership", "room_id": club}]);
    let room = room_with(&rooms, "11", json!({"join_rule": "restricted", "allow": allow})).await;
    let (alice, bob, carl) = (&user("alice"), &user("bob"), &user("carl"));
    for user in [bob, carl] {
        join::join(&rooms, &club, user, Guest::No, None).await.unwrap();
    }
    join::join(&rooms, &room, bob, Guest::No, None).await.unwrap();
    leave::leave(&rooms, &room, alice, None).await.unwrap();
    // Invitations need no level in a private room, so that any member will do.
    join::join(&rooms, &room, carl, Guest::No, None).await.unwrap();
    let content = member(&rooms, &room, carl).await;
    assert_eq!(content["join_authorised_via_users_server"], bob.as_str());
    for user in [bob, carl] {
        leave::leave(&rooms, &room, user, None).await.unwrap();
    }
    let refused = join::join(&rooms, &room, bob, Guest::No, None).await.unwrap_err();
    assert!(matches!(refused, MembershipError::NobodyAuthorises), "{refused}");
}

#[tokio::test]
async fn a_knock_can_be_answered_or_taken_back() {
    let rooms = testing::rooms().await;
    let room = room_with(&rooms, "11", json!({"join_rule": "knock"})).await;
    let (alice, bob, carl) = (&user("alice"), &user("bob"), &user("carl"));
    knock::knock(&rooms, &room, bob, Some("please")).await.unwrap();
    assert_eq!(member(&rooms, &room, bob).await["reason"], "please");
    invite::invite(&rooms, &room, alice, bob, None).await.unwrap();
    join::join(&rooms, &room, bob, Guest::No, None).await.unwrap();
    let refused = knock::knock(&rooms, &room, bob, None).await.unwrap_err();
    assert!(matches!(refused, MembershipError::Refused(Refusal::AlreadyIn)), "{refused}");
    knock::knock(&rooms, &room, carl, None).await.unwrap();
    leave::leave(&rooms, &room, carl, None).await.unwrap();
    assert_eq!(member(&rooms, &room, carl).await["membership"], "leave");
    knock::knock(&rooms, &room, carl, None).await.unwrap();
    kick::kick(&rooms, &room, alice, carl, None).await.unwrap();
    assert_eq!(member(&rooms, &room, carl).await["membership"], "leave");
}

#[tokio::test]
async fn only_who_is_in_the_room_is_kicked_and_only_who_is_banned_is_unbanned() {
    let rooms = testing::rooms().await;
    let room = room_with(&rooms, "11", json!({"join_rule": "public"})).await;
    let (alice, bob, carl) = (&user("alice"), &user("bob"), &user("carl"));
    let error = kick::kick(&rooms, &room, alice, bob, None).await.unwrap_err();
    assert!(matches!(error, MembershipError::NotInRoom(_)), "{error}");
    join::join(&rooms, &room, bob, Guest::No, None).await.unwrap();
    // Neither who is outside nor who has no level bans anybody.
    for sender in [carl, bob] {
        let error = ban::ban(&rooms, &room, sender, alice, None).await.unwrap_err();
        assert!(matches!(error, MembershipError::Append(AppendError::Refused(_))), "{error}");
    }
    let error = ban::unban(&rooms, &room, alice, bob, None).await.unwrap_err();
    assert!(matches!(error, MembershipError::NotBanned(_)), "{error}");
    ban::ban(&rooms, &room, alice, bob, Some("spam")).await.unwrap();
    let banned = json!({"membership": "ban", "reason": "spam"});
    assert_eq!(member(&rooms, &room, bob).await, banned);
    for result in [
        join::join(&rooms, &room, bob, Guest::No, None).await,
        leave::leave(&rooms, &room, bob, None).await,
        kick::kick(&rooms, &room, alice, bob, None).await,
        invite::invite(&rooms, &room, alice, bob, None).await,
    ] {
        result.unwrap_err();
    }
    ban::unban(&rooms, &room, alice, bob, None).await.unwrap();
    join::join(&rooms, &room, bob, Guest::No, None).await.unwrap();
}

#[tokio::test]
async fn guests_join_where_guests_are_admitted() {
    let rooms = testing::rooms().await;
    let open = room_with(&rooms, "11", json!({"join_rule": "public"})).await;
    let guest = user_id!("@1:test.example");
    join::join(&rooms, &open, guest, Guest::Yes, None).await.unwrap();
    let access = json!({"guest_access": "forbidden"});
    let new = super::super::set_state::NewState {
        sender: user("alice"),
        guest: Guest::No,
        kind: TimelineEventType::RoomGuestAccess,
        state_key: String::new(),
        content: object(access),
    };
    super::super::set_state::set_state(&rooms, &open, &new).await.unwrap();
    let other = user_id!("@2:test.example");
    let refused = join::join(&rooms, &open, other, Guest::Yes, None).await.unwrap_err();
    assert!(matches!(refused, MembershipError::Refused(Refusal::NoGuests)), "{refused}");
    join::join(&rooms, &open, other, Guest::No, None).await.unwrap();
}

#[tokio::test]
async fn leaving_all_rooms_takes_back_invitations_too_and_left_rooms_can_be_forgotten() {
    let rooms = testing::rooms().await;
    let (alice, bob) = (&user("alice"), &user("bob"));
    let joined = room_with(&rooms, "11", json!({"join_rule": "public"})).await;
    let invited = room_with(&rooms, "11", json!({"join_rule": "invite"})).await;
    join::join(&rooms, &joined, bob, Guest::No, None).await.unwrap();
    invite::invite(&rooms, &invited, alice, bob, None).await.unwrap();
    forget::forget(&rooms, &joined, bob).await.unwrap_err();
    leave::leave_all_rooms(&rooms, bob).await.unwrap();
    for room in [&joined, &invited] {
        assert_eq!(member(&rooms, room, bob).await["membership"], "leave");
        forget::forget(&rooms, room, bob).await.unwrap();
        let snapshot = rooms.env.store.snapshot();
        assert!(snapshot.get(&USER_ROOMS, bob, room).await.unwrap().unwrap().forgotten);
    }
    let before = last(&rooms, &joined).await;
    leave::leave(&rooms, &joined, bob, None).await.unwrap();
    assert_eq!(last(&rooms, &joined).await, before, "who has left cannot leave again");
    leave::leave(&rooms, &joined, &user("carl"), None).await.unwrap_err();
}

#[tokio::test]
async fn a_profile_is_spread_only_where_it_is_new() {
    let rooms = testing::rooms().await;
    let alice = &user("alice");
    let room = room_with(&rooms, "11", json!({"join_rule": "public"})).await;
    let before = last(&rooms, &room).await;
    set_profile(&rooms, alice, "Alice").await;
    for _ in 0..2 {
        spread_profile(&rooms, alice).await.unwrap();
        assert_eq!(last(&rooms, &room).await, before + 1);
    }
    assert_eq!(member(&rooms, &room, alice).await["displayname"], "Alice");
}

#[tokio::test]
async fn nobody_redacts_others_without_the_level_for_it() {
    let rooms = testing::rooms().await;
    let room = room_with(&rooms, "11", json!({"join_rule": "public"})).await;
    let (alice, bob) = (user("alice"), user("bob"));
    join::join(&rooms, &room, &bob, Guest::No, None).await.unwrap();
    let hello = object(json!({"body": "x"}));
    let hello = Draft::message(&alice, TimelineEventType::RoomMessage, hello);
    let target = send::send(&rooms, &room, &hello, None).await.unwrap();
    let mut redaction = redact::Redaction {
        sender: bob,
        target,
        content: object(json!({})),
        of: redact::RedactsOf::All,
    };
    let refused = redact::redact(&rooms, &room, &redaction, None).await.unwrap_err();
    assert!(matches!(refused, redact::RedactError::NotAllowed), "{refused}");
    redaction.sender = alice;
    redact::redact(&rooms, &room, &redaction, None).await.unwrap();
    redaction.target = ruma::owned_event_id!("$unknown");
    let refused = redact::redact(&rooms, &room, &redaction, None).await.unwrap_err();
    assert!(matches!(refused, redact::RedactError::UnknownEvent(_)), "{refused}");
}
