//! Filters of events, compiled once and matched fast (spec: Client-Server API, Filtering).

use ruma::{
    OwnedRoomId, OwnedUserId, RoomId, UserId,
    api::client::filter::{Filter, RoomEventFilter, UrlFilter},
};
use serde::Deserialize;

use crate::{pdu::Pdu, relations::Relation};

/// A compiled filter of room events, or of presence and account data, which have no room.
#[derive(Debug, Clone, Default)]
pub struct EventFilter {
    types: Option<Vec<TypePattern>>,
    not_types: Vec<TypePattern>,
    senders: Option<Vec<OwnedUserId>>,
    not_senders: Vec<OwnedUserId>,
    rooms: RoomSelection,
    url: Option<UrlFilter>,
    relations: RelationSelection,
}

/// Which events a filter lets through by what they say of their relation to others (MSC3874).
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct RelationSelection {
    #[serde(rename = "org.matrix.msc3874.rel_types")]
    rel_types: Option<Vec<String>>,
    #[serde(rename = "org.matrix.msc3874.not_rel_types")]
    not_rel_types: Option<Vec<String>>,
}

impl RelationSelection {
    fn admits_all(&self) -> bool {
        self.rel_types.is_none() && self.not_rel_types.is_none()
    }

    /// `not_rel_types` beats `rel_types`, which lets nothing through that has no relation.
    fn admits(&self, event: &Pdu) -> bool {
        if self.admits_all() {
            return true;
        }
        let relation = Relation::of(event);
        let is_in = |list: &Vec<String>| {
            relation.as_ref().is_some_and(|relation| {
                list.iter().any(|rel_type| rel_type == relation.kind.as_str())
            })
        };
        !self.not_rel_types.as_ref().is_some_and(is_in) && self.rel_types.as_ref().is_none_or(is_in)
    }
}

/// Which rooms a filter lets through.
#[derive(Debug, Clone, Default)]
pub struct RoomSelection {
    rooms: Option<Vec<OwnedRoomId>>,
    not_rooms: Vec<OwnedRoomId>,
}

impl RoomSelection {
    /// Compiles the lists: `None` is every room; `not_rooms` beats `rooms`.
    pub fn new(rooms: Option<&[OwnedRoomId]>, not_rooms: &[OwnedRoomId]) -> Self {
        Self { rooms: rooms.map(sorted), not_rooms: sorted(not_rooms) }
    }

    /// Whether the room is let through.
    pub fn admits(&self, room: &RoomId) -> bool {
        !holds(&self.not_rooms, room) && self.rooms.as_ref().is_none_or(|rooms| holds(rooms, room))
    }
}

impl EventFilter {
    /// Compiles a filter of room events. Its limit and its options for lazy loading and threads are
    /// not part of matching.
    pub fn room(filter: &RoomEventFilter) -> Self {
        Self {
            types: filter.types.as_deref().map(patterns),
            not_types: patterns(&filter.not_types),
            senders: filter.senders.as_deref().map(sorted),
            not_senders: sorted(&filter.not_senders),
            rooms: RoomSelection::new(filter.rooms.as_deref(), &filter.not_rooms),
            url: filter.url_filter,
            relations: RelationSelection::default(),
        }
    }

    /// The same filter, letting through only what this selection does too.
    #[must_use]
    pub fn with_relations(self, relations: RelationSelection) -> Self {
        Self { relations, ..self }
    }

    /// Compiles a filter of presence or account data.
    pub fn roomless(filter: &Filter) -> Self {
        Self {
            types: filter.types.as_deref().map(patterns),
            not_types: patterns(&filter.not_types),
            senders: filter.senders.as_deref().map(sorted),
            not_senders: sorted(&filter.not_senders),
            ..Self::default()
        }
    }

    /// Whether every event is let through, so that nothing need be looked at.
    pub fn admits_all(&self) -> bool {
        self.types.is_none()
            && self.senders.is_none()
            && self.rooms.rooms.is_none()
            && self.url.is_none()
            && self.relations.admits_all()
            && self.not_types.is_empty()
            && self.not_senders.is_empty()
            && self.rooms.not_rooms.is_empty()
    }

