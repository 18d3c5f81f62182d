//! Moving forward how far messages have come. It never moves backwards.

use std::collections::{BTreeMap, BTreeSet};

use futures::FutureExt;
use millrace_store::{
    Read, Scan, Snapshot, Tx,
    rows::{
        receipt::{Reach, Receipt},
        room::RoomHead,
    },
    tables::{DELIVERED, MEMBERS, ROOM_HEAD},
};
use ruma::{
    EventId, OwnedEventId, OwnedRoomId, OwnedUserId, RoomId, ServerName, UserId,
    events::room::member::MembershipState,
};

use super::{Deliveries, Way};
use crate::{
    Env, outbox,
    receipts::{Advance, AdvanceError},
    rooms::events::{self, LoadError},
};

/// Rows of members of a room that are looked through for those of one server: a small room with more,
/// almost all of whom have left, is not worth it.
const MEMBERS_LOOKED_AT: usize = 200;

/// A message that came to a device of a user of another server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteDelivery {
    /// Whose device.
    pub user: OwnedUserId,
    /// The message.
    pub event_id: OwnedEventId,
    /// When, in milliseconds since 1970, as their server says.
    pub ts: u64,
}

impl Deliveries {
    /// A client says that it has a message. Nothing is said of an event that is not known, of the
    /// user's own, or of state.
    ///
    /// # Errors
    /// As [`AdvanceError`] says.
    pub async fn advance(
        &self,
        room: &RoomId,
        user: &UserId,
        event: &EventId,
    ) -> Result<Advance, AdvanceError> {
        let snapshot = self.rooms.env.store.snapshot();
        if !is_joined(&snapshot, room, user).await? {
            let (user, room) = (user.to_owned(), room.to_owned());
            return Err(AdvanceError::NotJoined { user, room });
        }
        let ts = self.rooms.env.now().get().into();
        let arrival = self.arrival(room, user, event, ts).await?;
        Ok(match self.write(arrival.as_slice()).await? {
            0 => Advance::Stale,
            _ => Advance::Moved,
        })
    }

    /// Another server says what has come to devices of its users. Only what our users have sent
    /// concerns us.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn receive(
        &self,
        room: &RoomId,
        deliveries: &[RemoteDelivery],
    ) -> Result<(), LoadError> {
        if !self.settings.enabled {
            return Ok(());
        }
        let mut arrivals = Vec::new();
        for RemoteDelivery { user, event_id, ts } in deliveries {
            let arrival = self.arrival(room, user, event_id, *ts).await?;
            arrivals.extend(arrival.filter(|(way, _)| self.rooms.env.is_local(&way.sender)));
        }
        self.write(&arrivals).await?;
        Ok(())
    }

    /// Another server has taken these events of ours, by number, but for those that it refused. Noted for
    /// its users in rooms where the server makes receipts itself.
    ///
    /// # Errors
    /// Where the store cannot be read.
    pub async fn reached(
        &self,
        server: &ServerName,
        events: &[(OwnedRoomId, u64)],
        refused: &BTreeSet<OwnedEventId>,
    ) -> Result<(), LoadError> {
        if !self.settings.enabled {
            return Ok(());
        }
        let snapshot = self.rooms.env.store.snapshot();
        let mut by_room: BTreeMap<&OwnedRoomId, Vec<u64>> = BTreeMap::new();
        for (room, number) in events {
            by_room.entry(room).or_default().push(*number);
        }
        for (room, numbers) in by_room {
            let Some(head) = snapshot.get(&ROOM_HEAD, room, ()).await? else { continue };
            if head.joined > self.settings.members_max {
                continue;
            }
            let theirs = joined_of(&snapshot, room, server).await?;
            for (sender, receipt) in self.sent(&snapshot, (room, &head), &numbers).await? {
                if refused.contains(&receipt.event_id) {
                    continue;
                }
                let way = |recipient: &OwnedUserId| Way {
                    room: room.clone(),
                    sender: sender.clone(),
                    recipient: recipient.clone(),
                    reach: Reach::Server,
                };
                self.arrive(theirs.iter().map(|user| (way(user), receipt.clone())));
            }
        }
        Ok(())
    }

    /// The messages among events, as they come now, each with its sender.
    async fn sent(
        &self,
        snapshot: &Snapshot,
        (room, head): (&RoomId, &RoomHead),
        numbers: &[u64],
    ) -> Result<Vec<(OwnedUserId, Receipt)>, LoadError> {
        let ts = self.rooms.env.now().get().into();
        let events = self.rooms.events.load_with_headers(snapshot, room, head, numbers).await?;
        let messages = events.into_iter().filter_map(|(event, header)| {
            let (pdu, (n, _)) = (&event.pdu, header.place?);
            let receipt = Receipt { event_id: pdu.event_id.clone(), ts, n };
            pdu.state_key.is_none().then(|| (pdu.sender.clone(), receipt))
        });
        Ok(messages.collect())
    }

    /// What it means that a message has come to a user's device.
    async fn arrival(
        &self,
        room: &RoomId,
        user: &UserId,
        event: &EventId,
        ts: u64,
    ) -> Result<Option<(Way, Receipt)>, LoadError> {
        let snapshot = self.rooms.env.store.snapshot();
        let Some((number, header)) = events::find(&snapshot, room, event).await? else {
            return Ok(None);
        };
        let (Some((n, _)), Some(head)) = (header.place, snapshot.get(&ROOM_HEAD, room, ()).await?)
        else {
            return Ok(None);
        };
        let loaded = self.rooms.events.load_one(&snapshot, room, &head.version, number).await?;
        let way = Way {
            room: room.to_owned(),
            sender: loaded.pdu.sender.clone(),
            recipient: user.to_owned(),
            reach: Reach::Device,
        };
        let is_message = loaded.pdu.state_key.is_none() && way.sender != way.recipient;
        Ok(is_message.then(|| (way, Receipt { event_id: event.to_owned(), ts, n })))
    }

    /// Writes down what has come, in one commit. Returns how much of it was news.
    pub(super) async fn write(&self, arrivals: &[(Way, Receipt)]) -> millrace_store::Result<usize> {
        if arrivals.is_empty() {
            return Ok(0);
        }
        let env = &self.rooms.env;
        let write = |tx: Tx| {
            async move {
                let mut moved = 0;
                for (way, receipt) in arrivals {
                    moved += usize::from(move_on(&tx, env, way, receipt).await?);
                }
                Ok(moved)
            }
            .boxed()
        };
        env.store.transact(write).await
    }
}

