//! All services of the server, and what they stand on.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use futures::FutureExt;
use millrace_domain::{
    accounts::{ReservedNames, create_service_user},
    presence::Presence,
    rooms::Rooms,
    typing::Typing,
};
use millrace_store::{
    Node, Read, Scan, Tx,
    one_writer::seq,
    tables::{SERVICE_PROGRESS, SERVICE_QUEUE_HEAD, SERVICE_REGISTRATIONS},
};
use parking_lot::Mutex;
use reqwest::Client;
use ruma::UserId;
use tokio::sync::Notify;

use crate::{
    registration::{Conflict, InvalidRegistration, Registry, Service, Source, parse},
    send::Desk,
};

/// What administrators decide about sending to services.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// How long a service may take to acknowledge a transaction.
    pub timeout: Duration,
    /// How long a service may take to answer a question that somebody waits for.
    pub query_timeout: Duration,
    /// The longest wait before a service that did not take a transaction is tried again.
    pub retry_max: Duration,
    /// So much may wait for one service; beyond, the oldest is dropped.
    pub queue_max: u64,
    /// How long it waits, in whole days; for ever if `None`.
    pub queue_lifetime: Option<Duration>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            timeout: Duration::from_mins(1),
            query_timeout: Duration::from_secs(10),
            retry_max: Duration::from_mins(5),
            queue_max: 1_000_000,
            queue_lifetime: Some(Duration::from_hours(30 * 24)),
        }
    }
}

/// The registry as it is now, for who only has to look things up. Clones are the same.
#[derive(Clone, Default)]
pub struct SharedRegistry(Arc<ArcSwap<Registry>>);

impl SharedRegistry {
    /// The services of a registry.
    #[must_use]
    pub fn new(registry: Registry) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(registry)))
    }

    /// The registry as it is now.
    #[must_use]
    pub fn now(&self) -> Arc<Registry> {
        self.0.load_full()
    }
}

impl ReservedNames for SharedRegistry {
    fn is_reserved(&self, user: &UserId) -> bool {
        self.0.load().keeps_user(user)
    }
}

/// What [`AppServices`] are made of.
pub struct Parts {
    /// The services that the configuration names.
    pub registry: SharedRegistry,
    /// The rooms.
    pub rooms: Rooms,
    /// Who types.
    pub typing: Arc<Typing>,
    /// Who is online.
    pub presence: Arc<Presence>,
    /// How services are asked.
    pub client: Client,
    /// What administrators decide.
    pub settings: Settings,
}

/// The application services of the server. Whoever opens them also runs [`AppServices::run`].
pub struct AppServices {
    pub(crate) registry: SharedRegistry,
    pub(crate) rooms: Rooms,
    pub(crate) typing: Arc<Typing>,
    pub(crate) presence: Arc<Presence>,
    pub(crate) client: Client,
    pub(crate) settings: Settings,
    /// Those that are sent to, by their IDs.
    pub(crate) desks: Mutex<BTreeMap<String, Arc<Desk>>>,
    /// Told when services came or went.
    pub(crate) changed: Notify,
    /// The newest commit when the first service came: what is later is for it.
    pub(crate) began: AtomicU64,
}

/// Why the services cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A registration that was made by command does not go together with the configuration's.
    #[error(transparent)]
    Conflict(#[from] Conflict),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] millrace_store::Error),
}

/// Why a service was not registered or removed by command.
#[derive(Debug, thiserror::Error)]
pub enum ManageError {
    /// The registration is malformed.
    #[error(transparent)]
    Invalid(#[from] InvalidRegistration),
    /// It does not go together with another.
    #[error(transparent)]
    Conflict(#[from] Conflict),
    /// There is no such service.
    #[error("there is no application service {0:?}")]
    Unknown(String),
    /// It is registered by a file.
    #[error("{id:?} is registered by {file}: remove it there and restart the server")]
    InFile {
        /// The service.
        id: String,
        /// The file.
        file: String,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] millrace_store::Error),
}

/// How a service is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceStatus {
    /// The service.
    pub service: Arc<Service>,
    /// How much waits for it.
    pub waiting: u64,
    /// How often in a row it did not take a transaction.
    pub failures: u32,
}

impl PartialEq for Service {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id && self.as_token == other.as_token
    }
}

impl Eq for Service {}

