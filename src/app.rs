//! The only place that builds concrete things: leaves first, then what stands on them.

mod expiry;
mod settings;
mod workers;

use std::{path::PathBuf, sync::Arc, time::Duration};

use axum::extract::FromRef;
use millrace_appservices::{
    self as appservices, AppServices, LoadError, SharedRegistry, registration::load_files,
};
use millrace_domain::{
    Env,
    accounts::{Accounts, LastSeen, uiaa},
    deliveries::Deliveries,
    ephemeral::EphemeralClock,
    keys::Names,
    presence::Presence,
    rooms::{CacheSizes, Rooms, server_notices},
    sync::{SyncParts, Syncs},
    typing::Typing,
    unread::Unreads,
};
use millrace_federation::{
    Federation, Outbound, Transport,
    http::{HttpSettings, HttpSetupError, HttpTransport},
    identity_servers::IdentityServers,
    inbound::Inbound,
    internet::SystemInternet,
};
use millrace_media::{Media, RecoverError, storage::StorageError};
use millrace_model::rules::room_version;
use millrace_pushers::Pushers;
use millrace_search::{OpenError, Search, index::Place};
use millrace_store::{
    Limits, Store,
    engine::{RocksEngine, RocksOptions},
};
use tokio::task;

use self::{
    expiry::expire,
    settings::{
        account_settings, capabilities, discovery, federation_settings, identity_settings,
        notice_settings, rates, room_policy, sign_on_settings, sync_timeout_max, turn,
    },
    workers::{deliveries, ephemeral, media, outbound, pushers, search, services, take_in},
};
use crate::{
    captcha::Recaptcha,
    client_api::{
        capabilities::Capabilities, client_ip::TrustedProxies, create_room::RoomPolicy,
        discovery::Discovery, extract::RequestLimits, limits::RateLimiter, server_notices::Notices,
        voip::Turn,
    },
    config::{Config, database::Database},
    identity::{self, IdentityError},
    mail::{Digests, MailSetupError, Messages},
    push_gateways::PushGateways,
    shutdown::Shutdown,
    sso::{ProviderError, SignOns, WebClient},
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
    /// Uploads and what others have uploaded.
    pub media: Media,
    /// Who types.
    pub typing: Arc<Typing>,
    /// What was said, and users by name.
    pub search: Arc<Search>,
    /// Bridges and bots.
    pub services: Arc<AppServices>,
    /// Who is online.
    pub presence: Arc<Presence>,
    /// Who has not read what.
    pub unreads: Arc<Unreads>,
    /// How far messages have come.
    pub deliveries: Arc<Deliveries>,
    /// Who is told of it while their apps sleep.
    pub pushers: Arc<Pushers>,
    /// What is new to devices.
    pub syncs: Syncs,
    /// How long a sync may wait.
    pub sync_timeout_max: SyncTimeoutMax,
    /// What users may make of rooms.
    pub room_policy: Arc<RoomPolicy>,
    /// Accounts, devices, sessions.
    pub accounts: AccountsPart,
    /// Whether other servers are told the names of devices.
    pub device_names: DeviceNames,
    /// What users may do here.
    pub capabilities: Arc<Capabilities>,
    /// Bounds on what a request may contain.
    pub request_limits: RequestLimits,
    /// Token buckets of all users and addresses.
    pub rate_limiter: Arc<RateLimiter>,
    /// Where calls find a TURN server.
    pub turn: Arc<Turn>,
    /// How the server speaks to its users.
    pub notices: Notices,
    /// What `.well-known` answers.
    pub discovery: Arc<Discovery>,
    /// Mails that ask people to prove an address.
    pub messages: Arc<Messages>,
    /// Identity servers.
    pub identity_servers: IdentityServers,
    /// Who signs on elsewhere.
    pub sign_ons: Arc<SignOns>,
    /// Whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Arc<TrustedProxies>,
    /// Whether the server is to stop: long polls end when it is.
    pub shutdown: Shutdown,
}

/// What the operations on accounts need, as handlers take it.
pub type AccountsPart = Arc<Accounts>;
/// Tells people from programmes.
type CaptchaPart = Arc<dyn uiaa::Captcha>;
/// Rooms, as handlers extract them.
pub type RoomsPart = Arc<Rooms>;

