//! The server under test.

use std::sync::Arc;

use axum::{Router, extract::FromRef};
use futures::FutureExt;
use millrace::{
    app::App,
    client_api::router::router,
    config::Config,
    identity,
    shutdown::{self, ShutdownTrigger},
};
use millrace_appservices::AppServices;
use millrace_domain::{Env, Rulebook};
use millrace_federation::{Federation, Outbound, Transport, inbound::Inbound};
use millrace_media::Media;
use millrace_model::rules::room_version;
use millrace_search::index::Place;
use millrace_store::{
    Limits, Read, Store, Tx,
    engine::{Engine, MemoryEngine},
    rows::account::Account,
    tables::ACCOUNTS,
};

use crate::{
    client::Client,
    network::Network,
    world::{SeededRandom, TestClock},
};

/// The name of servers under test.
const NAME: &str = "test";

/// A homeserver whose requests are function calls.
pub struct TestServer {
    /// Serves the client-server API.
    pub router: Router,
    /// What operations of the domain take, for tests that look below the API.
    pub env: Env,
    /// Other servers, as this one asks them.
    pub federation: Federation,
    /// What it tells other servers.
    pub outbound: Arc<Outbound>,
    /// Bridges and bots.
    pub services: Arc<AppServices>,
    /// What comes in from other servers.
    pub inbound: Arc<Inbound>,
    /// Uploads and what others have uploaded.
    pub media: Media,
    /// The server's clock.
    pub clock: TestClock,
    /// Ends long requests.
    pub shutdown: Arc<ShutdownTrigger>,
    /// Where media are kept that no configuration gives a folder.
    _media: tempfile::TempDir,
}

impl TestServer {
    /// A new server with an empty database and the configuration of [`TestServer::config`].
    pub async fn start() -> Self {
        Self::start_with(&Self::config()).await
    }

    /// Open registration, no rate limits, cheap password hashes; else the defaults.
    #[must_use]
    pub fn config() -> Config {
        let mut config = Config::default();
        config.server.server_name = NAME.to_owned();
        config.registration.allow_registration = true;
        config.registration.registration_shared_secret = Some("shared secret".to_owned());
        config.rate_limits.enabled = false;
        config.password_hash.memory_kib = 8;
        config.password_hash.iterations = 1;
        config
    }

    /// A new server with an empty database.
    pub async fn start_with(config: &Config) -> Self {
        Self::start_on(Arc::new(MemoryEngine::new()), config, TestClock::default()).await
    }

    /// A new server, named `name`, that other servers of `network` can reach, and it them.
    ///
    /// # Panics
    /// If `name` is no server name.
    pub async fn start_in(network: &Network, name: &str) -> Self {
        Self::start_in_with(network, name, Self::config()).await
    }

    /// As [`TestServer::start_in`], with a configuration.
    ///
    /// # Panics
    /// If `name` is no server name.
    pub async fn start_in_with(network: &Network, name: &str, mut config: Config) -> Self {
        config.server.server_name = name.to_owned();
        let engine = Arc::new(MemoryEngine::new());
        let transport = network.transport(name);
        let server = Self::start_between(engine, &config, network.clock.clone(), transport).await;
        network.enter(name, server.router.clone());
        server
    }

    /// A server on a given engine and clock, alone in the world: what a restart is.
    ///
    /// # Panics
    /// If the engine's content cannot be used.
    pub async fn start_on(engine: Arc<dyn Engine>, config: &Config, clock: TestClock) -> Self {
        let transport = Network::default().transport(&config.server.server_name);
        Self::start_between(engine, config, clock, transport).await
    }

    /// A server on a given engine and clock that reaches others over `transport`.
    ///
    /// # Panics
    /// If the engine's content cannot be used.
    pub async fn start_between(
        engine: Arc<dyn Engine>,
        config: &Config,
        clock: TestClock,
        transport: Arc<dyn Transport>,
    ) -> Self {
        Self::start_by(room_version::rules, engine, config, clock, transport).await
    }

    /// As [`TestServer::start_between`], with rules of the test's choice.
    ///
    /// # Panics
    /// If the engine's content cannot be used.
    pub async fn start_by(
        rules: Rulebook,
        engine: Arc<dyn Engine>,
        config: &Config,
        clock: TestClock,
        transport: Arc<dyn Transport>,
    ) -> Self {
        let name = config.server.name().expect("a valid server name");
        let store = Store::open(engine, &name, Limits::default()).await.expect("the store opens");
        // After a restart it must not begin again: what was drawn before is in use.
        let commits = store.snapshot().view().iter().map(|position| position.seq).sum::<u64>();
        let random = Arc::new(SeededRandom::new(7 + commits));
        let identity = identity::load(&store, random.clone(), &name, None).await;
        let identity = Arc::new(identity.expect("the store keeps a key"));
        let env = Env { store, clock: Arc::new(clock.clone()), random, identity, rules };
        let (shutdown, stopping) = shutdown::channel();
        let folder = tempfile::tempdir().expect("a folder can be made");
        let mut config = config.clone();
        config.media.path.get_or_insert_with(|| folder.path().to_owned());
        let app = App::build(&config, env.clone(), transport, Place::Memory, stopping).await;
        let app = app.expect("the store can be written");
        let federation = Federation::from_ref(&app);
        let shutdown = Arc::new(shutdown);
        let (inbound, outbound) = (FromRef::from_ref(&app), FromRef::from_ref(&app));
        let (media, services) = (FromRef::from_ref(&app), FromRef::from_ref(&app));
        let router = router(app);
        Self {
            router,
            env,
            federation,
            services,
            inbound,
            outbound,
            media,
            clock,
            shutdown,
            _media: folder,
        }
    }

    /// Ends long requests and closes the store, so that the engine can be used again.
    pub async fn stop(self) {
        self.shutdown.request();
        self.env.store.close().await;
    }

    /// A client without an access token.
    #[must_use]
    pub fn client(&self) -> Client {
        Client::new(self.router.clone()).of(&self.shutdown)
    }

    /// Registers `username` with the password `"password"` and returns its client.
    ///
    /// # Panics
    /// If the server refuses.
    pub async fn register(&self, username: &str) -> Client {
        let body = serde_json::json!({
            "username": username,
            "password": "password",
            "auth": { "type": "m.login.dummy" },
        });
        let answer = self.client().post("/_matrix/client/v3/register", body).await.ok();
        self.client().with_session(&answer)
    }

    /// As [`TestServer::register`], an administrator.
    ///
    /// # Panics
    /// If the server refuses.
    pub async fn register_admin(&self, username: &str) -> Client {
        let user = self.register(username).await.user().to_owned();
        let user = &user;
        let write = |tx: Tx| {
            async move {
                let account = tx.get(&ACCOUNTS, user, ()).await?.expect("just registered");
                tx.put(&ACCOUNTS, user, (), &Account { admin: true, ..account });
                Ok::<_, millrace_store::Error>(())
            }
            .boxed()
        };
        self.env.store.transact(write).await.expect("the store can be written");
        let body = serde_json::json!({
            "type": "m.login.password",
            "identifier": { "type": "m.id.user", "user": user },
            "password": "password",
        });
        let answer = self.client().post("/_matrix/client/v3/login", body).await.ok();
        self.client().with_session(&answer)
    }
}
