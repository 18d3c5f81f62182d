//! Following what is committed: whose pushers have something to do.

use std::{
    collections::{BTreeSet, HashMap},
    num::NonZeroUsize,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use futures::FutureExt;
use lru::LruCache;
use millrace_domain::unread;
use millrace_store::{
    Node, Read, Scan, Snapshot, Tx,
    one_writer::{seq, view},
    rows::room::RoomHead,
    state_tree::StateRoot,
    tables::{
        MEMBERS, PUSH_FOLLOWED, PUSHERS, PUSHERS_BEHIND, PUSHERS_HEAD, RECEIPTS, ROOM_HEAD,
        TIMELINE,
    },
};
use ruma::{OwnedRoomId, OwnedUserId, RoomId, UserId, events::room::member::MembershipState};
use tokio::{task::JoinSet, time::Instant};

use crate::{
    Pushers,
    board::{Target, Work},
};

/// Pushers that are worked on at once.
const STEPS_AT_ONCE: usize = 128;
/// How often it is written down how far everybody got, while there is anything to tell.
const NOTE_EVERY: Duration = Duration::from_secs(5);
/// After so many commits it is written down though nobody was told anything: the log is not endless.
const NOTE_AFTER: u64 = 4000;
/// The clock is looked at so often while anybody waits for a moment.
const WATCH_CLOCK_EVERY: Duration = Duration::from_secs(1);
/// How long after a failure of the store it is tried again.
const RETRY: Duration = Duration::from_secs(1);
/// With more changes of a room than so many, all of it is looked at.
const CHANGES_MAX: usize = 512;
/// The recipients of so many rooms are remembered.
const ROOMS_REMEMBERED: usize = 10_000;
/// Users are listed so many at a time.
const USERS_AT_ONCE: usize = 1000;

/// Who of a room has pushers, by the state and the pushers that it was found out by.
pub(crate) struct Recipients(LruCache<OwnedRoomId, (StateRoot, u64, Arc<Vec<OwnedUserId>>)>);

impl Default for Recipients {
    fn default() -> Self {
        Self(LruCache::new(NonZeroUsize::new(ROOMS_REMEMBERED).expect("not zero")))
    }
}

impl Pushers {
    /// Sends until it is dropped, from where the last run ended.
    pub async fn run(self: Arc<Self>) {
        if !self.settings.enabled {
            return;
        }
        while let Err(error) = self.resume().await {
            tracing::error!(%error, "sending notifications cannot begin");
            tokio::time::sleep(RETRY).await;
        }
        let mut commits = self.rooms.env.store.commits();
        let (mut steps, mut noted) = (JoinSet::new(), Instant::now());
        loop {
            commits.borrow_and_update();
            if let Err(error) = self.follow().await {
                tracing::error!(%error, "what is new for pushers cannot be read");
                tokio::time::sleep(RETRY).await;
                continue;
            }
            let due = self.board.lock().wake(self.now_ms());
            while steps.len() < STEPS_AT_ONCE {
                let Some(begun) = self.board.lock().begin() else { break };
                steps.spawn(Arc::clone(&self).work(begun));
            }
            if noted.elapsed() >= NOTE_EVERY {
                self.note().await;
                noted = Instant::now();
            }
            let pause = match (due, self.may_note()) {
                (Some(_), _) => WATCH_CLOCK_EVERY,
                (None, true) => NOTE_EVERY,
                (None, false) => Duration::from_hours(1),
            };
            tokio::select! {
                changed = commits.changed() => if changed.is_err() { return },
                Some(ended) = steps.join_next(), if !steps.is_empty() => {
                    if let Err(error) = ended {
                        tracing::error!(%error, "a step of a pusher broke off");
                    }
                }
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Writes down how far everybody got. What is not written is sent again after a restart, and
    /// gateways know events that they have had.
    pub async fn note(&self) {
        let reached = self.reached();
        if reached <= self.noted.load(Ordering::Acquire) {
            return;
        }
        let write = |tx: Tx| {
            tx.put(&PUSH_FOLLOWED, Node, (), &reached);
            std::future::ready(Ok::<_, millrace_store::Error>(())).boxed()
        };
        match self.rooms.env.store.transact(write).await {
            Ok(()) => {
                self.noted.store(reached, Ordering::Release);
                self.told.store(false, Ordering::Release);
            }
            Err(error) => tracing::warn!(%error, "how far pushers got could not be written"),
        }
    }

    /// Whether there may be something to note, for little: it is asked at each commit.
    fn may_note(&self) -> bool {
        let noted = self.noted.load(Ordering::Acquire);
        let news = self.followed.load(Ordering::Acquire).saturating_sub(noted);
        let told = self.told.load(Ordering::Acquire);
        news > 0 && (told || news >= NOTE_AFTER || self.board.lock().may_be_unwritten())
    }

    /// Up to where everybody has got everything that no row speaks of.
    fn reached(&self) -> u64 {
        let followed = self.followed.load(Ordering::Acquire);
        let noted = self.noted.load(Ordering::Acquire);
        let board = self.board.lock();
        let told = self.told.load(Ordering::Acquire);
        match board.unwritten_since() {
            Some(since) => since.min(followed),
            None if told || followed.saturating_sub(noted) >= NOTE_AFTER => followed,
            None => noted,
        }
    }

    /// Reads who has pushers and from where to go on.
    async fn resume(&self) -> millrace_store::Result<()> {
        let store = &self.rooms.env.store;
        let mut last: Option<OwnedUserId> = None;
        loop {
            let snapshot = store.snapshot();
            let users = snapshot.partitions(&PUSHERS_HEAD, last.as_ref(), USERS_AT_ONCE).await?;
            let Some(end) = users.last().cloned() else { break };
            for user in users {
                self.read_pushers(&snapshot, &user, seq(&snapshot)).await?;
                for (key, row) in snapshot.scan(&PUSHERS_BEHIND, &user, Scan::all()).await? {
                    self.board.lock().put_behind(&(user.clone(), key), row);
                }
            }
            last = Some(end);
        }
        let snapshot = store.snapshot();
        let followed = snapshot.get(&PUSH_FOLLOWED, Node, ()).await?;
        // Where nothing was ever sent, what there is already is not news.
        self.followed.store(followed.unwrap_or_else(|| seq(&snapshot)), Ordering::Release);
        self.noted.store(followed.unwrap_or(0), Ordering::Release);
        if followed.is_none() {
            self.told.store(true, Ordering::Release);
            self.note().await;
        }
        Ok(())
    }

    async fn read_pushers(
        &self,
        snapshot: &Snapshot,
        user: &UserId,
        set_by: u64,
    ) -> millrace_store::Result<()> {
        // Most users who are touched never had any, or have those that they had.
        let Some(changes) = snapshot.get(&PUSHERS_HEAD, user, ()).await? else { return Ok(()) };
        if self.board.lock().is_current(user, changes) {
            return Ok(());
        }
        let rows = snapshot.scan(&PUSHERS, user, Scan::all()).await?;
        let targets = rows.iter().filter_map(|(_, pusher)| Target::of(pusher)).collect();
        self.board.lock().set(user, targets, (changes, set_by));
        Ok(())
    }

    async fn follow(&self) -> millrace_store::Result<()> {
        let snapshot = self.rooms.env.store.snapshot();
        let (since, reached) = (self.followed.load(Ordering::Acquire), seq(&snapshot));
        if reached <= since {
            return Ok(());
        }
        let Some(touched) = snapshot.touched(&view(since)).await? else {
            // Away for so long that nobody knows where something happened: everybody looks.
            let work = Work { all_rooms: true, since, ..Work::default() };
            let users = self.board.lock().users();
            users.iter().for_each(|user| self.mark(user, &work));
            self.followed.store(reached, Ordering::Release);
            return Ok(());
        };
        for partition in &touched {
            if let Some(user) = partition.partition::<OwnedUserId>() {
                self.read_pushers(&snapshot, &user, since).await?;
            }
        }
        let nobody = self.board.lock().len() == 0;
        for partition in touched.iter().filter(|_| !nobody) {
            if let Some(room) = partition.partition::<OwnedRoomId>() {
                self.room(&snapshot, &room, since).await?;
            }
        }
        self.followed.store(reached, Ordering::Release);
        Ok(())
    }

    fn mark(&self, user: &UserId, work: &Work) {
        let mut board = self.board.lock();
        if board.has(user) {
            board.mark(user, work);
            self.told.store(true, Ordering::Release);
        }
    }

    /// Marks whom news of a room concern.
    async fn room(
        &self,
        snapshot: &Snapshot,
        room: &RoomId,
        since: u64,
    ) -> millrace_store::Result<()> {
        let Some(head) = snapshot.get(&ROOM_HEAD, room, ()).await? else { return Ok(()) };
        let changes = snapshot.changes(room, &view(since), CHANGES_MAX).await?;
        let too_many = changes.len() >= CHANGES_MAX;
        let (mut first, mut readers) = (None, BTreeSet::new());
        for change in &changes {
            if change.table == TIMELINE.info().id {
                let (n, k) = TIMELINE.decode_key(&change.key)?;
                if k == 0 {
                    first = Some(first.map_or(n, |first: i64| first.min(n)));
                }
            } else if change.table == RECEIPTS.info().id {
                readers.insert(RECEIPTS.decode_key(&change.key)?.0);
            }
        }
        if too_many {
            first = unread::first_after(snapshot, room, since).await?;
        }
        if first.is_some() || too_many {
            let rooms: HashMap<_, _> =
                first.map(|first| (room.to_owned(), first)).into_iter().collect();
            let work = Work { rooms, since, read: too_many, ..Work::default() };
            for user in &*self.recipients(snapshot, (room, &head)).await? {
                self.mark(user, &work);
            }
        }
        let work = Work { read: true, since, ..Work::default() };
        readers.iter().for_each(|user| self.mark(user, &work));
        Ok(())
    }

    /// Who of a room has pushers: members, and who is invited.
    async fn recipients(
        &self,
        snapshot: &Snapshot,
        (room, head): (&RoomId, &RoomHead),
    ) -> millrace_store::Result<Arc<Vec<OwnedUserId>>> {
        let (generation, count) = {
            let board = self.board.lock();
            (board.generation, board.len())
        };
        let known = self.recipients.lock().0.get(room).cloned();
        if let Some((root, known_generation, users)) = known
            && root == head.root
            && known_generation == generation
        {
            return Ok(users);
        }
        let of_it = |membership: &MembershipState| {
            matches!(membership, MembershipState::Join | MembershipState::Invite)
        };
        let users: Vec<OwnedUserId> = if (count as u64) < head.joined {
            let users = self.board.lock().users();
            let members = snapshot.get_many(&MEMBERS, room, &users).await?;
            let found = users.into_iter().zip(members);
            let found =
                found.filter(|(_, row)| row.as_ref().is_some_and(|row| of_it(&row.membership)));
            found.map(|(user, _)| user).collect()
        } else {
            let members = snapshot.scan(&MEMBERS, room, Scan::all()).await?;
            let board = self.board.lock();
            let found = members.into_iter();
            let found = found.filter(|(user, row)| of_it(&row.membership) && board.has(user));
            found.map(|(user, _)| user).collect()
        };
        let users = Arc::new(users);
        let row = (head.root, generation, Arc::clone(&users));
        self.recipients.lock().0.put(room.to_owned(), row);
        Ok(users)
    }
}
