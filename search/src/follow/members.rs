//! Indexing who is in a room. The index follows the room's state from the root that it had to the one
//! that it has, whatever made it change.

use millrace_domain::profiles;
use millrace_store::{
    Read, Scan, Snapshot,
    one_writer::view,
    rows::room::{Member as MemberRow, RoomHead},
    state_tree::StateRoot,
    tables::{CURRENT_STATE, MEMBERS, PROFILES, ROOM_HEAD, TIMELINE, USER_ROOMS},
};
use ruma::{OwnedUserId, RoomId, UserId, events::room::member::MembershipState};
use serde::Deserialize;

use super::{FollowError, Gathered, public_room};
use crate::{
    Search,
    index::{Change, Member},
};

/// Members are read so many at a time.
const MEMBERS_AT_ONCE: usize = 500;
/// With more changes of a user than so many, the profile is taken to be among them.
const CHANGES_MAX: usize = 256;
/// The rooms of one user are looked at up to so many.
const ROOMS_MAX: usize = 10_000;

#[derive(Deserialize)]
struct MemberContent {
    displayname: Option<String>,
}

impl Search {
    /// Indexes the members of a room that have changed since the live event before `first`.
    pub(super) async fn members(
        &self,
        snapshot: &Snapshot,
        (room, head): (&RoomId, &RoomHead),
        first: Option<i64>,
        gathered: &mut Gathered,
    ) -> Result<(), FollowError> {
        let Some(first) = first else { return Ok(()) };
        let before = snapshot.get(&TIMELINE, room, (first - 1, 0)).await?;
        let old = before.map_or(StateRoot::EMPTY, |row| row.after);
        if old == head.root {
            return Ok(());
        }
        if old == StateRoot::EMPTY {
            return self.all_members(snapshot, room, head, gathered).await;
        }
        let changes = self.rooms.states.diff(snapshot, room, old, head.root).await?;
        let is_door =
            |kind: &str| matches!(kind, "m.room.join_rules" | "m.room.history_visibility");
        if changes.iter().any(|change| is_door(&change.key.event_type)) {
            // Those who may know of the members are others now.
            return self.all_members(snapshot, room, head, gathered).await;
        }
        let members = changes.iter().filter(|change| &*change.key.event_type == "m.room.member");
        let users: Vec<OwnedUserId> =
            members.filter_map(|change| UserId::parse(&*change.key.state_key).ok()).collect();
        let is_public = self.is_public(snapshot, (room, head)).await?;
        for users in users.chunks(MEMBERS_AT_ONCE) {
            let rows = snapshot.get_many(&MEMBERS, room, users).await?;
            let members = users.iter().cloned().zip(rows).collect();
            self.index_members(snapshot, (room, head), (members, is_public), gathered).await?;
        }
        Ok(())
    }

    async fn all_members(
        &self,
        snapshot: &Snapshot,
        room: &RoomId,
        head: &RoomHead,
        gathered: &mut Gathered,
    ) -> Result<(), FollowError> {
        let is_public = self.is_public(snapshot, (room, head)).await?;
        let mut last: Option<OwnedUserId> = None;
        loop {
            let scan = last.as_ref().map_or_else(Scan::all, |last| Scan::all().after(last));
            let rows = snapshot.scan(&MEMBERS, room, scan.limit(MEMBERS_AT_ONCE)).await?;
            let Some((end, _)) = rows.last() else { return Ok(()) };
            last = Some(end.clone());
            let members = rows.into_iter().map(|(user, row)| (user, Some(row))).collect();
            self.index_members(snapshot, (room, head), (members, is_public), gathered).await?;
        }
    }

    async fn index_members(
        &self,
        snapshot: &Snapshot,
        (room, head): (&RoomId, &RoomHead),
        (members, is_public): (Vec<(OwnedUserId, Option<MemberRow>)>, bool),
        gathered: &mut Gathered,
    ) -> Result<(), FollowError> {
        let mut changes = Vec::with_capacity(members.len());
        for (user, row) in members {
            let joined = row.filter(|row| row.membership == MembershipState::Join);
            changes.push(match joined {
                Some(row) => {
                    let name = self.name(snapshot, (room, head), (&user, row.event)).await?;
                    Change::Member(Member { room: room.to_owned(), user, name, is_public })
                }
                None => Change::NoMember(room.to_owned(), user),
            });
        }
        self.gather(gathered, changes).await
    }

    /// The name by which others may know a user: that of the profile, and of another server's user
    /// that of the member event.
    async fn name(
        &self,
        snapshot: &Snapshot,
        (room, head): (&RoomId, &RoomHead),
        (user, event): (&UserId, u64),
    ) -> Result<Option<String>, FollowError> {
        if self.rooms.env.is_local(user) {
            return Ok(profiles::shown_in_rooms(snapshot, user).await?.0);
        }
        let event = self.rooms.events.load_one(snapshot, room, &head.version, event).await?;
        Ok(event.pdu.content_as::<MemberContent>().ok().and_then(|content| content.displayname))
    }

    /// Whether everybody may look into a room.
    pub(crate) async fn is_public(
        &self,
        snapshot: &Snapshot,
        (room, head): (&RoomId, &RoomHead),
    ) -> Result<bool, FollowError> {
        let places = [("m.room.join_rules", ""), ("m.room.history_visibility", "")];
        let numbers = snapshot.get_many(&CURRENT_STATE, room, places).await?;
        let numbers: Vec<u64> = numbers.into_iter().flatten().collect();
        let events = self.rooms.events.load(snapshot, room, &head.version, &numbers).await?;
        Ok(events.iter().any(|event| public_room(&event.pdu)))
    }

    /// Indexes a user of ours again whose profile has changed.
    pub(super) async fn profile(
        &self,
        snapshot: &Snapshot,
        user: &UserId,
        since: u64,
        gathered: &mut Gathered,
    ) -> Result<(), FollowError> {
        if !self.rooms.env.is_local(user) {
            return Ok(());
        }
        let changes = snapshot.changes(user, &view(since), CHANGES_MAX).await?;
        let is_profile = |table| table == PROFILES.info().id;
        if changes.len() < CHANGES_MAX && !changes.iter().any(|change| is_profile(change.table)) {
            return Ok(());
        }
        let (name, _) = profiles::shown_in_rooms(snapshot, user).await?;
        let rooms = snapshot.scan(&USER_ROOMS, user, Scan::all().limit(ROOMS_MAX)).await?;
        for (room, row) in rooms {
            let head = snapshot.get(&ROOM_HEAD, &room, ()).await?;
            let (MembershipState::Join, Some(head)) = (row.membership, head) else { continue };
            let is_public = self.is_public(snapshot, (&room, &head)).await?;
            let member = Member { room, user: user.to_owned(), name: name.clone(), is_public };
            self.gather(gathered, [Change::Member(member)]).await?;
        }
        Ok(())
    }
}
