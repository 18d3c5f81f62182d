//! Following the log of commits, and queueing for each service what it is interested in.
//!
//! How far was followed is written in the same commit as what was queued, so that each thing is
//! queued once, whatever happens. What is not durable is told to the workers in memory.

mod devices;
mod ephemeral;
mod forget;
mod interest;
mod queue;
mod rooms;
mod users;

use std::{
    collections::BTreeSet,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use millrace_domain::{
    keys, presence,
    rooms::{ReadError, events::LoadError, states::StateError},
    typing,
};
use millrace_store::{
    Node, PartitionId, PartitionKey, Read, Snapshot,
    one_writer::{seq, view},
    rows::appservice::Queued,
    tables::{DEVICE_LISTS, ROOM_HEAD, SERVICES_FOLLOWED, TO_DEVICE_HEAD},
};
use ruma::{OwnedRoomId, OwnedUserId};

use self::{ephemeral::Told, interest::Interests};
use crate::{AppServices, Registry, send};

/// How long after a failure it is tried again.
const RETRY: Duration = Duration::from_secs(1);
/// After so many commits without anything for a service it is written down how far was followed: the
/// log of commits is not endless.
const NOTE_EVERY: u64 = 1000;
/// Rooms and users are listed so many at a time.
const LISTED_AT_ONCE: usize = 500;

/// Why following stopped.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FollowError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] millrace_store::Error),
    /// An event cannot be loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// A state cannot be read.
    #[error(transparent)]
    State(#[from] StateError),
    /// A room cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
}

impl FollowError {
    /// Whether the same would happen again and again, for what is stored.
    const fn is_of_the_room(&self) -> bool {
        match self {
            Self::Store(_) | Self::Load(LoadError::Store(_)) => false,
            Self::Load(_) | Self::State(_) | Self::Read(_) => true,
        }
    }
}

/// Something for a service, with the commit that brought it.
struct News {
    seq: u64,
    service: usize,
    what: Queued,
}

/// Who follows: how far, for whom, and what is remembered of rooms.
struct Follower<'a> {
    services: &'a Arc<AppServices>,
    registry: Arc<Registry>,
    /// The commit up to which everything was queued; none before that is known.
    followed: Option<u64>,
    /// What was last written down of it.
    noted: u64,
    interests: Interests,
    told: Told,
}

impl AppServices {
    /// Follows the store and sends to services, until it is dropped.
    pub async fn run(self: Arc<Self>) {
        let store = &self.rooms.env.store;
        let watch = store.watch(vec![
            PartitionId::of::<String>(&typing::ANNOUNCED),
            PartitionId::of::<String>(&presence::ANNOUNCED),
        ]);
        let mut commits = store.commits();
        let mut follower = Follower::new(&self);
        let mut workers = send::Workers::default();
        loop {
            commits.borrow_and_update();
            if let Err(error) = follower.step(&mut workers).await {
                tracing::error!(%error, "what application services are to be told cannot be queued");
                tokio::time::sleep(RETRY).await;
                continue;
            }
            let idle = follower.registry.is_empty();
            tokio::select! {
                changed = commits.changed(), if !idle => if changed.is_err() { return },
                () = watch.changed(), if !idle => {}
                () = self.changed.notified() => {}
            }
        }
    }
}

impl<'a> Follower<'a> {
    fn new(services: &'a Arc<AppServices>) -> Self {
        Self {
            services,
            registry: Arc::default(),
            followed: None,
            noted: 0,
            interests: Interests::default(),
            told: Told::default(),
        }
    }

    /// Queues all that is new.
    async fn step(&mut self, workers: &mut send::Workers) -> Result<(), FollowError> {
        let registry = self.services.registry.now();
        if !Arc::ptr_eq(&registry, &self.registry) || self.followed.is_none() {
            self.begin(registry, workers).await?;
        }
        if self.registry.is_empty() {
            return Ok(());
        }
        let snapshot = self.services.rooms.env.store.snapshot();
        self.follow(&snapshot).await?;
        self.follow_ephemeral(&snapshot).await?;
        for desk in self.services.desks.lock().values() {
            desk.ring();
        }
        Ok(())
    }

