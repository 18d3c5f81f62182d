//! Registering by command, without a restart, and registrations that cannot be used.

use millrace_test_support::TestService;
use serde_json::json;

use super::world::{IRC, V3, World};

const ADMIN: &str = "/_millrace/admin/v1/appservices";

#[tokio::test]
async fn a_service_comes_and_goes_while_the_server_runs() {
    let irc = TestService::start("irc").await;
    let world = World::new(&[]).await;
    let root = world.server.register_admin("root").await;
    let room = world.room(json!({ "preset": "public_chat" })).await;
    world.say(&room, "before").await;
    let body = json!({ "registration": irc.registration(IRC) });
    world.alice.post(ADMIN, body.clone()).await.refused(403, "M_FORBIDDEN");
    let answer = root.post(ADMIN, body.clone()).await.ok();
    assert_eq!(answer, json!({ "id": "irc", "sender": "@irc-bot:test" }));
    world.join(&irc, "@irc_a:test", &room).await;
    world.say(&room, "hello").await;
    irc.until_told("hello").await;
    assert_eq!(irc.texts(), ["hello"]);
    // It is there after a restart too.
    let world = world.restarted().await;
    let root = root.on(&world.server);
    world.say(&room, "again").await;
    irc.until_told("again").await;
    let listed = root.get(ADMIN).await.ok();
    let shown = &listed["appservices"][0];
    assert_eq!((&shown["id"], &shown["failures"]), (&json!("irc"), &json!(0)));
    // Changed in place: it goes on where it was.
    root.post(ADMIN, body).await.ok();
    world.say(&room, "changed").await;
    irc.until_told("changed").await;
    root.delete(&format!("{ADMIN}/irc"), json!({})).await.ok();
    root.delete(&format!("{ADMIN}/irc"), json!({})).await.refused(404, "M_NOT_FOUND");
    let who = world.client(&irc).get(&format!("{V3}/account/whoami")).await;
    who.refused(401, "M_UNKNOWN_TOKEN");
    world.say(&room, "gone").await;
    assert_eq!(irc.texts(), ["hello", "again", "changed"]);
}

#[tokio::test]
async fn what_cannot_be_is_refused_with_what_to_do() {
    let irc = TestService::start("irc").await;
    let world = World::new(&[irc.registration(IRC)]).await;
    let root = world.server.register_admin("root").await;
    let other = TestService::start("other").await;
    let refused = async |text: String, status: u16, words: &str| {
        let answer = root.post(ADMIN, json!({ "registration": text })).await;
        assert_eq!(answer.status, status, "{}", answer.body);
        let error = answer.body["error"].as_str().unwrap();
        assert!(error.contains(words), "{error}");
    };
    refused("id: [".to_owned(), 400, "line ").await;
    refused(other.registration("namespaces: {users: [{regex: '('}]}"), 400, "unclosed group").await;
    refused(irc.registration(IRC), 409, "remove it there").await;
    let overlaps = "namespaces: {users: [{exclusive: true, regex: '@irc_libera_.*'}]}";
    refused(other.registration(overlaps), 409, "overlaps").await;
    let token = other.registration("").replace("as-token-of-other", &irc.token());
    refused(token, 409, "generate another token").await;
    root.delete(&format!("{ADMIN}/irc"), json!({})).await.refused(409, "M_UNKNOWN");
}
