//! The flat current state: what the room holds now, who is in it, and the room as its local members
//! have it. It follows the state tree: whoever gives the room another root tells what differs, be it
//! one event or what a resolution of forks has turned over.

use std::collections::HashMap;

use millrace_model::Pdu;
use millrace_store::{
    Read,
    rows::room::{Member, UserRoom},
    state_tree::{Difference, StateRoot},
    tables::{CURRENT_STATE, MEMBERS, USER_ROOMS},
};
use ruma::{
    OwnedUserId, UserId,
    events::{TimelineEventType, room::member::MembershipState},
};
use serde::Deserialize;

use super::{AppendError, Event, RoomTx, shown, successor};

const MEMBER: &str = "m.room.member";
pub(super) const POLICY: &str = "m.room.policy";

#[derive(Deserialize)]
pub(super) struct MemberContent {
    pub membership: MembershipState,
}

/// The membership that a member event sets.
pub(crate) fn membership_of(pdu: &Pdu) -> Option<MembershipState> {
    pdu.content_as::<MemberContent>().ok().map(|content| content.membership)
}

/// One member's change.
struct MemberChange<'a> {
    user: OwnedUserId,
    /// The new member event; `None` where the state has none any more.
    event: Option<&'a Event>,
    membership: MembershipState,
}

impl RoomTx<'_> {
    /// Gives the room the current state `root`, wherever it differs from the one it has.
    pub(super) async fn set_root(&mut self, root: StateRoot) -> Result<(), AppendError> {
        let (rooms, old) = (self.rooms, self.flat);
        let changes = rooms.states.diff(self.tx, &self.room_id, old, root).await?;
        self.follow(root, &changes).await
    }

    /// As [`RoomTx::set_root`], for who knows the differences.
    pub(super) async fn follow(
        &mut self,
        root: StateRoot,
        changes: &[Difference],
    ) -> Result<(), AppendError> {
        self.head.root = root;
        self.flat = root;
        let (mut members, mut numbers) = (Vec::new(), Vec::new());
        for change in changes {
            let (kind, state_key) = (&*change.key.event_type, &*change.key.state_key);
            match &change.new {
                Some(new) => self.tx.put(&CURRENT_STATE, &self.room_id, (kind, state_key), new),
                None => self.tx.delete(&CURRENT_STATE, &self.room_id, (kind, state_key)),
            }
            if kind == POLICY && state_key.is_empty() {
                self.head.policy = change.new;
            }
            if kind == MEMBER
                && let Ok(user) = UserId::parse(state_key)
            {
                numbers.extend(change.new);
                members.push((user, change.new));
            }
        }
        if members.is_empty() {
            return Ok(());
        }
        let (events, version) = (&self.rooms.events, &self.head.version);
        let loaded = events.load(self.tx, &self.room_id, version, &numbers).await?;
        let loaded: HashMap<u64, _> = numbers.into_iter().zip(loaded).collect();
        for (user, number) in members {
            let event = number.and_then(|number| loaded.get(&number)).map(|event| &**event);
            let membership = event.map_or(Some(MembershipState::Leave), |e| membership_of(&e.pdu));
            // The auth rules admit no member event without one.
            let Some(membership) = membership else { continue };
            self.write_member(MemberChange { user, event, membership }).await?;
        }
        Ok(())
    }

    async fn write_member(&mut self, change: MemberChange<'_>) -> Result<(), AppendError> {
        let MemberChange { user, event, membership } = &change;
        let is_local = self.rooms.env.is_local(user);
        let old = self.membership(user).await?;
        let (left, came) = (old == MembershipState::Join, *membership == MembershipState::Join);
        self.head.joined = count(self.head.joined, left, came);
        if is_local {
            self.head.joined_here = count(self.head.joined_here, left, came);
        }
        let (left, came) = (old == MembershipState::Invite, *membership == MembershipState::Invite);
        self.head.invited = count(self.head.invited, left, came);
        match event {
            Some(event) => {
                let member = Member { membership: membership.clone(), event: event.number };
                self.tx.put(&MEMBERS, &self.room_id, user, &member);
            }
            None => self.tx.delete(&MEMBERS, &self.room_id, user),
        }
        self.note_server(user, &old, membership).await?;
        if is_local { self.write_user_room(&change).await } else { Ok(()) }
    }

    async fn write_user_room(&self, change: &MemberChange<'_>) -> Result<(), AppendError> {
        let MemberChange { user, event, membership } = change;
        let old = self.tx.get(&USER_ROOMS, user, &self.room_id).await?;
        let joins = *membership == MembershipState::Join;
        if joins {
            successor::take_over_settings(self, user).await?;
        }
        let shown = matches!(membership, MembershipState::Invite | MembershipState::Knock);
        let stripped = match event {
            Some(event) if shown => self.stripped_state(event).await?,
            _ => Vec::new(),
        };
        let row = UserRoom {
            membership: membership.clone(),
            event: event.map_or(0, |event| event.number),
            sender: event.map_or_else(|| user.clone(), |event| event.pdu.sender.clone()),
            n: self.head.last,
            was_joined: joins || old.as_ref().is_some_and(|old| old.was_joined),
            left: match old {
                Some(old) if !joins && old.membership == MembershipState::Join => {
                    Some(self.head.last)
                }
                old => old.and_then(|old| old.left),
            },
            forgotten: false,
            stripped,
        };
        self.tx.put(&USER_ROOMS, user, &self.room_id, &row);
        Ok(())
    }

    /// What somebody outside of the room is shown of it: the state that the specification lists
    /// (Client-Server API, Stripped state), and the member event itself.
    async fn stripped_state(&self, member: &Event) -> Result<Vec<String>, AppendError> {
        let sender = member.pdu.sender.as_str();
        let places = shown::SHOWN.iter().map(|kind| (*kind, "")).chain([(MEMBER, sender)]);
        let numbers = self.tx.get_many(&CURRENT_STATE, &self.room_id, places).await?;
        let mut numbers: Vec<u64> = numbers.into_iter().flatten().collect();
        numbers.retain(|number| *number != member.number);
        let (events, version) = (&self.rooms.events, &self.head.version);
        let shown = events.load(self.tx, &self.room_id, version, &numbers).await?;
        let mut stripped: Vec<String> = shown.iter().map(|event| stripped(&event.pdu)).collect();
        stripped.push(self::stripped(&member.pdu));
        Ok(stripped)
    }
}

fn count(count: u64, left: bool, came: bool) -> u64 {
    count.saturating_sub(u64::from(left)) + u64::from(came)
}

/// The stripped form of a state event (spec: Client-Server API, Stripped state). That of the create
/// event also says when the room was made.
#[must_use]
pub fn stripped(pdu: &Pdu) -> String {
    let mut stripped = serde_json::json!({
        "type": pdu.kind.to_string(),
        "state_key": pdu.state_key,
        "sender": pdu.sender,
        "content": pdu.content,
    });
    if pdu.kind == TimelineEventType::RoomCreate {
        stripped["origin_server_ts"] = u64::from(pdu.origin_server_ts.0).into();
        stripped["event_id"] = pdu.event_id.as_str().into();
    }
    stripped.to_string()
}