/// Whether this is news: not where something newer has come as far, or further.
pub(super) async fn is_news(
    read: &impl Read,
    way: &Way,
    receipt: &Receipt,
) -> millrace_store::Result<bool> {
    let Way { room, sender, recipient, reach } = way;
    for further in [Reach::Server, Reach::Device].into_iter().filter(|other| other >= reach) {
        let known = read.get(&DELIVERED, sender.as_str(), (room, recipient, further.id())).await?;
        if known.is_some_and(|known| known.n >= receipt.n) {
            return Ok(false);
        }
    }
    Ok(true)
}

async fn move_on(tx: &Tx, env: &Env, way: &Way, receipt: &Receipt) -> millrace_store::Result<bool> {
    let Way { room, sender, recipient, reach } = way;
    if !is_joined(tx, room, recipient).await? || !is_news(tx, way, receipt).await? {
        return Ok(false);
    }
    tx.put(&DELIVERED, sender.as_str(), (room, recipient, reach.id()), receipt);
    if env.is_local(recipient) && !env.is_local(sender) {
        let (room, sender, recipient) = (room.clone(), sender.clone(), recipient.clone());
        outbox::announce(tx, &outbox::News::Delivery { room, sender, recipient });
    }
    Ok(true)
}

/// The users of a server who are joined to a room.
async fn joined_of(
    snapshot: &Snapshot,
    room: &RoomId,
    server: &ServerName,
) -> millrace_store::Result<Vec<OwnedUserId>> {
    let scan = Scan::all().limit(MEMBERS_LOOKED_AT);
    let members = snapshot.scan(&MEMBERS, room, scan).await?;
    let theirs = members.into_iter().filter(|(user, member)| {
        user.server_name() == server && member.membership == MembershipState::Join
    });
    Ok(theirs.map(|(user, _)| user).collect())
}

async fn is_joined(read: &impl Read, room: &RoomId, user: &UserId) -> millrace_store::Result<bool> {
    let member = read.get(&MEMBERS, room, user).await?;
    Ok(member.is_some_and(|member| member.membership == MembershipState::Join))
}
