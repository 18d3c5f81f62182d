//! What belongs to users: account data, tags, filters, profiles, receipts, presence, push, devices'
//! messages.

use serde_json::{Value, json};

use super::{cases, world::text};

cases! {
    setAccountData(w) {
        let path = w.of_alice("account_data/org.example");
        w.alice.put(&path, json!({"a": 1})).await.ok();
        assert_eq!(w.alice.get(&path).await.ok(), json!({"a": 1}));
        w.bob.put(&path, json!({})).await.refused(403, "M_FORBIDDEN");
    }
    getAccountData(w) {
        let path = w.of_alice("account_data/org.example");
        w.alice.get(&path).await.refused(404, "M_NOT_FOUND");
        w.alice.put(&path, json!({"a": 1})).await.ok();
        assert_eq!(w.alice.get(&path).await.ok(), json!({"a": 1}));
    }
    setAccountDataPerRoom(w) {
        let path = w.of_alice(&w.in_room("account_data/org.example"));
        w.alice.put(&path, json!({"a": 1})).await.ok();
        assert_eq!(w.alice.get(&path).await.ok(), json!({"a": 1}));
        w.bob.put(&path, json!({})).await.refused(403, "M_FORBIDDEN");
    }
    getAccountDataPerRoom(w) {
        let path = w.of_alice(&w.in_room("account_data/org.example"));
        w.alice.get(&path).await.refused(404, "M_NOT_FOUND");
        w.alice.put(&path, json!({"a": 1})).await.ok();
        assert_eq!(w.alice.get(&path).await.ok(), json!({"a": 1}));
    }
    getRoomTags(w) {
        let tags = w.of_alice(&w.in_room("tags"));
        w.alice.put(&format!("{tags}/u.a"), json!({"order": 0.5})).await.ok();
        assert_eq!(w.alice.get(&tags).await.ok(), json!({"tags": {"u.a": {"order": 0.5}}}));
        w.bob.get(&tags).await.refused(403, "M_FORBIDDEN");
    }
    setRoomTag(w) {
        let tags = w.of_alice(&w.in_room("tags"));
        w.alice.put(&format!("{tags}/u.a"), json!({})).await.ok();
        assert_eq!(w.alice.get(&tags).await.ok(), json!({"tags": {"u.a": {}}}));
        w.bob.put(&format!("{tags}/u.a"), json!({})).await.refused(403, "M_FORBIDDEN");
    }
    deleteRoomTag(w) {
        let tags = w.of_alice(&w.in_room("tags"));
        w.alice.put(&format!("{tags}/u.a"), json!({})).await.ok();
        w.alice.delete(&format!("{tags}/u.a"), json!({})).await.ok();
        assert_eq!(w.alice.get(&tags).await.ok(), json!({"tags": {}}));
        w.bob.delete(&format!("{tags}/u.a"), json!({})).await.refused(403, "M_FORBIDDEN");
    }
    defineFilter(w) {
        let filter = json!({"room": {"timeline": {"limit": 3}}});
        let id = w.alice.post(&w.of_alice("filter"), filter.clone()).await.ok();
        let path = w.of_alice(&format!("filter/{}", text(&id["filter_id"])));
        assert_eq!(w.alice.get(&path).await.ok(), filter);
        w.bob.post(&w.of_alice("filter"), filter).await.refused(403, "M_FORBIDDEN");
    }
    getFilter(w) {
        let id = w.alice.post(&w.of_alice("filter"), json!({})).await.ok();
        let path = w.of_alice(&format!("filter/{}", text(&id["filter_id"])));
        assert_eq!(w.alice.get(&path).await.ok(), json!({}));
        w.alice.get(&w.of_alice("filter/none")).await.refused(404, "M_NOT_FOUND");
    }
    setProfileField(w) {
        let path = format!("profile/{}/displayname", w.alice.id());
        w.alice.put(&path, json!({"displayname": "A"})).await.ok();
        assert_eq!(w.nobody.get(&path).await.ok(), json!({"displayname": "A"}));
        w.bob.put(&path, json!({"displayname": "B"})).await.refused(403, "M_FORBIDDEN");
    }
    getProfileField(w) {
        let path = format!("profile/{}/displayname", w.alice.id());
        assert_eq!(w.nobody.get(&path).await.ok(), json!({"displayname": "alice"}));
        w.nobody.get("profile/@none:test/displayname").await.refused(404, "M_NOT_FOUND");
    }
    deleteProfileField(w) {
        let path = format!("profile/{}/displayname", w.alice.id());
        w.bob.delete(&path, json!({})).await.refused(403, "M_FORBIDDEN");
        w.alice.delete(&path, json!({})).await.ok();
        w.nobody.get(&path).await.refused(404, "M_NOT_FOUND");
    }
    getUserProfile(w) {
        let found = w.nobody.get(&format!("profile/{}", w.alice.id())).await.ok();
        assert_eq!(found, json!({"displayname": "alice"}));
        w.nobody.get("profile/@none:test").await.refused(404, "M_NOT_FOUND");
    }
    setPresence(w) {
        let path = format!("presence/{}/status", w.alice.id());
        w.alice.put(&path, json!({"presence": "online", "status_msg": "here"})).await.ok();
        assert_eq!(w.bob.get(&path).await.ok()["status_msg"], "here");
        w.bob.put(&path, json!({"presence": "online"})).await.refused(403, "M_FORBIDDEN");
    }
    getPresence(w) {
        let path = format!("presence/{}/status", w.alice.id());
        w.alice.put(&path, json!({"presence": "unavailable"})).await.ok();
        assert_eq!(w.bob.get(&path).await.ok()["presence"], "unavailable");
        w.bob.get("presence/@none:test/status").await.refused(403, "M_FORBIDDEN");
    }
    setTyping(w) {
        let path = w.in_room(&format!("typing/{}", w.alice.id()));
        w.alice.put(&path, json!({"typing": true, "timeout": 30000})).await.ok();
        let sync = w.synced(&w.bob).await;
        let ephemeral = &sync["rooms"]["join"][&w.room]["ephemeral"]["events"];
        assert_eq!(ephemeral[0]["content"]["user_ids"], json!([w.alice.id()]), "{ephemeral}");
        w.bob.put(&path, json!({"typing": false})).await.refused(403, "M_FORBIDDEN");
    }
    postReceipt(w) {
        let event = w.say("x").await;
        w.bob.post(&w.in_room(&format!("receipt/m.read/{event}")), json!({})).await.ok();
        let sync = w.synced(&w.bob).await;
        let count = &sync["rooms"]["join"][&w.room]["unread_notifications"]["notification_count"];
        assert_eq!(*count, 0);
        let path = w.in_room(&format!("receipt/m.unknown/{event}"));
        w.bob.post(&path, json!({})).await.refused(400, "M_INVALID_PARAM");
    }
    setReadMarker(w) {
        let event = w.say("x").await;
        w.bob.post(&w.in_room("read_markers"), json!({"m.fully_read": event})).await.ok();
        let path = format!("user/{}/{}", w.bob.id(), w.in_room("account_data/m.fully_read"));
        assert_eq!(w.bob.get(&path).await.ok(), json!({"event_id": event}));
        w.root.post(&w.in_room("read_markers"), json!({"m.fully_read": event})).await
            .refused(403, "M_FORBIDDEN");
    }
    getPushers(w) {
        w.alice.post("pushers/set", pusher("http")).await.ok();
        assert_eq!(w.alice.get("pushers").await.ok()["pushers"][0]["pushkey"], "key");
        w.nobody.get("pushers").await.refused(401, "M_MISSING_TOKEN");
    }
    postPusher(w) {
        w.alice.post("pushers/set", pusher("http")).await.ok();
        assert_eq!(w.alice.get("pushers").await.ok()["pushers"][0]["app_id"], "app");
        w.alice.post("pushers/set", json!({"kind": "http"})).await.refused(400, "M_BAD_JSON");
    }
    getNotifications(w) {
        let event = w.say("x").await;
        let found = w.bob.get("notifications").await.ok();
        assert_eq!(found["notifications"][0]["event"]["event_id"], event.as_str());
        w.nobody.get("notifications").await.refused(401, "M_MISSING_TOKEN");
    }
    getPushRules(w) {
        w.alice.put(RULE, rule()).await.ok();
        let rules = w.alice.get("pushrules/").await.ok();
        assert_eq!(rules["global"]["content"][0]["rule_id"], "cake", "{rules}");
        w.nobody.get("pushrules/").await.refused(401, "M_MISSING_TOKEN");
    }
    getPushRulesGlobal(w) {
        w.alice.put(RULE, rule()).await.ok();
        assert_eq!(w.alice.get("pushrules/global/").await.ok()["content"][0]["rule_id"], "cake");
        w.nobody.get("pushrules/global/").await.refused(401, "M_MISSING_TOKEN");
    }
    getPushRule(w) {
        w.alice.get(RULE).await.refused(404, "M_NOT_FOUND");
        w.alice.put(RULE, rule()).await.ok();
        assert_eq!(w.alice.get(RULE).await.ok()["pattern"], "cake");
    }
    setPushRule(w) {
        w.alice.put(RULE, rule()).await.ok();
        assert_eq!(w.alice.get(RULE).await.ok()["actions"], json!(["notify"]));
        let server = "pushrules/global/content/.m.rule.x";
        w.alice.put(server, rule()).await.refused(400, "M_INVALID_PARAM");
    }
    deletePushRule(w) {
        w.alice.put(RULE, rule()).await.ok();
        w.alice.delete(RULE, json!({})).await.ok();
        w.alice.get(RULE).await.refused(404, "M_NOT_FOUND");
        w.alice.delete(RULE, json!({})).await.refused(404, "M_NOT_FOUND");
    }
    isPushRuleEnabled(w) {
        w.alice.put(RULE, rule()).await.ok();
        let found = w.alice.get(&format!("{RULE}/enabled")).await.ok();
        assert_eq!(found, json!({"enabled": true}));
        w.alice.get("pushrules/global/content/no/enabled").await.refused(404, "M_NOT_FOUND");
    }
    setPushRuleEnabled(w) {
        w.alice.put(RULE, rule()).await.ok();
        w.alice.put(&format!("{RULE}/enabled"), json!({"enabled": false})).await.ok();
        let found = w.alice.get(&format!("{RULE}/enabled")).await.ok();
        assert_eq!(found, json!({"enabled": false}));
        let path = "pushrules/global/content/no/enabled";
        w.alice.put(path, json!({"enabled": false})).await.refused(404, "M_NOT_FOUND");
    }
    getPushRuleActions(w) {
        w.alice.put(RULE, rule()).await.ok();
        let found = w.alice.get(&format!("{RULE}/actions")).await.ok();
        assert_eq!(found, json!({"actions": ["notify"]}));
        w.alice.get("pushrules/global/content/no/actions").await.refused(404, "M_NOT_FOUND");
    }
    setPushRuleActions(w) {
        w.alice.put(RULE, rule()).await.ok();
        w.alice.put(&format!("{RULE}/actions"), json!({"actions": []})).await.ok();
        let found = w.alice.get(&format!("{RULE}/actions")).await.ok();
        assert_eq!(found, json!({"actions": []}));
        let path = "pushrules/global/content/no/actions";
        w.alice.put(path, json!({"actions": []})).await.refused(404, "M_NOT_FOUND");
    }
    sendToDevice(w) {
        let messages = json!({w.bob.id(): {"*": {"secret": 1}}});
        w.alice.put("sendToDevice/org.example/1", json!({"messages": messages})).await.ok();
        let sync = w.synced(&w.bob).await;
        assert_eq!(sync["to_device"]["events"][0]["content"], json!({"secret": 1}));
        w.alice.put("sendToDevice/org.example/2", json!({})).await.refused(400, "M_BAD_JSON");
    }
    sync(w) {
        let event = w.say("x").await;
        let sync = w.synced(&w.bob).await;
        let timeline = &sync["rooms"]["join"][&w.room]["timeline"]["events"];
        let last = timeline.as_array().and_then(|events| events.last());
        assert_eq!(last.map(|last| &last["event_id"]), Some(&json!(event)));
        w.bob.get("sync?since=nonsense").await.refused(400, "M_INVALID_PARAM");
    }
}

const RULE: &str = "pushrules/global/content/cake";

fn rule() -> Value {
    json!({"actions": ["notify"], "pattern": "cake"})
}

fn pusher(kind: &str) -> Value {
    json!({
        "kind": kind, "app_id": "app", "pushkey": "key", "app_display_name": "App",
        "device_display_name": "Phone", "lang": "en",
        "data": {"url": "https://push.test/_matrix/push/v1/notify"},
    })
}
