//! The worker that indexes what was committed.

mod members;
mod messages;
mod text;

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use millrace_domain::rooms::{ReadError, events::LoadError, states::StateError};
use millrace_store::{
    Read, Snapshot,
    one_writer::{seq, view},
    tables::{COMPLETED, ROOM_HEAD},
};
use ruma::{OwnedRoomId, OwnedUserId, RoomId};

pub(crate) use self::{
    messages::is_encrypted,
    text::{public_room, text_of},
};
use crate::{
    Search,
    index::{Change, IndexError, Pass, Progress},
};

/// How long news may gather before they are indexed, unless somebody searches.
const LINGER: Duration = Duration::from_secs(10);
/// How long after a failure it is tried again.
const RETRY: Duration = Duration::from_secs(5);
/// So many changes are handed to the index at once.
const BATCH: usize = 1000;
/// After so many changes they are made durable, so that an index that is made anew goes on from there
/// after a restart.
const COMMIT_EVERY: usize = 50_000;
/// After so many commits without any change it is written down how far the index goes: the log that
/// tells where something happened is not endless.
const NOTE_EVERY: u64 = 4000;
/// Rooms are listed so many at a time.
const ROOMS_AT_ONCE: usize = 500;

/// Why indexing stopped.
#[derive(Debug, thiserror::Error)]
pub enum FollowError {
    /// The index failed.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] millrace_store::Error),
    /// A room cannot be read.
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
            Self::Index(_) | Self::Store(_) | Self::Load(LoadError::Store(_)) => false,
            Self::Load(_) | Self::State(_) | Self::Read(_) => true,
        }
    }
}

/// Changes on their way to the index.
#[derive(Default)]
struct Gathered {
    changes: Vec<Change>,
    /// Handed over, and not durable yet.
    uncommitted: usize,
}

impl Search {
    /// Follows the store until it is dropped.
    pub async fn run(self: Arc<Self>) {
        let mut commits = self.rooms.env.store.commits();
        loop {
            commits.borrow_and_update();
            if let Err(error) = self.follow().await {
                tracing::error!(%error, "what was committed cannot be indexed");
                tokio::time::sleep(RETRY).await;
                continue;
            }
            if commits.changed().await.is_err() {
                return;
            }
            tokio::select! {
                () = tokio::time::sleep(LINGER) => {}
                () = self.asked.notified() => {}
            }
        }
    }

    /// Indexes all that is committed.
    ///
    /// # Errors
    /// As [`FollowError`] says; what is not indexed then is tried again by the next call.
    pub async fn follow(&self) -> Result<(), FollowError> {
        let _turn = self.turn.lock().await;
        let wanted = seq(&self.rooms.env.store.snapshot());
        while self.reached() < wanted {
            self.step().await?;
        }
        Ok(())
    }

    async fn step(&self) -> Result<(), FollowError> {
        let snapshot = self.rooms.env.store.snapshot();
        let (since, mut until) = (self.reached(), seq(&snapshot));
        let mut gathered = Gathered::default();
        let begun = self.index.progress().pass;
        let touched = match begun {
            None if since > 0 => snapshot.touched(&view(since)).await?,
            _ => None,
        };
        match touched {
            Some(touched) => {
                for partition in touched {
                    if let Some(room) = partition.partition::<OwnedRoomId>() {
                        self.room(&snapshot, &room, since, &mut gathered).await?;
                    } else if let Some(user) = partition.partition::<OwnedUserId>() {
                        self.profile(&snapshot, &user, since, &mut gathered).await?;
                    }
                }
            }
            None => {
                // Rooms that an earlier run went through are indexed as they were then.
                until = begun.as_ref().map_or(until, |pass| pass.until);
                let last = begun.map(|pass| pass.room);
                self.all_rooms(last, (since, until), &mut gathered).await?;
            }
        }
        self.hand_over(&mut gathered).await?;
        let progress = self.index.progress();
        let unnoted = until.saturating_sub(progress.followed) >= NOTE_EVERY;
        if gathered.uncommitted > 0 || unnoted || progress.pass.is_some() {
            self.commit(Progress { followed: until, pass: None, ..progress }).await?;
        }
        self.reached.store(until, Ordering::Release);
        self.advanced.send_replace(());
        Ok(())
    }

    /// Goes through every room, from the one after `last` on.
    async fn all_rooms(
        &self,
        mut last: Option<OwnedRoomId>,
        (since, until): (u64, u64),
        gathered: &mut Gathered,
    ) -> Result<(), FollowError> {
        tracing::info!("indexing all rooms for the search");
        loop {
            let snapshot = self.rooms.env.store.snapshot();
            let rooms = snapshot.partitions(&ROOM_HEAD, last.as_ref(), ROOMS_AT_ONCE).await?;
            let Some(end) = rooms.last().cloned() else { break };
            for room in rooms {
                self.room(&snapshot, &room, since, gathered).await?;
                if gathered.uncommitted >= COMMIT_EVERY {
                    self.hand_over(gathered).await?;
                    let progress = self.index.progress();
                    self.commit(Progress { pass: Some(Pass { room, until }), ..progress }).await?;
                    gathered.uncommitted = 0;
                }
            }
            last = Some(end);
        }
        tracing::info!("all rooms are indexed");
        Ok(())
    }

    /// Indexes what is new in a room. One that cannot be read is left out: it must not hold up others.
    async fn room(
        &self,
        snapshot: &Snapshot,
        room: &RoomId,
        since: u64,
        gathered: &mut Gathered,
    ) -> Result<(), FollowError> {
        match self.news_of_room(snapshot, room, since, gathered).await {
            Err(error) if error.is_of_the_room() => {
                tracing::warn!(%error, %room, "a room cannot be indexed");
                Ok(())
            }
            other => other,
        }
    }

    async fn news_of_room(
        &self,
        snapshot: &Snapshot,
        room: &RoomId,
        since: u64,
        gathered: &mut Gathered,
    ) -> Result<(), FollowError> {
        let Some(head) = snapshot.get(&ROOM_HEAD, room, ()).await? else { return Ok(()) };
        let first = self.messages(snapshot, (room, &head), since, gathered).await?;
        // Members who came to be known when a room was completed came by no event.
        let completed = snapshot.get_stamped(&COMPLETED, room, ()).await?;
        let completed = completed.is_some_and(|(position, _)| position.seq > since);
        let first = if completed { Some(0) } else { first };
        self.members(snapshot, (room, &head), first, gathered).await
    }

    async fn gather(
        &self,
        gathered: &mut Gathered,
        changes: impl IntoIterator<Item = Change>,
    ) -> Result<(), FollowError> {
        gathered.changes.extend(changes);
        if gathered.changes.len() >= BATCH { self.hand_over(gathered).await } else { Ok(()) }
    }

    async fn hand_over(&self, gathered: &mut Gathered) -> Result<(), FollowError> {
        let changes = std::mem::take(&mut gathered.changes);
        if changes.is_empty() {
            return Ok(());
        }
        gathered.uncommitted += changes.len();
        Ok(self.on_index(move |index| index.apply(&changes)).await?)
    }

    async fn commit(&self, progress: Progress) -> Result<(), FollowError> {
        Ok(self.on_index(move |index| index.commit(progress)).await?)
    }
}
