//! How events relate to others: reactions, edits, references and threads (spec: Forming
//! relationships between events).

use std::borrow::Cow;

use ruma::{EventId, OwnedEventId, events::TimelineEventType};
use serde::Deserialize;

use crate::pdu::Pdu;

/// The kind of a relation.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RelationKind {
    /// `m.annotation`: a reaction, grouped by type and `key`.
    Annotation,
    /// `m.replace`: an edit.
    Replace,
    /// `m.reference`.
    Reference,
    /// `m.thread`.
    Thread,
    /// Any other; followed by `/relations`, never aggregated.
    Other(String),
}

impl RelationKind {
    /// The `rel_type` on the wire.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Annotation => "m.annotation",
            Self::Replace => "m.replace",
            Self::Reference => "m.reference",
            Self::Thread => "m.thread",
            Self::Other(name) => name,
        }
    }
}

impl From<&str> for RelationKind {
    fn from(name: &str) -> Self {
        match name {
            "m.annotation" => Self::Annotation,
            "m.replace" => Self::Replace,
            "m.reference" => Self::Reference,
            "m.thread" => Self::Thread,
            other => Self::Other(other.to_owned()),
        }
    }
}

/// What an event says in `m.relates_to` about its relation to another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Relation {
    /// The kind of relation.
    pub kind: RelationKind,
    /// The event related to (the "parent"; the root for a thread).
    pub parent: OwnedEventId,
    /// The key of an annotation, by which annotations are grouped.
    pub key: Option<String>,
}

#[derive(Deserialize)]
struct Content<'a> {
    #[serde(borrow, rename = "m.relates_to")]
    relates_to: Option<&'a serde_json::value::RawValue>,
}

#[derive(Deserialize)]
struct RelatesTo<'a> {
    #[serde(borrow)]
    rel_type: Option<Cow<'a, str>>,
    event_id: Option<OwnedEventId>,
    #[serde(borrow)]
    key: Option<Cow<'a, str>>,
    #[serde(borrow, rename = "m.in_reply_to")]
    in_reply_to: Option<InReplyTo<'a>>,
}

#[derive(Deserialize)]
struct InReplyTo<'a> {
    #[serde(borrow)]
    event_id: Option<Cow<'a, str>>,
}

impl Relation {
    /// The relation that `event` declares; `None` where it declares none, or a malformed one. State
    /// events cannot relate to others.
    pub fn of(event: &Pdu) -> Option<Self> {
        if event.is_state() || !event.content.get().contains("m.relates_to") {
            return None;
        }
        Self::in_content(event.content.get())
    }

    /// The relation declared in the text of an event's content.
    pub fn in_content(content: &str) -> Option<Self> {
        let relates = relates_to(content)?;
        Some(Self {
            kind: RelationKind::from(relates.rel_type?.as_ref()),
            parent: relates.event_id?,
            key: relates.key.map(Cow::into_owned),
        })
    }

    /// Whether the relation counts towards what is bundled with its parent, and is followed by
    /// threads: the parent must be in the same room, and its kind of relation must be possible.
    pub fn is_valid(&self, event: &Pdu, parent: &Pdu) -> bool {
        if event.room_id != parent.room_id || event.event_id == parent.event_id {
            return false;
        }
        match &self.kind {
            RelationKind::Replace => is_valid_edit(event, parent),
            RelationKind::Annotation => self.key.is_some() && can_be_annotated(parent),
            // A thread's root must not relate to anything by itself.
            RelationKind::Thread => Self::of(parent).is_none(),
            RelationKind::Reference | RelationKind::Other(_) => true,
        }
    }
}

