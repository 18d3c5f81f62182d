//! What administrators decide about accounts and tell users, and what users may have of the server:
//! an export of what it holds of them, and that it forgets them.

use http::{Method, Request, header};
use millrace_test_support::{Client, TestServer};
use serde_json::{Value, json};

const V3: &str = "/_matrix/client/v3";
const ADMIN: &str = "/_matrix/client/v1/admin";

async fn room_of(client: &Client) -> String {
    let body = json!({"preset": "public_chat"});
    let room = client.post(&format!("{V3}/createRoom"), body).await.ok();
    room["room_id"].as_str().expect("an ID").to_owned()
}

async fn say(client: &Client, room: &str, text: &str) -> millrace_test_support::Answer {
    let path = format!("{V3}/rooms/{room}/send/m.room.message/{text}");
    client.put(&path, json!({"msgtype": "m.text", "body": text})).await
}

fn password_login(user: &str) -> Value {
    let identifier = json!({"type": "m.id.user", "user": user});
    json!({"type": "m.login.password", "identifier": identifier, "password": "password"})
}

#[tokio::test]
async fn a_suspended_user_reads_leaves_and_redacts_and_does_nothing_that_others_see() {
    let server = TestServer::start().await;
    let (root, alice) = (server.register_admin("root").await, server.register("alice").await);
    let room = room_of(&alice).await;
    let own = say(&alice, &room, "mine").await.ok()["event_id"].clone();
    let other = room_of(&root).await;
    root.post(&format!("{V3}/rooms/{room}/join"), json!({})).await.ok();
    let theirs = say(&root, &room, "theirs").await.ok()["event_id"].clone();
    let (own, theirs) = (own.as_str().expect("an ID"), theirs.as_str().expect("an ID"));
    let path = format!("{ADMIN}/suspend/{}", alice.user());
    let suspended = json!({"suspended": true});
    assert_eq!(root.put(&path, suspended.clone()).await.ok(), suspended);
    assert_eq!(root.get(&path).await.ok(), suspended);

    say(&alice, &room, "more").await.refused(403, "M_USER_SUSPENDED");
    let name = format!("{V3}/profile/{}/displayname", alice.user());
    alice.put(&name, json!({"displayname": "x"})).await.refused(403, "M_USER_SUSPENDED");
    let join = alice.post(&format!("{V3}/rooms/{other}/join"), json!({})).await;
    join.refused(403, "M_USER_SUSPENDED");
    let redact = |event: &str| format!("{V3}/rooms/{room}/redact/{event}/{event}");
    alice.put(&redact(theirs), json!({})).await.refused(403, "M_USER_SUSPENDED");
    alice.put(&redact(own), json!({})).await.ok();
    let sent = format!("{V3}/rooms/{room}/send/m.room.redaction/1");
    alice.put(&sent, json!({"redacts": theirs})).await.refused(403, "M_USER_SUSPENDED");
    // A new session is suspended too.
    let login = server.client().post(&format!("{V3}/login"), password_login("alice")).await.ok();
    let again = server.client().with_session(&login);
    say(&again, &room, "more").await.refused(403, "M_USER_SUSPENDED");
    alice.get(&format!("{V3}/rooms/{room}/messages?dir=b")).await.ok();
    alice.post(&format!("{V3}/rooms/{room}/leave"), json!({})).await.ok();

    root.put(&path, json!({"suspended": false})).await.ok();
    alice.post(&format!("{V3}/rooms/{other}/join"), json!({})).await.ok();
    say(&again, &other, "back").await.ok();
}

#[tokio::test]
async fn a_locked_account_can_only_log_out_until_it_is_unlocked() {
    let server = TestServer::start().await;
    let (root, alice) = (server.register_admin("root").await, server.register("alice").await);
    let path = format!("{ADMIN}/lock/{}", alice.user());
    assert_eq!(root.get(&path).await.ok(), json!({"locked": false}));
    root.put(&path, json!({"locked": true})).await.ok();
    assert_eq!(root.get(&path).await.ok(), json!({"locked": true}));
    let refused = alice.get(&format!("{V3}/sync")).await;
    refused.refused(401, "M_USER_LOCKED");
    assert_eq!(refused.body["soft_logout"], true);
    let login = server.client().post(&format!("{V3}/login"), password_login("alice")).await;
    login.refused(401, "M_USER_LOCKED");
    root.put(&path, json!({"locked": false})).await.ok();
    alice.get(&format!("{V3}/sync")).await.ok();
    root.put(&path, json!({"locked": true})).await.ok();
    alice.post(&format!("{V3}/logout"), json!({})).await.ok();
    alice.get(&format!("{V3}/sync")).await.refused(401, "M_UNKNOWN_TOKEN");
}

