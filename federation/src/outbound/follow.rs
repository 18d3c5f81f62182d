//! Following the log of news, and telling the servers that it concerns.

use std::{
    collections::BTreeSet,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use millrace_domain::{
    outbox::{self, News},
    presence, typing,
};
use millrace_store::{
    Node, PartitionId, Read, Scan, Snapshot,
    one_writer::{seq, view},
    rows::receipt::{Reach, ReceiptKind},
    tables::{
        DELIVERED, DEVICE_LIST, DEVICE_LISTS, OUTBOX_FOLLOWED, OUTBOX_NEWS, RECEIPTS, ROOM_SERVERS,
        USER_ROOMS,
    },
};
use ruma::{
    OwnedRoomId, OwnedServerName, OwnedUserId, RoomId, ServerName, UserId,
    events::room::member::MembershipState,
};
use tokio::{sync::broadcast::error::RecvError, task::JoinSet};

use super::{
    Outbound, backoff,
    board::{Introduced, Pending},
    edus, task,
};

/// How often it is written down how far everybody was told.
const NOTE_EVERY: Duration = Duration::from_secs(5);
/// The follower looks at the clock at least so often while anybody waits.
const LONGEST_SLEEP: Duration = Duration::from_mins(10);
/// So many servers are tried again at once; the others a moment later.
const REVIVED_AT_ONCE: usize = 64;
/// The rooms of one user are looked at up to so many.
pub(super) const ROOMS_MAX: usize = 10_000;

impl Outbound {
    /// Sends until it is dropped, from where the last run ended.
    pub async fn run(self: Arc<Self>) {
        if !self.settings.enabled {
            return;
        }
        let watch = self.federation.env.store.watch(vec![
            PartitionId::of::<String>(&OUTBOX_NEWS),
            PartitionId::of::<String>(&DEVICE_LISTS),
            PartitionId::of::<String>(&typing::ANNOUNCED),
            PartitionId::of::<String>(&presence::ANNOUNCED),
        ]);
        while let Err(error) = self.resume().await {
            tracing::error!(%error, "sending to other servers cannot begin");
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        let mut returned = self.federation.destinations.returned();
        let mut tasks = JoinSet::new();
        loop {
            if let Err(error) = self.step().await {
                tracing::error!(%error, "news for other servers cannot be read");
                tokio::time::sleep(Duration::from_secs(1)).await;
                continue;
            }
            for queue in self.board.lock().take_begun() {
                tasks.spawn(task::run(Arc::clone(&self), queue));
            }
            let pause = self.pause();
            tokio::select! {
                () = watch.changed() => {}
                () = self.nudge.notified() => {}
                server = returned.recv() => self.showed_up(server),
                () = tokio::time::sleep(pause) => {}
                Some(ended) = tasks.join_next(), if !tasks.is_empty() => {
                    if let Err(error) = ended {
                        tracing::error!(%error, "the task of a server broke off");
                    }
                }
            }
        }
    }

    /// A server that was down is up again, or has contacted us.
    fn showed_up(&self, server: Result<OwnedServerName, RecvError>) {
        let servers = match server {
            Ok(server) => vec![server],
            // Some were missed: whoever it was, it is not said to be down any more.
            Err(RecvError::Lagged(_)) => self.board.lock().all_waiting(),
            Err(RecvError::Closed) => return,
        };
        let (now, destinations) = (self.now_ms(), &self.federation.destinations);
        for server in servers {
            let due = destinations.due_at(&server).map_or(now, |due| due.get().into());
            self.board.lock().showed_up(&server, due);
        }
    }

    /// Reads from where to go on.
    async fn resume(&self) -> millrace_store::Result<()> {
        let env = &self.federation.env;
        let failing = backoff::failing(env).await?;
        let followed = env.store.snapshot().get(&OUTBOX_FOLLOWED, Node, ()).await?;
        let mut board = self.board.lock();
        for (server, due) in failing {
            board.put_off(&server, due);
        }
        drop(board);
        self.followed.store(followed.unwrap_or(0), Ordering::Release);
        self.noted.store(followed.unwrap_or(0), Ordering::Release);
        Ok(())
    }

    /// Tells what is new, and begins the tries that are due.
    async fn step(&self) -> millrace_store::Result<()> {
        self.follow().await?;
        self.follow_ephemeral().await?;
        self.revive();
        let (followed, noted) = (self.followed(), self.noted.load(Ordering::Acquire));
        // Written down now and then only: what is told twice is sent once.
        if followed.saturating_sub(noted) > 0 && self.note_is_due() {
            self.note_followed().await?;
        }
        Ok(())
    }

    /// Begins the tries that are due.
    fn revive(&self) {
        let (now, floor) = (self.now_ms(), self.followed());
        let mut board = self.board.lock();
        for _ in 0..REVIVED_AT_ONCE {
            if !board.revive_one(now, floor) {
                break;
            }
        }
    }

    /// How long nothing is to be done unless something happens.
    fn pause(&self) -> Duration {
        let now = self.now_ms();
        let due = self.board.lock().next_due();
        let due = due.map(|due| Duration::from_millis(due.saturating_sub(now)));
        let note = (self.followed() > self.noted.load(Ordering::Acquire)).then_some(NOTE_EVERY);
        let typing = self.typing_due().map(|due| Duration::from_millis(due.saturating_sub(now)));
        let soonest = due.into_iter().chain(note).chain(typing).min();
        // Never none at all, which would keep a processor busy if a clock stood still.
        soonest.unwrap_or(LONGEST_SLEEP).clamp(Duration::from_millis(5), LONGEST_SLEEP)
    }

    async fn follow(&self) -> millrace_store::Result<()> {
        let followed = self.followed();
        let snapshot = self.federation.env.store.snapshot();
        let reached = seq(&snapshot);
        if reached <= followed {
            return Ok(());
        }
        for news in outbox::news(&snapshot, &view(followed)).await? {
            self.tell(&snapshot, followed, &news).await?;
        }
        self.tell_device_lists(&snapshot, followed).await?;
        // First the news, then how far they go, then the bell: a task that looks at a room before it
        // may see the news keeps it, and is woken again.
        self.followed.store(reached, Ordering::Release);
        self.board.lock().ring();
        Ok(())
    }

    async fn tell(
        &self,
        snapshot: &Snapshot,
        followed: u64,
        news: &News,
    ) -> millrace_store::Result<()> {
        match news {
            News::Room(room) => {
                let told = seq(snapshot);
                self.learn_room(snapshot, room).await?;
                self.board.lock().tell_room(room, followed, |pending| {
                    pending.rooms.insert(room.clone(), told);
                });
            }
            News::Server { room, server } => {
                let row = snapshot.get(&ROOM_SERVERS, room, server).await?;
                let told = seq(snapshot);
                let mut board = self.board.lock();
                board.moved(room, server, row.is_some_and(|row| row.joined > 0));
                // Also who left: it is told of its leaving.
                board.tell(server, followed, |pending| {
                    pending.rooms.insert(room.clone(), told);
                });
            }
            News::Receipt { room, user, thread } if self.settings.receipts => {
                let key = (user, ReceiptKind::Public.id(), thread.as_str());
                let Some(receipt) = snapshot.get(&RECEIPTS, room, key).await? else {
                    return Ok(());
                };
                self.learn_room(snapshot, room).await?;
                self.board.lock().tell_room(room, followed, |pending| {
                    if pending.has_room_for_ephemeral() {
                        let key = (room.clone(), user.clone(), thread.clone());
                        pending.receipts.insert(key, receipt.clone());
                    }
                });
            }
            News::Receipt { .. } => {}
            News::Delivery { room, sender, recipient } => {
                self.tell_delivery(snapshot, followed, (room, sender, recipient)).await?;
            }
            News::Joined { room, user, partial } => {
                self.learn_room(snapshot, room).await?;
                // Who is in a room that we know in part is not sure yet: they are told what they need. So
                // are they of users whom its completion brings back: they were told of them before.
                let devices = if *partial { Introduced::WithKeys } else { Introduced::All };
                self.board
                    .lock()
                    .tell_room(room, followed, |pending| pending.introduce(user, devices));
            }
            News::Missed { server, user } => {
                if edus::shares_room(snapshot, server, user).await? {
                    let introduce =
                        |pending: &mut Pending| pending.introduce(user, Introduced::All);
                    self.board.lock().tell(server, followed, introduce);
                }
            }
            News::ToDevice(server) => {
                self.board.lock().tell(server, followed, |pending| pending.to_device = true);
            }
        }
        Ok(())
    }

    /// Tells the server of a sender, and no other (MSC4089), that a message has come to a device here.
    async fn tell_delivery(
        &self,
        snapshot: &Snapshot,
        followed: u64,
        (room, sender, recipient): (&OwnedRoomId, &OwnedUserId, &OwnedUserId),
    ) -> millrace_store::Result<()> {
        if !self.settings.receipts {
            return Ok(());
        }
        let (server, key) = (sender.server_name(), (room, recipient, Reach::Device.id()));
        let delivery = snapshot.get(&DELIVERED, sender.as_str(), key).await?;
        let stay = snapshot.get(&ROOM_SERVERS, room, server).await?;
        if let Some(delivery) = delivery
            && stay.is_some_and(|stay| stay.joined > 0)
        {
            self.board.lock().tell(server, followed, |pending| {
                if pending.has_room_for_ephemeral() {
                    let key = (room.clone(), recipient.clone(), sender.clone());
                    pending.deliveries.insert(key, delivery.clone());
                }
            });
        }
        Ok(())
    }

    /// Makes sure that the board knows the other servers of a room.
    pub(super) async fn learn_room(
        &self,
        snapshot: &Snapshot,
        room: &RoomId,
    ) -> millrace_store::Result<()> {
        if self.board.lock().knows(room) {
            return Ok(());
        }
        let ours = &*self.federation.env.identity.name;
        let rows = snapshot.scan(&ROOM_SERVERS, room, Scan::all()).await?;
        let others = rows.into_iter().filter(|(server, row)| row.joined > 0 && server != ours);
        let others: Vec<OwnedServerName> = others.map(|(server, _)| server).collect();
        self.board.lock().learn(room, others);
        Ok(())
    }

    /// Tells those who share a room with a user of ours that the user's devices have changed.
    async fn tell_device_lists(
        &self,
        snapshot: &Snapshot,
        followed: u64,
    ) -> millrace_store::Result<()> {
        let store = &self.federation.env.store;
        let since = view(followed);
        if store.news(&[PartitionId::of::<String>(&DEVICE_LISTS)], &since).is_empty() {
            return Ok(());
        }
        let changes = snapshot.changes::<String>(DEVICE_LISTS, &since, usize::MAX).await?;
        let mut users: BTreeSet<OwnedUserId> = BTreeSet::new();
        for change in changes.iter().filter(|change| change.table == DEVICE_LIST.info().id) {
            users.insert(DEVICE_LIST.decode_key(&change.key)?);
        }
        for user in users.iter().filter(|user| self.federation.env.is_local(user)) {
            for room in joined_rooms(snapshot, user).await? {
                self.learn_room(snapshot, &room).await?;
                self.board.lock().tell_room(&room, followed, |pending| pending.devices = true);
            }
        }
        Ok(())
    }

    /// Whether it has been long enough since it was last written down how far everybody was told.
    fn note_is_due(&self) -> bool {
        let mut last = self.last_note.lock();
        let due = last.is_none_or(|last| last.elapsed() >= NOTE_EVERY);
        if due {
            *last = Some(tokio::time::Instant::now());
        }
        due
    }

    /// What a server that answers again has to be told from now on.
    pub(super) fn came_back(&self, server: &ServerName, rooms: &[OwnedRoomId]) {
        self.board.lock().came_back(server, rooms);
    }
}

/// The rooms to which a user of ours is joined.
pub(super) async fn joined_rooms(
    snapshot: &Snapshot,
    user: &UserId,
) -> millrace_store::Result<Vec<OwnedRoomId>> {
    let rooms = snapshot.scan(&USER_ROOMS, user, Scan::all().limit(ROOMS_MAX)).await?;
    let joined = rooms.into_iter().filter(|(_, row)| row.membership == MembershipState::Join);
    Ok(joined.map(|(room, _)| room).collect())
}
