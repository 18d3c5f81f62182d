//! Who of a service's users is in which room, remembered between commits.

use std::{
    collections::{BTreeMap, BTreeSet},
    num::NonZeroUsize,
};

use lru::LruCache;
use millrace_domain::rooms::Event;
use millrace_store::{
    Read, Scan, Snapshot,
    rows::room::RoomHead,
    state_tree::StateRoot,
    tables::{MEMBERS, ROOM_ALIASES, ROOM_HEAD, TIMELINE},
};
use ruma::{OwnedRoomId, OwnedUserId, RoomId, UserId, events::room::member::MembershipState};
use serde::Deserialize;

use super::{FollowError, Follower};
use crate::Registry;

/// So many rooms are remembered.
const ROOMS_MAX: NonZeroUsize = NonZeroUsize::new(8192).expect("not zero");
/// Members are read so many at a time.
const MEMBERS_AT_ONCE: usize = 500;

/// Rooms, as of the newest commit of each that was followed.
pub(super) struct Interests {
    rooms: LruCache<OwnedRoomId, Interest>,
}

impl Default for Interests {
    fn default() -> Self {
        Self { rooms: LruCache::new(ROOMS_MAX) }
    }
}

/// The users of services who are in a room, at one place of its timeline.
#[derive(Debug, Clone)]
pub(super) struct Interest {
    /// The place: `n` of the newest live event before it.
    pub n: i64,
    /// The room's state there.
    pub root: StateRoot,
    /// Who is joined, and of which services each is.
    joined: BTreeMap<OwnedUserId, Vec<usize>>,
    /// How many users of each service are joined.
    counts: BTreeMap<usize, usize>,
}

impl Interest {
    fn nobody(n: i64, root: StateRoot) -> Self {
        Self { n, root, joined: BTreeMap::new(), counts: BTreeMap::new() }
    }

    /// The services that have somebody in the room.
    pub fn services(&self) -> impl Iterator<Item = usize> {
        self.counts.keys().copied()
    }

    pub fn has(&self, service: usize) -> bool {
        self.counts.contains_key(&service)
    }

    /// Notes that a user is joined or not.
    pub fn set(&mut self, registry: &Registry, user: &UserId, joined: bool) {
        if !joined {
            for service in self.joined.remove(user).into_iter().flatten() {
                if let Some(count) = self.counts.get_mut(&service) {
                    *count -= 1;
                    if *count == 0 {
                        self.counts.remove(&service);
                    }
                }
            }
            return;
        }
        if self.joined.contains_key(user) {
            return;
        }
        let of = services_of(registry, user);
        if of.is_empty() {
            return;
        }
        for service in &of {
            *self.counts.entry(*service).or_default() += 1;
        }
        self.joined.insert(user.to_owned(), of);
    }
}

/// The services that have a user in their namespaces, by their places in the registry.
pub(super) fn services_of(registry: &Registry, user: &UserId) -> Vec<usize> {
    let all = registry.all().iter().enumerate();
    all.filter(|(_, service)| service.has_user(user)).map(|(at, _)| at).collect()
}

#[derive(Deserialize)]
struct MemberContent {
    membership: MembershipState,
}

/// Whether an event says that somebody is joined.
pub(super) fn is_join(event: &Event) -> bool {
    let content = event.pdu.content_as::<MemberContent>();
    content.is_ok_and(|content| content.membership == MembershipState::Join)
}