#[tokio::test]
async fn only_administrators_moderate_and_only_others_than_administrators() {
    let server = TestServer::start().await;
    let (root, alice) = (server.register_admin("root").await, server.register("alice").await);
    let second = server.register_admin("second").await;
    for (kind, field) in [("suspend", "suspended"), ("lock", "locked")] {
        let on = json!({field: true});
        let path = |user: &str| format!("{ADMIN}/{kind}/{user}");
        for user in ["@alice:test", "@nobody:test", "@bob:elsewhere"] {
            alice.put(&path(user), on.clone()).await.refused(403, "M_FORBIDDEN");
            alice.get(&path(user)).await.refused(403, "M_FORBIDDEN");
        }
        for user in [root.user(), second.user()] {
            root.put(&path(user.as_str()), on.clone()).await.refused(403, "M_FORBIDDEN");
        }
        root.get(&path("@second:test")).await.refused(403, "M_FORBIDDEN");
        root.put(&path("@nobody:test"), on.clone()).await.refused(404, "M_NOT_FOUND");
        root.get(&path("@nobody:test")).await.refused(404, "M_NOT_FOUND");
        root.put(&path("@bob:elsewhere"), on.clone()).await.refused(400, "M_INVALID_PARAM");
        root.put(&path("@alice:test"), json!({})).await.refused(400, "M_BAD_JSON");
    }
    let capabilities = |client: Client| async move {
        client.get(&format!("{V3}/capabilities")).await.ok()["capabilities"]["m.account_moderation"]
            .clone()
    };
    assert_eq!(capabilities(root).await, json!({"suspend": true, "lock": true}));
    assert_eq!(capabilities(alice).await, Value::Null);
}

#[tokio::test]
async fn whois_tells_users_and_administrators_where_a_session_was_last_seen() {
    let server = TestServer::start().await;
    let (root, alice) = (server.register_admin("root").await, server.register("alice").await);
    let path = format!("{V3}/admin/whois/{}", alice.user());
    let request = Request::builder().method(Method::GET).uri(&path);
    let request = request.header(header::USER_AGENT, "Test/1.0");
    let token = alice.token();
    let request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
    let found = alice.request(request.body(axum::body::Body::empty()).expect("a request")).await;
    let found = found.ok();
    let connection = &found["devices"][alice.device()]["sessions"][0]["connections"][0];
    assert_eq!(connection["user_agent"], "Test/1.0");
    assert!(connection["last_seen"].is_u64() && connection["ip"].is_string(), "{connection}");
    assert_eq!(root.get(&path).await.ok()["user_id"], alice.user().as_str());
    let of_root = format!("{V3}/admin/whois/{}", root.user());
    alice.get(&of_root).await.refused(403, "M_FORBIDDEN");
    root.get(&format!("{V3}/admin/whois/@nobody:test")).await.refused(404, "M_NOT_FOUND");
}

