//! What of an event can be searched for (spec: Client-Server API, Search Categories).

use millrace_model::{
    Pdu,
    relations::{Relation, RelationKind},
};
use ruma::events::TimelineEventType;
use serde::Deserialize;

#[derive(Deserialize)]
struct MessageContent {
    body: Option<String>,
    #[serde(rename = "m.new_content")]
    new_content: Option<NewContent>,
}

#[derive(Deserialize)]
struct NewContent {
    body: Option<String>,
}

#[derive(Deserialize)]
struct NameContent {
    name: Option<String>,
}

#[derive(Deserialize)]
struct TopicContent {
    topic: Option<String>,
    #[serde(default, rename = "m.topic")]
    block: Option<TopicBlock>,
}

#[derive(Deserialize)]
struct TopicBlock {
    #[serde(default, rename = "m.text")]
    texts: Vec<Representation>,
}

#[derive(Deserialize)]
struct Representation {
    body: String,
    mimetype: Option<String>,
}

/// The text of a message, of a room's name or of its topic. That of an edit is what it makes of the
/// event that it replaces.
pub(crate) fn text_of(pdu: &Pdu) -> Option<String> {
    let text = match (&pdu.kind, pdu.state_key.as_deref()) {
        (TimelineEventType::RoomMessage, None) => {
            let content: MessageContent = pdu.content_as().ok()?;
            let is_edit =
                Relation::of(pdu).is_some_and(|relation| relation.kind == RelationKind::Replace);
            if is_edit { content.new_content?.body? } else { content.body? }
        }
        (TimelineEventType::RoomName, Some("")) => pdu.content_as::<NameContent>().ok()?.name?,
        (TimelineEventType::RoomTopic, Some("")) => {
            let content: TopicContent = pdu.content_as().ok()?;
            let is_plain = |text: &Representation| {
                text.mimetype.as_deref().is_none_or(|mimetype| mimetype == "text/plain")
            };
            let plain = content.block.and_then(|block| block.texts.into_iter().find(is_plain));
            let (topic, plain) = (content.topic.unwrap_or_default(), plain.map(|text| text.body));
            match plain {
                Some(plain) if plain != topic => format!("{topic}\n{plain}"),
                _ => topic,
            }
        }
        _ => return None,
    };
    (!text.trim().is_empty()).then_some(text)
}

#[derive(Deserialize)]
struct JoinRule {
    join_rule: String,
}

#[derive(Deserialize)]
struct Visibility {
    history_visibility: String,
}

/// Whether a state event, the join rule or the history visibility, opens its room to everybody.
pub(crate) fn public_room(pdu: &Pdu) -> bool {
    match pdu.kind {
        TimelineEventType::RoomJoinRules => {
            pdu.content_as::<JoinRule>().is_ok_and(|content| content.join_rule == "public")
        }
        TimelineEventType::RoomHistoryVisibility => pdu
            .content_as::<Visibility>()
            .is_ok_and(|content| content.history_visibility == "world_readable"),
        _ => false,
    }
}