/// Whether `edit`, an event that declares to replace `original`, does so: same room, type and sender,
/// neither is state, the original is no edit, and there is new content or encryption (spec: Validity
/// of replacement events).
pub fn is_valid_edit(edit: &Pdu, original: &Pdu) -> bool {
    #[derive(Deserialize)]
    struct Edit {
        #[serde(rename = "m.new_content")]
        new_content: Option<serde_json::Map<String, serde_json::Value>>,
    }
    let has_content = || {
        edit.kind == TimelineEventType::RoomEncrypted
            || edit.content_as::<Edit>().is_ok_and(|content| content.new_content.is_some())
    };
    edit.room_id == original.room_id
        && edit.sender == original.sender
        && edit.kind == original.kind
        && !edit.is_state()
        && !original.is_state()
        && Relation::of(original).is_none_or(|relation| relation.kind != RelationKind::Replace)
        && has_content()
}

/// Neither annotations nor edits can be annotated; the original event is.
fn can_be_annotated(event: &Pdu) -> bool {
    !Relation::of(event).is_some_and(|relation| {
        matches!(relation.kind, RelationKind::Annotation | RelationKind::Replace)
    })
}

/// The event that `event` is a reply to, if any.
pub fn reply_to(event: &Pdu) -> Option<OwnedEventId> {
    let relates = relates_to(event.content.get())?;
    EventId::parse(relates.in_reply_to?.event_id?).ok()
}

/// How many relations are followed from an event to its thread (spec: Threading, server behaviour).
const THREAD_HOPS_MAX: usize = 3;

/// The root of the thread that `event` belongs to; `None` for the main timeline. An event is in a
/// thread by relating to its root, or by relating to an event in it (a reaction to or an edit of a
/// threaded message), for a few steps. `relation` looks up what another event of the room declares.
/// A root itself belongs to the main timeline.
pub fn thread_of(
    event: &Pdu,
    mut relation: impl FnMut(&EventId) -> Option<Relation>,
) -> Option<OwnedEventId> {
    let mut current = Relation::of(event)?;
    for _ in 0..THREAD_HOPS_MAX {
        if current.kind == RelationKind::Thread {
            return Some(current.parent);
        }
        current = relation(&current.parent)?;
    }
    (current.kind == RelationKind::Thread).then_some(current.parent)
}