/// Whether other servers are told the names of devices.
#[derive(Debug, Clone, Copy)]
pub struct DeviceNames(pub Names);

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
    /// What an interrupted process left of uploads cannot be put in order.
    #[error(transparent)]
    Media(#[from] RecoverError),
    /// Media cannot be kept.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// A file of certificates or keys cannot be used.
    #[error(transparent)]
    TlsFile(#[from] TlsFileError),
    /// Mails cannot be sent.
    #[error(transparent)]
    Mail(#[from] MailSetupError),
    /// The search index cannot be kept.
    #[error(transparent)]
    Search(#[from] OpenError),
    /// Identity providers cannot be asked.
    #[error(transparent)]
    Provider(#[from] ProviderError),
    /// A registration of an application service cannot be used.
    #[error(transparent)]
    Registration(#[from] LoadError),
    /// Application services that do not go together.
    #[error(transparent)]
    AppServices(#[from] appservices::OpenError),
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
        let env = Env { store, clock, random, identity, rules: room_version::rules };
        let index = Place::Folder(config.database.search_index());
        let app = Self::build(config, env, transport, index, shutdown).await?;
        app.0.media.recover().await?;
        Ok(app)
    }

    /// Builds the server on a given world, in which `transport` leads to the other servers and the
    /// search index lies at `index`: what tests start from. It ends its long requests on `shutdown`.
    ///
    /// # Errors
    /// Where the store cannot be read or written, the index cannot be kept, or a file that `config`
    /// names cannot be used.
    pub async fn build(
        config: &Config,
        env: Env,
        transport: Arc<dyn Transport>,
        index: Place,
        shutdown: Shutdown,
    ) -> Result<Self, StartError> {
        let settings = identity_settings(&config.threepids);
        let identity_servers = IdentityServers::new(env.clone(), Arc::clone(&transport), settings);
        let registry = registered(config, &env)?;
        let (captcha, sign_ons) = web_services(config, &env)?;
        let accounts = accounts(config, &env, (captcha, &registry));
        let default_room_version =
            config.rooms.default_version().unwrap_or(ruma::RoomVersionId::V12);
        let rooms = Rooms::open(env.clone(), CacheSizes::default()).await?;
        let rooms = rooms.keeping(config.retention.settings());
        let moments = Arc::new(EphemeralClock::new(&env));
        let (typing, presence) = ephemeral(config, &env, &moments, &shutdown);
        let gateways = PushGateways(Arc::clone(&transport));
        let federation =
            Federation::open(rooms.clone(), transport, federation_settings(config)).await?;
        // These can ask the policy servers of rooms.
        let rooms = federation.rooms.clone();
        let deliveries = deliveries(config, &rooms, &shutdown);
        let inbound = Arc::new(Inbound::new(
            federation.clone(),
            Arc::clone(&typing),
            Arc::clone(&presence),
            Arc::clone(&deliveries),
            config.inbound.settings(),
        ));
        let parts = (Arc::clone(&typing), Arc::clone(&presence), Arc::clone(&deliveries));
        let outbound = outbound(config, &federation, parts, &shutdown);
        take_in(&shutdown, &inbound);
        expire(config, &env, &rooms, &shutdown);
        let notices = notices(config, &env, &default_room_version).await?;
        let media = media(config, &env, &federation, &shutdown).await?;
        let parts = (&rooms, (typing.clone(), presence.clone()));
        let services = services(config, registry, parts, &shutdown).await?;
        let (search, unreads) =
            (search(&rooms, index, &shutdown).await?, Arc::<Unreads>::default());
        let messages = Arc::new(Messages::open(config)?);
        let digests = Digests { messages: messages.clone(), identity: env.identity.clone() };
        let pushers = pushers(config, (&rooms, &unreads), (gateways, digests), &shutdown);
        let syncs = Syncs::new(SyncParts {
            rooms: rooms.clone(),
            ephemeral: moments,
            typing: Arc::clone(&typing),
            presence: Arc::clone(&presence),
            unreads: Arc::clone(&unreads),
            deliveries: Arc::clone(&deliveries),
        });
        Ok(Self(Arc::new(Parts {
            search,
            services,
            federation,
            inbound,
            outbound,
            media,
            env,
            rooms: Arc::new(rooms),
            typing,
            presence,
            unreads,
            deliveries,
            syncs,
            sync_timeout_max: sync_timeout_max(config),
            room_policy: room_policy(config, default_room_version.clone()),
            accounts: Arc::new(accounts),
            device_names: DeviceNames(config.federation.device_names()),
            capabilities: capabilities(config, default_room_version),
            messages,
            pushers,
            identity_servers,
            sign_ons: Arc::new(sign_ons),
            request_limits: RequestLimits {
                body_bytes_max: config.limits.max_request_size,
                json_depth_max: config.limits.limits.json_depth_max,
            },
            rate_limiter: Arc::new(RateLimiter::new(rates(&config.rate_limits))),
            turn: Arc::new(turn(&config.voip)),
            notices,
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
        self.0.pushers.note().await;
        if let Err(error) = self.0.media.write_accessed().await {
            tracing::warn!(%error, "when media were last asked for could not be written");
        }
        self.0.env.store.close().await;
    }
}

/// What operations on accounts need.
fn accounts(
    config: &Config,
    env: &Env,
    (captcha, registry): (Option<CaptchaPart>, &SharedRegistry),
) -> Accounts {
    let hashes_at_once = std::thread::available_parallelism().map_or(1, usize::from);
    let accounts = Accounts::new(env.clone(), account_settings(config), hashes_at_once);
    Accounts { captcha, reserved: Arc::new(registry.clone()), ..accounts }
}

/// The application services that the configuration names.
fn registered(config: &Config, env: &Env) -> Result<SharedRegistry, LoadError> {
    let section = &config.appservices;
    let (files, folder) = (&section.appservice_files, section.appservice_dir.as_deref());
    Ok(SharedRegistry::new(load_files(files, folder, &env.identity.name)?))
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

/// What other services say about people: whether somebody is one, and who.
fn web_services(config: &Config, env: &Env) -> Result<(Option<CaptchaPart>, SignOns), StartError> {
    let authorities = tls_files::authorities(config.federation.federation_ca_file.as_deref())?;
    let client = WebClient::new(authorities)?;
    let sign_ons = SignOns::new(env.clone(), sign_on_settings(config), &client);
    Ok((captcha(config, &client), sign_ons))
}

fn captcha(config: &Config, client: &WebClient) -> Option<CaptchaPart> {
    let sso = &config.sso;
    let (public, private) =
        sso.recaptcha_public_key.clone().zip(sso.recaptcha_private_key.clone())?;
    Some(Arc::new(Recaptcha {
        public_key: public,
        private_key: private,
        url: sso.recaptcha_siteverify_api.clone(),
        client: client.clone(),
    }))
}

/// How the server speaks to its users; the user who does is made ready.
async fn notices(
    config: &Config,
    env: &Env,
    room_version: &ruma::RoomVersionId,
) -> Result<Notices, millrace_store::Error> {
    let settings = notice_settings(config, env, room_version).map(Arc::new);
    if let Some(settings) = &settings {
        server_notices::prepare(env, settings).await?;
    }
    Ok(Notices(settings))
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
    media: Media,
    typing: Arc<Typing>,
    search: Arc<Search>,
    services: Arc<AppServices>,
    presence: Arc<Presence>,
    unreads: Arc<Unreads>,
    deliveries: Arc<Deliveries>,
    syncs: Syncs,
    sync_timeout_max: SyncTimeoutMax,
    room_policy: Arc<RoomPolicy>,
    accounts: AccountsPart,
    device_names: DeviceNames,
    capabilities: Arc<Capabilities>,
    request_limits: RequestLimits,
    rate_limiter: Arc<RateLimiter>,
    turn: Arc<Turn>,
    notices: Notices,
    discovery: Arc<Discovery>,
    trusted_proxies: Arc<TrustedProxies>,
    messages: Arc<Messages>,
    identity_servers: IdentityServers,
    sign_ons: Arc<SignOns>,
    shutdown: Shutdown,
}
