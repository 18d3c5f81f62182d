//! Who is typing where (spec: Client-Server API, Typing Notifications). Kept in memory only.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use millrace_store::{PartitionId, Read, tables::MEMBERS};
use parking_lot::Mutex;
use ruma::{OwnedRoomId, OwnedUserId, RoomId, UserId, events::room::member::MembershipState};
use rustc_hash::FxHashMap;
use tokio::sync::Notify;

use crate::{
    Env,
    ephemeral::{EphemeralClock, EphemeralRange},
    rooms::partial,
};

/// So many rooms in which nobody types any more are remembered, for those who saw somebody type.
const QUIET_ROOMS_MAX: usize = 1 << 16;

/// What is announced to watchers of the store whenever anybody begins or ceases to type.
pub const ANNOUNCED: &str = "typing";

/// The typing notifications of all rooms.
pub struct Typing {
    env: Env,
    clock: Arc<EphemeralClock>,
    longest: Duration,
    state: Mutex<State>,
    sooner: Notify,
}

#[derive(Default)]
struct State {
    rooms: FxHashMap<OwnedRoomId, TypingRoom>,
    /// Rooms by their newest change.
    changes: BTreeMap<u64, OwnedRoomId>,
    quiet: usize,
    /// The deadline that the expiry is waiting for.
    next_ms: Option<u64>,
}

#[derive(Default)]
struct TypingRoom {
    /// Who types, until when (milliseconds since 1970).
    users: Vec<(OwnedUserId, u64)>,
    changed: u64,
}

/// Why somebody is not shown as typing.
#[derive(Debug, thiserror::Error)]
pub enum TypingError {
    /// Only members type.
    #[error("{user} is not joined to {room}")]
    NotJoined {
        /// The user.
        user: OwnedUserId,
        /// The room.
        room: OwnedRoomId,
    },
    /// The store failed.
    #[error("could not read the membership")]
    Store(#[from] millrace_store::Error),
}

impl Typing {
    /// Nobody types. Nobody is shown as typing for longer than `longest` after one request.
    /// Whoever builds it also runs [`Typing::run`].
    #[must_use]
    pub fn new(env: Env, clock: Arc<EphemeralClock>, longest: Duration) -> Self {
        Self { env, clock, longest, state: Mutex::default(), sooner: Notify::new() }
    }

    /// Shows `user` as typing in a room for `timeout`, or as not typing (any more).
    ///
    /// # Errors
    /// Where the user is not joined to the room.
    pub async fn set(
        &self,
        room: &RoomId,
        user: &UserId,
        timeout: Option<Duration>,
    ) -> Result<(), TypingError> {
        let member = self.env.store.snapshot().get(&MEMBERS, room, user).await?;
        let joined = match member {
            Some(member) => member.membership == MembershipState::Join,
            None => partial::may_be_member(&self.env.store.snapshot(), room, user).await?,
        };
        if !joined {
            return Err(TypingError::NotJoined { user: user.to_owned(), room: room.to_owned() });
        }
        match timeout {
            Some(timeout) => self.start(room, user, timeout),
            None => self.stop(room, user),
        }
        Ok(())
    }

    fn start(&self, room: &RoomId, user: &UserId, timeout: Duration) {
        let timeout_ms = u64::try_from(timeout.min(self.longest).as_millis()).unwrap_or(u64::MAX);
        let until = self.now_ms().saturating_add(timeout_ms);
        let mut state = self.state.lock();
        let users = &mut state.rooms.entry(room.to_owned()).or_default().users;
        let known = users.iter_mut().find(|(typing, _)| typing == user);
        let news = known.is_none();
        match known {
            Some((_, deadline)) => *deadline = until,
            None => users.push((user.to_owned(), until)),
        }
        let sooner = state.next_ms.is_none_or(|next| until < next);
        if news {
            self.changed(&mut state, room);
        }
        drop(state);
        if sooner {
            self.sooner.notify_one();
        }
    }