fn relates_to(content: &str) -> Option<RelatesTo<'_>> {
    let content: Content<'_> = serde_json::from_str(content).ok()?;
    serde_json::from_str(content.relates_to?.get()).ok()
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use serde_json::{Value, json};

    use super::*;
    use crate::rules::test_room::TestRoom;

    fn related(rel_type: &str, to: &Pdu, extra: Value) -> Value {
        let mut content = json!({"m.relates_to": {"rel_type": rel_type, "event_id": to.event_id}});
        for (key, value) in extra.as_object().unwrap() {
            content["m.relates_to"][key] = value.clone();
        }
        content
    }

    fn edit(to: &Pdu) -> Value {
        let mut content = related("m.replace", to, json!({}));
        content["m.new_content"] = json!({"body": "better"});
        content
    }

    #[test]
    fn a_relation_is_read_from_the_content_of_message_events_only() {
        let room = TestRoom::new("11");
        let parent = room.message("@a:one", json!({"body": "x"}));
        let content = related("m.annotation", &parent, json!({"key": "👍"}));
        let relation = Relation::of(&room.message("@b:one", content.clone())).unwrap();
        assert_eq!(relation.kind, RelationKind::Annotation);
        assert_eq!((&relation.parent, relation.key.as_deref()), (&parent.event_id, Some("👍")));
        assert_eq!(Relation::of(&room.state("x", "", "@b:one", content)), None);
        for broken in [
            json!({"m.relates_to": "x"}),
            json!({"m.relates_to": {"rel_type": "m.thread"}}),
            json!({"m.relates_to": {"event_id": "$x"}}),
            json!({"m.relates_to": {"rel_type": "m.thread", "event_id": "x"}}),
            json!({"m.relates_to": {"rel_type": 1, "event_id": "$x"}}),
        ] {
            assert_eq!(Relation::of(&room.message("@b:one", broken.clone())), None, "{broken}");
        }
    }

    #[test]
    fn an_edit_is_valid_only_of_ones_own_unedited_message_of_the_same_type() {
        let room = TestRoom::new("11");
        let original = room.message("@a:one", json!({"body": "x"}));
        let good = room.message("@a:one", edit(&original));
        assert!(is_valid_edit(&good, &original));
        let others = room.message("@b:one", edit(&original));
        let no_content = room.message("@a:one", related("m.replace", &original, json!({})));
        let other_type = room
            .event(json!({"type": "m.sticker", "sender": "@a:one", "content": edit(&original)}));
        let of_edit = room.message("@a:one", edit(&good));
        for (bad, of) in [
            (&others, &original),
            (&no_content, &original),
            (&other_type, &original),
            (&of_edit, &good),
        ] {
            assert!(!is_valid_edit(bad, of), "{}", bad.json());
        }
        let state = room.state("m.room.message", "", "@a:one", json!({}));
        assert!(!is_valid_edit(&room.message("@a:one", edit(&state)), &state));
    }

    #[test]
    fn relations_count_only_where_they_are_possible() {
        let room = TestRoom::new("11");
        let root = room.message("@a:one", json!({"body": "x"}));
        let reaction = room.message("@b:one", related("m.annotation", &root, json!({"key": "k"})));
        let threaded = room.message("@b:one", related("m.thread", &root, json!({})));
        let edited = room.message("@a:one", edit(&root));
        for (content, parent, valid) in [
            (related("m.annotation", &root, json!({"key": "k"})), &root, true),
            (related("m.annotation", &root, json!({})), &root, false),
            (related("m.annotation", &reaction, json!({"key": "k"})), &reaction, false),
            (related("m.annotation", &edited, json!({"key": "k"})), &edited, false),
            (related("m.thread", &root, json!({})), &root, true),
            (related("m.thread", &threaded, json!({})), &threaded, false),
            (related("m.reference", &threaded, json!({})), &threaded, true),
            (related("org.example", &root, json!({})), &root, true),
        ] {
            let event = room.message("@c:one", content.clone());
            assert_eq!(Relation::of(&event).unwrap().is_valid(&event, parent), valid, "{content}");
        }
        let elsewhere = TestRoom::new("12").message("@a:one", json!({}));
        let event = room.message("@c:one", related("m.reference", &elsewhere, json!({})));
        assert!(!Relation::of(&event).unwrap().is_valid(&event, &elsewhere));
    }

    #[test]
    fn events_belong_to_the_thread_of_what_they_relate_to_a_few_steps_away() {
        let room = TestRoom::new("11");
        let root = room.message("@a:one", json!({"body": "root"}));
        let mut events = vec![room.message("@a:one", related("m.thread", &root, json!({})))];
        for _ in 0..4 {
            let content = related("m.reference", events.last().unwrap(), json!({}));
            events.push(room.message("@a:one", content));
        }
        let declared: HashMap<_, _> = events
            .iter()
            .map(|event| (event.event_id.clone(), Relation::of(event).unwrap()))
            .collect();
        let thread = |event: &Pdu| thread_of(event, |id| declared.get(id).cloned());
        for event in &events[..=3] {
            assert_eq!(thread(event).as_ref(), Some(&root.event_id));
        }
        assert_eq!(thread(&events[4]), None);
        assert_eq!(thread(&root), None);
        let reaction = room.message("@b:one", related("m.annotation", &root, json!({"key": "k"})));
        assert_eq!(thread(&reaction), None);
    }

    #[test]
    fn a_reply_is_found_with_and_without_a_relation() {
        let room = TestRoom::new("11");
        let reply = json!({"m.relates_to": {"m.in_reply_to": {"event_id": "$x"}}});
        let event = room.message("@a:one", reply);
        assert_eq!(reply_to(&event).unwrap(), "$x");
        assert_eq!(Relation::of(&event), None);
    }
}
