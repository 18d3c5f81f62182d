//! The only place that builds concrete things: leaves first, then what stands on them.

use std::{path::PathBuf, sync::Arc, time::Duration};

use axum::extract::FromRef;
use millrace_domain::{
    Env,
    accounts::{self, Accounts, LastSeen, Lifetimes, PasswordCost, Policy},
    ephemeral::EphemeralClock,
    presence::{Presence, PresenceSettings},
    rooms::{CacheSizes, Rooms},
    sync::{SyncParts, Syncs},
    typing::Typing,
    unread::Unreads,
    user_directory::UserDirectory,
};
use millrace_federation::{
    self as federation, Federation, Outbound, OutboundSettings, Transport,
    http::{HttpSettings, HttpSetupError, HttpTransport},
    inbound::Inbound,
    internet::SystemInternet,
    keyring::OldKey,
};
use millrace_store::{
    Limits, Store,
    engine::{RocksEngine, RocksOptions},
};
use tokio::task;

use crate::{
    client_api::{
        capabilities::Capabilities,
        client_ip::TrustedProxies,
        create_room::RoomPolicy,
        discovery::{Discovery, SupportContact},
        extract::RequestLimits,
        limits::{Rate, RateLimiter, Rates},
    },
    config::{
        Config, accounts::Accounts as AccountsConfig, database::Database, rate_limits::RateLimits,
        registration, well_known::WellKnown,
    },
    identity::{self, IdentityError},
    shutdown::Shutdown,
    system::{SystemClock, SystemRandom},
    tls_files::{self, TlsFileError},
};

/// How the system says that a disk is full; the engine passes it on in its own words.
const NO_SPACE: &str = "No space left on device";

/// What the server consists of. Handlers never see it whole: they ask for a part by its type with
/// `State<Part>`, for which [`App`] implements [`FromRef`].
pub struct Parts {
    /// Store, clock, randomness and identity.
    pub env: Env,
    /// Rooms, their events and state.
    pub rooms: RoomsPart,
    /// Other servers.
    pub federation: Federation,
    /// What other servers are told.
    pub outbound: Arc<Outbound>,
    /// What comes in from other servers.
    pub inbound: Arc<Inbound>,
    /// Who types.
    pub typing: Arc<Typing>,
    /// Users by name.
    pub user_directory: Arc<UserDirectory>,
    /// Who is online.
    pub presence: Arc<Presence>,
    /// Who has not read what.
    pub unreads: Arc<Unreads>,
    /// What is new to devices.
    pub syncs: Syncs,
    /// How long a sync may wait.
    pub sync_timeout_max: SyncTimeoutMax,
    /// What users may make of rooms.
    pub room_policy: Arc<RoomPolicy>,
    /// Accounts, devices, sessions.
    pub accounts: AccountsPart,
    /// What users may do here.
    pub capabilities: Arc<Capabilities>,
    /// Bounds on what a request may contain.
    pub request_limits: RequestLimits,
    /// Token buckets of all users and addresses.
    pub rate_limiter: Arc<RateLimiter>,
    /// What `.well-known` answers.
    pub discovery: Arc<Discovery>,
    /// Whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Arc<TrustedProxies>,
    /// Whether the server is to stop: long polls end when it is.
    pub shutdown: Shutdown,
}

/// What the operations on accounts need, as handlers take it.
pub type AccountsPart = Arc<Accounts>;
/// Rooms, as handlers extract them.
pub type RoomsPart = Arc<Rooms>;

/// The longest time that a sync may wait for news.
#[derive(Debug, Clone, Copy)]
pub struct SyncTimeoutMax(pub Duration);

/// The state of the HTTP router: one counted pointer, so that a request clones next to nothing.
#[derive(Clone)]
pub struct App(Arc<Parts>);