#[tokio::test]
async fn a_notice_of_the_server_reaches_a_user_in_a_room_of_its_own() {
    const NOTICE: &str = "/_synapse/admin/v1/send_server_notice";
    let mut config = TestServer::config();
    config.server_notices.localpart = Some("server".to_owned());
    let server = TestServer::start_with(&config).await;
    let (root, alice) = (server.register_admin("root").await, server.register("alice").await);
    // Who wants no invitations is told all the same.
    let path = format!("{V3}/user/{}/account_data/m.invite_permission_config", alice.user());
    alice.put(&path, json!({"default_action": "block"})).await.ok();
    let notice = |body: &str| {
        let content = json!({"msgtype": "m.text", "body": body});
        json!({"user_id": alice.user(), "content": content})
    };
    alice.post(NOTICE, notice("x")).await.refused(403, "M_FORBIDDEN");
    root.post(NOTICE, json!({"user_id": "@no:test", "content": {}}))
        .await
        .refused(404, "M_NOT_FOUND");
    let sent = root.put(&format!("{NOTICE}/1"), notice("first")).await.ok();
    assert_eq!(root.put(&format!("{NOTICE}/1"), notice("first")).await.ok(), sent);
    let sync = alice.get(&format!("{V3}/sync")).await.ok();
    let invited = sync["rooms"]["invite"].as_object().expect("an invitation");
    let room = invited.keys().next().expect("one room").clone();
    let leave = alice.post(&format!("{V3}/rooms/{room}/leave"), json!({})).await;
    leave.refused(403, "M_CANNOT_LEAVE_SERVER_NOTICE_ROOM");
    alice.post(&format!("{V3}/rooms/{room}/join"), json!({})).await.ok();
    root.post(NOTICE, notice("second")).await.ok();
    let sync = alice.get(&format!("{V3}/sync")).await.ok();
    let joined = &sync["rooms"]["join"][&room];
    let tags = &joined["account_data"]["events"][0];
    assert_eq!(tags["content"]["tags"], json!({"m.server_notice": {}}), "{joined}");
    let timeline = joined["timeline"]["events"].as_array().expect("a list");
    let said = timeline.iter().filter_map(|event| event["content"]["body"].as_str());
    assert_eq!(said.collect::<Vec<_>>(), ["first", "second"]);
    assert_eq!(timeline.last().expect("an event")["sender"], "@server:test");
    say(&alice, &room, "thanks").await.refused(403, "M_FORBIDDEN");
    // Nobody else can have the sender's name.
    let body = json!({"username": "server", "password": "p", "auth": {"type": "m.login.dummy"}});
    server.client().post(&format!("{V3}/register"), body).await.refused(400, "M_USER_IN_USE");
    let without = TestServer::start().await;
    let root = without.register_admin("root").await;
    root.post(NOTICE, notice("x")).await.refused(400, "M_UNKNOWN");
}

/// The lines of an export of these kinds.
fn lines<'a>(export: &'a [Value], kind: &str) -> Vec<&'a Value> {
    export.iter().filter(|line| line["kind"] == kind).map(|line| &line["data"]).collect()
}

async fn export(client: &Client, user: &str) -> Vec<Value> {
    let path = format!("/_millrace/admin/v1/users/{user}/export");
    let text = client.text(&path).await;
    text.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
}

/// What is kept for a user beside rooms.
struct Kept {
    medium: String,
    backup: String,
}

async fn keep_secrets(client: &Client) -> Kept {
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let uploaded = client.post("/_matrix/media/v3/upload", json!({"my": "file"})).await.ok();
    let body = json!({
        "algorithm": "m.megolm_backup.v1.curve25519-aes-sha2",
        "auth_data": {"public_key": "abc"},
    });
    let made = client.post(&format!("{V3}/room_keys/version"), body).await.ok();
    let kept = Kept { medium: text(&uploaded["content_uri"]), backup: text(&made["version"]) };
    let path = format!("{V3}/room_keys/keys/!room:test/session?version={}", kept.backup);
    let key = json!({
        "first_message_index": 0, "forwarded_count": 0, "is_verified": false,
        "session_data": {"ciphertext": "x"},
    });
    client.put(&path, key).await.ok();
    kept
}

