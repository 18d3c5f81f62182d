//! Administration of media, as Synapse's tools do it.

use http::Method;
use image::ImageFormat;
use millrace_test_support::{Client, Network, TestServer};
use serde_json::{Value, json};

use super::{download, read, refused, thumbnails::picture, upload};

const ADMIN: &str = "/_synapse/admin/v1";

async fn post(client: &Client, path: &str) -> Value {
    client.post(&format!("{ADMIN}/{path}"), json!({})).await.ok()
}

fn id(medium: &str) -> &str {
    medium.split_once('/').unwrap().1
}

#[tokio::test]
async fn what_a_user_has_is_listed_the_newest_first_and_removed() {
    let server = TestServer::start().await;
    let (root, alice) = (server.register_admin("root").await, server.register("alice").await);
    let first = upload(&alice, "?filename=a.txt", "text/plain", "first").await;
    server.clock.advance(std::time::Duration::from_secs(1));
    let second = upload(&alice, "", "image/png", picture(10, 10, ImageFormat::Png)).await;
    let path = format!("{ADMIN}/users/@alice:test/media");
    let all = root.get(&path).await.ok();
    assert_eq!(all["total"], 2);
    let ids: Vec<_> = all["media"].as_array().unwrap().iter().map(|m| &m["media_id"]).collect();
    assert_eq!(ids, [id(&second), id(&first)]);
    assert_eq!(all["media"][1]["upload_name"], "a.txt");
    assert_eq!(
        (&all["media"][1]["media_type"], &all["media"][1]["media_length"]),
        (&json!("text/plain"), &json!(5))
    );
    let page = root.get(&format!("{path}?limit=1")).await.ok();
    assert_eq!((&page["media"][0]["media_id"], &page["next_token"]), (ids[0], &json!(1)));
    let page = root.get(&format!("{path}?limit=1&from=1")).await.ok();
    assert_eq!((&page["media"][0]["media_id"], &page["next_token"]), (ids[1], &Value::Null));
    let info = root.get(&format!("{ADMIN}/media/{first}")).await.ok();
    assert_eq!(info["media_info"]["user_id"], "@alice:test");

    let removed = root.delete(&format!("{ADMIN}/media/{first}"), json!({})).await.ok();
    assert_eq!(removed, json!({ "deleted_media": [id(&first)], "total": 1 }));
    refused(&download(&alice, &first).await, 404, "M_NOT_FOUND");
    let again = root.delete(&format!("{ADMIN}/media/{first}"), json!({})).await;
    again.refused(404, "M_NOT_FOUND");
    let removed = root.delete(&path, json!({})).await.ok();
    assert_eq!(removed, json!({ "deleted_media": [id(&second)], "total": 1 }));
    assert_eq!(root.get(&path).await.ok()["total"], 0);
}

#[tokio::test]
async fn what_is_quarantined_is_shown_to_nobody_until_it_is_given_back() {
    let server = TestServer::start().await;
    let (root, alice) = (server.register_admin("root").await, server.register("alice").await);
    let medium = upload(&alice, "", "image/png", picture(100, 100, ImageFormat::Png)).await;
    let small = format!("/_matrix/client/v1/media/thumbnail/{medium}?width=32&height=32");
    assert_eq!(read(&alice, &small, &[]).await.status(), 200);
    post(&root, &format!("media/quarantine/{medium}")).await;
    refused(&download(&alice, &medium).await, 404, "M_NOT_FOUND");
    refused(&read(&alice, &small, &[]).await, 404, "M_NOT_FOUND");
    let info = root.get(&format!("{ADMIN}/media/{medium}")).await.ok();
    assert_eq!(info["media_info"]["quarantined_by"], "@root:test");
    post(&root, &format!("media/unquarantine/{medium}")).await;
    assert_eq!(download(&alice, &medium).await.status(), 200);

    // All of a user's, but for what is protected.
    let good = upload(&alice, "", "text/plain", "good").await;
    post(&root, &format!("media/protect/{}", id(&good))).await;
    let done = post(&root, "user/@alice:test/media/quarantine").await;
    assert_eq!(done, json!({ "num_quarantined": 1 }));
    refused(&download(&alice, &medium).await, 404, "M_NOT_FOUND");
    assert_eq!(download(&alice, &good).await.status(), 200);
    post(&root, &format!("media/unprotect/{}", id(&good))).await;
    post(&root, "user/@alice:test/media/quarantine").await;
    refused(&download(&alice, &good).await, 404, "M_NOT_FOUND");
    let unknown = root.post(&format!("{ADMIN}/media/quarantine/test/none"), json!({})).await;
    unknown.refused(404, "M_NOT_FOUND");
}