    /// Shows those as not typing who are no longer in the room: they left, or were removed.
    ///
    /// # Errors
    /// Where the store cannot be read.
    pub async fn stop_absent(&self, room: &RoomId) -> millrace_store::Result<()> {
        let users = self.users(room);
        if users.is_empty() {
            return Ok(());
        }
        let snapshot = self.env.store.snapshot();
        let members = snapshot.get_many(&MEMBERS, room, users.iter()).await?;
        for (user, member) in users.iter().zip(members) {
            let joined = match member {
                Some(member) => member.membership == MembershipState::Join,
                None => partial::may_be_member(&snapshot, room, user).await?,
            };
            if !joined {
                self.stop(room, user);
            }
        }
        Ok(())
    }

    /// Shows `user` as not typing in any room: their account was given up.
    pub fn stop_everywhere(&self, user: &UserId) {
        let state = self.state.lock();
        let types = |typing: &TypingRoom| typing.users.iter().any(|(typing, _)| typing == user);
        let rooms = state.rooms.iter().filter(|(_, typing)| types(typing));
        let rooms: Vec<_> = rooms.map(|(room, _)| room.clone()).collect();
        drop(state);
        for room in rooms {
            self.stop(&room, user);
        }
    }

    /// Shows `user` as not typing.
    fn stop(&self, room: &RoomId, user: &UserId) {
        let mut state = self.state.lock();
        let Some(typing) = state.rooms.get_mut(room) else { return };
        let before = typing.users.len();
        typing.users.retain(|(typing, _)| typing != user);
        if typing.users.len() < before {
            self.changed(&mut state, room);
        }
    }

    /// Notes and announces a change of who types in a room.
    fn changed(&self, state: &mut State, room: &RoomId) {
        let stamp = self.clock.tick();
        let Some(typing) = state.rooms.get_mut(room) else { return };
        let old = std::mem::replace(&mut typing.changed, stamp);
        state.changes.remove(&old);
        state.changes.insert(stamp, room.to_owned());
        state.quiet += usize::from(typing.users.is_empty());
        if state.quiet > QUIET_ROOMS_MAX {
            state.forget_quiet();
        }
        let everywhere = PartitionId::of::<String>(&ANNOUNCED);
        self.env.store.watchers().announce([PartitionId::of::<OwnedRoomId>(&room), everywhere]);
    }

    /// This moment, for [`Typing::changed_since`].
    #[must_use]
    pub fn moment(&self) -> (u64, u64) {
        self.clock.token()
    }

    /// The rooms in which who types has changed between two moments.
    #[must_use]
    pub fn changed_since(&self, since: Option<(u64, u64)>, now: (u64, u64)) -> Vec<OwnedRoomId> {
        self.since(self.clock.range(since, now))
    }

    /// The rooms in which who types has changed, the oldest change first.
    #[must_use]
    pub fn since(&self, range: EphemeralRange) -> Vec<OwnedRoomId> {
        if range.since >= range.up_to {
            return Vec::new();
        }
        let state = self.state.lock();
        state.changes.range(range.since + 1..=range.up_to).map(|(_, room)| room.clone()).collect()
    }

    /// Who types in a room, in the order in which they began.
    #[must_use]
    pub fn users(&self, room: &RoomId) -> Vec<OwnedUserId> {
        let state = self.state.lock();
        let users = state.rooms.get(room).map(|typing| &typing.users);
        users.into_iter().flatten().map(|(user, _)| user.clone()).collect()
    }

    /// Ends what has expired, and tells how long until the next does.
    pub fn expire(&self) -> Option<Duration> {
        let now = self.now_ms();
        let mut state = self.state.lock();
        let mut ended = Vec::new();
        let mut next: Option<u64> = None;
        for (room, typing) in &mut state.rooms {
            let before = typing.users.len();
            typing.users.retain(|(_, until)| *until > now);
            if typing.users.len() < before {
                ended.push(room.clone());
            }
            let soonest = typing.users.iter().map(|(_, until)| *until).min();
            next = next.into_iter().chain(soonest).min();
        }
        for room in &ended {
            self.changed(&mut state, room);
        }
        state.next_ms = next;
        next.map(|next| Duration::from_millis(next - now))
    }

