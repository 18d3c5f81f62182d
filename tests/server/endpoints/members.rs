//! Who is in rooms: joining, inviting, knocking, leaving, kicking, banning.

use serde_json::{Value, json};

use super::{
    cases,
    world::{User, World, text},
};

cases! {
    joinRoomById(w) {
        w.root.post(&w.in_room("join"), json!({})).await.ok();
        assert_eq!(membership(w, &w.root).await, "join");
        w.root.post("rooms/!none:test/join", json!({})).await.refused(404, "M_NOT_FOUND");
    }
    joinRoom(w) {
        w.root.post(&format!("join/{}", w.room), json!({})).await.ok();
        assert_eq!(membership(w, &w.root).await, "join");
        w.root.post("join/%23none:test", json!({})).await.refused(404, "M_NOT_FOUND");
    }
    inviteUser(w) {
        let invite = json!({"user_id": w.root.id()});
        w.alice.post(&w.in_room("invite"), invite.clone()).await.ok();
        let sync = w.synced(&w.root).await;
        assert!(sync["rooms"]["invite"][&w.room].is_object(), "{sync}");
        w.nobody.post(&w.in_room("invite"), invite).await.refused(401, "M_MISSING_TOKEN");
        let again = json!({"user_id": w.bob.id()});
        w.alice.post(&w.in_room("invite"), again).await.refused(403, "M_FORBIDDEN");
    }
    inviteBy3PID(w) {
        let body = json!({
            "medium": "email", "address": "bob@example.org", "id_server": "id.example",
            "id_access_token": "token",
        });
        w.root.post(&w.in_room("invite"), body.clone()).await.refused(403, "M_FORBIDDEN");
        w.alice.post(&w.in_room("invite"), body).await.ok();
        let state = w.alice.get(&w.in_room("state/m.room.third_party_invite/t0ken")).await.ok();
        assert_eq!(state["display_name"], "b...@e...");
    }
    knockRoom(w) {
        w.alice.put(&w.in_room("state/m.room.join_rules/"), json!({"join_rule": "knock"}))
            .await.ok();
        w.root.post(&format!("knock/{}", w.room), json!({"reason": "please"})).await.ok();
        assert_eq!(membership(w, &w.root).await, "knock");
        w.bob.post(&format!("knock/{}", w.room), json!({})).await.refused(403, "M_FORBIDDEN");
    }
    leaveRoom(w) {
        w.bob.post(&w.in_room("leave"), json!({})).await.ok();
        assert_eq!(membership(w, &w.bob).await, "leave");
        w.root.post(&w.in_room("leave"), json!({})).await.refused(403, "M_FORBIDDEN");
    }
    forgetRoom(w) {
        w.bob.post(&w.in_room("forget"), json!({})).await.refused(400, "M_UNKNOWN");
        w.bob.post(&w.in_room("leave"), json!({})).await.ok();
        w.bob.post(&w.in_room("forget"), json!({})).await.ok();
        w.bob.get(&w.in_room("messages?dir=b")).await.refused(403, "M_FORBIDDEN");
    }
    kick(w) {
        let body = json!({"user_id": w.bob.id(), "reason": "noise"});
        w.bob.post(&w.in_room("kick"), json!({"user_id": w.alice.id()})).await
            .refused(403, "M_FORBIDDEN");
        w.alice.post(&w.in_room("kick"), body).await.ok();
        assert_eq!(membership(w, &w.bob).await, "leave");
    }
    ban(w) {
        let body = json!({"user_id": w.bob.id()});
        w.bob.post(&w.in_room("ban"), json!({"user_id": w.alice.id()})).await
            .refused(403, "M_FORBIDDEN");
        w.alice.post(&w.in_room("ban"), body).await.ok();
        assert_eq!(membership(w, &w.bob).await, "ban");
    }
    unban(w) {
        let body = json!({"user_id": w.bob.id()});
        w.alice.post(&w.in_room("unban"), body.clone()).await.refused(403, "M_BAD_STATE");
        w.alice.post(&w.in_room("ban"), body.clone()).await.ok();
        w.alice.post(&w.in_room("unban"), body).await.ok();
        assert_eq!(membership(w, &w.bob).await, "leave");
    }
    getJoinedRooms(w) {
        assert_eq!(w.bob.get("joined_rooms").await.ok(), json!({"joined_rooms": [w.room]}));
        w.nobody.get("joined_rooms").await.refused(401, "M_MISSING_TOKEN");
    }
    getMembersByRoom(w) {
        let members = w.alice.get(&w.in_room("members")).await.ok();
        assert_eq!(members["chunk"].as_array().map(Vec::len), Some(2));
        w.root.get("rooms/!none:test/members").await.refused(403, "M_FORBIDDEN");
    }
    getJoinedMembersByRoom(w) {
        let members = w.alice.get(&w.in_room("joined_members")).await.ok();
        assert_eq!(members["joined"][w.bob.id()]["display_name"], "bob");
        w.root.get(&w.in_room("joined_members")).await.refused(403, "M_FORBIDDEN");
    }
}

/// What alice sees of somebody's membership.
async fn membership(w: &World, user: &User) -> String {
    let state: Value =
        w.alice.get(&w.in_room(&format!("state/m.room.member/{}", user.id()))).await.ok();
    text(&state["membership"]).to_owned()
}
