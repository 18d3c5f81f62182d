//! Whose devices changed, for services that encrypt (MSC3202): of whom they share an encrypted room
//! with, as a client's sync tells it.

use std::collections::{BTreeMap, BTreeSet};

use millrace_domain::rooms::{Event, servers};
use millrace_store::{
    Read, Scan, Snapshot,
    one_writer::view,
    rows::{appservice::Queued, room::RoomHead},
    state_tree::StateRoot,
    tables::{CURRENT_STATE, DEVICE_LIST, DEVICE_LISTS, MEMBERS, USER_ROOMS},
};
use ruma::{
    DeviceId, OwnedRoomId, OwnedUserId, RoomId, UserId, events::room::member::MembershipState,
};

use super::{FollowError, Follower, News, interest::Interest};

/// The rooms of one user are looked at up to so many.
const ROOMS_MAX: usize = 10_000;
/// The members of a room that is new to a service are told up to so many.
const MEMBERS_MAX: usize = 10_000;

/// Who came to a room and who went.
#[derive(Default)]
struct Moved {
    came: BTreeSet<OwnedUserId>,
    went: BTreeSet<OwnedUserId>,
}

impl Follower<'_> {
    /// The services that are told of devices.
    fn encrypting(&self) -> BTreeSet<usize> {
        self.listening().filter(|(_, s)| s.told.encryption).map(|(at, _)| at).collect()
    }

    /// Applies the change of a room's state from one root to another to who is in it, and returns
    /// whose devices services have to look at, or need not follow any more.
    pub(super) async fn shift(
        &self,
        snapshot: &Snapshot,
        (room, head): (&RoomId, &RoomHead),
        (old, new): (StateRoot, StateRoot),
        (interest, event): (&mut Interest, &Event),
    ) -> Result<Vec<(usize, Queued)>, FollowError> {
        let encrypting = self.encrypting();
        let encrypted = !encrypting.is_empty() && is_encrypted(snapshot, room).await?;
        let before: BTreeSet<usize> = interest.services().collect();
        let mut moved = Moved::default();
        let states = &self.services.rooms.states;
        for difference in states.diff(snapshot, room, old, new).await? {
            if &*difference.key.event_type != "m.room.member" {
                continue;
            }
            let Ok(user) = UserId::parse(&*difference.key.state_key) else { continue };
            if !self.is_local(&user) && !encrypted {
                continue;
            }
            let is = self.is_joined_by(snapshot, (room, head), difference.new).await?;
            if self.is_local(&user) {
                interest.set(&self.registry, &user, is);
            }
            if encrypted {
                let was = self.is_joined_by(snapshot, (room, head), difference.old).await?;
                match (was, is) {
                    (false, true) => moved.came.insert(user),
                    (true, false) => moved.went.insert(user),
                    (false, false) | (true, true) => false,
                };
            }
        }
        if !encrypted {
            return Ok(Vec::new());
        }
        let begins = event.pdu.is_state_of(&"m.room.encryption".into(), "");
        let mut queued = Vec::new();
        for service in encrypting {
            match (before.contains(&service), interest.has(service)) {
                // All members are new to it.
                (false, true) => queued.extend(all(service, members(snapshot, room).await?)),
                (true, true) if begins => {
                    queued.extend(all(service, members(snapshot, room).await?));
                }
                (true, true) => {
                    queued.extend(all(service, moved.came.iter().cloned()));
                    let went = moved.went.iter().cloned();
                    queued.extend(went.map(|user| (service, Queued::DevicesLeft(user))));
                }
                (_, false) => {}
            }
        }
        self.drop_still_shared(snapshot, &mut queued).await?;
        Ok(queued)
    }

    /// Of those who left a room, keeps only those with whom the service shares no other.
    async fn drop_still_shared(
        &self,
        snapshot: &Snapshot,
        queued: &mut Vec<(usize, Queued)>,
    ) -> Result<(), FollowError> {
        let left = |what: &Queued| matches!(what, Queued::DevicesLeft(_));
        if !queued.iter().any(|(_, what)| left(what)) {
            return Ok(());
        }
        let mut kept = Vec::with_capacity(queued.len());
        for (service, what) in queued.drain(..) {
            if let Queued::DevicesLeft(user) = &what {
                let mut shares = false;
                for room in self.rooms_of(snapshot, user).await? {
                    shares = is_encrypted(snapshot, &room).await?
                        && self.has_somebody(snapshot, &room, service).await?;
                    if shares {
                        break;
                    }
                }
                if shares {
                    continue;
                }
            }
            kept.push((service, what));
        }
        *queued = kept;
        Ok(())
    }

    /// The rooms that a user is in and we know of.
    pub(super) async fn rooms_of(
        &self,
        snapshot: &Snapshot,
        user: &UserId,
    ) -> Result<Vec<OwnedRoomId>, FollowError> {
        if self.is_local(user) {
            let rows = snapshot.scan(&USER_ROOMS, user, Scan::all().limit(ROOMS_MAX)).await?;
            let joined =
                rows.into_iter().filter(|(_, row)| row.membership == MembershipState::Join);
            return Ok(joined.map(|(room, _)| room).collect());
        }
        let mut shared = Vec::new();
        let env = &self.services.rooms.env;
        for room in servers::rooms_shared_with(snapshot, env, user.server_name()).await? {
            let member = snapshot.get(&MEMBERS, &room, user).await?;
            if member.is_some_and(|member| member.membership == MembershipState::Join) {
                shared.push(room);
            }
            if shared.len() == ROOMS_MAX {
                break;
            }
        }
        Ok(shared)
    }

    /// Queues the users in the log of changed devices.
    pub(super) async fn device_lists(
        &mut self,
        snapshot: &Snapshot,
        since: u64,
        news: &mut Vec<News>,
    ) -> Result<(), FollowError> {
        let encrypting = self.encrypting();
        if encrypting.is_empty() {
            return Ok(());
        }
        let mut users: BTreeMap<OwnedUserId, u64> = BTreeMap::new();
        let changes = snapshot.changes::<String>(DEVICE_LISTS, &view(since), usize::MAX).await?;
        for change in changes.iter().filter(|change| change.table == DEVICE_LIST.info().id) {
            // The newest comes first.
            users.entry(DEVICE_LIST.decode_key(&change.key)?).or_insert(change.position.seq);
        }
        for (user, seq) in users {
            let mut wanted = encrypting.clone();
            for room in self.rooms_of(snapshot, &user).await? {
                if wanted.is_empty() {
                    break;
                }
                if !is_encrypted(snapshot, &room).await? {
                    continue;
                }
                for service in self.interested_now(snapshot, &room).await? {
                    if wanted.remove(&service) {
                        let what = Queued::DevicesChanged(user.clone());
                        news.push(News { seq, service, what });
                    }
                }
            }
        }
        Ok(())
    }

    /// Queues that a device has more or fewer one-time keys.
    pub(super) fn key_counts(
        &self,
        seq: u64,
        user: &UserId,
        device: &DeviceId,
        news: &mut Vec<News>,
    ) {
        for service in self.encrypting() {
            if self.registry.all()[service].keeps_user(user) {
                let (user, device) = (user.to_owned(), device.to_owned());
                news.push(News { seq, service, what: Queued::KeyCounts { user, device } });
            }
        }
    }
}

fn all(
    service: usize,
    users: impl IntoIterator<Item = OwnedUserId>,
) -> impl Iterator<Item = (usize, Queued)> {
    users.into_iter().map(move |user| (service, Queued::DevicesChanged(user)))
}

async fn is_encrypted(snapshot: &Snapshot, room: &RoomId) -> Result<bool, FollowError> {
    Ok(snapshot.get(&CURRENT_STATE, room, ("m.room.encryption", "")).await?.is_some())
}

async fn members(snapshot: &Snapshot, room: &RoomId) -> Result<Vec<OwnedUserId>, FollowError> {
    let rows = snapshot.scan(&MEMBERS, room, Scan::all().limit(MEMBERS_MAX)).await?;
    let joined = rows.into_iter().filter(|(_, row)| row.membership == MembershipState::Join);
    Ok(joined.map(|(user, _)| user).collect())
}
