//! Which state of a room a client wants.

use std::collections::{BTreeMap, BTreeSet};

use millrace_store::state_tree::StateRoot;
use ruma::UserId;

use crate::{
    rooms::{RoomView, Rooms, Seen},
    sync::SyncError,
};

const ANY: &str = "*";
const ME: &str = "$ME";
const LAZY: &str = "$LAZY";
const MEMBER: &str = "m.room.member";
/// Bytes of an event's type or state key at most (spec: Size limits).
const NAME_BYTES_MAX: usize = 255;

/// Types of events, for each the state keys; `*` stands for any.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct RequiredState {
    keys: BTreeMap<String, BTreeSet<String>>,
    /// Whether members are wanted as the timeline needs them. Then "any type" is all but members.
    pub lazy_members: bool,
}

impl RequiredState {
    /// From pairs of type and state key, as a client of `user` wrote them. What is too long for an
    /// event asks for nothing.
    pub fn new(user: &UserId, pairs: Vec<(String, String)>) -> Self {
        let mut required = Self::default();
        for (kind, key) in pairs {
            if kind.len().max(key.len()) > NAME_BYTES_MAX {
                continue;
            }
            if kind == MEMBER && key == LAZY {
                required.lazy_members = true;
                continue;
            }
            let key = if key == ME { user.to_string() } else { key };
            required.keys.entry(kind).or_default().insert(key);
        }
        required
    }

    /// How many pairs it is made of.
    pub fn len(&self) -> usize {
        self.keys.values().map(BTreeSet::len).sum()
    }

    /// What any of two wants.
    pub fn join(&self, other: &Self) -> Self {
        let mut joined = self.clone();
        joined.lazy_members |= other.lazy_members;
        for (kind, keys) in &other.keys {
            joined.keys.entry(kind.clone()).or_default().extend(keys.iter().cloned());
        }
        joined
    }

    /// Whether the event at a place of the state is wanted, for itself.
    pub fn wants(&self, kind: &str, key: &str) -> bool {
        self.wants_of(kind, key) || (self.is_of_any_type(kind) && self.wants_of(ANY, key))
    }

    /// Whether all members are wanted, or the members of some names whoever they are.
    pub fn wants_all_members(&self) -> bool {
        self.wants(MEMBER, ANY)
    }

    /// Whether whoever was told what this wants has all that `other` wants.
    pub fn covers(&self, other: &Self) -> bool {
        let of_type = |(kind, keys): (&String, &BTreeSet<String>)| {
            keys.iter().all(|key| match (kind.as_str(), self.lazy_members) {
                // Of any type, but members.
                (ANY, true) if !other.lazy_members => false,
                (ANY, _) => self.wants_of(ANY, key),
                (kind, _) => self.wants(kind, key),
            })
        };
        self == other || other.keys.iter().all(of_type)
    }

    /// The events of a state that are wanted for themselves.
    ///
    /// # Errors
    /// Where the store cannot be read.
    pub async fn read(
        &self,
        rooms: &Rooms,
        view: &RoomView<'_>,
        root: StateRoot,
    ) -> Result<Vec<Seen>, SyncError> {
        let (states, snapshot, room) = (&rooms.states, view.snapshot, view.room_id);
        let mut numbers = BTreeSet::new();
        if self.keys.contains_key(ANY) {
            if self.lazy_members {
                numbers.extend(view.state_without_members(root).await?.iter().copied());
            } else {
                numbers.extend(states.numbers(snapshot, room, root, None).await?);
            }
        }
        let mut places = Vec::new();
        for (kind, keys) in self.keys.iter().filter(|(kind, _)| *kind != ANY) {
            if keys.contains(ANY) {
                numbers.extend(states.numbers(snapshot, room, root, Some(kind)).await?);
            } else {
                places.extend(keys.iter().map(|key| (kind.as_str(), key.as_str())));
            }
        }
        let found = states.get_many(snapshot, room, root, &places).await?;
        numbers.extend(found.into_iter().flatten());
        let mut events = view.state_events(&numbers.into_iter().collect::<Vec<_>>()).await?;
        events.retain(|seen| self.wants_event(seen));
        Ok(events)
    }

    /// Whether a state event is wanted, for itself.
    pub fn wants_event(&self, seen: &Seen) -> bool {
        let pdu = &seen.event.pdu;
        let key = pdu.state_key.as_deref().unwrap_or_default();
        self.wants(&pdu.kind.to_string(), key)
    }

    fn wants_of(&self, kind: &str, key: &str) -> bool {
        self.keys.get(kind).is_some_and(|keys| keys.contains(key) || keys.contains(ANY))
    }

    fn is_of_any_type(&self, kind: &str) -> bool {
        !(self.lazy_members && kind == MEMBER)
    }
}

#[cfg(test)]
mod tests {
    use ruma::user_id;

    use super::*;

    fn required(pairs: &[(&str, &str)]) -> RequiredState {
        let pairs = pairs.iter().map(|(kind, key)| ((*kind).to_owned(), (*key).to_owned()));
        RequiredState::new(user_id!("@me:test.example"), pairs.collect())
    }

    #[test]
    fn stars_stand_for_any() {
        let all = required(&[("*", "*")]);
        assert!(all.wants("m.room.name", "") && all.wants(MEMBER, "@a:x"));
        let keyless = required(&[("*", "")]);
        assert!(keyless.wants("m.room.name", "") && !keyless.wants("m.space.child", "!a:x"));
        let children = required(&[("m.space.child", "*")]);
        assert!(children.wants("m.space.child", "!a:x") && !children.wants("m.room.name", ""));
        assert!(!required(&[]).wants("m.room.name", ""));
    }

    #[test]
    fn one_is_me_and_members_come_lazily() {
        let lazy = required(&[("*", "*"), (MEMBER, LAZY), (MEMBER, ME)]);
        assert!(lazy.lazy_members && lazy.wants("m.room.name", ""));
        assert!(lazy.wants(MEMBER, "@me:test.example") && !lazy.wants(MEMBER, "@a:x"));
        assert!(!lazy.wants_all_members());
        assert!(required(&[("*", "*")]).wants_all_members());
        assert!(required(&[(MEMBER, "*")]).wants_all_members());
    }

    #[test]
    fn what_was_told_covers_what_is_less() {
        let (name, all) = (required(&[("m.room.name", "")]), required(&[("*", "*")]));
        let lazy = required(&[("*", "*"), (MEMBER, LAZY)]);
        assert!(all.covers(&name) && all.covers(&lazy) && all.covers(&all));
        assert!(!name.covers(&all) && !lazy.covers(&all) && lazy.covers(&name));
        assert!(!name.covers(&required(&[("m.room.name", "*")])));
        assert!(name.covers(&required(&[])));
        let joined = name.join(&required(&[("m.room.topic", ""), (MEMBER, LAZY)]));
        assert!(joined.covers(&name) && joined.wants("m.room.topic", "") && joined.lazy_members);
    }
}
