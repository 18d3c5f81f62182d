//! State that belongs to a user (MSC3757): a state key that begins with `@` names its owner, whole or
//! followed by `_` and more. The owner may set it, and who has a higher power level than the owner.
//!
//! Ruma has the rule of all other room versions, that such a key must be the sender's ID. So it is
//! shown these events under keys that do not begin with `@`, and the rule is checked here, against the
//! same states. Where forks are resolved the events have passed it already, each by its own auth
//! events and the state before it.

use ruma::{
    MilliSecondsSinceUnixEpoch, OwnedEventId, OwnedUserId, RoomId, UserId,
    events::{StateEventType, TimelineEventType},
    room_version_rules::RoomVersionRules,
    state_res,
};
use serde_json::value::RawValue;

use super::{auth::Refused, power_levels::PowerLevels};
use crate::pdu::Pdu;

/// Before the keys that ruma is not to see as somebody's.
const MARK: char = '\u{0}';

/// The owner that a state key names.
///
/// # Errors
/// Where it begins as one that has an owner and names no user.
pub fn owner(state_key: &str) -> Result<OwnedUserId, Refused> {
    let server = state_key.find(':').unwrap_or(state_key.len());
    let end = state_key[server..].find('_').map_or(state_key.len(), |at| server + at);
    UserId::parse(&state_key[..end])
        .map_err(|_| Refused(format!("the state key {state_key:?} begins with no user ID")))
}

/// Whether an event sets state that has an owner. Members are no such state: they have rules of
/// their own.
pub(super) fn is_owned(kind: &TimelineEventType, state_key: Option<&str>) -> bool {
    *kind != TimelineEventType::RoomMember && state_key.is_some_and(|key| key.starts_with('@'))
}

/// Checks that the sender may set what has an owner.
pub(super) fn check<E: state_res::Event>(
    event: &Pdu,
    rules: &RoomVersionRules,
    state: impl Fn(&StateEventType, &str) -> Option<E>,
) -> Result<(), Refused> {
    let owner = owner(event.state_key.as_deref().unwrap_or_default())?;
    if owner == event.sender {
        return Ok(());
    }
    let create = state(&StateEventType::RoomCreate, "");
    let create = create.ok_or_else(|| Refused("there is no create event".to_owned()))?;
    let levels = state(&StateEventType::RoomPowerLevels, "");
    let levels = PowerLevels::new(create, levels, &rules.authorization);
    if levels.user(&event.sender) > levels.user(&owner) {
        return Ok(());
    }
    Err(Refused(format!("this state belongs to {owner}, whose power level is not below yours")))
}

/// A state key as ruma is to see it.
pub(super) fn marked(state_key: &str) -> String {
    format!("{MARK}{state_key}")
}

/// A state key as it was before [`marked`].
pub(super) fn unmarked(state_key: String) -> String {
    match state_key.strip_prefix(MARK) {
        Some(key) => key.to_owned(),
        None => state_key,
    }
}

/// An event that ruma sees under another state key.
#[derive(Debug, Clone)]
pub(super) struct Marked<P> {
    pdu: P,
    key: Option<String>,
}

impl<P: std::ops::Deref<Target = Pdu>> Marked<P> {
    /// The event; with its own key where that has no owner.
    pub fn new(pdu: P) -> Self {
        let key =
            pdu.state_key.as_deref().filter(|_| is_owned(&pdu.kind, pdu.state_key.as_deref()));
        let key = key.map(marked);
        Self { pdu, key }
    }
}

impl<P: std::ops::Deref<Target = Pdu>> state_res::Event for Marked<P> {
    type Id = OwnedEventId;

    fn event_id(&self) -> &OwnedEventId {
        self.pdu.event_id()
    }

    fn room_id(&self) -> Option<&RoomId> {
        state_res::Event::room_id(&*self.pdu)
    }

    fn sender(&self) -> &UserId {
        self.pdu.sender()
    }

    fn origin_server_ts(&self) -> MilliSecondsSinceUnixEpoch {
        self.pdu.origin_server_ts()
    }

    fn event_type(&self) -> &TimelineEventType {
        self.pdu.event_type()
    }

    fn content(&self) -> &RawValue {
        self.pdu.content()
    }

    fn state_key(&self) -> Option<&str> {
        self.key.as_deref().or_else(|| self.pdu.state_key())
    }

    fn prev_events(&self) -> Box<dyn DoubleEndedIterator<Item = &OwnedEventId> + '_> {
        self.pdu.prev_events()
    }

    fn auth_events(&self) -> Box<dyn DoubleEndedIterator<Item = &OwnedEventId> + '_> {
        self.pdu.auth_events()
    }

    fn redacts(&self) -> Option<&OwnedEventId> {
        self.pdu.redacts()
    }

    fn rejected(&self) -> bool {
        self.pdu.rejected()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::rules::{
        auth, room_version,
        test_room::{CREATOR, TestRoom, rules},
    };

    #[test]
    fn a_key_names_its_owner_up_to_the_first_underscore_of_the_server() {
        for (key, expected) in [
            ("@a:one", Some("@a:one")),
            ("@a_b:one", Some("@a_b:one")),
            ("@a_b:one_more_:@", Some("@a_b:one")),
            ("@a:one:8448_x", Some("@a:one:8448")),
            ("@oops", None),
            ("@a:one@more_x", None),
        ] {
            let found = owner(key).ok();
            assert_eq!(found.as_ref().map(|user| user.as_str()), expected, "{key}");
        }
    }

    #[test]
    fn owners_set_their_state_and_so_do_who_stands_above_them() {
        let mut room = TestRoom::new(room_version::OWNED_STATE);
        let levels = json!({"users": {CREATOR: 100}, "state_default": 0});
        room.set(room.state("m.room.power_levels", "", CREATOR, levels));
        for user in [CREATOR, "@a:one", "@b:one"] {
            room.set_member(user, "join");
        }
        for (sender, key, allowed) in [
            ("@a:one", "@a:one", true),
            ("@a:one", "@a:one_x", true),
            ("@a:one", "@b:one", false),
            ("@a:one", "@a:onex", false),
            (CREATOR, "@a:one_x", true),
            (CREATOR, "@gone:two", true),
            (CREATOR, "@oops", false),
            ("@a:one", "free", true),
        ] {
            let event = room.state("org.example", key, sender, json!({}));
            let state = |kind: &StateEventType, key: &str| room.lookup(kind, key);
            let checked = auth::check(&event, rules(room_version::OWNED_STATE), state);
            assert_eq!(checked.is_ok(), allowed, "{sender} {key}");
        }
    }
}