    /// Whether no event is let through, so that nothing need be read.
    pub fn admits_none(&self) -> bool {
        fn is_empty<T>(list: Option<&Vec<T>>) -> bool {
            list.is_some_and(Vec::is_empty)
        }
        is_empty(self.types.as_ref())
            || is_empty(self.senders.as_ref())
            || is_empty(self.rooms.rooms.as_ref())
    }

    /// Whether events of this type are let through.
    pub fn admits_type(&self, kind: &str) -> bool {
        !self.not_types.iter().any(|pattern| pattern.matches(kind))
            && self
                .types
                .as_ref()
                .is_none_or(|types| types.iter().any(|pattern| pattern.matches(kind)))
    }

    /// Whether events of this sender are let through.
    pub fn admits_sender(&self, sender: &UserId) -> bool {
        !holds(&self.not_senders, sender)
            && self.senders.as_ref().is_none_or(|senders| holds(senders, sender))
    }

    /// Whether events of this room are let through.
    pub fn admits_room(&self, room: &RoomId) -> bool {
        self.rooms.admits(room)
    }

    /// Whether this event is let through. Of its room, only [`EventFilter::admits_room`] is asked,
    /// so that a caller within one room may ask that once and use [`EventFilter::admits_in_room`].
    pub fn admits(&self, event: &Pdu) -> bool {
        self.admits_room(&event.room_id) && self.admits_in_room(event)
    }

    /// Whether this event is let through, its room left aside.
    pub fn admits_in_room(&self, event: &Pdu) -> bool {
        self.admits_type(&event.kind.to_string())
            && self.admits_sender(&event.sender)
            && self.url.is_none_or(|url| (url == UrlFilter::EventsWithUrl) == contains_url(event))
            && self.relations.admits(event)
    }
}

/// Whether the event's content has a `url`, as `contains_url` asks.
pub fn contains_url(event: &Pdu) -> bool {
    #[derive(Deserialize)]
    struct Content {
        url: Option<serde::de::IgnoredAny>,
    }
    event.content.get().contains("\"url\"")
        && event.content_as::<Content>().is_ok_and(|content| content.url.is_some())
}

/// An event type in which `*` stands for any characters.
#[derive(Debug, Clone, PartialEq, Eq)]
enum TypePattern {
    Exact(Box<str>),
    /// The text before the first `*`, the pieces between, and the text after the last.
    Glob {
        start: Box<str>,
        middle: Vec<Box<str>>,
        end: Box<str>,
    },
}

impl TypePattern {
    fn new(pattern: &str) -> Self {
        let mut pieces = pattern.split('*');
        let start = pieces.next().unwrap_or_default().into();
        let Some(end) = pieces.next_back() else {
            return Self::Exact(start);
        };
        let middle = pieces.filter(|piece| !piece.is_empty()).map(Into::into).collect();
        Self::Glob { start, middle, end: end.into() }
    }

    fn matches(&self, kind: &str) -> bool {
        match self {
            Self::Exact(exact) => **exact == *kind,
            Self::Glob { start, middle, end } => {
                let Some(mut rest) =
                    kind.strip_prefix(&**start).and_then(|rest| rest.strip_suffix(&**end))
                else {
                    return false;
                };
                // The leftmost place of each piece leaves the most room for the next.
                for piece in middle {
                    match rest.find(&**piece) {
                        Some(at) => rest = &rest[at + piece.len()..],
                        None => return false,
                    }
                }
                true
            }
        }
    }
}

fn patterns(types: &[String]) -> Vec<TypePattern> {
    types.iter().map(|kind| TypePattern::new(kind)).collect()
}

fn sorted<T: Ord + Clone>(list: &[T]) -> Vec<T> {
    let mut list = list.to_vec();
    list.sort_unstable();
    list
}