#[tokio::test]
async fn all_media_of_a_room_are_quarantined_copies_too() {
    let network = Network::default();
    let one = TestServer::start_in(&network, "one").await;
    let two = TestServer::start_in(&network, "two").await;
    let (alice, far) = (one.register("alice").await, two.register("far").await);
    let root = one.register_admin("root").await;
    let image = upload(&alice, "", "text/plain", "image").await;
    let elsewhere = upload(&alice, "", "text/plain", "elsewhere").await;
    let good = upload(&alice, "", "text/plain", "good").await;
    let copy = upload(&far, "", "text/plain", "copy").await;
    for medium in [&image, &elsewhere, &copy] {
        assert_eq!(download(&alice, medium).await.status(), 200);
    }
    let room = alice.post("/_matrix/client/v3/createRoom", json!({})).await.ok();
    let room = room["room_id"].as_str().unwrap();
    for (n, medium) in [&image, &copy, &good].into_iter().enumerate() {
        let path = format!("/_matrix/client/v3/rooms/{room}/send/m.room.message/{n}");
        let content = json!({ "msgtype": "m.file", "body": "x", "url": format!("mxc://{medium}") });
        alice.put(&path, content).await.ok();
    }
    let listed = root.get(&format!("{ADMIN}/room/{room}/media")).await.ok();
    assert_eq!(listed["remote"], json!([format!("mxc://{copy}")]));
    assert_eq!(listed["local"].as_array().unwrap().len(), 2);
    post(&root, &format!("media/protect/{}", id(&good))).await;
    let done = post(&root, &format!("room/{room}/media/quarantine")).await;
    assert_eq!(done, json!({ "num_quarantined": 2 }));
    refused(&download(&alice, &image).await, 404, "M_NOT_FOUND");
    refused(&download(&alice, &copy).await, 404, "M_NOT_FOUND");
    assert_eq!(download(&alice, &good).await.status(), 200);
    assert_eq!(download(&alice, &elsewhere).await.status(), 200);
    let again = post(&root, &format!("room/{room}/media/quarantine")).await;
    assert_eq!(again, json!({ "num_quarantined": 0 }));
}

#[tokio::test]
async fn old_and_large_uploads_are_removed_but_for_avatars_and_what_is_protected() {
    let server = TestServer::start().await;
    let (root, alice) = (server.register_admin("root").await, server.register("alice").await);
    let mut media = Vec::new();
    for content in ["small", "a large one", "an avatar, large", "a protected one", "a bad one, too"]
    {
        media.push(upload(&alice, "", "text/plain", content).await);
    }
    let [small, large, avatar, protected, bad] = &media[..] else { panic!("five were uploaded") };
    let path = format!("/_matrix/client/v3/profile/{}/avatar_url", alice.user());
    alice.put(&path, json!({ "avatar_url": format!("mxc://{avatar}") })).await.ok();
    post(&root, &format!("media/protect/{}", id(protected))).await;
    post(&root, &format!("media/quarantine/{bad}")).await;
    let day = std::time::Duration::from_hours(24);
    server.clock.advance(day * 3);
    let new = upload(&alice, "", "text/plain", "a new one, large").await;
    let before_ts = u64::from(server.env.now().0) - u64::try_from(day.as_millis()).unwrap();
    let delete = |more: &str| format!("media/delete?before_ts={before_ts}{more}");
    assert_eq!(post(&root, &delete("&size_gt=100")).await["total"], 0);
    let removed = post(&root, &delete("&size_gt=5")).await;
    assert_eq!(removed, json!({ "deleted_media": [id(large)], "total": 1 }));
    refused(&download(&alice, large).await, 404, "M_NOT_FOUND");
    let removed = post(&root, &delete("&keep_profiles=false&size_gt=5")).await;
    assert_eq!(removed, json!({ "deleted_media": [id(avatar)], "total": 1 }));
    assert_eq!(post(&root, &delete("")).await["deleted_media"], json!([id(small)]));
    for kept in [protected, &new] {
        assert_eq!(download(&alice, kept).await.status(), 200);
    }
    post(&root, &format!("media/unquarantine/{bad}")).await;
    assert_eq!(download(&alice, bad).await.status(), 200, "what is withdrawn stays as evidence");
    let seconds = root.post(&format!("{ADMIN}/media/delete?before_ts=1700000000"), json!({})).await;
    seconds.refused(400, "M_INVALID_PARAM");
}

