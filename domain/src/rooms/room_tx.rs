//! An open room within a transaction.

use std::sync::Arc;

use millrace_model::rules::power_levels::PowerLevels;
use millrace_store::{
    Read, Tx,
    rows::room::{EventHeader, Member, RoomHead},
    state_tree::StateRoot,
    tables::{CURRENT_STATE, EVENT_HEADERS, MEMBERS, ROOM_HEAD},
};
use ruma::{
    OwnedRoomId, OwnedServerName, RoomId, RoomVersionId, UserId,
    events::room::member::MembershipState, room_version_rules::RoomVersionRules,
};

use super::{
    AppendError, Event, Rooms,
    partial::Members,
    policy::{Answers, Vouching},
};

/// Event numbers drawn before a transaction, for the events that it will append. A transaction
/// that runs again uses the same ones, and what policy servers have said of its events meanwhile.
#[derive(Debug, Clone)]
pub struct Numbers {
    drawn: Vec<u64>,
    pub(super) vouching: Vouching,
}

impl Numbers {
    /// Draws `count` numbers.
    ///
    /// # Errors
    /// Where no numbers can be reserved.
    pub async fn draw(rooms: &Rooms, count: usize) -> millrace_store::Result<Self> {
        let mut drawn = Vec::with_capacity(count);
        for _ in 0..count {
            drawn.push(rooms.env.store.next_event_number().await?);
        }
        Ok(Self { drawn, vouching: Vouching::default() })
    }

    /// The numbers themselves.
    pub(super) fn take(self) -> Vec<u64> {
        self.drawn
    }
}

/// A room, open for reading and for appending events, within one transaction.
///
/// Its head was read, so the transaction runs again if anybody else appends meanwhile. Nothing is
/// appended for good before [`RoomTx::finish`].
pub struct RoomTx<'a> {
    pub(super) tx: &'a Tx,
    pub(super) rooms: &'a Rooms,
    /// The room.
    pub room_id: OwnedRoomId,
    /// Rules of the room's version.
    pub rules: &'static RoomVersionRules,
    /// The newest of the room.
    pub head: RoomHead,
    /// The root of the state that the flat tables show.
    pub(super) flat: StateRoot,
    /// Whether all members are known.
    pub(super) members: Members,
    pub(super) numbers: std::vec::IntoIter<u64>,
    /// The server of a user whose invitation or knock the newest event ended.
    pub(super) turned_away: Option<OwnedServerName>,
    pub(super) vouching: Vouching,
    pub(super) answers: Answers,
}

impl<'a> RoomTx<'a> {
    /// Opens a room; `None` where there is no such room.
    ///
    /// # Errors
    /// Where the store cannot be read or the room's version is not known.
    pub async fn open(
        tx: &'a Tx,
        rooms: &'a Rooms,
        room_id: &RoomId,
        numbers: &Numbers,
    ) -> Result<Option<Self>, AppendError> {
        let Some(head) = tx.get(&ROOM_HEAD, room_id, ()).await? else { return Ok(None) };
        Self::with_head(tx, rooms, room_id.to_owned(), head, numbers).map(Some)
    }

    /// A room that does not exist yet. Its first event must be the create event, and where the
    /// room version names rooms by it, `room_id` is only a placeholder until then.
    ///
    /// # Errors
    /// Where the version is not known.
    pub fn create(
        tx: &'a Tx,
        rooms: &'a Rooms,
        room_id: OwnedRoomId,
        version: RoomVersionId,
        numbers: &Numbers,
    ) -> Result<Self, AppendError> {
        let head = RoomHead::new(version);
        Self::with_head(tx, rooms, room_id, head, numbers)
    }

    /// A room with a head that is known.
    pub(super) fn with_head(
        tx: &'a Tx,
        rooms: &'a Rooms,
        room_id: OwnedRoomId,
        head: RoomHead,
        numbers: &Numbers,
    ) -> Result<Self, AppendError> {
        let rules = (rooms.env.rules)(&head.version)
            .ok_or_else(|| AppendError::Version(head.version.clone()))?;
        let (vouching, answers) = (numbers.vouching.clone(), numbers.vouching.answers());
        let numbers = numbers.drawn.clone().into_iter();
        let flat = head.root;
        let members = if head.partial.is_some() { Members::Some } else { Members::All };
        let turned_away = None;
        Ok(Self {
            tx,
            rooms,
            room_id,
            rules,
            head,
            flat,
            members,
            numbers,
            turned_away,
            vouching,
            answers,
        })
    }

    /// Writes the head. Without it the transaction is refused.
    pub fn finish(self) {
        self.tx.put(&ROOM_HEAD, &self.room_id, (), &self.head);
    }

    /// Changes the header of an event that was stored before. Nothing else may: that the room's head
    /// counts such changes is what lets headers be remembered.
    pub(super) fn amend(&mut self, number: u64, header: &EventHeader) {
        self.head.amended += 1;
        self.tx.put(&EVENT_HEADERS, &self.room_id, number, header);
    }

    /// One of the room's events.
    ///
    /// # Errors
    /// Where it is missing or malformed.
    pub async fn event(&self, number: u64) -> Result<Arc<Event>, AppendError> {
        let rooms = self.rooms;
        Ok(rooms.events.load_one(self.tx, &self.room_id, &self.head.version, number).await?)
    }

    /// The event at one place of the current state.
    ///
    /// # Errors
    /// Where the store cannot be read.
    pub async fn state_event(
        &self,
        event_type: &str,
        state_key: &str,
    ) -> Result<Option<Arc<Event>>, AppendError> {
        let number = self.tx.get(&CURRENT_STATE, &self.room_id, (event_type, state_key)).await?;
        match number {
            Some(number) => Ok(Some(self.event(number).await?)),
            None => Ok(None),
        }
    }

    /// The create event.
    ///
    /// # Errors
    /// Where it is missing: the database is damaged.
    pub async fn create_event(&self) -> Result<Arc<Event>, AppendError> {
        self.event(self.head.create).await
    }

    /// Somebody's membership in the current state.
    ///
    /// # Errors
    /// Where the store cannot be read.
    pub async fn member(&self, user: &UserId) -> Result<Option<Member>, AppendError> {
        Ok(self.tx.get(&MEMBERS, &self.room_id, user).await?)
    }

    /// Somebody's membership in the current state; `leave` where they never had one.
    ///
    /// # Errors
    /// Where the store cannot be read.
    pub async fn membership(&self, user: &UserId) -> Result<MembershipState, AppendError> {
        let member = self.member(user).await?;
        Ok(member.map_or(MembershipState::Leave, |member| member.membership))
    }

    /// The power levels of the current state.
    ///
    /// # Errors
    /// Where the store cannot be read.
    pub async fn power_levels(&self) -> Result<PowerLevels, AppendError> {
        self.power_levels_at(self.head.root).await
    }

    /// The power levels of a state.
    pub(super) async fn power_levels_at(
        &self,
        root: StateRoot,
    ) -> Result<PowerLevels, AppendError> {
        let create = self.create_event().await?;
        let levels = match self.at_place(root, ("m.room.power_levels", "")).await? {
            Some(number) => Some(self.event(number).await?),
            None => None,
        };
        let levels = levels.as_ref().map(|event| &event.pdu);
        Ok(PowerLevels::new(&create.pdu, levels, &self.rules.authorization))
    }
}
