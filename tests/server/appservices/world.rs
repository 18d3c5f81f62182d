//! A server with services, and a user who talks to them.

use std::sync::Arc;

use millrace::config::Config;
use millrace_store::engine::MemoryEngine;
use millrace_test_support::{Client, TestClock, TestServer, TestService};
use serde_json::{Value, json};

pub const V3: &str = "/_matrix/client/v3";

/// Namespaces of a bridge to IRC.
pub const IRC: &str = "namespaces:
  users: [{exclusive: true, regex: '@irc_.*'}]
  aliases: [{exclusive: true, regex: '#irc_.*'}]";

pub struct World {
    pub server: TestServer,
    pub alice: Client,
    engine: MemoryEngine,
    config: Config,
    _files: tempfile::TempDir,
}

impl World {
    /// A server with these registrations.
    pub async fn new(registrations: &[String]) -> Self {
        Self::with(registrations, TestServer::config()).await
    }

    /// As [`World::new`], with a configuration.
    pub async fn with(registrations: &[String], mut config: Config) -> Self {
        let files = tempfile::tempdir().unwrap();
        for (n, text) in registrations.iter().enumerate() {
            let path = files.path().join(format!("{n}.yaml"));
            std::fs::write(&path, text).unwrap();
            config.appservices.appservice_files.push(path);
        }
        let engine = MemoryEngine::new();
        let server = start(&engine, &config, TestClock::default()).await;
        let alice = server.register("alice").await;
        Self { server, alice, engine, config, _files: files }
    }

    /// The server stops and starts again.
    pub async fn restarted(self) -> Self {
        let Self { server, alice, engine, config, _files } = self;
        let clock = server.clock.clone();
        server.stop().await;
        let server = start(&engine, &config, clock).await;
        let alice = alice.on(&server);
        Self { server, alice, engine, config, _files }
    }

    /// With what it was started.
    pub const fn config(&self) -> &Config {
        &self.config
    }

    /// A client with a service's token.
    pub fn client(&self, service: &TestService) -> Client {
        let session =
            json!({ "user_id": "@x:test", "device_id": "X", "access_token": service.token() });
        self.server.client().with_session(&session)
    }

    /// A room of alice's.
    pub async fn room(&self, body: Value) -> String {
        let room = self.alice.post(&format!("{V3}/createRoom"), body).await.ok();
        room["room_id"].as_str().unwrap().to_owned()
    }

    /// A public room of alice's with a user of the service in it.
    pub async fn bridged_room(&self, service: &TestService, user: &str) -> String {
        let room = self.room(json!({ "preset": "public_chat" })).await;
        self.join(service, user, &room).await;
        room
    }

    /// A service registers a user and joins a room as them.
    pub async fn join(&self, service: &TestService, user: &str, room: &str) {
        let bot = self.client(service);
        let localpart = user.trim_start_matches('@').trim_end_matches(":test");
        let body = json!({ "type": "m.login.application_service", "username": localpart });
        let registered = bot.post(&format!("{V3}/register"), body).await;
        assert!(
            registered.status == 200 || registered.body["errcode"] == "M_USER_IN_USE",
            "{}",
            registered.body
        );
        bot.post(&format!("{V3}/rooms/{room}/join?user_id={user}"), json!({})).await.ok();
    }

    /// Alice says something; returns the event's ID.
    pub async fn say(&self, room: &str, text: &str) -> String {
        let path = format!("{V3}/rooms/{room}/send/m.room.message/{}", text.replace(' ', "-"));
        let sent = self.alice.put(&path, json!({ "msgtype": "m.text", "body": text })).await.ok();
        sent["event_id"].as_str().unwrap().to_owned()
    }
}

async fn start(engine: &MemoryEngine, config: &Config, clock: TestClock) -> TestServer {
    TestServer::start_on(Arc::new(engine.clone()), config, clock).await
}
