//! What a server says of itself, and small services that it offers.

use serde_json::{Value, json};

use super::{
    cases,
    world::{World, text},
};

cases! {
    getVersions(w) {
        let versions = w.nobody.get("/_matrix/client/versions").await.ok();
        assert!(versions["versions"].as_array().is_some_and(|all| all.contains(&json!("v1.19"))));
        // Nothing is asked here that could be refused, but that the method must be right.
        let log = w.nobody.post("/_matrix/client/v3/capabilities", json!({})).await;
        log.refused(405, "M_UNRECOGNIZED");
        w.nobody.get("/_matrix/client/versions?access_token=").await.ok();
    }
    getWellknown(w) {
        let found = w.nobody.get("/.well-known/matrix/client").await.ok();
        assert_eq!(found["m.homeserver"]["base_url"], "https://test");
        let bare = World::bare().await;
        bare.nobody.get("/.well-known/matrix/client").await.refused(404, "M_NOT_FOUND");
        w.adopt(&bare);
    }
    getWellknownSupport(w) {
        let found = w.nobody.get("/.well-known/matrix/support").await.ok();
        assert_eq!(found["contacts"][0]["email_address"], "help@test");
        let bare = World::bare().await;
        bare.nobody.get("/.well-known/matrix/support").await.refused(404, "M_NOT_FOUND");
        w.adopt(&bare);
    }
    getWellknownPolicy(w) {
        let found = w.nobody.get("/.well-known/matrix/policy_server").await.ok();
        assert_eq!(found["public_keys"]["ed25519"], "6yhHGKhCiXTSEN2ksjV7kX/N6rBQZ3Xb+M7LlC6NS+s");
        let bare = World::bare().await;
        bare.nobody.get("/.well-known/matrix/policy_server").await.refused(404, "M_NOT_FOUND");
        w.adopt(&bare);
    }
    getCapabilities(w) {
        let found = w.alice.get("capabilities").await.ok();
        let versions = &found["capabilities"]["m.room_versions"];
        assert_eq!(versions["available"][text(&versions["default"])], "stable");
        w.nobody.get("capabilities").await.refused(401, "M_MISSING_TOKEN");
    }
    getTurnServer(w) {
        let found = w.alice.get("voip/turnServer").await.ok();
        assert_eq!(found["uris"], json!(["turn:turn.test"]));
        assert!(text(&found["username"]).ends_with(w.alice.id()), "{found}");
        w.nobody.get("voip/turnServer").await.refused(401, "M_MISSING_TOKEN");
    }
    getProtocols(w) {
        assert_eq!(w.alice.get("thirdparty/protocols").await.ok(), json!({}));
        w.nobody.get("thirdparty/protocols").await.refused(401, "M_MISSING_TOKEN");
    }
    getWhoIs(w) {
        let found = w.root.get(&format!("admin/whois/{}", w.alice.id())).await.ok();
        assert!(found["devices"][w.alice.device()].is_object(), "{found}");
        w.bob.get(&format!("admin/whois/{}", w.alice.id())).await.refused(403, "M_FORBIDDEN");
    }
    getAdminSuspendUser(w) {
        let path = format!("/_matrix/client/v1/admin/suspend/{}", w.alice.id());
        assert_eq!(w.root.get(&path).await.ok(), json!({"suspended": false}));
        w.alice.get(&path).await.refused(403, "M_FORBIDDEN");
    }
    setAdminSuspendUser(w) {
        let path = format!("/_matrix/client/v1/admin/suspend/{}", w.alice.id());
        w.root.put(&path, json!({"suspended": true})).await.ok();
        w.alice.put(&w.in_room("send/m.room.message/1"), json!({})).await
            .refused(403, "M_USER_SUSPENDED");
        w.bob.put(&path, json!({"suspended": false})).await.refused(403, "M_FORBIDDEN");
    }
    getAdminLockUser(w) {
        let path = format!("/_matrix/client/v1/admin/lock/{}", w.alice.id());
        assert_eq!(w.root.get(&path).await.ok(), json!({"locked": false}));
        let path = "/_matrix/client/v1/admin/lock/@nobody:test";
        w.root.get(path).await.refused(404, "M_NOT_FOUND");
    }
    setAdminLockUser(w) {
        let path = format!("/_matrix/client/v1/admin/lock/{}", w.alice.id());
        w.root.put(&path, json!({"locked": true})).await.ok();
        w.alice.get("sync").await.refused(401, "M_USER_LOCKED");
        w.bob.put(&path, json!({"locked": true})).await.refused(403, "M_FORBIDDEN");
    }
    pingAppservice(w) {
        let path = "/_matrix/client/v1/appservice/irc/ping";
        w.bridge.post(path, json!({"transaction_id": "1"})).await.ok();
        assert!(w.service.asked().contains(&"POST /_matrix/app/v1/ping".to_owned()));
        w.alice.post(path, json!({})).await.refused(403, "M_FORBIDDEN");
    }
    updateAppserviceRoomDirectoryVisibility(w) {
        let path = format!("directory/list/appservice/libera/{}", w.room);
        w.bridge.put(&path, json!({"visibility": "public"})).await.ok();
        let asked = json!({"third_party_instance_id": "irc|libera"});
        let found = w.alice.post("publicRooms", asked).await.ok();
        assert_eq!(found["chunk"][0]["room_id"], w.room.as_str());
        w.alice.put(&path, json!({"visibility": "public"})).await.refused(403, "M_FORBIDDEN");
    }
    getMutualRooms(w) {
        let path = "/_matrix/client/v1/mutual_rooms";
        let found = w.alice.get(&format!("{path}?user_id={}", w.bob.id())).await.ok();
        assert_eq!(found, json!({"joined": [w.room], "count": 1}));
        let own = w.alice.get(&format!("{path}?user_id={}", w.alice.id())).await;
        own.refused(400, "M_INVALID_PARAM");
    }
    searchUserDirectory(w) {
        let found = w.alice.post("user_directory/search", json!({"search_term": "bob"})).await.ok();
        assert_eq!(found["results"][0]["user_id"], w.bob.id());
        w.alice.post("user_directory/search", json!({})).await.refused(400, "M_BAD_JSON");
    }
    requestOpenIdToken(w) {
        let path = w.of_alice("openid/request_token");
        let token = w.alice.post(&path, json!({})).await.ok();
        let path = format!("/_matrix/federation/v1/openid/userinfo?access_token={}",
            text(&token["access_token"]));
        assert_eq!(w.nobody.get(&path).await.ok()["sub"], w.alice.id());
        w.bob.post(&w.of_alice("openid/request_token"), json!({})).await
            .refused(403, "M_FORBIDDEN");
    }
    getProtocolMetadata(w) { none_found(w, "protocol/irc", "protocol/irc").await; }
    queryLocationByProtocol(w) { none_found(w, "location/irc", "location/irc").await; }
    queryUserByProtocol(w) { none_found(w, "user/irc", "user/irc").await; }
    queryLocationByAlias(w) { none_found(w, "location?alias=%23a:test", "location").await; }
    queryUserByID(w) { none_found(w, "user?userid=@alice:test", "user").await; }
}

/// A server without bridges finds nothing in any network.
async fn none_found(w: &World, path: &str, bare: &str) {
    assert_eq!(w.alice.get("thirdparty/protocols").await.ok(), Value::Object(Default::default()));
    w.alice.get(&format!("thirdparty/{path}")).await.refused(404, "M_NOT_FOUND");
    w.nobody.get(&format!("thirdparty/{bare}")).await.refused(401, "M_MISSING_TOKEN");
}
