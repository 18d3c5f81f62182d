//! Power levels: who may do what in a room (spec: m.room.power_levels).

use std::collections::{BTreeMap, HashSet};

use ruma::{
    OwnedUserId, UserId,
    events::TimelineEventType,
    room_version_rules::AuthorizationRules,
    state_res::{
        Event,
        events::{RoomCreateEvent, RoomPowerLevelsEvent, RoomPowerLevelsIntField as Field},
    },
};

/// The level of a room's creator where the room has no power levels event.
pub const CREATOR_LEVEL: i64 = 100;
/// What a notification such as `@room` needs where the event does not say.
const NOTIFICATION_LEVEL: i64 = 50;

/// A user's level. Creators of rooms of version 12 and later stand above every number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// A number within ±(2^53 − 1).
    Finite(i64),
    /// More than any number.
    Infinite,
}

/// Something that a user may want to do in a room.
#[derive(Debug, Clone, Copy)]
pub enum Action<'a> {
    /// Send a message event of this type.
    SendMessage(&'a TimelineEventType),
    /// Send a state event of this type, other than `m.room.member`.
    SendState(&'a TimelineEventType),
    /// Invite somebody.
    Invite,
    /// Remove somebody who is in the room or invited.
    Kick(&'a UserId),
    /// Ban somebody.
    Ban(&'a UserId),
    /// Lift somebody's ban.
    Unban(&'a UserId),
    /// Redact another server's event.
    RedactOthers,
    /// Notify everybody who has not switched off this notification (`room` for `@room`).
    Notify(&'a str),
}

/// The power levels in force in a room, with every default filled in.
#[derive(Debug, Clone)]
pub struct PowerLevels {
    users: BTreeMap<OwnedUserId, i64>,
    users_default: i64,
    events: BTreeMap<TimelineEventType, i64>,
    events_default: i64,
    state_default: i64,
    ban: i64,
    kick: i64,
    redact: i64,
    invite: i64,
    notifications: BTreeMap<String, i64>,
    infinite: HashSet<OwnedUserId>,
}

impl PowerLevels {
    /// Reads the levels from the room's create event and its power levels event, if it has one.
    /// What an accepted event cannot contain counts as absent.
    pub fn new<E: Event>(create: E, power_levels: Option<E>, rules: &AuthorizationRules) -> Self {
        let creators = RoomCreateEvent::new(create).creators(rules).unwrap_or_default();
        let event = power_levels.map(RoomPowerLevelsEvent::new);
        let number = |field: Field| {
            let set =
                event.as_ref().and_then(|event| event.get_as_int(field, rules).ok().flatten());
            i64::from(set.unwrap_or_else(|| field.default_value()))
        };
        let mut users: BTreeMap<OwnedUserId, i64> = match &event {
            Some(event) => match event.users(rules) {
                Ok(Some(users)) => numbers(users.clone()),
                _ => BTreeMap::new(),
            },
            None => creators.iter().map(|user| (user.clone(), CREATOR_LEVEL)).collect(),
        };
        let infinite = if rules.explicitly_privilege_room_creators {
            users.retain(|user, _| !creators.contains(user));
            creators
        } else {
            HashSet::new()
        };
        let events = event.as_ref().and_then(|event| event.events(rules).ok().flatten());
        let notifications =
            event.as_ref().and_then(|event| event.notifications(rules).ok().flatten());
        Self {
            users,
            users_default: number(Field::UsersDefault),
            events: numbers(events.unwrap_or_default()),
            events_default: number(Field::EventsDefault),
            state_default: number(Field::StateDefault),
            ban: number(Field::Ban),
            kick: number(Field::Kick),
            redact: number(Field::Redact),
            invite: number(Field::Invite),
            notifications: numbers(notifications.unwrap_or_default()),
            infinite,
        }
    }

    /// The level of `user`.
    pub fn user(&self, user: &UserId) -> Level {
        if self.infinite.contains(user) {
            return Level::Infinite;
        }
        Level::Finite(self.users.get(user).copied().unwrap_or(self.users_default))
    }

    /// The users who have a level of their own, creators included.
    pub fn named_users(&self) -> impl Iterator<Item = &UserId> {
        self.users.keys().chain(&self.infinite).map(|user| &**user)
    }

    /// What sending a message event of this type needs.
    pub fn for_message(&self, kind: &TimelineEventType) -> Level {
        Level::Finite(self.events.get(kind).copied().unwrap_or(self.events_default))
    }

    /// What setting state of this type needs.
    pub fn for_state(&self, kind: &TimelineEventType) -> Level {
        Level::Finite(self.events.get(kind).copied().unwrap_or(self.state_default))
    }

    /// What redacting the events of others needs.
    pub fn redact(&self) -> Level {
        Level::Finite(self.redact)
    }

    /// What inviting needs.
    pub fn invite(&self) -> Level {
        Level::Finite(self.invite)
    }

    /// What the notification `key` (`room` for `@room`) needs.
    pub fn for_notification(&self, key: &str) -> Level {
        Level::Finite(self.notifications.get(key).copied().unwrap_or(NOTIFICATION_LEVEL))
    }

    /// Whether the levels allow `user` to do `action`. Whether they are in the room is not looked at.
    pub fn can(&self, user: &UserId, action: Action<'_>) -> bool {
        let own = self.user(user);
        let over =
            |needed: i64, target: &UserId| own >= Level::Finite(needed) && self.user(target) < own;
        match action {
            Action::SendMessage(kind) => own >= self.for_message(kind),
            Action::SendState(kind) => own >= self.for_state(kind),
            Action::Invite => own >= self.invite(),
            Action::Kick(target) => over(self.kick, target),
            Action::Ban(target) => over(self.ban, target),
            Action::Unban(target) => own >= Level::Finite(self.ban) && over(self.kick, target),
            Action::RedactOthers => own >= self.redact(),
            Action::Notify(key) => own >= self.for_notification(key),
        }
    }
}

fn numbers<K: Ord, V: Into<i64>>(map: BTreeMap<K, V>) -> BTreeMap<K, i64> {
    map.into_iter().map(|(key, value)| (key, value.into())).collect()
}

#[cfg(test)]
mod tests {
    use ruma::user_id;
    use serde_json::json;

    use super::*;
    use crate::rules::test_room::TestRoom;

    #[test]
    fn without_an_event_the_creator_has_a_hundred_and_the_rest_nothing() {
        let levels = TestRoom::new("10").levels_without_event();
        assert_eq!(levels.user(user_id!("@creator:one")), Level::Finite(100));
        assert_eq!(levels.user(user_id!("@a:one")), Level::Finite(0));
        assert!(levels.can(user_id!("@a:one"), Action::SendMessage(&"m.room.message".into())));
        assert!(!levels.can(user_id!("@a:one"), Action::SendState(&"m.room.topic".into())));
        assert!(levels.can(user_id!("@a:one"), Action::Invite));
    }

    #[test]
    fn an_event_without_users_leaves_an_old_creator_with_the_default() {
        let levels = TestRoom::new("10").levels(json!({"users_default": 7}));
        assert_eq!(levels.user(user_id!("@creator:one")), Level::Finite(7));
    }

    #[test]
    fn creators_stand_above_every_number_from_version_twelve_on() {
        let levels =
            TestRoom::new("12").levels(json!({"users": {"@a:one": 9_007_199_254_740_991_i64}}));
        for creator in [user_id!("@creator:one"), user_id!("@second:one")] {
            assert_eq!(levels.user(creator), Level::Infinite);
            assert!(levels.can(creator, Action::Kick(user_id!("@a:one"))));
        }
        assert!(!levels.can(user_id!("@creator:one"), Action::Kick(user_id!("@second:one"))));
        assert!(!levels.can(user_id!("@a:one"), Action::Ban(user_id!("@creator:one"))));
    }

    #[test]
    fn numbers_in_strings_count_up_to_version_nine() {
        let content = json!({"users": {"@a:one": " +050 "}, "ban": "60", "state_default": "-1"});
        let old = TestRoom::new("9").levels(content.clone());
        assert_eq!(old.user(user_id!("@a:one")), Level::Finite(50));
        assert!(!old.can(user_id!("@a:one"), Action::Ban(user_id!("@b:one"))));
        assert!(old.can(user_id!("@b:one"), Action::SendState(&"m.room.topic".into())));
        let new = TestRoom::new("10").levels(content);
        assert_eq!(new.user(user_id!("@a:one")), Level::Finite(0));
    }

    #[test]
    fn each_action_needs_its_own_level() {
        let levels = TestRoom::new("11").levels(json!({
            "users": {"@mod:one": 50, "@peer:one": 50, "@low:one": 20}, "invite": 30, "kick": 20,
            "ban": 50, "redact": 60, "events": {"m.room.topic": 10, "m.reaction": 40},
            "notifications": {"room": 20, "other": 51},
        }));
        let low = user_id!("@low:one");
        let moderator = user_id!("@mod:one");
        for (action, by_low, by_moderator) in [
            (Action::SendState(&"m.room.topic".into()), true, true),
            (Action::SendState(&"m.room.name".into()), false, true),
            (Action::SendMessage(&"m.reaction".into()), false, true),
            (Action::SendMessage(&"m.room.message".into()), true, true),
            (Action::Invite, false, true),
            (Action::Kick(user_id!("@x:one")), true, true),
            (Action::Kick(user_id!("@peer:one")), false, false),
            (Action::Ban(user_id!("@x:one")), false, true),
            (Action::Unban(user_id!("@x:one")), false, true),
            (Action::RedactOthers, false, false),
            (Action::Notify("room"), true, true),
            (Action::Notify("other"), false, false),
            (Action::Notify("unnamed"), false, true),
        ] {
            assert_eq!(levels.can(low, action), by_low, "{action:?}");
            assert_eq!(levels.can(moderator, action), by_moderator, "{action:?}");
        }
    }
}