fn holds<T, Q>(sorted: &[T], wanted: &Q) -> bool
where
    T: std::borrow::Borrow<Q>,
    Q: Ord + ?Sized,
{
    sorted.binary_search_by(|item| item.borrow().cmp(wanted)).is_ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::rules::test_room::TestRoom;

    fn filter(value: Value) -> EventFilter {
        EventFilter::room(&serde_json::from_value(value).unwrap())
    }

    #[test]
    fn each_list_lets_through_what_it_names_and_its_opposite_wins() {
        let room = TestRoom::new("10");
        let text = room.message("@a:one", json!({"body": "x"}));
        let file = room.message("@b:one", json!({"url": "mxc://one/x"}));
        for (value, admits_text, admits_file) in [
            (json!({}), true, true),
            (json!({"types": ["m.room.*"]}), true, true),
            (json!({"types": []}), false, false),
            (json!({"types": ["m.room.member"]}), false, false),
            (json!({"types": ["*"], "not_types": ["m.*.message"]}), false, false),
            (json!({"senders": ["@a:one"]}), true, false),
            (json!({"not_senders": ["@a:one"]}), false, true),
            (json!({"senders": ["@a:one", "@b:one"], "not_senders": ["@b:one"]}), true, false),
            (json!({"rooms": ["!r:one"]}), true, true),
            (json!({"rooms": ["!other:one"]}), false, false),
            (json!({"rooms": ["!r:one"], "not_rooms": ["!r:one"]}), false, false),
            (json!({"contains_url": true}), false, true),
            (json!({"contains_url": false}), true, false),
        ] {
            let filter = filter(value.clone());
            assert_eq!(filter.admits(&text), admits_text, "{value}");
            assert_eq!(filter.admits(&file), admits_file, "{value}");
            assert!(!filter.admits_all() || value == json!({}));
            assert!(!filter.admits_none() || !(admits_text || admits_file));
        }
    }

    #[test]
    fn events_are_let_through_by_their_kind_of_relation() {
        let room = TestRoom::new("11");
        let plain = room.message("@a:one", json!({"body": "x"}));
        let related = |rel_type: &str| {
            let relates = json!({"rel_type": rel_type, "event_id": plain.event_id});
            room.message("@a:one", json!({"m.relates_to": relates}))
        };
        let (thread, reference) = (related("m.thread"), related("m.reference"));
        let (wanted, unwanted) =
            ("org.matrix.msc3874.rel_types", "org.matrix.msc3874.not_rel_types");
        for (selection, expected) in [
            (json!({}), [true, true, true]),
            (json!({wanted: ["m.thread"]}), [false, true, false]),
            (json!({wanted: []}), [false, false, false]),
            (json!({unwanted: ["m.thread"]}), [true, false, true]),
            (json!({wanted: ["m.thread"], unwanted: ["m.thread"]}), [false, false, false]),
        ] {
            let relations = serde_json::from_value(selection.clone()).unwrap();
            let filter = filter(json!({})).with_relations(relations);
            let admitted = [&plain, &thread, &reference].map(|event| filter.admits(event));
            assert_eq!(admitted, expected, "{selection}");
            assert_eq!(filter.admits_all(), selection == json!({}));
        }
    }

    #[test]
    fn wildcards_stand_for_any_characters_also_none() {
        for (pattern, kind, matches) in [
            ("m.room.message", "m.room.message", true),
            ("m.room.message", "m.room.messages", false),
            ("m.room.*", "m.room.", true),
            ("*message", "m.room.message", true),
            ("m.*room*", "m.room", true),
            ("m*m", "m", false),
            ("a*b*c", "aXbYbZc", true),
            ("a*b*c", "aXc", false),
            ("**", "", true),
            ("M.*", "m.room", false),
        ] {
            assert_eq!(TypePattern::new(pattern).matches(kind), matches, "{pattern} {kind}");
        }
    }

    /// The plainest possible matcher, to compare with.
    fn matches_plainly(pattern: &[u8], text: &[u8]) -> bool {
        match (pattern.split_first(), text.split_first()) {
            (None, rest) => rest.is_none(),
            (Some((b'*', pattern)), rest) => {
                matches_plainly(pattern, text)
                    || rest
                        .is_some_and(|(_, rest)| matches_plainly(&[b"*", pattern].concat(), rest))
            }
            (Some((p, pattern)), Some((t, text))) => p == t && matches_plainly(pattern, text),
            (Some(_), None) => false,
        }
    }

    proptest! {
        #[test]
        fn patterns_match_as_their_meaning_says(pattern in "[ab*]{0,7}", kind in "[ab]{0,9}") {
            prop_assert_eq!(
                TypePattern::new(&pattern).matches(&kind),
                matches_plainly(pattern.as_bytes(), kind.as_bytes())
            );
        }
    }
}