impl AppServices {
    /// Opens the services of the configuration and those that were registered by command. One that is
    /// both is as the configuration has it. Nothing is sent before [`AppServices::run`].
    ///
    /// # Errors
    /// Where two services do not go together, or the store fails.
    pub async fn open(parts: Parts) -> Result<Self, OpenError> {
        let Parts { registry, rooms, typing, presence, client, settings } = parts;
        let env = rooms.env.clone();
        let mut all = (*registry.now()).clone();
        let rows = env.store.snapshot().scan(&SERVICE_REGISTRATIONS, Node, Scan::all()).await?;
        for (id, text) in rows {
            if let Some(known) = all.by_id(&id) {
                tracing::warn!(
                    id,
                    "registered by {} and by command: the former counts",
                    known.source
                );
                continue;
            }
            match parse(&text, Source::Command, &env.identity.name) {
                Ok(service) => all = all.with(service)?,
                Err(error) => tracing::error!(id, %error, "a registration is left out"),
            }
        }
        for service in all.all() {
            create_service_user(&env, &service.sender).await?;
        }
        registry.0.store(Arc::new(all));
        let began = AtomicU64::new(seq(&env.store.snapshot()));
        let (desks, changed) = (Mutex::default(), Notify::new());
        Ok(Self { registry, rooms, typing, presence, client, settings, desks, changed, began })
    }

    /// The services as they are now.
    #[must_use]
    pub fn registry(&self) -> Arc<Registry> {
        self.registry.now()
    }

    /// Registers a service, for good, or changes one that was registered by command.
    ///
    /// # Errors
    /// As [`ManageError`] says.
    pub async fn register(&self, text: &str) -> Result<Arc<Service>, ManageError> {
        let env = &self.rooms.env;
        let service = parse(text, Source::Command, &env.identity.name)?;
        let id = service.id.clone();
        let now = self.registry.now();
        check_by_command(now.by_id(&id))?;
        let registry = now.without(&id).with(service)?;
        let (key, text) = (&id, &text.to_owned());
        let write = |tx: Tx| {
            tx.put(&SERVICE_REGISTRATIONS, Node, key, text);
            std::future::ready(Ok::<_, millrace_store::Error>(())).boxed()
        };
        env.store.transact(write).await?;
        let unknown = || ManageError::Unknown(id.clone());
        let service = registry.by_id(&id).cloned().ok_or_else(unknown)?;
        create_service_user(env, &service.sender).await?;
        if now.is_empty() {
            self.began.store(seq(&env.store.snapshot()), Ordering::Release);
        }
        self.registry.0.store(Arc::new(registry));
        self.changed.notify_one();
        Ok(service)
    }

    /// Removes a service that was registered by command. What waits for it is forgotten.
    ///
    /// # Errors
    /// As [`ManageError`] says.
    pub async fn unregister(&self, id: &str) -> Result<(), ManageError> {
        let now = self.registry.now();
        let known = now.by_id(id).ok_or_else(|| ManageError::Unknown(id.to_owned()))?;
        check_by_command(Some(known))?;
        let write = |tx: Tx| {
            tx.delete(&SERVICE_REGISTRATIONS, Node, id);
            std::future::ready(Ok::<_, millrace_store::Error>(())).boxed()
        };
        self.rooms.env.store.transact(write).await?;
        self.registry.0.store(Arc::new(now.without(id)));
        self.changed.notify_one();
        Ok(())
    }

    /// How all services are doing.
    ///
    /// # Errors
    /// Where the store cannot be read.
    pub async fn status(&self) -> millrace_store::Result<Vec<ServiceStatus>> {
        let snapshot = self.rooms.env.store.snapshot();
        let registry = self.registry.now();
        let mut all = Vec::with_capacity(registry.all().len());
        for service in registry.all() {
            let queue = snapshot.get(&SERVICE_QUEUE_HEAD, &service.id, ()).await?;
            let queue = queue.unwrap_or_default();
            let progress = snapshot.get(&SERVICE_PROGRESS, &service.id, ()).await?;
            let progress = progress.unwrap_or_default();
            let gone = progress.sent.max(queue.first.saturating_sub(1));
            all.push(ServiceStatus {
                service: Arc::clone(service),
                waiting: queue.last.saturating_sub(gone),
                failures: progress.failures,
            });
        }
        Ok(all)
    }

    /// A service shows that it is there: it is tried again at once.
    pub fn showed_up(&self, service: &Service) {
        if let Some(desk) = self.desks.lock().get(&service.id) {
            desk.showed_up();
        }
    }

    /// Looks at the clock again: for tests, which set it.
    pub fn wake(&self) {
        for desk in self.desks.lock().values() {
            desk.wake();
        }
    }
}

/// What a file registers, a command does not change.
fn check_by_command(known: Option<&Arc<Service>>) -> Result<(), ManageError> {
    match known.map(|known| (&known.id, &known.source)) {
        Some((id, source @ Source::File(_))) => {
            Err(ManageError::InFile { id: id.clone(), file: source.to_string() })
        }
        Some((_, Source::Command)) | None => Ok(()),
    }
}