    /// Services came or went.
    async fn begin(
        &mut self,
        registry: Arc<Registry>,
        workers: &mut send::Workers,
    ) -> Result<(), FollowError> {
        let snapshot = self.services.rooms.env.store.snapshot();
        self.forget_absent(&registry).await?;
        if registry.is_empty() {
            // Whoever comes next begins then.
            self.services.forget_followed().await?;
            self.followed = Some(seq(&snapshot));
        } else if self.followed.is_none() || self.registry.is_empty() {
            let stored = match self.followed {
                None => snapshot.get(&SERVICES_FOLLOWED, Node, ()).await?,
                Some(_) => None,
            };
            let began = self.services.began.load(Ordering::Acquire);
            self.followed = Some(stored.unwrap_or(began));
        }
        self.interests = Interests::default();
        self.registry = registry;
        workers.attend(self.services, &self.registry);
        Ok(())
    }

    async fn follow(&mut self, snapshot: &Snapshot) -> Result<(), FollowError> {
        let (since, until) = (self.followed.unwrap_or(0), seq(snapshot));
        if until <= since {
            return Ok(());
        }
        let touched = match snapshot.touched(&view(since)).await? {
            Some(touched) => touched,
            None => {
                tracing::warn!("looking at all rooms for news for application services");
                self.everything(snapshot).await?
            }
        };
        let mut news = Vec::new();
        // Rooms first: what else there is asks who is in them.
        for room in touched.iter().filter_map(PartitionKey::partition::<OwnedRoomId>) {
            match self.room(snapshot, &room, since, &mut news).await {
                Err(error) if error.is_of_the_room() => {
                    tracing::warn!(%error, %room, "a room cannot be shown to application services");
                }
                other => other?,
            }
        }
        for user in touched.iter().filter_map(PartitionKey::partition::<OwnedUserId>) {
            self.user(snapshot, &user, since, &mut news).await?;
        }
        for name in touched.iter().filter_map(PartitionKey::partition::<String>) {
            if name == DEVICE_LISTS {
                self.device_lists(snapshot, since, &mut news).await?;
            } else if let Some((user, device)) = keys::counts_of(&name) {
                self.key_counts(until, &user, &device, &mut news);
            }
        }
        self.put(news, until).await?;
        self.followed = Some(until);
        Ok(())
    }

    /// All partitions in which there could be something, where the log does not reach back so far.
    async fn everything(&self, snapshot: &Snapshot) -> Result<BTreeSet<PartitionKey>, FollowError> {
        let mut all = BTreeSet::from([PartitionKey::of::<String>(&DEVICE_LISTS)]);
        let mut last: Option<OwnedRoomId> = None;
        loop {
            let rooms = snapshot.partitions(&ROOM_HEAD, last.as_ref(), LISTED_AT_ONCE).await?;
            let Some(end) = rooms.last() else { break };
            all.extend(rooms.iter().map(PartitionKey::of::<OwnedRoomId>));
            last = Some(end.clone());
        }
        let mut last: Option<OwnedUserId> = None;
        loop {
            let users = snapshot.partitions(&TO_DEVICE_HEAD, last.as_ref(), LISTED_AT_ONCE).await?;
            let Some(end) = users.last() else { return Ok(all) };
            all.extend(users.iter().map(PartitionKey::of::<OwnedUserId>));
            last = Some(end.clone());
        }
    }

    /// The services that are sent to, by their places in the registry.
    fn listening(&self) -> impl Iterator<Item = (usize, &Arc<crate::Service>)> {
        self.registry.all().iter().enumerate().filter(|(_, service)| service.url.is_some())
    }

    fn is_local(&self, user: &ruma::UserId) -> bool {
        self.services.rooms.env.is_local(user)
    }
}
