//! Notifications for push gateways (spec: Push Gateway API).

use std::{borrow::Borrow, collections::HashMap};

use millrace_domain::unread::UnreadError;
use millrace_store::{
    Read, Snapshot,
    tables::{CURRENT_STATE, MEMBERS, ROOM_HEAD},
};
use ruma::{
    OwnedRoomId, RoomId, UserId,
    events::TimelineEventType,
    push::{Action, Tweak},
};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::{
    Badge, Pushers,
    board::Target,
    step::{RoomPush, Sent, To, coalesce},
};

/// What a room and its members are called.
#[derive(Default)]
pub(crate) struct Names {
    /// `m.room.name`.
    pub room: Option<String>,
    /// `m.room.canonical_alias`.
    pub alias: Option<String>,
    /// The sender's name in the room.
    pub sender: Option<String>,
}

impl Pushers {
    /// Sends news to a gateway, or the badge alone where that has changed.
    pub(crate) async fn send_http(
        &self,
        to: To<'_>,
        url: &str,
        (pushes, read): (Vec<RoomPush>, bool),
        badge: Option<u64>,
    ) -> Result<Sent, UnreadError> {
        let To { snapshot, user, target } = to;
        let total = self.unreads.total(&self.rooms, snapshot, user).await?;
        let unread = match self.settings.badge {
            Badge::Messages => total.events,
            Badge::Rooms => total.rooms,
        };
        let pushes = coalesce(pushes);
        let mut told = badge;
        for (at, push) in pushes.iter().enumerate() {
            let body = self.notification(to, push, unread).await?;
            match self.gateways.notify(url, body.to_string()).await {
                Ok(rejected) if rejected.contains(&target.pushkey) => return Ok(Sent::Rejected),
                Ok(_) => told = Some(unread),
                Err(error) => {
                    tracing::debug!(%error, %user, "a push gateway has not taken a notification");
                    let left = places(&pushes[at..]);
                    return Ok(Sent::Failed { left, badge: told, after: error.after });
                }
            }
        }
        let changed = told.map_or(read, |told| told != unread);
        if pushes.is_empty() && changed {
            let body = badge_only(target, unread);
            match self.gateways.notify(url, body.to_string()).await {
                Ok(rejected) if rejected.contains(&target.pushkey) => return Ok(Sent::Rejected),
                Ok(_) => told = Some(unread),
                Err(error) => {
                    let left = HashMap::new();
                    return Ok(Sent::Failed { left, badge: told, after: error.after });
                }
            }
        }
        Ok(Sent::All { badge: told })
    }

    async fn notification(
        &self,
        To { snapshot, user, target }: To<'_>,
        push: &RoomPush,
        unread: u64,
    ) -> Result<Value, UnreadError> {
        let pdu = &push.pushed.event.pdu;
        let tweaks = tweaks(&push.pushed.actions);
        let encrypted = pdu.kind == TimelineEventType::RoomEncrypted;
        let urgent = encrypted || push.pushed.highlight || tweaks.contains_key("sound");
        let prio = if urgent { "high" } else { "low" };
        let ids_only = !self.settings.include_content
            || target.data.get("format").and_then(Value::as_str) == Some("event_id_only");
        let mut notification = json!({
            "event_id": pdu.event_id,
            "room_id": push.room,
            "prio": prio,
            "counts": { "unread": unread },
            "devices": [device(target, tweaks)],
        });
        if ids_only {
            return Ok(json!({ "notification": notification }));
        }
        let names = self.names(snapshot, &push.room, &pdu.sender).await?;
        let mut put = |key: &str, value: Value| notification[key] = value;
        put("type", pdu.kind.to_string().into());
        put("sender", pdu.sender.as_str().into());
        let content: Value = serde_json::from_str(pdu.content.get()).unwrap_or_default();
        if pdu.kind == TimelineEventType::RoomMember {
            put("user_is_target", (pdu.state_key.as_deref() == Some(user.as_str())).into());
            if let Some(membership) = content.get("membership") {
                put("membership", membership.clone());
            }
        }
        put("content", content);
        for (key, name) in [
            ("sender_display_name", names.sender),
            ("room_name", names.room),
            ("room_alias", names.alias),
        ] {
            if let Some(name) = name {
                put(key, name.into());
            }
        }
        Ok(json!({ "notification": notification }))
    }

    /// What a room and one of its members are called now.
    pub(crate) async fn names(
        &self,
        snapshot: &Snapshot,
        room: &RoomId,
        sender: &UserId,
    ) -> Result<Names, UnreadError> {
        #[derive(Deserialize)]
        struct Content {
            name: Option<String>,
            alias: Option<String>,
            displayname: Option<String>,
        }
        let Some(head) = snapshot.get(&ROOM_HEAD, room, ()).await? else {
            return Ok(Names::default());
        };
        let places = [("m.room.name", ""), ("m.room.canonical_alias", "")];
        let mut numbers = snapshot.get_many(&CURRENT_STATE, room, places).await?;
        numbers.push(snapshot.get(&MEMBERS, room, sender).await?.map(|member| member.event));
        let mut contents = Vec::new();
        for number in numbers {
            contents.push(match number {
                Some(number) => {
                    let events = &self.rooms.events;
                    let event = events.load_one(snapshot, room, &head.version, number).await?;
                    event.pdu.content_as::<Content>().ok()
                }
                None => None,
            });
        }
        let mut contents = contents.into_iter();
        let mut next = |part: fn(Content) -> Option<String>| {
            let text = contents.next().flatten().and_then(part);
            text.filter(|text| !text.is_empty())
        };
        let room = next(|content| content.name);
        let alias = next(|content| content.alias);
        Ok(Names { room, alias, sender: next(|content| content.displayname) })
    }
}

/// The badge, and nothing to show.
fn badge_only(target: &Target, unread: u64) -> Value {
    json!({ "notification": {
        "prio": "low",
        "counts": { "unread": unread },
        "devices": [device(target, Map::new())],
    } })
}

fn device(target: &Target, tweaks: Map<String, Value>) -> Value {
    let mut device = json!({
        "app_id": target.app_id,
        "pushkey": target.pushkey,
        "pushkey_ts": target.set_ms / 1000,
        "data": target.data,
    });
    if !tweaks.is_empty() {
        device["tweaks"] = tweaks.into();
    }
    device
}

fn tweaks(actions: &[Action]) -> Map<String, Value> {
    let mut tweaks = Map::new();
    for action in actions {
        let Action::SetTweak(tweak) = action else { continue };
        match tweak {
            Tweak::Sound(sound) => {
                if let Ok(sound) = serde_json::to_value(sound) {
                    tweaks.insert("sound".to_owned(), sound);
                }
            }
            Tweak::Highlight(_) => {
                tweaks.insert("highlight".to_owned(), action.is_highlight().into());
            }
            _ => {}
        }
    }
    tweaks
}

/// The first place of each room.
pub(crate) fn places<T: Borrow<RoomPush>>(pushes: &[T]) -> HashMap<OwnedRoomId, i64> {
    let mut places = HashMap::new();
    for push in pushes {
        let RoomPush { room, pushed } = push.borrow();
        let first = places.entry(room.clone()).or_insert(pushed.n);
        *first = (*first).min(pushed.n);
    }
    places
}