    /// Ends what expires, for ever.
    pub async fn run(&self) {
        loop {
            let sooner = self.sooner.notified();
            match self.expire() {
                None => sooner.await,
                Some(wait) => {
                    let _ = tokio::time::timeout(wait, sooner).await;
                }
            }
        }
    }

    fn now_ms(&self) -> u64 {
        self.env.now().get().into()
    }
}

impl State {
    fn forget_quiet(&mut self) {
        self.rooms.retain(|_, typing| !typing.users.is_empty());
        let rooms = &self.rooms;
        self.changes.retain(|_, room| rooms.contains_key(room));
        self.quiet = 0;
    }
}

#[cfg(test)]
mod tests {
    use ruma::{room_id, user_id};

    use super::*;
    use crate::testing;

    async fn world() -> (Typing, Arc<EphemeralClock>, Arc<testing::TestClock>) {
        let (env, time) = testing::env_on(millrace_store::engine::MemoryEngine::new()).await;
        let clock = Arc::new(EphemeralClock::new(&env));
        (Typing::new(env, clock.clone(), Duration::from_mins(2)), clock, time)
    }

    #[tokio::test]
    async fn a_reader_hears_of_a_start_and_of_its_expiry_once_each() {
        let (typing, clock, time) = world().await;
        let (room, alice) = (room_id!("!r:test.example"), user_id!("@alice:test.example"));
        let begin = clock.token();
        typing.start(room, alice, Duration::from_secs(10));
        let started = clock.token();
        assert_eq!(typing.since(clock.range(Some(begin), started)), [room]);
        assert_eq!(typing.users(room), [alice]);
        typing.start(room, alice, Duration::from_secs(20));
        assert_eq!(clock.token(), started, "typing on is no news");
        assert_eq!(typing.expire(), Some(Duration::from_secs(20)));
        time.advance(20_000);
        assert_eq!(typing.expire(), None);
        let ended = clock.token();
        assert_eq!(typing.since(clock.range(Some(started), ended)), [room]);
        assert!(typing.users(room).is_empty());
        assert!(typing.since(clock.range(Some(ended), clock.token())).is_empty());
    }

    #[tokio::test]
    async fn a_token_of_another_run_is_given_everything() {
        let (typing, clock, _) = world().await;
        let room = room_id!("!r:test.example");
        typing.start(room, user_id!("@alice:test.example"), Duration::from_secs(10));
        let (boot, counter) = clock.token();
        let foreign = Some((boot ^ 1, counter));
        assert_eq!(typing.since(clock.range(foreign, (boot, counter))), [room]);
    }

    #[tokio::test]
    async fn a_start_wakes_whoever_watches_the_room() {
        let (typing, _, _) = world().await;
        let room = room_id!("!r:test.example");
        let watch = typing.env.store.watch(vec![PartitionId::of::<OwnedRoomId>(&room)]);
        typing.start(room, user_id!("@alice:test.example"), Duration::from_secs(10));
        watch.changed().await;
    }

    #[tokio::test]
    async fn who_gave_up_their_account_types_nowhere() {
        let (typing, clock, _) = world().await;
        let rooms = [room_id!("!a:test.example"), room_id!("!b:test.example")];
        let (alice, bob) = (user_id!("@alice:test.example"), user_id!("@bob:test.example"));
        for room in rooms {
            typing.start(room, alice, Duration::from_secs(10));
        }
        typing.start(rooms[1], bob, Duration::from_secs(10));
        let before = clock.token();
        typing.stop_everywhere(alice);
        assert!(typing.users(rooms[0]).is_empty());
        assert_eq!(typing.users(rooms[1]), [bob]);
        let mut told = typing.since(clock.range(Some(before), clock.token()));
        told.sort();
        assert_eq!(told, rooms, "both rooms hear of it");
    }

    #[tokio::test]
    async fn only_members_type() {
        let (typing, _, _) = world().await;
        let room = room_id!("!r:test.example");
        let refused = typing.set(room, user_id!("@eve:test.example"), None).await;
        assert!(matches!(refused, Err(TypingError::NotJoined { .. })));
    }
}