#[tokio::test]
async fn an_export_has_what_the_server_holds_of_a_user_and_nothing_of_others() {
    let server = TestServer::start().await;
    let (root, alice) = (server.register_admin("root").await, server.register("alice").await);
    let room = room_of(&root).await;
    alice.post(&format!("{V3}/rooms/{room}/join"), json!({})).await.ok();
    let mine = say(&alice, &room, "mine").await.ok()["event_id"].clone();
    say(&root, &room, "theirs").await.ok();
    let path = format!("{V3}/rooms/{room}/receipt/m.read/{}", mine.as_str().expect("an ID"));
    alice.post(&path, json!({})).await.ok();
    let path = format!("{V3}/user/{}/account_data/org.example", alice.user());
    alice.put(&path, json!({"kept": true})).await.ok();
    let path = format!("{V3}/rooms/{room}/report");
    alice.post(&path, json!({"reason": "noise"})).await.ok();
    let kept = keep_secrets(&alice).await;

    let found = export(&root, "@alice:test").await;
    assert_eq!(export(&alice, "@alice:test").await, found, "users may have it themselves");
    assert_eq!(lines(&found, "account")[0]["user_id"], "@alice:test");
    assert_eq!(*lines(&found, "profile")[0], json!({"field": "displayname", "value": "alice"}));
    assert_eq!(lines(&found, "device")[0]["device_id"], alice.device());
    assert_eq!(lines(&found, "account_data")[0]["content"], json!({"kept": true}));
    assert_eq!(lines(&found, "room")[0]["room_id"], room.as_str());
    assert_eq!(lines(&found, "receipt")[0]["event_id"], mine);
    assert_eq!(lines(&found, "report")[0]["reason"], "noise");
    let events = lines(&found, "event");
    assert!(events.iter().all(|event| event["sender"] == "@alice:test"));
    let said = events.iter().filter_map(|event| event["content"]["body"].as_str());
    assert_eq!(said.collect::<Vec<_>>(), ["mine"]);
    assert_eq!(lines(&found, "media")[0]["uri"], kept.medium.as_str());
    assert_eq!(lines(&found, "media_content")[0]["base64"], "eyJteSI6ImZpbGUifQ==");
    assert_eq!(lines(&found, "backup")[0]["version"], kept.backup.as_str());
    assert_eq!(lines(&found, "backed_up_key")[0]["session_id"], "session");
    assert_eq!(lines(&found, "end").len(), 1);
    let path = |user: &str| format!("/_millrace/admin/v1/users/{user}/export");
    alice.get(&path("@root:test")).await.refused(403, "M_FORBIDDEN");
    root.get(&path("@nobody:test")).await.refused(404, "M_NOT_FOUND");
}

#[tokio::test]
async fn who_is_erased_leaves_nothing_but_what_others_have_read() {
    let server = TestServer::start().await;
    let (root, alice) = (server.register_admin("root").await, server.register("alice").await);
    let room = room_of(&root).await;
    alice.post(&format!("{V3}/rooms/{room}/join"), json!({})).await.ok();
    let said = say(&alice, &room, "mine").await.ok()["event_id"].clone();
    let said = said.as_str().expect("an ID").to_owned();
    alice.post(&format!("{V3}/rooms/{room}/receipt/m.read/{said}"), json!({})).await.ok();
    let path = format!("{V3}/user/{}/account_data/org.example", alice.user());
    alice.put(&path, json!({"kept": true})).await.ok();
    let kept = keep_secrets(&alice).await;
    let auth = password_login("alice");
    let body = json!({"auth": auth, "erase": true});
    alice.post(&format!("{V3}/account/deactivate"), body).await.ok();
    let carol = server.register("carol").await;
    carol.post(&format!("{V3}/rooms/{room}/join"), json!({})).await.ok();
    // The rest is deleted behind the answer.
    let mut found = export(&root, "@alice:test").await;
    for _ in 0..1000 {
        let gone = ["receipt", "backup"].iter().all(|kind| lines(&found, kind).is_empty());
        if gone && lines(&found, "room")[0]["membership"] == "leave" {
            break;
        }
        tokio::task::yield_now().await;
        found = export(&root, "@alice:test").await;
    }
    for kind in [
        "profile",
        "device",
        "account_data",
        "filter",
        "receipt",
        "pusher",
        "media",
        "media_content",
        "backup",
        "backed_up_key",
        "device_keys",
    ] {
        assert!(lines(&found, kind).is_empty(), "{kind}: {found:?}");
    }
    let medium = kept.medium.replace("mxc://", "");
    let path = format!("/_matrix/client/v1/media/download/{medium}");
    root.get(&path).await.refused(404, "M_NOT_FOUND");
    let path = format!("{V3}/rooms/{room}/event/{said}");
    assert_eq!(root.get(&path).await.ok()["content"]["body"], "mine", "who was there keeps it");
    assert_eq!(carol.get(&path).await.ok()["content"], json!({}), "others see it redacted");
    alice.get(&format!("{V3}/sync")).await.refused(401, "M_UNKNOWN_TOKEN");
    assert_eq!(root.get(&format!("{V3}/profile/@alice:test")).await.ok(), json!({}));
}
