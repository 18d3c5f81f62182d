//! Waking those who are shown a change of presence.

use std::sync::Arc;

use millrace_store::{
    PartitionId, Read, Scan, Snapshot,
    tables::{MEMBERS, USER_ROOMS},
};
use ruma::{OwnedRoomId, OwnedUserId, UserId, events::room::member::MembershipState};

use super::{ANNOUNCED, Changed, Presence, State};
use crate::rooms::servers;

/// Nobody's presence is announced in more rooms than so many.
const ROOMS_MAX: usize = 10_000;

impl Presence {
    /// Counts a change, and announces it in the rooms of its user, and to the user.
    pub(super) async fn announce(&self, changed: Option<Changed>) -> millrace_store::Result<()> {
        let Some(Changed(user)) = changed else { return Ok(()) };
        let rooms = self.joined_rooms(&user).await?;
        self.stamp(&user, &rooms);
        let own = PartitionId::of::<OwnedUserId>(&user);
        let everywhere = PartitionId::of::<String>(&ANNOUNCED);
        self.env.store.watchers().announce(rooms.iter().copied().chain([own, everywhere]));
        Ok(())
    }

    /// The change and its rooms at once, so that no reader passes it by for not sharing a room.
    fn stamp(&self, user: &UserId, rooms: &Arc<[PartitionId]>) {
        let mut state = self.state.lock();
        let State { users, changes, .. } = &mut *state;
        let Some(record) = users.get_mut(user) else { return };
        record.rooms = Arc::clone(rooms);
        let stamp = self.clock.tick();
        changes.remove(&std::mem::replace(&mut record.changed, stamp));
        changes.insert(stamp, user.to_owned());
    }

    pub(super) async fn joined_rooms(
        &self,
        user: &UserId,
    ) -> millrace_store::Result<Arc<[PartitionId]>> {
        let snapshot = self.env.store.snapshot();
        if !self.env.is_local(user) {
            return self.shared_rooms(&snapshot, user).await;
        }
        let rooms = snapshot.scan(&USER_ROOMS, user, Scan::all().limit(ROOMS_MAX)).await?;
        let joined = rooms.iter().filter(|(_, row)| row.membership == MembershipState::Join);
        Ok(joined.map(|(room, _)| PartitionId::of::<OwnedRoomId>(room)).collect())
    }

    /// The rooms that we share with a user of another server.
    async fn shared_rooms(
        &self,
        snapshot: &Snapshot,
        user: &UserId,
    ) -> millrace_store::Result<Arc<[PartitionId]>> {
        let mut shared = Vec::new();
        for room in servers::rooms_shared_with(snapshot, &self.env, user.server_name()).await? {
            let member = snapshot.get(&MEMBERS, &room, user).await?;
            if member.is_some_and(|member| member.membership == MembershipState::Join) {
                shared.push(PartitionId::of::<OwnedRoomId>(&room));
            }
            if shared.len() == ROOMS_MAX {
                break;
            }
        }
        Ok(shared.into())
    }

    /// Whether two users share a room, so that one may see the other's presence.
    ///
    /// # Errors
    /// Where the store cannot be read.
    pub async fn is_visible(&self, reader: &UserId, of: &UserId) -> millrace_store::Result<bool> {
        if reader == of {
            return Ok(true);
        }
        let mine = self.joined_rooms(reader).await?;
        let theirs = self.joined_rooms(of).await?;
        Ok(theirs.iter().any(|room| mine.contains(room)))
    }
}