impl Follower<'_> {
    /// Who is in a room before its live event `n`.
    pub(super) async fn interest_before(
        &mut self,
        snapshot: &Snapshot,
        (room, head): (&RoomId, &RoomHead),
        n: i64,
    ) -> Result<Interest, FollowError> {
        let before = snapshot.get(&TIMELINE, room, (n - 1, 0)).await?;
        let root = before.map_or(StateRoot::EMPTY, |row| row.after);
        let known = self.interests.rooms.pop(room);
        match known.filter(|known| known.n == n - 1 && known.root == root) {
            Some(known) => Ok(known),
            None => self.interest_at(snapshot, (room, head), (n - 1, root)).await,
        }
    }

    pub(super) fn remember(&mut self, room: &RoomId, interest: Interest) {
        self.interests.rooms.put(room.to_owned(), interest);
    }

    /// The services that have somebody in a room now.
    pub(super) async fn interested_now(
        &mut self,
        snapshot: &Snapshot,
        room: &RoomId,
    ) -> Result<BTreeSet<usize>, FollowError> {
        let Some(head) = snapshot.get(&ROOM_HEAD, room, ()).await? else {
            return Ok(BTreeSet::new());
        };
        let known = self.interests.rooms.get(room);
        if let Some(known) = known.filter(|known| known.n == head.last && known.root == head.root) {
            return Ok(known.services().collect());
        }
        let place = (head.last, head.root);
        let interest = self.interest_at(snapshot, (room, &head), place).await?;
        let services = interest.services().collect();
        self.remember(room, interest);
        Ok(services)
    }

    /// Whether a service has somebody in a room now, without remembering it.
    pub(super) async fn has_somebody(
        &self,
        snapshot: &Snapshot,
        room: &RoomId,
        service: usize,
    ) -> Result<bool, FollowError> {
        let Some(head) = snapshot.get(&ROOM_HEAD, room, ()).await? else { return Ok(false) };
        let known = self.interests.rooms.peek(room);
        if let Some(known) = known.filter(|known| known.n == head.last && known.root == head.root) {
            return Ok(known.has(service));
        }
        let place = (head.last, head.root);
        Ok(self.interest_at(snapshot, (room, &head), place).await?.has(service))
    }

    /// Who is in a room at a place: who is in it now, but for those who came or went since.
    async fn interest_at(
        &self,
        snapshot: &Snapshot,
        (room, head): (&RoomId, &RoomHead),
        (n, root): (i64, StateRoot),
    ) -> Result<Interest, FollowError> {
        let mut interest = Interest::nobody(n, root);
        if root == StateRoot::EMPTY {
            return Ok(interest);
        }
        if head.joined_here > 0 {
            for prefix in self.prefixes() {
                self.add_members(snapshot, room, &prefix, &mut interest).await?;
            }
        }
        let rooms = &self.services.rooms;
        for difference in rooms.states.diff(snapshot, room, head.root, root).await? {
            if &*difference.key.event_type != "m.room.member" {
                continue;
            }
            let Ok(user) = UserId::parse(&*difference.key.state_key) else { continue };
            if !self.is_local(&user) {
                continue;
            }
            let joined = self.is_joined_by(snapshot, (room, head), difference.new).await?;
            interest.set(&self.registry, &user, joined);
        }
        Ok(interest)
    }

    /// Whether the member event of a number, if there is one, is a join.
    pub(super) async fn is_joined_by(
        &self,
        snapshot: &Snapshot,
        (room, head): (&RoomId, &RoomHead),
        number: Option<u64>,
    ) -> Result<bool, FollowError> {
        let Some(number) = number else { return Ok(false) };
        let events = &self.services.rooms.events;
        Ok(is_join(&*events.load_one(snapshot, room, &head.version, number).await?))
    }

    /// What the users of services begin with, so that of a large room only they are read.
    fn prefixes(&self) -> BTreeSet<String> {
        let mut all: BTreeSet<String> = BTreeSet::new();
        for (_, service) in self.listening() {
            all.insert(service.sender.to_string());
            all.extend(service.namespaces.users.iter().map(crate::registration::Namespace::prefix));
        }
        let within = |prefix: &String| {
            all.iter().any(|other| other != prefix && prefix.starts_with(other.as_str()))
        };
        all.iter().filter(|prefix| !within(prefix)).cloned().collect()
    }

    async fn add_members(
        &self,
        snapshot: &Snapshot,
        room: &RoomId,
        prefix: &str,
        interest: &mut Interest,
    ) -> Result<(), FollowError> {
        let mut last: Option<OwnedUserId> = None;
        loop {
            let mut scan = match &last {
                Some(last) => Scan::all().after(last),
                None => Scan::all().from(prefix),
            };
            if let Some(end) = after_all(prefix) {
                scan = scan.before(end.as_str());
            }
            let rows = snapshot.scan(&MEMBERS, room, scan.limit(MEMBERS_AT_ONCE)).await?;
            let Some((end, _)) = rows.last() else { return Ok(()) };
            last = Some(end.clone());
            for (user, row) in rows {
                if row.membership == MembershipState::Join && self.is_local(&user) {
                    interest.set(&self.registry, &user, true);
                }
            }
        }
    }

    /// The services that are interested in a room whoever is in it.
    pub(super) async fn interested_always(
        &self,
        snapshot: &Snapshot,
        room: &RoomId,
    ) -> Result<BTreeSet<usize>, FollowError> {
        let all = || self.listening();
        let mut found: BTreeSet<usize> =
            all().filter(|(_, service)| service.has_room(room)).map(|(at, _)| at).collect();
        if all().any(|(_, service)| !service.namespaces.aliases.is_empty()) {
            for (alias, ()) in snapshot.scan(&ROOM_ALIASES, room, Scan::all()).await? {
                found.extend(all().filter(|(_, s)| s.has_alias(&alias)).map(|(at, _)| at));
            }
        }
        Ok(found)
    }
}

/// The first text after all that begin with `prefix`; none where there is none.
fn after_all(prefix: &str) -> Option<String> {
    let mut end = prefix.to_owned();
    while let Some(last) = end.pop() {
        if let Some(next) = char::from_u32(last as u32 + 1) {
            end.push(next);
            return Some(end);
        }
    }
    None
}