/// Why a server could not be built from its configuration.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration has no valid `server_name`.
    #[error("server_name: must be set")]
    NoServerName,
    /// There is no room for the database.
    #[error(
        "the disk that holds {0} is full: make room and start again; nothing acknowledged is lost"
    )]
    DiskFull(PathBuf),
    /// The database cannot be opened.
    #[error(transparent)]
    Store(#[from] millrace_store::Error),
    /// The signing key cannot be had.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// Other servers cannot be asked.
    #[error(transparent)]
    Http(#[from] HttpSetupError),
    /// A file of certificates or keys cannot be used.
    #[error(transparent)]
    TlsFile(#[from] TlsFileError),
}

impl App {
    /// Builds the server that `config` describes, on its database and the system's clock.
    ///
    /// # Errors
    /// A sentence that says which part could not be built, and what to do.
    pub async fn start(config: &Config, shutdown: Shutdown) -> Result<Self, StartError> {
        let name = config.server.name().ok_or(StartError::NoServerName)?;
        let engine = open_engine(config.database.clone()).await?;
        let store = Store::open(Arc::new(engine), &name, Limits::default()).await?;
        let random = Arc::new(SystemRandom);
        let key_file = config.server.signing_key_path.as_deref();
        let identity = identity::load(&store, random.clone(), &name, key_file).await?;
        let (clock, identity) = (Arc::new(SystemClock), Arc::new(identity));
        let transport = HttpTransport::new(HttpSettings {
            internet: Arc::new(SystemInternet::new()),
            clock: clock.clone(),
            random: random.clone(),
            addresses: config.federation.address_policy(),
            authorities: tls_files::authorities(config.federation.federation_ca_file.as_deref())?,
        })?;
        let transport = Arc::new(transport);
        let env = Env { store, clock, random, identity };
        Ok(Self::build(config, env, transport, shutdown).await?)
    }

    /// Builds the server on a given world, in which `transport` leads to the other servers: what
    /// tests start from. It ends its long requests on `shutdown`.
    ///
    /// # Errors
    /// Where the store cannot be read or written.
    pub async fn build(
        config: &Config,
        env: Env,
        transport: Arc<dyn Transport>,
        shutdown: Shutdown,
    ) -> Result<Self, millrace_store::Error> {
        let hashes_at_once = std::thread::available_parallelism().map_or(1, usize::from);
        let accounts = Accounts::new(env.clone(), account_settings(config), hashes_at_once);
        let default_room_version =
            config.rooms.default_version().unwrap_or(ruma::RoomVersionId::V12);
        let rooms = Rooms::open(env.clone(), CacheSizes::default()).await?;
        let moments = Arc::new(EphemeralClock::new(&env));
        let longest = Duration::from_secs(config.limits.limits.typing_timeout_max_s);
        let typing = Arc::new(Typing::new(env.clone(), Arc::clone(&moments), longest));
        let enabled = config.presence.allow_local_presence;
        let settings = PresenceSettings { enabled, ..PresenceSettings::default() };
        let presence = Arc::new(Presence::new(env.clone(), Arc::clone(&moments), settings));
        run_until(&shutdown, Arc::clone(&typing), |typing| async move { typing.run().await });
        run_until(&shutdown, Arc::clone(&presence), |presence| async move { presence.run().await });
        let federation =
            Federation::open(rooms.clone(), transport, federation_settings(config)).await?;
        let inbound = Arc::new(Inbound::new(
            federation.clone(),
            Arc::clone(&typing),
            Arc::clone(&presence),
            config.inbound.settings(),
        ));
        run_until(&shutdown, Arc::clone(&inbound), |inbound| async move {
            inbound.run_device_lists().await;
        });
        let settings = outbound_settings(config);
        let outbound =
            Outbound::new(federation.clone(), settings, typing.clone(), presence.clone());
        let outbound = Arc::new(outbound);
        run_until(&shutdown, Arc::clone(&outbound), Outbound::run);
        run_until(&shutdown, Arc::clone(&inbound), |inbound| async move { inbound.run().await });
        let unreads = Arc::<Unreads>::default();
        let syncs = Syncs::new(SyncParts {
            rooms: rooms.clone(),
            ephemeral: moments,
            typing: Arc::clone(&typing),
            presence: Arc::clone(&presence),
            unreads: Arc::clone(&unreads),
        });
        Ok(Self(Arc::new(Parts {
            user_directory: Arc::new(UserDirectory::new(env.clone())),
            federation,
            inbound,
            outbound,
            env,
            rooms: Arc::new(rooms),
            typing,
            presence,
            unreads,
            syncs,
            sync_timeout_max: SyncTimeoutMax(Duration::from_secs(
                config.limits.limits.sync_timeout_max_s,
            )),
            room_policy: room_policy(config, default_room_version.clone()),
            accounts: Arc::new(accounts),
            capabilities: Arc::new(Capabilities { default_room_version }),
            request_limits: RequestLimits {
                body_bytes_max: config.limits.max_request_size,
                json_depth_max: config.limits.limits.json_depth_max,
            },
            rate_limiter: Arc::new(RateLimiter::new(rates(&config.rate_limits))),
            discovery: Arc::new(discovery(&config.well_known)),
            trusted_proxies: Arc::new(TrustedProxies(config.server.trusted_proxies.clone())),
            shutdown,
        })))
    }

    /// Finishes what was submitted to the store and closes it.
    pub async fn close(&self) {
        let accounts = &self.0.accounts;
        if let Err(error) = LastSeen::write(accounts, &accounts.last_seen.rest()).await {
            tracing::warn!(%error, "where devices were last seen could not be written");
        }
        if let Err(error) = self.0.outbound.close().await {
            tracing::warn!(%error, "how far other servers were told could not be written");
        }
        self.0.env.store.close().await;
    }
}

/// Starts a worker that ends with the server.
fn run_until<T, F>(shutdown: &Shutdown, part: Arc<T>, work: impl FnOnce(Arc<T>) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    let (work, shutdown) = (work(part), shutdown.clone());
    tokio::spawn(async move {
        tokio::select! {
            () = work => {}
            () = shutdown.requested() => {}
        }
    });
}

async fn open_engine(config: Database) -> Result<RocksEngine, StartError> {
    let options = RocksOptions {
        block_cache_bytes: (config.rocksdb_cache_mib as usize) << 20,
        ..RocksOptions::default()
    };
    let path = config.database_path;
    task::spawn_blocking(move || {
        RocksEngine::open(&path, &options).map_err(|error| match error {
            millrace_store::Error::Engine(reason) if reason.contains(NO_SPACE) => {
                StartError::DiskFull(path)
            }
            other => other.into(),
        })
    })
    .await
    .expect("opening a database does not panic")
}

fn account_settings(config: &Config) -> accounts::Settings {
    let (registration, lifetimes) = (&config.registration, &config.accounts);
    let policy = |policy: &registration::Policy| Policy {
        id: policy.id.clone(),
        version: policy.version.clone(),
        language: policy.language.clone(),
        name: policy.name.clone(),
        url: policy.url.clone(),
    };
    accounts::Settings {
        registration: registration.allow_registration,
        guests: registration.allow_guest_registration,
        registration_token: registration.registration_token.clone(),
        shared_secret: registration.registration_shared_secret.clone(),
        terms: registration.terms.iter().map(policy).collect(),
        lifetimes: Lifetimes {
            refreshable_access_token: AccountsConfig::lifetime(
                lifetimes.refreshable_access_token_lifetime_s,
            ),
            access_token: AccountsConfig::lifetime(lifetimes.access_token_lifetime_s),
            refresh_token: AccountsConfig::lifetime(lifetimes.refresh_token_lifetime_s),
            login_token: Duration::from_secs(lifetimes.login_token_lifetime_s),
            uiaa_session: Duration::from_secs(lifetimes.uiaa_session_lifetime_s),
        },
        password_cost: PasswordCost {
            memory_kib: config.password_hash.memory_kib,
            iterations: config.password_hash.iterations,
            parallelism: config.password_hash.parallelism,
        },
    }
}

fn room_policy(config: &Config, default_version: ruma::RoomVersionId) -> Arc<RoomPolicy> {
    Arc::new(RoomPolicy {
        default_version,
        publication: config.rooms.allow_room_publication,
        directory_without_account: config.rooms.allow_public_rooms_without_auth,
        directory_for_servers: config.rooms.allow_public_rooms_over_federation,
    })
}

fn federation_settings(config: &Config) -> federation::Settings {
    let old_keys = config.federation.old_signing_keys.iter().map(|old| OldKey {
        id: old.id.clone(),
        key: old.key.clone(),
        expired: old.expired_ts,
    });
    federation::Settings {
        closed: !config.federation.allow_federation,
        notaries: config.federation.trusted_servers.clone(),
        old_keys: old_keys.collect(),
    }
}

fn outbound_settings(config: &Config) -> OutboundSettings {
    let federation = &config.federation;
    OutboundSettings {
        enabled: federation.allow_federation,
        presence: config.presence.allow_local_presence && config.presence.allow_outgoing_presence,
        typing: federation.allow_outgoing_typing,
        receipts: federation.allow_outgoing_read_receipts,
        sends_at_once: federation.federation_sends_at_once,
        tries_at_once: federation.federation_tries_at_once,
        ..OutboundSettings::default()
    }
}

fn rates(config: &RateLimits) -> Rates {
    let rate = |rate: crate::config::rate_limits::Rate| {
        config.enabled.then_some(Rate { per_second: rate.per_second, burst: rate.burst })
    };
    Rates {
        login: rate(config.login),
        registration: rate(config.registration),
        message: rate(config.message),
        join: rate(config.join),
        invite: rate(config.invite),
        create_room: rate(config.create_room),
        search: rate(config.search),
        federation: rate(config.federation),
        other: rate(config.other),
    }
}

fn discovery(config: &WellKnown) -> Discovery {
    let contact = SupportContact {
        role: config.support_role.clone().unwrap_or_else(|| "m.role.admin".to_owned()),
        email_address: config.support_email.clone(),
        matrix_id: config.support_mxid.clone(),
    };
    let reachable = contact.email_address.is_some() || contact.matrix_id.is_some();
    Discovery {
        client_base_url: config.client.clone(),
        server: config.server.clone(),
        support_page: config.support_page.clone(),
        contacts: if reachable { vec![contact] } else { Vec::new() },
    }
}

/// Lets handlers extract a part with `State<Part>`.
macro_rules! parts {
    ($($field:ident: $part:ty),+ $(,)?) => {$(
        impl FromRef<App> for $part {
            fn from_ref(app: &App) -> Self {
                app.0.$field.clone()
            }
        }
    )+};
}

parts! {
    env: Env,
    rooms: RoomsPart,
    federation: Federation,
    inbound: Arc<Inbound>,
    outbound: Arc<Outbound>,
    typing: Arc<Typing>,
    user_directory: Arc<UserDirectory>,
    presence: Arc<Presence>,
    unreads: Arc<Unreads>,
    syncs: Syncs,
    sync_timeout_max: SyncTimeoutMax,
    room_policy: Arc<RoomPolicy>,
    accounts: AccountsPart,
    capabilities: Arc<Capabilities>,
    request_limits: RequestLimits,
    rate_limiter: Arc<RateLimiter>,
    discovery: Arc<Discovery>,
    trusted_proxies: Arc<TrustedProxies>,
    shutdown: Shutdown,
}