#[tokio::test]
async fn copies_of_other_servers_media_are_purged_and_quarantined_ones_stay_withdrawn() {
    let network = Network::default();
    let one = TestServer::start_in(&network, "one").await;
    let two = TestServer::start_in(&network, "two").await;
    let (alice, root) = (one.register("alice").await, two.register_admin("root").await);
    let (plain, bad) = (upload(&alice, "", "text/plain", "plain").await, "bad");
    let bad = upload(&alice, "", "text/plain", bad).await;
    for medium in [&plain, &bad] {
        assert_eq!(download(&root, medium).await.status(), 200);
    }
    post(&root, &format!("media/quarantine/{bad}")).await;
    let day = std::time::Duration::from_hours(24);
    network.clock.advance(day * 2);
    let before_ts = u64::from(two.env.now().0) - u64::try_from(day.as_millis()).unwrap();
    let purge = |before_ts: u64| format!("purge_media_cache?before_ts={before_ts}");
    assert_eq!(post(&root, &purge(0)).await, json!({ "deleted": 0 }));
    assert_eq!(post(&root, &purge(before_ts)).await, json!({ "deleted": 1 }));
    // The one is fetched again; the other is not, though its server has it.
    assert_eq!(download(&root, &plain).await.status(), 200);
    refused(&download(&root, &bad).await, 404, "M_NOT_FOUND");
    network.leave("one");
    assert_eq!(download(&root, &plain).await.status(), 200);
    let other = root.delete(&format!("{ADMIN}/media/{plain}"), json!({})).await;
    other.refused(400, "M_UNKNOWN");
}

#[tokio::test]
async fn nobody_but_administrators_may() {
    let server = TestServer::start().await;
    let alice = server.register("alice").await;
    let medium = upload(&alice, "", "text/plain", "mine").await;
    for (method, path) in [
        (Method::GET, "users/@alice:test/media".to_owned()),
        (Method::DELETE, "users/@alice:test/media".to_owned()),
        (Method::GET, format!("media/{medium}")),
        (Method::DELETE, format!("media/{medium}")),
        (Method::POST, format!("media/quarantine/{medium}")),
        (Method::POST, format!("media/unquarantine/{medium}")),
        (Method::POST, "user/@alice:test/media/quarantine".to_owned()),
        (Method::POST, format!("media/protect/{}", id(&medium))),
        (Method::POST, format!("media/unprotect/{}", id(&medium))),
        (Method::POST, "purge_media_cache?before_ts=0".to_owned()),
        (Method::GET, "room/!room:test/media".to_owned()),
        (Method::POST, "room/!room:test/media/quarantine".to_owned()),
        (Method::POST, "media/delete?before_ts=1700000000000".to_owned()),
    ] {
        let answer = alice.send(method, &format!("{ADMIN}/{path}"), "{}".into()).await;
        answer.refused(403, "M_FORBIDDEN");
    }
    assert_eq!(download(&alice, &medium).await.status(), 200);
}
