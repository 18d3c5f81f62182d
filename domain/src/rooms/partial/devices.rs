//! Changes of devices while it was not known who is in a room: those of others are told to clients, and
//! ours to servers that were taken for being elsewhere, when it is.

use std::collections::BTreeSet;

use millrace_store::{
    Node, Position, Read, Scan, View,
    rows::partial::Completion,
    tables::{
        DEVICE_LIST, DEVICE_LISTS, PARTIAL_DEVICES, PARTIAL_ROOMS, PARTIAL_SERVERS, ROOM_SERVERS,
    },
};
use ruma::{OwnedServerName, OwnedUserId, UserId, events::room::member::MembershipState};

use crate::{
    accounts::device_list_changed,
    outbox,
    rooms::{AppendError, RoomTx},
};

/// Users of one room whose early changes are remembered; those beyond tell of the next one.
pub(crate) const EARLY_MAX: usize = 1000;
/// Changes of device lists that are looked at.
const CHANGES_MAX: usize = 10_000;

impl RoomTx<'_> {
    /// Lets our users know of the devices of members that changed before we knew of the members.
    pub(super) async fn tell_of_early_devices(&self) -> Result<(), AppendError> {
        let scan = Scan::all().limit(EARLY_MAX);
        for (user, ()) in self.tx.scan(&PARTIAL_DEVICES, &self.room_id, scan).await? {
            self.tx.delete(&PARTIAL_DEVICES, &self.room_id, &user);
            if self.membership(&user).await? == MembershipState::Join {
                device_list_changed(self.tx, &user, [&*self.room_id]);
            }
        }
        Ok(())
    }

    /// Notes which servers are in the room, or were since we joined it, of which nobody had told that:
    /// they may have missed something. To be asked once, before those that were told are uncounted.
    pub(super) async fn find_untold(&self, completion: &mut Completion) -> Result<(), AppendError> {
        if completion.untold.is_some() {
            return Ok(());
        }
        let read = self.tx.unprotected();
        let rows = read.scan(&ROOM_SERVERS, &self.room_id, Scan::all()).await?;
        let counted = rows.into_iter().filter(|(_, row)| row.joined > 0).map(|(server, _)| server);
        let members = self.servers_to_count(completion).await?;
        let moved = completion.moved.iter().cloned();
        let servers: BTreeSet<OwnedServerName> = moved.chain(counted).chain(members).collect();
        let told = read.get_many(&PARTIAL_SERVERS, &self.room_id, servers.iter()).await?;
        let untold = servers.into_iter().zip(told).filter(|(_, told)| told.is_none());
        let ours = &self.rooms.env.identity.name;
        let untold = untold.map(|(server, _)| server).filter(|server| server != ours);
        completion.untold = Some(untold.collect());
        Ok(())
    }

    /// The servers of members whom the complete state has otherwise than the current one.
    pub(super) async fn servers_to_count(
        &self,
        completion: &Completion,
    ) -> Result<BTreeSet<OwnedServerName>, AppendError> {
        let complete = completion.root.unwrap_or(self.head.root);
        let changes = self.rooms.states.diff(self.tx, &self.room_id, self.flat, complete).await?;
        let members = changes.iter().filter(|change| change.key.event_type == "m.room.member");
        let members = members.filter_map(|change| UserId::parse(&*change.key.state_key).ok());
        Ok(members.map(|user| user.server_name().to_owned()).collect())
    }

    /// Lets servers know of devices of our users that changed while we did not know that they are in
    /// the room.
    pub(super) async fn tell_missed_devices(
        &self,
        servers: &[OwnedServerName],
    ) -> Result<(), AppendError> {
        if servers.is_empty() {
            return Ok(());
        }
        for user in self.users_with_changed_devices().await? {
            for server in servers {
                let (server, user) = (server.clone(), user.clone());
                outbox::announce(self.tx, &outbox::News::Missed { server, user });
            }
        }
        Ok(())
    }

    /// Our users in the room whose devices or keys changed since it is partial.
    async fn users_with_changed_devices(&self) -> Result<BTreeSet<OwnedUserId>, AppendError> {
        let read = self.tx.unprotected();
        let since = read.get_stamped(&PARTIAL_ROOMS, Node, &self.room_id).await?;
        let Some((Position { writer, seq }, ())) = since else { return Ok(BTreeSet::new()) };
        let since = View::at(Position { writer, seq });
        let changes = read.changes::<String>(DEVICE_LISTS, &since, CHANGES_MAX).await?;
        let mut users = BTreeSet::new();
        for change in changes.iter().filter(|change| change.table == DEVICE_LIST.info().id) {
            let user: OwnedUserId = DEVICE_LIST.decode_key(&change.key)?;
            if self.rooms.env.is_local(&user)
                && !users.contains(&user)
                && self.membership(&user).await? == MembershipState::Join
            {
                users.insert(user);
            }
        }
        Ok(users)
    }
}
